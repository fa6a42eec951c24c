//! Journals that outgrow their store: sealed, kept short, read back whole, and gone on with after any end.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use device::Seq;
use journal::{Archive, Follower, Journal, OpenError, Opening, Options, Recovered, Sealing, Stored, StoredKeyframe};

/// A state that needs every record before it: how many, and a sum that depends on their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Sum {
    records: u64,
    sum: u64,
}

impl Sum {
    fn add(&mut self, body: &[u8]) {
        self.records += 1;
        for byte in body {
            self.sum = self.sum.rotate_left(5) ^ u64::from(*byte);
        }
    }

    fn of(base: Option<&StoredKeyframe>) -> Sum {
        let Some(base) = base else { return Sum::default() };
        let (records, sum) = base.body.split_at(8);
        let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        Sum { records: number(records), sum: number(sum) }
    }
}

impl Follower for Sum {
    fn follow(&mut self, record: &Stored) -> Result<(), String> {
        self.add(&record.body);
        if record.seq.0 == self.records { Ok(()) } else { Err(format!("{} records before", self.records)) }
    }

    fn keyframe(&self) -> Result<(u16, Vec<u8>), String> {
        Ok((1, [self.records.to_le_bytes(), self.sum.to_le_bytes()].concat()))
    }

    fn weight(&self) -> u64 {
        1
    }
}

const SEAL_BYTES: u64 = 256 << 10;

fn options(base: Option<&StoredKeyframe>, keep_bytes: Option<u64>) -> Options {
    let on_unfit = Box::new(|seq, reason| panic!("{seq}: {reason}"));
    let follower = Box::new(Sum::of(base));
    Options { sealing: Some(Sealing { follower, seal_bytes: SEAL_BYTES, keep_bytes, on_unfit }), ..Options::default() }
}

fn open(dir: &Path, keep_bytes: Option<u64>) -> (Journal, Recovered) {
    let opening = Opening::of(dir).expect("opens");
    let recovered = opening.recovered().clone();
    let journal = opening.start(options(recovered.base.as_ref(), keep_bytes)).expect("starts");
    (journal, recovered)
}

fn body(seq: u64) -> Vec<u8> {
    (0..100 + seq % 300).map(|at| (seq.wrapping_mul(0x9E37_79B9) >> (at % 24)) as u8).collect()
}

fn append(journal: &Journal, records: u64) {
    for _ in 0..records {
        journal.append(|stamp| (body(stamp.seq.0), ())).expect("open");
        // Many groups, so that generations can be exchanged between them.
        if journal.last().0.is_multiple_of(50) {
            journal.flush().expect("flushed");
        }
    }
    journal.flush().expect("flushed");
}

fn sum_to(last: u64) -> Sum {
    (1..=last).fold(Sum::default(), |mut sum, seq| {
        sum.add(&body(seq));
        sum
    })
}

fn assert_holds(recovered: &Recovered, last: u64) {
    assert_eq!(recovered.last, Seq(last));
    assert_eq!(recovered.genesis, b"genesis");
    let mut sum = Sum::of(recovered.base.as_ref());
    assert_eq!(sum, sum_to(recovered.before().0), "the keyframe is the state at its place");
    for (seq, stored) in (recovered.before().0 + 1..).zip(&recovered.records) {
        assert!(stored.seq.0 == seq && stored.body == body(seq), "record #{seq}");
        sum.add(&stored.body);
    }
    assert_eq!(sum, sum_to(last));
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("listable").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_long_journal_is_sealed_and_reads_back_whole() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::create(dir.path(), b"genesis", options(None, None)).expect("new");
    append(&journal, 10_000);
    wait_for("files", || names(&dir.path().join("sealed")).len() >= 3);
    assert_eq!(journal.close().expect("closes"), Seq(10_000));
    let (sealed, live) = (names(&dir.path().join("sealed")), names(&dir.path().join("live")));
    assert!(sealed[0].starts_with("00000000000000000000-"), "{sealed:?}");
    assert!(live.len() <= 2, "full generations are gone: {live:?}");

    assert_holds(&journal::read(dir.path()).expect("whole"), 10_000);
    for round in 0..3 {
        let (journal, recovered) = open(dir.path(), None);
        assert!(recovered.records.len() < 5_000, "a start does not read all of it: {}", recovered.records.len());
        assert_holds(&recovered, 10_000 + 1_000 * round);
        append(&journal, 1_000);
        journal.close().expect("closes");
    }
    let all = journal::read(dir.path()).expect("whole");
    assert_eq!(all.base, None);
    assert_holds(&all, 13_000);
}

/// Of which nothing is ever sealed, as where every run is killed before it comes to that.
struct Unsealed(Sum);

impl Follower for Unsealed {
    fn follow(&mut self, record: &Stored) -> Result<(), String> {
        self.0.follow(record)
    }

    fn keyframe(&self) -> Result<(u16, Vec<u8>), String> {
        Err("not now".into())
    }

    fn weight(&self) -> u64 {
        1
    }
}

/// Every start opened the newest database twice, first its copy and then itself, however much was in it.
#[test]
fn a_start_writes_on_in_a_short_generation_and_leaves_a_long_one_to_the_follower() {
    let dir = tempfile::tempdir().expect("a directory");
    let live = || names(&dir.path().join("live"));
    let journal = Journal::create(dir.path(), b"genesis", options(None, None)).expect("new");
    append(&journal, 50);
    journal.close().expect("closes");
    let (journal, _) = open(dir.path(), None);
    assert_eq!(live(), ["000001"]);
    append(&journal, 200);
    journal.close().expect("closes");
    for round in 1..4 {
        let opening = Opening::of(dir.path()).expect("opens");
        assert_holds(opening.recovered(), 50 + 200 * round);
        let sealing = Sealing {
            follower: Box::new(Unsealed(Sum::of(None))),
            seal_bytes: SEAL_BYTES,
            keep_bytes: None,
            on_unfit: Box::new(|seq, reason| panic!("{seq}: {reason}")),
        };
        let journal = opening.start(Options { sealing: Some(sealing), ..Options::default() }).expect("starts");
        append(&journal, 200);
        journal.close().expect("closes");
        assert_eq!(live().len() as u64, 1 + round, "the next one: {:?}", live());
        assert_holds(&journal::read(dir.path()).expect("whole"), 250 + 200 * round);
    }
    let (journal, recovered) = open(dir.path(), None);
    assert_holds(&recovered, 850);
    wait_for("all before it are sealed", || live().len() == 1);
    assert_eq!(live(), ["000005"]);
    append(&journal, 10);
    journal.close().expect("closes");
    assert_holds(&journal::read(dir.path()).expect("whole"), 860);
}

/// sled writes an index when it opens a database; who was killed at that was refused from then on.
#[test]
fn a_start_that_was_killed_while_it_opened_is_followed_by_one_that_opens() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::create(dir.path(), b"genesis", options(None, None)).expect("new");
    append(&journal, 20);
    journal.close().expect("closes");
    for (round, half) in [&b""[..], b"half of an index"].into_iter().enumerate() {
        let index = dir.path().join("live/000001/snap.00000000FFFFFFFF.generating");
        std::fs::write(&index, half).expect("written");
        assert_holds(&journal::read(dir.path()).expect("whole"), 20 + round as u64);
        assert!(index.exists(), "who only reads leaves it as it is");
        let (journal, _) = open(dir.path(), None);
        assert!(!index.exists());
        append(&journal, 1);
        journal.close().expect("closes");
    }
}

/// Who read a journal goes on with it only if nobody else did meanwhile.
#[test]
fn what_another_wrote_after_it_was_read_is_not_lost() {
    for records in [10, 200] {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::create(dir.path(), b"genesis", options(None, None)).expect("new");
        append(&journal, records);
        journal.close().expect("closes");
        let (late, idle) = (Opening::of(dir.path()).expect("opens"), Opening::of(dir.path()).expect("opens"));
        // He who adds nothing is none.
        open(dir.path(), None).0.close().expect("closes");
        idle.start(options(None, None)).expect("the same journal").close().expect("closes");
        let (journal, _) = open(dir.path(), None);
        append(&journal, 1);
        journal.close().expect("closes");
        let refused = late.start(options(None, None));
        assert!(matches!(refused, Err(OpenError::Held { .. })), "{refused:?}");
        assert_holds(&journal::read(dir.path()).expect("whole"), records + 1);
    }
}

#[test]
fn what_is_kept_is_bounded_and_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let keep_bytes = 300 << 10;
    let journal = Journal::create(dir.path(), b"genesis", options(None, Some(keep_bytes))).expect("new");
    append(&journal, 30_000);
    wait_for("the first file goes", || {
        names(&dir.path().join("sealed")).first().is_some_and(|name| !name.starts_with("00000000000000000000-"))
    });
    append(&journal, 10_000);
    journal.close().expect("closes");
    let files = std::fs::read_dir(dir.path().join("sealed")).expect("listable");
    let held_bytes: u64 = files.map(|file| file.expect("listable").metadata().expect("there").len()).sum();
    assert!(held_bytes <= keep_bytes, "{held_bytes} bytes");
    let all = journal::read(dir.path()).expect("whole behind its base");
    assert!(all.before() > Seq(5_000), "{}", all.before());
    assert_holds(&all, 40_000);
    let (journal, recovered) = open(dir.path(), Some(keep_bytes));
    assert_holds(&recovered, 40_000);
    append(&journal, 10);
    journal.close().expect("closes");
    assert_holds(&journal::read(dir.path()).expect("whole"), 40_010);
}

#[test]
fn the_limit_counts_what_is_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let limit_bytes = Some(4 << 20);
    let keep_bytes = Some(300 << 10);
    let journal =
        Journal::create(dir.path(), b"genesis", Options { limit_bytes, ..options(None, keep_bytes) }).expect("new");
    // Three times the limit: without removal it would be refused at a third.
    for _ in 0..40 {
        append(&journal, 1_000);
        sleep(Duration::from_millis(20));
    }
    journal.close().expect("closes");
    let opening = Opening::of(dir.path()).expect("opens");
    let base = opening.recovered().base.clone();
    let options = Options { limit_bytes, ..options(base.as_ref(), keep_bytes) };
    append(&opening.start(options).expect("starts"), 1_000);
}

#[test]
fn the_tail_of_an_open_journal_is_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = tempfile::tempdir().expect("a directory");
    let journal = Journal::create(dir.path(), b"genesis", options(None, None)).expect("new");
    append(&journal, 20);
    let path = out.path().join("tail.dcd");
    assert_eq!(journal.write_tail(&path).expect("written"), Seq(20));
    let (read, _) = journal::portable::read_file(&path).expect("a whole journal");
    assert_holds(&read, 20);
    append(&journal, 8_000);
    let path = out.path().join("later.dcd");
    assert_eq!(journal.write_tail(&path).expect("written"), Seq(8_020));
    let (read, _) = journal::portable::read_file(&path).expect("behind a keyframe");
    assert!(read.before() > Seq(0));
    assert_holds(&read, 8_020);
}

#[test]
fn a_closed_journal_is_sealed_and_cut_by_hand() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::create(dir.path(), b"genesis", options(None, None)).expect("new");
    append(&journal, 12_345);
    journal.close().expect("closes");
    for (keep_bytes, files_max) in [(None, usize::MAX), (None, usize::MAX), (Some(1), 1)] {
        let opening = Opening::of(dir.path()).expect("opens");
        let options = options(opening.recovered().base.as_ref(), keep_bytes);
        opening.compact(options.sealing.expect("there")).expect("sealed");
        assert!(names(&dir.path().join("sealed")).len() <= files_max);
        assert_eq!(names(&dir.path().join("live")).len(), 1, "an empty generation");
        let all = journal::read(dir.path()).expect("whole");
        assert_eq!(all.before() > Seq(0), keep_bytes.is_some());
        assert_holds(&all, 12_345);
    }
    let (journal, recovered) = open(dir.path(), None);
    assert_eq!(recovered.records, []);
    append(&journal, 5);
    journal.close().expect("closes");
    assert_holds(&journal::read(dir.path()).expect("whole"), 12_350);
}

fn assert_reads_here_and_there(archive: &Archive, last: u64) {
    assert_eq!((archive.last(), &archive.genesis().body[..]), (Seq(last), &b"genesis"[..]));
    let before = archive.before().0;
    for at in (before..=last).step_by(997).chain([last]) {
        let keyframe = archive.keyframe(Seq(at)).expect("readable");
        let mut sum = Sum::of(keyframe.as_ref());
        assert!(keyframe.is_some() || before == 0, "behind what is gone there is a keyframe");
        assert!(at - sum.records < 9_000, "#{at} is {} behind its keyframe", at - sum.records);
        let records = archive.records(Seq(sum.records + 1), Seq(at)).expect("readable");
        records.iter().for_each(|stored| sum.add(&stored.body));
        assert_eq!(sum, sum_to(at), "#{at}");
    }
}

#[test]
fn any_part_is_read_without_the_rest_open_or_closed_or_in_a_file() {
    for keep_bytes in [None, Some(200 << 10)] {
        let dir = tempfile::tempdir().expect("a directory");
        let out = tempfile::tempdir().expect("a directory");
        let journal = Journal::create(dir.path(), b"genesis", options(None, keep_bytes)).expect("new");
        append(&journal, 25_000);
        let tail = out.path().join("tail.dcd");
        journal.write_tail(&tail).expect("written");
        let opened = Archive::of_open_directory(dir.path(), &tail).expect("readable while it is open");
        assert_reads_here_and_there(&opened, 25_000);
        let read = journal::read_open(dir.path(), &tail).expect("readable while it is open");
        assert_eq!(read.before(), opened.before());
        assert_holds(&read, 25_000);
        journal.close().expect("closes");
        let closed = Archive::of_directory(dir.path()).expect("readable");
        assert_eq!(closed.before() > Seq(0), keep_bytes.is_some());
        assert_reads_here_and_there(&closed, 25_000);

        let file = out.path().join("all.dcd");
        let all = journal::read(dir.path()).expect("whole");
        journal::portable::write_file(&file, &all, &journal::portable::About::default()).expect("written");
        let archive = Archive::of_file(&file).expect("readable");
        assert_eq!(archive.before(), all.before());
        assert_eq!(archive.records(Seq(0), Seq(u64::MAX)).expect("readable"), all.records);
        assert_eq!(journal::portable::read_file(&file).expect("whole").0, all);
    }
}

#[test]
fn a_journal_that_moves_is_sealed_in_its_new_place_as_a_run_would() {
    let place = tempfile::tempdir().expect("a directory");
    let (dir, cut) = (place.path().join("run"), place.path().join("cut"));
    let journal = Journal::create(&dir, b"genesis", options(None, None)).expect("new");
    append(&journal, 12_000);
    journal.close().expect("closes");
    let whole = journal::read(&dir).expect("whole");
    // One whose beginning was removed, too.
    let base = Archive::of_directory(&dir).expect("readable").keyframe(Seq(9_000)).expect("readable").expect("one");
    let records = whole.records[base.seq.0 as usize..].to_vec();
    let behind = Recovered { base: Some(base), records, ..whole.clone() };
    for (dir, moved) in [(place.path().join("again"), whole), (cut, behind)] {
        let sealing = || options(moved.base.as_ref(), None).sealing.expect("there");
        journal::restore_sealed(&dir, &moved, sealing()).expect("restored");
        let files = journal::sealed_files(&dir).expect("listable");
        assert!(files.len() >= 3, "{files:?}");
        assert_eq!(journal::read(&dir).expect("whole"), moved);
        assert_reads_here_and_there(&Archive::of_directory(&dir).expect("readable"), 12_000);
        assert!(matches!(journal::restore_sealed(&dir, &moved, sealing()), Err(OpenError::Exists { .. })));
        let (journal, recovered) = open(&dir, None);
        assert_eq!(recovered.records, []);
        append(&journal, 2_000);
        journal.close().expect("closes");
        assert_holds(&journal::read(&dir).expect("whole"), 14_000);
    }
}

#[test]
fn a_journal_without_keyframes_moves_in_one_file() {
    let place = tempfile::tempdir().expect("a directory");
    let (dir, again) = (place.path().join("run"), place.path().join("again"));
    append(&Journal::create(&dir, b"genesis", Options::default()).expect("new"), 3_000);
    let whole = journal::read(&dir).expect("whole");
    let follower = Box::new(Unlawful(Sum::default(), Arc::default()));
    let on_unfit = Box::new(|seq, reason| panic!("{seq}: {reason}"));
    let sealing = Sealing { follower, seal_bytes: 16 << 10, keep_bytes: None, on_unfit };
    journal::restore_sealed(&again, &whole, sealing).expect("restored");
    assert_eq!(names(&again), ["live", "sealed"]);
    assert_eq!(names(&again.join("sealed")).len(), 1);
    assert_eq!(journal::read(&again).expect("whole"), whole);
}

/// Follows everything, and makes no keyframe of a state behind the 700th record: one in which a law is broken.
struct Unlawful(Sum, Arc<Mutex<u64>>);

impl Follower for Unlawful {
    fn follow(&mut self, record: &Stored) -> Result<(), String> {
        *self.1.lock().expect("not poisoned") = record.seq.0;
        self.0.follow(record)
    }

    fn keyframe(&self) -> Result<(u16, Vec<u8>), String> {
        if self.0.records > 700 { Err("a broken law".into()) } else { self.0.keyframe() }
    }

    fn weight(&self) -> u64 {
        1
    }
}

/// Seen in review: a full generation whose last state made no keyframe was removed behind an empty file.
#[test]
fn a_state_without_a_keyframe_seals_nothing_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let followed = Arc::default();
    let on_unfit = Box::new(|seq, reason| panic!("{seq}: {reason}"));
    let follower = Box::new(Unlawful(Sum::default(), Arc::clone(&followed)));
    let sealing = Sealing { follower, seal_bytes: SEAL_BYTES, keep_bytes: None, on_unfit };
    let options = Options { sealing: Some(sealing), ..Options::default() };
    let journal = Journal::create(dir.path(), b"genesis", options).expect("new");
    append(&journal, 5_000);
    journal.close().expect("closes");
    assert_eq!(*followed.lock().expect("not poisoned"), 5_000, "it is followed on: who looks at the state still can");
    assert_eq!(names(&dir.path().join("sealed")), [""; 0]);
    assert_holds(&journal::read(dir.path()).expect("whole"), 5_000);
}

/// A record that cannot follow is told at once: the journal would not fold at the next start.
#[test]
fn an_unfit_record_is_told_and_nothing_is_sealed_from_then_on() {
    #[derive(Default)]
    struct Picky(Sum);
    impl Follower for Picky {
        fn follow(&mut self, record: &Stored) -> Result<(), String> {
            if record.seq == Seq(100) { Err("no".into()) } else { self.0.follow(record) }
        }
        fn keyframe(&self) -> Result<(u16, Vec<u8>), String> {
            self.0.keyframe()
        }
        fn weight(&self) -> u64 {
            1
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let told = Arc::new(Mutex::new(None));
    let on_unfit = {
        let told = Arc::clone(&told);
        Box::new(move |seq, reason| *told.lock().expect("not poisoned") = Some((seq, reason)))
    };
    let sealing = Sealing { follower: Box::new(Picky::default()), seal_bytes: SEAL_BYTES, keep_bytes: None, on_unfit };
    let journal = Journal::create(dir.path(), b"genesis", Options { sealing: Some(sealing), ..Options::default() });
    let journal = journal.expect("new");
    append(&journal, 5_000);
    journal.close().expect("closes");
    assert_eq!(*told.lock().expect("not poisoned"), Some((Seq(100), "no".into())));
    assert_eq!(names(&dir.path().join("sealed")), [""; 0]);
    assert_holds(&journal::read(dir.path()).expect("whole"), 5_000);
}
