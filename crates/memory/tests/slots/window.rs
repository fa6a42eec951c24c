//! What of the window is in slots.

use device::config::DeviceIndex;
use device::decode::{DecodedRange, Ways};
use memory::{
    FakeHypervisor, Refused, Route, SlotAccess, Slots, TrapCount, TrapReason, Window, WindowError, WindowSlots,
};
use std::sync::Arc;
use wire::{Dpa, Hpa};

use crate::cpu::Cpu;
use crate::table::read_only;
use crate::{BASE, D0, D1, MIB, PAGE, decoder, memory, piece, range};

/// A window of 1 GiB whose first 512 MiB decode to DPA 0 of device 0, with so many slots.
fn attached(limit: u32) -> (Arc<FakeHypervisor>, Window) {
    let hypervisor = FakeHypervisor::new(limit);
    let window = Window::new(BASE, 1024 * MIB);
    window.set_decoders(D0, vec![decoder(0, 512 * MIB, 0)]).unwrap();
    window.attach(Arc::new(Slots::new(hypervisor.clone()))).unwrap();
    (hypervisor, window)
}

/// Offsets and lengths of the slots in the window.
fn slots(hypervisor: &FakeHypervisor) -> Vec<(u64, u64)> {
    hypervisor.regions().iter().map(|(_, hpa, len_bytes, _)| (hpa - BASE.0, *len_bytes)).collect()
}

fn trapped(window: &Window) -> Vec<(TrapReason, TrapCount)> {
    window.slots().unwrap().trapped.into_iter().collect()
}

fn count(pieces: u64, bytes: u64) -> TrapCount {
    TrapCount { pieces, bytes }
}

#[test]
fn neighbours_of_one_change_share_a_slot() {
    let (hypervisor, window) = attached(64);
    let (one, other) = (memory(8 * MIB), memory(MIB));
    let pieces = vec![
        piece(MIB, MIB, &one, MIB),
        piece(0, MIB, &one, 0),
        piece(2 * MIB, MIB, &one, 3 * MIB),
        piece(3 * MIB, MIB, &other, 0),
    ];
    window.map_all(D0, pieces).unwrap();
    assert_eq!(slots(&hypervisor), [(0, 2 * MIB), (2 * MIB, MIB), (3 * MIB, MIB)]);
    window.map(D0, piece(4 * MIB, MIB, &one, 4 * MIB)).unwrap();
    assert_eq!(slots(&hypervisor).len(), 4);
    let cpu = Cpu { hypervisor: &hypervisor, window: &window };
    cpu.store(Hpa(BASE.0 + MIB), 9);
    assert_eq!(one.read_u8(MIB), Ok(9));
    let expected = WindowSlots { slots: 4, bytes: 5 * MIB, ..WindowSlots::default() };
    assert_eq!(window.slots(), Some(expected));
    window.unmap_all(D0, &[range(0, 2 * MIB), range(2 * MIB, MIB), range(3 * MIB, 2 * MIB)]).unwrap();
    assert_eq!((slots(&hypervisor), Arc::strong_count(&one)), (vec![], 1));
}

#[test]
fn what_was_mapped_before_is_in_slots_when_they_are_attached_and_no_more_when_not() {
    let window = Window::new(BASE, 1024 * MIB);
    let memory = memory(4 * MIB);
    window.map(D0, piece(0, 2 * MIB, &memory, 0)).unwrap();
    window.map(D0, piece(2 * MIB, 2 * MIB, &memory, 2 * MIB)).unwrap();
    window.set_decoders(D0, vec![decoder(0, 3 * MIB, 0)]).unwrap();
    assert_eq!(window.slots(), None);
    let (first, second) = (FakeHypervisor::new(64), FakeHypervisor::new(64));
    window.attach(Arc::new(Slots::new(first.clone()))).unwrap();
    assert_eq!(slots(&first), [(0, 3 * MIB)]);
    window.attach(Arc::new(Slots::new(second.clone()))).unwrap();
    assert_eq!((slots(&first), slots(&second)), (vec![], vec![(0, 3 * MIB)]));
    window.detach().unwrap();
    assert_eq!((slots(&second), window.slots()), (vec![], None));
    window.unmap(D0, Dpa(0), 4 * MIB).unwrap();
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn a_partial_release_keeps_the_rest_in_slots() {
    let (hypervisor, window) = attached(64);
    let memory = memory(16 * MIB);
    window.map(D0, piece(0, 16 * MIB, &memory, 0)).unwrap();
    window.unmap_all(D0, &[range(4 * MIB, MIB), range(8 * MIB, MIB), range(5 * MIB, MIB)]).unwrap();
    assert_eq!(slots(&hypervisor), [(0, 4 * MIB), (6 * MIB, 2 * MIB), (9 * MIB, 7 * MIB)]);
    // What was released and comes back is a slot of its own: the rest is not touched for it.
    let before = hypervisor.calls();
    window.map(D0, piece(4 * MIB, 2 * MIB, &memory, 4 * MIB)).unwrap();
    assert_eq!(hypervisor.calls(), before + 1);
    assert_eq!(hypervisor.covered(), [(BASE.0, 8 * MIB), (BASE.0 + 9 * MIB, 7 * MIB)]);
}

#[test]
fn an_unmap_that_is_refused_changes_nothing() {
    let (hypervisor, window) = attached(64);
    let memory = memory(4 * MIB);
    window.map(D0, piece(0, 4 * MIB, &memory, 0)).unwrap();
    let before = hypervisor.calls();
    let refused = window.unmap_all(D0, &[range(0, MIB), range(2 * MIB, MIB), range(4 * MIB, MIB)]).map(drop);
    let error = WindowError::NotMapped { device: D0, dpa: Dpa(4 * MIB) };
    assert_eq!(refused, Err(Refused { index: 2, error }));
    let refused = window.unmap_all(D0, &[range(0, 2 * MIB), range(MIB, MIB)]).map(drop);
    assert_eq!(refused.unwrap_err().index, 1, "twice the same");
    let refused = window.map_all(D0, vec![piece(8 * MIB, MIB, &memory, 0), piece(3 * MIB, 2 * MIB, &memory, 0)]);
    assert_eq!(refused.unwrap_err().index, 1);
    assert_eq!((hypervisor.calls(), slots(&hypervisor)), (before, vec![(0, 4 * MIB)]));
    assert_eq!(window.mappings().iter().map(|mapping| mapping.len_bytes).sum::<u64>(), 4 * MIB);
    let mut byte = [0];
    window.read(Hpa(BASE.0 + 8 * MIB), &mut byte);
    assert_eq!(byte, [0xff]);
}

#[test]
fn decoders_and_routes_move_slots() {
    let (hypervisor, window) = attached(64);
    let (first, second) = (memory(4 * MIB), memory(4 * MIB));
    window.map(D0, piece(0, 4 * MIB, &first, 0)).unwrap();
    window.map(D1, piece(0, 4 * MIB, &second, 0)).unwrap();
    assert_eq!(slots(&hypervisor), [(0, 4 * MIB)]);
    window.set_decoders(D1, vec![decoder(512 * MIB, 256 * MIB, 0)]).unwrap();
    assert_eq!(slots(&hypervisor), [(0, 4 * MIB), (512 * MIB, 4 * MIB)]);
    // One more decoder of the same device touches nothing else.
    let before = hypervisor.calls();
    window.set_decoders(D1, vec![decoder(512 * MIB, 256 * MIB, 0), decoder(768 * MIB, 256 * MIB, 256 * MIB)]).unwrap();
    window.set_decoders(D1, vec![decoder(512 * MIB, 256 * MIB, 0)]).unwrap();
    assert_eq!(hypervisor.calls(), before);
    // Two that share an address, and then not any more.
    window.set_decoders(D1, vec![decoder(511 * MIB, 256 * MIB, 0)]).unwrap();
    assert_eq!(slots(&hypervisor), []);
    assert_eq!(trapped(&window), [(TrapReason::Shared, count(2, 8 * MIB))]);
    window.set_decoders(D0, vec![]).unwrap();
    assert_eq!(slots(&hypervisor), [(511 * MIB, 4 * MIB)]);
    window.set_decoders(D0, vec![decoder(0, 511 * MIB, 0)]).unwrap();
    assert_eq!(slots(&hypervisor), [(0, 4 * MIB), (511 * MIB, 4 * MIB)]);
    let route = |targets: &[DeviceIndex]| Route::new(BASE, 511 * MIB, decoder(0, 0, 0).granularity, targets.to_vec());
    window.set_routes(route(&[D1]).into_iter().collect()).unwrap();
    assert_eq!(slots(&hypervisor), [(511 * MIB, 4 * MIB)]);
    assert_eq!(trapped(&window), [(TrapReason::Shared, count(1, 4 * MIB))]);
    window.set_routes(route(&[D0]).into_iter().collect()).unwrap();
    assert_eq!(slots(&hypervisor), [(0, 4 * MIB), (511 * MIB, 4 * MIB)]);
}

#[test]
fn what_cannot_be_in_a_slot_is_trapped_and_counted() {
    let (hypervisor, window) = attached(64);
    let memory = memory(8 * MIB);
    window.map(D0, piece(0, MIB, &memory, 0x800)).unwrap();
    window.map(D0, piece(2 * MIB + 0x100, 0x200, &memory, 2 * MIB + 0x100)).unwrap();
    window.map(D0, piece(3 * MIB - 0x100, 2 * PAGE, &memory, 3 * MIB - 0x100)).unwrap();
    let expected = [(TrapReason::Misaligned, count(1, MIB)), (TrapReason::UnderPage, count(3, 0x200 + PAGE))];
    assert_eq!(trapped(&window), expected);
    assert_eq!(slots(&hypervisor), [(3 * MIB, PAGE)]);
    let cpu = Cpu { hypervisor: &hypervisor, window: &window };
    cpu.store(Hpa(BASE.0 + 5), 1);
    cpu.store(Hpa(BASE.0 + 2 * MIB + 0x2ff), 2);
    assert_eq!((memory.read_u8(0x805), memory.read_u8(2 * MIB + 0x2ff)), (Ok(1), Ok(2)));
    assert_eq!(window.slots().unwrap().trapped_accesses, 2);
    // What fills the page makes it one.
    window.map(D0, piece(2 * MIB, 0x100, &memory, 2 * MIB)).unwrap();
    window.map(D0, piece(2 * MIB + 0x300, 0xd00, &memory, 2 * MIB + 0x300)).unwrap();
    assert_eq!(slots(&hypervisor), [(2 * MIB, PAGE), (3 * MIB, PAGE)]);
    window.unmap(D0, Dpa(2 * MIB + 0x400), 1).unwrap();
    assert_eq!(slots(&hypervisor), [(3 * MIB, PAGE)]);
    let interleaved = DecodedRange { ways: Ways::from_code(1).unwrap(), ..decoder(0, 512 * MIB, 0) };
    window.set_decoders(D0, vec![interleaved]).unwrap();
    assert_eq!(slots(&hypervisor), []);
    // The three pieces below the byte that is missing go on in each other.
    assert_eq!(trapped(&window), [(TrapReason::Interleaved, count(4, MIB + 3 * PAGE - 1))]);
}

#[test]
fn beyond_the_limit_pieces_are_trapped_until_there_is_room() {
    let (hypervisor, window) = attached(8);
    let memory = memory(16 * MIB);
    for index in 0..16 {
        window.map(D0, piece(2 * index * MIB, MIB, &memory, index * MIB)).unwrap();
    }
    assert_eq!((slots(&hypervisor).len(), trapped(&window)), (6, vec![(TrapReason::Limit, count(10, 10 * MIB))]));
    let cpu = Cpu { hypervisor: &hypervisor, window: &window };
    cpu.store(Hpa(BASE.0 + 30 * MIB), 3);
    assert_eq!(memory.read_u8(15 * MIB), Ok(3));
    window.unmap_all(D0, &[range(0, MIB), range(2 * MIB, MIB)]).unwrap();
    assert_eq!((slots(&hypervisor).len(), trapped(&window)), (6, vec![(TrapReason::Limit, count(8, 8 * MIB))]));
    // One that waits and goes, whole or in part, waits no more.
    window.unmap_all(D0, &[range(30 * MIB, MIB), range(28 * MIB, MIB / 2)]).unwrap();
    assert_eq!(trapped(&window), [(TrapReason::Limit, count(7, 6 * MIB + MIB / 2))]);
    window.unmap_all(D0, &(2..9).map(|index| range(2 * index * MIB, MIB)).collect::<Vec<_>>()).unwrap();
    assert_eq!((slots(&hypervisor).len(), trapped(&window)), (6, vec![]));
    assert_eq!(slots(&hypervisor).last(), Some(&(28 * MIB + MIB / 2, MIB / 2)));
}

#[test]
fn what_the_hypervisor_refuses_is_trapped() {
    let (hypervisor, window) = attached(64);
    let memory = memory(4 * MIB);
    window.map(D0, piece(0, 4 * MIB, &memory, 0)).unwrap();
    hypervisor.refuse(true);
    window.unmap(D0, Dpa(MIB), MIB).unwrap();
    assert_eq!((slots(&hypervisor), trapped(&window)), (vec![], vec![(TrapReason::Refused, count(2, 3 * MIB))]));
    let cpu = Cpu { hypervisor: &hypervisor, window: &window };
    cpu.store(Hpa(BASE.0), 3);
    assert_eq!((cpu.load(Hpa(BASE.0)), cpu.load(Hpa(BASE.0 + MIB))), (3, 0xff));
}

/// The guest may see what it must not: nobody may be told that it does not.
#[test]
fn a_stuck_slot_is_an_error_of_the_change() {
    let (hypervisor, window) = attached(64);
    let memory = memory(4 * MIB);
    window.map(D0, piece(0, 4 * MIB, &memory, 0)).unwrap();
    hypervisor.stick(true);
    let error = window.unmap(D0, Dpa(0), MIB).map(drop).unwrap_err();
    assert!(matches!(&error, WindowError::Stuck(stuck) if stuck.hpa == BASE), "{error}");
    assert_eq!(
        error.to_string(),
        "the slot of 0x400000 bytes at guest address 0x110000000 cannot be cleared: stuck by the test"
    );
    let mut byte = [0];
    window.read(BASE, &mut byte);
    assert_eq!(byte, [0xff], "the lookup has changed");
    assert!(window.set_decoders(D0, vec![]).is_err() && window.detach().is_err());
    hypervisor.stick(false);
    window.detach().unwrap();
    assert_eq!(slots(&hypervisor), []);
}

#[test]
fn stores_to_memory_that_is_only_read_vanish() {
    let (hypervisor, window) = attached(64);
    let (_top, memory) = read_only(2 * PAGE);
    window.map(D0, piece(0, 2 * PAGE, &memory, 0)).unwrap();
    assert_eq!(hypervisor.regions(), [(0, BASE.0, 2 * PAGE, SlotAccess::ReadOnly)]);
    let cpu = Cpu { hypervisor: &hypervisor, window: &window };
    cpu.store(BASE, 1);
    assert_eq!(cpu.load(BASE), 7);
}

#[test]
fn the_ends_of_the_window_bound_its_slots() {
    let hypervisor = FakeHypervisor::new(64);
    let memory = memory(4 * MIB);
    let window = Window::new(Hpa(BASE.0 + 0x800), MIB);
    window.set_decoders(D0, vec![DecodedRange { hpa: BASE, ..decoder(0, 4 * MIB, 0) }]).unwrap();
    window.attach(Arc::new(Slots::new(hypervisor.clone()))).unwrap();
    window.map(D0, piece(0, 4 * MIB, &memory, 0)).unwrap();
    assert_eq!(slots(&hypervisor), [(PAGE, MIB - PAGE)]);
    assert_eq!(trapped(&window), [(TrapReason::UnderPage, count(2, PAGE))]);
    let top = Window::new(Hpa(u64::MAX - 4095), u64::MAX);
    top.set_decoders(D0, vec![DecodedRange { hpa: Hpa(u64::MAX - 4095), ..decoder(0, u64::MAX, 0) }]).unwrap();
    top.attach(Arc::new(Slots::new(FakeHypervisor::new(4)))).unwrap();
    top.map(D0, piece(0, 2 * MIB, &memory, 0)).unwrap();
    assert_eq!(trapped(&top), [(TrapReason::UnderPage, count(1, PAGE - 1))]);
}

/// One at a time, as a host accepts them. What is mapped already costs nothing.
#[test]
fn a_hundred_thousand_extents_come_and_go_one_by_one() {
    const EXTENTS: u64 = 100_000;
    let hypervisor = FakeHypervisor::new(300);
    let window = Window::new(BASE, 1 << 40);
    window.set_decoders(D0, vec![decoder(0, 1 << 40, 0)]).unwrap();
    window.attach(Arc::new(Slots::new(hypervisor.clone()))).unwrap();
    let memory = memory(EXTENTS * PAGE);
    for index in 0..EXTENTS {
        window.map(D0, piece(2 * index * PAGE, PAGE, &memory, index * PAGE)).unwrap();
    }
    let in_slots = 300 - 66;
    let seen = window.slots().unwrap();
    assert_eq!((seen.slots, seen.trapped[&TrapReason::Limit].pieces), (in_slots, EXTENTS - in_slots));
    let cpu = Cpu { hypervisor: &hypervisor, window: &window };
    cpu.store(Hpa(BASE.0 + 2 * 99_999 * PAGE), 9);
    assert_eq!(memory.read_u8(99_999 * PAGE), Ok(9));
    for index in 0..EXTENTS {
        window.unmap(D0, Dpa(2 * index * PAGE), PAGE).unwrap();
    }
    assert_eq!(window.slots(), Some(WindowSlots { trapped_accesses: 1, ..WindowSlots::default() }));
    // Each had its turn in a slot: what goes makes room for what waits.
    assert_eq!(hypervisor.calls(), 2 * EXTENTS);
}
