//! Takeover: whatever fails beside it, one process has the VM, and says so.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use actors::Accel;
use serde_json::json;

use crate::hand_over::{accepts, goes_on, hand_over, taker, wanted};
use crate::program::{Client, MIB, Program, TAG0, dcd, printed};
use crate::traffic::Dice;
use crate::vm::{InProcess, Wanted};

/// What a takeover says that comes to nothing: the program goes on, and nothing of it is left.
fn refused(program: &Program, new: &Path, more: &[&str]) -> String {
    let old = program.journal();
    let said = taker(new, "journal", old.parent().expect("a directory"), more).ready().err().expect("a refusal");
    assert!(!new.join("journal/sealed").exists(), "{more:?} has left a journal");
    assert!(!new.join("qmp.sock").exists(), "{more:?} has left a socket");
    assert!(!old.join("heir").exists());
    said
}

/// A process that could not listen once ended with the VM that it had taken.
#[test]
fn an_address_that_cannot_be_had_is_said_before_the_vm_is_taken() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let other = tempfile::tempdir().expect("a directory");
    let (program, other) = (Program::start(old.path(), &[]), Program::start(other.path(), &[]));
    let mut client = program.client();
    let file = new.path().join("file");
    fs::write(&file, "mine").expect("a file");
    let port = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port_address = format!("tcp:{}", port.local_addr().expect("an address"));
    let cases = [
        (format!("unix:{}", file.display()), "there is a file of that name, and it is no socket"),
        (format!("unix:{}/missing/qmp.sock", new.path().display()), "No such file or directory"),
        (port_address, "in use"),
        (other.address(), "another process listens there, and not the one that has the VM"),
    ];
    for (n, (address, reason)) in (0..).zip(&cases) {
        let said = refused(&program, new.path(), &["--qmp", address]);
        let begins = "dcd: nothing was taken over, the VM goes on where it is: cannot listen on";
        assert!(said.contains(begins) && said.contains(reason), "{address}: {said}");
        accepts(&mut client, &format!("tm{n}"), &TAG0.replace("5be", &format!("5b{n}")), (n + 4) * 4 * MIB);
    }
    assert_eq!(fs::read(&file).expect("a file"), b"mine");
    other.terminate();
    // The same command without what stood in the way.
    drop(port);
    let next = taker(new.path(), "journal", old.path(), &["--qmp", &cases[2].0]);
    let next = next.ready().unwrap_or_else(|said| panic!("{said}"));
    goes_on(&next);
    let (is_clean, said) = program.end();
    assert!(is_clean && said.contains("handed over: "), "{said}");
}

#[test]
fn every_address_of_the_old_process_is_the_new_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    let more = format!("unix:{}", dir.path().join("more.sock").display());
    let program = Program::start(dir.path(), &["--qmp", &more, "--qmp", "tcp:127.0.0.1:0"]);
    let port = program.announced.lines().find_map(|line| line.strip_prefix("qmp: tcp:")).expect("a port").to_owned();
    let tcp = format!("tcp:{port}");
    let next = taker(dir.path(), "next", dir.path(), &["--qmp", &more, "--qmp", &tcp]);
    let next = next.ready().unwrap_or_else(|said| panic!("{said}"));
    for address in [next.address(), more.clone(), tcp.clone()] {
        assert!(next.announced.contains(&format!("qmp: {address}\n")), "{}", next.announced);
    }
    drop(Client::connect(&dir.path().join("more.sock")));
    std::net::TcpStream::connect(&port).expect("a connection");
    goes_on(&next);
    assert!(program.end().0);
    next.terminate();
    assert!(!dir.path().join("more.sock").exists());
}

/// It once ended at its first line, and the guest with it.
#[test]
fn who_cannot_say_that_it_is_ready_has_the_vm_all_the_same() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let program = Program::start(old.path(), &[]);
    accepts(&mut program.client(), "tm0", TAG0, 0);
    let socket = new.path().join("qmp.sock");
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
    let mut child = dcd()
        .args(["run", "--takeover", &program.address(), "--journal"])
        .arg(new.path().join("journal"))
        .args(["--qmp", &format!("unix:{}", socket.display())])
        .stdout(full)
        .stderr(Stdio::piped())
        .spawn()
        .expect("dcd starts");
    let (is_clean, said) = program.end();
    assert!(is_clean && said.contains("handed over: "), "{said}");
    let mut client = Client::connect(&socket);
    assert_eq!(client.state(TAG0), "accepted");
    client.execute("quit", json!({})).expect("an end");
    assert!(child.wait().expect("an end").success());
}

/// The one that came too late once removed the mark of the one that had the VM, and the old journal began a second VM beside it.
#[test]
fn of_two_takeovers_the_loser_leaves_the_mark_of_the_winner() {
    let soft = || Wanted { accel: Accel::Soft, ..wanted(None) };
    let giver = InProcess::start(soft());
    let (_, winner) = hand_over(&giver, soft()).expect("handed over");
    let heir = || fs::read_to_string(giver.dir.path().join("journal/heir")).expect("a mark");
    let marked = heir();
    assert!(marked.starts_with("given "), "{marked}");
    let refused = hand_over(&giver, soft()).err().expect("it is given already");
    assert_eq!(refused.matches("the VM was handed over already: process").count(), 2, "both say so: {refused}");
    assert_eq!(heir(), marked);
    winner.end();
}

#[test]
fn of_two_programs_that_take_at_once_one_has_the_vm() {
    for _ in 0..3 {
        let old = tempfile::tempdir().expect("a directory");
        let (one, other) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let program = Program::start(old.path(), &[]);
        let takers = [&one, &other].map(|new| taker(new.path(), "journal", old.path(), &[]));
        let ends = takers.map(Program::ready);
        assert_eq!(ends.iter().filter(|end| end.is_ok()).count(), 1);
        let (is_clean, said) = program.end();
        assert!(is_clean && said.contains("handed over: "), "{said}");
        let again = Program::try_start(old.path(), &[]).err().expect("two have the VM");
        assert!(again.contains("was handed over: its last state is in the journal"), "{again}");
        for end in ends {
            match end {
                Ok(winner) => goes_on(&winner),
                Err(said) => assert!(said.contains("dcd: "), "{said}"),
            }
        }
    }
}

/// It once ended without a word while the other process took the VM.
#[test]
fn who_is_told_to_end_in_a_hand_over_says_whether_it_has_given_the_vm() {
    let mut dice = Dice(std::process::id() as u64 | 1 << 41);
    let mut given = 0;
    for _ in 0..12 {
        let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let program = Program::start(old.path(), &[]);
        accepts(&mut program.client(), "tm0", TAG0, 0);
        let taker = taker(new.path(), "journal", old.path(), &[]);
        thread::sleep(Duration::from_micros(dice.roll(60_000)));
        program.signal_to_end();
        let taken = taker.ready();
        let (is_clean, said) = program.end();
        assert!(is_clean, "{said}");
        assert_eq!(said.contains("handed over: "), taken.is_ok(), "{said}");
        let next = taken.map(|taken| (given += 1, taken).1);
        let next = next.unwrap_or_else(|_| Program::start(old.path(), &[]));
        assert_eq!(next.client().state(TAG0), "accepted");
    }
    eprintln!("{given} of 12 were given");
}

#[test]
fn a_takeover_says_what_it_needs_and_where_the_snapshots_are() {
    let (old, new) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let program = Program::start(old.path(), &[]);
    // Into the journal of the one that has it.
    let said = taker(old.path(), "journal", old.path(), &[]).ready().err().expect("a refusal");
    assert!(said.contains("and a process that runs has it open: a VM that is taken over begins a new one"), "{said}");
    assert!(said.contains("give --journal NEW") && !said.contains("stop it"), "{said}");
    printed(&["snapshot", "save", "monday", "--qmp", &program.address()]);
    let next = taker(new.path(), "journal", old.path(), &[]).ready().unwrap_or_else(|said| panic!("{said}"));
    let there = old.path().join("journal/snapshots");
    let line = format!("snapshots of before: {}, give --snapshots to go on with them\n", there.display());
    assert!(next.announced.contains(&line), "{}", next.announced);
    next.terminate();
    assert!(program.end().0);
}
