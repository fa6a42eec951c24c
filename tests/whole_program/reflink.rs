//! Reflinks: where files of backends and snapshots are on one file system that can share blocks, saving shares them.
//!
//! An XFS in a file is mounted for it, which needs root, a loop device and mkfs.xfs. Where that is not to be had these tests
//! say so and pass, unless `DCD_REQUIRE_REFLINK` is set, as it is in CI.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use actors::{Accel, GuestProgram, Loading, SaveForm, Saved};
use driver::Policy;
use memory::HostMemory;
use serde_json::json;
use snapshot::Store;
use vm::{Job, JobAnswer};

use crate::kvm;
use crate::program::{MIB, TAG0, add_arguments, printed};
use crate::restoring::{job, restore, save, wait_for, window};
use crate::traffic::Dice;
use crate::vm::{InProcess, Wanted};

const PATIENCE: Duration = Duration::from_secs(60);
/// As small as mkfs.xfs makes them, and some.
const IMAGE_LEN_BYTES: u64 = 1 << 30;
const LEN_BYTES: u64 = 64 * MIB;
/// What the file system and the small files of a snapshot may take beside.
const LITTLE_BYTES: u64 = 4 * MIB;
const SEED: u64 = 0x5eed << 17;

/// An XFS in a file, mounted through a loop device, with a directory of files and one of snapshots. Dropping it unmounts it.
struct Xfs {
    folder: tempfile::TempDir,
}

impl Xfs {
    /// One to test with; `None` where there is none to be had, which was said.
    fn try_mounted() -> Option<Self> {
        let mounted = Self::mounted();
        if let Err(missing) = &mounted {
            assert!(std::env::var_os("DCD_REQUIRE_REFLINK").is_none(), "DCD_REQUIRE_REFLINK is set: {missing}");
            eprintln!("not run: {missing}");
        }
        mounted.ok()
    }

    fn mounted() -> Result<Self, String> {
        let xfs = Self { folder: tempfile::tempdir().map_err(|error| format!("no directory: {error}"))? };
        let image = xfs.folder.path().join("image");
        let made = File::create(&image).and_then(|file| file.set_len(IMAGE_LEN_BYTES));
        made.map_err(|error| format!("no image: {error}"))?;
        run("mkfs.xfs", &["-q".as_ref(), "-m".as_ref(), "reflink=1".as_ref(), &image])?;
        fs::create_dir(xfs.mount_point()).map_err(|error| format!("no mount point: {error}"))?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &xfs.mount_point()])?;
        [xfs.files(), xfs.snapshots()].iter().try_for_each(fs::create_dir).map_err(|error| error.to_string())?;
        Ok(xfs)
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn files(&self) -> PathBuf {
        self.mount_point().join("files")
    }

    fn snapshots(&self) -> PathBuf {
        self.mount_point().join("snapshots")
    }

    /// Bytes that are not free, when everything has its place.
    fn used_bytes(&self) -> u64 {
        run("sync", &["--file-system".as_ref(), &self.mount_point()]).expect("synced");
        let there = rustix::fs::statvfs(self.mount_point()).expect("statistics");
        (there.f_blocks - there.f_bfree) * there.f_frsize
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        if self.mount_point().exists() && run("umount", &[&self.mount_point()]).is_err() {
            // A VM of a test that has failed has a file open.
            run("umount", &["--lazy".as_ref(), &self.mount_point()]).ok();
        }
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("no {program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

/// The extents of a file, and those of them whose blocks another file has, too (`FIEMAP_EXTENT_SHARED`).
fn extents(file: &Path) -> (usize, usize) {
    let said = run("filefrag", &["-v".as_ref(), file]).expect("its extents");
    // "   0:        0..   16383:         48..     16431:  16384:             last,shared,eof"
    let is_extent = |line: &&str| line.split(':').next().is_some_and(|first| first.trim().parse::<u64>().is_ok());
    let extents: Vec<_> = said.lines().filter(is_extent).collect();
    (extents.len(), extents.iter().filter(|line| line.contains("shared")).count())
}

fn contents(store: &Path, snapshot: &str) -> PathBuf {
    store.join(snapshot).join("backend-tm0.contents")
}

fn add_file(vm: &InProcess) {
    let file = json!({"qom-type": "memory-backend-file", "id": "tm0", "size": LEN_BYTES, "mem-path": "tm0",
                      "share": true, "tag": TAG0});
    vm.qmp("object-add", file).expect("a backend");
}

/// A VM whose one backend is a file there, of bytes that differ.
fn started(xfs: &Xfs, snapshots: &Path) -> InProcess {
    let (snapshots, backend_dir) = (Some(snapshots.to_owned()), Some(xfs.files()));
    let vm = InProcess::start(Wanted { snapshots, backend_dir, ..Wanted::default() });
    add_file(&vm);
    write(&vm, 0..LEN_BYTES, 1);
    vm
}

/// Writes what follows from the seed and the place.
fn write(vm: &InProcess, bytes: std::ops::Range<u64>, seed: u64) {
    let memory = vm.runtime.block_on(vm.vm.memory_of("tm0")).expect("a VM").expect("a backend");
    for page in bytes.step_by(4096) {
        let mut dice = Dice(seed << 40 | page);
        let mut bytes = [0; 4096];
        bytes.chunks_mut(8).for_each(|word| word.copy_from_slice(&dice.roll(u64::MAX).to_le_bytes()));
        memory.write(page, &bytes).expect("inside");
    }
}

fn bytes_of(vm: &InProcess) -> Vec<u8> {
    vm.backend_bytes("tm0", 0, LEN_BYTES as usize)
}

/// The bytes of the backend in a snapshot, which is whole.
fn saved_bytes(store: &Path, name: &str) -> Vec<u8> {
    let snapshot = Store::open(store).expect("a store").snapshot(&name.parse().expect("a name")).expect("whole");
    snapshot.verify(&mut |_, _| ()).expect("every byte");
    let memory = HostMemory::anonymous(LEN_BYTES).expect("memory");
    snapshot.load(&"backend-tm0".parse().expect("an id"), &memory, &mut |_, _| ()).expect("its bytes");
    let mut bytes = vec![0; LEN_BYTES as usize];
    memory.read(0, &mut bytes).expect("inside");
    bytes
}

/// Compared without being printed.
fn assert_same(one: &[u8], other: &[u8], what: &str) {
    let differing = one.iter().zip(other).position(|(one, other)| one != other);
    assert_eq!((differing, one.len()), (None, other.len()), "{what}");
}

#[test]
fn a_snapshot_shares_the_blocks_of_a_file_and_keeps_its_moment() {
    let Some(xfs) = Xfs::try_mounted() else { return };
    let store = xfs.snapshots();
    let vm = started(&xfs, &store);
    let before = xfs.used_bytes();
    let full = save(&vm, "full", SaveForm::Full).expect("saved");
    let taken = xfs.used_bytes().saturating_sub(before);
    let (there, shared) = extents(&contents(&store, "full"));
    eprintln!("{there} extents, {shared} of them shared, {taken} bytes taken; {full:?}");
    assert!(there > 0 && there == shared, "{shared} of {there} extents are shared");
    assert!(taken < LITTLE_BYTES && full.contents_bytes < LITTLE_BYTES, "{taken} bytes were taken: {full:?}");

    let at_full = bytes_of(&vm);
    write(&vm, MIB..3 * MIB, 2);
    vm.runtime
        .block_on(vm.vm.memory_of("tm0"))
        .expect("a VM")
        .expect("a backend")
        .write(0, &[0; 4096])
        .expect("inside");
    let at_next = bytes_of(&vm);
    let next = save(&vm, "next", SaveForm::Incremental).expect("saved");
    assert_eq!(next.parent.as_deref(), Some("full"));
    let shown = printed(&["snapshot", "show", store.join("next").to_str().expect("a path")]);
    let is_here = |line: &&str| line.contains("backend-tm0") && line.contains("all here");
    assert!(shown.lines().find(is_here).is_some() && shown.contains("what differs"), "{shown}");
    write(&vm, 2 * MIB..8 * MIB, 3);
    let taken = xfs.used_bytes().saturating_sub(before);
    assert!(taken < 8 * MIB + LITTLE_BYTES, "{taken} bytes for 8 MiB that have changed");
    assert_same(&saved_bytes(&store, "full"), &at_full, "full");
    assert_same(&saved_bytes(&store, "next"), &at_next, "next");
    for (name, then) in [("full", &at_full), ("next", &at_next), ("full", &at_full)] {
        vm.runtime.block_on(vm.vm.load_snapshot(name)).expect("loaded");
        assert_same(&bytes_of(&vm), then, name);
        write(&vm, 5 * MIB..6 * MIB, 4);
    }
    assert_same(&saved_bytes(&store, "next"), &at_next, "next, when all was written to");
    check_elsewhere(&store.join("next"), &at_next);

    // Made independent, it shares them still.
    let before = xfs.used_bytes();
    let flattened = printed(&["snapshot", "flatten", store.join("next").to_str().expect("a path")]);
    let taken = xfs.used_bytes().saturating_sub(before);
    let (there, shared) = extents(&contents(&store, "next"));
    eprintln!("{flattened}{there} extents, {shared} of them shared, {taken} bytes taken");
    assert!(shared > 0 && taken < LITTLE_BYTES, "{taken} bytes were taken, {shared} of {there} extents are shared");
    vm.runtime.block_on(vm.vm.delete_snapshot("full")).expect("nothing is built on it");
    assert_same(&saved_bytes(&store, "next"), &at_next, "next, flattened");
    vm.end();
}

/// Another VM begins with the snapshot, and files of its own.
fn check_elsewhere(snapshot: &Path, then: &[u8]) {
    let files = tempfile::tempdir().expect("a directory");
    let other = InProcess::start(Wanted {
        restore: restore(snapshot.to_owned(), Loading::Eager),
        backend_dir: Some(files.path().to_owned()),
        ..Wanted::default()
    });
    assert_same(&bytes_of(&other), then, "elsewhere");
    other.end();
}

#[test]
fn what_is_on_another_file_system_is_copied() {
    let Some(xfs) = Xfs::try_mounted() else { return };
    let elsewhere = tempfile::tempdir().expect("a directory");
    let store = elsewhere.path().to_owned();
    let vm = started(&xfs, &store);
    let saved: Saved = save(&vm, "copied", SaveForm::Full).expect("saved");
    assert!(saved.contents_bytes >= LEN_BYTES, "{saved:?}");
    let then = bytes_of(&vm);
    write(&vm, 0..MIB, 2);
    assert_same(&saved_bytes(&store, "copied"), &then, "copied");
    let next = save(&vm, "next", SaveForm::Incremental).expect("saved");
    assert!(next.parent.is_some() && next.contents_bytes < MIB + LITTLE_BYTES, "{next:?}");
    assert_same(&saved_bytes(&store, "next"), &bytes_of(&vm), "next");
    vm.end();
}

/// A backend may be the begin of a longer file, of which nothing but that belongs to it.
///
/// Seen as: "memory 'backend-tm0' has 67108864 bytes there, and 67112960 here", and no snapshot.
#[test]
fn the_begin_of_a_longer_file_is_saved() {
    let Some(xfs) = Xfs::try_mounted() else { return };
    let elsewhere = tempfile::tempdir().expect("a directory");
    fs::write(xfs.files().join("tm0"), vec![7; LEN_BYTES as usize + 4096]).expect("a file");
    for store in [xfs.snapshots(), elsewhere.path().to_owned()] {
        let vm = started(&xfs, &store);
        save(&vm, "first", SaveForm::Full).expect("saved");
        let then = bytes_of(&vm);
        assert_eq!(fs::metadata(contents(&store, "first")).expect("there").len(), LEN_BYTES);
        write(&vm, 0..MIB, 2);
        assert_same(&saved_bytes(&store, "first"), &then, "first");
        vm.runtime.block_on(vm.vm.load_snapshot("first")).expect("loaded");
        assert_same(&bytes_of(&vm), &then, "loaded");
        assert_eq!(fs::read(xfs.files().join("tm0")).expect("a file")[LEN_BYTES as usize..], [7; 4096]);
        vm.end();
    }
}

/// The guest's processor sweeps through the file all the while: its registers and the file are of one moment.
#[test]
fn a_file_that_is_swept_is_saved_at_the_moment_of_the_registers() {
    if !kvm::is_there() {
        return;
    }
    let Some(xfs) = Xfs::try_mounted() else { return };
    let wanted = |files: PathBuf| Wanted {
        accel: Accel::Kvm { vcpus: 1 },
        guest: GuestProgram::from(Policy::Accept),
        snapshots: Some(xfs.snapshots()),
        backend_dir: Some(files),
        ..Wanted::default()
    };
    let vm = InProcess::start(wanted(xfs.files()));
    add_file(&vm);
    vm.qmp("cxl-add-dynamic-capacity", add_arguments(TAG0, &[(0, LEN_BYTES)])).expect("an offer");
    wait_for(|| vm.state(TAG0) == "accepted");
    for round in 0..4 {
        let sweep = Job::Fill { hpa: window(&vm), len_bytes: LEN_BYTES, seed: SEED + round };
        let running = vm.vm.machine().expect("a guest on KVM").start_job(0, sweep.clone()).expect("a job");
        let name = format!("swept{round}");
        let form = if round == 0 { SaveForm::Full } else { SaveForm::Incremental };
        eprintln!("{:?}", save(&vm, &name, form).expect("saved"));
        running.wait(PATIENCE).expect("its end");
        let (there, shared) = extents(&contents(&xfs.snapshots(), &name));
        assert!(shared > 0, "round {round}: none of {there} extents is shared");

        let files = tempfile::tempdir().expect("a directory");
        let restored = restore(xfs.snapshots().join(&name), Loading::Eager);
        let other = InProcess::start(Wanted { restore: restored, ..wanted(files.path().to_owned()) });
        // It may have been done, or not begun, when it was saved.
        let adopted = other.vm.machine().expect("a guest on KVM").adopt_job(0, sweep);
        if let Some(running) = adopted {
            assert_eq!(running.wait(PATIENCE).expect("its end"), JobAnswer::Done);
        }
        let check = Job::Check { hpa: window(&other), len_bytes: LEN_BYTES, seed: SEED + round };
        assert_eq!(job(&other, 0, check), JobAnswer::FirstWrong(None), "round {round}");
        other.end();
    }
    vm.end();
}
