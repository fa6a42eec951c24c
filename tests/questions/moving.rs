//! A journal as one file: it moves, and every verb reads it as it reads a directory.

use expect_test::expect;
use serde_json::Value;

use crate::program::{demo, printed, refused, steady};

/// A text without links, and without lengths of what is packed: they hang on the times in the records.
fn plain(text: &str, journal: &str) -> String {
    let word = |word: &str| match word.trim_end_matches([',', ':']) {
        hex if hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) => "LINK".to_owned(),
        _ => word.to_owned(),
    };
    let lines = steady(text, journal);
    let lines = lines.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" "));
    lines.map(|line| line + "\n").collect()
}

#[test]
fn every_question_has_the_same_answer_of_a_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = demo(dir.path());
    let file = format!("{journal}.dcd");
    printed(&["journal", "export", &journal, &file]);
    for question in [
        &["replay", "J", "--check"][..],
        &["replay", "J", "--state", "devices"],
        &["inspect", "backends", "--journal", "J", "--at", "82"],
        &["why", "backends.tm0.holder", "--journal", "J"],
        &["diff", "J", "J"],
        &["bisect", "J", "--path", "backends.tm1.holder.state=attached"],
        &["whatif", "J", "--drop", "95", "--into", "OUT", "--json"],
        &["journal", "show", "J"],
        &["journal", "show", "J", "--json"],
        &["journal", "verify", "J"],
    ] {
        let answers = [&journal, &file].map(|place| {
            let out = format!("{place}.out");
            let arguments: Vec<_> = question.iter().map(|word| word.replace('J', place).replace("OUT", &out)).collect();
            let answer = printed(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
            answer.replace(place, "JOURNAL")
        });
        assert_eq!(answers[0], answers[1], "{question:?}");
    }
}

#[test]
fn export_and_import_give_each_other_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = demo(dir.path());
    let at = |name: &str| dir.path().join(name).to_str().expect("a path").to_owned();
    let exported = printed(&["journal", "export", &journal, &at("a.dcd")]);
    let imported = printed(&["journal", "import", &at("a.dcd"), &at("again")]);
    printed(&["journal", "export", &at("again"), &at("b.dcd")]);
    printed(&["journal", "export", &at("b.dcd"), &at("c.dcd")]);
    let bytes = |name: &str| std::fs::read(at(name)).expect("readable");
    assert!(bytes("a.dcd") == bytes("b.dcd") && bytes("b.dcd") == bytes("c.dcd"), "the same journal, the same bytes");
    let link = |text: &str| text.split("link ").nth(1).expect("a link").chars().take(32).collect::<String>();
    assert_eq!(link(&exported), link(&imported));
    assert_eq!(link(&exported), link(&printed(&["journal", "verify", &at("again")]).replace("link is ", "link ")));

    assert!(refused(&["journal", "import", &at("a.dcd"), &at("again")]).contains("already holds a journal"));
    assert!(refused(&["journal", "export", &journal, &at("a.dcd")]).contains("could not make"));
    assert!(refused(&["journal", "import", &at("no.dcd"), &at("other")]).contains("holds no journal"));
}

#[test]
fn pack_says_what_it_was_recorded_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = demo(dir.path());
    let file = format!("{journal}.dcd");
    printed(&["journal", "pack", &journal, &file]);
    let told = plain(&printed(&["journal", "verify", &file]), &file);
    let told: String = told.lines().filter(|line| !line.contains("kernel: ")).map(|line| format!("{line}\n")).collect();
    expect![[r#"
        JOURNAL: 99 records by dcd 0.1.0, T ms of the VM clock
          recorded by: dcd 0.1.0
          packed by: dcd 0.1.0
          architecture: ARCH
          config: {"memory_bytes":1073741824,"window_base":4563402752,"windows_bytes":[8589934592],"root_ports":["rp0"]}
        #99 is the last record, its link is LINK
        every frame, its place in the row, its link and its body are right
    "#]]
    .assert_eq(&told.replace(std::env::consts::ARCH, "ARCH"));
    let verified: Value = serde_json::from_str(&printed(&["journal", "verify", &file, "--json"])).expect("JSON");
    assert_eq!((&verified["records"], &verified["last"], &verified["before"]), (&99.into(), &99.into(), &0.into()));
    assert_eq!(verified["about"]["recorded by"], verified["build"]);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a kernel");
    assert!(printed(&["journal", "verify", &file]).contains(&format!("  kernel: {}\n", kernel.trim())));
}

#[test]
fn stats_counts_what_show_shows() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = demo(dir.path());
    let stats: Value = serde_json::from_str(&printed(&["journal", "stats", &journal, "--json"])).expect("JSON");
    let shown = printed(&["journal", "show", &journal, "--json"]);
    let records = shown.lines().count() as u64 - 1;
    assert_eq!(stats["records"], records);
    let sum = |field: &str| {
        stats["inputs"]
            .as_array()
            .expect("inputs")
            .iter()
            .map(|input| input[field].as_u64().expect("a number"))
            .sum::<u64>()
    };
    assert_eq!(sum("records"), records);
    let bytes = |field: &str| stats["bytes"][field].as_u64().expect("a number");
    assert!(sum("body-bytes") < bytes("bodies"), "the genesis has a body too");
    assert_eq!(bytes("frames"), bytes("bodies") + 40 * (records + 1));
    let last: Value = serde_json::from_str(shown.lines().last().expect("a record")).expect("JSON");
    assert_eq!(stats["last-time-ns"], last["stamp"]["time"]);
    let longest = stats["longest"].as_array().expect("bodies");
    assert!(longest.is_sorted_by_key(|body| std::cmp::Reverse(body["body-bytes"].as_u64())));

    // A file is smaller than its frames.
    let file = format!("{journal}.dcd");
    printed(&["journal", "export", &journal, &file]);
    let packed: Value = serde_json::from_str(&printed(&["journal", "stats", &file, "--json"])).expect("JSON");
    assert_eq!((&packed["inputs"], &packed["link"]), (&stats["inputs"], &stats["link"]));
    assert!(packed["bytes"]["stored"].as_u64() < packed["bytes"]["frames"].as_u64());
    let told = printed(&["journal", "stats", &file]);
    assert!(told.contains(" extents   4802h (Add Dynamic Capacity Response)       2        "), "{told}");
    assert!(told.contains("no refusals\n"), "{told}");
}

#[test]
fn every_verb_of_a_journal_shows_an_example() {
    for verb in ["show", "verify", "stats", "export", "import", "pack", "salvage"] {
        let help = printed(&["journal", verb, "--help"]);
        assert!(help.contains(&format!("Example: dcd journal {verb} ")), "{help}");
    }
}
