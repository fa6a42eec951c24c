//! Slots that follow the registers: wherever a processor needs no exit, the bus would have answered the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use device::config_space::ConfigSpace;
use memory::{FakeHypervisor, HostMemory, SlotAccess, SlotRequest, Slots};
use platform::{AttachError, BarIndex, MMIO_BASE, Platform, ROOT_PORT_BUS};
use proptest::prelude::*;
use wire::Hpa;

use crate::bus::{GIB, enumerate, platform};
use crate::rig::{CONTROL, PAYLOAD, Rig};

const LOG2: u8 = 12;
const PAGE: u64 = 4096;
const RAM: u64 = 3 * GIB;
/// The two parts of RAM in the list of slots.
const RAM_PARTS: usize = 2;

struct Machine {
    rigs: Vec<Rig>,
    hypervisor: Arc<FakeHypervisor>,
    slots: Arc<Slots>,
    platform: Arc<Platform>,
}

impl Machine {
    /// Devices of so many ports, each with its number in its payload and in a register, and attached slots.
    fn new(devices: u8) -> Self {
        let rigs: Vec<_> = (0..devices).map(|device| Rig::with_payload(u64::from(device), LOG2)).collect();
        for (device, rig) in (1..).zip(&rigs) {
            rig.face.payload_area().write(0, &[device; 1 << LOG2]).unwrap();
            rig.face.set_event_status(u64::from(device));
        }
        let platform = Arc::new(platform(RAM, &rigs));
        let hypervisor = FakeHypervisor::new(32);
        let slots = Arc::new(Slots::new(hypervisor.clone()));
        platform.attach(Arc::clone(&slots)).unwrap();
        Self { rigs, hypervisor, slots, platform }
    }

    /// First address, length and access of the slots beside RAM.
    fn registers(&self) -> Vec<(u64, u64, SlotAccess)> {
        let regions = self.hypervisor.regions().into_iter();
        let beside = regions.filter(|(_, hpa, ..)| *hpa != 0 && *hpa != 4 * GIB);
        beside.map(|(_, hpa, len_bytes, access)| (hpa, len_bytes, access)).collect()
    }

    fn config(&self, bus: u8, device: u8, offset: u16, width: u8, value: u32) {
        self.platform.config_write(bus, device, 0, offset, width, value);
    }

    /// What a processor reads without an exit is what the bus answers.
    fn check(&self) {
        for (_, hpa, len_bytes, _) in self.hypervisor.regions() {
            for at in [0, 8, 0x80, 0xfe0, 0xfe8, len_bytes / 2, len_bytes - 8] {
                let mut bytes = [0x55; 8];
                self.platform.read(Hpa(hpa + at), &mut bytes);
                assert_eq!(self.hypervisor.load_u64(Hpa(hpa + at)), Some(u64::from_le_bytes(bytes)), "{:#x}", hpa + at);
            }
        }
    }
}

/// Both slots of a device whose BAR answers at `bar`.
fn both(bar: u64) -> [(u64, u64, SlotAccess); 2] {
    [(bar, PAGE, SlotAccess::ReadOnly), (bar + PAYLOAD, 1 << LOG2, SlotAccess::ReadWrite)]
}

#[test]
fn ram_registers_and_payload_need_no_exit() {
    let machine = Machine::new(1);
    assert_eq!(machine.hypervisor.regions().len(), RAM_PARTS);
    machine.hypervisor.store(Hpa(4 * GIB + 5), 9).unwrap();
    assert_eq!(machine.platform.ram().read_u8(2 * GIB + 5), Ok(9));
    let bar = enumerate(&machine.platform, 0).0 + 0x1_0000;
    assert_eq!(machine.registers(), both(bar));
    machine.check();
    assert_eq!(machine.hypervisor.store(Hpa(bar + CONTROL), 1), None, "a store to a register is an exit");
    machine.hypervisor.store(Hpa(bar + PAYLOAD + 7), 0x77).unwrap();
    machine.rigs[0].face.set_event_status(0x10);
    assert_eq!(machine.hypervisor.load_u64(Hpa(bar + 0x80)), Some(0x10));
    machine.platform.write(Hpa(bar + CONTROL), &[1, 0, 0, 0]);
    assert_eq!(machine.hypervisor.load(Hpa(bar + CONTROL)), Some(1));
    machine.check();
    machine.platform.detach().unwrap();
    assert_eq!((machine.hypervisor.regions(), machine.slots.counts().in_use), (vec![], 0));
}

#[test]
fn slots_go_where_the_registers_go() {
    let machine = Machine::new(1);
    let base = enumerate(&machine.platform, 0).0;
    let bar = base + 0x1_0000;
    machine.config(ROOT_PORT_BUS + 1, 0, 0x18, 4, (base + 0x4_0000) as u32);
    assert_eq!(machine.registers(), both(base + 0x4_0000));
    machine.config(ROOT_PORT_BUS + 1, 0, 0x18, 4, bar as u32);
    // Memory decoding of the device and of its port, and the port's windows.
    for (bus, offset, off, on) in [
        (ROOT_PORT_BUS + 1, 0x04, 0, 6),
        (ROOT_PORT_BUS, 0x04, 0, 6),
        (ROOT_PORT_BUS, 0x20, 0xfff0, (base >> 16) as u32),
    ] {
        assert_eq!(machine.registers(), both(bar));
        machine.config(bus, 0, offset, 2, off);
        assert_eq!(machine.registers(), []);
        machine.config(bus, 0, offset, 2, on);
    }
    machine.rigs[0].face.reset(ConfigSpace::new(0, LOG2));
    assert_eq!(machine.registers(), []);
    enumerate(&machine.platform, 0);
    assert_eq!(machine.registers(), both(bar));
    let face = machine.platform.unplug(0).unwrap();
    assert_eq!(machine.registers(), []);
    machine.platform.plug(0, face).unwrap();
    assert_eq!(machine.registers(), both(bar));
    machine.platform.reset();
    assert_eq!(machine.registers(), []);
}

#[test]
fn where_the_bus_answers_otherwise_there_is_no_slot() {
    let machine = Machine::new(2);
    let first = enumerate(&machine.platform, 0).0 + 0x1_0000;
    let second = enumerate(&machine.platform, 1).0 + 0x1_0000;
    let expected = [both(first), both(second)].concat();
    assert_eq!(machine.registers(), expected);
    // Configuration space by memory comes before BARs.
    machine.config(0, 0, 0x60, 4, 0xc000_0001);
    assert_eq!(machine.registers(), []);
    machine.config(0, 0, 0x60, 4, 0xb000_0000);
    assert_eq!(machine.registers(), expected);
    // The first port forwards to its device what the second's BAR has too: it comes first, however they lie.
    machine.config(ROOT_PORT_BUS, 0, 0x22, 2, (second >> 16) as u32);
    machine.config(ROOT_PORT_BUS + 1, 0, 0x18, 4, second as u32);
    assert_eq!(machine.registers(), both(second));
    assert_eq!(machine.hypervisor.load(Hpa(second + PAYLOAD)), Some(1));
    machine.check();
    // Another BAR of the same device over its register page.
    machine.config(ROOT_PORT_BUS + 1, 0, 0x10, 4, second as u32);
    assert_eq!(machine.registers(), []);
    machine.config(ROOT_PORT_BUS + 1, 0, 0x10, 4, 0);
    machine.config(ROOT_PORT_BUS + 1, 0, 0x18, 4, first as u32);
    assert_eq!(machine.registers(), expected);
    // In RAM, which comes before everything, and in the window.
    for at in [GIB, machine.platform.window().base().0] {
        machine.config(ROOT_PORT_BUS, 0, 0x24, 4, 0xfff0_0000);
        machine.config(ROOT_PORT_BUS, 0, 0x2c, 4, 0xf);
        machine.config(ROOT_PORT_BUS + 1, 0, 0x18, 4, at as u32);
        machine.config(ROOT_PORT_BUS + 1, 0, 0x1c, 4, (at >> 32) as u32);
        assert_eq!(machine.registers(), both(second));
    }
    assert_eq!(machine.hypervisor.regions().len(), RAM_PARTS + 2);
}

#[test]
fn a_payload_under_a_page_is_served_by_exits() {
    let rigs = [Rig::with_payload(0, 8)];
    let platform = Arc::new(platform(GIB, &rigs));
    let hypervisor = FakeHypervisor::new(32);
    platform.attach(Arc::new(Slots::new(hypervisor.clone()))).unwrap();
    let bar = enumerate(&platform, 0).0 + 0x1_0000;
    assert_eq!(hypervisor.regions()[1..], [(1, bar, PAGE, SlotAccess::ReadOnly)]);
}

#[test]
fn without_a_slot_an_exit_answers_and_without_ram_nothing_runs() {
    let rigs = [Rig::with_payload(0, LOG2)];
    let platform = Arc::new(platform(RAM, &rigs));
    let hypervisor = FakeHypervisor::new(1);
    let slots = Arc::new(Slots::new(hypervisor.clone()));
    let error = platform.attach(Arc::clone(&slots)).unwrap_err();
    assert!(matches!(error, AttachError::Ram(_)), "{error}");
    assert_eq!(slots.counts().in_use, 0);
    let hypervisor = FakeHypervisor::new(3);
    platform.attach(Arc::new(Slots::new(hypervisor.clone()))).unwrap();
    enumerate(&platform, 0);
    assert_eq!(hypervisor.regions().len(), 3);
    // Somebody else's slot is where the registers go.
    let hypervisor = FakeHypervisor::new(8);
    let slots = Arc::new(Slots::new(hypervisor.clone()));
    let memory = Arc::new(HostMemory::anonymous(PAGE).unwrap());
    let hpa = Hpa(MMIO_BASE.0 + 0x1_0000);
    let (len_bytes, offset_bytes, access) = (PAGE, 0, SlotAccess::ReadWrite);
    slots.fill(SlotRequest { hpa, len_bytes, memory, offset_bytes, access }).unwrap();
    platform.attach(Arc::clone(&slots)).unwrap();
    assert_eq!(slots.counts().in_use, 4, "the payload has a slot, the page an exit");
}

/// A write that a host makes while it arranges the bus, or a hostile one.
fn arrangement() -> impl Strategy<Value = (u8, u8, u16, u8, u32)> {
    let bases =
        prop::sample::select(vec![0xc000_0000u32, 0xc001_0000, 0xc001_1000, 0xc010_0000, 0xc011_0000, 0x1000, 0, !0]);
    let device = (0u8..2, prop::sample::select(vec![0x10u16, 0x18, 0x20]), bases)
        .prop_map(|(port, offset, base)| (ROOT_PORT_BUS + 1 + port, 0, offset, 4, base));
    let command = (0u8..2, prop::bool::ANY, prop::bool::weighted(0.7)).prop_map(|(port, is_port, is_on)| {
        let value = if is_on { 6 } else { 0 };
        if is_port { (ROOT_PORT_BUS, port, 4, 2, value) } else { (ROOT_PORT_BUS + 1 + port, 0, 4, 2, value) }
    });
    let windows = prop::sample::select(vec![0xc000_c000u32, 0xc010_c000, 0xc010_c010, 0x0000_0000, 0x0000_fff0]);
    let window = (0u8..2, windows).prop_map(|(port, window)| (ROOT_PORT_BUS, port, 0x20, 4, window));
    let port_bar = (0u8..2, prop::sample::select(vec![0u32, 0xc001_0000, 0xc011_0000]))
        .prop_map(|(port, base)| (ROOT_PORT_BUS, port, 0x10, 4, base));
    let buses = (0u8..2, 0u8..3).prop_map(|(port, shift)| {
        let bus = ROOT_PORT_BUS + port + shift;
        (ROOT_PORT_BUS, port, 0x18, 4, u32::from_le_bytes([ROOT_PORT_BUS, bus, bus, 0]))
    });
    let ecam =
        prop::sample::select(vec![0xb000_0000u32, 0xb000_0001, 0xc000_0001]).prop_map(|bar| (0, 0, 0x60, 4, bar));
    prop_oneof![6 => device, 3 => command, 3 => window, 1 => port_bar, 1 => buses, 1 => ecam]
}

proptest! {
    #[test]
    fn however_the_bus_is_arranged_slots_answer_as_it_does(writes in prop::collection::vec(arrangement(), 1..40)) {
        let machine = Machine::new(2);
        enumerate(&machine.platform, 0);
        enumerate(&machine.platform, 1);
        for (bus, device, offset, width, value) in writes {
            machine.config(bus, device, offset, width, value);
            machine.check();
            // No two devices' registers or payloads read the same: what reads as a device's own is all led to it.
            for rig in &machine.rigs {
                let Some((Hpa(bar), _)) = rig.face.bar(BarIndex::Device) else { continue };
                for (hpa, memory) in [(bar, rig.face.register_page()), (bar + PAYLOAD, rig.face.payload_area())] {
                    let (mut seen, mut own) = (vec![0; PAGE as usize], vec![0; PAGE as usize]);
                    machine.platform.read(Hpa(hpa), &mut seen);
                    memory.read(0, &mut own).unwrap();
                    let is_in_slot = machine.registers().iter().any(|(at, ..)| *at == hpa);
                    prop_assert!(is_in_slot || seen != own, "{:#x} has no slot", hpa);
                }
            }
        }
        machine.platform.reset();
        prop_assert_eq!(machine.registers(), []);
    }
}

/// The threads that move registers are processors in exits, actors that reset a device, and operators that unplug one.
#[test]
fn whoever_moves_registers_waits_for_nobody_for_ever() {
    let machine = Machine::new(2);
    let bases = [0, 1].map(|port| enumerate(&machine.platform, port).0);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let mover = scope.spawn(|| {
            for round in 0..1_000u64 {
                let at = bases[0] + 0x1_0000 * (1 + round % 3);
                machine.config(ROOT_PORT_BUS + 1, 0, 0x18, 4, at as u32);
                machine.config(ROOT_PORT_BUS, 0, 0x04, 2, if round % 7 == 0 { 0 } else { 6 });
            }
        });
        let resetter = scope.spawn(|| {
            for round in 0..300u64 {
                machine.rigs[1].face.reset(ConfigSpace::new(1, LOG2));
                enumerate(&machine.platform, 1);
                if round % 3 == 0 {
                    let face = machine.platform.unplug(1).unwrap();
                    machine.platform.plug(1, face).unwrap();
                }
            }
        });
        let processor = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let hpa = Hpa(bases[0] + 0x1_0000 + PAYLOAD);
                let byte = machine.hypervisor.load(hpa).unwrap_or_else(|| {
                    let mut byte = [0];
                    machine.platform.read(hpa, &mut byte);
                    byte[0]
                });
                assert!(matches!(byte, 1 | 0 | 0xff), "{byte}: another device's, which has never been there");
            }
        });
        let done = [mover.join().is_ok(), resetter.join().is_ok()];
        stop.store(true, Ordering::Relaxed);
        assert!(processor.join().is_ok() && done == [true; 2]);
    });
    enumerate(&machine.platform, 0);
    assert_eq!(machine.registers(), [both(bases[0] + 0x1_0000), both(bases[1] + 0x1_0000)].concat());
    machine.check();
}
