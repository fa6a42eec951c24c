//! What is found of a journal by its records' own frames, in a directory or a file, whatever has happened to it.

use std::fs;
use std::path::{Path, PathBuf};

use device::Seq;
use journal::portable::{About, write_file};
use journal::{Durability, Journal, Options, Recovered, remains};
use rustix::fs::{FlockOperation, flock};

/// Bodies of which some take several parts and some are empty; every third sync makes a group of its own.
fn bodies(count: u64) -> Vec<Vec<u8>> {
    let len = |n: u64| match n % 7 {
        0 => 0,
        3 => 30_000,
        5 => 7_000 + n as usize,
        _ => 60,
    };
    let byte = |n: u64, at: usize| {
        ((n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at as u64).wrapping_mul(0xC2B2_AE3D_27D4_EB4F) >> 40) as u8
    };
    (1..=count).map(|n| (0..len(n)).map(|at| byte(n, at)).collect()).collect()
}

fn journal_in(dir: &Path, count: u64) -> Recovered {
    let options = Options { durability: Durability::Process, record_version: 1, ..Options::default() };
    let journal = Journal::create(dir, b"the genesis", options).expect("a journal");
    for (n, body) in bodies(count).into_iter().enumerate() {
        journal.append(|_| (body, ())).expect("appended");
        if n % 3 == 0 {
            journal.flush().expect("flushed");
        }
    }
    journal.close().expect("closed");
    journal::read(dir).expect("whole")
}

fn db(dir: &Path) -> PathBuf {
    dir.join("live/000001/db")
}

#[test]
fn all_of_a_directory_is_found_in_its_raw_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let recovered = journal_in(dir.path(), 60);
    let remains = remains::find(dir.path()).expect("readable");
    assert_eq!(remains.prefix.as_ref(), Some(&recovered));
    assert_eq!((remains.whole, remains.beyond.len()), (Some(Seq(60)), 0));
    assert_eq!(remains.link, recovered.link());
}

#[test]
fn all_is_found_again_after_sled_has_rewritten_it_often() {
    let dir = tempfile::tempdir().expect("a directory");
    journal_in(dir.path(), 20);
    for n in 0..12 {
        let (journal, _) = Journal::open(dir.path(), Options::default()).expect("opens");
        journal.append(|_| (vec![n; 20_000], ())).expect("appended");
        journal.close().expect("closed");
    }
    let recovered = journal::read(dir.path()).expect("whole");
    let remains = remains::find(dir.path()).expect("readable");
    assert_eq!(remains.prefix, Some(recovered));
    assert_eq!(remains.whole, Some(Seq(32)));
}

#[test]
fn a_directory_that_sled_does_not_open_gives_its_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let recovered = journal_in(dir.path(), 40);
    // Without its configuration sled looks for segments of another length.
    fs::write(dir.path().join("live/000001/conf"), "segment_size: 1024").expect("writable");
    assert!(journal::read(dir.path()).is_err());
    assert_eq!(remains::find(dir.path()).expect("readable").prefix, Some(recovered));
}

#[test]
fn behind_a_destroyed_record_the_others_are_found_and_the_gap_is_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let recovered = journal_in(dir.path(), 40);
    let mut bytes = fs::read(db(dir.path())).expect("readable");
    // Every copy of #24, which is 30000 bytes long, loses its beginning.
    let body = &recovered.records[23].body;
    assert_eq!(body.len(), 30_000);
    let mut at = 0;
    while let Some(found) = bytes[at..].windows(64).position(|window| window == &body[..64]) {
        bytes[at + found..at + found + 64].fill(0);
        at += found + 64;
    }
    assert!(at > 0);
    fs::write(db(dir.path()), bytes).expect("writable");

    let remains = remains::find(dir.path()).expect("readable");
    let prefix = remains.prefix.as_ref().expect("a prefix");
    assert_eq!(prefix.records[..], recovered.records[..prefix.records.len()]);
    let beyond: Vec<_> = remains.beyond.iter().flatten().cloned().collect();
    let first_beyond = beyond.first().expect("records behind the gap").seq;
    assert!(prefix.last.0 < 24 && first_beyond > Seq(24), "{} {first_beyond}", prefix.last);
    assert_eq!(beyond[..], recovered.records[first_beyond.0 as usize - 1..]);
    assert_eq!(remains.gaps(), [(Seq(prefix.last.0 + 1), Seq(first_beyond.0 - 1))]);
}

#[test]
fn a_torn_group_that_was_written_again_is_not_what_is_found() {
    let dir = tempfile::tempdir().expect("a directory");
    journal_in(dir.path(), 5);
    // A group whose last part never came, as a power cut leaves it; the next opening drops it and writes on.
    let chain = remains::find(dir.path()).expect("readable").link;
    let mut group = Vec::new();
    let mut link = chain;
    for seq in 6..30 {
        link = journal::frame::encode(&mut group, link, Seq(seq), 1, &[0xAB; 1_000]).expect("short");
    }
    let parts = journal::part::cut(Seq(6), &group);
    let torn = &parts[..parts.len() - 1];
    let database = sled::open(dir.path().join("live/000001")).expect("opens");
    for (key, value) in torn {
        database.insert(key.to_bytes(), value.as_slice()).expect("written");
    }
    drop(database);
    // sled's threads let go of its file a little later, and until then the journal is somebody's.
    let log = fs::File::open(db(dir.path())).expect("there");
    flock(&log, FlockOperation::LockExclusive).expect("free in the end");
    drop(log);

    // Not yet written again, its whole records are found, and that they were never durable is said.
    let remains = remains::find(dir.path()).expect("readable");
    assert!(remains.prefix.as_ref().expect("a prefix").last > Seq(5));
    assert_eq!(remains.whole, Some(Seq(5)));

    let (journal, recovered) = Journal::open(dir.path(), Options::default()).expect("opens");
    assert_eq!(recovered.torn.map(|torn| torn.first), Some(Seq(6)));
    journal.append(|_| (b"the real #6".to_vec(), ())).expect("appended");
    journal.close().expect("closed");
    let recovered = journal::read(dir.path()).expect("whole");
    let remains = remains::find(dir.path()).expect("readable");
    assert_eq!(remains.prefix, Some(recovered));
    assert_eq!(remains.whole, Some(Seq(6)));
}

#[test]
fn a_cut_file_gives_what_unpacks_of_its_last_segment() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("one.dcd");
    let records = (1..=400u64)
        .map(|n| {
            // What does not pack well, so that a segment has several blocks.
            let body =
                (0..2_000u64).map(|at| (n * 2_003 + at).wrapping_mul(0x9E37_79B9_7F4A_7C15) as u8 ^ (at >> 3) as u8);
            journal::Stored { seq: Seq(n), version: 1, body: body.map(|byte| byte.wrapping_mul(31)).collect() }
        })
        .collect();
    let recovered =
        Recovered { genesis: b"g".to_vec(), genesis_version: 1, base: None, records, last: Seq(400), torn: None };
    write_file(&path, &recovered, &About::default()).expect("written");
    assert_eq!(remains::find(&path).expect("readable").prefix.as_ref(), Some(&recovered));

    let bytes = fs::read(&path).expect("readable");
    fs::write(&path, &bytes[..bytes.len() / 2]).expect("writable");
    let (intact, _, damage) = journal::portable::salvage_file(&path).expect("a prefix");
    assert!(damage.is_some());
    let found = remains::find(&path).expect("readable").prefix.expect("a prefix");
    assert!(found.last >= intact.last);
    assert_eq!(found.records[..], recovered.records[..found.records.len()]);
}

#[test]
fn a_frame_a_part_and_a_segment_in_a_guests_payload_are_no_records() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut fake = Vec::new();
    journal::frame::encode(&mut fake, Default::default(), Seq(9), 1, b"not a record").expect("short");
    fake.extend(journal::part::cut(Seq(9), &fake).remove(0).1);
    let other =
        Recovered { genesis: vec![1; 30], genesis_version: 1, base: None, records: vec![], last: Seq(0), torn: None };
    journal::portable::write_to(&mut fake, &other, &About::default()).expect("into memory");
    let options = Options { durability: Durability::Process, ..Options::default() };
    let journal = Journal::create(dir.path(), b"genesis", options).expect("a journal");
    for _ in 0..3 {
        let body = [&vec![1; 10_000][..], &fake, &vec![2; 10_000]].concat();
        journal.append(|_| (body, ())).expect("appended");
        journal.flush().expect("flushed");
    }
    journal.close().expect("closed");
    let remains = remains::find(dir.path()).expect("readable");
    let whole = journal::read(dir.path()).expect("whole, and nothing behind it");
    assert_eq!(remains.prefix.as_ref(), Some(&whole));
    assert!(remains.beyond.is_empty());

    // Nor in a file, in which what does not pack lies as it is.
    let path = dir.path().join("one.dcd");
    write_file(&path, &whole, &About::default()).expect("written");
    let remains = remains::find(&path).expect("readable");
    assert_eq!((remains.prefix, remains.beyond.len()), (Some(whole), 0));
}

#[test]
fn nothing_is_found_where_nothing_is() {
    let dir = tempfile::tempdir().expect("a directory");
    assert!(matches!(remains::find(dir.path()), Err(journal::OpenError::Missing { .. })));
    assert!(matches!(remains::find(&dir.path().join("nowhere")), Err(journal::OpenError::Missing { .. })));
    fs::write(dir.path().join("noise"), [0x28, 0xB5, 0x2F, 0xFD, b'D', b'C', b'D', b'R', 1, 1, 9, 0]).expect("written");
    let remains = remains::find(dir.path()).expect("readable");
    assert!(remains.prefix.is_none() && remains.beyond.is_empty());
    assert_eq!((remains.files, remains.len_bytes), (1, 12));
}

#[test]
fn what_a_process_holds_is_no_remains() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::create(dir.path(), b"genesis", Options::default()).expect("a journal");
    assert!(matches!(remains::find(dir.path()), Err(journal::OpenError::Held { .. })));
    journal.close().expect("closed");
    remains::find(dir.path()).expect("free");
}

#[test]
fn an_empty_database_over_records_is_not_taken_for_one_that_was_never_filled() {
    let dir = tempfile::tempdir().expect("a directory");
    journal_in(dir.path(), 5);
    // The header of the genesis' part: its frame is intact, and sled begins with nothing. Sometimes sled has copied it.
    let mut bytes = fs::read(db(dir.path())).expect("readable");
    let is_genesis = |at: &usize| bytes[*at..].starts_with(b"DCDR") && bytes[at + 16..].starts_with(&[0; 8]);
    let copies: Vec<_> = (0..bytes.len() - 24).filter(is_genesis).collect();
    assert!(!copies.is_empty());
    copies.into_iter().for_each(|genesis| bytes[genesis - 6] ^= 1);
    fs::write(db(dir.path()), &bytes).expect("writable");
    let error = journal::read(dir.path()).expect_err("damaged").to_string();
    assert!(error.contains("no record is intact"), "{error}");
    assert!(error.contains("records #1 to #5 lie whole in its bytes"), "{error}");
    assert!(fs::read(db(dir.path())).expect("readable") == bytes, "reading has changed it");
    assert_eq!(remains::find(dir.path()).expect("readable").prefix.expect("a prefix").last, Seq(5));
}
