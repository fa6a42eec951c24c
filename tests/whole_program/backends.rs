//! Backends of all three types: made by clients and by the command line, what survives, what is refused.

use std::fs;
use std::path::{Path, PathBuf};

use device::backends::{BackendRequest, BackendType, Source};
use serde_json::{Value, json};
use wire::Opcode;

use crate::program::{Client, MIB, Program, TAG0, TAG1, verb};
use crate::vm::{InProcess, Wanted, command};

const TAG2: &str = "7be13bce-ae34-4a77-b6c3-16df975fcf1a";
const SIZE: u64 = 256 * MIB;

/// A directory for a program, with one in it for files of backends.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let files = dir.path().join("files");
    fs::create_dir(&files).expect("a directory");
    (dir, files)
}

fn start(dir: &Path, files: &Path, more: &[&str]) -> Program {
    let files = ["--backend-dir", files.to_str().expect("a path")];
    Program::start(dir, &[&files[..], more].concat())
}

fn file(id: &str, tag: &str, path: &str) -> Value {
    let kind = "memory-backend-file";
    json!({"qom-type": kind, "id": id, "size": SIZE, "tag": tag, "mem-path": path, "share": true})
}

fn with(mut arguments: Value, name: &str, value: impl Into<Value>) -> Value {
    arguments[name] = value.into();
    arguments
}

/// Whether a backend's bytes were lost between two runs.
fn is_lost(client: &mut Client, id: &str) -> bool {
    let backends = client.query()["backends"].take();
    let backend = backends.as_array().expect("a list").iter().find(|backend| backend["id"] == id).expect("it");
    backend["bytes-lost"] == true
}

#[test]
fn every_type_is_made_by_a_client_and_shows_its_properties() {
    let (dir, files) = place();
    let program = start(dir.path(), &files, &[]);
    let mut client = program.client();
    let memfd = json!({"qom-type": "memory-backend-memfd", "id": "tm1", "size": SIZE, "tag": TAG1, "seal": false});
    client.object_add("tm0", TAG0, SIZE).expect("made");
    client.execute("object-add", memfd).expect("made");
    client.execute("object-add", with(file("tm2", TAG2, "tm2.mem"), "align", 2 * MIB)).expect("made");
    assert_eq!(fs::metadata(files.join("tm2.mem")).expect("a file").len(), SIZE);
    let mut get = |id: &str, property: &str| {
        let arguments = json!({"path": format!("/objects/{id}"), "property": property});
        client.execute("qom-get", arguments).expect("a property")
    };
    assert_eq!(get("tm1", "seal"), false);
    assert_eq!(get("tm2", "mem-path"), "tm2.mem");
    assert_eq!(get("tm2", "align"), 2 * MIB);
    for (tag, offset) in [(TAG0, 0), (TAG1, SIZE), (TAG2, 2 * SIZE)] {
        client.add(tag, &[(offset, SIZE)]).expect("added");
        client.wait_for("ACCEPTED", tag);
    }
}

#[test]
fn bytes_of_a_shared_file_survive_a_kill_and_nothing_else_does() {
    let (dir, files) = place();
    let id = |n: u32| format!("size=256M,id=tm{n}");
    let memfd = format!("memory-backend-memfd,{},tag={TAG1}", id(1));
    let shared = format!("memory-backend-file,{},tag={TAG0},mem-path=tm0.mem,share=on", id(0));
    let private = format!("memory-backend-file,{},tag={TAG2},mem-path=tm2.mem", id(2));
    let objects = ["--object", &shared, "--object", &memfd, "--object", &private];
    let program = start(dir.path(), &files, &objects);
    let mut client = program.client();
    client.add(TAG0, &[(0, SIZE)]).expect("added");
    client.wait_for("ACCEPTED", TAG0);
    client.execute("object-add", file("tm3", "", "tm3.mem")).expect("made");
    program.kill();
    // What another process that has the file mapped would have written.
    let mut bytes = fs::read(files.join("tm0.mem")).expect("a file");
    bytes[4096..4100].copy_from_slice(b"kept");
    fs::write(files.join("tm0.mem"), &bytes).expect("written");

    let program = start(dir.path(), &files, &objects);
    let said = &program.announced;
    for kept in ["backend tm0: its bytes are kept", "backend tm3: its bytes are kept"] {
        assert!(said.contains(kept), "{said}");
    }
    for lost in ["backend tm1: its bytes ended", "backend tm2: its bytes ended"] {
        assert!(said.contains(lost), "{said}");
    }
    let mut client = program.client();
    assert_eq!(["tm0", "tm1", "tm2", "tm3"].map(|id| is_lost(&mut client, id)), [false, true, true, false]);
    assert_eq!(client.state(TAG0), "accepted");
    assert!(fs::read(files.join("tm0.mem")).expect("a file") == bytes, "a resume changes no byte of it");
}

#[test]
fn a_file_that_is_gone_or_another_one_refuses_the_resume() {
    let (dir, files) = place();
    let shared = format!("memory-backend-file,id=tm0,size=256M,tag={TAG0},mem-path=tm0.mem,share=on");
    let program = start(dir.path(), &files, &["--object", &shared]);
    let mut client = program.client();
    client.add(TAG0, &[(0, SIZE)]).expect("added");
    client.wait_for("ACCEPTED", TAG0);
    program.kill();
    let options = ["--backend-dir", files.to_str().expect("a path"), "--object"];
    let refused = |more: &[&str]| Program::try_start(dir.path(), more).err().expect("a refusal");

    fs::rename(files.join("tm0.mem"), files.join("away")).expect("renamed");
    let said = refused(&[&options[..], &[&shared]].concat());
    assert!(said.contains("backend tm0: mem-path=tm0.mem: the file of 268435456 bytes"), "{said}");
    assert!(said.contains("is gone; put it back") && !files.join("tm0.mem").exists(), "{said}");
    let said = refused(&["--object", &shared]);
    assert!(said.contains("start with --backend-dir DIR"), "{said}");
    let said = refused(&options[..2]);
    let option = format!("give it again: --object memory-backend-file,id=tm0,size=268435456,tag={TAG0}");
    assert!(said.contains(&option) && said.contains(",mem-path=tm0.mem,share=on"), "{said}");
    let said = refused(&[&options[..], &[&shared.replace("tm0.mem", "away")]].concat());
    assert!(said.contains("its mem-path was tm0.mem and is away"), "{said}");
    let said = refused(&[&options[..], &[&shared.replace(",share=on", "")]].concat());
    assert!(said.contains("its share was on and is off"), "{said}");

    fs::write(files.join("tm0.mem"), b"short").expect("written");
    let said = refused(&[&options[..], &[&shared]].concat());
    assert!(said.contains("backend tm0: mem-path=tm0.mem has 5 bytes and had 268435456"), "{said}");

    // No refusal has changed anything: with its file back it is the same backend.
    fs::rename(files.join("away"), files.join("tm0.mem")).expect("renamed");
    let program = start(dir.path(), &files, &["--object", &shared]);
    assert!(!is_lost(&mut program.client(), "tm0"));
}

/// Nobody asked for the bytes of a backend to go that the command line only names no more, nor for its file.
#[test]
fn the_file_of_a_backend_that_is_named_no_more_is_left_alone() {
    let (dir, files) = place();
    let discarding = "memory-backend-file,id=tm0,size=256M,mem-path=tm0.mem,share=on,discard-data=on";
    start(dir.path(), &files, &["--object", discarding]).terminate();
    fs::write(files.join("tm0.mem"), vec![1; SIZE as usize]).expect("written");
    let mut client = start(dir.path(), &files, &[]);
    assert_eq!(client.client().query()["backends"], json!([]));
    client = restart(client, &dir, &files);
    assert_eq!(client.client().query()["backends"], json!([]));
    assert!(fs::read(files.join("tm0.mem")).expect("a file") == vec![1; SIZE as usize]);
}

fn restart(program: Program, dir: &tempfile::TempDir, files: &Path) -> Program {
    program.terminate();
    start(dir.path(), files, &[])
}

#[test]
fn discard_data_is_done_when_object_del_is_answered_and_not_at_the_end() {
    let (dir, files) = place();
    let program = start(dir.path(), &files, &[]);
    for name in ["tm0.mem", "tm1.mem"] {
        fs::write(files.join(name), vec![1; SIZE as usize]).expect("written");
    }
    let is = |name: &str, byte: u8| fs::read(files.join(name)).expect("a file") == vec![byte; SIZE as usize];
    let mut client = program.client();
    client.execute("object-add", with(file("tm0", TAG0, "tm0.mem"), "discard-data", true)).expect("made");
    client.execute("object-add", file("tm1", TAG1, "tm1.mem")).expect("made");
    program.kill();
    assert!(is("tm0.mem", 1), "the end of a process is not the end of a backend");

    let program = start(dir.path(), &files, &[]);
    let mut client = program.client();
    for id in ["tm0", "tm1"] {
        client.execute("object-del", json!({"id": id})).expect("deleted");
    }
    assert!(is("tm0.mem", 0) && is("tm1.mem", 1));
}

#[test]
fn what_cannot_be_is_refused_by_name_and_leaves_nothing_behind() {
    let (dir, files) = place();
    let program = start(dir.path(), &files, &[]);
    let mut client = program.client();
    client.execute("object-add", file("tm0", TAG0, "tm0.mem")).expect("made");
    fs::create_dir(files.join("sub")).expect("a directory");
    fs::write(dir.path().join("secret"), b"secret").expect("written");
    let refused = |client: &mut Client, words: &str, arguments: Value| {
        let said = client.execute("object-add", arguments).expect_err("refused");
        assert!(said.contains(words), "'{words}' is not in: {said}");
    };
    let client = &mut client;
    refused(client, "mem-path=../secret is not below", file("x", TAG1, "../secret"));
    refused(client, "is a directory and not a regular file", file("x", TAG1, "sub"));
    refused(client, "readonly=on makes none", with(file("x", TAG1, "none"), "readonly", true));
    refused(client, "'discard-data' needs 'share=on'", {
        with(with(file("x", TAG1, "x.mem"), "discard-data", true), "share", false)
    });
    refused(client, "huge pages of 1099511627776 bytes", {
        let kind = "memory-backend-memfd";
        json!({"qom-type": kind, "id": "x", "size": 1u64 << 41, "hugetlb": true, "hugetlbsize": 1u64 << 40})
    });
    refused(client, "preallocating", with(with(file("x", TAG1, "x.mem"), "prealloc", true), "size", 1u64 << 43));
    // The memory was made before the registry was asked.
    refused(client, "tm0", file("tm0", TAG1, "x.mem"));
    refused(client, TAG0, file("x", TAG0, "x.mem"));
    refused(client, "tm0", file("tm0", TAG1, "tm0.mem"));
    assert!(files.join("tm0.mem").exists(), "the file of the backend that has the id stays");
    let names = fs::read_dir(&files).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = names.collect();
    names.sort();
    assert_eq!(names, ["sub", "tm0.mem"]);
    program.terminate();

    let (dir, _files) = place();
    let program = Program::start(dir.path(), &[]);
    refused(&mut program.client(), "start with --backend-dir DIR", file("tm0", TAG0, "tm0.mem"));
    let none = verb(&["run", "--journal", "none", "--qmp", "tcp:127.0.0.1:0", "--backend-dir", "/no/such/directory"]);
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(!none.status.success() && said.contains("backend directory /no/such/directory"), "{said}");
}

/// A preallocation is host work: it happens on threads of its own, before the registry is asked.
#[test]
fn a_preallocation_stands_before_nobodys_doorbell() {
    let mut vm = InProcess::start(Wanted::default());
    let mailbox = *vm.host().mailbox();
    let request = BackendRequest { size_bytes: Some(1 << 30), prealloc: Some(true), ..BackendRequest::default() };
    let spec = request.spec(BackendType::Ram).expect("a backend");
    let making = {
        let other = vm.vm.clone();
        vm.runtime.spawn(async move { other.object_add("big", spec, Source::Request).await })
    };
    let mut answered = 0;
    while !making.is_finished() {
        command(&mut vm.bus, &mailbox, Opcode::IDENTIFY_MEMORY_DEVICE, &[]).expect("an answer");
        answered += 1;
    }
    vm.runtime.block_on(making).expect("no panic").expect("made");
    // One may have been under way since before; with the preallocation in front of the doorbell there were no more.
    assert!(answered > 2, "{answered} commands were answered while 1 GiB was taken");
    vm.end();
}
