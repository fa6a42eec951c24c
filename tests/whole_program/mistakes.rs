//! What people do by mistake: it is said what it was, and nothing is changed by it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use rustix::process::{Signal, kill_process};

use crate::program::{Program, TAG0, printed, verb};

/// What a verb says that fails.
fn refused(arguments: &[&str]) -> String {
    let output = verb(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "dcd {arguments:?}: {out}{err}");
    err.into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Every file below a directory, with its bytes.
fn bytes_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()) {
        match entry.is_dir() {
            true => found.extend(bytes_below(&entry)),
            false => drop(found.insert(entry.clone(), fs::read(&entry).expect("a file"))),
        }
    }
    found
}

/// The refusal of a second `dcd demo` on a journal once came behind the record of its run.
#[test]
fn a_demo_that_is_refused_leaves_the_journal_as_it_is() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = dir.path().join("demo");
    let demo = ["demo", "--accel", "soft", "--journal", text(&journal)];
    printed(&demo);
    let before = bytes_below(&journal);
    assert!(refused(&demo).contains("stays as it is"));
    assert_eq!(bytes_below(&journal), before);
}

/// A program that ended under a `dcd snapshot save` once was success, and nothing was said: to a broken pipe, as of `dcd … | head`,
/// nothing is said.
#[test]
fn a_program_that_ends_under_a_verb_is_no_success() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("qmp.sock");
    let listener = UnixListener::bind(&socket).expect("a socket");
    let address = format!("unix:{}", socket.display());
    let program = thread::spawn(move || {
        for answers in 0..4 {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut requests = BufReader::new(stream.try_clone().expect("a socket")).lines();
            stream.write_all(b"{\"QMP\": {}}\n").expect("a greeting");
            for _ in 0..answers {
                drop(requests.next());
                stream.write_all(b"{\"return\": {}}\n").expect("an answer");
            }
        }
    });
    for _ in 0..4 {
        let said = refused(&["snapshot", "save", "monday", "--qmp", &address]);
        assert!(!said.trim().is_empty());
    }
    program.join().expect("an end");
}

/// Who asked a process that is stopped waited for ever.
#[test]
fn an_owner_that_is_stopped_is_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--accel", "soft"]);
    let pid = program.pid();
    kill_process(pid, Signal::STOP).expect("a signal");
    let said = refused(&["replay", text(&program.journal())]);
    assert!(said.contains("cannot be asked") && said.contains("has not greeted within 10 s: is it stopped?"), "{said}");
    kill_process(pid, Signal::CONT).expect("a signal");
    program.terminate();
}

/// The state of one VM was once packed with the journal of another, and nothing was said.
#[test]
fn a_snapshot_goes_with_its_own_journal_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let (other, packed) = (dir.path().join("other"), dir.path().join("packed.dcd"));
    printed(&["demo", "--accel", "soft", "--journal", text(&other)]);
    let object = format!("memory-backend-ram,id=tm0,size=16M,tag={TAG0}");
    let program = Program::start(dir.path(), &["--accel", "soft", "--object", &object]);
    printed(&["snapshot", "save", "monday", "--qmp", &program.address()]);
    let journal = program.journal();
    program.terminate();
    let snapshot = journal.join("snapshots/monday");
    let said = refused(&["journal", "pack", text(&other), "--snapshot", text(&snapshot), text(&packed)]);
    assert!(said.contains("name the journal that it was saved of"), "{said}");
    assert!(!packed.exists());
    // Where none is named it is the one that the snapshot lies in.
    printed(&["journal", "pack", "--snapshot", text(&snapshot), text(&packed)]);
    let inside = printed(&["inspect", "backends.tm0.size-bytes", "--snapshot", text(&packed)]);
    assert!(inside.contains("16777216"), "{inside}");
}

/// Any file was once a damaged journal, with a command that takes its records out.
#[test]
fn what_is_no_journal_is_not_called_a_damaged_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (file, nowhere) = (dir.path().join("notes.txt"), dir.path().join("nowhere"));
    fs::write(&file, "a list of things to buy\n").expect("written");
    for asked in [&["replay"][..], &["bisect", "--law", "extents-disjoint"], &["journal", "show"]] {
        let said = refused(&[asked, &[text(&file)]].concat());
        assert!(said.contains("is no journal") && !said.contains("salvage"), "{said}");
        let said = refused(&[asked, &[text(&nowhere)]].concat());
        assert!(said.contains(&format!("there is no {}", nowhere.display())), "{said}");
    }
}

/// What the host says was once said twice, by an error and by its cause.
#[test]
fn no_cause_is_said_twice() {
    let dir = tempfile::tempdir().expect("a directory");
    let said = refused(&["journal", "import", text(dir.path()), text(&dir.path().join("new"))]);
    assert_eq!(said.matches("os error").count(), 1, "{said}");
}
