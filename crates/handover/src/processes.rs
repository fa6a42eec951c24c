//! A taker that is another process, and is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use device::{Seq, VmTime};

use crate::*;

const TIMEOUT: Duration = Duration::from_secs(30);

fn hello() -> Hello {
    Hello { build: "dcd test".into(), pid: std::process::id(), journal: "/new/journal".into() }
}

fn state() -> State {
    let parts = vec![Part { name: "device".into(), version: 1, bytes: vec![1; 3 << 20] }];
    State { parts, last: Seq(1), clock: VmTime(1), run: RunState::Running }
}

/// A taker in a process of its own, up to a test below; where it listens.
fn taker(test: &str) -> (Child, BufReader<ChildStdout>, String) {
    let test = format!("processes::{test}");
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &test, "--ignored", "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = child.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let path = loop {
        let mut line = String::new();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the taker ended");
        if let Some((_, path)) = line.trim_end().split_once("listens at ") {
            break path.to_owned();
        }
    };
    (child, lines, path)
}

/// Gives a VM to a taker that ends by itself.
fn give(test: &str) -> (u32, Outcome) {
    let (mut child, _lines, path) = taker(test);
    let giver = Giver::hello(connect(Path::new(&path)).unwrap(), TIMEOUT).unwrap();
    assert_eq!((giver.peer().pid, giver.taker().pid), (child.id(), child.id()));
    let offer =
        Offer { build: "dcd test".into(), about: Vec::new(), journal: None, last: Seq(1), memories: Vec::new() };
    let outcome = giver.offer(&offer, TIMEOUT).unwrap().state(&state(), TIMEOUT);
    child.wait().unwrap();
    // A killed process leaves its directory behind.
    std::fs::remove_dir_all(Path::new(&path).parent().unwrap()).unwrap();
    (child.id(), outcome)
}

/// A taker that has the state.
fn stated() -> Taker<Stated> {
    let meeting = Meeting::new().unwrap();
    println!("listens at {}", meeting.path().display());
    let (taker, _) = Taker::begin(meeting.accept(TIMEOUT).unwrap(), &hello(), TIMEOUT).unwrap();
    let (taker, taken) = taker.ready(TIMEOUT).unwrap();
    assert_eq!(taken, state());
    // Its directory is the other's to remove, like that of one that is killed.
    std::mem::forget(meeting);
    taker
}

#[test]
fn a_taker_that_is_killed_before_it_has_taken_leaves_the_vm_where_it_was() {
    let (_, outcome) = give("is_killed_with_the_state");
    assert!(matches!(outcome, Outcome::Kept(HandoverError::Closed { awaited: Kind::Taken })), "{outcome:?}");
}

#[test]
#[ignore = "is run in a process of its own"]
fn is_killed_with_the_state() {
    let _taker = stated();
    kill_this_process();
}

#[test]
fn a_taker_that_is_killed_as_the_owner_leaves_a_word_about_who_has_the_vm() {
    let (pid, outcome) = give("is_killed_as_the_owner");
    let Outcome::Given(given) = outcome else { panic!("two histories of one VM: {outcome:?}") };
    let expected = format!("process {pid} (dcd test) has the VM; its last state is in the journal /new/journal");
    assert_eq!(given.holder(), expected);
    assert!(given.go(TIMEOUT).is_err(), "and it is not there");
}

#[test]
#[ignore = "is run in a process of its own"]
fn is_killed_as_the_owner() {
    let _owner = stated().taken().unwrap();
    kill_this_process();
}

fn kill_this_process() {
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
}
