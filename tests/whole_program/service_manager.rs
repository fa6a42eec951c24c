//! A `dcd run` that a service manager has started.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::program::{Client, TAG0, dcd};

/// `dcd run` with nothing that stays.
fn run(dir: &tempfile::TempDir) -> Command {
    let mut command = dcd();
    command.args(["run", "--journal", "none", "--accel", "soft", "--qmp"]);
    command.arg(format!("unix:{}", dir.path().join("qmp.sock").display()));
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn heard(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 100];
    let len = socket.recv(&mut bytes).expect("the program says something in time");
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

#[test]
fn a_service_manager_hears_when_it_serves_and_when_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut child = run(&dir).env("NOTIFY_SOCKET", &path).spawn().unwrap();
    assert_eq!(heard(&socket), "READY=1");
    assert!(dir.path().join("qmp.sock").exists(), "it serves already");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(heard(&socket), "STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn descriptors_that_were_not_given_end_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let program = run(&dir);
    // The shell's process id is the program's.
    let script = "LISTEN_PID=$$ exec \"$0\" \"$@\"";
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(program.get_program()).args(program.get_args());
    let output = shell.env("LISTEN_FDS", "3").env("LISTEN_FDNAMES", "backend-a:b:c").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.starts_with("dcd: LISTEN_FDS: file descriptor 3 was not inherited: it is not open"), "{said}");
}

/// What the program says next, with the descriptors that come with it.
fn received(socket: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    let (mut bytes, mut fds) = ([0; 1024], Vec::new());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut with, flags).unwrap();
    for message in with.drain() {
        if let RecvAncillaryMessage::ScmRights(came) = message {
            fds.extend(came);
        }
    }
    (String::from_utf8_lossy(&bytes[..received.bytes]).into_owned(), fds)
}

/// Hears until a sentence comes, and gives the descriptors that came with it.
fn until(socket: &UnixDatagram, wanted: &str) -> Vec<OwnedFd> {
    loop {
        // A descriptor that comes with a barrier closes here, which is what its sender waits for.
        let (said, fds) = received(socket);
        if said == wanted {
            return fds;
        }
    }
}

/// What it announces.
fn announced(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    while !said.ends_with("ready\n") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{said}");
    }
    said
}

#[test]
fn a_memfd_that_the_service_manager_keeps_has_its_bytes_after_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut program = dcd();
    program.args(["run", "--accel", "soft", "--object"]);
    program.arg(format!("memory-backend-memfd,id=tm0,size=4M,share=on,tag={TAG0}"));
    program.arg("--journal").arg(dir.path().join("journal"));
    program.arg("--qmp").arg(format!("unix:{}", dir.path().join("qmp.sock").display()));
    let mut first = Command::new(program.get_program());
    first.args(program.get_args()).env("NOTIFY_SOCKET", &path).stdout(Stdio::null());
    let mut first = first.spawn().unwrap();
    let kept = until(&socket, "FDSTORE=1\nFDNAME=backend-tm0").pop().expect("its memory");
    until(&socket, "READY=1");
    let kept = File::from(kept);
    // As a guest would write it.
    kept.write_all_at(b"survives", 0x1000).unwrap();
    first.kill().unwrap();
    first.wait().unwrap();

    let mut next = Command::new("sh");
    next.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 </dev/null"]).arg(program.get_program());
    next.args(program.get_args()).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "backend-tm0");
    next.env("NOTIFY_SOCKET", &path).stdin(kept.try_clone().unwrap()).stdout(Stdio::piped());
    let mut next = next.spawn().unwrap();
    let said = announced(&mut next);
    assert!(said.contains("backend tm0: its bytes are kept"), "{said}");
    let mut client = Client::connect(&dir.path().join("qmp.sock"));
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", next.id())).unwrap();
    assert!(maps.contains("memfd:dcd-memory"), "it is mapped, not copied");
    let mut bytes = [0; 8];
    kept.read_exact_at(&mut bytes, 0x1000).unwrap();
    assert_eq!(&bytes, b"survives");
    // What was deleted is kept no longer.
    let deleting = std::thread::spawn(move || client.execute("object-del", json!({"id": "tm0"})));
    until(&socket, "FDSTOREREMOVE=1\nFDNAME=backend-tm0");
    until(&socket, "BARRIER=1");
    deleting.join().unwrap().expect("deleted");
    next.kill().unwrap();
    next.wait().unwrap();
}
