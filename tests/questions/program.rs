//! The program under test, and what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use journal::record::{Genesis, RECORD_VERSION, Record};
use journal::{Durability, Journal, Options};

/// Runs a verb to its end.
pub(crate) fn verb(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dcd")).args(arguments).output().expect("dcd runs")
}

/// What a verb printed, and that it succeeded.
pub(crate) fn printed(arguments: &[&str]) -> String {
    let output = verb(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "dcd {arguments:?}: {out}{err}");
    out.into_owned()
}

/// What a verb said on stderr, and that it failed.
pub(crate) fn refused(arguments: &[&str]) -> String {
    let output = verb(arguments);
    assert!(!output.status.success(), "dcd {arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A journal that is read only, made once by `dcd demo`. It is copied for each reader: a store has one at a time.
pub(crate) fn demo(dir: &Path) -> String {
    static DEMO: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, from) = DEMO.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = dir.path().join("journal");
        printed(&["demo", "--accel", "soft", "--journal", journal.to_str().expect("a path")]);
        (dir, journal)
    });
    let to = dir.join("demo");
    copy(from, &to);
    to.to_str().expect("a path").to_owned()
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(from, to).expect("a copy");
        }
    }
}

/// Keeps records in a directory, as a run does.
pub(crate) fn keep(dir: &Path, genesis: &Genesis, records: &[Record]) {
    let options = Options { durability: Durability::Process, record_version: RECORD_VERSION, ..Options::default() };
    let journal = Journal::create(dir, &genesis.to_bytes(), options).expect("a journal");
    for record in records {
        journal.append(|_| (record.to_bytes(), ())).expect("appended");
    }
    journal.close().expect("closed");
}

/// A text without what differs from run to run: times and the place of the journal.
pub(crate) fn steady(text: &str, journal: &str) -> String {
    let mut steady = String::new();
    for line in text.replace(journal, "JOURNAL").lines() {
        let words = line.split(' ').collect::<Vec<_>>();
        let is_time =
            |at: usize| words.get(at + 1).is_some_and(|next| next.starts_with("ms")) && words[at].contains('.');
        let told: Vec<_> = words.iter().enumerate().map(|(at, word)| if is_time(at) { "T" } else { *word }).collect();
        steady.push_str(&told.join(" "));
        steady.push('\n');
    }
    steady
}
