//! What a guest on KVM pays: exits, commands, capacity that comes, loads and stores through the window.
//!
//! ```text
//!  guest ── store ──▶ slot                  nothing runs but the processor
//!        ── store ──▶ exit ──▶ platform     what a command takes a few of, however long it is
//! ```
//!
//! 1 exits, 2 commands, 3 the extent list, 4 from an add to the first store, 5 sweeps, 6 slots beside other slots. Beside each figure: what the machine
//! takes for it in the same run. Medians. `cargo bench --bench guest -- 4` measures only that. Without `/dev/kvm` it says
//! so, and measures nothing.

mod bare;
mod capacity;
mod commands;
mod machine;
#[path = "../outside/report.rs"]
mod report;
mod sweeps;

use bare::Bare;

/// A directory on the disk that the build is on, so that it is that disk that is measured and not memory.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

fn main() {
    let facts = match vm::probe() {
        Ok(facts) => facts,
        Err(error) => {
            println!("not measured: {error}");
            return;
        }
    };
    println!("{facts}");
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_asked = |name: &str| asked.is_empty() || asked.iter().any(|asked| asked == name);
    let bare = Bare::measure();
    let mut rows = Vec::new();
    if is_asked("1") {
        rows.extend(bare.rows());
    }
    if is_asked("2") || is_asked("3") {
        rows.extend(commands::measure(&bare));
    }
    if is_asked("4") {
        rows.extend(capacity::measure(&bare));
    }
    if is_asked("5") {
        rows.extend(sweeps::measure());
    }
    if is_asked("6") {
        rows.extend(bare::slots_beside_others());
    }
    report::print_table(&rows);
}
