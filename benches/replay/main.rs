//! A journal of a million records: what it takes to write it, read it, fold it, check it and ask it.
//!
//! ```text
//!  traffic ──▶ journal ──▶ bodies ──▶ records ──▶ states ──▶ answers
//!                 1           1          1       2, 3         4, 5, 6
//! ```
//!
//! 1 stored, 2 folded and checked, 3 jumps, 4 why, 5 bisect, 6 shrink, 7 what recording costs a mailbox command, 8 what 64
//! waiting clients are to one, 9 a start after a crash. Beside each figure: what the machine takes for it in the same run.
//! Times are of all records. `cargo bench --bench replay -- 2 6` measures only those. Clients that wait behind QMP are in
//! `benches/clients.rs`.

#[path = "../outside/asked.rs"]
mod asked;
mod crash;
#[path = "../../tests/questions/field.rs"]
#[expect(dead_code, reason = "what the tests of questions need of a recording")]
mod field;
mod live;
mod questions;
#[path = "../outside/report.rs"]
mod report;
mod stored;
mod traffic;

use asked::Asked;

const RECORDS: usize = 1_000_000;

fn main() {
    let asked = Asked::of_arguments();
    let mut rows = Vec::new();
    if asked.any_of(&["1", "2", "3", "4", "5", "6", "9"]) {
        let field = traffic::traffic(RECORDS);
        if asked.any_of(&["1"]) {
            rows.extend(stored::measure(&field));
        }
        if asked.any_of(&["9"]) {
            rows.extend(crash::measure(&field));
        }
        if asked.any_of(&["2"]) {
            rows.extend(questions::folds(&field.genesis, &field.records));
        }
        if asked.any_of(&["3", "4", "5"]) {
            rows.extend(questions::positions(&field.genesis, &field.records));
        }
        if asked.any_of(&["6"]) {
            rows.extend(questions::shrinks(&field.genesis, &field.records));
        }
    }
    if asked.any_of(&["7"]) {
        rows.extend(live::mailbox());
    }
    if asked.any_of(&["8"]) {
        rows.extend(live::crowd());
    }
    report::print_table(&rows);
}
