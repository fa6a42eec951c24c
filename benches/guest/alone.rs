//! A machine without a device: its processor comes back to nobody.

use std::sync::Arc;

use driver::HpaRange;
use memory::{HostMemory, SlotAccess, SlotRequest, Slots};
use vm::{Exits, GuestPlatform, GuestWord, Machine, MachineRequest, Observer, VcpuDeath};
use wire::Hpa;

pub(crate) const RAM_LEN_BYTES: u64 = 256 << 20;
/// Where a load or a store leaves the guest.
pub(crate) const REGISTERS: HpaRange = HpaRange { base: Hpa(0xc000_0000), size_bytes: 4 << 20 };
pub(crate) const WINDOW: HpaRange = HpaRange { base: Hpa(0x1_0000_0000), size_bytes: 16 << 30 };

/// A machine of one processor that has booted, with nothing but RAM.
pub(crate) struct Alone {
    // First, so that no processor runs when the rest goes.
    pub(crate) machine: Machine,
    pub(crate) slots: Slots,
}

impl Alone {
    /// Around RAM of `RAM_LEN_BYTES`.
    pub(crate) fn new(vm: &Arc<vm::Vm>, ram: &Arc<HostMemory>) -> Self {
        let slots = Slots::new(Arc::clone(vm) as _);
        fill(&slots, Hpa(0), ram, RAM_LEN_BYTES);
        let request = MachineRequest {
            ram: Arc::clone(ram),
            low_ram_len_bytes: RAM_LEN_BYTES,
            reach: vec![HpaRange { base: Hpa(0), size_bytes: RAM_LEN_BYTES }, REGISTERS, WINDOW],
            vcpus: 1,
            platform: GuestPlatform { root_buses: Vec::new(), mmio: REGISTERS, window: WINDOW, ecam_base: None },
            driver: None,
            exits: Arc::new(Nobody),
            observer: Arc::new(Nobody),
        };
        let machine = Machine::new(Arc::clone(vm), request).expect("a machine");
        machine.boot(0).expect("a boot");
        Self { machine, slots }
    }
}

/// The beginning of a memory is shown to the guest.
pub(crate) fn fill(slots: &Slots, hpa: Hpa, memory: &Arc<HostMemory>, len_bytes: u64) {
    let (memory, access) = (Arc::clone(memory), SlotAccess::ReadWrite);
    slots.fill(SlotRequest { hpa, len_bytes, memory, offset_bytes: 0, access }).expect("a slot");
}

/// A machine of KVM's that is nothing yet.
pub(crate) fn create() -> Arc<vm::Vm> {
    Arc::new(vm::Vm::create().expect("KVM"))
}

/// Memory of nothing but zeros.
pub(crate) fn memory(len_bytes: u64) -> Arc<HostMemory> {
    Arc::new(HostMemory::anonymous(len_bytes).expect("memory"))
}

struct Nobody;

impl Exits for Nobody {
    fn mmio_read(&self, _: Hpa, to: &mut [u8]) {
        to.fill(0);
    }
    fn mmio_write(&self, _: Hpa, _: &[u8]) {}
    fn port_read(&self, _: u16, to: &mut [u8]) {
        to.fill(0);
    }
    fn port_write(&self, _: u16, _: &[u8]) {}
}

impl Observer for Nobody {
    fn guest_said(&self, _: GuestWord) {}
    fn vcpu_died(&self, death: VcpuDeath) {
        panic!("{death}");
    }
}
