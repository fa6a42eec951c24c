//! Journals that begin at a state: opened, read, sealed, kept short, moved and salvaged as those that begin with #1.

use std::fs;
use std::path::Path;

use device::backends::{self, BackendKind, BackendSpec, Population, Reservation, Sharing, Source};
use device::config::{DeviceIndex, VmConfig};
use device::operation::Fact;
use device::vm::Vm;
use device::{Seq, Stamp, VmTime};
use journal::form::{Base, KEYFRAME_VERSION, Keyframe};
use journal::frame::Chain;
use journal::portable::{About, read_file, write_file};
use journal::record::{Genesis, Parent};
use journal::{
    Archive, Beginning, Follower, Journal, OpenError, Opening, Options, Recovered, Sealing, Stored, read, read_open,
    remains, restore, sealed_files, supersede,
};
use wire::{Hpa, Tag};

/// Where the journals of these tests begin.
const BASE: Stamp = Stamp { seq: Seq(120), time: VmTime(9_000) };
const SEAL_BYTES: u64 = 64 << 10;

fn config(ports: u8) -> VmConfig {
    let root_ports = (0..ports).map(|port| format!("rp{port}")).collect();
    VmConfig { memory_bytes: 1 << 30, window_base: Hpa(0x1_1000_0000), windows_bytes: vec![1 << 32], root_ports }
}

fn added(vm: &mut Vm, seq: Seq) {
    let spec = BackendSpec {
        kind: BackendKind::Ram,
        size_bytes: 1 << 21,
        sharing: Sharing::Private,
        population: Population::OnDemand,
        reservation: Reservation::Reserved,
        tag: Tag::from_bytes([seq.0 as u8; 16]),
        tag_text: format!("{}", Tag::from_bytes([seq.0 as u8; 16])),
    };
    let fact = Fact::Backends(backends::Fact::Added { id: format!("tm{}", seq.0), spec, source: Source::Request });
    vm.evolve(DeviceIndex(0), Stamp { seq, time: BASE.time }, &fact);
}

fn base() -> Keyframe {
    let mut vm = Vm::new(config(1));
    added(&mut vm, Seq(7));
    Keyframe { seq: BASE.seq, time: BASE.time, vm }
}

fn genesis() -> Vec<u8> {
    let parent = Parent { journal: "/tmp/older".into(), shared: BASE.seq, change: "a test".into() };
    Genesis { config: config(1), build: "test".into(), parent: Some(parent) }.to_bytes()
}

/// Counts, and has the state of the base whatever comes.
struct Counter(Keyframe);

impl Follower for Counter {
    fn follow(&mut self, record: &Stored) -> Result<(), String> {
        let due = Seq(self.0.seq.0 + 1);
        self.0.seq = due;
        if record.seq == due { Ok(()) } else { Err(format!("{due} was due, not {}", record.seq)) }
    }

    fn keyframe(&self) -> Result<(u16, Vec<u8>), String> {
        Ok((KEYFRAME_VERSION, self.0.to_bytes()))
    }

    fn weight(&self) -> u64 {
        1
    }
}

fn options(state: Keyframe, keep_bytes: Option<u64>) -> Options {
    let on_unfit = Box::new(|seq, reason| panic!("{seq}: {reason}"));
    let follower = Box::new(Counter(state));
    Options { sealing: Some(Sealing { follower, seal_bytes: SEAL_BYTES, keep_bytes, on_unfit }), ..Options::default() }
}

fn begin(dir: &Path) -> Journal {
    Journal::begin(dir, &genesis(), base(), options(base(), None)).expect("begins")
}

fn open(dir: &Path, keep_bytes: Option<u64>) -> (Journal, Recovered) {
    let opening = Opening::of(dir).expect("opens");
    let recovered = opening.recovered().clone();
    let stored = recovered.base.as_ref().expect("a state");
    let state = Keyframe::from_stored(stored.version, &stored.body).expect("a state");
    assert_eq!(state.seq, stored.seq);
    (opening.start(options(state, keep_bytes)).expect("starts"), recovered)
}

fn body(seq: Seq) -> Vec<u8> {
    (0..100 + seq.0 % 300).map(|at| (seq.0.wrapping_mul(0x9E37_79B9) >> (at % 24)) as u8).collect()
}

fn append(journal: &Journal, records: u64) {
    for _ in 0..records {
        journal.append(|stamp| (body(stamp.seq), ())).expect("open");
        if journal.last().0.is_multiple_of(40) {
            journal.flush().expect("flushed");
        }
    }
    journal.flush().expect("flushed");
}

/// Appends until so much of it is sealed: the follower comes when it comes. Returns the last record.
fn append_until(dir: &Path, journal: &Journal, is_enough: impl Fn(&[(u64, u64)]) -> bool) -> u64 {
    while !is_enough(&spans(dir)) {
        append(journal, 300);
    }
    journal.last().0
}

/// First and last record of the files of a directory.
fn spans(dir: &Path) -> Vec<(u64, u64)> {
    sealed_files(dir).expect("listable").iter().map(|file| (file.first.0, file.last.0)).collect()
}

/// Whole from the base on, and the same however it is looked at.
fn assert_holds(recovered: &Recovered, last: u64) {
    assert_eq!((recovered.last, &recovered.genesis), (Seq(last), &genesis()));
    let stored = recovered.base.as_ref().expect("a state");
    let state = Keyframe::from_stored(stored.version, &stored.body).expect("a state");
    assert_eq!((state.seq, state.vm), (recovered.before(), base().vm));
    assert_eq!(recovered.records.len() as u64, last - recovered.before().0);
    for (seq, stored) in (recovered.before().0 + 1..).zip(&recovered.records) {
        assert!(stored.seq.0 == seq && stored.body == body(Seq(seq)), "#{seq}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).expect("a copy");
        }
    }
}

/// What `kill -9` leaves is what lies there while the journal is open.
#[test]
fn killed_at_any_length_it_is_there_from_its_state_on() {
    for records in [0, 1, 39, 2_000] {
        let place = tempfile::tempdir().expect("a directory");
        let (dir, killed) = (place.path().join("run"), place.path().join("killed"));
        let journal = begin(&dir);
        assert_eq!((journal.last(), journal.durable()), (BASE.seq, BASE.seq));
        assert_eq!(journal.clock().now(), BASE.time, "the clock goes on");
        append(&journal, records);
        let last = BASE.seq.0 + records;
        let tail = place.path().join("tail.dcd");
        assert_eq!(journal.write_tail(&tail).expect("written"), Seq(last));
        assert_holds(&read_open(&dir, &tail).expect("readable while it is open"), last);
        let open_archive = Archive::of_open_directory(&dir, &tail).expect("readable while it is open");
        assert_eq!((open_archive.before(), open_archive.last()), (BASE.seq, Seq(last)));
        if records < 100 {
            // Nothing moves any more: what is sealed later would be copied half.
            copy(&dir, &killed);
        }
        journal.close().expect("closes");
        let dirs = if records < 100 { vec![killed, dir] } else { vec![dir] };
        for dir in dirs {
            assert_holds(&read(&dir).expect("whole"), last);
            let archive = Archive::of_directory(&dir).expect("readable");
            assert_eq!((archive.before(), archive.last()), (BASE.seq, Seq(last)));
            assert_eq!(archive.records(Seq(0), Seq(u64::MAX)).expect("readable").len() as u64, records);
            assert!(archive.keyframe(BASE.seq).expect("readable").is_some_and(|found| found.seq == BASE.seq));
            let found = remains::find(&dir).expect("readable");
            assert_eq!((found.prefix, found.whole), (Some(read(&dir).expect("whole")), Some(Seq(last))));
            let (journal, recovered) = open(&dir, None);
            assert_eq!(recovered.last, Seq(last));
            append(&journal, 3);
            journal.close().expect("closes");
            assert_holds(&read(&dir).expect("whole"), last + 3);
        }
    }
}

#[test]
fn it_is_sealed_and_kept_short_as_any_other() {
    let dir = tempfile::tempdir().expect("a directory");
    let last = append_until(dir.path(), &begin(dir.path()), |files| files.len() > 2);
    let files = spans(dir.path());
    assert_eq!(files[0], (121, 120), "the state, and no record");
    assert_eq!(files[1].0, 121);
    assert!(files[1..].windows(2).all(|pair| pair[0].1 + 1 == pair[1].0), "{files:?}");
    assert_holds(&read(dir.path()).expect("whole"), last);
    for _ in 0..2 {
        let (_, recovered) = open(dir.path(), None);
        assert!(recovered.before() > BASE.seq, "a start reads from the newest state on");
    }

    let (journal, _) = open(dir.path(), Some(SEAL_BYTES / 2));
    let last = append_until(dir.path(), &journal, |files| files[0].0 > BASE.seq.0 + 1);
    journal.close().expect("closes");
    let all = read(dir.path()).expect("whole behind what is kept");
    assert!(all.before() > BASE.seq, "its beginning was removed: {:?}", spans(dir.path()));
    assert_holds(&all, last);

    let opening = Opening::of(dir.path()).expect("opens");
    let (_, recovered) = open(dir.path(), None);
    let stored = recovered.base.expect("a state");
    let state = Keyframe::from_stored(stored.version, &stored.body).expect("a state");
    opening.compact(options(state, Some(1)).sealing.expect("there")).expect("sealed");
    assert_eq!(spans(dir.path()).len(), 1);
    assert_holds(&read(dir.path()).expect("whole"), last);
}

/// The database of the new journal was moved while it was open.
#[test]
fn one_that_superseded_another_is_sealed_in_its_place() {
    let dir = tempfile::tempdir().expect("a directory");
    Journal::create(dir.path(), b"genesis", Options::default()).expect("new").close().expect("closes");
    let genesis = Genesis { config: config(1), build: "test".into(), parent: None };
    let journal = supersede(dir.path(), genesis, base(), "a test", options(base(), None)).expect("superseded");
    let last = append_until(dir.path(), &journal, |files| files.len() > 2);
    journal.close().expect("closes");
    let whole = read(dir.path()).expect("whole");
    assert_eq!((whole.before(), whole.last.0, whole.records.len() as u64), (BASE.seq, last, last - BASE.seq.0));
    assert_eq!(read(&dir.path().join("past/000001")).expect("whole").genesis, b"genesis");
    let (journal, _) = open(dir.path(), None);
    append(&journal, 10);
    journal.close().expect("closes");
    assert_eq!(read(dir.path()).expect("whole").last.0, last + 10);
}

/// The file of a state names no record, so that the file of the first record never has its name.
#[test]
fn a_journal_of_one_record_is_sealed_beside_its_state() {
    for records in [0, 1] {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = begin(dir.path());
        append(&journal, records);
        journal.close().expect("closes");
        for _ in 0..2 {
            let opening = Opening::of(dir.path()).expect("opens");
            let stored = opening.recovered().base.clone().expect("a state");
            let state = Keyframe::from_stored(stored.version, &stored.body).expect("a state");
            opening.compact(options(state, None).sealing.expect("there")).expect("sealed");
            assert_eq!(sealed_files(dir.path()).expect("listable").len() as u64, 1 + records);
            assert_holds(&read(dir.path()).expect("whole"), 120 + records);
            let archive = Archive::of_directory(dir.path()).expect("readable");
            assert_eq!((archive.before(), archive.last()), (BASE.seq, Seq(120 + records)));
        }
    }
}

#[test]
fn its_chain_begins_with_its_genesis() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = begin(dir.path());
    append(&journal, 2);
    journal.close().expect("closes");
    let of_genesis = Chain::default().next(Seq(0), 1, &genesis());
    let link = of_genesis.next(Seq(121), 1, &body(Seq(121))).next(Seq(122), 1, &body(Seq(122)));
    assert_eq!(read(dir.path()).expect("whole").link(), link);

    // The records of another parent do not continue it.
    let other = tempfile::tempdir().expect("a directory");
    let parent = Parent { journal: "/tmp/another".into(), shared: BASE.seq, change: "a test".into() };
    let genesis = Genesis { config: config(1), build: "test".into(), parent: Some(parent) }.to_bytes();
    Journal::begin(other.path(), &genesis, base(), Options::default()).expect("begins").close().expect("closes");
    let file = sealed_files(other.path()).expect("listable").remove(0).path;
    fs::copy(&file, sealed_files(dir.path()).expect("listable").remove(0).path).expect("copied");
    let error = read(dir.path()).expect_err("another genesis").to_string();
    assert!(error.contains("records up to #120 are intact") && error.contains("does not continue"), "{error}");
}

#[test]
fn it_moves_as_a_file_and_back() {
    for records in [0, 1, 700] {
        let place = tempfile::tempdir().expect("a directory");
        let (dir, again) = (place.path().join("run"), place.path().join("again"));
        let journal = begin(&dir);
        append(&journal, records);
        journal.close().expect("closes");
        let whole = read(&dir).expect("whole");
        let path = |n: u8| place.path().join(format!("{n}.dcd"));
        write_file(&path(1), &whole, &About::default()).expect("written");
        let (moved, _) = read_file(&path(1)).expect("whole");
        assert_eq!((&moved, moved.link()), (&whole, whole.link()));
        assert_eq!(remains::find(&path(1)).expect("readable").prefix, Some(moved.clone()));
        restore(&again, &moved).expect("restored");
        let restored = read(&again).expect("whole");
        assert_eq!(restored, whole);
        write_file(&path(2), &restored, &About::default()).expect("written");
        assert!(fs::read(path(1)).expect("there") == fs::read(path(2)).expect("there"), "the same bytes");
        let archive = Archive::of_file(&path(1)).expect("readable");
        assert_eq!((archive.before(), archive.last()), (BASE.seq, Seq(120 + records)));
        let (journal, _) = open(&again, None);
        append(&journal, 2);
        journal.close().expect("closes");
        assert_holds(&read(&again).expect("whole"), 122 + records);
    }
}

#[test]
fn where_none_can_begin_none_does() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("run");
    let refused = |genesis: &[u8], base: Keyframe| {
        let error = Journal::begin(&dir, genesis, base, Options::default()).expect_err("refused");
        assert!(matches!(error, OpenError::Base { .. }), "{error}");
        error.to_string()
    };
    let other = Genesis { config: config(2), build: "test".into(), parent: None }.to_bytes();
    assert!(refused(&other, base()).contains("no journal can begin at #120: it is the state of another VM"));
    assert!(refused(b"genesis", base()).contains("its genesis cannot be read"));
    let late = Keyframe { seq: Seq(u64::MAX), ..base() };
    assert!(refused(&genesis(), late).contains("no journal has so many records"));
    let mut unlawful = base();
    unlawful.vm.backends = Vm::new(config(1)).backends;
    added(&mut unlawful.vm, Seq(7));
    let reserved = backends::Fact::Reserved { id: "tm7".into(), device: DeviceIndex(0) };
    unlawful.vm.evolve(DeviceIndex(0), Stamp { seq: Seq(8), time: VmTime(0) }, &Fact::Backends(reserved));
    assert!(refused(&genesis(), unlawful).contains("backend-one-owner"));

    // A refusal leaves what was never begun, and nothing of it is in the way.
    let journal = begin(&dir);
    let again = || Journal::begin(&dir, &genesis(), base(), Options::default());
    assert!(matches!(again(), Err(OpenError::Exists { .. })));
    append(&journal, 1);
    journal.close().expect("closes");
    assert!(matches!(again(), Err(OpenError::Exists { .. })));
    assert_holds(&read(&dir).expect("untouched"), 121);
    let older = place.path().join("older");
    Journal::create(&older, b"genesis", Options::default()).expect("new").close().expect("closes");
    assert!(matches!(Beginning::prepare(&older), Err(OpenError::Exists { .. })));
}

/// A journal that was prepared, and whose state never came: nothing is lost, and the next one who begins sweeps it.
#[test]
fn what_was_never_begun_says_so_and_is_swept() {
    let place = tempfile::tempdir().expect("a directory");
    let (dir, killed) = (place.path().join("run"), place.path().join("killed"));
    let prepared = Beginning::prepare(&dir).expect("prepared");
    assert!(matches!(Beginning::prepare(&dir), Err(OpenError::Held { .. })));
    copy(&dir, &killed);
    prepared
        .begin(&genesis(), Base::of(base()).expect("lawful"), options(base(), None))
        .expect("begins")
        .close()
        .expect("closes");
    assert_holds(&read(&dir).expect("whole"), 120);

    let half = killed.join("sealed/00000000000000000121-00000000000000000120.dcds.part");
    fs::write(&half, "half of it").expect("writable");
    let never = Opening::of(&killed).err().expect("no journal").to_string();
    assert!(never.contains("its creation was cut short") && never.contains("no record was in it"), "{never}");
    assert!(read(&killed).is_err());
    let journal = begin(&killed);
    append(&journal, 5);
    journal.close().expect("closes");
    assert_holds(&read(&killed).expect("whole"), 125);
    assert!(!half.exists());
    // A directory that was just made, and a database in it that was not.
    let bare = place.path().join("bare");
    fs::create_dir_all(bare.join("live/000001")).expect("a directory");
    begin(&bare).close().expect("closes");
}

#[test]
fn a_damaged_state_names_what_is_intact_and_salvage_takes_it_out() {
    let place = tempfile::tempdir().expect("a directory");
    let dir = place.path().join("run");
    // Nothing is sealed, whenever the follower comes: what is damaged below is the only copy.
    let journal = Journal::begin(&dir, &genesis(), base(), Options::default()).expect("begins");
    append(&journal, 50);
    journal.close().expect("closes");
    let whole = read(&dir).expect("whole");
    let path = sealed_files(&dir).expect("listable").remove(0).path;
    let bytes = fs::read(&path).expect("readable");
    for at in (0..bytes.len()).step_by(9) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        fs::write(&path, &damaged).expect("writable");
        let error = read(&dir).expect_err("damaged").to_string();
        assert!(error.contains("dcd journal salvage"), "byte {at}: {error}");
        // Here and there is read what is asked for, and that is right or not at all.
        if let Ok(opening) = Opening::of(&dir) {
            assert_eq!(opening.recovered(), &whole, "byte {at}");
        }
        let found = remains::find(&dir).expect("readable");
        match found.prefix {
            // Its segment is whole.
            Some(prefix) => assert_eq!(prefix, whole, "byte {at}"),
            None => assert_eq!(found.beyond, std::slice::from_ref(&whole.records), "byte {at}"),
        }
    }
    fs::write(&path, &bytes).expect("writable");

    // The database is destroyed behind some records: the state and those before are taken out.
    let db = dir.join("live/000001/db");
    let mut bytes = fs::read(&db).expect("readable");
    let frame = |seq: u64| [&b"DCDR"[..], &(body(Seq(seq)).len() as u32).to_le_bytes()].concat();
    let places = (0..bytes.len() - 24)
        .filter(|at| bytes[*at..].starts_with(&frame(140)) && bytes[at + 16..].starts_with(&140u64.to_le_bytes()));
    places.collect::<Vec<_>>().into_iter().for_each(|at| bytes[at + 30] ^= 1);
    fs::write(&db, bytes).expect("writable");
    let found = remains::find(&dir).expect("readable");
    let prefix = found.prefix.expect("a prefix");
    assert_eq!((prefix.last, prefix.base.as_ref()), (Seq(139), whole.base.as_ref()));
    // The group that it was in is gone; where groups begin is a matter of time.
    assert!(found.whole.is_some_and(|whole| (120..140).contains(&whole.0)), "{:?}", found.whole);
    let beyond: Vec<_> = found.beyond.into_iter().flatten().collect();
    assert!(!beyond.is_empty() && whole.records.ends_with(&beyond), "{} records behind the gap", beyond.len());
    let out = place.path().join("out");
    restore(&out, &prefix).expect("written");
    assert_eq!(read(&out).expect("whole"), prefix);
}
