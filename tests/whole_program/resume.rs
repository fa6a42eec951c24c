//! A second run on the same journal goes on where the first one was, or says why not.

use serde_json::json;

use crate::program::{GIB, Program, TAG0, TAG1, printed, verb};

const OBJECT: &str = "memory-backend-ram,id=tm0,size=1G,share=on,tag=5be13bce-ae34-4a77-b6c3-16df975fcf1a";

#[test]
fn accepted_extents_offers_counters_and_the_log_are_where_they_were() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--object", OBJECT]);
    let mut client = program.client();
    client.add(TAG0, &[(GIB, GIB)]).expect("added");
    client.wait_for("ACCEPTED", TAG0);
    client.object_add("tm1", TAG1, GIB).expect("made");
    drop(client);
    program.terminate();

    // The second run's guest holds, so that the offer and its record stay.
    let hold = ["--object", OBJECT, "--guest", "none"];
    let program = Program::start(dir.path(), &hold);
    assert!(program.announced.contains("resumed after #"), "{}", program.announced);
    assert!(program.announced.contains("backend tm0: its bytes ended"), "{}", program.announced);
    let mut client = program.client();
    client.add(TAG1, &[(0, GIB)]).expect("added");
    let before = client.query();
    assert_eq!(before["extents"][0]["tag"], TAG0);
    assert_eq!(before["offers"][0]["tag"], TAG1);
    assert_eq!(before["counters"]["event-records"], 1);
    program.kill();

    let program = Program::start(dir.path(), &hold);
    let after = program.client().query();
    for member in ["extents", "offers", "counters", "regions"] {
        assert_eq!(after[member], before[member], "{member}");
    }
    assert_eq!(after["backends"][0]["bytes-lost"], true);
    program.terminate();

    // The guest of the fourth run finds the offer in the log and accepts it.
    let program = Program::start(dir.path(), &["--object", OBJECT]);
    let mut client = program.client();
    while client.state(TAG1) != "accepted" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert_eq!(client.query()["extents"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_journal_that_another_process_holds_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &[]);
    let journal = program.journal();
    let second = verb(&["run", "--journal", journal.to_str().expect("a path"), "--qmp", "tcp:127.0.0.1:0"]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("is held by another process"), "{said}");
    // Who only asks is answered by that process.
    assert!(printed(&["journal", "show", journal.to_str().expect("a path")]).contains("plug cxl-vmem0"));
}

#[test]
fn a_backend_that_is_in_use_and_missing_or_changed_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--object", OBJECT]);
    let mut client = program.client();
    client.add(TAG0, &[(0, GIB)]).expect("added");
    client.wait_for("ACCEPTED", TAG0);
    program.terminate();
    let refused = |arguments: &[&str]| Program::try_start(dir.path(), arguments).err().expect("a refusal");

    let missing = refused(&[]);
    assert!(
        missing.contains("backend tm0 (#2) is missing") && missing.contains("--object memory-backend-ram,id=tm0"),
        "{missing}"
    );
    let size = refused(&["--object", &OBJECT.replace("size=1G", "size=2G")]);
    assert!(size.contains("its size was 1073741824 and is 2147483648"), "{size}");
    let tag = refused(&["--object", &OBJECT.replace("5be13bce", "7be13bce")]);
    assert!(tag.contains("backend tm0 (#2) has changed: its tag"), "{tag}");
    let other = refused(&[
        "--object",
        OBJECT,
        "--device",
        "cxl-type3,id=cxl-vmem0,dc-regions-total-size=8G",
        "--window",
        "size=4G",
    ]);
    let sizes = "dc-regions-total-size of device cxl-vmem0 is 4294967296 there and 8589934592 here";
    assert!(other.contains("the journal is of another VM") && other.contains(sizes), "{other}");

    // A refused start changes nothing: the right one works, and the journal has not grown by a refusal.
    let program = Program::start(dir.path(), &["--object", OBJECT]);
    assert_eq!(program.client().state(TAG0), "accepted");
}

#[test]
fn a_free_backend_of_the_command_line_may_go() {
    let dir = tempfile::tempdir().expect("a directory");
    Program::start(dir.path(), &["--object", OBJECT]).terminate();
    let program = Program::start(dir.path(), &[]);
    assert_eq!(program.client().query()["backends"].as_array().map(Vec::len), Some(0));
    let journal = program.journal();
    program.terminate();
    let shown = printed(&["journal", "show", journal.to_str().expect("a path")]);
    assert!(shown.contains("object-del tm0"), "{shown}");
}

/// A journal that is full stops the VM: nothing more is answered, the exit says why, and what was answered is there.
#[test]
fn a_full_journal_stops_the_vm_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--journal-limit", "64K"]);
    let mut client = program.client();
    let mut made = 0;
    for n in 0.. {
        let arguments = json!({"qom-type": "memory-backend-ram", "id": format!("tm{n}"), "size": 4096});
        match client.try_execute("object-add", arguments) {
            Some(Ok(answer)) => assert_eq!(answer, json!({})),
            Some(Err(refused)) => {
                assert_eq!(refused, "the VM has stopped");
                break;
            }
            None => break,
        }
        made += 1;
        assert!(made < 10_000, "the limit is not reached");
    }
    let journal = program.journal();
    let said = program.expect_failure();
    let replay = format!("replay with: dcd replay {}", journal.display());
    assert!(said.contains("65536 is its limit") && said.contains(&replay), "{said}");
    let program = Program::start(dir.path(), &[]);
    let there = program.client().execute("query-memdev", json!({})).expect("a list");
    let there = there.as_array().map_or(0, Vec::len);
    // One more may have been recorded when the answers stopped.
    assert!(there == made || there == made + 1, "{made} were acknowledged, {there} are there");
}
