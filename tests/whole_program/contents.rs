//! Contents: the bytes of every kind of backend over a load in place, a restore elsewhere, a hand-over; and what a resume says.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use actors::{Loading, SaveForm, SaveRequest};
use memory::HostMemory;
use serde_json::json;
use snapshot::{Base, Contents, Store};

use crate::program::{MIB, Program, TAG0, TAG1, printed};
use crate::restoring::{self, restore, snapshots};
use crate::vm::{InProcess, Wanted};

const LEN_BYTES: u64 = 2 * MIB;
/// What a page has at first, when it is saved, and after that.
const FIRST: u8 = 0x11;
const SAVED: u8 = 0x22;
const LATER: u8 = 0x33;
const NEXT: u8 = 0x44;
/// Every kind of backend that can be written.
const WRITTEN: [&str; 4] = ["ram", "memfd", "shared", "private"];
/// One that is not, and one whose bytes are by reference.
const REFERENCED: [&str; 2] = ["read-only", "apart"];

/// A directory of files that backends are to be of, as they are before.
fn files(names: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    names.iter().for_each(|name| fs::write(dir.path().join(name), vec![FIRST; LEN_BYTES as usize]).expect("a file"));
    dir
}

fn wanted(files: &Path) -> Wanted {
    Wanted { backend_dir: Some(files.to_owned()), ..Wanted::default() }
}

/// A VM with a backend of each kind.
fn started(files: &Path) -> InProcess {
    let vm = InProcess::start(wanted(files));
    let backend = |kind: &str, id: &str, more: serde_json::Value| {
        let mut arguments = json!({"qom-type": format!("memory-backend-{kind}"), "id": id, "size": LEN_BYTES});
        arguments.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        vm.qmp("object-add", arguments).unwrap_or_else(|refused| panic!("{id}: {refused}"));
    };
    backend("ram", "ram", json!({}));
    backend("memfd", "memfd", json!({}));
    backend("file", "shared", json!({"mem-path": "shared", "share": true}));
    backend("file", "private", json!({"mem-path": "private", "share": false}));
    backend("file", "read-only", json!({"mem-path": "read-only", "share": true, "readonly": true}));
    backend("file", "apart", json!({"mem-path": "apart", "share": true}));
    vm
}

fn memory(vm: &InProcess, id: &str) -> Arc<HostMemory> {
    vm.runtime.block_on(vm.vm.memory_of(id)).expect("a VM").expect("a backend")
}

/// Writes a page at the begin and one at the end.
fn write(vm: &InProcess, ids: &[&str], byte: u8) {
    for id in ids {
        let memory = memory(vm, id);
        for at in [0, LEN_BYTES - 4096] {
            memory.write(at, &[byte; 4096]).expect("inside");
        }
    }
}

/// What a backend has in the pages that are written, and whether it has what it had before in between.
fn assert_has(vm: &InProcess, id: &str, byte: u8) {
    let between = if ["ram", "memfd"].contains(&id) { 0 } else { FIRST };
    for (at, byte) in [(0, byte), (LEN_BYTES - 4096, byte), (LEN_BYTES / 2, between)] {
        let bytes = vm.backend_bytes(id, at, 4096);
        assert_eq!(bytes.iter().find(|there| **there != byte), None, "{id} at {at} is not {byte}");
    }
}

fn save(vm: &InProcess, name: &str) {
    let by_reference = vec!["apart".to_owned()];
    let request = SaveRequest { name: name.parse().expect("a name"), form: SaveForm::Full, by_reference };
    vm.runtime.block_on(vm.vm.save_snapshot(request, Arc::new(|_, _| ()))).expect("saved");
}

/// Seen as: a file that is only read stopped the VM, which had its end behind it when that was found.
#[test]
fn a_load_in_place_brings_the_bytes_of_every_kind_of_backend_back() {
    let files = files(&["shared", "private", "read-only", "apart"]);
    let vm = started(files.path());
    write(&vm, &WRITTEN, SAVED);
    save(&vm, "first");
    for _ in 0..2 {
        write(&vm, &WRITTEN, LATER);
        write(&vm, &["apart"], LATER);
        vm.runtime.block_on(vm.vm.load_snapshot("first")).expect("loaded");
        WRITTEN.iter().for_each(|id| assert_has(&vm, id, SAVED));
        assert_has(&vm, "read-only", FIRST);
        assert_has(&vm, "apart", LATER);
    }
    let on_disk = |name: &str| fs::read(files.path().join(name)).expect("a file")[0];
    let bytes = ["shared", "private", "read-only", "apart"].map(on_disk);
    assert_eq!(bytes, [SAVED, FIRST, FIRST, LATER], "private writes stay private");
    assert!(!vm.dir.path().join("journal/refill").exists());
    vm.end();
}

/// Adds a file as a backend.
fn add_file(vm: &InProcess, id: &str, path: &str) {
    let file = json!({"qom-type": "memory-backend-file", "id": id, "size": LEN_BYTES, "mem-path": path, "share": true});
    vm.qmp("object-add", file).unwrap_or_else(|refused| panic!("{id}: {refused}"));
}

/// Seen as: a file in the backend directory of a VM that had no backends was all zeros after a load, because the snapshot had a
/// backend of that path.
#[test]
fn a_load_in_place_leaves_a_file_that_the_vm_does_not_have() {
    let files = tempfile::tempdir().expect("a directory");
    let vm = InProcess::start(wanted(files.path()));
    let (path, kept) = (files.path().join("f0.mem"), files.path().join("kept.mem"));
    restoring::save(&vm, "empty", SaveForm::Full).expect("saved");
    add_file(&vm, "f0", "f0.mem");
    write(&vm, &["f0"], SAVED);
    restoring::save(&vm, "first", SaveForm::Full).expect("saved");
    let load = |name: &str| vm.runtime.block_on(vm.vm.load_snapshot(name)).map(drop).map_err(|error| error.to_string());
    write(&vm, &["f0"], LATER);
    load("first").expect("it has this one");
    assert_eq!(vm.backend_bytes("f0", 0, 1), [SAVED]);

    load("empty").expect("loaded");
    fs::write(&path, vec![LATER; 2 * LEN_BYTES as usize]).expect("a file");
    let refuses = || {
        let refused = load("first").expect_err("somebody's");
        assert!(
            refused.contains("mem-path=f0.mem is there already below") && refused.contains("somebody's"),
            "{refused}"
        );
        let bytes = fs::read(&path).expect("a file");
        assert!(bytes.len() == 2 * LEN_BYTES as usize && bytes.iter().all(|byte| *byte == LATER));
    };
    refuses();
    // The VM goes on as it was, and what it has under another id, or elsewhere, is not what the snapshot had.
    assert_eq!(vm.runtime.block_on(vm.vm.memory_of("f0")).expect("a VM").map(drop), None);
    add_file(&vm, "other", "f0.mem");
    refuses();
    vm.qmp("object-del", json!({"id": "other"})).expect("deleted");
    add_file(&vm, "f0", "f1.mem");
    refuses();
    fs::rename(&path, &kept).expect("movable");
    load("first").expect("loaded");
    assert_eq!(vm.backend_bytes("f0", 0, 1), [SAVED]);
    assert_eq!(fs::read(&path).expect("a file")[0], SAVED, "on the disk, too");
    assert_eq!(fs::read(&kept).expect("a file")[0], LATER);
    vm.end();
}

/// Seen as: the bytes of a backend that is no file were said to be elsewhere, and came back as zeros.
#[test]
fn bytes_of_what_is_no_file_are_not_elsewhere() {
    let files = files(&["apart", "shared", "private", "read-only"]);
    let vm = started(files.path());
    write(&vm, &WRITTEN, SAVED);
    save(&vm, "first");
    let store = Store::open(&snapshots(&vm)).expect("a store");
    let first = store.snapshot(&"first".parse().expect("a name")).expect("whole");
    // The same, with the bytes of one of them somewhere.
    let said = |name: &str, path: &str| {
        let id = format!("hostile-{}", name.len());
        let mut draft = store.begin(&id.parse().expect("a name"), None).expect("begun");
        let names: Vec<_> = first.parts().map(|part| part.name.clone()).collect();
        names.iter().for_each(|name| {
            let part = first.part(name).expect("a part");
            draft.part(name, part.version, part.bytes).expect("taken");
        });
        let mut writers = Vec::new();
        for memory in first.memories() {
            match &memory.contents {
                _ if memory.id.as_str() == name => draft.reference(&memory.id, memory.len_bytes, path).expect("taken"),
                Contents::Reference { path } => draft.reference(&memory.id, memory.len_bytes, path).expect("taken"),
                Contents::Copied(_) => {
                    writers.push(draft.contents(&memory.id, memory.len_bytes, Base::Zeros).expect("begun"));
                }
            }
        }
        draft.finish(writers, &mut |_| ()).map(drop).expect("finished");
        let loaded = vm.runtime.block_on(vm.vm.load_snapshot(&id));
        vm.runtime.block_on(vm.vm.delete_snapshot(&id)).expect("deleted");
        loaded.expect_err("refused").to_string()
    };
    for name in ["ram", "backend-ram", "backend-memfd"] {
        let error = said(name, "shared");
        assert!(
            error.contains(&format!("the memory '{name}': its bytes are said to be in 'shared', and by the")),
            "{error}"
        );
        assert!(error.contains("state it is no file"), "{error}");
    }
    let error = said("backend-apart", "shared");
    assert!(error.contains("in 'shared', and by the state it is the file 'apart'"), "{error}");
    WRITTEN.iter().for_each(|id| assert_has(&vm, id, SAVED));
    vm.end();
}

/// It holds what has changed since the load, and of bytes that were elsewhere all.
#[test]
fn a_snapshot_after_a_load_in_place_is_built_on_what_was_loaded() {
    let files = files(&["shared", "private", "read-only", "apart"]);
    let vm = started(files.path());
    write(&vm, &WRITTEN, SAVED);
    save(&vm, "first");
    write(&vm, &WRITTEN, LATER);
    vm.runtime.block_on(vm.vm.load_snapshot("first")).expect("loaded");
    // One page of each; the other one that is not what it was has its bytes from the load.
    WRITTEN.iter().for_each(|id| memory(&vm, id).write(0, &[NEXT; 4096]).expect("inside"));
    let next = restoring::save(&vm, "next", SaveForm::Incremental).expect("saved");
    assert_eq!(next.parent.as_deref(), Some("first"));
    assert_eq!(next.contents_bytes, 4 * 4096 + LEN_BYTES, "a page of each, and all of what was by reference");
    let check = |vm: &InProcess| {
        for id in WRITTEN {
            let at = |place| vm.backend_bytes(id, place, 4096);
            assert!(at(0) == [NEXT; 4096] && at(LEN_BYTES - 4096) == [SAVED; 4096], "{id}");
        }
        assert_eq!(vm.backend_bytes("apart", 0, 1), [FIRST]);
    };
    write(&vm, &WRITTEN, LATER);
    write(&vm, &["apart"], LATER);
    vm.runtime.block_on(vm.vm.load_snapshot("next")).expect("loaded");
    check(&vm);
    let there = self::files(&["read-only"]);
    let snapshot = restore(snapshots(&vm).join("next"), Loading::Lazy);
    let other = InProcess::start(Wanted { restore: snapshot, ..wanted(there.path()) });
    check(&other);
    other.end();
    vm.end();
}

#[test]
fn a_restore_elsewhere_makes_files_and_takes_those_that_are_by_reference() {
    let here = files(&["shared", "private", "read-only", "apart"]);
    let vm = started(here.path());
    write(&vm, &WRITTEN, SAVED);
    save(&vm, "first");
    for loading in [Loading::Eager, Loading::Lazy] {
        // Of which nothing else is there.
        let there = files(&REFERENCED);
        let snapshot = restore(snapshots(&vm).join("first"), loading);
        let other = InProcess::start(Wanted { restore: snapshot, ..wanted(there.path()) });
        WRITTEN.iter().for_each(|id| assert_has(&other, id, SAVED));
        REFERENCED.iter().for_each(|id| assert_eq!(other.backend_bytes(id, 0, 1), [FIRST], "{id}"));
        write(&other, &WRITTEN, LATER);
        WRITTEN.iter().for_each(|id| assert_has(&vm, id, SAVED));
        other.end();
    }
    vm.end();
}

/// Seen as: a file that was mapped privately to be written was copied into one that was mapped to be read only.
#[test]
fn a_hand_over_takes_the_bytes_of_every_kind_of_backend_along() {
    let files = files(&["shared", "private", "read-only", "apart", "private-read-only"]);
    let mut vm = started(files.path());
    let private = json!({"qom-type": "memory-backend-file", "id": "private-read-only", "size": LEN_BYTES,
                         "mem-path": "private-read-only", "share": false, "readonly": true});
    vm.qmp("object-add", private).expect("a backend");
    for byte in [SAVED, LATER] {
        write(&vm, &WRITTEN, byte);
        write(&vm, &["private-read-only"], byte);
        let (here, there) = UnixStream::pair().expect("a pair");
        let next = thread::scope(|scope| {
            let files = files.path();
            let taking = scope.spawn(move || InProcess::take_over(wanted(files), there));
            vm.runtime.block_on(vm.vm.hand_over(here)).expect("handed over");
            taking.join().expect("no panic").expect("taken").0
        });
        vm = next;
        WRITTEN.iter().for_each(|id| assert_has(&vm, id, byte));
        assert_has(&vm, "private-read-only", byte);
        assert_has(&vm, "read-only", FIRST);
    }
    assert_eq!(fs::read(files.path().join("private-read-only")).expect("a file")[0], FIRST);
    vm.end();
}

/// kill -9 of a VM that was restored, and of one that was taken over: the journal of each goes on, and says what became of it.
#[test]
fn a_restored_and_a_taken_over_vm_resume_from_their_journals() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = Program::start(dir.path(), &[]);
    let mut client = first.client();
    client.object_add("tm0", TAG0, 2 * MIB).expect("a backend");
    client.add(TAG0, &[(0, 2 * MIB)]).expect("an offer");
    client.wait_for("ACCEPTED", TAG0);
    printed(&["snapshot", "save", "s0", "--qmp", &first.address()]);
    let snapshot = first.journal().join("snapshots/s0");

    let restored = tempfile::tempdir().expect("a directory");
    let program = Program::start(restored.path(), &["--restore", snapshot.to_str().expect("a path")]);
    assert!(program.announced.contains("restored from snapshot s0, after #"), "{}", program.announced);
    check_resume(program, restored.path(), "journal");

    let address = first.address();
    let taken = Program::try_start_on(dir.path(), "journal2", &["--takeover", &address]);
    let taken = taken.unwrap_or_else(|said| panic!("{said}"));
    assert!(first.end().0, "the giver ends well");
    check_resume(taken, dir.path(), "journal2");
}

/// It is killed after another change, and resumed twice.
fn check_resume(program: Program, dir: &Path, journal: &str) {
    let mut client = program.client();
    client.object_add("tm1", TAG1, 2 * MIB).expect("a backend");
    client.add(TAG1, &[(4 * MIB, 2 * MIB)]).expect("an offer");
    client.wait_for("ACCEPTED", TAG1);
    program.kill();
    for _ in 0..2 {
        let program = Program::try_start_on(dir, journal, &[]).unwrap_or_else(|said| panic!("{said}"));
        let said = &program.announced;
        assert!(said.contains("recovered from the journal, the guest boots anew"), "{said}");
        for id in ["tm0", "tm1"] {
            assert!(said.contains(&format!("backend {id}: its bytes ended with the process that had them")), "{said}");
        }
        let mut client = program.client();
        assert_eq!([TAG0, TAG1].map(|tag| client.state(tag)), ["accepted", "accepted"]);
        let (path, journal) = (program.journal(), program.journal());
        program.terminate();
        let replayed = printed(&["replay", "--check", path.to_str().expect("a path")]);
        assert!(replayed.contains("every decision is what this build decides"), "{}: {replayed}", journal.display());
    }
}
