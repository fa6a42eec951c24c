//! Restores that are refused: each names what differs, and changes nothing, so that the right one still works.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::kvm;
use crate::program::{Client, MIB, Program, TAG0, dcd, printed, verb};

const FILE_BYTES: u64 = 2 * MIB;
const TM0: &str = "memory-backend-ram,id=tm0,size=4M,tag=5be13bce-ae34-4a77-b6c3-16df975fcf1a";

/// Snapshots of a VM that has ended: `full`, `next` on that, and `apart`, whose file is by reference.
struct Saved {
    dir: tempfile::TempDir,
}

impl Saved {
    fn new(accel: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let saved = Self { dir };
        fs::create_dir(saved.files()).expect("a directory");
        fs::write(saved.files().join("kept"), vec![7; FILE_BYTES as usize]).expect("a file");
        let (files, snapshots) = (saved.files(), saved.snapshots());
        let options =
            ["--object", TM0, "--memory", "64M", "--backend-dir", text(&files), "--snapshots", text(&snapshots)];
        let program = Program::start(saved.dir.path(), &[&options[..], accel].concat());
        let mut client = program.client();
        let kept = json!({"qom-type": "memory-backend-file", "id": "kept", "size": FILE_BYTES, "mem-path": "kept", "share": true});
        client.execute("object-add", kept).expect("a backend");
        client.add(TAG0, &[(0, 4 * MIB)]).expect("an offer");
        client.wait_for("ACCEPTED", TAG0);
        let save = |arguments: &[&str]| {
            let qmp = program.address();
            printed(&[&["snapshot", "save"], arguments, &["--qmp", &qmp]].concat());
        };
        save(&["full"]);
        save(&["next"]);
        save(&["apart", "--full", "--by-reference", "kept"]);
        program.terminate();
        saved
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    fn snapshots(&self) -> PathBuf {
        self.dir.path().join("snapshots")
    }

    fn snapshot(&self, name: &str) -> PathBuf {
        self.snapshots().join(name)
    }
}

/// Where a VM is restored: a directory with one for files, both empty.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("files")).expect("a directory");
        Self { dir }
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("files")
    }

    fn restore(&self, snapshot: &Path, more: &[&str]) -> Result<Program, String> {
        self.restore_on("journal", snapshot, more)
    }

    fn restore_on(&self, journal: &str, snapshot: &Path, more: &[&str]) -> Result<Program, String> {
        let files = self.files();
        let options = ["--restore", text(snapshot), "--backend-dir", text(&files)];
        Program::try_start_on(self.dir.path(), journal, &[&options[..], more].concat())
    }

    /// A refusal, which leaves nothing.
    fn refused(&self, snapshot: &Path, more: &[&str]) -> String {
        self.refused_on("journal", snapshot, more)
    }

    fn refused_on(&self, journal: &str, snapshot: &Path, more: &[&str]) -> String {
        let before = tree(self.dir.path());
        let said = self.restore_on(journal, snapshot, more).err().unwrap_or_else(|| panic!("{more:?} is not refused"));
        assert_eq!(tree(self.dir.path()), before, "{more:?} has left something: {said}");
        said
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Everything in a directory, with its length.
fn tree(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("listable") {
        let (path, metadata) = entry.map(|entry| (entry.path(), entry.metadata().expect("there"))).expect("listable");
        if metadata.is_dir() {
            found.extend(tree(&path));
        }
        found.push((path, if metadata.is_dir() { 0 } else { metadata.len() }));
    }
    found.sort();
    found
}

const SOFT: &[&str] = &["--accel", "soft"];
const ONE: &[&str] = &["--accel", "kvm", "--vcpus", "1"];
const TWO: &[&str] = &["--accel", "kvm", "--vcpus", "2"];

/// What runs the guest of the saved VM, as options, and others.
fn accels() -> (&'static [&'static str], &'static [&'static [&'static str]]) {
    if kvm::is_there() { (TWO, &[SOFT, ONE]) } else { (SOFT, &[]) }
}

#[test]
fn another_vm_than_the_saved_one_is_refused_with_what_differs() {
    let (accel, others) = accels();
    let (saved, place) = (Saved::new(accel), Place::new());
    let full = saved.snapshot("full");
    const DEVICE: &str = "cxl-type3,id=cxl-vmem0,dc-regions-total-size=8G";
    let mut cases: Vec<(&[&str], &str)> = vec![
        (
            &["--object", "memory-backend-ram,id=tm0,size=8M"],
            "backend tm0 (#2) has changed: its size was 4194304 and is 8388608",
        ),
        (
            &["--object", "memory-backend-ram,id=tm0,size=4M,tag=6be13bce-ae34-4a77-b6c3-16df975fcf1a"],
            "has changed: its tag was 5be",
        ),
        (
            &["--object", "memory-backend-memfd,id=tm0,size=4M,tag=5be13bce-ae34-4a77-b6c3-16df975fcf1a"],
            "has changed: its type was",
        ),
        (&["--memory", "128M"], "--memory is 67108864 there and 134217728 here"),
        (&["--memory", "64M", "--window", "size=16G"], "--window size is 4294967296 there and 17179869184 here"),
        (
            &["--memory", "64M", "--device", DEVICE, "--window", "size=4G"],
            "dc-regions-total-size of device cxl-vmem0 is 4294967296 there",
        ),
    ];
    cases.extend(others.iter().map(|options| (*options, "--accel kvm --vcpus 2")));
    if accel == TWO {
        // It went on with its own driver, and nothing was said.
        cases.push((&["--guest", "none"], "goes on as it is; leave --guest out"));
    }
    for (options, reason) in cases {
        let said = place.refused(&full, options);
        assert!(said.contains(reason), "{options:?}: {said}");
    }
    // A file of the saved one is somebody's here.
    fs::write(place.files().join("kept"), "somebody's").expect("a file");
    let said = place.refused(&full, &[]);
    assert!(said.contains("the memory 'kept': mem-path=kept is there already below"), "{said}");
    assert!(said.contains("give another --backend-dir") && said.matches("mem-path").count() == 1, "once: {said}");
    fs::remove_file(place.files().join("kept")).expect("removed");
    let files = place.files();
    fs::remove_dir(&files).expect("removed");
    let said = place.restore(&full, &[]).err().expect("refused");
    assert!(said.contains("files"), "{said}");
    fs::create_dir(&files).expect("made");
    // No journal can be made, when all of its memory is.
    let said = place.refused_on("/proc/journal", &full, &[]);
    assert!(said.contains("/proc/journal"), "{said}");
    // The bytes of one are elsewhere, and not here.
    let said = place.refused(&saved.snapshot("apart"), &[]);
    assert!(said.contains("kept") && said.contains("is gone; put it back"), "{said}");
    // Another VM's journal.
    let other = Place::new();
    Program::start(other.dir.path(), &[]).terminate();
    let said = other.refused(&full, &[]);
    assert!(said.contains("there is a journal in") && said.contains("give another --journal"), "{said}");
    // Whatever was refused before, the right one works; then its journal is there.
    let program = place.restore(&full, &[]).unwrap_or_else(|said| panic!("{said}"));
    check_restored(&mut program.client(), &place.files());
    program.terminate();
    let said = place.refused(&full, &[]);
    assert!(said.contains("there is a journal in"), "{said}");
}

fn check_restored(client: &mut Client, files: &Path) {
    assert_eq!(client.state(TAG0), "accepted");
    assert!(fs::read(files.join("kept")).expect("a file").iter().all(|byte| *byte == 7));
}

/// Flips one bit of a file, at a byte that has data, and gives what it was.
fn flip(path: &Path, seed: usize) -> Vec<u8> {
    let bytes = fs::read(path).expect("a file");
    let mut damaged = bytes.clone();
    let data: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    damaged[data[seed % data.len()]] ^= 1;
    fs::write(path, damaged).expect("written");
    bytes
}

fn snapshot_files(snapshot: &Path) -> Vec<PathBuf> {
    let files = tree(snapshot).into_iter().filter(|(_, len)| *len > 0).map(|(path, _)| path);
    // Of a memory of zeros there is nothing to damage.
    files.filter(|path| fs::read(path).expect("a file").iter().any(|byte| *byte != 0)).collect()
}

#[test]
fn a_snapshot_with_a_wrong_byte_is_refused_with_the_file_that_has_it() {
    let (accel, _) = accels();
    let (saved, place) = (Saved::new(accel), Place::new());
    let mut named = Vec::new();
    for (seed, file) in (1..).zip(snapshot_files(&saved.snapshot("full"))) {
        let was = flip(&file, seed * 7919);
        let name = file.file_name().expect("a name").to_str().expect("text");
        // Of the one below, too, but for its parts: the one above has its own.
        let of_both: &[&str] = if name == "parts" { &["full"] } else { &["full", "next"] };
        for snapshot in of_both {
            let said = place.refused(&saved.snapshot(snapshot), &[]);
            assert!(said.contains("'full'") && said.contains(name), "{name}: {said}");
        }
        fs::write(&file, &was).expect("written");
        fs::remove_file(&file).expect("removed");
        place.refused(&saved.snapshot("full"), &[]);
        fs::write(&file, was).expect("written");
        named.push(file);
    }
    assert!(named.len() >= 5, "{named:?}");
    fs::rename(saved.snapshot("full"), saved.snapshot("away")).expect("renamed");
    let said = place.refused(&saved.snapshot("next"), &[]);
    assert!(said.contains("'next'") && said.contains("'full'"), "{said}");
    fs::rename(saved.snapshot("away"), saved.snapshot("full")).expect("renamed");
    for no_snapshot in ["never", "../full", "fu ll", ""] {
        let said = place.refused(&saved.snapshots().join(no_snapshot), &[]);
        assert!(said.contains("snapshot") || said.contains("name"), "{no_snapshot}: {said}");
    }
    let program = place.restore(&saved.snapshot("next"), &[]).unwrap_or_else(|said| panic!("{said}"));
    check_restored(&mut program.client(), &place.files());
}

/// With --lazy the guest may run on it already: it is stopped.
#[test]
fn a_guest_that_runs_on_a_wrong_byte_is_stopped_with_the_file_that_has_it() {
    let (accel, _) = accels();
    let (saved, place) = (Saved::new(accel), Place::new());
    let ram = saved.snapshot("full").join("ram.contents");
    if !ram.exists() || fs::read(&ram).expect("a file").iter().all(|byte| *byte == 0) {
        return eprintln!("not run: a guest in this process writes nothing to its RAM");
    }
    // Far behind, where nothing is that the guest needs for its next step.
    let was = flip(&ram, usize::MAX / 3);
    match place.restore(&saved.snapshot("full"), &["--lazy"]) {
        Ok(program) => {
            let said = program.expect_failure();
            assert!(said.contains("'ram.contents'") && said.contains("the guest was given bytes"), "{said}");
        }
        Err(said) => assert!(said.contains("'ram.contents'"), "{said}"),
    }
    fs::write(&ram, was).expect("written");
    // Files are read at once, lazy or not, and before anything is left behind.
    let other = Place::new();
    let was = flip(&saved.snapshot("full").join("backend-kept.contents"), 5);
    let said = other.refused(&saved.snapshot("full"), &["--lazy"]);
    assert!(said.contains("'backend-kept.contents'"), "{said}");
    fs::write(saved.snapshot("full").join("backend-kept.contents"), was).expect("written");
    let program = other.restore(&saved.snapshot("full"), &["--lazy"]).unwrap_or_else(|said| panic!("{said}"));
    check_restored(&mut program.client(), &other.files());
    // Long enough for whoever checks beside it.
    thread::sleep(Duration::from_millis(200));
    program.terminate();
}

/// What a load in place says of its job.
fn load(client: &mut Client, name: &str) -> Result<(), String> {
    client.execute("snapshot-load", json!({"job-id": "j", "tag": name}))?;
    let begun = Instant::now();
    let job = loop {
        let jobs = client.execute("query-jobs", json!({})).expect("a list");
        let job = jobs.as_array().expect("a list").iter().find(|job| job["id"] == "j").expect("the job").clone();
        if job["status"] == "concluded" {
            break job;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{job}");
    };
    client.execute("job-dismiss", json!({"id": "j"})).expect("dismissed");
    match &job["error"] {
        Value::Null => Ok(()),
        error => Err(error.as_str().expect("a sentence").to_owned()),
    }
}

#[test]
fn a_load_in_place_that_is_refused_leaves_the_vm_and_its_files_as_they_were() {
    let (accel, _) = accels();
    let saved = Saved::new(accel);
    let (files, snapshots) = (saved.files(), saved.snapshots());
    let options = ["--object", TM0, "--backend-dir", text(&files), "--snapshots", text(&snapshots)];
    let program = Program::start(saved.dir.path(), &[&options[..], accel].concat());
    let mut client = program.client();
    fs::write(files.join("kept"), vec![8; FILE_BYTES as usize]).expect("written");
    let refused = |client: &mut Client, name: &str| {
        let said = load(client, name).expect_err(name);
        assert_eq!(client.execute("query-status", json!({})).expect("a status")["status"], "running");
        assert_eq!(client.state(TAG0), "accepted");
        assert!(fs::read(files.join("kept")).expect("a file").iter().all(|byte| *byte == 8), "{name}");
        said
    };
    for (seed, file) in (1..).zip(snapshot_files(&saved.snapshot("full"))) {
        let was = flip(&file, seed * 104_729);
        let said = refused(&mut client, "full");
        let name = file.file_name().expect("a name").to_str().expect("text");
        assert!(said.contains("'full'") && said.contains(name), "{name}: {said}");
        fs::write(&file, was).expect("written");
    }
    fs::rename(saved.snapshot("full"), saved.snapshot("away")).expect("renamed");
    let said = refused(&mut client, "next");
    assert!(said.contains("'next'") && said.contains("'full'"), "{said}");
    fs::rename(saved.snapshot("away"), saved.snapshot("full")).expect("renamed");
    for name in ["mon/day", "../full", "."] {
        let refusal = load(&mut client, name).expect_err(name);
        assert!(refusal.contains(&format!("does not accept value '{name}'")), "{refusal}");
        let output = verb(&["snapshot", "restore", name, "--qmp", &program.address()]);
        assert!(!output.status.success());
    }
    assert_eq!(journal_pasts(&program.journal()), 0);
    load(&mut client, "next").expect("loaded");
    check_restored(&mut client, &files);
    assert_eq!(journal_pasts(&program.journal()), 1);
    program.terminate();
}

fn journal_pasts(journal: &Path) -> usize {
    fs::read_dir(journal.join("past")).map_or(0, Iterator::count)
}

/// Nobody of this host's users.
const NOBODY: u32 = 65534;

#[test]
fn a_snapshot_that_may_not_be_read_is_refused_with_its_path() {
    let (accel, _) = accels();
    let (saved, place) = (Saved::new(accel), Place::new());
    let full = saved.snapshot("full");
    let set = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    for path in [saved.dir.path(), place.dir.path(), &place.files()] {
        set(path, 0o777);
    }
    set(&full, 0o700);
    let (journal, files) = (place.dir.path().join("journal"), place.files());
    let mut command = dcd();
    command.args(["run", "--accel", "soft", "--restore", text(&full), "--journal", text(&journal)]);
    command.args(["--backend-dir", text(&files), "--qmp", "tcp:127.0.0.1:0"]);
    // Root may read everything.
    if rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    } else {
        set(&full, 0o000);
    }
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success());
            assert!(said.contains("full") && said.contains("Permission denied"), "{said}");
            assert!(!journal.exists() && tree(&files).is_empty());
        }
        Err(error) => eprintln!("not run: nobody may not run the program here: {error}"),
    }
    set(&full, 0o700);
}
