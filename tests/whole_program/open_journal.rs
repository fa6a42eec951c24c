//! The journal of a running program: asked while it is open, kept short, sealed by hand, and gone on with.

use serde_json::{Value, json};

use crate::program::{MIB, Program, TAG0, printed, verb};

/// One backend, one extent, accepted.
fn with_an_extent(program: &Program) {
    let mut client = program.client();
    client.object_add("tm0", TAG0, 2 * MIB).expect("a backend");
    client.add(TAG0, &[(0, 2 * MIB)]).expect("an offer");
    client.wait_for("ACCEPTED", TAG0);
}

fn path(program: &Program) -> String {
    program.journal().to_str().expect("a path").to_owned()
}

#[test]
fn every_question_is_answered_while_the_program_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--accel", "soft"]);
    let journal = path(&program);
    with_an_extent(&program);
    let held = printed(&["inspect", "backends.tm0.holder", "--journal", &journal]);
    assert!(held.starts_with("backends.tm0.holder.state = attached\n"), "{held}");
    let why = printed(&["why", "backends.tm0.holder.state", "--journal", &journal]);
    assert!(why.contains("4802h") && why.contains("reserved -> attached"), "{why}");
    assert!(printed(&["replay", &journal, "--check"]).contains("every decision is what this build decides"));
    assert!(printed(&["journal", "verify", &journal]).contains("is the last record"));
    let packed = dir.path().join("bug.dcd");
    printed(&["journal", "pack", &journal, packed.to_str().expect("a path")]);

    // What comes next is seen at once: no answer leaves before its record is durable.
    let mut client = program.client();
    client.release(TAG0).expect("asked");
    client.wait_for("RELEASED", TAG0);
    let free = printed(&["inspect", "backends.tm0.holder.state", "--journal", &journal]);
    assert_eq!(free, "backends.tm0.holder.state = free\n");
    let live = client.execute("x-inspect", json!({"path": "backends.tm0.holder"})).expect("a state");
    assert_eq!(live["values"], json!([{"path": "backends.tm0.holder.state", "value": "free"}]));
    let refused = client.execute("x-inspect", json!({"path": "backends.tm9"})).expect_err("none");
    assert!(refused.contains("tm9"), "{refused}");
    program.terminate();

    let (told, first) = (printed(&["replay", &journal]), printed(&["replay", packed.to_str().expect("a path")]));
    assert!(told.contains("every decision") && first.contains("every decision"));
    let at = live["at"].as_u64().expect("a record").to_string();
    let closed = printed(&["inspect", "backends.tm0.holder.state", "--journal", &journal, "--at", &at]);
    assert_eq!(closed, free, "live and closed say the same at #{at}");
}

/// What a user mails who has a snapshot that goes wrong: it is looked into where neither the directory nor the program is.
#[test]
fn a_packed_snapshot_is_looked_into_without_its_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--accel", "soft"]);
    with_an_extent(&program);
    printed(&["snapshot", "save", "monday", "--qmp", &program.address()]);
    let mut client = program.client();
    client.release(TAG0).expect("asked");
    client.wait_for("RELEASED", TAG0);
    let (journal, snapshot) = (path(&program), program.journal().join("snapshots/monday"));
    let snapshot = snapshot.to_str().expect("a path");
    let [packed, again, plain] = ["bug.dcd", "again.dcd", "plain.dcd"].map(|name| dir.path().join(name));
    let [packed, again, plain] = [&packed, &again, &plain].map(|path| path.to_str().expect("a path"));
    printed(&["journal", "pack", "--snapshot", snapshot, &journal, packed]);
    printed(&["journal", "pack", &journal, plain]);
    let whole = printed(&["inspect", "--json", "--snapshot", snapshot]);
    program.kill();
    std::fs::remove_dir_all(&journal).expect("removed");

    printed(&["journal", "export", packed, again]);
    for file in [packed, again] {
        assert_eq!(printed(&["inspect", "--json", "--snapshot", file]), whole);
        let then = printed(&["inspect", "backends.tm0.holder.state", "--snapshot", file]);
        let now = printed(&["inspect", "backends.tm0.holder.state", "--journal", file]);
        assert_eq!([then, now], ["attached", "free"].map(|state| format!("backends.tm0.holder.state = {state}\n")));
        assert!(printed(&["replay", file, "--check"]).contains("every decision is what this build decides"));
        let told = printed(&["journal", "verify", file]);
        assert!(
            told.contains("  snapshot: monday, ") && told.contains("  attached: snapshots/monday/device, "),
            "{told}"
        );
    }
    let refused = String::from_utf8(verb(&["inspect", "--snapshot", plain]).stderr).expect("text");
    assert!(refused.contains("plain.dcd has no snapshot: dcd journal pack --snapshot DIR/NAME"), "{refused}");
}

#[test]
fn a_tail_goes_into_no_file_that_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--accel", "soft"]);
    let mut client = program.client();
    let file = dir.path().join("tail.dcd");
    let written = client.execute("x-journal-tail", json!({"filename": file})).expect("written");
    let last = client.query()["journal"]["last"].as_u64();
    assert!(written["last"].as_u64() <= last && written["last"].as_u64() > Some(0), "{written} of {last:?}");
    let refused = client.execute("x-journal-tail", json!({"filename": file})).expect_err("it is there");
    assert!(refused.contains("tail.dcd"), "{refused}");
    program.terminate();
}

#[test]
fn a_journal_that_was_cut_answers_for_what_is_left_and_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--accel", "soft"]);
    let journal = path(&program);
    with_an_extent(&program);
    let open = verb(&["journal", "compact", &journal]);
    let told = String::from_utf8_lossy(&open.stderr).into_owned();
    assert!(!open.status.success() && told.contains("--keep"), "{told}");
    program.terminate();

    let before = printed(&["inspect", "--journal", &journal, "--json"]);
    printed(&["journal", "compact", &journal]);
    assert_eq!(printed(&["inspect", "--journal", &journal, "--json"]), before);
    let program = Program::start(dir.path(), &["--accel", "soft"]);
    program.client().release(TAG0).expect("asked");
    program.terminate();
    // Two files now, of which the newer stays.
    let cut = printed(&["journal", "compact", &journal, "--keep", "1"]);
    assert!(!cut.contains("behind #0 "), "{cut}");

    let size = printed(&["inspect", "backends.tm0.size-bytes", "--journal", &journal]);
    assert_eq!(size, "backends.tm0.size-bytes = 2097152\n");
    assert!(printed(&["replay", &journal]).contains("every decision is what this build decides"));
    let verified = printed(&["journal", "verify", &journal]);
    assert!(verified.contains("1 keyframe is the state that the records before it make"), "{verified}");
    for question in [&["inspect", "--journal", &journal, "--at", "1"][..], &["whatif", &journal, "--drop", "1"]] {
        let refused = verb(question);
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && told.contains("is gone: of this journal what came before #"), "{told}");
    }
    let file = dir.path().join("cut.dcd");
    let again = dir.path().join("again");
    printed(&["journal", "export", &journal, file.to_str().expect("a path")]);
    printed(&["journal", "import", file.to_str().expect("a path"), again.to_str().expect("a path")]);
    let link = |journal: &str| printed(&["journal", "verify", journal]).lines().rev().nth(1).map(str::to_owned);
    assert_eq!(link(again.to_str().expect("a path")), link(&journal));

    let program = Program::start(dir.path(), &["--accel", "soft"]);
    let objects: Value = program.client().execute("query-memdev", json!({})).expect("objects");
    assert_eq!(objects[0]["id"], "tm0", "{objects}");
    program.terminate();
}
