//! Which pages changed: what this process writes and what it is told, each page once, and never too few.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use device::backends::{BackendKind, Discard, FileAccess, Sharing};
use memory::HostMemory;
use proptest::prelude::*;

use crate::{PAGE, Place, bytes, file, of_kind, one};

/// Some words of pages, and the last page is not whole.
const LEN: u64 = 200 * PAGE + 100;

#[derive(Clone, Debug)]
enum Step {
    Write(u64, usize),
    WriteWord(u64),
    Mark(u64, u64),
    Take,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..LEN, prop_oneof![0usize..10, 0..3 * PAGE as usize]).prop_map(|(offset, len)| Step::Write(offset, len)),
        (0..LEN).prop_map(Step::WriteWord),
        (0..2 * LEN, prop_oneof![0..80 * PAGE, Just(u64::MAX)]).prop_map(|(offset, len)| Step::Mark(offset, len)),
        Just(Step::Take),
    ]
}

/// The pages of some bytes, as far as they are in the memory.
fn pages(offset: u64, len: u64) -> Range<u64> {
    let end = offset.saturating_add(len).min(LEN);
    if offset >= end { 0..0 } else { offset / PAGE..end.div_ceil(PAGE) }
}

/// One range for each stretch of pages.
fn ranges(pages: &BTreeSet<u64>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for page in pages {
        let (start, end) = (page * PAGE, (page * PAGE + PAGE).min(LEN));
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

proptest! {
    #[test]
    fn what_is_taken_is_what_was_written_or_marked(steps in prop::collection::vec(step(), 0..60)) {
        let memory = HostMemory::anonymous(LEN).unwrap();
        memory.track();
        let mut dirty: BTreeSet<u64> = pages(0, LEN).collect();
        for step in steps {
            match step {
                Step::Write(offset, len) => {
                    if memory.write(offset, &vec![1; len]).is_ok() {
                        dirty.extend(pages(offset, len as u64));
                    }
                }
                Step::WriteWord(offset) => {
                    if memory.write_u64(offset, 7).is_ok() {
                        dirty.extend(pages(offset, 8));
                    }
                }
                Step::Mark(offset, len) => {
                    memory.mark_dirty(offset, len);
                    dirty.extend(pages(offset, len));
                }
                Step::Take => {
                    prop_assert_eq!(memory.take_dirty(), ranges(&dirty));
                    dirty.clear();
                }
            }
        }
        prop_assert_eq!(memory.take_dirty(), ranges(&dirty));
        prop_assert_eq!(memory.take_dirty(), []);
    }
}

#[test]
fn of_memory_that_is_not_tracked_all_may_have_changed() {
    let memory = HostMemory::anonymous(LEN).unwrap();
    memory.write_u8(0, 1).unwrap();
    memory.mark_dirty(0, 1);
    assert!(!memory.is_tracked());
    for _ in 0..2 {
        assert!(memory.take_dirty() == one(0..LEN));
    }
    memory.track();
    memory.track();
    assert!(memory.is_tracked());
    assert!(memory.take_dirty() == one(0..LEN), "what was written before it was tracked");
    assert_eq!(memory.take_dirty(), []);
    memory.track();
    assert_eq!(memory.take_dirty(), [], "it is tracked already");
    assert!(memory.write(LEN - 3, &[1; 4]).is_err());
    assert_eq!(memory.take_dirty(), []);
}

#[test]
fn every_width_marks_both_pages_of_a_boundary() {
    let memory = HostMemory::anonymous(LEN).unwrap();
    memory.track();
    memory.take_dirty();
    for (width, expected) in
        [(1, PAGE..2 * PAGE), (2, 0..2 * PAGE), (4, 0..2 * PAGE), (8, 0..2 * PAGE), (9, 0..2 * PAGE)]
    {
        let at = PAGE - width / 2;
        memory.write(at, &vec![3; width as usize]).unwrap();
        assert!(memory.take_dirty() == [expected], "{width}");
    }
}

#[test]
fn a_discard_changes_all_bytes_and_a_write_that_vanishes_none() {
    let place = Place::new();
    let (access, discard) = (FileAccess::ReadWrite, Discard::Discard);
    let kind = BackendKind::File { path: "tm0".into(), access, discard, align_bytes: None };
    let memory = place.make(&of_kind(kind, 4 * PAGE, Sharing::Shared)).unwrap();
    memory.track();
    memory.take_dirty();
    memory.discard().unwrap();
    assert!(memory.take_dirty() == one(0..4 * PAGE));
    let memory = place.make(&of_kind(file("tm0", FileAccess::ReadOnly), 4 * PAGE, Sharing::Shared)).unwrap();
    memory.track();
    memory.take_dirty();
    memory.write(0, &[1; 100]).unwrap();
    assert_eq!(memory.take_dirty(), []);
}

/// Copies what is dirty, as somebody does who will never look at the rest again.
fn copy(memory: &HostMemory, to: &mut [u8]) {
    for range in memory.take_dirty() {
        memory.read(range.start, &mut to[range.start as usize..range.end as usize]).unwrap();
    }
}

/// Writers are at it while one begins to track, and takes and copies.
#[test]
fn no_store_is_lost_between_a_mark_and_a_copy() {
    const PAGES: u64 = 8;
    for _ in 0..40 {
        let memory = HostMemory::anonymous(PAGES * PAGE).unwrap();
        let busy = AtomicU64::new(2);
        let mut shadow = vec![0; (PAGES * PAGE) as usize];
        thread::scope(|scope| {
            for writer in 0..2 {
                let (memory, busy) = (&memory, &busy);
                scope.spawn(move || {
                    for value in 1..20_000 {
                        let page = value % PAGES;
                        memory.write_u64(page * PAGE + writer * 8, value).unwrap();
                        memory.write(page * PAGE + 64 + writer * 100, &[value as u8; 100]).unwrap();
                    }
                    busy.fetch_sub(1, Ordering::Relaxed);
                });
            }
            thread::yield_now();
            memory.track();
            while busy.load(Ordering::Relaxed) > 0 {
                copy(&memory, &mut shadow);
            }
        });
        copy(&memory, &mut shadow);
        assert!(shadow == bytes(&memory), "a store was lost");
    }
}
