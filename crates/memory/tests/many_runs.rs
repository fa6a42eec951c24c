//! More runs than this process may map: the rest is read, and the bytes are the same.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memory::{FileRun, HostMemory, HostMemorySpec, MissingFile, Surroundings};

const PAGE: u64 = 4096;
const RUNS: u64 = 20_000;
const LIMIT: usize = 16 << 10;

/// How many mappings this process has.
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

fn over(runs: &[FileRun]) -> HostMemory {
    let spec = HostMemorySpec::anonymous(3 * RUNS * PAGE);
    let surroundings = Surroundings { backend_dir: None, missing: MissingFile::Refuse, progress: &|_, _| () };
    HostMemory::over(&spec, surroundings, runs).unwrap()
}

/// Every third page is from the file, and every hundredth run has two; each page says which it is.
fn check(memory: &HostMemory) {
    for index in 0..RUNS {
        assert_eq!(memory.read_u64(3 * index * PAGE), Ok(2 * index + 1));
        let second = if index % 100 == 0 { 2 * index + 2 } else { 0 };
        assert_eq!(memory.read_u64((3 * index + 1) * PAGE), Ok(second));
        assert_eq!(memory.read_u64((3 * index + 2) * PAGE), Ok(0));
    }
}

#[test]
fn runs_beyond_the_limit_of_all_memories_are_read() {
    let file = tempfile::tempfile().unwrap();
    (0..2 * RUNS).for_each(|page| file.write_all_at(&(page + 1).to_le_bytes(), page * PAGE).unwrap());
    file.set_len(2 * RUNS * PAGE).unwrap();
    let file = Arc::new(file);
    let len = |index| if index % 100 == 0 { 2 * PAGE } else { PAGE };
    let run = |index| FileRun {
        offset_bytes: 3 * index * PAGE,
        len_bytes: len(index),
        file: Arc::clone(&file),
        file_offset_bytes: 2 * index * PAGE,
    };
    let runs: Vec<_> = (0..RUNS).map(run).collect();
    let before = mappings();
    let first = over(&runs);
    let mapped = mappings() - before;
    assert!((LIMIT..=2 * LIMIT + 16).contains(&mapped), "{mapped}");
    // Another one gets none, and is the same.
    let second = over(&runs);
    assert!(mappings() - before <= mapped + 16);
    check(&first);
    check(&second);
    drop(first);
    // What was given back can be had again.
    let third = over(&runs);
    assert!((LIMIT..=2 * LIMIT + 16).contains(&(mappings() - before)));
    check(&third);
}
