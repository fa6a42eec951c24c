//! A directory: every byte of each of its files and every cut. sled writes an index when it opens a database: damage in
//! what the index knows is refused by sled, and at damage behind it, or without one, it ends early and says nothing. Where
//! more lies whole in the bytes, that is an error too. An end that was cut off leaves a journal that ended earlier.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;

use journal::{Durability, Journal, Options, Recovered};

use crate::outcome::{Outcome, outcome};

/// How often each thing came of each damage to each file.
type Outcomes = BTreeMap<(String, &'static str, Outcome), u64>;

/// A small journal with groups of one part and of several.
struct Kept {
    place: tempfile::TempDir,
    whole: Recovered,
}

/// One of its files in a copy, to be damaged in place and mended.
struct Victim<'a> {
    kept: &'a Kept,
    dir: PathBuf,
    path: PathBuf,
    /// What it is, without its number.
    kind: String,
    bytes: &'a [u8],
    file: File,
}

/// A place in memory, where there is one: what a disk does to a file is not asked here, and each byte takes some files.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

impl Kept {
    fn resumed() -> Kept {
        let place = place();
        let dir = place.path().join("kept");
        write(&dir).close().expect("closed");
        let (journal, _) = Journal::open(&dir, Options::default()).expect("opens");
        journal.close().expect("closed");
        Kept::read(place)
    }

    /// What a killed process leaves: nothing was closed.
    fn killed() -> Kept {
        let place = place();
        let running = place.path().join("running");
        let journal = write(&running);
        copy(&running, &place.path().join("kept"));
        journal.close().expect("closed");
        Kept::read(place)
    }

    fn read(place: tempfile::TempDir) -> Kept {
        let again = place.path().join("again");
        copy(&place.path().join("kept"), &again);
        let whole = journal::read(&again).expect("whole");
        assert_eq!(whole.last.0, 12);
        Kept { place, whole }
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.place.path().join("kept/live/000001")).expect("listable");
        let paths = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
        paths.map(|path| path.strip_prefix(self.place.path().join("kept")).expect("below").to_owned()).collect()
    }

    /// Flips a bit in, then cuts at, every `step`th byte of every file, behind the last that is not zero every 65536th.
    fn sweep(&self, step: usize) -> Outcomes {
        let mut outcomes = Outcomes::new();
        for name in self.files() {
            let bytes = fs::read(self.place.path().join("kept").join(&name)).expect("readable");
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let step = if used < 1_000 { step.min(9) } else { step };
            let offsets: Vec<_> = (0..used).step_by(step).chain((used..bytes.len()).step_by(65_536)).collect();
            let threads = thread::available_parallelism().map_or(1, usize::from);
            let swept = thread::scope(|scope| {
                let share = |thread| {
                    let offsets = offsets.iter().copied().skip(thread).step_by(threads);
                    let mut victim = Victim::new(self, &name, &bytes, thread);
                    scope.spawn(move || victim.sweep(offsets))
                };
                let shares: Vec<_> = (0..threads).map(share).collect();
                shares.into_iter().flat_map(|share| share.join().expect("swept")).collect::<Vec<_>>()
            });
            for (key, count) in swept {
                *outcomes.entry(key).or_default() += count;
            }
        }
        outcomes
    }
}

impl<'a> Victim<'a> {
    fn new(kept: &'a Kept, name: &Path, bytes: &'a [u8], thread: usize) -> Victim<'a> {
        let dir = kept.place.path().join(format!("damaged-{thread}"));
        copy(&kept.place.path().join("kept"), &dir);
        let path = dir.join(name);
        let kind = name.extension().map_or(name, |_| Path::new("live/000001/snap")).display().to_string();
        let file = File::options().write(true).open(&path).expect("it is there");
        Victim { kept, dir, path, kind, bytes, file }
    }

    fn sweep(&mut self, offsets: impl Iterator<Item = usize>) -> Outcomes {
        let mut outcomes = Outcomes::new();
        for at in offsets {
            let how = self.flipped(at);
            *outcomes.entry((self.kind.clone(), "flipped", how)).or_default() += 1;
            let how = self.cut(at);
            *outcomes.entry((self.kind.clone(), "cut", how)).or_default() += 1;
        }
        fs::remove_dir_all(&self.dir).expect("removable");
        outcomes
    }

    fn flipped(&self, at: usize) -> Outcome {
        let flipped = self.bytes[at] ^ 1 << (at % 8);
        self.file.write_all_at(&[flipped], at as u64).expect("writable");
        let how = outcome(&self.dir, &self.kept.whole, &format!("{}, byte {at}", self.kind));
        let after = fs::read(&self.path).expect("readable");
        let (before, rest) = self.bytes.split_at(at);
        let is_same = after.len() == self.bytes.len() && after[..at] == *before && after[at + 1..] == rest[1..];
        assert!(is_same && after[at] == flipped, "{}, byte {at}: reading it has changed it", self.kind);
        self.file.write_all_at(&[self.bytes[at]], at as u64).expect("writable");
        how
    }

    fn cut(&self, at: usize) -> Outcome {
        self.file.set_len(at as u64).expect("cut");
        let how = outcome(&self.dir, &self.kept.whole, &format!("{}, cut at {at}", self.kind));
        let is_same = fs::read(&self.path).expect("readable") == self.bytes[..at];
        assert!(is_same, "{}, cut at {at}: reading it has changed it", self.kind);
        self.file.write_all_at(&self.bytes[at..], at as u64).expect("writable");
        how
    }
}

fn write(dir: &Path) -> Journal {
    let options = Options { durability: Durability::Disk, record_version: 1, ..Options::default() };
    let journal = Journal::create(dir, b"genesis", options).expect("a journal");
    for n in 1..=12u64 {
        let len = if n == 5 { 16_000 } else { 80 };
        journal.append(|_| ((0..len).map(|at| (at * 7 + n * 13) as u8).collect(), ())).expect("appended");
        if n % 2 == 0 {
            journal.flush().expect("flushed");
        }
    }
    journal
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a directory");
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

fn check(kept: &Kept, step: usize) -> Outcomes {
    let outcomes = kept.sweep(step);
    let told: String = outcomes.iter().map(|(key, count)| format!("{count} {key:?}\n")).collect();
    println!("{told}");
    outcomes
}

fn resumed(step: usize) {
    for ((file, damage, how), count) in check(&Kept::resumed(), step) {
        assert!(matches!(how, Outcome::Whole | Outcome::Refused), "{file} {damage}: {count} {how:?}");
    }
}

fn killed(step: usize) {
    let outcomes = check(&Kept::killed(), step);
    let sum = |wanted| outcomes.iter().filter(|((.., how), _)| *how == wanted).map(|(_, count)| count).sum::<u64>();
    // What a cut took is gone; of what a flipped bit took, all but the damaged record is found.
    let (forgotten, ended) = (sum(Outcome::Forgotten), sum(Outcome::Ended));
    assert!(forgotten > 0 && ended > 0, "the sweep has met what it is for: {forgotten} forgotten, {ended} ended");
}

#[test]
fn a_sample_of_a_resumed_journal() {
    resumed(997);
}

#[test]
fn a_sample_of_a_killed_journal() {
    killed(997);
}

#[test]
#[ignore = "minutes: every byte and every cut, by hand"]
fn every_byte_and_cut_of_a_resumed_journal() {
    resumed(1);
}

#[test]
#[ignore = "minutes: every byte and every cut, by hand"]
fn every_byte_and_cut_of_a_killed_journal() {
    killed(1);
}
