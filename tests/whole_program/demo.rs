//! `dcd demo`, as a newcomer types it.

use serde_json::Value;

use crate::program::{TAG0, TAG1, printed, verb};

#[test]
fn the_demo_tells_every_step_and_ends_well() {
    let told = printed(&["demo"]);
    for step in [
        "a device with one DC region of 4 GiB and no memory",
        "makes backend tm0: 1 GiB, tag 5be13bce-ae34-4a77-b6c3-16df975fcf1a",
        "adds tag 5be13bce-ae34-4a77-b6c3-16df975fcf1a: 1 GiB at 0x0",
        "reads the event, accepts with 4802h",
        "reads the same bytes from tm0",
        "reads the same bytes through its window",
        "adds tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a: 512 MiB at 0xc0000000, then 512 MiB at 0x40000000",
        "reads both events of the chain, accepts both extents with one 4802h",
        "status of tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a: release-requested",
        "gives back with 4803h",
        "status of tag 6be13bce-ae34-4a77-b6c3-16df975fcf1a: released",
        "The journal:",
        "every decision is made again as it was",
    ] {
        assert!(told.contains(step), "the demo does not tell: {step}\n{told}");
    }
    let steps = told.lines().take_while(|line| !line.is_empty());
    for step in steps {
        assert!(step.trim_start().starts_with('#'), "a step without its record: {step}");
    }
}

#[test]
fn the_demo_in_json_is_one_object_a_line() {
    let told = printed(&["demo", "--json", "--accel", "soft"]);
    let lines: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.iter().filter(|line| line["record"].is_u64()).count() > 20);
    let journal: Vec<_> = lines.iter().filter_map(|line| line["journal"]["input"].as_str()).collect();
    for tag in [TAG0, TAG1] {
        assert!(journal.iter().any(|input| input.contains(&format!("add tag {tag}"))), "{journal:?}");
    }
    assert_eq!(lines.last().map(|line| line["equal"] == true), Some(true));
}

#[test]
fn the_demo_keeps_its_journal_where_it_is_told_and_it_replays() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = dir.path().join("journal");
    let path = journal.to_str().expect("a path");
    printed(&["demo", "--journal", path]);
    let replayed = printed(&["replay", path]);
    assert!(replayed.contains("every decision is what this build decides"), "{replayed}");
    let records = printed(&["journal", "show", path, "--json"]);
    let last: Value = serde_json::from_str(records.lines().last().expect("a record")).expect("JSON");
    assert_eq!(last["stamp"]["seq"].as_u64(), Some(records.lines().count() as u64 - 1));
    let again = verb(&["demo", "--journal", path]);
    assert!(!again.status.success(), "a journal that has records is not a demo's");
}
