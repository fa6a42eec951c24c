//! Recorded runs that every later build must read: `journal/corpus/vN/NAME.dcd`, a journal as one file whose bodies are of
//! version N, and beside it `NAME.json`, what it is: its records, its last link, and the state that its facts make.
//!
//! A version's journals are recorded once, by the build that freezes it, and never again:
//!
//! ```sh
//! DCD_CORPUS=journal/corpus/v1 cargo test --test whole_program corpus::record -- --ignored
//! ```
//!
//! A later build may know more of a state than stands beside it; what stands there must be so.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use crate::program::{Client, MIB, Program, TAG0, TAG1, printed};
use crate::qtest::{bring_up, start};
use crate::qtest_client::open_ecam;

/// What a guest and its operator do; the name is the file's.
struct Scene {
    name: &'static str,
    play: fn(&Path),
}

const SCENES: [Scene; 8] = [
    Scene { name: "accept", play: |dir| policy(dir, "accept", Some("ACCEPTED")) },
    Scene { name: "subset", play: |dir| policy(dir, "subset", Some("ACCEPTED")) },
    Scene { name: "late", play: |dir| policy(dir, "late", Some("ACCEPTED")) },
    Scene { name: "reject", play: |dir| policy(dir, "reject", Some("REJECTED")) },
    Scene { name: "hold", play: |dir| policy(dir, "hold", None) },
    Scene { name: "linux-busy", play: linux_busy },
    Scene { name: "killed", play: killed },
    Scene { name: "hostile", play: hostile },
];

fn offer(client: &mut Client) {
    client.object_add("tm0", TAG0, 8 * MIB).expect("a backend");
    client.object_add("tm1", TAG1, 6 * MIB).expect("a backend");
    client.object_add("tm1", TAG1, 6 * MIB).expect_err("it is there");
    client.add(TAG0, &[(0, 8 * MIB)]).expect("an offer");
    client.add(TAG1, &[(32 * MIB, 2 * MIB), (16 * MIB, 2 * MIB), (24 * MIB, 2 * MIB)]).expect("an offer");
    client.add(TAG0, &[(64 * MIB, 2 * MIB)]).expect_err("its backend is taken");
    client.add(TAG1, &[(64 * MIB + 1, 2 * MIB)]).expect_err("no whole block");
}

/// A guest with a policy, two tags of which one is asked back, and what is refused.
fn policy(dir: &Path, policy: &str, answer: Option<&str>) {
    let program = Program::start(dir, &["--accel", "soft", "--guest", &format!("driver,policy={policy}")]);
    let mut client = program.client();
    offer(&mut client);
    for tag in [TAG0, TAG1] {
        answer.iter().for_each(|answer| drop(client.wait_for(answer, tag)));
    }
    // What was not accepted cannot be asked back, and that is a record too.
    if client.release(TAG1).is_ok() {
        client.wait_for("RELEASED", TAG1);
    }
    program.terminate();
}

fn linux_busy(dir: &Path) {
    let guest = format!("driver,policy=linux,busy={TAG0}");
    let program = Program::start(dir, &["--accel", "soft", "--guest", &guest]);
    let mut client = program.client();
    offer(&mut client);
    for tag in [TAG0, TAG1] {
        client.wait_for("ACCEPTED", tag);
        client.release(tag).expect("asked");
    }
    client.wait_for("RELEASED", TAG1);
    program.terminate();
}

/// Two runs, of which the first ends with a kill while an extent is accepted and another is offered.
fn killed(dir: &Path) {
    let program = Program::start(dir, &["--accel", "soft", "--guest", "driver,policy=accept"]);
    let mut client = program.client();
    offer(&mut client);
    client.wait_for("ACCEPTED", TAG0);
    program.kill();
    let program = Program::start(dir, &["--accel", "soft", "--guest", "driver,policy=accept"]);
    let mut client = program.client();
    client.release(TAG0).expect("asked");
    client.wait_for("RELEASED", TAG0);
    program.terminate();
}

/// A guest that answers what it was not asked, at lengths that are not so.
fn hostile(dir: &Path) {
    let (program, mut qtest, mut client) = start(dir, &[]);
    open_ecam(&mut qtest);
    let card = bring_up(&mut qtest, 0);
    offer(&mut client);
    let response = |count: u32, dpa: u64, len: u64| {
        let extent = [&dpa.to_le_bytes()[..], &len.to_le_bytes(), &[0; 8]].concat();
        [&count.to_le_bytes()[..], &[0; 4], &extent].concat()
    };
    for (opcode, payload) in [
        (0x4802, response(1, 4 * MIB, 2 * MIB)),
        (0x4802, response(1, 1 << 40, 2 * MIB)),
        (0x4802, response(1, 3, 5)),
        (0x4802, response(0xffff_ffff, 0, 2 * MIB)),
        (0x4802, vec![0xff; 600]),
        (0x4803, response(1, 0, 2 * MIB)),
        (0x4803, response(2, 0, u64::MAX)),
        (0x4801, vec![0xff; 8]),
        (0x4800, vec![]),
        (0x0101, vec![4, 1, 9, 0, 0, 0]),
        (0x0101, vec![9; 300]),
        (0x0103, vec![0xff; 5]),
        (0xffff, b"DCDR DCDS".to_vec()),
    ] {
        card.command(&mut qtest, opcode, &payload);
    }
    program.terminate();
}

/// Plays a scene, and keeps its journal as one file with what it is beside it.
fn keep(scene: &Scene, corpus: &Path) {
    let dir = tempfile::tempdir().expect("a directory");
    (scene.play)(dir.path());
    let file = corpus.join(format!("{}.dcd", scene.name));
    let journal = dir.path().join("journal");
    printed(&["journal", "pack", journal.to_str().expect("a path"), file.to_str().expect("a path")]);
    let told = format!("{:#}\n", told(&file));
    fs::write(file.with_extension("json"), told).expect("written");
}

/// What the program says of a journal: what is not so in every build, such as decisions, is left out.
fn told(file: &Path) -> Value {
    let file = file.to_str().expect("a path");
    let parsed = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
    let replayed = parsed(printed(&["replay", file, "--json"]));
    let stats = parsed(printed(&["journal", "stats", file, "--json"]));
    printed(&["journal", "verify", file]);
    json!({
        "records": replayed["records"], "link": stats["link"], "broken": replayed["broken"],
        "inputs": stats["inputs"], "refusals": stats["refusals"], "state": replayed["state"],
    })
}

/// Holds a journal against what stands beside it.
fn check(file: &Path) {
    let (name, mut told) = (file.display(), told(file));
    let beside = fs::read_to_string(file.with_extension("json")).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut beside: Value = serde_json::from_str(&beside).expect("JSON");
    assert_eq!(told["broken"], Value::Null, "{name}");
    let state = |side: &mut Value| match side["state"].take() {
        Value::Object(state) => state,
        other => panic!("{name}: no state but {other}"),
    };
    let (is, was): (Map<_, _>, Map<_, _>) = (state(&mut told), state(&mut beside));
    assert_eq!(told, beside, "{name}");
    assert!(!was.is_empty(), "{name}");
    for (path, value) in &was {
        assert_eq!(is.get(path), Some(value), "{name}: {path}");
    }
}

#[test]
fn every_kept_journal_is_what_stands_beside_it() {
    // The scenes as this build records them, so that a scene that no longer plays is seen before it is needed.
    let dir = tempfile::tempdir().expect("a directory");
    let mut files: Vec<PathBuf> = Vec::new();
    for scene in &SCENES {
        keep(scene, dir.path());
        files.push(dir.path().join(format!("{}.dcd", scene.name)));
    }
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("journal/corpus");
    for version in fs::read_dir(corpus).expect("the corpus") {
        let kept = fs::read_dir(version.expect("an entry").path()).expect("a directory");
        files.extend(
            kept.map(|entry| entry.expect("an entry").path()).filter(|path| path.extension() == Some("dcd".as_ref())),
        );
    }
    files.iter().for_each(|file| check(file));
}

#[test]
#[ignore = "records the corpus of a version into DCD_CORPUS, once"]
fn record() {
    let corpus =
        PathBuf::from(std::env::var_os("DCD_CORPUS").expect("DCD_CORPUS says where, for instance journal/corpus/v1"));
    fs::create_dir_all(&corpus).expect("a directory");
    SCENES.iter().for_each(|scene| keep(scene, &corpus));
}
