//! `kill -9`: whatever the journal called durable is there when its process is gone, however often that happens.
//!
//! ```text
//! writer process ─▶ one directory for all its lives      SIGKILL at a random moment, read what was acknowledged, open, compare,
//!       └─ acknowledged #N ─▶ a file elsewhere           go on from there
//! ```
//!
//! `DCD_KILLS=1000` kills more often.

use std::env;
use std::thread;
use std::time::Duration;

use crate::chance::Chance;
use crate::writer::{Writer, verify};

const KILLS: &str = "DCD_KILLS";
const KILL_AFTER_MS_MAX: u64 = 250;
/// Early ones meet the making and the opening of a journal.
const EARLY_KILL_AFTER_MS_MAX: u64 = 12;

#[test]
fn what_is_durable_survives_kill_9() {
    let kills: u64 = env::var(KILLS).ok().map_or(25, |kills| kills.parse().expect("a number of kills"));
    let folder = tempfile::tempdir().expect("a directory");
    let mut chance = Chance::new();
    let (mut known, mut sealed) = (None, 0);
    for kill in 0..kills {
        // Every tenth life is a new journal's first.
        if kill % 10 == 0 {
            known = None;
        }
        let dir = folder.path().join((kill / 10).to_string());
        let writer = Writer::start(&dir);
        let early = chance.below(4) == 0;
        let after_ms = if early {
            chance.below(EARLY_KILL_AFTER_MS_MAX)
        } else {
            writer.wait_for_journal();
            chance.below(KILL_AFTER_MS_MAX)
        };
        thread::sleep(Duration::from_millis(after_ms));
        // A life that ends before it has opened the journal acknowledges nothing; what was known before stays so.
        let acknowledged = writer.kill().max(known);
        eprintln!("kill {kill} after {after_ms} ms:");
        known = verify(&dir, acknowledged);
        sealed += usize::from(dir.join("sealed").is_dir());
    }
    // What is sealed, removed and gone over to is what there is to be met.
    assert!(kills < 20 || sealed > 0, "no life of {kills} was long enough to seal anything");
}
