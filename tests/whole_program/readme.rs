//! The README shows what the program prints.

use crate::program::printed;

#[test]
fn the_demo_in_the_readme_is_the_demo() {
    let readme = include_str!("../../README.md");
    let shown = readme.split("```text demo\n").nth(1).and_then(|rest| rest.split("```").next()).expect("the demo");
    let told = printed(&["demo"]);
    // What runs the guest is the host's matter.
    let steps = |text: &str| {
        let steps = text.split("\n\n").next().expect("steps").lines();
        steps.filter(|line| !line.contains("  accel: ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(steps(shown), steps(&told));
    assert!(told.contains("  dcd       accel: "), "{told}");
    // Of the journal's rows only the times differ from run to run.
    let without_time = |row: &str| {
        let mut columns: Vec<_> = row.split_whitespace().map(str::to_owned).collect();
        if columns.len() > 1 {
            columns.remove(1);
        }
        columns.join(" ")
    };
    let told_rows: Vec<_> = told.lines().map(without_time).collect();
    for row in shown.lines().filter(|line| line.starts_with(" #")) {
        assert!(told_rows.contains(&without_time(row)), "the demo does not print the row {row}");
    }
    assert_eq!(shown.trim_end().lines().last(), told.trim_end().lines().last());
}

#[test]
fn the_commands_of_the_readme_are_the_programs() {
    let readme = include_str!("../../README.md");
    let help = printed(&["--help"]);
    let verbs = [
        "demo", "run", "add", "release", "status", "list", "watch", "journal", "replay", "inspect", "why", "diff",
        "bisect", "whatif", "shrink", "laws", "qmp-doc", "schema", "snapshot",
    ];
    for verb in verbs {
        assert!(help.contains(&format!("  {verb}")), "--help does not list {verb}");
        assert!(readme.contains(&format!("dcd {verb}")) || verb == "demo", "the README does not show {verb}");
    }
    let options = printed(&["run", "--help"]);
    for option in [
        "--memory",
        "--window",
        "--device",
        "--object",
        "--qmp",
        "--journal",
        "--durability",
        "--accel",
        "--vcpus",
        "--guest",
        "--qtest",
        "--config",
        "--backend-dir",
        "--restore",
        "--lazy",
        "--takeover",
        "--pulse",
    ] {
        assert!(options.contains(option), "dcd run --help does not list {option}");
    }
}
