//! A directory: every byte of each of its files and every cut. sled writes an index when it opens a database: damage in
//! what the index knows is refused by sled, and at damage behind it, or without one, it ends early and says nothing. Where
//! more lies whole in the bytes, that is an error too. An end that was cut off leaves a journal that ended earlier.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use journal::{Durability, Journal, Options, Recovered};

use crate::outcome::{Outcome, outcome};

/// A small journal with groups of one part and of several.
struct Kept {
    place: tempfile::TempDir,
    whole: Recovered,
}

impl Kept {
    fn resumed() -> Kept {
        let place = tempfile::tempdir().expect("a directory");
        let dir = place.path().join("kept");
        write(&dir).close().expect("closed");
        let (journal, _) = Journal::open(&dir, Options::default()).expect("opens");
        journal.close().expect("closed");
        Kept::read(place)
    }

    /// What a killed process leaves: nothing was closed.
    fn killed() -> Kept {
        let place = tempfile::tempdir().expect("a directory");
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

    /// A copy with one file damaged; how it was read.
    fn with(&self, file: &Path, damage: impl FnOnce(&mut Vec<u8>), what: &str) -> Outcome {
        let damaged = self.place.path().join("damaged");
        copy(&self.place.path().join("kept"), &damaged);
        let mut bytes = fs::read(damaged.join(file)).expect("readable");
        damage(&mut bytes);
        fs::write(damaged.join(file), bytes).expect("writable");
        let before = fs::read(damaged.join(file)).expect("readable");
        let outcome = outcome(&damaged, &self.whole, what);
        assert!(fs::read(damaged.join(file)).expect("readable") == before, "{what}: reading it has changed it");
        fs::remove_dir_all(damaged).expect("removable");
        outcome
    }

    /// Flips a bit in, then cuts at, every `step`th byte of every file, behind the last that is not zero every 4096th.
    fn sweep(&self, step: usize) -> BTreeMap<(String, &'static str, Outcome), u64> {
        let mut outcomes = BTreeMap::new();
        for file in self.files() {
            let bytes = fs::read(self.place.path().join("kept").join(&file)).expect("readable");
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            let step = if used < 1_000 { step.min(9) } else { step };
            let offsets = (0..used).step_by(step).chain((used..bytes.len()).step_by(65_536));
            let kind = file.extension().map_or_else(|| file.clone(), |_| "live/000001/snap".into());
            let kind = kind.display().to_string();
            for at in offsets {
                let flip = |bytes: &mut Vec<u8>| bytes[at] ^= 1 << (at % 8);
                let how = self.with(&file, flip, &format!("{kind}, byte {at}"));
                *outcomes.entry((kind.clone(), "flipped", how)).or_default() += 1;
                let how = self.with(&file, |bytes| bytes.truncate(at), &format!("{kind}, cut at {at}"));
                *outcomes.entry((kind.clone(), "cut", how)).or_default() += 1;
            }
        }
        outcomes
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

fn check(kept: &Kept, step: usize) -> BTreeMap<(String, &'static str, Outcome), u64> {
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
#[ignore = "an hour: every byte and every cut, by hand"]
fn every_byte_and_cut_of_a_resumed_journal() {
    resumed(1);
}

#[test]
#[ignore = "an hour: every byte and every cut, by hand"]
fn every_byte_and_cut_of_a_killed_journal() {
    killed(1);
}
