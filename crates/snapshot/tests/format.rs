//! FORMAT.md, held to the code: its tables, its pictures and its example, which every later build must read.

use std::collections::BTreeMap;
use std::fs;

use memory::HostMemory;
use snapshot::{Base, Contents, Store, format};

const PAGE: &str = include_str!("../FORMAT.md");

/// The rows of the table whose first header is `name`.
fn table(name: &str) -> BTreeMap<String, String> {
    let mut lines = PAGE.lines().skip_while(|line| !line.starts_with(&format!("| {name} |")));
    assert!(lines.next().is_some(), "no table '{name}'");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    rows.map(cells).map(|cells| (cells[0].clone(), cells[1].clone())).collect()
}

/// The example under this name.
fn example(name: &str) -> &'static str {
    let text = PAGE.split(&format!("```{name}\n")).nth(1).and_then(|rest| rest.split("```").next());
    text.unwrap_or_else(|| panic!("no example '{name}'"))
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal");
    (0..digits.len()).step_by(2).map(byte).collect()
}

fn hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The contents of the example's memory.
fn contents() -> Vec<u8> {
    let mut bytes = vec![0; 5000];
    bytes[4101..4106].copy_from_slice(b"hello");
    bytes
}

#[test]
fn the_limits_are_the_codes() {
    let limits = [
        ("bytes of a snapshot's name", format::SNAPSHOT_NAME_MAX_BYTES as u64),
        ("bytes of a memory's id", format::CONTENTS_ID_MAX_BYTES as u64),
        ("bytes of a part's name", format::PART_NAME_MAX_BYTES as u64),
        ("bytes of the manifest", format::MANIFEST_MAX_BYTES),
        ("facts in `about`", format::ABOUT_MAX as u64),
        ("bytes of the name of a fact", format::ABOUT_KEY_MAX_BYTES as u64),
        ("bytes of a fact", format::ABOUT_VALUE_MAX_BYTES as u64),
        ("memories", format::MEMORIES_MAX as u64),
        ("bytes of a memory", format::MEMORY_MAX_BYTES),
        ("bytes of the path of a reference", format::PATH_MAX_BYTES as u64),
        ("parts", format::PARTS_MAX as u64),
        ("bytes of a part", format::PART_MAX_BYTES),
        ("runs of a memory", format::RUNS_MAX),
        ("bytes of the runs of a memory, unpacked", format::RUNS_MAX_BYTES),
        ("snapshots in a chain", format::CHAIN_MAX as u64),
    ];
    let expected: BTreeMap<_, _> = limits.iter().map(|(what, max)| ((*what).to_owned(), max.to_string())).collect();
    assert_eq!(table("limit"), expected);
    assert!(PAGE.contains(&format!("A page has {} bytes", format::PAGE_BYTES)));
}

#[test]
fn the_versions_are_the_codes() {
    let versions = [
        ("format", format::FORMAT),
        ("parts and runs", format::PACKED_VERSION.into()),
        ("runs of a memory", format::RUNS_VERSION),
    ];
    let expected: BTreeMap<_, _> = versions.iter().map(|(what, of)| ((*what).to_owned(), of.to_string())).collect();
    assert_eq!(table("what"), expected);
    assert!(PAGE.contains(&format!("version of this page: {}", format::FORMAT)));
}

#[test]
fn the_pictures_are_the_modules() {
    for (name, source) in [
        ("directory", include_str!("../src/lib.rs")),
        ("packed", include_str!("../src/packed.rs")),
        ("runs", include_str!("../src/runs.rs")),
    ] {
        let picture = source.lines().filter_map(|line| line.strip_prefix("//! "));
        let picture: Vec<_> = picture.filter(|line| line.contains(['├', '│']) || line.starts_with("SNAP")).collect();
        assert!(picture.len() >= 2, "{name} has no picture");
        // The page leaves out what its text says.
        let begins = |line: &&&str| PAGE.lines().any(|other| other.len() > 20 && line.starts_with(other));
        let missing: Vec<_> = picture.iter().filter(|line| !begins(line)).collect();
        assert!(missing.is_empty(), "{name}: {missing:#?}");
    }
}

#[test]
fn the_members_of_a_manifest_are_those_on_the_page() {
    let manifest: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(example("json manifest.json")).expect("an object");
    assert_eq!(manifest.keys().collect::<Vec<_>>(), table("member").keys().collect::<Vec<_>>());
}

#[test]
fn the_digests_are_of_what_the_page_says() {
    let (body, rest) = example("json manifest.json").split_once(",\n  \"digest\": \"").expect("a digest");
    assert_eq!(rest, format!("{}\"\n}}\n", hex(body.as_bytes())));
    let manifest: serde_json::Value = serde_json::from_str(example("json manifest.json")).expect("JSON");
    let id = manifest["id"].as_str().expect("an id");
    assert_eq!(id, hex(body.replacen(id, &"0".repeat(64), 1).as_bytes()));
    let files = manifest["files"].as_array().expect("a list");
    let digests: Vec<_> = files.iter().map(|file| file["blake3"].as_str().expect("a digest")).collect();
    // One run: a gap of one page, then one page of data.
    let of_contents = [&[1, 0], &contents()[4096..]].concat();
    let expected = [hex(&unhex(example("hex parts"))), hex(&unhex(example("hex runs"))), hex(&of_contents)];
    assert_eq!(digests, expected);
}

#[test]
fn the_example_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let at = dir.path().join("monday");
    fs::create_dir(&at).expect("makeable");
    fs::write(at.join("manifest.json"), example("json manifest.json")).expect("writable");
    fs::write(at.join("parts"), unhex(example("hex parts"))).expect("writable");
    fs::write(at.join("runs"), unhex(example("hex runs"))).expect("writable");
    fs::write(at.join("ram.contents"), contents()).expect("writable");
    let store = Store::open(dir.path()).expect("a store");
    let snapshot = store.snapshot(&"monday".parse().expect("a name")).expect("opens");
    snapshot.verify(&mut |_, _| ()).expect("whole");
    assert_eq!(snapshot.manifest().created_ms, 1_795_280_582_357);
    assert_eq!(snapshot.about(), [("build".to_owned(), "dcd 0.1.0".to_owned())]);
    let part = snapshot.part("state").expect("there");
    assert_eq!((part.version, &part.bytes[..]), (1, &b"off off off off off"[..]));
    let [ram, backend] = snapshot.memories() else { panic!("two") };
    assert_eq!((ram.len_bytes, &ram.contents), (5000, &Contents::Copied(Base::Zeros)));
    assert_eq!(backend.contents, Contents::Reference { path: "tm0.img".into() });
    let memory = HostMemory::anonymous(5000).expect("memory");
    snapshot.load(&ram.id, &memory, &mut |_, _| ()).expect("loaded");
    let mut bytes = vec![0; 5000];
    memory.read(0, &mut bytes).expect("inside");
    assert_eq!(bytes, contents());
}

/// What is written today is what the page shows, but for the clock and zstd.
#[test]
fn the_example_is_what_is_written() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::create(&dir.path().join("snapshots")).expect("a store");
    let memory = HostMemory::anonymous(5000).expect("memory");
    memory.write(4101, b"hello").expect("inside");
    let mut draft = store.begin(&"monday".parse().expect("a name"), None).expect("begun");
    draft.about("build", "dcd 0.1.0").expect("said");
    draft.part("state", 1, b"off off off off off".to_vec()).expect("taken");
    let mut writer = draft.contents(&"ram".parse().expect("an id"), 5000, Base::Zeros).expect("begun");
    let range = 0..5000;
    writer.copy(&memory, std::slice::from_ref(&range)).expect("copied");
    draft.reference(&"backend-tm0".parse().expect("an id"), 1 << 30, "tm0.img").expect("said");
    draft.finish(vec![writer], &mut |_| ()).expect("finished");
    let at = store.path().join("monday");
    let written = fs::read_to_string(at.join("manifest.json")).expect("readable");
    let changes = |line: &&str| {
        ["\"id\": \"", "\"created_ms\"", "\"digest\"", "\"blake3\"", "\"len_bytes\""]
            .iter()
            .any(|member| line.contains(member))
    };
    let same = |text: &str| text.lines().filter(|line| !changes(line)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(same(&written), same(example("json manifest.json")));
    // The header and the entry, without the length of what is packed.
    for (file, name_len) in [("parts", 5), ("runs", 3)] {
        let (written, shown) = (fs::read(at.join(file)).expect("readable"), unhex(example(&format!("hex {file}"))));
        let stored = 26 + name_len;
        assert_eq!(written[..stored], shown[..stored]);
        assert_eq!(written[stored + 8..stored + 40], shown[stored + 8..stored + 40]);
        assert_eq!(&written[..4], if file == "parts" { b"DCDP" } else { b"DCDX" });
    }
    assert_eq!(fs::read(at.join("ram.contents")).expect("readable"), contents());
}
