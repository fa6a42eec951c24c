//! `dcd sim`: seeds at a shell.

use serde_json::Value;

use crate::program::{printed, refused};

#[test]
fn seeds_are_run_and_told_in_numbers() {
    let told = printed(&["sim", "--seeds", "12", "--steps", "200"]);
    assert!(told.starts_with("seeds 0 to 11, 200 steps each: "), "{told}");
    assert!(told.contains(" laws hold after each\n") && told.contains(" times real time, "), "{told}");

    let json: Value =
        serde_json::from_str(&printed(&["sim", "--seeds", "12", "--steps", "200", "--json"])).expect("JSON");
    let records = json["records"].as_u64().expect("a number");
    assert!(told.contains(&format!(" each: {records} records, ")), "the same seeds are the same runs: {told}");
    assert!(records > 1_000 && json["crashes"].as_u64() >= Some(12) && json["failure"].is_null(), "{json}");
    assert!(json["coverage"]["extents Command 4802h: Success"].as_u64() > Some(10), "{json}");
    let help = printed(&["sim", "--help"]);
    assert!(help.contains("Example: dcd sim --seeds 10000"), "{help}");
    // A crash at every point finds the same runs and tries more.
    let every = printed(&["sim", "--seeds", "3", "--steps", "100", "--every-crash-point", "--json"]);
    let every: Value = serde_json::from_str(&every).expect("JSON");
    assert!(every["crash-points"].as_u64() > every["crashes"].as_u64(), "{every}");
}

/// A simulated run is a journal like any other, and the same one each time.
#[test]
fn a_simulated_run_is_kept_and_replayed() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    let (one, other) = (place("one"), place("other"));
    for journal in [&one, &other] {
        let told = printed(&["sim", "--seed", "7", "--steps", "300", "--keep", journal]);
        assert!(told.ends_with(&format!("its journal: dcd replay {journal}\n")), "{told}");
    }
    let replayed = printed(&["replay", &one, "--check"]);
    assert!(replayed.contains(" records by dcd sim, "), "{replayed}");
    assert!(replayed.trim_end().ends_with("every decision is what this build decides"), "{replayed}");
    assert_eq!(printed(&["journal", "show", &one, "--json"]), printed(&["journal", "show", &other, "--json"]));
    let told = refused(&["sim", "--seed", "7", "--steps", "300", "--keep", &one]);
    assert!(told.contains("is there already"), "{told}");
}

/// The words of a text: numbers change with the machine and with every build that decides otherwise.
fn words(text: &str) -> String {
    let is_unit = |word: &&str| !["s", "min", "h"].contains(word);
    let words = text.split_whitespace().filter(|word| !word.starts_with(|c: char| c.is_ascii_digit()));
    words.map(|word| word.trim_end_matches([':', ','])).filter(is_unit).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_readme_says_what_it_prints() {
    let readme = include_str!("../../README.md");
    let section = readme.split("### Simulated runs").nth(1).expect("the section");
    let shown = section.split("```console\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a run");
    let (asked, answer) = shown.split_once('\n').expect("an answer");
    assert_eq!(asked, "$ dcd sim --seeds 1000");
    assert_eq!(words(&printed(&["sim", "--seeds", "2", "--steps", "50"])), words(answer));
}

#[test]
fn what_cannot_be_run_is_refused() {
    assert!(refused(&["sim", "--seeds", "0"]).contains("ask for at least one"));
    let too_many = refused(&["sim", "--seed", &u64::MAX.to_string(), "--seeds", "2"]);
    assert!(too_many.contains("there are no 2 seeds from"), "{too_many}");
}
