//! Where memory has something: no less than was written, no more than was touched, and nothing is touched by asking.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};

use device::backends::{BackendKind, FileAccess, Population, Sharing};
use memory::{HostMemory, HostMemorySpec};
use proptest::prelude::*;

use crate::{PAGE, Place, bytes, create, file, memfd, of_kind, one};

const LEN: u64 = 64 * PAGE + 8;

/// What is in its data ranges, which must be in order, in whole pages, and apart.
fn data(memory: &HostMemory) -> Vec<u8> {
    let mut data = vec![0; memory.len_bytes() as usize];
    let ranges = memory.data_ranges().unwrap();
    assert!(ranges.is_sorted_by(|one, next| one.end < next.start), "{ranges:?}");
    for range in ranges {
        assert!(range.start % PAGE == 0 && (range.end % PAGE == 0 || range.end == memory.len_bytes()), "{range:?}");
        memory.read(range.start, &mut data[range.start as usize..range.end as usize]).unwrap();
    }
    data
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn nothing_but_zeros_is_outside_and_nothing_that_was_not_touched_inside(
        writes in prop::collection::vec((0..LEN, 1..3 * PAGE), 0..12),
        kind in 0..2,
        sharing in prop::sample::select(vec![Sharing::Private, Sharing::Shared]),
    ) {
        let kind = if kind == 0 { BackendKind::Ram } else { memfd() };
        let memory = create(&of_kind(kind, LEN, sharing)).unwrap();
        let mut touched = BTreeSet::new();
        for (offset, len) in writes {
            let len = len.min(LEN - offset);
            memory.write(offset, &vec![7; len as usize]).unwrap();
            touched.extend(offset / PAGE..(offset + len).div_ceil(PAGE));
        }
        let pages = |ranges: Vec<std::ops::Range<u64>>| -> Vec<u64> {
            ranges.into_iter().flat_map(|range| range.start / PAGE..range.end.div_ceil(PAGE)).collect()
        };
        let expected: Vec<_> = touched.into_iter().collect();
        prop_assert_eq!(pages(memory.data_ranges().unwrap()), expected.clone());
        prop_assert_eq!(pages(memory.data_ranges().unwrap()), expected, "asking has touched something");
        let data = data(&memory);
        prop_assert!(data == bytes(&memory));
    }
}

#[test]
fn a_large_memory_that_is_nearly_empty_is_seen_as_such() {
    let memory = create(&of_kind(memfd(), 1 << 40, Sharing::Shared)).unwrap();
    memory.write_u64((1 << 40) - 8, 7).unwrap();
    assert!(memory.data_ranges().unwrap() == one((1 << 40) - PAGE..1 << 40));
    let memory = HostMemory::anonymous(8 << 30).unwrap();
    memory.write_u64(5 << 30, 7).unwrap();
    let begin = std::time::Instant::now();
    let ranges = memory.data_ranges().unwrap();
    println!("8 GiB of zeros: {:?}", begin.elapsed());
    // A huge page, where the host gives those.
    assert!(matches!(&ranges[..], [range] if range.contains(&(5 << 30)) && range.end - range.start <= 2 << 20));
}

/// A file of 32 pages with holes: bytes in pages 3 and 20.
fn holey(place: &Place) {
    let file = fs::File::create(place.path("tm0")).unwrap();
    file.set_len(32 * PAGE).unwrap();
    file.write_all_at(b"three", 3 * PAGE + 5).unwrap();
    file.write_all_at(b"twenty", 20 * PAGE).unwrap();
}

#[test]
fn holes_of_a_file_are_none_of_it() {
    let place = Place::new();
    for access in [FileAccess::ReadWrite, FileAccess::ReadOnly] {
        holey(&place);
        let shared = place.make(&of_kind(file("tm0", access), 24 * PAGE + 5, Sharing::Shared)).unwrap();
        let blocks = fs::metadata(place.path("tm0")).unwrap().blocks();
        assert_eq!(shared.data_ranges().unwrap(), [3 * PAGE..4 * PAGE, 20 * PAGE..21 * PAGE]);
        assert!(data(&shared) == bytes(&shared));
        assert_eq!(fs::metadata(place.path("tm0")).unwrap().blocks(), blocks);
        // A part of it only: what is behind is not the memory's.
        let part = place.make(&of_kind(file("tm0", access), 3 * PAGE + 100, Sharing::Shared)).unwrap();
        assert!(part.data_ranges().unwrap() == one(3 * PAGE..3 * PAGE + 100));
    }
}

#[test]
fn what_is_private_is_in_the_file_and_in_this_process() {
    let place = Place::new();
    holey(&place);
    let private = place.make(&of_kind(file("tm0", FileAccess::ReadOnly), 24 * PAGE, Sharing::Private)).unwrap();
    assert_eq!(private.data_ranges().unwrap(), [3 * PAGE..4 * PAGE, 20 * PAGE..21 * PAGE]);
    private.write(4 * PAGE, b"four").unwrap();
    private.write(10 * PAGE, b"ten").unwrap();
    assert_eq!(private.data_ranges().unwrap(), [3 * PAGE..5 * PAGE, 10 * PAGE..11 * PAGE, 20 * PAGE..21 * PAGE]);
    assert!(data(&private) == bytes(&private));
}

#[test]
fn what_was_preallocated_is_there() {
    let spec = of_kind(BackendKind::Ram, LEN, Sharing::Shared);
    let memory = create(&HostMemorySpec { population: Population::Preallocated, ..spec }).unwrap();
    assert!(memory.data_ranges().unwrap() == one(0..LEN));
}
