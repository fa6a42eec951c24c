//! The table of slots.

use std::fs;
use std::sync::{Arc, Mutex};

use device::backends::{BackendKind, Discard, FileAccess, Population, Reservation, Sharing};
use memory::{
    BackendDir, FakeHypervisor, HostMemory, HostMemorySpec, MissingFile, SlotAccess, SlotCounts, SlotError,
    SlotRequest, Slots, Surroundings,
};
use wire::Hpa;

use crate::{PAGE, memory};

fn request(hpa: u64, len_bytes: u64, memory: &Arc<HostMemory>) -> SlotRequest {
    let (memory, access) = (Arc::clone(memory), SlotAccess::ReadWrite);
    SlotRequest { hpa: Hpa(hpa), len_bytes, memory, offset_bytes: 0, access }
}

#[test]
fn a_slot_shows_its_memory_until_it_is_cleared() {
    let hypervisor = FakeHypervisor::new(8);
    let slots = Slots::new(hypervisor.clone());
    let memory = memory(4 * PAGE);
    memory.write_u8(PAGE, 7).unwrap();
    slots.fill(SlotRequest { offset_bytes: PAGE, ..request(0x10_0000, 2 * PAGE, &memory) }).unwrap();
    assert_eq!(hypervisor.load(Hpa(0x10_0000)), Some(7));
    hypervisor.store(Hpa(0x10_0001), 8).unwrap();
    assert_eq!(memory.read_u8(PAGE + 1), Ok(8));
    assert_eq!(hypervisor.load(Hpa(0x10_0000 + 2 * PAGE)), None);
    assert_eq!(slots.counts(), SlotCounts { limit: 8, in_use: 1, bytes: 2 * PAGE });
    slots.clear(Hpa(0x10_0000)).unwrap();
    slots.clear(Hpa(0x10_0000)).unwrap();
    assert_eq!(hypervisor.load(Hpa(0x10_0000)), None);
    assert_eq!(slots.counts(), SlotCounts { limit: 8, in_use: 0, bytes: 0 });
}

#[test]
fn memory_lives_as_long_as_its_slot() {
    let hypervisor = FakeHypervisor::new(8);
    let slots = Slots::new(hypervisor.clone());
    let memory = memory(PAGE);
    let weak = Arc::downgrade(&memory);
    slots.fill(request(0, PAGE, &memory)).unwrap();
    drop(memory);
    assert_eq!(hypervisor.load(Hpa(0)), Some(0));
    slots.clear(Hpa(0)).unwrap();
    assert!(weak.upgrade().is_none());
}

#[test]
fn a_table_that_goes_clears_its_slots_and_keeps_the_memory_of_stuck_ones() {
    let hypervisor = FakeHypervisor::new(8);
    let (first, second) = (memory(PAGE), memory(PAGE));
    let weak = [Arc::downgrade(&first), Arc::downgrade(&second)];
    let slots = Slots::new(hypervisor.clone());
    slots.fill(request(0, PAGE, &first)).unwrap();
    drop((first, slots));
    assert!(hypervisor.regions().is_empty() && weak[0].upgrade().is_none());
    let slots = Slots::new(hypervisor.clone());
    slots.fill(request(0, PAGE, &second)).unwrap();
    hypervisor.stick(true);
    drop((second, slots));
    assert_eq!(hypervisor.load(Hpa(0)), Some(0));
    assert!(weak[1].upgrade().is_some(), "the guest may still reach it");
}

#[test]
fn what_cannot_be_a_slot_is_refused_and_changes_nothing() {
    let hypervisor = FakeHypervisor::new(8);
    let slots = Slots::new(hypervisor.clone());
    let memory = memory(4 * PAGE);
    slots.fill(request(8 * PAGE, 4 * PAGE, &memory)).unwrap();
    let of = |request| slots.fill(request).unwrap_err();
    for (hpa, len_bytes) in [(0, 100), (100, PAGE)] {
        assert!(matches!(of(request(hpa, len_bytes, &memory)), SlotError::Unaligned { page_bytes: PAGE, .. }));
    }
    let odd = SlotRequest { offset_bytes: 100, ..request(0, PAGE, &memory) };
    assert!(matches!(of(odd), SlotError::Unaligned { offset_bytes: 100, .. }));
    for (hpa, len_bytes) in [(0, 0), (u64::MAX - PAGE + 1, PAGE)] {
        assert!(matches!(of(request(hpa, len_bytes, &memory)), SlotError::NoRange { .. }));
    }
    assert!(matches!(of(request(0, 5 * PAGE, &memory)), SlotError::OutsideMemory { .. }));
    let far = SlotRequest { offset_bytes: u64::MAX - PAGE + 1, ..request(0, PAGE, &memory) };
    assert!(matches!(of(far), SlotError::OutsideMemory { .. }));
    for (hpa, shared) in [(7, 8), (8, 8), (9, 9), (11, 11)] {
        let error = of(request(hpa * PAGE, 2 * PAGE, &memory));
        let SlotError::Overlap { hpa, slot_hpa: Hpa(0x8000), .. } = error else { panic!("{error}") };
        assert_eq!(hpa, Hpa(shared * PAGE));
    }
    assert_eq!(hypervisor.regions().len(), 1);
    slots.fill(request(6 * PAGE, 2 * PAGE, &memory)).unwrap();
    slots.fill(request(12 * PAGE, 2 * PAGE, &memory)).unwrap();
    let error = SlotError::Overlap { hpa: Hpa(0x9000), slot_hpa: Hpa(0x8000), slot_len_bytes: 0x4000 };
    assert_eq!(error.to_string(), "guest address 0x9000 is in a slot already, of the 0x4000 bytes from 0x8000 on");
}

#[test]
fn numbers_are_used_again_and_some_are_left_for_what_is_needed() {
    let hypervisor = FakeHypervisor::new(8);
    let slots = Slots::new(hypervisor.clone());
    let memory = memory(PAGE);
    let spare = |page| slots.fill_spare(request(page * PAGE, PAGE, &memory));
    (0..6).for_each(|page| spare(page).unwrap());
    assert!(matches!(spare(6), Err(SlotError::Full { limit: 8 })));
    (6..8).for_each(|page| slots.fill(request(page * PAGE, PAGE, &memory)).unwrap());
    assert!(matches!(slots.fill(request(8 * PAGE, PAGE, &memory)), Err(SlotError::Full { limit: 8 })));
    for round in 1..100 {
        slots.clear(Hpa((round - 1) * PAGE)).unwrap();
        slots.fill(request((round + 7) * PAGE, PAGE, &memory)).unwrap();
    }
    hypervisor.refuse(true);
    slots.clear(Hpa(99 * PAGE)).unwrap();
    let refused = slots.fill(request(0, PAGE, &memory)).unwrap_err();
    assert!(refused.to_string().contains("refused by the test"), "{refused}");
    hypervisor.refuse(false);
    slots.fill(request(0, PAGE, &memory)).unwrap();
    let mut numbers: Vec<_> = hypervisor.regions().iter().map(|(number, ..)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
}

#[test]
fn a_stuck_slot_is_told_stays_and_can_be_cleared_later() {
    let hypervisor = FakeHypervisor::new(8);
    let slots = Slots::new(hypervisor.clone());
    let told = Arc::new(Mutex::new(Vec::new()));
    let ear = Arc::clone(&told);
    slots.connect_alarm(Arc::new(move |stuck| ear.lock().unwrap().push(stuck.clone())));
    let memory = memory(PAGE);
    slots.fill(request(PAGE, PAGE, &memory)).unwrap();
    hypervisor.stick(true);
    let stuck = slots.clear(Hpa(PAGE)).unwrap_err();
    assert_eq!(
        stuck.to_string(),
        "the slot of 0x1000 bytes at guest address 0x1000 cannot be cleared: stuck by the test"
    );
    assert_eq!(*told.lock().unwrap(), [stuck]);
    assert_eq!((slots.counts().in_use, Arc::strong_count(&memory)), (1, 2));
    assert!(matches!(slots.fill(request(PAGE, PAGE, &memory)), Err(SlotError::Overlap { .. })));
    hypervisor.stick(false);
    slots.clear(Hpa(PAGE)).unwrap();
    assert_eq!((slots.counts().in_use, Arc::strong_count(&memory)), (0, 1));
}

/// A file that the guest may only read.
pub(crate) fn read_only(size_bytes: u64) -> (tempfile::TempDir, Arc<HostMemory>) {
    let top = tempfile::tempdir().unwrap();
    fs::write(top.path().join("rom"), vec![7; size_bytes as usize]).unwrap();
    let (access, discard) = (FileAccess::ReadOnly, Discard::Keep);
    let spec = HostMemorySpec {
        kind: BackendKind::File { path: "rom".into(), access, discard, align_bytes: None },
        size_bytes,
        sharing: Sharing::Shared,
        population: Population::OnDemand,
        reservation: Reservation::Reserved,
    };
    let dir = BackendDir::open(top.path()).unwrap();
    let surroundings = Surroundings { backend_dir: Some(&dir), missing: MissingFile::Refuse, progress: &|_, _| () };
    let memory = HostMemory::create(&spec, surroundings).unwrap();
    (top, Arc::new(memory))
}

/// A slot that the guest could store into would be a signal in this process.
#[test]
fn memory_that_takes_no_writes_is_a_read_only_slot() {
    let hypervisor = FakeHypervisor::new(8);
    let slots = Slots::new(hypervisor.clone());
    let (_top, memory) = read_only(PAGE);
    slots.fill(request(0, PAGE, &memory)).unwrap();
    assert_eq!(hypervisor.regions(), [(0, 0, PAGE, SlotAccess::ReadOnly)]);
    assert_eq!((hypervisor.load(Hpa(5)), hypervisor.store(Hpa(5), 1)), (Some(7), None));
}
