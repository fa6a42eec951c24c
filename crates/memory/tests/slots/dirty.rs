//! What guests write through slots is known when it is asked for, whatever happens to the slots.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use memory::{FakeHypervisor, HostMemory, SlotAccess, SlotRequest, Slots};
use proptest::prelude::*;
use wire::Hpa;

use crate::table::read_only;
use crate::{PAGE, memory};

const BASE: u64 = 0x10_0000;
/// More than a word of pages, and not a whole number of words.
const PAGES: u64 = 100;

fn request(hpa: u64, first: u64, pages: u64, memory: &Arc<HostMemory>) -> SlotRequest {
    let (memory, access) = (Arc::clone(memory), SlotAccess::ReadWrite);
    SlotRequest { hpa: Hpa(hpa), len_bytes: pages * PAGE, memory, offset_bytes: first * PAGE, access }
}

fn pages(of: Range<u64>) -> Range<u64> {
    of.start * PAGE..of.end * PAGE
}

/// One memory of 100 pages, of which a slot shows those from the tenth on, and of which nothing is dirty.
fn tracked() -> (Arc<FakeHypervisor>, Slots, Arc<HostMemory>) {
    let (hypervisor, memory) = (FakeHypervisor::new(8), memory(PAGES * PAGE));
    let slots = Slots::new(hypervisor.clone());
    slots.fill(request(BASE, 10, PAGES - 10, &memory)).unwrap();
    slots.track().unwrap();
    slots.collect_dirty().unwrap();
    assert!(memory.take_dirty() == [pages(0..PAGES)], "nothing is known of what was before");
    (hypervisor, slots, memory)
}

fn store(hypervisor: &FakeHypervisor, page: u64) {
    hypervisor.store(Hpa(BASE + page * PAGE + 5), 1).unwrap();
}

#[test]
fn a_log_is_put_where_its_slot_is_in_the_memory() {
    let (hypervisor, slots, memory) = tracked();
    [0, 3, 4, 53, 54, 89].into_iter().for_each(|page| store(&hypervisor, page));
    memory.write_u8(0, 1).unwrap();
    assert_eq!(hypervisor.load(Hpa(BASE + 7 * PAGE)), Some(0));
    assert_eq!(memory.take_dirty(), [pages(0..1)], "a log is not looked at unless it is asked for");
    slots.collect_dirty().unwrap();
    let expected = [10..11, 13..15, 63..65, 99..100].map(pages);
    assert_eq!(memory.take_dirty(), expected);
    slots.collect_dirty().unwrap();
    assert_eq!(memory.take_dirty(), []);
}

#[test]
fn slots_that_are_filled_later_have_a_log_and_those_that_are_only_read_none() {
    let (hypervisor, slots, first) = tracked();
    let second = memory(4 * PAGE);
    let (_top, rom) = read_only(PAGE);
    slots.fill(request(0, 0, 4, &second)).unwrap();
    slots.fill(request(8 * PAGE, 0, 1, &rom)).unwrap();
    assert_eq!(hypervisor.logging(), [0, 1]);
    assert!(second.is_tracked() && !rom.is_tracked());
    assert!(second.take_dirty() == [pages(0..4)]);
    hypervisor.store(Hpa(PAGE), 1).unwrap();
    slots.collect_dirty().unwrap();
    assert!(second.take_dirty() == [pages(1..2)] && first.take_dirty().is_empty());
    rom.track();
    rom.take_dirty();
    slots.collect_dirty().unwrap();
    slots.clear(Hpa(8 * PAGE)).unwrap();
    assert_eq!(rom.take_dirty(), []);
}

#[test]
fn a_slot_that_goes_is_all_dirty_unless_no_processor_runs() {
    let (hypervisor, slots, memory) = tracked();
    store(&hypervisor, 20);
    slots.still(|| slots.clear(Hpa(BASE))).unwrap();
    assert!(memory.take_dirty() == [pages(30..31)]);
    slots.fill(request(BASE, 10, 50, &memory)).unwrap();
    store(&hypervisor, 20);
    slots.clear(Hpa(BASE)).unwrap();
    assert!(memory.take_dirty() == [pages(10..60)]);
    // A table that goes does not know what its processors do.
    slots.fill(request(BASE, 90, 10, &memory)).unwrap();
    drop(slots);
    assert!(memory.take_dirty() == [pages(90..100)]);
}

/// A machine that has ended, and whose slots go when somebody lets go of it.
#[test]
fn what_was_written_before_the_end_is_told_once() {
    let (hypervisor, slots, memory) = tracked();
    store(&hypervisor, 20);
    slots.still_for_good();
    slots.collect_dirty().unwrap();
    assert!(memory.take_dirty() == [pages(30..31)]);
    drop(slots);
    assert_eq!(memory.take_dirty(), []);
    // Nobody asked.
    let (hypervisor, slots, memory) = tracked();
    store(&hypervisor, 20);
    slots.still_for_good();
    slots.still(|| ());
    drop(slots);
    assert!(memory.take_dirty() == [pages(30..31)]);
}

#[test]
fn stillness_ends_with_whoever_sees_to_it() {
    let (_, slots, memory) = tracked();
    let panicked = thread::scope(|scope| scope.spawn(|| slots.still(|| panic!("on purpose"))).join());
    assert!(panicked.is_err());
    slots.still(|| slots.still(|| ()));
    slots.clear(Hpa(BASE)).unwrap();
    assert!(memory.take_dirty() == [pages(10..100)]);
}

#[test]
fn without_logs_all_of_a_slot_counts_as_written() {
    let (hypervisor, slots, memory) = tracked();
    slots.untrack().unwrap();
    assert!(hypervisor.logging().is_empty());
    assert!(memory.take_dirty() == [pages(10..100)], "what was written since the log was taken");
    slots.collect_dirty().unwrap();
    assert!(memory.take_dirty() == [pages(10..100)]);
    store(&hypervisor, 0);
    slots.track().unwrap();
    assert!(memory.take_dirty() == [pages(10..100)], "what was written before the log began");
    slots.track().unwrap();
    slots.collect_dirty().unwrap();
    assert_eq!(memory.take_dirty(), []);
    slots.untrack().unwrap();
    memory.take_dirty();
    slots.still(|| slots.clear(Hpa(BASE))).unwrap();
    assert!(memory.take_dirty() == [pages(10..100)], "it was exact of nothing");
    // A memory that nobody tracks is not begun to be.
    let other = self::memory(PAGE);
    slots.fill(request(0, 0, 1, &other)).unwrap();
    slots.collect_dirty().unwrap();
    assert!(!other.is_tracked());
}

#[test]
fn a_log_that_is_not_to_be_had_is_a_full_one() {
    let (hypervisor, slots, memory) = tracked();
    store(&hypervisor, 0);
    hypervisor.forget(true);
    assert!(slots.collect_dirty().unwrap_err().to_string().contains("forgotten by the test"));
    assert!(memory.take_dirty() == [pages(10..100)]);
    slots.still(|| slots.clear(Hpa(BASE))).unwrap();
    assert!(memory.take_dirty() == [pages(10..100)]);

    let slots = Slots::new(hypervisor.clone());
    let (one, other) = (self::memory(PAGE), self::memory(PAGE));
    slots.fill(request(0, 0, 1, &one)).unwrap();
    slots.fill(request(PAGE, 0, 1, &other)).unwrap();
    assert!(slots.track().is_err());
    assert!(hypervisor.logging().is_empty());
    one.take_dirty();
    hypervisor.forget(false);
    slots.collect_dirty().unwrap();
    assert!(one.take_dirty() == [pages(0..1)], "without a log");
    slots.track().unwrap();
    [&one, &other].into_iter().for_each(|memory| drop(memory.take_dirty()));
    hypervisor.store(Hpa(PAGE), 1).unwrap();
    hypervisor.forget(true);
    assert!(slots.untrack().is_err());
    hypervisor.forget(false);
    slots.collect_dirty().unwrap();
    assert!(one.take_dirty().is_empty() && other.take_dirty() == [pages(0..1)], "the logs that did not end are there");
}

#[test]
fn a_stuck_slot_is_collected_on() {
    let (hypervisor, slots, memory) = tracked();
    hypervisor.stick(true);
    store(&hypervisor, 1);
    slots.clear(Hpa(BASE)).unwrap_err();
    store(&hypervisor, 2);
    slots.collect_dirty().unwrap();
    assert!(memory.take_dirty() == [pages(11..13)]);
}

#[derive(Clone, Debug)]
enum Step {
    Store(u64),
    Write(u64),
    Fill(u64, u64),
    Clear(usize, bool),
    Track,
    Untrack,
    Forget(bool),
    Copy,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..PAGES).prop_map(Step::Store),
        2 => (0..PAGES).prop_map(Step::Write),
        3 => (0..PAGES, 1..30u64).prop_map(|(first, pages)| Step::Fill(first, pages)),
        2 => (0..8usize, any::<bool>()).prop_map(|(slot, still)| Step::Clear(slot, still)),
        1 => Just(Step::Track),
        1 => Just(Step::Untrack),
        1 => any::<bool>().prop_map(Step::Forget),
        3 => Just(Step::Copy),
    ]
}

/// Copies what is dirty, as somebody does who never looks at the rest again.
fn copy(slots: &Slots, memory: &HostMemory, to: &mut [u8]) {
    // Where a log cannot be had, more is dirty.
    slots.collect_dirty().ok();
    for range in memory.take_dirty() {
        memory.read(range.start, &mut to[range.start as usize..range.end as usize]).unwrap();
    }
}

fn bytes(memory: &HostMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len_bytes() as usize];
    memory.read(0, &mut bytes).unwrap();
    bytes
}

proptest! {
    /// Logs begin, end and fail, slots come and go: a copy of what is dirty is a copy of all.
    #[test]
    fn a_copy_of_what_is_dirty_is_the_memory(steps in prop::collection::vec(step(), 0..80), tracks in any::<bool>()) {
        let (hypervisor, memory) = (FakeHypervisor::new(8), memory(PAGES * PAGE));
        let slots = Slots::new(hypervisor.clone());
        if tracks {
            memory.track();
        }
        let (mut shadow, mut value) = (vec![0; (PAGES * PAGE) as usize], 0u8);
        for step in steps {
            value = value.wrapping_add(1);
            match step {
                Step::Store(page) => drop(hypervisor.store(Hpa(BASE + page * PAGE), value)),
                Step::Write(page) => memory.write_u8(page * PAGE + 1, value).unwrap(),
                Step::Fill(first, pages) => {
                    let pages = pages.min(PAGES - first);
                    drop(slots.fill(request(BASE + first * PAGE, first, pages, &memory)));
                }
                Step::Clear(slot, still) => {
                    let Some((_, hpa, ..)) = hypervisor.regions().get(slot).copied() else { continue };
                    let clear = || slots.clear(Hpa(hpa));
                    if still { slots.still(clear) } else { clear() }.unwrap();
                }
                Step::Track => drop(slots.track()),
                Step::Untrack => drop(slots.untrack()),
                Step::Forget(forgets) => hypervisor.forget(forgets),
                Step::Copy => {
                    copy(&slots, &memory, &mut shadow);
                    prop_assert!(shadow == bytes(&memory));
                }
            }
        }
        drop(slots);
        for range in memory.take_dirty() {
            memory.read(range.start, &mut shadow[range.start as usize..range.end as usize]).unwrap();
        }
        prop_assert!(shadow == bytes(&memory), "after the table went");
    }
}

/// Processors store all the while: when they have ended, one more copy of what is dirty makes a copy of all.
#[test]
fn no_store_of_a_processor_is_lost_while_slots_come_and_go() {
    const ROUNDS: u64 = 300;
    const STORES: u64 = 100_000;
    let (hypervisor, slots, memory) = tracked();
    let busy = AtomicU64::new(3);
    let mut shadow = bytes(&memory);
    thread::scope(|scope| {
        for processor in 0..2 {
            let (hypervisor, memory, busy) = (&hypervisor, &memory, &busy);
            scope.spawn(move || {
                for value in 0..STORES {
                    let page = value * 7 % (PAGES - 10);
                    // An exit otherwise.
                    if hypervisor.store(Hpa(BASE + page * PAGE + processor), value as u8).is_none() {
                        memory.write_u8((page + 10) * PAGE + processor, value as u8).unwrap();
                    }
                }
                busy.fetch_sub(1, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                slots.clear(Hpa(BASE)).unwrap();
                slots.fill(request(BASE, 10, 40, &memory)).unwrap();
                slots.fill(request(BASE + 40 * PAGE, 50, PAGES - 50, &memory)).unwrap();
                slots.untrack().unwrap();
                slots.clear(Hpa(BASE + 40 * PAGE)).unwrap();
                slots.track().unwrap();
                slots.clear(Hpa(BASE)).unwrap();
                slots.fill(request(BASE, 10, PAGES - 10, &memory)).unwrap();
            }
            busy.fetch_sub(1, Ordering::Relaxed);
        });
        while busy.load(Ordering::Relaxed) > 0 {
            copy(&slots, &memory, &mut shadow);
        }
    });
    copy(&slots, &memory, &mut shadow);
    assert!(shadow == bytes(&memory), "a store was lost");
}
