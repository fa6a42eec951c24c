//! A bug from its recording to its test: planted in the device by a feature, recorded by a running program, found by
//! `bisect`, explained by `why`, cut down by `shrink`, and kept in journal/corpus/bugs/.
//!
//! cargo test --features planted-bug --test planted

#[path = "whole_program/program.rs"]
#[expect(dead_code, reason = "what the other whole-program tests need of a running program")]
mod program;

use program::{MIB, Program, TAG0, printed};
use serde_json::{Value, json};

/// Two extents on one backend are accepted, one is taken away, and other things happen before and after.
fn record(dir: &std::path::Path) -> String {
    let program = Program::start(dir, &["--accel", "soft"]);
    let mut client = program.client();
    client.object_add("tm0", TAG0, 4 * MIB).expect("a backend");
    client.object_add("tm1", program::TAG1, 2 * MIB).expect("another");
    client.add(program::TAG1, &[(64 * MIB, 2 * MIB)]).expect("an offer");
    client.wait_for("ACCEPTED", program::TAG1);
    client.add(TAG0, &[(0, 2 * MIB), (32 * MIB, 2 * MIB)]).expect("an offer");
    client.wait_for("ACCEPTED", TAG0);
    let release = json!({
        "path": "cxl-vmem0", "host-id": 0, "removal-policy": "prescriptive", "region": 0, "forced-removal": true,
        "extents": [{"offset": 32 * MIB, "len": 2 * MIB}],
    });
    client.execute("cxl-release-dynamic-capacity", release).expect("taken");
    client.state(TAG0);
    let journal = program.journal().to_str().expect("a path").to_owned();
    program.terminate();
    journal
}

/// The first record that a text names.
fn first_record(text: &str) -> String {
    let digits = text.split('#').nth(1).expect("a record");
    digits.chars().take_while(char::is_ascii_digit).collect()
}

#[test]
fn a_bug_is_recorded_found_explained_cut_down_and_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = record(dir.path());
    let found = printed(&["bisect", &journal, "--law", "backend-one-owner"]);
    assert!(found.contains("operator to cxl-vmem0: forced release"), "{found}");
    let at = first_record(&found);
    let why = printed(&["why", "backends.tm0.holder", "--journal", &journal, "--at", &at]);
    assert!(why.starts_with(&format!("#{at} at ")) && why.contains("holder.state: attached -> free"), "{why}");

    let into = dir.path().join("partial_release_frees_the_backend");
    let into = into.to_str().expect("a path");
    let shrunk = printed(&["shrink", &journal, "--law", "backend-one-owner", "--into", into]);
    assert!(shrunk.starts_with("law backend-one-owner is broken: 5 of "), "{shrunk}");
    let test = std::fs::read_to_string(format!("{into}.rs")).expect("a test");
    // The kept test is this one: from run to run only the journal's place and the numbers of its records differ.
    let case =
        |text: &str| text.split("const CASE").nth(1).and_then(|rest| rest.split("#[test]").next()).map(str::to_owned);
    let kept = include_str!("../journal/corpus/bugs/partial_release_frees_the_backend.rs");
    assert_eq!(case(&test), case(kept), "{test}");
    assert!(test.contains("bugs::law_holds(\"backend-one-owner\", CASE);"), "{test}");
}

/// The record of the guest's first 4801h.
fn first_list(journal: &str) -> u64 {
    let shown = printed(&["journal", "show", journal, "--json"]);
    let mut records = shown.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let list = records.find(|record| record["input"]["extents"]["command"]["opcode"] == 0x4801).expect("a list");
    list["stamp"]["seq"].as_u64().expect("a record")
}

/// What no guest did, a fork does: the list is asked behind its end, and deciding panics. The fork keeps the panic as its
/// last record, and two inputs are enough for it.
#[test]
fn a_panic_ends_a_fork_and_is_cut_down() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = record(dir.path());
    let at = first_list(&journal);
    let fork = dir.path().join("fork").to_str().expect("a path").to_owned();
    // One extent, from the 7th on.
    let edit = format!("{at}={}", json!({"extents": {"command": {"payload": "0100000007000000"}}}));
    let told = printed(&["whatif", &journal, "--edit", &edit, "--into", &fork]);
    let message = "a list of 0 extents was asked for its extent 7";
    assert!(told.contains(&format!("the fork ends with a panic: {message}")), "{told}");
    assert!(told.contains("reaches nobody") && told.contains(&format!("the fork has {at} records")), "{told}");
    let shown = printed(&["journal", "show", &fork]);
    assert!(shown.contains(&format!("PANIC: {message}")), "{shown}");
    printed(&["replay", &fork, "--check"]);

    let shrunk = printed(&["shrink", &fork, "--panics"]);
    assert!(shrunk.starts_with("deciding panics: 2 of "), "{shrunk}");
    let test = std::fs::read_to_string(format!("{fork}.shrink-panics.rs")).expect("a test");
    assert!(test.contains("bugs::never_panics(CASE);"), "{test}");
}

/// The simulator finds it without a program: the lowest seed, its journal, the few inputs, and the line that runs it again.
#[test]
fn the_simulator_finds_it_and_says_how_to_run_it_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let kept = dir.path().join("kept").to_str().expect("a path").to_owned();
    let sim = |arguments: &[&str]| {
        let output = program::verb(&[&["sim", "--seeds", "30", "--steps", "400"], arguments].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
        (text(&output.stdout), text(&output.stderr))
    };
    let (out, err) = sim(&["--keep", &kept]);
    assert!(out.contains(" inputs show it, found in "), "{out}");
    let lines: Vec<_> = err.trim_end().lines().collect();
    let again = lines.last().expect("a line").strip_prefix("replay with: dcd ").expect("the line that runs it again");
    let until = first_record(&err);
    assert!(err.contains(&format!("its journal: dcd replay {kept} --until {until}")), "{err}");
    let once = program::verb(&again.split(' ').collect::<Vec<_>>());
    let once = String::from_utf8_lossy(&once.stderr).into_owned();
    assert_eq!(once.lines().next(), lines.first().copied(), "the same seed fails alike");

    let (out, err) = sim(&["--json"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((told["failure"]["replay"].as_str(), err.as_str()), (Some(format!("dcd {again}").as_str()), ""));
    assert!(told["failure"]["shrunk"]["inputs"].as_u64().is_some_and(|inputs| inputs <= 6), "{told}");
}
