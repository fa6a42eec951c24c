//! One file, every byte of it and every cut.

use std::fs::File;
use std::os::unix::fs::FileExt;

use device::Seq;
use journal::portable::{About, write_file};
use journal::{Recovered, Stored};

use crate::outcome::{Outcome, outcome};

fn journal(records: u64) -> Recovered {
    let body = |n: u64| (0..80 + n * 37).map(|at| (at * 7 + n * 13) as u8).collect();
    let records: Vec<_> = (1..=records).map(|n| Stored { seq: Seq(n), version: 1, body: body(n) }).collect();
    let last = Seq(records.len() as u64);
    Recovered { genesis: b"genesis".to_vec(), genesis_version: 1, base: None, records, last, torn: None }
}

/// Flips a bit in every `step`th byte, then cuts at every `step`th.
fn sweep(records: u64, step: usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let (path, whole) = (dir.path().join("run.dcd"), journal(records));
    write_file(&path, &whole, &About(vec![("packed by".into(), "a test".into())])).expect("written");
    let bytes = std::fs::read(&path).expect("readable");
    let file = File::options().write(true).open(&path).expect("it is there");
    for at in (0..bytes.len()).step_by(step) {
        file.write_all_at(&[bytes[at] ^ 1 << (at % 8)], at as u64).expect("writable");
        assert_eq!(outcome(&path, &whole, &format!("byte {at}")), Outcome::Refused, "byte {at}");
        file.write_all_at(&[bytes[at]], at as u64).expect("writable");
    }
    assert_eq!(outcome(&path, &whole, "repaired"), Outcome::Whole);
    for len in (0..bytes.len()).rev().step_by(step) {
        file.set_len(len as u64).expect("cut");
        assert_eq!(outcome(&path, &whole, &format!("cut at {len}")), Outcome::Refused, "cut at {len}");
    }
}

#[test]
fn a_sample_of_bytes_and_cuts() {
    sweep(12, 7);
}

#[test]
#[ignore = "minutes: every byte and every cut of a longer file, by hand"]
fn every_byte_and_every_cut() {
    sweep(60, 1);
}
