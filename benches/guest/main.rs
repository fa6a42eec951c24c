//! What a guest on KVM pays: exits, commands, capacity that comes, loads and stores through the window.
//!
//! ```text
//!  guest ── store ──▶ slot                  nothing runs but the processor
//!        ── store ──▶ exit ──▶ platform     what a command takes a few of, however long it is
//! ```
//!
//! 1 exits, 2 commands, 3 the extent list, 4 from an add to the first store, 5 sweeps, 6 slots beside other slots. Beside each
//! figure: what the machine takes for it in the same run. Medians. `cargo bench --bench guest -- 4` measures only that. Without
//! `/dev/kvm` it says so, and measures nothing.

mod alone;
#[path = "../outside/asked.rs"]
mod asked;
mod bare;
mod capacity;
mod commands;
mod machine;
#[path = "../outside/report.rs"]
mod report;
mod sweeps;

use asked::Asked;
use bare::Bare;

fn main() {
    let facts = match vm::probe() {
        Ok(facts) => facts,
        Err(error) => {
            println!("not measured: {error}");
            return;
        }
    };
    println!("{facts}");
    let asked = Asked::of_arguments();
    let bare = Bare::measure();
    let mut rows = Vec::new();
    if asked.any_of(&["1"]) {
        rows.extend(bare.rows());
    }
    if asked.any_of(&["2", "3"]) {
        rows.extend(commands::measure(&bare));
    }
    if asked.any_of(&["4"]) {
        rows.extend(capacity::measure(&bare));
    }
    if asked.any_of(&["5"]) {
        rows.extend(sweeps::measure());
    }
    if asked.any_of(&["6"]) {
        rows.extend(bare::slots_beside_others());
    }
    report::print_table(&rows);
}
