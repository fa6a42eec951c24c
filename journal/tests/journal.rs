//! The journal as its users see it: on a real directory, on a faulty disk, with many threads.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use device::{Seq, Stamp, VmTime};
use journal::{
    CloseReason, Durability, Journal, JournalClosed, OpenError, Options, Recovered, StoreError,
    memory_store::{MemoryDisk, MemoryStore},
    store::{Key, Scan, Store},
};
use proptest::prelude::*;

/// A body that says where it belongs and how long it is.
fn body(seq: Seq, len: usize) -> Vec<u8> {
    seq.0.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn append(journal: &Journal, len: usize) -> Stamp {
    let (stamp, ()) = journal.append(|stamp| (body(stamp.seq, len), ())).expect("an open journal");
    stamp
}

fn refusal(journal: &Journal) -> JournalClosed {
    journal.append(|_| -> (Vec<u8>, ()) { panic!("a closed journal decides nothing") }).expect_err("closed")
}

fn assert_contiguous(recovered: &Recovered) {
    for (index, stored) in (1..).zip(&recovered.records) {
        assert_eq!(stored.seq, Seq(index));
        assert_eq!(stored.body, body(stored.seq, stored.body.len()));
    }
    assert_eq!(recovered.last, Seq(recovered.records.len() as u64));
}

fn reopened(disk: &MemoryDisk) -> Recovered {
    let (journal, recovered) = Journal::open_on(disk.store(), Options::default()).expect("opens");
    journal.close().expect("closes");
    assert_contiguous(&recovered);
    recovered
}

#[test]
fn a_reopened_journal_continues_sequence_and_chain() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path().join("journal");
    let journal = Journal::create(&dir, b"genesis", Options { record_version: 3, ..Options::default() }).expect("new");
    assert_eq!((journal.last(), journal.durable()), (Seq(0), Seq(0)));
    for len in [0, 100, 1 << 20] {
        append(&journal, len);
    }
    assert_eq!(journal.close().expect("flushed"), Seq(3));

    for round in 1..4 {
        let options = Options { record_version: 4, ..Options::default() };
        let (journal, recovered) = Journal::open(&dir, options).expect("opens");
        assert_contiguous(&recovered);
        assert_eq!((&recovered.genesis[..], recovered.genesis_version), (&b"genesis"[..], 3));
        assert_eq!((recovered.last, recovered.torn), (Seq(2 + round), None));
        assert_eq!(recovered.records.last().map(|stored| stored.version), Some(if round == 1 { 3 } else { 4 }));
        assert_eq!(append(&journal, 50).seq, Seq(3 + round));
        assert_eq!(journal.flush().expect("flushed"), journal.durable());
        drop(journal);
    }
    assert_eq!(journal::read(&dir).expect("whole").last, Seq(6));
    assert_eq!(std::fs::read_dir(dir.join("live/000001/blobs")).expect("listable").count(), 0);
}

#[test]
fn a_second_opening_is_held_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::create(dir.path(), b"", Options::default()).expect("new");
    let second = Journal::open(dir.path(), Options::default());
    assert!(matches!(&second, Err(OpenError::Held { dir: held }) if held == dir.path()), "{second:?}");
    assert!(matches!(journal::read(dir.path()), Err(OpenError::Held { .. })));
    assert!(matches!(Journal::create(dir.path(), b"", Options::default()), Err(OpenError::Exists { .. })));
    journal.close().expect("closes");
    journal::read(dir.path()).expect("free at once");
}

#[test]
fn a_directory_without_a_journal_stays_without() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(Journal::open(dir.path(), Options::default()), Err(OpenError::Missing { .. })));
    assert!(matches!(journal::salvage(&dir.path().join("nowhere")), Err(OpenError::Missing { .. })));
    assert_eq!(std::fs::read_dir(dir.path()).expect("listable").count(), 0);
}

#[test]
fn threads_share_a_gapless_row_and_the_callback_only_rises() {
    const THREADS: u64 = 8;
    const EACH: u64 = 400;
    let dir = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Mutex::new(Vec::new()));
    let on_durable = {
        let told = Arc::clone(&told);
        Box::new(move |seq| told.lock().expect("not poisoned").push(seq))
    };
    let journal = Journal::create(dir.path(), b"", Options { on_durable, ..Options::default() }).expect("new");
    journal.clock().resume();
    let mut stamps: Vec<Stamp> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|n| {
                let journal = journal.clone();
                scope.spawn(move || {
                    let stamps: Vec<Stamp> = (0..EACH).map(|_| append(&journal, 100 * n as usize)).collect();
                    journal.flush().expect("flushed");
                    assert!(journal.durable() >= stamps[stamps.len() - 1].seq);
                    stamps
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    journal.close().expect("closes");

    stamps.sort_by_key(|stamp| stamp.seq);
    assert!(stamps.is_sorted_by_key(|stamp| stamp.time), "time follows the sequence");
    assert!((1..=THREADS * EACH).eq(stamps.iter().map(|stamp| stamp.seq.0)));
    let told = told.lock().expect("not poisoned");
    assert!(told.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(told.last(), Some(&Seq(THREADS * EACH)));
    assert!((told.len() as u64) < THREADS * EACH, "groups were made");
    let recovered = journal::read(dir.path()).expect("whole");
    assert_contiguous(&recovered);
    assert_eq!(recovered.last, Seq(THREADS * EACH));
}

#[test]
fn a_failure_is_final_and_what_was_told_is_on_the_disk() {
    type Arm = fn(&MemoryDisk, u64);
    let arms: [(&str, Arm); 2] = [("write", MemoryDisk::fail_write), ("sync", MemoryDisk::fail_sync)];
    for (call, arm) in arms {
        for nth in 1..6 {
            let disk = MemoryDisk::default();
            let (told, failures) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
            let on_durable = {
                let told = Arc::clone(&told);
                Box::new(move |seq: Seq| told.store(seq.0, Ordering::SeqCst))
            };
            let on_failed = {
                let failures = Arc::clone(&failures);
                Box::new(move |error: &StoreError, last| {
                    failures.lock().expect("not poisoned").push((error.to_string(), last));
                })
            };
            let options = Options { on_durable, on_failed, ..Options::default() };
            let journal = Journal::create_on(disk.store(), b"genesis", options).expect("new");
            arm(&disk, nth);
            for _ in 1..nth {
                append(&journal, 20_000);
                journal.flush().expect("not yet");
            }
            append(&journal, 20_000);
            let failed = journal.flush().expect_err("now");
            let writes = disk.writes();

            assert_eq!(failed.last_durable, Seq(nth - 1));
            assert!(matches!(&failed.reason, CloseReason::Store(error) if error.to_string().contains(call)));
            assert_eq!(refusal(&journal).last_durable, Seq(nth - 1));
            assert_eq!((journal.durable(), told.load(Ordering::SeqCst)), (Seq(nth - 1), nth - 1));
            drop(journal);
            assert_eq!(disk.writes(), writes, "no retry");
            assert_eq!(failures.lock().expect("not poisoned").as_slice(), [(failed.reason.to_string(), Seq(nth - 1))]);
            for in_flight in 0..=disk.unsynced() {
                let last = reopened(&disk.crash_image(in_flight)).last;
                assert!(last == Seq(nth - 1) || last == Seq(nth), "{last} after {in_flight} changes in flight");
            }
        }
    }
}

#[test]
fn a_torn_tail_is_gone_before_its_sequence_is_used_again() {
    let disk = MemoryDisk::default();
    let journal = Journal::create_on(disk.store(), b"genesis", Options::default()).expect("new");
    append(&journal, 10);
    journal.flush().expect("flushed");
    disk.fail_write(1);
    append(&journal, 60_000);
    journal.flush().expect_err("half of it is in");
    drop(journal);
    let left = disk.parts().len();

    let (journal, recovered) = Journal::open_on(disk.store(), Options::default()).expect("opens");
    assert_eq!(recovered.torn.map(|torn| (torn.first, torn.parts)), Some((Seq(2), left - 2)));
    assert_eq!(disk.crash_image(0).parts().len(), 2, "removed for good");
    assert_eq!(append(&journal, 10).seq, Seq(2));
    journal.close().expect("closes");
    assert_eq!(reopened(&disk.crash_image(0)).last, Seq(2));
}

#[test]
fn a_disk_that_fails_at_creation_makes_no_journal() {
    for arm in [MemoryDisk::fail_write, MemoryDisk::fail_sync] {
        let disk = MemoryDisk::default();
        arm(&disk, 1);
        let failed = Journal::create_on(disk.store(), b"genesis", Options::default());
        assert!(matches!(failed, Err(OpenError::Store(StoreError::Injected { .. }))), "{failed:?}");
        let opened = Journal::open_on(disk.crash_image(0).store(), Options::default());
        assert!(matches!(opened, Err(OpenError::Unfinished { .. })), "{opened:?}");
    }
}

#[test]
fn a_decision_that_panics_takes_no_sequence() {
    let disk = MemoryDisk::default();
    let journal = Journal::create_on(disk.store(), b"genesis", Options::default()).expect("new");
    append(&journal, 10);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let _ = journal.append(|stamp| -> (Vec<u8>, ()) { panic!("while deciding {}", stamp.seq) });
    }));
    let message = panic.expect_err("it goes on to the caller");
    assert_eq!(message.downcast_ref::<String>().map(String::as_str), Some("while deciding #2"));
    assert_eq!(journal.last(), Seq(1));
    assert_eq!(append(&journal, 10).seq, Seq(2));
    journal.close().expect("closes");
    assert_eq!(reopened(&disk).last, Seq(2));
}

#[test]
fn the_limit_refuses_for_good_and_keeps_what_was_taken() {
    let disk = MemoryDisk::default();
    let options = || Options { limit_bytes: Some(1_000), ..Options::default() };
    let journal = Journal::create_on(disk.store(), b"genesis", options()).expect("new");
    let taken = (0..).map_while(|_| journal.append(|stamp| (body(stamp.seq, 60), ())).ok()).count();
    assert_eq!(taken, 10, "47 of the genesis and ten times 100 pass the limit");
    assert_eq!(journal.flush().expect("what was taken is kept"), Seq(10));
    let refused = refusal(&journal);
    assert!(matches!(refused.reason, CloseReason::Limit { frame_bytes: 1_047, limit_bytes: 1_000 }), "{refused}");
    assert_eq!(refused.last_durable, Seq(10));
    journal.close().expect("closes");

    let (journal, recovered) = Journal::open_on(disk.store(), options()).expect("opens");
    assert_eq!(recovered.last, Seq(10));
    assert!(matches!(refusal(&journal).reason, CloseReason::Limit { .. }), "also after a reopening");
}

#[test]
fn a_body_that_fits_no_frame_closes_the_journal() {
    let disk = MemoryDisk::default();
    let journal = Journal::create_on(disk.store(), b"genesis", Options::default()).expect("new");
    append(&journal, journal::frame::BODY_LIMIT_BYTES);
    let refused = journal.append(|_| (vec![0; journal::frame::BODY_LIMIT_BYTES + 1], ())).expect_err("too long");
    assert!(matches!(refused.reason, CloseReason::BodyTooLong { seq: Seq(2), .. }), "{refused}");
    assert!(matches!(refusal(&journal).reason, CloseReason::BodyTooLong { .. }));
    assert_eq!(journal.close().expect("what was taken is kept"), Seq(1));
    assert_eq!(reopened(&disk).last, Seq(1));
}

#[test]
fn a_closed_journal_refuses_its_other_handles() {
    let disk = MemoryDisk::default();
    let journal = Journal::create_on(disk.store(), b"genesis", Options::default()).expect("new");
    let other = journal.clone();
    append(&other, 10);
    assert_eq!(journal.close().expect("closes"), Seq(1));
    assert!(matches!(refusal(&other).reason, CloseReason::Asked));
    assert_eq!(other.flush().expect("nothing is left"), Seq(1));
    assert_eq!(other.close().expect("closes again"), Seq(1));
}

#[test]
fn without_durability_every_record_is_durable_at_once() {
    let told = Arc::new(AtomicU64::new(0));
    let options = || {
        let told = Arc::clone(&told);
        let on_durable = Box::new(move |seq: Seq| told.store(seq.0, Ordering::SeqCst));
        Options { durability: Durability::None, on_durable, clock: VmTime(70), ..Options::default() }
    };
    let disk = MemoryDisk::default();
    let kept = Journal::create_on(disk.store(), b"genesis", options()).expect("new");
    for journal in [kept.clone(), Journal::volatile(Seq(0), options())] {
        for seq in 1..100 {
            assert_eq!(append(&journal, 10), Stamp { seq: Seq(seq), time: VmTime(70) });
            assert_eq!((journal.durable(), told.load(Ordering::SeqCst)), (Seq(seq), seq));
        }
        assert_eq!(journal.flush().expect("flushed"), Seq(99));
    }
    kept.close().expect("closes");
    assert_eq!(reopened(&disk.live_image()).last, Seq(99), "written in the background");
}

#[test]
fn durable_in_the_process_needs_no_disk() {
    let disk = MemoryDisk::default();
    let options = Options { durability: Durability::Process, ..Options::default() };
    let journal = Journal::create_on(disk.store(), b"genesis", options).expect("new");
    append(&journal, 10);
    journal.flush().expect("flushed");
    assert_eq!(journal.durable(), Seq(1));
    assert_eq!(reopened(&disk.live_image()).last, Seq(1));
    assert_eq!(reopened(&disk.crash_image(0)).last, Seq(0));
}

/// A store that panics where it should fail.
struct Panicking(Box<MemoryStore>);

impl Store for Panicking {
    fn write(&mut self, parts: &[(Key, Vec<u8>)]) -> Result<(), StoreError> {
        assert!(parts[0].0.first == Seq(0), "no room in here");
        self.0.write(parts)
    }
    fn remove(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        self.0.remove(keys)
    }
    fn sync(&mut self, durability: Durability) -> Result<(), StoreError> {
        self.0.sync(durability)
    }
    fn scan(&self) -> Scan<'_> {
        self.0.scan()
    }
    fn place(&self) -> String {
        "a store that panics".to_owned()
    }
}

#[test]
fn a_store_that_panics_is_a_failure_and_nobody_waits_for_ever() {
    let store = Box::new(Panicking(MemoryDisk::default().store()));
    let journal = Journal::create_on(store, b"genesis", Options::default()).expect("new");
    append(&journal, 10);
    let failed = journal.flush().expect_err("it panicked");
    let CloseReason::Store(error) = failed.reason else { panic!("{failed}") };
    assert!(matches!(&*error, StoreError::Panicked { message, .. } if message == "no room in here"), "{error}");
}

#[test]
fn the_clock_stamps_and_can_stand_still() {
    let options = Options { clock: VmTime(1_000), ..Options::default() };
    let journal = Journal::volatile(Seq(0), options);
    assert_eq!(append(&journal, 1).time, VmTime(1_000));
    journal.clock().step(Duration::from_nanos(7));
    assert_eq!(append(&journal, 1).time, VmTime(1_007));
    journal.clock().resume();
    std::thread::sleep(Duration::from_millis(1));
    assert!(append(&journal, 1).time >= VmTime(1_001_007));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_appended_comes_back(
        groups in prop::collection::vec(
            prop::collection::vec(prop_oneof![8 => 0usize..400, 2 => 0usize..20_000, 1 => 0usize..=1 << 20], 1..5),
            1..6,
        ),
    ) {
        let disk = MemoryDisk::default();
        let journal = Journal::create_on(disk.store(), b"genesis", Options::default()).expect("new");
        let mut lens = Vec::new();
        for group in groups {
            for len in group {
                append(&journal, len);
                lens.push(len);
            }
            journal.flush().expect("flushed");
        }
        journal.close().expect("closes");
        let recovered = reopened(&disk.crash_image(0));
        prop_assert_eq!(recovered.records.iter().map(|stored| stored.body.len()).collect::<Vec<_>>(), lens);
    }
}
