//! Power cuts: whatever the journal called durable is on the disk when the power is gone.
//!
//! ```text
//! writer process ─▶ ext4 ─▶ loop device ─▶ image       SIGSTOP at a random moment, read what was acknowledged,
//!       └─ acknowledged #N ─▶ a file elsewhere          copy the image, mount the copy (ext4 replays), open the journal
//! ```
//!
//! The copy has what reached the loop device and nothing that was only in the page cache of the ext4 above it. Absent on
//! purpose: a drive that loses its own cache (the copy has every write the drive took), and `kill -9`, which loses less.
//!
//! Needs root, a free loop device and mkfs.ext4, else it says so and passes, except under `CI=true` as root.
//! `DCD_POWER_CUTS=60` cuts more often; `DCD_ENDS_DURABILITY=process` shows what is lost without a sync to disk.

use std::env;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use journal::{CloseReason, Journal, Options};

use crate::chance::Chance;
use crate::disk::Disk;
use crate::writer::{Writer, body, verify};

const CUTS: &str = "DCD_POWER_CUTS";

const SMALL_IMAGE_LEN_BYTES: u64 = 64 << 20;
const BALLAST_LEN_BYTES: usize = 8 << 20;
/// Slower writers leave the kernel time to write everything back, and the test would pass without a sync.
const RECORDS_PER_SECOND_MIN: f64 = 1_000.0;
const CUT_AFTER_MS_MAX: u64 = 1_200;
const EARLY_CUT_AFTER_MS_MAX: u64 = 15;

#[test]
fn what_is_durable_survives_power_cuts() {
    let root = rustix::process::geteuid().is_root();
    if let Err(missing) = Disk::format().map(drop) {
        assert!(!(root && env::var("CI").as_deref() == Ok("true")), "no power can be cut here: {missing}");
        eprintln!("skipped, no power can be cut here: {missing}");
        return;
    }
    let cuts = env::var(CUTS).ok().map_or(6, |cuts| cuts.parse().expect("a number of cuts"));
    let mut chance = Chance::new();
    let mut tally = Tally::default();
    let mut survivor = None;
    for cut in 0..cuts {
        // A new disk; what the last cut left; a new disk, cut while the journal is being made.
        let (disk, cut_after_ms, early) = match (cut % 3, survivor.take()) {
            (1, Some(disk)) => (disk, chance.below(CUT_AFTER_MS_MAX), false),
            (2, _) => (Disk::format().expect("a disk"), chance.below(EARLY_CUT_AFTER_MS_MAX), true),
            _ => (Disk::format().expect("a disk"), chance.below(CUT_AFTER_MS_MAX), false),
        };
        let (acknowledged, copy) = run_and_cut(disk, Duration::from_millis(cut_after_ms), early, &mut tally);
        eprintln!("cut {cut} after {cut_after_ms} ms:");
        verify(&copy.journal_dir(), acknowledged);
        survivor = Some(copy);
    }
    let rate = tally.records as f64 / tally.time.as_secs_f64();
    eprintln!("{} records were acknowledged, {rate:.0}/s", tally.records);
    assert!(cuts < 2 || rate >= RECORDS_PER_SECOND_MIN, "{rate:.0} records/s are too few to find anything");
}

#[test]
fn a_full_disk_is_a_final_failure_that_loses_nothing_durable() {
    let disk = match Disk::format_sized(SMALL_IMAGE_LEN_BYTES) {
        Ok(disk) => disk,
        Err(missing) => return eprintln!("skipped, no disk can be filled here: {missing}"),
    };
    // Opening takes room too: sled begins a segment.
    let ballast = disk.mount_point().join("ballast");
    fs::write(&ballast, vec![0; BALLAST_LEN_BYTES]).expect("room for the ballast");
    let journal = Journal::create(&disk.journal_dir(), b"genesis", Options::default()).expect("a new journal");
    let failed = loop {
        let appended = journal.append(|stamp| (body(stamp.seq.0 * 500), ()));
        if let Err(failed) = appended.and_then(|_| journal.flush()) {
            break failed;
        }
    };
    assert!(matches!(failed.reason, CloseReason::Store(_)), "{failed}");
    assert_eq!(journal.durable(), failed.last_durable);
    drop(journal);

    fs::remove_file(&ballast).expect("the ballast");
    let kept = journal::read(&disk.journal_dir());
    let last = kept.as_ref().map(|kept| kept.last);
    eprintln!("{failed}; {last:?} is there");
    assert!(last.is_ok_and(|last| last >= failed.last_durable));
}

/// How fast writers were, early cuts apart.
#[derive(Default)]
struct Tally {
    records: u64,
    time: Duration,
}

/// Runs a writer on the disk, stops it, and returns what it had acknowledged (`None`: not even a journal) with the disk
/// as the power cut left it.
fn run_and_cut(disk: Disk, cut_after: Duration, early: bool, tally: &mut Tally) -> (Option<u64>, Disk) {
    let writer = Writer::start(&disk.journal_dir());
    let (began, before) = (Instant::now(), if early { None } else { Some(writer.wait_for_journal()) });
    let writing = Instant::now();
    thread::sleep(cut_after);
    writer.stop();
    let ran = if early { began.elapsed() } else { writing.elapsed() };
    let acknowledged = writer.acknowledged();
    if let (Some(before), Some(after)) = (before, acknowledged) {
        tally.records += after - before;
        tally.time += ran;
    }
    let copy = disk.copy();
    drop(writer);
    drop(disk);
    (acknowledged, copy.mount().expect("ext4 replays its journal"))
}
