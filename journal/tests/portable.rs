//! A journal as one file: what is written is read, and what is not what was written is an error that names how far it is.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use device::Seq;
use journal::portable::{
    About, Attached, HEADER_LEN_BYTES, read_attached, read_file, salvage_file, write_file, write_file_with, write_to,
};
use journal::{DamageCause, OpenError, Recovered, Stored, remains, restore};
use proptest::prelude::*;

fn journal_of(lens: &[usize]) -> Recovered {
    let body = |n: usize, len| (0..len).map(|at: usize| (at * 31 / (n + 1) + n) as u8).collect();
    let records =
        (0..).zip(lens).map(|(n, &len)| Stored { seq: Seq(n as u64 + 1), version: (n % 3) as u16, body: body(n, len) });
    let records: Vec<_> = records.collect();
    let last = Seq(records.len() as u64);
    Recovered { genesis: b"the genesis".to_vec(), genesis_version: 1, base: None, records, last, torn: None }
}

fn about() -> About {
    About(vec![("build".into(), "dcd 0.1.0".into()), ("kernel".into(), "6.1 Größe".into())])
}

fn bytes_of(recovered: &Recovered, about: &About) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_to(&mut bytes, recovered, about).expect("into memory");
    bytes
}

/// A directory with one file, which is written again and again.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("run.dcd")
    }

    fn with(&self, bytes: &[u8]) -> PathBuf {
        fs::write(self.path(), bytes).expect("writable");
        self.path()
    }
}

/// Reads a file that is not what was written: an error that says how far it is intact, and no further records.
fn damaged(path: &Path, whole: &Recovered, what: &str) {
    let error = match read_file(path) {
        Ok((read, _)) => panic!("{what}: it reads as whole, up to {}", read.last),
        Err(error) => error,
    };
    let OpenError::Damaged { damage, .. } = &error else { panic!("{what}: {error}") };
    let text = error.to_string();
    let said = match damage.intact {
        None => "no record is intact".to_owned(),
        Some(Seq(0)) => "only the genesis is intact".to_owned(),
        Some(last) => format!("records up to {last} are intact"),
    };
    assert!(text.contains(&said), "{what}: {text}");
    assert!(text.ends_with(&format!("dcd journal salvage {} OUT", path.display())), "{what}: {text}");
    match salvage_file(path) {
        Ok((read, _, Some(again))) => {
            assert_eq!(again.intact, Some(read.last), "{what}");
            assert_eq!((&read.genesis, read.genesis_version), (&whole.genesis, whole.genesis_version), "{what}");
            assert_eq!(read.records[..], whole.records[..read.records.len()], "{what}");
        }
        Ok((_, _, None)) => panic!("{what}: whole after all"),
        Err(_) => assert_eq!(damage.intact, None, "{what}"),
    }
    // What lies in it by its own frames is never less.
    let found = remains::find(path).expect("readable").prefix.map(|prefix| prefix.last);
    assert!(found >= damage.intact, "{what}: found {found:?}, intact {:?}", damage.intact);
}

#[test]
fn every_flipped_bit_names_the_intact_prefix() {
    let (place, whole) = (Place::new(), journal_of(&[40, 0, 700]));
    let bytes = bytes_of(&whole, &about());
    // In place: a file system makes haste with a file that is written anew.
    let (path, put) = (place.with(&bytes), |at: usize, byte: u8| {
        let file = fs::File::options().write(true).open(place.path()).expect("it is there");
        file.write_all_at(&[byte], at as u64).expect("writable");
    });
    for (at, byte) in bytes.iter().enumerate() {
        for bit in 0..8 {
            put(at, byte ^ 1 << bit);
            damaged(&path, &whole, &format!("bit {bit} of byte {at}"));
        }
        put(at, *byte);
    }
    assert_eq!(read_file(&path).expect("repaired").0, whole);
}

#[test]
fn every_cut_names_the_intact_prefix() {
    let (place, whole) = (Place::new(), journal_of(&[40, 0, 700]));
    let bytes = bytes_of(&whole, &about());
    let path = place.with(&bytes);
    let file = fs::File::options().write(true).open(&path).expect("it is there");
    for len in (0..bytes.len()).rev() {
        file.set_len(len as u64).expect("cut");
        damaged(&path, &whole, &format!("cut at {len}"));
    }
}

#[test]
fn a_damaged_segment_leaves_those_before_it() {
    // Three segments of records: 256 KiB are gathered for each.
    let (place, whole) = (Place::new(), journal_of(&[90_000; 8]));
    let bytes = bytes_of(&whole, &about());
    let starts: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"DCDS")).collect();
    assert_eq!(starts.len(), 5, "about, three of records, end");
    for (start, intact) in [(starts[1], None), (starts[2], Some(Seq(3))), (starts[3], Some(Seq(6)))] {
        let mut flipped = bytes.clone();
        flipped[start + HEADER_LEN_BYTES + 9] ^= 4;
        let path = place.with(&flipped);
        damaged(&path, &whole, "a payload");
        match read_file(&path) {
            Err(OpenError::Damaged { damage, .. }) => assert_eq!(damage.intact, intact),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn segments_that_are_missing_swapped_or_of_another_file_are_seen() {
    let (place, whole) = (Place::new(), journal_of(&[90_000; 8]));
    let bytes = bytes_of(&whole, &about());
    let mut starts: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"DCDS")).collect();
    starts.push(bytes.len());
    let pieces: Vec<_> = starts.windows(2).map(|ends| &bytes[ends[0]..ends[1]]).collect();
    let other = bytes_of(&journal_of(&[90_001; 8]), &about());
    for (what, order) in [
        ("one left out", vec![pieces[0], pieces[1], pieces[3], pieces[4]]),
        ("two swapped", vec![pieces[0], pieces[2], pieces[1], pieces[3], pieces[4]]),
        ("one twice", vec![pieces[0], pieces[1], pieces[1], pieces[2], pieces[3], pieces[4]]),
        ("no about", pieces[1..].to_vec()),
        ("another end", vec![pieces[0], pieces[1], pieces[2], pieces[3], &other[other.len() - HEADER_LEN_BYTES..]]),
        ("something behind the end", vec![&bytes, b"x"]),
        ("a second file behind it", vec![&bytes, &bytes]),
    ] {
        damaged(&place.with(&order.concat()), &whole, what);
    }
}

#[test]
fn a_file_of_a_later_version_is_refused_with_what_to_do() {
    let (place, whole) = (Place::new(), journal_of(&[40]));
    let mut bytes = bytes_of(&whole, &about());
    bytes[8] = 9;
    let end = bytes[1..].windows(4).position(|window| window == b"DCDS").expect("a second segment") + 1;
    let crc = crc32fast::hash(&bytes[8..end]);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
    let error = read_file(&place.with(&bytes)).expect_err("another version").to_string();
    assert!(
        error.contains("is of version 9 and this build reads versions up to 2: read it with the build that wrote it"),
        "{error}"
    );
}

#[test]
fn a_segment_that_announces_more_than_is_there_takes_no_memory_for_it() {
    let place = Place::new();
    let mut bytes = b"DCDS".to_vec();
    bytes.extend([0; 44]);
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = read_file(&place.with(&bytes)).expect_err("too long").to_string();
    assert!(error.contains("announces 4294967295 bytes"), "{error}");
}

#[test]
fn a_file_is_written_once_and_whole_or_not_at_all() {
    let (place, whole) = (Place::new(), journal_of(&[40]));
    write_file(&place.path(), &whole, &about()).expect("written");
    let again = write_file(&place.path(), &journal_of(&[]), &about()).expect_err("it is there").to_string();
    assert!(again.starts_with(&format!("could not make {}", place.path().display())), "{again}");
    assert_eq!(read_file(&place.path()).expect("whole"), (whole.clone(), about()));
    assert_eq!(fs::read_dir(place.0.path()).expect("listable").count(), 1, "nothing is left beside it");
    let nowhere = place.0.path().join("no/such/dir/run.dcd");
    assert!(write_file(&nowhere, &whole, &about()).is_err());
    assert!(matches!(read_file(&nowhere), Err(OpenError::Missing { .. })));
}

#[test]
fn a_directory_and_a_file_give_each_other_back() {
    let (place, whole) = (Place::new(), journal_of(&[40, 0, 30_000, 7]));
    write_file(&place.path(), &whole, &about()).expect("written");
    let (read, _) = read_file(&place.path()).expect("whole");
    let dir = place.0.path().join("journal");
    restore(&dir, &read).expect("restored");
    let restored = journal::read(&dir).expect("whole");
    assert_eq!((&restored, restored.link()), (&whole, whole.link()));
    assert_eq!(bytes_of(&restored, &about()), bytes_of(&whole, &about()));
    assert!(matches!(restore(&dir, &read), Err(OpenError::Exists { .. })));
}

#[test]
fn a_hole_in_the_row_cannot_be_written_as_a_whole_file() {
    let (place, mut whole) = (Place::new(), journal_of(&[4, 4, 4]));
    whole.records.remove(1);
    write_file(&place.path(), &whole, &about()).expect("frames are framed");
    match read_file(&place.path()) {
        Err(OpenError::Damaged { damage, .. }) => {
            assert_eq!(damage.intact, Some(Seq(1)));
            assert!(matches!(damage.cause, DamageCause::Frame(_)), "{}", damage.cause);
        }
        other => panic!("{other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_written_is_read_and_the_same_journal_is_the_same_bytes(
        lens in prop::collection::vec(prop_oneof![0usize..300, 0usize..400_000], 0..6),
        about in prop::collection::vec((".{0,12}", ".{0,40}"), 0..4),
    ) {
        let (place, whole, about) = (Place::new(), journal_of(&lens), About(about));
        write_file(&place.path(), &whole, &about).expect("written");
        let bytes = fs::read(place.path()).expect("readable");
        prop_assert_eq!(&bytes, &bytes_of(&whole, &about));
        let (read, again) = read_file(&place.path()).expect("whole");
        prop_assert_eq!((&read, &again), (&whole, &about));
        prop_assert_eq!(remains::find(&place.path()).expect("readable").prefix, Some(whole));
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        mut bytes in prop::collection::vec(any::<u8>(), 0..300),
        keep in 0usize..300,
        crc: bool,
    ) {
        // The beginning of a real file, then noise, with a right checksum or without.
        let real = bytes_of(&journal_of(&[40, 0, 700]), &about());
        let keep = keep.min(bytes.len()).min(real.len());
        bytes[..keep].copy_from_slice(&real[..keep]);
        if crc && bytes.len() >= HEADER_LEN_BYTES {
            let stored = (bytes.len() - HEADER_LEN_BYTES) as u32;
            bytes[..4].copy_from_slice(b"DCDS");
            bytes[12..16].copy_from_slice(&stored.to_le_bytes());
            let crc = crc32fast::hash(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        }
        let place = Place::new();
        let path = place.with(&bytes);
        prop_assert!(read_file(&path).is_err());
        let _ = remains::find(&path);
    }
}

fn attached() -> Vec<Attached> {
    let part = |name: &str, version, bytes: &[u8]| Attached { name: name.into(), version, bytes: bytes.to_vec() };
    // One of a guest's bytes that are a segment's, a part's or a frame's is none.
    let journal = bytes_of(&journal_of(&[50]), &about());
    vec![part("a part", 7, b"its bytes"), part("", 0, b""), part("another", u32::MAX, &journal)]
}

#[test]
fn what_is_attached_is_read_and_the_journal_is_the_same_without_it() {
    let (place, whole) = (Place::new(), journal_of(&[80, 300_000, 9]));
    write_file_with(&place.path(), &whole, &about(), &attached()).expect("written");
    assert_eq!(read_attached(&place.path()).expect("readable"), attached());
    assert_eq!(read_file(&place.path()).expect("whole"), (whole.clone(), about()));
    assert_eq!(remains::find(&place.path()).expect("readable").prefix.as_ref(), Some(&whole));
    // Where nothing is, the file is the one that it always was.
    let without = place.with(&bytes_of(&whole, &about()));
    assert_eq!(read_attached(&without).expect("readable"), []);
    let missing = read_attached(Path::new("/nowhere/run.dcd"));
    assert!(matches!(missing, Err(OpenError::Missing { .. })), "{missing:?}");
}

#[test]
fn every_byte_of_what_is_attached_is_checked() {
    let (place, whole) = (Place::new(), journal_of(&[80]));
    let mut attached = attached();
    attached.truncate(2);
    write_file_with(&place.path(), &whole, &about(), &attached).expect("written");
    let bytes = fs::read(place.path()).expect("readable");
    let begin = bytes_of(&Recovered { records: Vec::new(), last: Seq(0), ..whole.clone() }, &about());
    let begin = (1..begin.len()).find(|at| begin[*at..].starts_with(b"DCDS")).expect("what comes behind `about`");
    let end = bytes.len() - (bytes_of(&whole, &about()).len() - begin);
    assert!(begin < end);
    for at in begin..end {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let path = place.with(&damaged);
        self::damaged(&path, &whole, &format!("byte {at}"));
        // The links between segments are seen by who reads all of them.
        if let Ok(read) = read_attached(&path) {
            assert_eq!(read, attached, "byte {at}");
        }
        assert_eq!(remains::find(&path).expect("readable").prefix.as_ref(), Some(&whole), "byte {at}");
    }
}

#[test]
fn what_is_longer_than_a_file_takes_is_refused_with_its_numbers() {
    let place = Place::new();
    let long = Attached { name: "long".into(), version: 1, bytes: vec![0; 63 << 20] };
    let error = write_file_with(&place.path(), &journal_of(&[]), &about(), &[long]).expect_err("too long").to_string();
    assert!(error.contains("'long' has 66060292 bytes and 66060288 is the limit"), "{error}");
    assert!(!place.path().exists());
}
