//! Snapshots: what requests and verbs answer, over a running program and over a directory without one.

use std::path::{Path, PathBuf};
use std::slice::from_ref;

use device::{Seq, VmTime};
use journal::form::{KEYFRAME_VERSION, Keyframe};
use memory::HostMemory;
use serde_json::{Value, json};
use snapshot::{Base, Draft, Snapshot, Store};

use crate::program::{Client, MIB, Program, TAG0, printed, verb};
use crate::vm::{InProcess, Wanted};

fn started() -> (tempfile::TempDir, Program, Client) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &[]);
    let client = program.client();
    (dir, program, client)
}

/// What `query-jobs` says of a job once it has concluded.
fn concluded(client: &mut Client, id: &str) -> Value {
    loop {
        let jobs = client.execute("query-jobs", json!({})).expect("a list");
        let job = jobs.as_array().expect("a list").iter().find(|job| job["id"] == id).expect("the job").clone();
        if job["status"] == "concluded" {
            return job;
        }
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_its_reason() {
    let (_dir, _program, mut client) = started();
    let mut refused = |command: &str, arguments: Value| client.execute(command, arguments).expect_err(command);
    for command in ["snapshot-save", "snapshot-load", "snapshot-delete"] {
        assert_eq!(refused(command, json!({"job-id": "j 0", "tag": "monday"})), "Invalid job ID 'j 0'");
        assert_eq!(refused(command, json!({"tag": "monday"})), "Parameter 'job-id' is missing");
        assert_eq!(refused(command, json!({"job-id": "j0"})), "Parameter 'tag' is missing");
        for tag in ["", "../monday", ".monday", "mon day", "mon/day"] {
            let refusal = refused(command, json!({"job-id": "j0", "tag": tag}));
            assert!(refusal.starts_with(&format!("Parameter 'tag' does not accept value '{tag}': ")), "{refusal}");
        }
    }
    let unknown = refused("snapshot-delete", json!({"job-id": "j0", "tag": "monday", "vmstate": "disk0"}));
    assert_eq!(unknown, "Parameter 'vmstate' is unexpected");
    for command in ["job-dismiss", "job-cancel"] {
        assert_eq!(refused(command, json!({"id": "j0"})), "Job not found");
    }
}

#[test]
fn a_load_that_fails_leaves_the_vm_and_its_run_state_as_they_were() {
    let (_dir, _program, mut client) = started();
    let load = |id: &str| json!({"job-id": id, "tag": "never", "vmstate": "disk0", "devices": ["disk0"]});
    client.execute("snapshot-load", load("running")).expect("begun");
    let job = concluded(&mut client, "running");
    assert!(job["error"].as_str().is_some_and(|error| error.contains("'never'")), "{job}");
    assert_eq!(client.execute("query-status", json!({})).expect("a status")["status"], "running");
    client.execute("stop", json!({})).expect("stopped");
    client.execute("snapshot-load", load("paused")).expect("begun");
    concluded(&mut client, "paused");
    assert_eq!(client.execute("query-status", json!({})).expect("a status")["status"], "paused");
    let told: Vec<_> = client.events.iter().filter_map(|event| event["event"].as_str()).collect();
    let changes = |name: &str| told.iter().filter(|told| **told == name).count();
    assert_eq!((changes("STOP"), changes("RESUME")), (2, 1), "{told:?}");
    let ended = client.events.iter().filter(|event| event["data"]["status"] == "aborting");
    assert_eq!(ended.count(), 2);
    let refused = client.execute("snapshot-load", load("paused")).expect_err("refused");
    assert_eq!(refused, "Job ID 'paused' already in use");
    for id in ["running", "paused"] {
        client.execute("job-dismiss", json!({"id": id})).expect("dismissed");
    }
    assert_eq!(client.execute("query-jobs", json!({})).expect("a list"), json!([]));
}

#[test]
fn the_monitor_says_what_went_wrong() {
    let (_dir, _program, mut client) = started();
    let mut shown = |line: &str| {
        let text = client.execute("human-monitor-command", json!({"command-line": line})).expect("a text");
        text.as_str().expect("a text").replace("\r\n", "\n")
    };
    assert_eq!(shown("info snapshots"), "There is no snapshot available.\n");
    assert_eq!(shown("savevm"), "savevm: string expected\nTry \"help\" for more information\n");
    let two = "loadvm: extraneous characters at the end of line\nTry \"help\" for more information\n";
    assert_eq!(shown("loadvm monday tuesday"), two);
    for deed in ["savevm", "loadvm", "delvm"] {
        let text = shown(&format!("{deed} .monday"));
        assert!(text.starts_with("Error: Parameter 'tag' does not accept value '.monday': "), "{text}");
    }
    assert!(shown("loadvm never").starts_with("Error: "));
}

#[test]
fn verbs_say_what_went_wrong() {
    let (dir, _program, mut client) = started();
    let socket = format!("unix:{}", dir.path().join("qmp.sock").display());
    assert_eq!(printed(&["snapshot", "list", "--qmp", &socket]), "no snapshots\n");
    for does in ["restore", "delete"] {
        let output = verb(&["snapshot", does, "never", "--qmp", &socket]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("'never'"), "{said}");
    }
    let output = verb(&["snapshot", "save", "mon/day", "--qmp", &socket]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not accept value 'mon/day'"));
    assert_eq!(client.execute("query-jobs", json!({})).expect("a list"), json!([]), "verbs dismiss what they began");
}

/// Seen as: the documents were gone.
#[test]
fn what_is_no_snapshot_is_not_deleted() {
    let (dir, _program, mut client) = started();
    let socket = format!("unix:{}", dir.path().join("qmp.sock").display());
    let snapshots = dir.path().join("journal/snapshots");
    for below in ["Documents", "w.part"] {
        std::fs::create_dir_all(snapshots.join(below)).expect("a directory");
        std::fs::write(snapshots.join(below).join("a.txt"), "thesis").expect("a file");
    }
    for (does, below) in [(["delete", "Documents"], "Documents"), (["save", "w"], "w.part")] {
        let (_, said) = failure(&["snapshot", does[0], does[1], "--qmp", &socket]);
        let expected = format!("{below} is not removed: 'a.txt' in it is no file that a snapshot has");
        assert!(said.contains(&expected), "{said}");
        assert_eq!(std::fs::read_to_string(snapshots.join(below).join("a.txt")).expect("there"), "thesis");
    }
    // Its parent is gone.
    ["monday", "tuesday"].iter().for_each(|name| drop(printed(&["snapshot", "save", name, "--qmp", &socket])));
    std::fs::rename(snapshots.join("monday"), dir.path().join("monday")).expect("movable");
    let listed = client.execute("query-snapshots", json!({})).expect("a list");
    let tuesday = listed.as_array().expect("a list").iter().find(|one| one["tag"] == "tuesday").expect("tuesday");
    assert_eq!(tuesday["state"], "damaged");
    let reason = tuesday["reason"].as_str().expect("a reason");
    assert!(reason.contains("'tuesday' is built on 'monday'") && reason.contains("there is no snapshot 'monday'"));
    let listed = printed(&["snapshot", "list", "--qmp", &socket]);
    assert!(listed.contains(&format!("tuesday is damaged: {reason}\n")), "{listed}");
}

/// What is refused says how it is done.
#[test]
fn what_others_are_built_on_can_be_deleted_when_they_are_flattened() {
    let (dir, program, mut client) = started();
    let socket = program.address();
    client.object_add("tm0", TAG0, 2 * MIB).expect("a backend");
    let save = |name: &str| printed(&["snapshot", "save", name, "--qmp", &socket]);
    ["monday", "tuesday", "wednesday"].into_iter().for_each(|name| drop(save(name)));
    let output = verb(&["snapshot", "delete", "monday", "--qmp", &socket]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("it is the parent of 'tuesday'"), "{said}");
    let path = said.trim().split("dcd snapshot flatten ").nth(1).expect("the command that helps").to_owned();
    assert_eq!(Path::new(&path), dir.path().join("journal/snapshots/tuesday"));
    let flattened = printed(&["snapshot", "flatten", &path]);
    assert!(flattened.starts_with("flattened tuesday: "), "{flattened}");
    assert!(flattened.ends_with(" of memory are its own, and no longer on monday\n"), "{flattened}");
    let again = printed(&["snapshot", "flatten", &path]);
    assert_eq!(again, "tuesday is built on no other: nothing was to be done\n");
    printed(&["snapshot", "delete", "monday", "--qmp", &socket]);
    let wednesday = dir.path().join("journal/snapshots/wednesday");
    let verified = printed(&["snapshot", "verify", wednesday.to_str().expect("a path")]);
    assert!(verified.starts_with("wednesday, on tuesday: "), "{verified}");
    // The newest of the program that runs, which builds the next on what that has become.
    printed(&["snapshot", "flatten", wednesday.to_str().expect("a path")]);
    assert!(save("thursday").contains(", on wednesday, "));
    let restored = printed(&["snapshot", "restore", "tuesday", "--qmp", &socket]);
    assert!(restored.starts_with("restored tuesday: "), "{restored}");
    let missing = dir.path().join("journal/snapshots/friday");
    let output = verb(&["snapshot", "flatten", missing.to_str().expect("a path")]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("no snapshot 'friday'"));
}

/// Two snapshots of a VM that has a backend, `tuesday` on `monday`.
struct Saved {
    dir: tempfile::TempDir,
}

const LEN_BYTES: u64 = 4 * MIB;

impl Saved {
    fn new() -> Self {
        let vm = InProcess::start(Wanted::default());
        vm.object_add("tm0", TAG0, 2 * MIB);
        let state = vm.runtime.block_on(vm.vm.state()).expect("a state");
        let (seq, _) = vm.vm.journal_position();
        let keyframe = Keyframe { seq, time: VmTime(1_500_000), vm: state };
        vm.end();
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).expect("a store");
        let ram = HostMemory::anonymous(LEN_BYTES).expect("memory");
        ram.write(MIB, &[7; 4096]).expect("inside");
        let monday = store.begin(&"monday".parse().expect("a name"), None).expect("a draft");
        let monday = finish(monday, &keyframe, &ram, Base::Zeros);
        ram.write(2 * MIB, &[8; 4096]).expect("inside");
        let tuesday = store.begin(&"tuesday".parse().expect("a name"), Some(&monday)).expect("a draft");
        finish(tuesday, &keyframe, &ram, Base::Parent);
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn finish(mut draft: Draft, keyframe: &Keyframe, ram: &HostMemory, base: Base) -> Snapshot {
    draft.about("build", "dcd 0.1.0").expect("a fact");
    draft.about("records", &keyframe.seq.0.to_string()).expect("a fact");
    draft.part("device", u32::from(KEYFRAME_VERSION), keyframe.to_bytes()).expect("a part");
    let tm0 = "backend-tm0".parse().expect("an id");
    draft.reference(&tm0, 2 * MIB, "/dev/shm/tm0").expect("a reference");
    let mut writer = draft.contents(&"ram".parse().expect("an id"), LEN_BYTES, base).expect("a writer");
    let page = if base == Base::Zeros { MIB } else { 2 * MIB };
    writer.copy(ram, from_ref(&(page..page + 4096))).expect("copied");
    draft.finish(vec![writer], &mut |_| ()).expect("a snapshot")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn failure(arguments: &[&str]) -> (Option<i32>, String) {
    let output = verb(arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_directory_of_snapshots_is_listed_shown_and_verified_without_a_program() {
    let saved = Saved::new();
    let dir = text(saved.dir.path());
    std::fs::create_dir(saved.path("wednesday.part")).expect("a directory");
    let listed = printed(&["snapshot", "list", "--dir", dir, "--json"]);
    let listed: Vec<Value> = listed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let facts = listed.iter().map(|one| (one["tag"].as_str(), one["state"].as_str(), one["parent"].as_str()));
    assert_eq!(
        facts.collect::<Vec<_>>(),
        [
            (Some("monday"), Some("whole"), None),
            (Some("tuesday"), Some("whole"), Some("monday")),
            (Some("wednesday"), Some("half-made"), None),
        ]
    );
    let table = printed(&["snapshot", "list", "--dir", dir]);
    assert!(table.ends_with("wednesday is half-made: the process that wrote it has ended\n"), "{table}");

    let tuesday = saved.path("tuesday");
    let shown: Value = serde_json::from_str(&printed(&["snapshot", "show", text(&tuesday), "--json"])).expect("JSON");
    assert_eq!((&shown["records"], &shown["id"]), (&listed[1]["records"], &listed[1]["id"]));
    assert_eq!(shown["about"]["build"], "dcd 0.1.0");
    let memories = json!([
        {"id": "backend-tm0", "len-bytes": 2 * MIB, "reference": "/dev/shm/tm0"},
        {"id": "ram", "len-bytes": LEN_BYTES, "base": "parent"},
    ]);
    assert_eq!(shown["memories"], memories);
    let page = printed(&["snapshot", "show", text(&tuesday)]);
    for line in
        ["tuesday, on monday\n", "  build: dcd 0.1.0\n", "in /dev/shm/tm0\n", "what differs from the snapshot below\n"]
    {
        assert!(page.contains(line), "{page}");
    }

    let verified = printed(&["snapshot", "verify", text(&tuesday)]);
    assert!(verified.starts_with("tuesday, on monday: 8192 bytes of memory, the state after #"), "{verified}");
    assert!(verified.ends_with("were not looked at\nevery byte is what was written\n"), "{verified}");
}

/// Seen as: a snapshot from elsewhere cleared the terminal of who looked at it.
#[test]
fn what_a_snapshot_says_does_nothing_to_a_terminal() {
    let saved = Saved::new();
    let store = Store::open(saved.dir.path()).expect("a store");
    let keyframe = {
        let part = store.snapshot(&"monday".parse().expect("a name")).expect("whole").part("device").expect("a part");
        Keyframe::from_stored(KEYFRAME_VERSION, &part.bytes).expect("a state")
    };
    let mut draft = store.begin(&"friday".parse().expect("a name"), None).expect("a draft");
    draft.about("note", "\u{1b}[2J\u{9b}1m\r\nid: 7").expect("a fact");
    draft.part("device", u32::from(KEYFRAME_VERSION), keyframe.to_bytes()).expect("a part");
    draft.reference(&"ram".parse().expect("an id"), LEN_BYTES, "/dev\u{1b}[2J\u{7f}").expect("a reference");
    draft.finish(vec![], &mut |_| ()).map(drop).expect("a snapshot");
    std::fs::create_dir(saved.path("\u{1b}[31mred")).expect("a directory");
    let friday = saved.path("friday");
    let dir = text(saved.dir.path());
    let mut said = String::new();
    for verb in [
        &["show", text(&friday)][..],
        &["show", text(&friday), "--json"],
        &["verify", text(&friday)],
        &["list", "--dir", dir],
        &["list", "--dir", dir, "--json"],
    ] {
        said.push_str(&printed(&[&["snapshot"], verb].concat()));
    }
    said.push_str(&failure(&["snapshot", "show", text(&saved.path("\u{1b}[31mred"))]).1);
    assert_eq!(said.chars().find(|character| character.is_control() && *character != '\n'), None, "{said:?}");
    for shown in [r"note: \u{1b}[2J\u{9b}1m\r\nid: 7", r"in /dev\u{1b}[2J\u{7f}", r"\u{1b}[31mred is damaged: "] {
        assert!(said.contains(shown), "{shown}: {said}");
    }
}

#[test]
fn a_damaged_file_is_named_also_where_it_is_of_the_one_below() {
    let saved = Saved::new();
    let contents = saved.path("monday").join("ram.contents");
    let mut bytes = std::fs::read(&contents).expect("a file");
    bytes[MIB as usize] ^= 1;
    std::fs::write(&contents, bytes).expect("a file");
    let (code, said) = failure(&["snapshot", "verify", text(&saved.path("tuesday"))]);
    assert_eq!(code, Some(1));
    assert!(said.starts_with("dcd: snapshot 'monday': 'ram.contents' is damaged: "), "{said}");
    std::fs::remove_file(saved.path("monday").join("parts")).expect("a file");
    let (code, said) = failure(&["snapshot", "show", text(&saved.path("monday"))]);
    assert!(code == Some(1) && said.contains("snapshot 'monday'") && said.contains("'parts'"), "{said}");
}

#[test]
fn what_is_no_snapshot_is_said_to_be_none() {
    let saved = Saved::new();
    for does in ["show", "verify"] {
        let (code, said) = failure(&["snapshot", does, text(&saved.path("never"))]);
        assert!(code == Some(1) && said.starts_with("dcd: there is no snapshot 'never' in "), "{said}");
        let (_, said) = failure(&["snapshot", does, "/"]);
        assert_eq!(said, "dcd: '/' is no snapshot: give its directory, DIR/NAME\n");
    }
    let (code, said) = failure(&["snapshot", "list", "--dir", text(&saved.path("nowhere"))]);
    assert_eq!(code, Some(1));
    let dir = saved.path("nowhere");
    let sentence = format!(
        "dcd: directory of snapshots {}: cannot open it: No such file or directory (os error 2)\n",
        dir.display()
    );
    assert_eq!(said, sentence, "and not its cause twice");
}

#[test]
fn one_tree_of_state_is_in_a_snapshot_too() {
    let saved = Saved::new();
    let monday = saved.path("monday");
    let inspect = |arguments: &[&str]| printed(&[&["inspect", "--snapshot", text(&monday)], arguments].concat());
    let whole = inspect(&[]);
    let size = format!("backends.tm0.size-bytes = {}\n", 2 * MIB);
    assert!(whole.contains(&size) && whole.contains("devices.cxl-vmem0."), "{whole}");
    let backend = inspect(&["backends.tm0"]);
    assert!(whole.contains(&backend) && backend.lines().all(|line| line.starts_with("backends.tm0")), "{backend}");
    let state: Value = serde_json::from_str(&inspect(&["backends.tm0", "--json"])).expect("JSON");
    assert!(state["at"].as_u64().is_some_and(|at| Seq(at) > Seq(0)) && state["state"].is_object(), "{state}");
    let (_, said) = failure(&["inspect", "no.such.path", "--snapshot", text(&monday)]);
    assert!(said.starts_with("dcd: "), "{said}");
    let (code, _) = failure(&["inspect", "--snapshot", text(&monday), "--at", "3"]);
    assert_eq!(code, Some(2), "a snapshot is of one record");
}
