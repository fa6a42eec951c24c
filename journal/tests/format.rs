//! FORMAT.md, held to the code: its tables, its pictures and its examples.

use std::collections::BTreeMap;

use device::Seq;
use journal::frame::{self, Chain};
use journal::portable::{self, About, Attached, write_file_with, write_to};
use journal::store::Key;
use journal::{Recovered, Stored, StoredKeyframe, part};

const PAGE: &str = include_str!("../FORMAT.md");

/// The rows of the table whose first header is `name`.
fn table(name: &str) -> Vec<Vec<String>> {
    let mut lines = PAGE.lines().skip_while(|line| !line.starts_with(&format!("| {name} |")));
    assert!(lines.next().is_some(), "no table '{name}'");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// A table of two columns, the second of which is a number.
fn numbers(name: &str) -> BTreeMap<String, usize> {
    let rows = table(name).into_iter();
    rows.map(|row| (row[0].clone(), row[1].parse().unwrap_or_else(|_| panic!("'{}' is no number", row[1])))).collect()
}

/// The bytes of the example under this name.
fn example(name: &str) -> String {
    let text = PAGE.split(&format!("```hex {name}\n")).nth(1).and_then(|rest| rest.split("```").next());
    text.unwrap_or_else(|| panic!("no example '{name}'")).split_whitespace().collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn genesis() -> Recovered {
    Recovered {
        genesis: b"genesis".to_vec(),
        genesis_version: 1,
        base: None,
        records: vec![],
        last: Seq(0),
        torn: None,
    }
}

/// What begins at a state.
fn begun() -> Recovered {
    let chain = Chain::default().next(Seq(0), 1, b"genesis");
    let genesis = Stored { seq: Seq(0), version: 1, body: b"genesis".to_vec() };
    let base = StoredKeyframe { seq: Seq(120), chain, genesis, version: 1, body: b"state".to_vec() };
    Recovered { base: Some(base), last: Seq(120), ..self::genesis() }
}

fn frame_of_genesis() -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(&mut bytes, Chain::default(), Seq(0), 1, b"genesis").expect("short");
    bytes
}

fn file_of(recovered: &Recovered) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_to(&mut bytes, recovered, &About::default()).expect("into memory");
    bytes
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn link(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(part);
    }
    let mut link = [0; 16];
    hash.finalize_xof().fill(&mut link);
    link
}

#[test]
fn the_lengths_are_the_codes() {
    let frame = numbers("frame");
    assert_eq!((frame["header"], frame["longest body"]), (frame::HEADER_LEN_BYTES, frame::BODY_LIMIT_BYTES));
    let part = numbers("part");
    assert_eq!(part["key"], Key::LEN_BYTES);
    assert_eq!(part["header"], part::HEADER_LEN_BYTES);
    assert_eq!(part["longest value, with its header"], part::VALUE_LIMIT_BYTES);
    assert_eq!(part["longest payload"], part::PAYLOAD_LIMIT_BYTES);
    assert_eq!(numbers("segment")["header"], portable::HEADER_LEN_BYTES);
    assert!(PAGE.contains(&format!("At most {} bytes a body", frame::BODY_LIMIT_BYTES)));
    assert!(PAGE.contains(&format!("its frames reach {} MiB", journal::Sealing::SEAL_BYTES >> 20)));
}

/// The file of that genesis with something attached.
fn file_with_attached() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("run.dcd");
    let attached = Attached { name: "part".into(), version: 3, bytes: b"bytes".to_vec() };
    write_file_with(&path, &genesis(), &About::default(), &[attached]).expect("written");
    std::fs::read(path).expect("readable")
}

#[test]
fn the_examples_are_what_is_written() {
    assert_eq!(example("frame"), hex(&frame_of_genesis()));
    let (key, value) = part::cut(Seq(0), &frame_of_genesis()).remove(0);
    assert!(PAGE.contains(&format!("under the key `{}`", hex(&key.to_bytes()))));
    assert_eq!(example("part"), hex(&value));
    assert_eq!(example("file"), hex(&file_of(&genesis())));
    assert_eq!(example("begun"), hex(&file_of(&begun())));
    assert_eq!(example("attached"), hex(&file_with_attached()));
}

#[test]
fn the_pictures_are_the_modules() {
    for (name, source) in [
        ("frame", include_str!("../src/frame.rs")),
        ("part", include_str!("../src/part.rs")),
        ("segment", include_str!("../src/portable/segment.rs")),
        ("keyframe", include_str!("../src/keyframe.rs")),
    ] {
        let picture =
            source.lines().filter_map(|line| line.strip_prefix("//! ")).filter(|line| line.contains(['├', '│']));
        let lines: Vec<_> = picture.map(|line| line.trim_end()).collect();
        assert!(lines.len() >= 2, "{name} has no picture");
        // The page leaves out what its text says.
        let stands =
            |line: &&str| PAGE.lines().any(|other| other.contains(['├', '│']) && line.starts_with(other.trim_end()));
        assert!(lines.iter().all(stands), "{name}: {lines:#?}");
    }
}

#[test]
fn a_frame_is_as_its_picture_says() {
    let mut bytes = frame_of_genesis();
    let before = link(&[&[0; 16], &0u64.to_le_bytes(), &1u16.to_le_bytes(), b"genesis"]);
    let start = bytes.len();
    let chain = frame::encode(&mut bytes, Chain(before), Seq(1), 7, b"body").expect("short");
    let second = &bytes[start..];
    assert_eq!((&second[..4], u32_at(second, 4)), (&b"DCDR"[..], 4));
    assert_eq!(u32_at(second, 8), crc32fast::hash(&second[12..]));
    assert_eq!((u16_at(second, 12), u16_at(second, 14), u32_at(second, 16), u32_at(second, 20)), (7, 0, 1, 0));
    assert_eq!(second[24..40], link(&[&before, &1u64.to_le_bytes(), &7u16.to_le_bytes(), b"body"]));
    assert_eq!((&second[24..40], &second[40..]), (&chain.0[..], &b"body"[..]));
}

#[test]
fn a_part_is_as_its_picture_says() {
    let limit = numbers("part")["longest payload"];
    let group: Vec<u8> = (0..limit + 9).map(|at| at as u8).collect();
    let parts = part::cut(Seq(0x0102), &group);
    assert_eq!(parts.len(), 2);
    for (number, (key, value)) in parts.iter().enumerate() {
        let (last, payload) = (number == 1, if number == 0 { &group[..limit] } else { &group[limit..] });
        let stored = [&0x0102u64.to_be_bytes()[..], &(number as u32).to_be_bytes()].concat();
        assert_eq!(key.to_bytes()[..], stored);
        assert_eq!((value[0], value[1], u16_at(value, 2)), (1, u8::from(last), payload.len() as u16));
        assert_eq!((u32_at(value, 4), &value[12..]), (number as u32, payload));
        assert_eq!(u32_at(value, 8), crc32fast::hash(&[&stored, &value[..8], payload].concat()));
    }
}

#[test]
fn a_file_is_as_its_picture_says() {
    let body = |seq: u64| vec![seq as u8; 100_000];
    let records: Vec<_> = (1..=4).map(|seq| Stored { seq: Seq(seq), version: 1, body: body(seq) }).collect();
    let whole = Recovered { records, last: Seq(4), ..genesis() };
    let about = About(vec![("name".into(), "text".into())]);
    let mut bytes = Vec::new();
    write_to(&mut bytes, &whole, &about).expect("into memory");

    let kinds: BTreeMap<_, u16> =
        table("kind").into_iter().map(|row| (row[0].clone(), row[1].parse().expect("a number"))).collect();
    let (mut at, mut before, mut seen, mut frames) = (0, [0; 16], Vec::new(), Vec::new());
    while at < bytes.len() {
        let stored = u32_at(&bytes, at + 12) as usize;
        let segment = &bytes[at..at + 48 + stored];
        assert_eq!((&segment[..4], u16_at(segment, 8)), (&b"DCDS"[..], portable::VERSION));
        assert_eq!(u32_at(segment, 4), crc32fast::hash(&segment[8..]));
        assert_eq!(segment[32..48], link(&[&before, &segment[8..32], &segment[48..]]));
        before.copy_from_slice(&segment[32..48]);
        if u16_at(segment, 10) == kinds["records"] {
            let unpacked = zstd::bulk::decompress(&segment[48..], 1 << 20).expect("zstd");
            assert_eq!(unpacked.len(), u32_at(segment, 16) as usize);
            let goal = numbers("segment")["frames gathered for one"];
            assert!(unpacked.len() >= goal || seen.len() == 2, "only the last is shorter");
            frames.extend(unpacked);
        }
        seen.push((u16_at(segment, 10), u32_at(segment, 20), u32_at(segment, 24)));
        at += segment.len();
    }
    let records = kinds["records"];
    assert_eq!(seen, [(kinds["about"], 1, 0), (records, 4, 0), (records, 1, 4), (kinds["end"], 3, 4)]);
    let texts = [&1u64.to_le_bytes()[..], &4u64.to_le_bytes(), b"name", &4u64.to_le_bytes(), b"text"].concat();
    assert_eq!(bytes[48..48 + texts.len()], texts);
    let (mut expected, mut chain) = (Vec::new(), Chain::default());
    chain = frame::encode(&mut expected, chain, Seq(0), 1, b"genesis").expect("short");
    for seq in 1..=4 {
        chain = frame::encode(&mut expected, chain, Seq(seq), 1, &body(seq)).expect("short");
    }
    assert_eq!((frames, whole.link()), (expected, chain));
}

#[test]
fn the_versions_are_the_codes() {
    let versions: BTreeMap<_, _> = table("what").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    assert_eq!(versions["segment"], portable::VERSION.to_string());
    assert_eq!(versions["segment of what is attached"], portable::ATTACHED_VERSION.to_string());
    assert!(PAGE.contains(&format!("together at most {}.", portable::ATTACHED_LIMIT_BYTES)));
    assert_eq!(versions["part"], part::cut(Seq(0), b"")[0].1[0].to_string());
}

#[test]
fn what_begins_at_a_state_lies_where_the_page_says() {
    let dir = tempfile::tempdir().expect("a directory");
    journal::restore(dir.path(), &begun()).expect("restored");
    let names = std::fs::read_dir(dir.path().join("sealed")).expect("listable");
    let names: Vec<_> = names.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(names.len(), 1);
    let told = format!("DIR/sealed/{}   no record: the state after #120", names[0].to_string_lossy());
    assert!(PAGE.contains(&told), "{told}");
    assert_eq!(journal::read(dir.path()).expect("whole"), begun());
}

#[test]
fn the_files_of_a_directory_are_those_on_the_page() {
    let dir = tempfile::tempdir().expect("a directory");
    for _ in 0..2 {
        match journal::Journal::create(dir.path(), b"genesis", journal::Options::default()) {
            Ok(journal) => drop(journal.close().expect("closed")),
            Err(_) => drop(journal::Journal::open(dir.path(), journal::Options::default()).expect("opens")),
        }
    }
    let mut seen = 0;
    for entry in std::fs::read_dir(dir.path().join("live/000001")).expect("listable") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        let told = name.split('.').next().expect("a name");
        assert!(PAGE.contains(&format!("DIR/live/000001/{told}")), "{name}");
        seen += 1;
    }
    assert!(seen >= 4, "db, conf, snap, blobs");
}
