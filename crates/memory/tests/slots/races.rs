//! Processors that read and write while the window changes under them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use memory::{FakeHypervisor, HostMemory, Piece, Slots, Window};
use wire::{Dpa, Hpa};

use crate::cpu::Cpu;
use crate::{BASE, D0, MIB, PAGE, decoder, memory, piece, range};

const LEN: u64 = 4 * MIB;
/// What is released again and again.
const HOLE: u64 = MIB;
const HOLE_LEN: u64 = MIB;

/// Ends the processors when the changes are over, and when one of them panics.
struct Stop(AtomicBool);

impl Stop {
    fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn at_end(&self) -> impl Drop + '_ {
        struct Guard<'a>(&'a AtomicBool);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        Guard(&self.0)
    }
}

fn attached(memory: &Arc<HostMemory>) -> (Arc<FakeHypervisor>, Window) {
    let hypervisor = FakeHypervisor::new(64);
    let window = Window::new(BASE, 64 * MIB);
    window.set_decoders(D0, vec![decoder(0, 64 * MIB, 0)]).unwrap();
    window.attach(Arc::new(Slots::new(hypervisor.clone()))).unwrap();
    window.map(D0, piece(0, LEN, memory, 0)).unwrap();
    (hypervisor, window)
}

/// The kept part is there before, while and after the slot that shows it is replaced: never ones, no store lost.
#[test]
fn a_partial_release_never_hides_the_kept_part_and_loses_no_store() {
    let memory = memory(LEN);
    let (hypervisor, window) = attached(&memory);
    let stop = Stop(AtomicBool::new(false));
    thread::scope(|scope| {
        let end = stop.at_end();
        let count = |hpa: Hpa| {
            let cpu = Cpu { hypervisor: &hypervisor, window: &window };
            let mut value = 0u8;
            while !stop.is_set() {
                assert_eq!(cpu.load(hpa), value, "a store was lost, or the kept part was hidden");
                value = (value + 1) % 0x80;
                cpu.store(hpa, value);
            }
        };
        let counters =
            [0, HOLE - 1, HOLE + HOLE_LEN, LEN - 1].map(|offset| scope.spawn(move || count(Hpa(BASE.0 + offset))));
        for round in 1..2_000 {
            assert_eq!(hypervisor.regions().len(), 1, "a slot that a release has to replace");
            let removed = window.unmap_all(D0, &[range(HOLE, HOLE_LEN)]).unwrap();
            assert_eq!(hypervisor.regions().len(), 2);
            window.map_all(D0, removed).unwrap();
            // Another decoder, that shows the same: one slot again.
            window.set_decoders(D0, vec![decoder(0, (32 + round % 2) * MIB, 0)]).unwrap();
        }
        drop(end);
        assert!(counters.map(|counter| counter.join().is_ok()).iter().all(|done| *done));
    });
}

#[test]
fn no_stale_byte_is_seen_after_a_release_returned() {
    let memory = memory(LEN);
    let (hypervisor, window) = attached(&memory);
    let (phase, stop) = (AtomicU64::new(0), Stop(AtomicBool::new(false)));
    let fill = |value: u8| memory.write(HOLE, &[value; 64]).unwrap();
    fill(0xaa);
    thread::scope(|scope| {
        let end = stop.at_end();
        let readers = [0, 1].map(|_| {
            scope.spawn(|| {
                let cpu = Cpu { hypervisor: &hypervisor, window: &window };
                while !stop.is_set() {
                    // Odd while it is released for certain.
                    let before = phase.load(Ordering::Acquire);
                    let byte = cpu.load(Hpa(BASE.0 + HOLE));
                    assert_ne!(byte, 0x11, "what the host did with its memory after the release was seen");
                    if before % 2 == 1 && phase.load(Ordering::Acquire) == before {
                        assert_eq!(byte, 0xff);
                    }
                }
            })
        });
        for _ in 0..2_000 {
            let removed: Vec<Piece> = window.unmap(D0, Dpa(HOLE), HOLE_LEN).unwrap();
            phase.fetch_add(1, Ordering::Release);
            fill(0x11);
            thread::yield_now();
            fill(0xaa);
            phase.fetch_add(1, Ordering::Release);
            window.map_all(D0, removed).unwrap();
        }
        drop(end);
        assert!(readers.map(|reader| reader.join().is_ok()).iter().all(|done| *done));
    });
}

/// Exits that change the window (a host bridge's decoders), actors that do, and processors that wait for the lookup:
/// none waits for the other for ever.
#[test]
fn changes_from_exits_and_from_actors_do_not_wait_for_each_other_for_ever() {
    let memory = memory(LEN);
    let (hypervisor, window) = attached(&memory);
    let stop = Stop(AtomicBool::new(false));
    thread::scope(|scope| {
        let end = stop.at_end();
        let reader = scope.spawn(|| {
            let cpu = Cpu { hypervisor: &hypervisor, window: &window };
            while !stop.is_set() {
                assert!(matches!(cpu.load(Hpa(BASE.0 + LEN - PAGE)), 0 | 0xff));
            }
        });
        let rerouter = scope.spawn(|| {
            for round in 0..500 {
                let decoders = if round % 2 == 0 { vec![] } else { vec![decoder(0, 64 * MIB, 0)] };
                window.set_decoders(D0, decoders).unwrap();
                assert!(window.slots().is_some());
            }
        });
        for _ in 0..500 {
            let removed = window.unmap_all(D0, &[range(0, PAGE), range(HOLE, HOLE_LEN)]).unwrap();
            window.map_all(D0, removed).unwrap();
        }
        assert!(rerouter.join().is_ok());
        drop(end);
        assert!(reader.join().is_ok());
    });
    window.set_decoders(D0, vec![]).unwrap();
    assert_eq!(hypervisor.regions(), []);
    window.set_decoders(D0, vec![decoder(0, 64 * MIB, 0)]).unwrap();
    assert_eq!(hypervisor.covered(), [(BASE.0, LEN)]);
}
