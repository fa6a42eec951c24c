//! Memory over files: the same bytes as if they had been read, and no file is changed.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use device::backends::{BackendKind, FileAccess, Population, Reservation, Sharing};
use memory::{FileRun, HostMemory, HostMemoryError, HostMemorySpec, MissingFile, Pulled, RunError, Surroundings};
use proptest::prelude::*;

use crate::{PAGE, bytes, file, memfd, of_kind, one};

/// The last page is not whole.
const PAGES: u64 = 40;
const LEN: u64 = PAGES * PAGE - 96;

fn over(spec: &HostMemorySpec, runs: &[FileRun]) -> Result<HostMemory, HostMemoryError> {
    let surroundings = Surroundings { backend_dir: None, missing: MissingFile::Refuse, progress: &|_, _| () };
    HostMemory::over(spec, surroundings, runs)
}

fn ram(size_bytes: u64) -> HostMemorySpec {
    of_kind(BackendKind::Ram, size_bytes, Sharing::Private)
}

/// A file without a name, whose every byte differs from its neighbours' and those of other files.
fn patterned(len_bytes: u64, seed: u8) -> Arc<File> {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&pattern(len_bytes, seed), 0).unwrap();
    Arc::new(file)
}

fn pattern(len_bytes: u64, seed: u8) -> Vec<u8> {
    (0..len_bytes).map(|at| (at as u8).wrapping_mul(31) ^ ((at >> 12) as u8).wrapping_mul(7) ^ seed).collect()
}

fn content(file: &File) -> Vec<u8> {
    let mut content = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut content, 0).unwrap();
    content
}

fn run(offset_bytes: u64, len_bytes: u64, file: &Arc<File>, file_offset_bytes: u64) -> FileRun {
    FileRun { offset_bytes, len_bytes, file: Arc::clone(file), file_offset_bytes }
}

/// Pages of a gap and pages of a run, in turn, each with the file and the page in it that it is from.
fn stretches() -> impl Strategy<Value = Vec<(u64, u64, usize, u64)>> {
    prop::collection::vec((0u64..4, 1u64..6, 0usize..2, 0..PAGES), 0..16)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn it_is_what_reading_the_runs_would_have_made(
        stretches in stretches(),
        reversed in any::<bool>(),
        sharing in prop::sample::select(vec![Sharing::Private, Sharing::Shared]),
        population in prop::sample::select(vec![Population::OnDemand, Population::OnDemand, Population::Preallocated]),
        writes in prop::collection::vec((0..LEN, 1..2 * PAGE), 0..8),
        pulls in any::<bool>(),
    ) {
        let files = [patterned((PAGES + 6) * PAGE, 1), patterned((PAGES + 6) * PAGE, 2)];
        let contents = [content(&files[0]), content(&files[1])];
        let mut model = vec![0; LEN as usize];
        let (mut runs, mut at) = (Vec::new(), 0);
        for (gap, pages, file, from) in stretches {
            let start = at + gap * PAGE;
            let len = (pages * PAGE).min(LEN.saturating_sub(start));
            if len == 0 {
                break;
            }
            runs.push(run(start, len, &files[file], from * PAGE));
            let from = (from * PAGE) as usize;
            model[start as usize..][..len as usize].copy_from_slice(&contents[file][from..][..len as usize]);
            at = start + pages * PAGE;
        }
        if reversed {
            runs.reverse();
        }
        let memory = over(&HostMemorySpec { population, sharing, ..ram(LEN) }, &runs).unwrap();
        for run in &runs {
            let pages = run.offset_bytes..run.offset_bytes + run.len_bytes;
            let is_in = |range: &std::ops::Range<u64>| range.start <= pages.start && pages.end <= range.end;
            prop_assert!(memory.data_ranges().unwrap().iter().any(is_in), "{pages:?} was not touched and is data");
        }
        for (offset, len) in writes {
            let len = len.min(LEN - offset) as usize;
            memory.write(offset, &vec![0xee; len]).unwrap();
            model[offset as usize..][..len].fill(0xee);
        }
        if pulls {
            prop_assert_eq!(memory.pull(|_, _| ControlFlow::Continue(())).unwrap(), Pulled::All);
            prop_assert!(content(&files[0]) == contents[0] && content(&files[1]) == contents[1]);
            // All of it is in this process.
            files.iter().for_each(|file| file.write_all_at(&vec![0xdd; contents[0].len()], 0).unwrap());
        }
        prop_assert!(bytes(&memory) == model);
        if !pulls {
            prop_assert!(content(&files[0]) == contents[0] && content(&files[1]) == contents[1]);
        }
    }
}

#[test]
fn a_large_file_costs_nothing_until_it_is_touched() {
    let sparse = tempfile::tempfile().unwrap();
    sparse.set_len(1 << 40).unwrap();
    sparse.write_all_at(b"last", (1 << 40) - 4).unwrap();
    let spec = HostMemorySpec { reservation: Reservation::Unreserved, ..ram(1 << 41) };
    let memory = over(&spec, &[run(0, 1 << 40, &Arc::new(sparse), 0)]).unwrap();
    assert_eq!(memory.read_u32((1 << 40) - 4), Ok(u32::from_le_bytes(*b"last")));
    assert_eq!(memory.read_u32(1 << 40), Ok(0));
}

#[test]
fn what_preallocates_depends_on_no_file() {
    let backing = patterned(8 * PAGE, 3);
    let spec = HostMemorySpec { population: Population::Preallocated, ..ram(8 * PAGE) };
    let memory = over(&spec, &[run(PAGE, 4 * PAGE, &backing, 2 * PAGE)]).unwrap();
    backing.set_len(0).unwrap();
    assert!(
        bytes(&memory)[PAGE as usize..5 * PAGE as usize] == pattern(8 * PAGE, 3)[2 * PAGE as usize..6 * PAGE as usize]
    );
}

#[test]
fn runs_that_are_none_are_refused_with_their_reason() {
    let backing = patterned(4 * PAGE + 10, 0);
    let refused = |runs: &[FileRun]| match over(&ram(LEN), runs).unwrap_err() {
        HostMemoryError::Run { reason, .. } => reason,
        error => panic!("{error}"),
    };
    for (offset, len) in [(0, 0), (LEN - 100, PAGE), (u64::MAX - PAGE + 1, PAGE), (PAGE, u64::MAX)] {
        assert!(matches!(refused(&[run(offset, len, &backing, 0)]), RunError::OutsideMemory { size_bytes: LEN }));
    }
    for (offset, len, from) in [(1, PAGE, 0), (0, PAGE, 1), (0, PAGE - 1, 0)] {
        assert!(matches!(refused(&[run(offset, len, &backing, from)]), RunError::Unaligned { .. }));
    }
    for (len, from) in [(5 * PAGE, 0), (PAGE, 4 * PAGE), (PAGE, 1 << 62), (PAGE, u64::MAX - PAGE + 1)] {
        assert!(matches!(refused(&[run(0, len, &backing, from)]), RunError::OutsideFile { .. }));
    }
    let overlap = [run(0, 2 * PAGE, &backing, 0), run(8 * PAGE, PAGE, &backing, 0), run(PAGE, PAGE, &backing, PAGE)];
    assert!(matches!(refused(&overlap), RunError::Overlap { offset_bytes: 0, len_bytes: 8192 }));
    let device = Arc::new(File::open("/dev/zero").unwrap());
    assert!(matches!(refused(&[run(0, PAGE, &device, 0)]), RunError::NotRegular { .. }));
    let written = Arc::new(File::options().write(true).open(tempfile::NamedTempFile::new().unwrap().path()).unwrap());
    written.set_len(PAGE).unwrap();
    assert!(matches!(refused(&[run(0, PAGE, &written, 0)]), RunError::Host(_)));
    let said = over(&ram(LEN), &[run(PAGE, PAGE, &backing, 4 * PAGE)]).unwrap_err().to_string();
    assert_eq!(
        said,
        "0x1000 bytes of a file at offset 0x1000 of host memory: the file has 0x400a bytes, and they are from offset 0x4000 on: it was cut short"
    );
    // The end of the memory is the only place where a page may have fewer bytes.
    let last = (PAGES - 1) * PAGE;
    over(&ram(LEN), &[run(last, LEN - last, &backing, 3 * PAGE)]).unwrap();
}

#[test]
fn memory_that_is_a_file_is_not_laid_over_others() {
    for kind in [memfd(), file("tm0", FileAccess::ReadWrite)] {
        assert!(matches!(over(&of_kind(kind, LEN, Sharing::Private), &[]), Err(HostMemoryError::NotLazy)));
    }
}

#[test]
fn a_pull_is_heard_of_stops_and_goes_on() {
    let (sparse, mib) = (tempfile::tempfile().unwrap(), 1 << 20);
    sparse.set_len(64 * mib).unwrap();
    let sparse = Arc::new(sparse);
    let runs = [run(0, 10 * mib, &sparse, 0), run(20 * mib, PAGE, &sparse, 0)];
    let memory = over(&ram(32 * mib), &runs).unwrap();
    let mut heard = Vec::new();
    let stopped = memory.pull(|done, total| {
        heard.push((done, total));
        if heard.len() == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!(stopped.unwrap(), Pulled::Stopped);
    let total = 10 * mib + PAGE;
    assert_eq!(heard, [(4 * mib, total), (8 * mib, total)]);
    heard.clear();
    let pulled = memory.pull(|done, total| {
        heard.push((done, total));
        ControlFlow::Continue(())
    });
    assert_eq!((pulled.unwrap(), heard.last()), (Pulled::All, Some(&(total, total))));
    let none = HostMemory::anonymous(PAGE).unwrap().pull(|_, _| panic!("nothing to pull"));
    assert_eq!(none.unwrap(), Pulled::All);
}

/// A touch of it would end the process.
#[test]
fn a_pull_from_a_file_that_was_cut_short_is_an_error() {
    let backing = patterned(8 * PAGE, 0);
    let memory = over(&ram(8 * PAGE), &[run(0, 8 * PAGE, &backing, 0)]).unwrap();
    backing.set_len(PAGE).unwrap();
    let error = memory.pull(|_, _| ControlFlow::Continue(())).unwrap_err();
    assert!(error.to_string().contains("became shorter"), "{error}");
}

#[test]
fn the_place_of_a_run_is_tracked_like_any_other() {
    let backing = patterned(8 * PAGE, 0);
    let memory = over(&ram(8 * PAGE), &[run(0, 4 * PAGE, &backing, 0)]).unwrap();
    memory.track();
    memory.take_dirty();
    assert_eq!(memory.pull(|_, _| ControlFlow::Continue(())).unwrap(), Pulled::All);
    assert_eq!(memory.take_dirty(), [], "pulling changes no byte");
    memory.write_u8(2 * PAGE, 1).unwrap();
    assert!(memory.take_dirty() == one(2 * PAGE..3 * PAGE));
}
