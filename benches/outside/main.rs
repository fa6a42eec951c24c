//! `dcd` as an outside driver sees it: the program as a process, its host behind the qtest socket, its operator behind
//! the QMP socket, on the disk that the build is on.
//!
//! ```text
//!  operator ── QMP ──▶ ┌─────────┐ ◀── qtest ── driver
//!                      │ dcd run │
//!                      └─────────┘ ──▶ journal
//! ```
//!
//! 1 from an add to the first access, 2 QMP requests, 3 the extent list, 4 growth with the extents that the host holds,
//! 5 the start. Beside each figure: what the machine takes for it in the same run, and what QEMU takes for the same,
//! measured with a driver of the same kind on a machine like this one; what is aimed at is a fifth of that. Figures are
//! medians. `cargo bench --bench outside -- 3 5` measures only those.

mod asked;
mod crowd;
mod floors;
mod flow;
mod growth;
mod guest;
mod list;
mod program;
mod qemu;
mod report;
mod startup;

use asked::Asked;
use floors::Floors;

fn main() {
    let asked = Asked::of_arguments();
    let floors = Floors::measure();
    let Floors { fdatasync, echo, readl, exec } = floors;
    println!(
        "floors: fdatasync {fdatasync:.1} us, socket echo {echo:.1} us, qtest readl {readl:.1} us, exec {exec:.1} us"
    );
    let mut rows = Vec::new();
    if asked.any_of(&["1", "2"]) {
        rows.extend(flow::measure(&floors));
    }
    if asked.any_of(&["3"]) {
        rows.extend(list::measure(&floors));
    }
    if asked.any_of(&["4"]) {
        rows.extend(growth::measure());
    }
    if asked.any_of(&["5"]) {
        rows.extend(startup::measure(&floors));
    }
    report::print_table(&rows);
}
