//! What the verbs say of a damaged journal.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn verb(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dcd")).args(arguments).output().expect("dcd runs")
}

fn printed(arguments: &[&str]) -> String {
    let output = verb(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "dcd {arguments:?}: {out}{err}");
    out.into_owned()
}

fn refused(arguments: &[&str]) -> String {
    let output = verb(arguments);
    assert!(!output.status.success(), "dcd {arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A directory for what a test makes, with a journal of `dcd demo` in it.
struct Bench(tempfile::TempDir);

impl Bench {
    fn new() -> Bench {
        let bench = Bench(tempfile::tempdir().expect("a directory"));
        printed(&["demo", "--accel", "soft", "--journal", &bench.at("run")]);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path").to_owned()
    }

    /// Flips a bit of a file where some bytes stand in it for the first time.
    fn flip(&self, file: &str, at: impl FnOnce(&[u8]) -> usize) {
        let mut bytes = fs::read(self.path(file)).expect("readable");
        let at = at(&bytes);
        bytes[at] ^= 0x10;
        fs::write(self.path(file), bytes).expect("writable");
    }
}

/// The `n`th place at which some bytes stand.
fn place_of(bytes: &[u8], wanted: &[u8], n: usize) -> usize {
    let mut places = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(wanted));
    places.nth(n).expect("they stand there")
}

/// `#87` behind some words.
fn record_behind(text: &str, words: &str) -> u64 {
    let rest = text.split(words).nth(1).unwrap_or_else(|| panic!("no '{words}' in: {text}"));
    let digits: String = rest.trim_start_matches('#').chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("no record behind '{words}' in: {text}"))
}

/// What every verb that reads a journal says of it.
fn every_verb(journal: &str) -> Vec<String> {
    let out = format!("{journal}.made");
    [
        &["replay", journal][..],
        &["inspect", "--journal", journal],
        &["why", "runs", "--journal", journal],
        &["diff", journal, journal],
        &["bisect", journal, "--law", "extents-disjoint"],
        &["whatif", journal, "--drop", "80"],
        &["shrink", journal, "--panics"],
        &["journal", "show", journal],
        &["journal", "verify", journal],
        &["journal", "stats", journal],
        &["journal", "export", journal, &out],
        &["journal", "pack", journal, &out],
    ]
    .map(refused)
    .to_vec()
}

#[test]
fn every_verb_names_the_intact_prefix_of_a_damaged_file_and_the_command() {
    let bench = Bench::new();
    let file = bench.at("run.dcd");
    printed(&["journal", "export", &bench.at("run"), &file]);
    // The last segment says how many there are; all records before it are intact.
    bench.flip("run.dcd", |bytes| bytes.len() - 20);
    for said in every_verb(&file) {
        let last = record_behind(&said, "records up to ");
        assert!(said.contains(&format!("records up to #{last} are intact, what follows is not: the segment at byte ")));
        assert!(said.trim_end().ends_with(&format!("dcd journal salvage {file} OUT")), "{said}");
    }
    // The command, as it stands there.
    let told = printed(&["journal", "salvage", &file, &bench.at("OUT.dcd")]);
    printed(&["replay", &bench.at("OUT.dcd"), "--check"]);
    let shown = |journal: &str| printed(&["journal", "show", &bench.at(journal), "--json"]);
    assert_eq!(shown("OUT.dcd"), shown("run"), "{told}");
}

#[test]
fn every_verb_names_the_intact_prefix_of_a_directory_that_does_not_open_and_the_command() {
    let bench = Bench::new();
    let dir = bench.at("run");
    // A flipped bit behind what sled's index knows is another damage: a resumed run has an index of all that was there.
    drop(journal::Journal::open(&bench.path("run"), journal::Options::default()).expect("opens"));
    bench.flip("run/live/000001/db", |bytes| place_of(bytes, b"DCDR", 60));
    for said in every_verb(&dir) {
        assert!(said.contains(&format!("the database in {dir} does not open: ")), "{said}");
        assert!(said.contains(&format!("dcd journal salvage {dir} OUT")), "{said}");
        assert!(said.contains("by the records' own frames, those up to #"), "{said}");
    }
    let told = printed(&["journal", "salvage", &dir, &bench.at("OUT")]);
    let last = record_behind(&told, "records up to ");
    assert!(last >= 40, "{told}");
    assert!(printed(&["replay", &bench.at("OUT")]).contains(&format!("{last} records fold")));
}

#[test]
fn what_the_database_forgot_is_an_error_for_every_verb() {
    let bench = Bench::new();
    let dir = bench.at("run");
    // A byte of the database's own, before a record in the middle: every record is intact, and sled ends before them.
    bench.flip("run/live/000001/db", |bytes| place_of(bytes, b"DCDR", 50) - 40);
    for said in every_verb(&dir).into_iter().chain([refused(&["run", "--journal", &dir, "--guest", "none"])]) {
        let (last, from) = (record_behind(&said, "records up to "), record_behind(&said, "ends there, and records "));
        assert_eq!(from, last + 1, "{said}");
        assert!(said.contains(&format!("dcd journal salvage {dir} OUT")), "{said}");
    }
    let told = printed(&["journal", "salvage", &dir, &bench.at("OUT")]);
    let last = record_behind(&told, "records up to ");
    assert!(printed(&["journal", "verify", &bench.at("OUT")]).contains(&format!("#{last} is the last record")));
    assert!(printed(&["replay", &bench.at("OUT"), "--check"]).contains(&format!("{last} records fold")));
}

#[test]
fn an_empty_database_over_a_full_file_is_no_creation_that_was_cut_short() {
    let bench = Bench::new();
    let dir = bench.at("run");
    bench.flip("run/live/000001/db", |_| 1);
    for said in [refused(&["replay", &dir]), refused(&["run", "--journal", &dir, "--guest", "none"])] {
        assert!(
            said.contains("no record is intact, what follows is not: the database ends there, and records #0 to #"),
            "{said}"
        );
        assert!(said.contains(&format!("dcd journal salvage {dir} OUT")), "{said}");
    }
}

#[test]
fn records_behind_a_gap_are_written_to_be_read() {
    let bench = Bench::new();
    let dir = bench.at("run");
    // Every copy of the record that makes the backend tm1.
    let lines = printed(&["journal", "show", &dir, "--json"]);
    let wanted = lines.lines().position(|line| line.contains("\"ObjectAdd\":{\"id\":\"tm1\"")).expect("it is there");
    let bytes = fs::read(bench.path("run/live/000001/db")).expect("readable");
    let mut damaged = bytes.clone();
    let seq = (wanted as u64).to_le_bytes();
    for at in (0..bytes.len() - 24).filter(|at| bytes[*at..].starts_with(b"DCDR") && bytes[at + 16..at + 24] == seq) {
        damaged[at + 30] ^= 1;
    }
    fs::write(bench.path("run/live/000001/db"), &damaged).expect("writable");

    let told = printed(&["journal", "salvage", &dir, &bench.at("OUT.dcd")]);
    assert_eq!(record_behind(&told, "records up to "), wanted as u64 - 1, "{told}");
    assert!(told.contains(&format!("#{wanted} is missing")), "{told}");
    let beyond = fs::read_to_string(bench.path(&format!("OUT.dcd.beyond-{}.jsonl", wanted + 1))).expect("written");
    let expected: Vec<_> = lines.lines().skip(wanted + 1).collect();
    assert_eq!(beyond.lines().collect::<Vec<_>>(), expected);
    assert!(told.trim_end().ends_with(&format!("replay with: dcd replay {}", bench.at("OUT.dcd"))));
}

#[test]
fn salvage_overwrites_nothing_and_says_when_there_is_nothing() {
    let bench = Bench::new();
    let (dir, out) = (bench.at("run"), bench.at("out"));
    fs::create_dir(&out).expect("a directory");
    assert!(refused(&["journal", "salvage", &dir, &out]).contains("is there already"));
    fs::write(Path::new(&out).join("noise"), [7; 5000]).expect("written");
    let said = refused(&["journal", "salvage", &out, &bench.at("other")]);
    assert!(said.contains("no genesis was found in 1 file, 5000 bytes"), "{said}");
    assert!(!bench.path("other").exists());
}
