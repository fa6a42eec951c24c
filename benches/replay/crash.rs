//! A start after a crash: what it takes to be where the last answer left the VM, however long its journal is.

use std::fs;
use std::path::Path;

use device::VmTime;
use journal::record::Record;
use journal::{Durability, Journal, Opening, Options, Sealing};
use replay::{Fold, Followed, record_of, start_of};

use crate::asked::scratch;
use crate::field::Field;
use crate::report::{Row, median, median_us, timed_us};

/// Starts, of which the median is told.
const RUNS: usize = 5;
/// Records that are made durable together.
const GROUP: usize = 64;
/// A start may take so long, in milliseconds.
const START_MAX_MS: f64 = 100.0;

pub(crate) fn measure(field: &Field) -> Vec<Row> {
    let dir = scratch();
    let (running, crashed) = (dir.path().join("running"), dir.path().join("crashed"));
    let fold = Fold::new(&field.genesis).expect("a VM");
    let (followed, sealing) = sealing(fold);
    let options = Options { durability: Durability::Process, sealing: Some(sealing), ..Options::default() };
    let journal = Journal::create(&running, &field.genesis.to_bytes(), options).expect("a journal");
    for group in field.records.chunks(GROUP) {
        for body in group.iter().map(Record::to_bytes) {
            journal.append(|_| (body, ())).expect("appended");
        }
        // Where nobody waits, a generation fills faster than its successor is made, which no host makes it do.
        journal.flush().expect("flushed");
    }
    let last = journal.last();
    // The follower is a moment behind.
    while followed.look(last, |_| ()).is_err() {}
    // What a killed process leaves: its files as they are, in the middle of a generation.
    copy(&running, &crashed);
    journal.close().expect("closed");

    let floor = copied_us(&crashed.join("live"));
    let took = median((0..RUNS).map(|run| started_ms(&crashed, &dir.path().join(run.to_string()))).collect());
    let records = field.records.len();
    vec![
        Row::new(format!("9 the start after a crash of a journal of {records} records"), took, "ms")
            .floor(floor / 1e3, "a copy of its live files")
            .target(START_MAX_MS),
    ]
}

/// Each start is that of a copy.
fn started_ms(crashed: &Path, dir: &Path) -> f64 {
    copy(crashed, dir);
    // Of a process that was killed the kernel has most on the disk already.
    rustix::fs::sync();
    let mut started = None;
    let took = timed_us(|| started = Some(start(dir)));
    // That it goes on, and seals what it found, is no part of it.
    drop(started);
    took / 1e3
}

/// Reads, folds and goes on with the journal.
fn start(dir: &Path) -> Journal {
    let opening = Opening::of(dir).expect("a journal");
    let recovered = opening.recovered();
    let genesis = journal::record::Genesis::of(recovered).expect("a genesis");
    let base = start_of(&genesis, recovered.base.as_ref()).expect("a state");
    let mut fold = base.clone();
    for stored in &recovered.records {
        fold.apply(&record_of(stored).expect("a record")).expect("it follows");
    }
    let options = Options { sealing: Some(sealing(base).1), clock: fold.time().max(VmTime(0)), ..Options::default() };
    opening.start(options).expect("started")
}

fn sealing(base: Fold) -> (Followed, Sealing) {
    let (followed, follower) = Followed::new(base);
    let on_unfit = Box::new(|seq, reason| panic!("{seq}: {reason}"));
    (followed, Sealing { follower, seal_bytes: Sealing::SEAL_BYTES, keep_bytes: None, on_unfit })
}

fn copied_us(dir: &Path) -> f64 {
    let to = scratch();
    median_us(5, || copy(dir, &to.path().join("copy")))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("listed") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}
