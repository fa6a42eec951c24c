//! The table of slots of one hypervisor.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use wire::Hpa;

use crate::host_memory::HostMemory;

use super::error::{SlotError, StuckSlot};
use super::hypervisor::{Hypervisor, SlotAccess, SlotLog, SlotRegion};
use super::tracking::begun;

/// Slots that [`Slots::fill_spare`] leaves: two for RAM, and for each of 32 root ports a register page and a payload.
const RESERVED_MAX: u32 = 66;
/// It leaves no more than one of so many, where the hypervisor has few.
const RESERVED_SHARE: u32 = 4;

/// Memory to be shown at guest-physical addresses.
#[derive(Clone, Debug)]
pub struct SlotRequest {
    /// First guest-physical address.
    pub hpa: Hpa,
    /// Length in bytes.
    pub len_bytes: u64,
    /// The memory. One that takes no writes is shown read-only, whatever the access.
    pub memory: Arc<HostMemory>,
    /// Where in the memory it begins, in bytes.
    pub offset_bytes: u64,
    /// What the guest may do without an exit.
    pub access: SlotAccess,
}

/// How full the table is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotCounts {
    /// How many slots the hypervisor has.
    pub limit: u32,
    /// How many are filled.
    pub in_use: u32,
    /// Bytes of guest-physical addresses in filled slots.
    pub bytes: u64,
}

/// Who hears of a slot that cannot be cleared.
type Alarm = Arc<dyn Fn(&StuckSlot) + Send + Sync>;

/// The slots of one hypervisor. Dropping it clears all of them.
pub struct Slots {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) page_bytes: u64,
    table: Mutex<Table>,
    alarm: OnceLock<Alarm>,
}

#[derive(Default)]
pub(super) struct Table {
    /// By first address; no two share an address.
    pub(super) filled: BTreeMap<Hpa, Filled>,
    bytes: u64,
    /// Numbers given out and given back.
    free: Vec<u32>,
    /// The first number that was never given out.
    next: u32,
    /// Whether slots that are filled from now on have a log.
    pub(super) log: SlotLog,
    /// How many see to it that no processor runs.
    pub(super) still: u32,
}

pub(super) struct Filled {
    pub(super) number: u32,
    pub(super) region: SlotRegion,
    /// What the hypervisor was promised stays mapped.
    pub(super) memory: Arc<HostMemory>,
    /// Where in it the region begins, in bytes.
    pub(super) offset_bytes: u64,
    pub(super) log: SlotLog,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

impl Slots {
    /// The slots of a hypervisor, which nobody else may fill: all empty.
    pub fn new(hypervisor: Arc<dyn Hypervisor>) -> Self {
        let page_bytes = rustix::param::page_size() as u64;
        Self { hypervisor, page_bytes, table: Mutex::default(), alarm: OnceLock::new() }
    }

    /// Connects who hears of every slot that cannot be cleared; the first one stays. It is called with locks held, from
    /// any thread: it must neither wait for anything nor call back.
    pub fn connect_alarm(&self, alarm: Arc<dyn Fn(&StuckSlot) + Send + Sync>) {
        self.alarm.get_or_init(|| alarm);
    }

    /// Bytes of a page: slots begin and end at multiples of it.
    pub fn page_bytes(&self) -> u64 {
        self.page_bytes
    }

    /// How full the table is.
    pub fn counts(&self) -> SlotCounts {
        let table = self.table();
        SlotCounts { limit: self.hypervisor.slot_limit(), in_use: table.filled.len() as u32, bytes: table.bytes }
    }

    /// Shows memory at guest-physical addresses. The memory stays mapped until [`Slots::clear`] of its first address.
    ///
    /// # Errors
    ///
    /// What stands in the way; nothing has changed then.
    pub fn fill(&self, request: SlotRequest) -> Result<(), SlotError> {
        self.fill_below(request, self.hypervisor.slot_limit())
    }

    /// As [`Slots::fill`], for what there may be any number of: it leaves slots for registers and RAM that come later.
    ///
    /// # Errors
    ///
    /// As [`Slots::fill`].
    pub fn fill_spare(&self, request: SlotRequest) -> Result<(), SlotError> {
        let limit = self.hypervisor.slot_limit();
        self.fill_below(request, limit - RESERVED_MAX.min(limit / RESERVED_SHARE))
    }

    /// Takes the slot that begins at `hpa` away; without one nothing happens. When it returns, no processor reaches the
    /// memory through it.
    ///
    /// # Errors
    ///
    /// The slot stays, and keeps its memory; the alarm was raised.
    pub fn clear(&self, hpa: Hpa) -> Result<(), StuckSlot> {
        let mut table = self.table();
        let Some(filled) = table.filled.get(&hpa) else { return Ok(()) };
        if let Err(source) = self.clear_filled(filled, table.still > 0) {
            let stuck = StuckSlot { hpa, len_bytes: filled.region.len_bytes, reason: source.to_string() };
            drop(table);
            if let Some(alarm) = self.alarm.get() {
                alarm(&stuck);
            }
            return Err(stuck);
        }
        let gone = table.remove(hpa);
        drop(table);
        // Giving memory back can take long: not with the table locked.
        drop(gone);
        Ok(())
    }

    fn fill_below(&self, request: SlotRequest, limit: u32) -> Result<(), SlotError> {
        let region = self.region(&request)?;
        let SlotRequest { hpa, len_bytes, memory, offset_bytes, access: _ } = request;
        let mut table = self.table();
        table.check_overlap(hpa, len_bytes)?;
        if table.filled.len() >= limit as usize {
            return Err(SlotError::Full { limit: self.hypervisor.slot_limit() });
        }
        let log = begun(table.log, &memory, region);
        let number = table.take_number();
        // SAFETY: the region is inside `memory`, which is mapped there for as long as it lives; it is only writable
        // for the guest where it is in this process; and the table keeps it until the slot was cleared, or for ever.
        let set = unsafe { self.hypervisor.set_slot(number, region, log) };
        if let Err(source) = set {
            table.free.push(number);
            return Err(SlotError::Refused { hpa, len_bytes, source });
        }
        table.bytes += len_bytes;
        table.filled.insert(hpa, Filled { number, region, memory, offset_bytes, log });
        Ok(())
    }

    fn region(&self, request: &SlotRequest) -> Result<SlotRegion, SlotError> {
        let SlotRequest { hpa, len_bytes, ref memory, offset_bytes, access } = *request;
        let page_bytes = self.page_bytes;
        if len_bytes == 0 || hpa.checked_add(len_bytes).is_none() {
            return Err(SlotError::NoRange { hpa, len_bytes });
        }
        let size_bytes = memory.len_bytes();
        if offset_bytes.checked_add(len_bytes).is_none_or(|end| end > size_bytes) {
            return Err(SlotError::OutsideMemory { offset_bytes, len_bytes, size_bytes });
        }
        let is_aligned = [hpa.0, len_bytes, offset_bytes].into_iter().all(|value| value.is_multiple_of(page_bytes));
        if !is_aligned {
            return Err(SlotError::Unaligned { hpa, len_bytes, offset_bytes, page_bytes });
        }
        let access = if memory.takes_writes() { access } else { SlotAccess::ReadOnly };
        // Inside the mapping, so neither the conversion nor the sum can be out of range.
        let host_address = memory.host_address() + offset_bytes as usize;
        Ok(SlotRegion { hpa, len_bytes, host_address, access })
    }

    // A panic cannot leave the table half changed: each change is the last step of its function.
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        let table = std::mem::take(self.table.get_mut().unwrap_or_else(PoisonError::into_inner));
        for filled in table.filled.into_values() {
            if self.clear_filled(&filled, table.still > 0).is_err() {
                // The guest may still reach it: mapped for ever is the lesser harm.
                std::mem::forget(filled.memory);
            }
        }
    }
}

impl Table {
    fn check_overlap(&self, hpa: Hpa, len_bytes: u64) -> Result<(), SlotError> {
        // Its end was checked, and so was that of every slot.
        let end = Hpa(hpa.0 + len_bytes);
        match self.filled.range(..end).next_back() {
            Some((&slot_hpa, slot)) if slot_hpa.0 + slot.region.len_bytes > hpa.0 => {
                Err(SlotError::Overlap { hpa: hpa.max(slot_hpa), slot_hpa, slot_len_bytes: slot.region.len_bytes })
            }
            _ => Ok(()),
        }
    }

    fn take_number(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn remove(&mut self, hpa: Hpa) -> Option<Filled> {
        let filled = self.filled.remove(&hpa)?;
        self.bytes -= filled.region.len_bytes;
        self.free.push(filled.number);
        Some(filled)
    }
}
