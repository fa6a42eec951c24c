//! What the machine takes by itself, in milliseconds; medians, but for a VM, of which the tail is told too.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use memory::{FileRun, HostMemory, HostMemorySpec, MissingFile, Surroundings};
use vm::{Job, Machine, SweepAccess};
use wire::Hpa;

use crate::alone::{Alone, RAM_LEN_BYTES, REGISTERS, WINDOW, create, fill, memory};
use crate::asked::scratch;
use crate::machine::{PAGE_BYTES, wait_for_exits};
use crate::report::{median, median_us};
use crate::sample::{Floor, Sample};

const RUNS: usize = 30;

fn median_ms(runs: usize, work: impl FnMut()) -> f64 {
    median_us(runs, work) / 1e3
}

/// Its processor does nothing but come back.
fn exit_for_ever(machine: &Machine) {
    let (hpa, access) = (REGISTERS.base, SweepAccess::Read);
    let sweep = Job::Sweep { hpa, len_bytes: 8, stride_bytes: 8, rounds: u64::MAX >> 8, access };
    machine.start_job(0, sweep).expect("a job");
}

/// An empty VM with one processor: made, booted, until it has come back once. Its memory is there.
pub(crate) fn empty_vm() -> Floor {
    let once = |_| {
        let ram = memory(RAM_LEN_BYTES);
        let begun = Instant::now();
        let alone = Alone::new(&create(), &ram);
        exit_for_ever(&alone.machine);
        alone.machine.run();
        wait_for_exits(&alone.machine, 1);
        begun.elapsed().as_secs_f64() * 1e3
    };
    (0..2 * RUNS).map(once).collect::<Sample>().floor()
}

/// A processor that comes back all the time stands still, and is saved, and runs again.
pub(crate) fn pause() -> f64 {
    let alone = Alone::new(&create(), &memory(RAM_LEN_BYTES));
    exit_for_ever(&alone.machine);
    alone.machine.run();
    wait_for_exits(&alone.machine, 1);
    median_ms(10 * RUNS, || {
        alone.machine.pause();
        alone.machine.save().expect("a state");
        alone.machine.run();
    })
}

/// Slots of these lengths are filled in a VM that has none.
pub(crate) fn slots(lens_bytes: &[u64]) -> f64 {
    let (ram, longest) = (memory(RAM_LEN_BYTES), lens_bytes.iter().copied().max().unwrap_or(PAGE_BYTES));
    let shown = memory(longest);
    let samples = (0..5).map(|_| {
        let alone = Alone::new(&create(), &ram);
        median_ms(1, || {
            let mut hpa = WINDOW.base;
            for len_bytes in lens_bytes {
                fill(&alone.slots, hpa, &shown, *len_bytes);
                hpa = Hpa(hpa.0 + len_bytes + PAGE_BYTES);
            }
        })
    });
    median(samples.collect())
}

/// The logs of slots of these lengths are taken, of which nothing was written.
pub(crate) fn logs(lens_bytes: &[u64]) -> f64 {
    let alone = Alone::new(&create(), &memory(RAM_LEN_BYTES));
    let shown = memory(lens_bytes.iter().copied().max().unwrap_or(PAGE_BYTES));
    let mut hpa = WINDOW.base;
    for len_bytes in lens_bytes {
        fill(&alone.slots, hpa, &shown, *len_bytes);
        hpa = Hpa(hpa.0 + len_bytes + PAGE_BYTES);
    }
    alone.slots.track().expect("logs");
    median_ms(RUNS, || alone.slots.collect_dirty().expect("logs"))
}

/// So many pages are written into a file, each at its place.
pub(crate) fn write_pages(pages: u64) -> f64 {
    let dir = scratch();
    let file = File::create(dir.path().join("floor")).expect("a file");
    let page = [7; PAGE_BYTES as usize];
    median_ms(RUNS, || {
        (0..pages).for_each(|n| file.write_all_at(&page, n * 64 * PAGE_BYTES).expect("written"));
    })
}

/// A file of so many bytes is written and brought to the disk.
pub(crate) fn file(len_bytes: u64) -> f64 {
    let dir = scratch();
    let bytes = vec![7; len_bytes as usize];
    let mut number = 0;
    median_ms(RUNS, || {
        number += 1;
        let mut file = File::create(dir.path().join(format!("floor{number}"))).expect("a file");
        file.write_all(&bytes).expect("written");
        file.sync_all().expect("synced");
    })
}

/// A file of so many bytes, of which none is data, is mapped, and one of its pages touched.
pub(crate) fn map(len_bytes: u64) -> f64 {
    let dir = scratch();
    let file = File::create_new(dir.path().join("floor")).expect("a file");
    file.set_len(len_bytes).expect("extended");
    let path = dir.path().join("floor");
    let surroundings = Surroundings { backend_dir: None, missing: MissingFile::Refuse, progress: &|_, _| () };
    median_ms(RUNS, || {
        let file = Arc::new(File::open(&path).expect("a file"));
        let run = FileRun { offset_bytes: 0, len_bytes, file, file_offset_bytes: 0 };
        let memory = HostMemory::over(&HostMemorySpec::anonymous(len_bytes), surroundings, &[run]).expect("mapped");
        memory.read(len_bytes / 2, &mut [0; 8]).expect("inside");
    })
}
