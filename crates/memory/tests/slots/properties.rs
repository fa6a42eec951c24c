//! After any changes, slots are what the lookup alone would have them be.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::config::DeviceIndex;
use device::decode::{DecodedRange, Granularity, Ways};
use memory::{FakeHypervisor, HostMemory, Piece, Route, Slots, TrapReason, Window};
use proptest::prelude::*;
use wire::{Dpa, Hpa};

use crate::{BASE, D0, D1, PAGE, memory, range};

/// Blocks of a quarter of a page, so that pages are filled by neighbours, or not.
const BLOCK: u64 = PAGE / 4;
const BLOCKS: u64 = 64;
const WINDOW_LEN: u64 = 4 * BLOCKS * BLOCK;
const LIMIT: u32 = 8;

#[derive(Clone, Debug)]
enum Change {
    Map(u8, Vec<(u64, u64, u8, u64)>),
    Unmap(u8, Vec<(u64, u64)>),
    Decoders(u8, Vec<(u64, u64, u64, u8)>),
    Routes(Option<(u64, u64, Vec<u8>)>),
    Reattach,
}

fn change() -> impl Strategy<Value = Change> {
    let device = 0u8..2;
    let piece = (0..BLOCKS, 1..24u64, 0u8..2, 0..BLOCKS);
    // Mostly where dpa and offset agree, so that there are pages.
    let piece = (piece, prop::bool::weighted(0.8))
        .prop_map(|((dpa, len, memory, offset), agrees)| (dpa, len, memory, if agrees { dpa } else { offset }));
    let decoder = (0..4 * BLOCKS, 1..2 * BLOCKS, 0..BLOCKS, prop::sample::select(vec![0u8, 0, 0, 0, 1]));
    let decoder = (decoder, prop::bool::weighted(0.8)).prop_map(|((hpa, size, dpa, ways), agrees)| {
        if agrees { (hpa / 4 * 4, size, dpa / 4 * 4, ways) } else { (hpa, size, dpa, ways) }
    });
    let route = (0..4 * BLOCKS, 1..4 * BLOCKS, prop::collection::vec(0u8..3, 1..3));
    prop_oneof![
        6 => (device.clone(), prop::collection::vec(piece, 1..4)).prop_map(|(device, list)| Change::Map(device, list)),
        6 => (device.clone(), prop::collection::vec((0..BLOCKS, 1..24u64), 1..4))
            .prop_map(|(device, list)| Change::Unmap(device, list)),
        3 => (device, prop::collection::vec(decoder, 0..3)).prop_map(|(device, list)| Change::Decoders(device, list)),
        1 => prop::option::of(route).prop_map(Change::Routes),
        1 => Just(Change::Reattach),
    ]
}

struct Machine {
    hypervisor: Arc<FakeHypervisor>,
    window: Window,
    memories: [Arc<HostMemory>; 2],
    /// The memory behind each piece, which a mapping does not tell.
    pieces: BTreeMap<(DeviceIndex, u64), u8>,
}

impl Machine {
    fn new(limit: u32) -> Self {
        let memories = [memory(2 * BLOCKS * BLOCK), memory(2 * BLOCKS * BLOCK)];
        for (which, memory) in memories.iter().enumerate() {
            for block in 0..2 * BLOCKS {
                let bytes: Vec<u8> =
                    (0..BLOCK).map(|at| (which as u64 * 101 + block * 3 + at / 64) as u8 & 0x7f).collect();
                memory.write(block * BLOCK, &bytes).unwrap();
            }
        }
        let hypervisor = FakeHypervisor::new(limit);
        let window = Window::new(BASE, WINDOW_LEN);
        window.attach(Arc::new(Slots::new(hypervisor.clone()))).unwrap();
        let decodes = |blocks| DecodedRange {
            hpa: Hpa(BASE.0 + blocks * BLOCK),
            size_bytes: 2 * BLOCKS * BLOCK,
            dpa: Dpa(0),
            ways: Ways::ONE,
            granularity: Granularity::MIN,
        };
        window.set_decoders(D0, vec![decodes(0)]).unwrap();
        window.set_decoders(D1, vec![decodes(2 * BLOCKS)]).unwrap();
        Self { hypervisor, window, memories, pieces: BTreeMap::new() }
    }

    fn apply(&mut self, change: Change) {
        match change {
            Change::Map(device, list) => {
                let device = DeviceIndex(device);
                let piece = |(dpa, len, which, offset): &(u64, u64, u8, u64)| Piece {
                    dpa: Dpa(dpa * BLOCK),
                    len_bytes: len * BLOCK,
                    memory: Arc::clone(&self.memories[usize::from(*which)]),
                    offset_bytes: offset * BLOCK,
                };
                if self.window.map_all(device, list.iter().map(piece).collect()).is_ok() {
                    for (dpa, len, which, _) in list {
                        self.pieces.extend((dpa..dpa + len).map(|block| ((device, block), which)));
                    }
                }
            }
            Change::Unmap(device, list) => {
                let device = DeviceIndex(device);
                let ranges: Vec<_> = list.iter().map(|(dpa, len)| range(dpa * BLOCK, len * BLOCK)).collect();
                if self.window.unmap_all(device, &ranges).is_ok() {
                    let blocks = list.into_iter().flat_map(|(dpa, len)| dpa..dpa + len);
                    for block in blocks {
                        self.pieces.remove(&(device, block));
                    }
                }
            }
            Change::Decoders(device, list) => {
                let decoded = |(hpa, size, dpa, ways): (u64, u64, u64, u8)| DecodedRange {
                    hpa: Hpa(BASE.0 + hpa * BLOCK),
                    size_bytes: size * BLOCK,
                    dpa: Dpa(dpa * BLOCK),
                    ways: Ways::from_code(ways).unwrap(),
                    granularity: Granularity::MIN,
                };
                self.window.set_decoders(DeviceIndex(device), list.into_iter().map(decoded).collect()).unwrap();
            }
            Change::Routes(route) => {
                let route = route.and_then(|(at, size, targets)| {
                    let targets = targets.into_iter().map(DeviceIndex).collect();
                    Route::new(Hpa(BASE.0 + at * BLOCK), size * BLOCK, Granularity::MIN, targets)
                });
                self.window.set_routes(route.into_iter().collect()).unwrap();
            }
            Change::Reattach => {
                self.window.detach().unwrap();
                assert!(self.hypervisor.regions().is_empty());
                self.window.attach(Arc::new(Slots::new(self.hypervisor.clone()))).unwrap();
            }
        }
    }

    /// The pages that the lookup shows whole and as they lie in one memory: worked out block by block.
    fn expected(&self) -> Vec<u64> {
        // Guest block: which memory, and where in it.
        let mut blocks = BTreeMap::new();
        for mapping in self.window.mappings() {
            for at in (0..mapping.len_bytes).step_by(BLOCK as usize) {
                let which = self.pieces[&(mapping.device, (mapping.dpa.0 + at) / BLOCK)];
                blocks.insert(mapping.hpa.0 + at, (which, mapping.offset_bytes + at));
            }
        }
        let is_page = |page: &u64| {
            let Some((which, offset)) = blocks.get(page) else { return false };
            let goes_on = |at| blocks.get(&(page + at)) == Some(&(*which, offset + at));
            offset % PAGE == 0 && (0..PAGE).step_by(BLOCK as usize).all(goes_on)
        };
        (BASE.0..BASE.0 + WINDOW_LEN).step_by(PAGE as usize).filter(is_page).collect()
    }

    fn in_slots(&self) -> Vec<u64> {
        let pages = |(hpa, len): (u64, u64)| (hpa..hpa + len).step_by(PAGE as usize);
        self.hypervisor.covered().into_iter().flat_map(pages).collect()
    }

    fn check_contents(&self) {
        for page in self.in_slots() {
            for at in (0..PAGE).step_by(333) {
                let mut byte = [0];
                self.window.read(Hpa(page + at), &mut byte);
                assert_eq!(self.hypervisor.load(Hpa(page + at)), Some(byte[0]), "{:#x}", page + at);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn slots_are_what_the_lookup_alone_would_have(changes in prop::collection::vec(change(), 1..24)) {
        let mut machine = Machine::new(1024);
        for change in changes {
            machine.apply(change.clone());
            prop_assert_eq!(machine.in_slots(), machine.expected(), "after {:?}", change);
            machine.check_contents();
            let seen = machine.window.slots().unwrap();
            prop_assert_eq!(seen.bytes, machine.in_slots().len() as u64 * PAGE);
            prop_assert_eq!(seen.slots, machine.hypervisor.regions().len() as u64);
            let plain = [TrapReason::Misaligned, TrapReason::UnderPage];
            let trapped: u64 = plain.iter().filter_map(|reason| seen.trapped.get(reason)).map(|count| count.bytes).sum();
            let mapped: u64 = machine.window.mappings().iter().map(|mapping| mapping.len_bytes).sum();
            prop_assert_eq!(seen.bytes + trapped, mapped);
        }
        machine.window.detach().unwrap();
        prop_assert!(machine.hypervisor.regions().is_empty());
    }

    #[test]
    fn beyond_the_limit_there_are_fewer_and_none_that_must_not_be(changes in prop::collection::vec(change(), 1..24)) {
        let mut machine = Machine::new(LIMIT);
        for change in changes {
            machine.apply(change);
            let expected = machine.expected();
            prop_assert!(machine.in_slots().iter().all(|page| expected.contains(page)));
            machine.check_contents();
            let seen = machine.window.slots().unwrap();
            let waiting = seen.trapped.get(&TrapReason::Limit).map_or(0, |count| count.bytes);
            prop_assert_eq!(seen.bytes + waiting, expected.len() as u64 * PAGE);
            prop_assert!(waiting == 0 || seen.slots == u64::from(LIMIT - LIMIT / 4));
        }
    }
}
