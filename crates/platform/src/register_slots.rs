//! Slots of a hypervisor for what the platform shows beside the window: RAM, register pages and payload areas.
//!
//! ```text
//!  BAR 2 of each device ┬─ 0000 register page ── read-only slot     where the bus leads all of it to that device,
//!                       └─ 1000 payload area ─── read-write slot    else no slot: an exit, which the bus answers
//! ```
//!
//! After each change of where BARs answer ([`Placement::settle`]) slots that are at the wrong place are cleared before
//! new ones are filled, and the change returns when that is done. A place without a slot is slow, never wrong.
//! Deliberately absent: component registers and the MSI-X table, which have effects; and the window, which has slots of
//! its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::config_space::PAYLOAD_OFFSET;
use memory::{HostMemory, SlotAccess, SlotError, SlotRequest, Slots, StuckSlot};
use wire::Hpa;

use crate::address_map::AddressMap;
use crate::face::{BarIndex, Face};

/// What is shown where.
#[derive(Debug)]
pub(crate) struct Placement {
    slots: Arc<Slots>,
    ram: Vec<Hpa>,
    registers: BTreeMap<Hpa, Shown>,
}

/// Memory of a device that its BAR shows.
#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) len_bytes: u64,
    memory: Arc<HostMemory>,
    access: SlotAccess,
}

impl Placement {
    /// Puts RAM into slots, whole pages of it.
    pub(crate) fn new(slots: Arc<Slots>, map: &AddressMap, ram: &Arc<HostMemory>) -> Result<Self, SlotError> {
        let mut placement = Self { slots, ram: Vec::new(), registers: BTreeMap::new() };
        let page_bytes = placement.slots.page_bytes();
        let parts = map.ram_parts().map(|(hpa, offset_bytes, len)| (hpa, offset_bytes, len - len % page_bytes));
        for (hpa, offset_bytes, len_bytes) in parts.into_iter().filter(|(.., len_bytes)| *len_bytes > 0) {
            let (memory, access) = (Arc::clone(ram), SlotAccess::ReadWrite);
            let request = SlotRequest { hpa, len_bytes, memory, offset_bytes, access };
            match placement.slots.fill(request) {
                Ok(()) => placement.ram.push(hpa),
                Err(error) => {
                    // A slot that is stuck besides has raised the table's alarm.
                    placement.clear().ok();
                    return Err(error);
                }
            }
        }
        Ok(placement)
    }

    /// Makes the slots of registers those of `shown`. What is stuck stays, and has raised the table's alarm.
    pub(crate) fn settle(&mut self, shown: &BTreeMap<Hpa, Shown>) {
        let Self { slots, registers, .. } = self;
        registers.retain(|hpa, old| shown.get(hpa).is_some_and(|new| new.is_same(old)) || slots.clear(*hpa).is_err());
        for (hpa, new) in shown {
            let Shown { len_bytes, memory, access } = new.clone();
            let request = SlotRequest { hpa: *hpa, len_bytes, memory, offset_bytes: 0, access };
            // One that cannot be filled is served by exits, and has its next chance at the next change.
            if !registers.contains_key(hpa) && slots.fill(request).is_ok() {
                registers.insert(*hpa, new.clone());
            }
        }
    }

    /// Clears all of them. The first one that is stuck comes back.
    pub(crate) fn clear(self) -> Result<(), StuckSlot> {
        let filled = self.registers.keys().chain(&self.ram);
        filled.map(|hpa| self.slots.clear(*hpa)).fold(Ok(()), Result::and)
    }
}

impl Shown {
    /// What a device shows where its BAR answers.
    pub(crate) fn of(face: &Face) -> Vec<(Hpa, Self)> {
        let Some((base, _)) = face.bar(BarIndex::Device) else { return Vec::new() };
        let page = Self { len_bytes: PAYLOAD_OFFSET, memory: face.register_page(), access: SlotAccess::ReadOnly };
        let area = face.payload_area();
        let payload = Self { len_bytes: area.len_bytes(), memory: area, access: SlotAccess::ReadWrite };
        // The payload is in the BAR, which ends inside the address space.
        vec![(base, page), (Hpa(base.0 + PAYLOAD_OFFSET), payload)]
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory)
    }
}
