//! Every verb on a journal that begins at a state, and on the one that it superseded.

use std::path::Path;

use device::Seq;
use journal::record::{RECORD_VERSION, Record};
use journal::{Durability, Options, supersede};
use replay::Fold;
use serde_json::Value;

use crate::bugs;
use crate::field::Field;
use crate::program::{keep, printed, refused, verb};

/// Where the younger journal begins.
const BASE: u64 = 120;

const ORIGIN: &str = "begins at #120: restored from snapshot before-upgrade of past/000001\n";

/// A journal's directory in which an older journal was superseded, of whose records behind the state so many came again.
struct Begun {
    place: tempfile::TempDir,
    field: Field,
}

impl Begun {
    fn new(records: usize) -> Self {
        let (place, field) = (tempfile::tempdir().expect("a directory"), Field::with_cycles(40));
        let dir = place.path().join("run");
        keep(&dir, &field.genesis, &field.records);
        let (known, later) = field.records.split_at(BASE as usize);
        let mut fold = Fold::new(&field.genesis).expect("a VM");
        known.iter().for_each(|record| fold.apply(record).expect("it fits"));
        let options = Options { durability: Durability::Process, record_version: RECORD_VERSION, ..Options::default() };
        let change = "restored from snapshot before-upgrade";
        let journal = supersede(&dir, field.genesis.clone(), fold.to_keyframe(), change, options).expect("superseded");
        for record in later.iter().take(records) {
            journal.append(|_| (record.to_bytes(), ())).expect("open");
        }
        journal.close().expect("closed");
        Self { place, field }
    }

    fn at(&self, name: &str) -> String {
        self.place.path().join(name).to_str().expect("a path").to_owned()
    }

    fn run(&self) -> String {
        self.at("run")
    }

    fn past(&self) -> String {
        self.at("run/past/000001")
    }

    /// The first record behind the state of which this is so.
    fn first(&self, is_so: impl Fn(&Record) -> bool) -> u64 {
        let mut later = self.field.records.iter().skip(BASE as usize);
        later.find(|record| is_so(record)).expect("one is").stamp.seq.0
    }
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(arguments)).expect("JSON")
}

fn link(journal: &str) -> Option<String> {
    printed(&["journal", "verify", journal]).lines().rev().nth(1).map(str::to_owned)
}

#[test]
fn it_replays_from_its_state_on_and_says_where_it_is_from() {
    for records in [0, 1, 150] {
        let begun = Begun::new(records);
        let (run, last) = (begun.run(), BASE + records as u64);
        let replayed = printed(&["replay", &run, "--check"]);
        assert!(replayed.contains(&format!("{run}: {records} records by field, ")), "{replayed}");
        assert!(replayed.contains(ORIGIN), "{replayed}");
        assert!(replayed.contains(&format!("{records} records fold, 14 laws hold after each, every")), "{replayed}");
        let told = json(&["replay", &run, "--json"]);
        assert_eq!((&told["before"], &told["until"], &told["records"]), (&BASE.into(), &last.into(), &records.into()));
        let parent = serde_json::json!({"journal": "past/000001", "shared": BASE, "change": "restored from snapshot before-upgrade"});
        assert_eq!(told["parent"], parent);
        for name in ["verify", "stats"] {
            let told = printed(&["journal", name, &run]);
            assert_eq!(told.lines().nth(1), Some(ORIGIN.trim_end()), "{told}");
        }
        let stats = json(&["journal", "stats", &run, "--json"]);
        assert_eq!((&stats["before"], &stats["records"], &stats["parent"]), (&BASE.into(), &records.into(), &parent));
        let verified = json(&["journal", "verify", &run, "--json"]);
        assert_eq!(
            (&verified["last"], &verified["parent"], &verified["link"]),
            (&last.into(), &parent, &stats["link"])
        );
        assert_eq!((&verified["keyframes"], &verified["torn"]), (&0.into(), &Value::Null));
        let past = json(&["journal", "stats", &begun.past(), "--json"]);
        assert_eq!(past["records"], begun.field.records.len());
        let shown = printed(&["journal", "show", &run, "--json"]);
        assert_eq!(shown.lines().count(), records + 1);
        assert!(!printed(&["journal", "show", &run]).contains(" ? "), "its devices have names");

        let base = printed(&["replay", &run, "--until", "120", "--state", ""]);
        assert_eq!(base, printed(&["replay", &begun.past(), "--until", "120", "--state", ""]));
        assert_eq!(base, printed(&["inspect", "--journal", &run, "--at", "120"]));
        let state = |journal: &str| printed(&["inspect", "--journal", journal, "--at", &last.to_string()]);
        assert_eq!(state(&run), state(&begun.past()));
        for (question, seq) in
            [(&["replay", &run, "--until", "119"][..], 119), (&["inspect", "--journal", &run, "--at", "7"], 7)]
        {
            let told = refused(question);
            let elsewhere = format!("#{seq} is not in this journal, which begins at {}", &ORIGIN["begins at ".len()..]);
            assert!(told.contains(elsewhere.trim_end()), "{told}");
        }
    }
}

#[test]
fn what_was_so_before_is_asked_of_the_older_one() {
    let begun = Begun::new(150);
    let run = begun.run();
    let told = printed(&["why", "backends.tm0.holder", "--journal", &run]);
    let mut lines = told.lines();
    let so = "so at #120 already, where this journal begins: restored from snapshot before-upgrade of past/000001";
    assert_eq!(lines.next(), Some(so));
    let command = lines.next().and_then(|line| line.strip_prefix("ask there: dcd ")).expect("a command");
    assert_eq!(command, format!("why backends.tm0.holder --journal {} --at 120", begun.past()));
    let there = printed(&command.split(' ').collect::<Vec<_>>());
    assert!(there.starts_with('#') && there.contains("Add Dynamic Capacity Response"), "{there}");

    let made = begun.first(|record| format!("{:?}", record.input).contains("\"tm16\""));
    let why = |journal: &str| json(&["why", "backends.tm16.created", "--journal", journal, "--json"]);
    assert_eq!(why(&run)["by"], made);
    assert_eq!(why(&run), why(&begun.past()));

    let first = |what: &str| printed(&["bisect", &run, "--path", what]);
    assert_eq!(first("runs=1"), "runs=1 at #120 already, where the journal begins\n");
    assert!(first("backends.tm16.holder.state=free").contains(&format!("first after #{made}\n")));
    let holds = refused(&["bisect", &run, "--law", "counters-match"]);
    assert!(holds.contains("is so after none of the 150 records"), "{holds}");
}

/// Seen as: "#119 is not in this journal" where #120 was asked, a line to replay that failed too, and `absent -> 1`.
#[test]
fn why_cites_the_record_that_was_asked() {
    let begun = Begun::new(150);
    let run = begun.run();
    for (at, expected) in [
        (3, "#3 is not in this journal, which begins at #120"),
        (5000, "there is no #5000: the journal ends with #270"),
    ] {
        let told = refused(&["why", "runs", "--journal", &run, "--at", &at.to_string()]);
        assert!(told.starts_with(&format!("dcd: {expected}")) && !told.contains("replay with"), "{told}");
    }
    for at in ["120", "121", "270"] {
        let told = printed(&["why", "runs", "--journal", &run, "--at", at]);
        assert!(told.starts_with("so at #120 already, where this journal begins: "), "{told}");
        assert!(told.ends_with("\n  runs = 1\n"), "{told}");
        let told = json(&["why", "runs", "--journal", &run, "--at", at, "--json"]);
        let expected = serde_json::json!({"by": 120, "record": null, "changes": [{"path": "runs", "after": 1}]});
        assert_eq!(told, expected);
    }
}

/// Seen as: "the first is at 310000000000 ns" where a second was asked.
#[test]
fn a_time_before_it_is_told_in_the_unit_that_was_asked() {
    let begun = Begun::new(150);
    let told = refused(&["replay", &begun.run(), "--until", "0.1ms"]);
    assert_eq!(
        told,
        "dcd: no record is as early as 0.1ms: the first is at 0.12ms; ask for that time or a later one, or for #120 itself\n"
    );
    for until in ["0.12ms", "1m", "1min", "1h", "120"] {
        printed(&["replay", &begun.run(), "--until", until]);
    }
}

#[test]
fn it_is_forked_and_cut_down_from_its_state_on() {
    let begun = Begun::new(150);
    let (run, into) = (begun.run(), begun.at("fork"));
    let made = begun.first(|record| format!("{:?}", record.input).contains("\"tm16\""));
    let told = printed(&["whatif", &run, "--drop", &made.to_string(), "--into", &into]);
    assert!(told.contains("the fork has 149 records, those up to "), "{told}");
    let replayed = printed(&["replay", &into, "--check"]);
    assert!(replayed.contains(&format!("\nforked at #{}: drop #{made} of {run}\n", made - 1)), "{replayed}");
    assert!(replayed.contains(&format!("\nbegins at #120: what came before is for {run} to say\n")), "{replayed}");
    assert!(replayed.contains("149 records fold, 14 laws hold"), "{replayed}");
    let why = printed(&["why", "backends.tm0.holder", "--journal", &into]);
    assert!(why.contains(&format!("ask there: dcd why backends.tm0.holder --journal {run} --at 120\n")), "{why}");
    printed(&["journal", "verify", &into]);
    assert!(refused(&["whatif", &run, "--drop", "7"]).contains("#7 is not in this journal, which begins at #120"));
    // The very first record of it.
    let (first, into) = (begun.at("first"), begun.at("again"));
    printed(&["whatif", &run, "--drop", "121", "--into", &first]);
    assert!(printed(&["replay", &first]).contains(&format!("\nbegins at #120: drop #121 of {run}\n")));
    printed(&["whatif", &first, "--drop", "130", "--into", &into]);
    assert!(printed(&["replay", &into, "--check"]).contains("148 records fold"));

    let into = begun.at("few");
    let wanted = "backends.tm16.holder.state=attached";
    let told = json(&["shrink", &run, "--path", wanted, "--into", &into, "--json"]);
    assert!(told["inputs"].as_u64().is_some_and(|inputs| inputs < 10), "{told}");
    assert!(told["records"].as_array().is_some_and(|records| records.iter().all(|seq| seq.as_u64() > Some(BASE))));
    let shrunk = printed(&["replay", &into, "--check"]);
    assert!(shrunk.contains(&format!("\nbegins at #120: shrink {wanted} of {run}\n")), "{shrunk}");
    assert_eq!(
        json(&["bisect", &into, "--path", wanted, "--json"])["record"],
        120 + told["inputs"].as_u64().expect("few")
    );
    // The test that was written fails until the value does not come any more.
    let test = std::fs::read_to_string(format!("{into}.rs")).expect("a test");
    let case = test.split("r#\"").nth(1).and_then(|rest| rest.split("\"#").next()).expect("a case");
    assert!(std::panic::catch_unwind(|| bugs::never_is(wanted, case)).is_err());
    bugs::never_is("backends.tm16.holder.state=dedicated", case);
}

#[test]
fn it_is_compared_from_its_state_on() {
    let begun = Begun::new(150);
    let (run, past) = (begun.run(), begun.past());
    let told = verb(&["diff", &run, &past, "--at", "270"]);
    let told = String::from_utf8(told.stdout).expect("text");
    // What the older one has besides is told, and nothing before.
    assert!(
        told.starts_with("compared from #120 on, where one of them begins\nthe first input that differs:\n"),
        "{told}"
    );
    assert!(told.contains("it ends with #270\n") && told.ends_with("the same state\n"), "{told}");
    let into = begun.at("fork");
    printed(&["whatif", &run, "--drop", "150", "--into", &into]);
    let found = verb(&["diff", &into, &past, "--json"]);
    let found: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    assert_eq!(
        (&found["from"], &found["input"]["record"], &found["start"]),
        (&BASE.into(), &150.into(), &serde_json::json!([]))
    );
    assert_eq!(printed(&["diff", &run, &run]).lines().count(), 2);

    let short = begun.at("short");
    keep(Path::new(&short), &begun.field.genesis, &begun.field.records[..100]);
    assert!(refused(&["diff", &short, &run]).contains("one journal ends with #100 and the other begins at #120"));
    // One that has come to another state by then.
    let other = begun.at("other");
    printed(&["whatif", &past, "--drop", "3", "--into", &other]);
    let told = verb(&["diff", &run, &other]);
    let told = String::from_utf8(told.stdout).expect("text");
    assert!(told.contains("where one of them begins and ") && told.contains(" values differ already:\n"), "{told}");
}

#[test]
fn it_moves_is_packed_compacted_and_salvaged_from_its_state_on() {
    for records in [0, 1, 150] {
        let begun = Begun::new(records);
        let (run, at) = (begun.run(), |name: &str| begun.at(name));
        printed(&["journal", "export", &run, &at("a.dcd")]);
        printed(&["journal", "import", &at("a.dcd"), &at("again")]);
        printed(&["journal", "export", &at("again"), &at("b.dcd")]);
        let bytes = |name: &str| std::fs::read(at(name)).expect("readable");
        assert!(bytes("a.dcd") == bytes("b.dcd"), "the same journal, the same bytes");
        printed(&["journal", "pack", &run, &at("bug.dcd")]);
        printed(&["journal", "salvage", &run, &at("found")]);
        printed(&["journal", "salvage", &at("a.dcd"), &at("found.dcd")]);
        for name in ["a.dcd", "again", "bug.dcd", "found", "found.dcd"] {
            assert_eq!(link(&at(name)), link(&run), "{name}");
            assert!(printed(&["replay", &at(name), "--check"]).contains(ORIGIN), "{name}");
            let last = (BASE + records as u64).to_string();
            let inspected = printed(&["inspect", "--journal", &at(name), "--at", &last]);
            assert_eq!(inspected, printed(&["inspect", "--journal", &run]), "{name}");
        }
        for _ in 0..2 {
            printed(&["journal", "compact", &run]);
            assert!(printed(&["replay", &run, "--check"]).contains(ORIGIN));
        }
        // Cut to its last state.
        if records > 0 {
            printed(&["journal", "compact", &at("again")]);
            let read = journal::read(Path::new(&at("again"))).expect("whole");
            assert_eq!((read.before(), read.last), (Seq(BASE), Seq(BASE + records as u64)));
        }
    }
}
