//! Manifests and files that somebody made up, with digests that fit.

use std::fs;

use serde_json::{Value, json};
use snapshot::{Listed, SnapshotName, Store};

use crate::sample::*;

fn hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Writes a manifest under the id and the digest that it must have, by FORMAT.md.
fn write_manifest(store: &Store, name: &SnapshotName, mut manifest: Value) {
    let zeros = "0".repeat(64);
    let fields = manifest.as_object_mut().expect("an object");
    fields.remove("digest");
    let order = ["format", "name", "id", "parent", "created_ms", "about", "memories", "files"];
    let others: Vec<_> = fields.keys().filter(|key| !order.contains(&key.as_str())).cloned().collect();
    let lines: Vec<_> = order
        .iter()
        .copied()
        .chain(others.iter().map(String::as_str))
        .filter_map(|key| {
            Some(format!("  \"{key}\": {}", if key == "id" { json!(zeros) } else { fields.get(key)?.clone() }))
        })
        .collect();
    let body = format!("{{\n{}", lines.join(",\n"));
    let body = body.replacen(&zeros, &hex(body.as_bytes()), 1);
    let digest = hex(body.as_bytes());
    let text = format!("{body},\n  \"digest\": \"{digest}\"\n}}\n");
    fs::write(store.path().join(name.as_str()).join("manifest.json"), text).expect("writable");
}

fn read_manifest(store: &Store, name: &SnapshotName) -> Value {
    let bytes = fs::read(store.path().join(name.as_str()).join("manifest.json")).expect("readable");
    serde_json::from_slice(&bytes).expect("JSON")
}

/// What opening a snapshot says whose manifest was changed so.
fn changed(change: impl FnOnce(&mut Value)) -> String {
    let (dir, store) = store();
    let [full, _] = chain_of_two(&store);
    // What a path that leads out would find.
    fs::copy(store.path().join("full/parts"), dir.path().join("parts")).expect("copied");
    let mut manifest = read_manifest(&store, &full.name);
    change(&mut manifest);
    write_manifest(&store, &full.name, manifest);
    let [Listed::Damaged { error, .. }, _] = &store.list().expect("listable")[..] else {
        return said(&store.snapshot(&full.name).expect_err("refused"));
    };
    let opened = said(&store.snapshot(&full.name).expect_err("refused"));
    assert_eq!(said(error), opened);
    opened
}

#[test]
fn a_manifest_that_was_signed_by_hand_is_read() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    let mut manifest = read_manifest(&store, &full.name);
    manifest["about"]["build"] = json!("by hand");
    write_manifest(&store, &full.name, manifest);
    assert!(read_all(&store, &full).expect("readable").is_some());
    let error = said(&store.snapshot(&next.name).expect_err("another parent"));
    assert!(error.contains("but the 'full' that is there has id"), "{error}");
}

#[test]
fn a_manifest_names_no_other_files() {
    for (index, file) in [(0, "../parts"), (0, "/etc/passwd"), (1, "parts"), (2, "../full/ram.contents"), (2, "ram")] {
        let said = changed(|manifest| manifest["files"][index]["name"] = json!(file));
        assert!(said.contains(&format!("there is a file '{file}' where")), "{said}");
    }
    let said = changed(|manifest| {
        let more = json!({ "name": "../x", "len_bytes": 1, "blake3": "0".repeat(64) });
        manifest["files"].as_array_mut().expect("a list").push(more);
    });
    assert!(said.contains("there is a file '../x', which belongs to nothing"), "{said}");
    let said = changed(|manifest| drop(manifest["files"].as_array_mut().expect("a list").pop()));
    assert!(said.contains("there is no file 'ram.contents'"), "{said}");
}

#[test]
fn a_manifest_says_nothing_that_cannot_be() {
    let says = |change: &dyn Fn(&mut Value), expected: &str| {
        let said = changed(change);
        assert!(said.contains("'manifest.json'") && said.contains(expected), "{expected}: {said}");
    };
    says(&|manifest| manifest["name"] = json!("../full"), "the name '../full'");
    says(&|manifest| manifest["name"] = json!("next"), "its name is 'next'");
    says(&|manifest| manifest["parent"] = json!({ "name": "../x", "id": "0".repeat(64) }), "the name '../x'");
    says(&|manifest| manifest["parent"] = json!({ "name": "x", "id": "0" }), "'0' is no digest");
    says(&|manifest| manifest["memories"][1]["id"] = json!("../ram"), "the name '../ram'");
    says(&|manifest| manifest["memories"][1]["id"] = json!("disk"), "there are two memories 'disk'");
    says(&|manifest| manifest["memories"][1]["len_bytes"] = json!(0), "memory 'ram' has 0 bytes");
    says(
        &|manifest| manifest["memories"][1]["len_bytes"] = json!(u64::MAX),
        "memory 'ram' has 18446744073709551615 bytes",
    );
    says(&|manifest| manifest["memories"][1]["len_bytes"] = json!(-1), "invalid value");
    says(
        &|manifest| manifest["memories"][1]["len_bytes"] = json!(5),
        "'ram.contents' has 12388 bytes for a memory of 5",
    );
    says(&|manifest| manifest["memories"][1]["base"] = json!("parent"), "is built on a parent, and there is none");
    says(&|manifest| manifest["memories"][1]["base"] = json!("x"), "unknown variant `x`");
    says(&|manifest| manifest["memories"][1]["contents"] = json!("x"), "unknown variant `x`");
    says(&|manifest| manifest["more"] = json!(1), "unknown field `more`");
    says(&|manifest| manifest["files"][0]["blake3"] = json!("A".repeat(64)), "is no digest");
    says(&|manifest| drop(manifest.as_object_mut().expect("an object").remove("about")), "missing field `about`");
    says(
        &|manifest| manifest["about"]["build"] = json!("x".repeat(5000)),
        "fact 'build' has 5000 bytes, of at most 4096",
    );
    says(&|manifest| manifest["about"]["\u{1b}[31m"] = json!("x"), "the name \"\\u{1b}[31m\" of a fact");
    says(&|manifest| manifest["about"]["x".repeat(65)] = json!("x"), "it has 65 bytes, and at most 64 are allowed");
    says(
        &|manifest| manifest["memories"][0]["path"] = json!("x".repeat(5000)),
        "the path of memory 'disk' has 5000 bytes, of at most 4096",
    );
    says(&|manifest| manifest["format"] = json!(2), "is in format 2, and this build reads format 1");
}

#[test]
fn a_parent_that_has_not_what_is_built_on_it_is_seen() {
    let (_dir, store) = store();
    let [full, next] = chain_of_two(&store);
    let mut manifest = read_manifest(&store, &full.name);
    let memories = manifest["memories"].as_array_mut().expect("a list");
    memories.truncate(1);
    manifest["files"].as_array_mut().expect("a list").truncate(2);
    write_manifest(&store, &full.name, manifest);
    let id = read_manifest(&store, &full.name)["id"].clone();
    let mut manifest = read_manifest(&store, &next.name);
    manifest["parent"]["id"] = id;
    write_manifest(&store, &next.name, manifest);
    let said = said(&store.snapshot(&next.name).expect_err("refused"));
    assert!(said.contains("memory 'ram' is built on that of 'full': 'full' has no memory 'ram'"), "{said}");
}

/// Puts another packed file into a snapshot, under a manifest that fits.
fn with_packed(file: &str, bytes: &[u8]) -> String {
    let (_dir, store) = store();
    let [full, _] = chain_of_two(&store);
    fs::write(store.path().join("full").join(file), bytes).expect("writable");
    let mut manifest = read_manifest(&store, &full.name);
    let index = if file == "parts" { 0 } else { 1 };
    manifest["files"][index]["len_bytes"] = json!(bytes.len());
    manifest["files"][index]["blake3"] = json!(hex(bytes));
    write_manifest(&store, &full.name, manifest);
    let all = store.snapshot(&full.name).and_then(|snapshot| snapshot.verify(&mut |_, _| ()));
    let said = said(&all.expect_err("refused"));
    assert!(said.contains(&format!("'{file}'")), "{said}");
    said
}

/// A packed file of one entry.
fn packed(magic: &[u8; 4], name: &str, version: u32, unpacked: u64, payload: &[u8], digest_of: &[u8]) -> Vec<u8> {
    let head = [&magic[..], &1u16.to_le_bytes(), &[0; 2], &1u32.to_le_bytes()].concat();
    let digest = blake3::hash(digest_of);
    let entry = [
        &(name.len() as u16).to_le_bytes()[..],
        name.as_bytes(),
        &version.to_le_bytes(),
        &unpacked.to_le_bytes(),
        &(payload.len() as u64).to_le_bytes(),
        digest.as_bytes(),
        payload,
    ];
    [head, entry.concat()].concat()
}

#[test]
fn lengths_in_packed_files_are_not_believed() {
    let zstd = |bytes: &[u8]| zstd::bulk::compress(bytes, 1).expect("packed");
    let parts = |unpacked, payload: &[u8]| with_packed("parts", &packed(b"DCDP", "x", 1, unpacked, payload, b"bytes"));
    assert!(parts(5, &zstd(b"other")).contains("their digest is"));
    assert!(parts(4, &zstd(b"bytes")).contains("more come"));
    assert!(parts(6, &zstd(b"bytes")).contains("5 come"));
    assert!(parts(5, b"bytes").contains("'x' in it does not unpack"));
    assert!(parts(u64::MAX, &zstd(b"bytes")).contains("18446744073709551615 bytes unpacked, of at most 1073741824"));
    // Far more than it says, of a few bytes: no more is taken than was said.
    assert!(parts(1000, &zstd(&vec![0; 64 << 20])).contains("more come"));
    let mut long = packed(b"DCDP", "x", 1, 5, &zstd(b"bytes"), b"bytes");
    long[27..35].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(with_packed("parts", &long).contains("it ends inside what begins at byte 67"));
    let whole = packed(b"DCDP", "x", 1, 5, &zstd(b"bytes"), b"bytes");
    let patched = |at: usize, bytes: &[u8]| {
        let mut patched = whole.clone();
        patched[at..at + bytes.len()].copy_from_slice(bytes);
        with_packed("parts", &patched)
    };
    assert!(patched(0, b"DCDX").contains("it does not begin with 'DCDP'"));
    assert!(patched(4, &[2, 0]).contains("is in format 2"));
    assert!(patched(6, &[1]).contains("bytes 6 and 7 are not 0"));
    assert!(patched(8, &[0xff; 4]).contains("4294967295 entries, of at most 4096"));
    assert!(patched(8, &[2]).contains("the entry at byte 67") || patched(8, &[2]).contains("ends inside"));
    assert!(patched(12, &[0, 0]).contains("a name of 0 bytes"));
    assert!(patched(12, &[0xff, 0xff]).contains("a name of 65535 bytes"));
    assert!(patched(14, &[0xff]).contains("a name that is no text"));
    assert!(with_packed("parts", &[&whole[..], b"more"].concat()).contains("it has"));
    assert!(with_packed("parts", b"").contains("it ends inside what begins at byte 0"));
}

#[test]
fn runs_stay_in_their_memory() {
    let runs = |name: &str, version, bytes: &[u8]| {
        let payload = zstd::bulk::compress(bytes, 1).expect("packed");
        with_packed("runs", &packed(b"DCDX", name, version, bytes.len() as u64, &payload, bytes))
    };
    assert!(runs("ram", 1, &[0, 8]).contains("run 1 reaches beyond the 4 pages of the memory"));
    assert!(runs("ram", 1, &[0, 0, 0, 0]).contains("run 2 goes on with the one before it"));
    assert!(runs("ram", 1, &[0]).contains("they end inside a number"));
    assert!(runs("ram", 2, &[0, 0]).contains("is in format 2, and this build reads format 1"));
    assert!(runs("disk", 1, &[0, 0]).contains("the runs of memory 'ram': there are none"));
    // They are in order, and others than were written: the digest of the contents knows.
    let (_dir, store) = store();
    let [full, _] = chain_of_two(&store);
    let payload = zstd::bulk::compress(&[0, 2], 1).expect("packed");
    let bytes = packed(b"DCDX", "ram", 1, 2, &payload, &[0, 2]);
    fs::write(store.path().join("full/runs"), &bytes).expect("writable");
    let mut manifest = read_manifest(&store, &full.name);
    manifest["files"][1]["len_bytes"] = json!(bytes.len());
    manifest["files"][1]["blake3"] = json!(hex(&bytes));
    write_manifest(&store, &full.name, manifest);
    let said = said(&read_all(&store, &full).expect_err("refused"));
    assert!(said.contains("'ram.contents' is damaged: its digest is"), "{said}");
}

#[test]
fn files_are_files_and_directories_directories() {
    let (dir, store) = store();
    let [full, _] = chain_of_two(&store);
    let contents = store.path().join("full/ram.contents");
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(&contents, &elsewhere).expect("movable");
    std::os::unix::fs::symlink(&elsewhere, &contents).expect("makeable");
    let refused = || said(&store.snapshot(&full.name).expect_err("refused"));
    assert!(refused().contains("cannot open 'ram.contents': it is a symbolic link"), "{}", refused());
    fs::remove_file(&contents).expect("removable");
    rustix::fs::mknodat(rustix::fs::CWD, &contents, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("a FIFO");
    assert!(refused().contains("it is no regular file"), "{}", refused());
    // Nor is a whole snapshot elsewhere taken for one here.
    fs::remove_file(&contents).expect("removable");
    fs::rename(&elsewhere, &contents).expect("movable");
    store.snapshot(&full.name).expect("whole again");
    fs::rename(store.path().join("full"), dir.path().join("full")).expect("movable");
    std::os::unix::fs::symlink(dir.path().join("full"), store.path().join("full")).expect("makeable");
    let link = format!("cannot open '{}': it is a symbolic link", store.path().join("full").display());
    assert!(refused().contains(&link), "{}", refused());
}
