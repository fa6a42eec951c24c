//! A million records on their way into a journal and back: appended, read from the directory and from the one file, decoded.

use std::hint::black_box;
use std::path::Path;

use journal::portable::{About, read_file, write_file};
use journal::record::{Facts, Record};
use journal::{Archive, Durability, Journal, Options};
use replay::Archived;

use crate::asked::scratch;
use crate::field::Field;
use crate::report::{Row, median, timed_us};

/// The fold is done so often, and the median told.
const RUNS: usize = 3;

/// A million records in a second.
const FOLD_MS: f64 = 1_000.0;

pub(crate) fn measure(field: &Field) -> Vec<Row> {
    let dir = scratch();
    let (directory, file) = (dir.path().join("journal"), dir.path().join("journal.dcdj"));
    let bodies: Vec<_> = field.records.iter().map(Record::to_bytes).collect();
    let bytes = bodies.iter().map(Vec::len).sum::<usize>();
    let floor = || format!("CRC and blake3 of the same {} MiB", bytes >> 20);
    let checks = checks_ms(&bodies);
    let options = Options { durability: Durability::Process, ..Options::default() };
    let journal = Journal::create(&directory, &field.genesis.to_bytes(), options).expect("a journal");
    let appended = ms(|| {
        for body in &bodies {
            journal.append(|_| (body.clone(), ())).expect("appended");
        }
        journal.flush().expect("flushed");
    });
    journal.close().expect("closed");

    let mut recovered = None;
    let read = ms(|| recovered = Some(journal::read(&directory).expect("a journal")));
    let recovered = recovered.expect("a journal");
    write_file(&file, &recovered, &About::default()).expect("a file");
    let read_of_file = ms(|| drop(black_box(read_file(&file).expect("a file"))));
    let folded = folded_ms(&file);
    let copied = ms(|| drop(black_box(bodies.clone())));
    let decoded = ms(|| {
        for stored in &recovered.records {
            black_box(Record::from_stored(stored).expect("a record"));
        }
    });
    let facts = ms(|| {
        for stored in &recovered.records {
            black_box(Facts::from_body(stored.version, &stored.body).expect("a record"));
        }
    });
    vec![
        Row::new("1 append, written by the process", appended, "ms").floor(checks, floor()),
        Row::new("1 read the directory", read, "ms").floor(checks, floor()),
        Row::new("1 read the file", read_of_file, "ms").floor(checks, floor()),
        Row::new("1 decode", decoded, "ms").floor(copied, "a copy of the bodies"),
        Row::new("1 decode the facts alone", facts, "ms").floor(copied, "a copy of the bodies"),
        Row::new("1 fold from the file: one core decodes and folds, another unpacks", folded, "ms")
            .target(FOLD_MS)
            .floor(facts, "decoding the facts"),
    ]
}

/// The last state of a file, which has no keyframe: what is read stays no longer than it is needed.
fn folded_ms(file: &Path) -> f64 {
    let folded = || {
        let archived = Archived::new(Archive::of_file(file).expect("a journal")).expect("a genesis");
        black_box(archived.at(archived.last()).expect("a state"));
    };
    median((0..RUNS).map(|_| ms(folded)).collect())
}

fn checks_ms(bodies: &[Vec<u8>]) -> f64 {
    ms(|| {
        for body in bodies {
            black_box((crc32fast::hash(body), blake3::hash(body)));
        }
    })
}

fn ms(work: impl FnOnce()) -> f64 {
    timed_us(work) / 1e3
}
