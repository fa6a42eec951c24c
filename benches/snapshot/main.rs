//! What it takes to stop, copy, carry and continue a VM of ten thousand extents.
//!
//! ```text
//!  guest runs ── pause ── guest runs           1 a snapshot       bytes are copied before it and packed behind it
//!  snapshot ──────────────▶ first exit         2, 3 a restore     bytes are read when they are touched
//!  guest runs here ── pause ── runs there      4 a hand-over
//! ```
//!
//! 1 the pause of a snapshot, 2 a lazy restore to the guest's first exit, 3 the same of 8 GiB against 128 MiB, 4 the pause of a
//! hand-over, 5 the bytes of a snapshot beside contents. Beside each figure: what the machine takes for it in the same run.
//! `cargo bench --bench snapshot -- 1 3` measures only those. Without `/dev/kvm` it says so, and measures nothing.
//!
//! *The extents* are those of four tags of 2,500 each, of equal length but for a block. A host gets the extents of a tag one
//! behind the other: they are four slots. Apart, with a block of nothing behind each, they are 10,000 slots, which is measured
//! beside.

#[path = "../guest/alone.rs"]
mod alone;
#[path = "../outside/asked.rs"]
mod asked;
mod floors;
mod hand_over;
mod machine;
mod pause;
#[path = "../outside/report.rs"]
mod report;
mod restore;
mod sample;
mod size;

use asked::Asked;

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
    let mut rows = Vec::new();
    if asked.any_of(&["1"]) {
        rows.extend(pause::measure());
    }
    if asked.any_of(&["2"]) {
        rows.extend(restore::measure());
    }
    if asked.any_of(&["3"]) {
        rows.extend(restore::by_bytes());
    }
    if asked.any_of(&["4"]) {
        rows.extend(hand_over::measure());
    }
    if asked.any_of(&["5"]) {
        rows.extend(size::measure());
    }
    report::print_table(&rows);
}
