//! A hypervisor whose processors are threads of this process: for tests of whoever fills slots.
//!
//! It holds its users to the trait's rules, and panics where they break one. Deliberately absent: a guest.

use std::collections::BTreeMap;
use std::io;
use std::ptr::with_exposed_provenance_mut;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use wire::Hpa;

use super::hypervisor::{Hypervisor, SlotAccess, SlotLog, SlotRegion};

/// Numbered regions. A processor holds the read side while it accesses memory through one, so that a slot is cleared
/// when no processor is in it.
#[derive(Debug)]
pub struct FakeHypervisor {
    limit: u32,
    slots: RwLock<BTreeMap<u32, Slot>>,
    refuses: AtomicBool,
    sticks: AtomicBool,
    forgets: AtomicBool,
    calls: AtomicU64,
}

#[derive(Debug)]
struct Slot {
    region: SlotRegion,
    /// A bit for each page that was stored to, where there is a log.
    log: Option<Vec<AtomicU64>>,
}

impl Slot {
    fn new(region: SlotRegion, log: SlotLog) -> Self {
        let words = page_of(region.len_bytes - 1) / 64 + 1;
        let empty = || (0..words).map(|_| AtomicU64::new(0)).collect();
        Self { region, log: (log == SlotLog::On).then(empty) }
    }

    fn record(&self, into: u64) {
        if let Some(log) = &self.log {
            let page = page_of(into);
            log[(page / 64) as usize].fetch_or(1 << (page % 64), Ordering::Release);
        }
    }
}

fn page_of(bytes: u64) -> u64 {
    bytes / rustix::param::page_size() as u64
}

impl FakeHypervisor {
    /// With so many slots, all empty.
    pub fn new(limit: u32) -> Arc<Self> {
        let (slots, refuses, sticks, forgets, calls) = Default::default();
        Arc::new(Self { limit, slots, refuses, sticks, forgets, calls })
    }

    /// From now on no slot is filled, or slots are again.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// From now on no slot is cleared, or slots are again.
    pub fn stick(&self, sticks: bool) {
        self.sticks.store(sticks, Ordering::Relaxed);
    }

    /// From now on no log is begun, and what is in the others is lost, or not any more.
    pub fn forget(&self, forgets: bool) {
        self.forgets.store(forgets, Ordering::Relaxed);
    }

    /// Numbers of the slots that have a log.
    pub fn logging(&self) -> Vec<u32> {
        self.slots().iter().filter(|(_, slot)| slot.log.is_some()).map(|(number, _)| *number).collect()
    }

    /// How often slots were filled and cleared so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The regions: number, first address, length and access.
    pub fn regions(&self) -> Vec<(u32, u64, u64, SlotAccess)> {
        let slots = self.slots();
        let mut regions: Vec<_> =
            slots.iter().map(|(n, Slot { region: r, .. })| (*n, r.hpa.0, r.len_bytes, r.access)).collect();
        regions.sort_unstable_by_key(|(_, hpa, ..)| *hpa);
        regions
    }

    /// First address and length of what a guest reaches, one for neighbours.
    pub fn covered(&self) -> Vec<(u64, u64)> {
        let mut covered: Vec<(u64, u64)> = Vec::new();
        for (_, hpa, len_bytes, _) in self.regions() {
            match covered.last_mut() {
                Some(last) if last.0 + last.1 == hpa => last.1 += len_bytes,
                _ => covered.push((hpa, len_bytes)),
            }
        }
        covered
    }

    /// A load of one byte by a processor: `None` is an exit.
    pub fn load(&self, hpa: Hpa) -> Option<u8> {
        // SAFETY: a byte fits everywhere in a region.
        self.reach(hpa, SlotAccess::ReadOnly, |byte| unsafe { AtomicU8::from_ptr(byte) }.load(Ordering::Acquire))
    }

    /// A load of eight bytes by a processor: `None` is an exit.
    ///
    /// # Panics
    ///
    /// At an address that is no multiple of 8.
    pub fn load_u64(&self, hpa: Hpa) -> Option<u64> {
        assert!(hpa.0.is_multiple_of(8), "{hpa} is not aligned");
        self.reach(hpa, SlotAccess::ReadOnly, |byte| {
            // SAFETY: regions are whole pages, so that eight aligned bytes are in one of them or in none.
            u64::from_le(unsafe { AtomicU64::from_ptr(byte.cast()) }.load(Ordering::Acquire))
        })
    }

    /// A store of one byte by a processor: `None` is an exit.
    pub fn store(&self, hpa: Hpa, value: u8) -> Option<()> {
        self.reach(hpa, SlotAccess::ReadWrite, |byte| {
            // SAFETY: as for a load; regions that may be written are mapped so.
            unsafe { AtomicU8::from_ptr(byte) }.store(value, Ordering::Release);
        })
    }

    /// Accesses memory with the lock held that a slot is cleared under: until then it was promised to be mapped. All
    /// accesses to it are atomic or volatile.
    fn reach<T>(&self, hpa: Hpa, access: SlotAccess, at: impl FnOnce(*mut u8) -> T) -> Option<T> {
        let slots = self.slots();
        let has = |slot: &&Slot| hpa.bytes_from(slot.region.hpa).is_some_and(|into| into < slot.region.len_bytes);
        let slot = slots.values().find(has)?;
        let region = slot.region;
        if access == SlotAccess::ReadWrite && region.access == SlotAccess::ReadOnly {
            return None;
        }
        let into = hpa.0 - region.hpa.0;
        let reached = at(with_exposed_provenance_mut::<u8>(region.host_address + into as usize));
        if access == SlotAccess::ReadWrite {
            slot.record(into);
        }
        Some(reached)
    }

    fn slots(&self) -> RwLockReadGuard<'_, BTreeMap<u32, Slot>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn slots_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<u32, Slot>> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_remembers(&self) -> io::Result<()> {
        if self.forgets.load(Ordering::Relaxed) { Err(io::Error::other("forgotten by the test")) } else { Ok(()) }
    }
}

impl Hypervisor for FakeHypervisor {
    fn slot_limit(&self) -> u32 {
        self.limit
    }

    // SAFETY: it only remembers the region, and reaches it under the caller's promise.
    unsafe fn set_slot(&self, number: u32, region: SlotRegion, log: SlotLog) -> io::Result<()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(io::Error::other("refused by the test"));
        }
        let mut slots = self.slots_mut();
        assert!(number < self.limit, "{number} is no slot");
        let (start, end) = (region.hpa.0, region.hpa.0 + region.len_bytes);
        let page_bytes = rustix::param::page_size() as u64;
        assert!([start, end, region.host_address as u64].iter().all(|at| at % page_bytes == 0), "{region:?}");
        assert!(log == SlotLog::Off || region.access == SlotAccess::ReadWrite, "a log of what nobody writes");
        let meets = |other: &Slot| start < other.region.hpa.0 + other.region.len_bytes && other.region.hpa.0 < end;
        assert!(!slots.values().any(meets), "{region:?} overlaps a slot");
        assert!(slots.insert(number, Slot::new(region, log)).is_none(), "{number} is filled");
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    // SAFETY: it reaches no more than before.
    unsafe fn set_log(&self, number: u32, region: SlotRegion, log: SlotLog) -> io::Result<()> {
        self.check_remembers()?;
        let mut slots = self.slots_mut();
        let slot = slots.get_mut(&number).unwrap_or_else(|| panic!("{number} is empty"));
        assert_eq!(slot.region, region, "not what {number} was filled with");
        if slot.log.is_some() != (log == SlotLog::On) {
            *slot = Slot::new(region, log);
        }
        Ok(())
    }

    // SAFETY: a wrong length is a panic.
    unsafe fn dirty_log(&self, number: u32, len_bytes: u64) -> io::Result<Vec<u64>> {
        let slots = self.slots();
        let slot = slots.get(&number).unwrap_or_else(|| panic!("{number} is empty"));
        assert_eq!(slot.region.len_bytes, len_bytes, "the length of {number}");
        let log = slot.log.as_ref().unwrap_or_else(|| panic!("{number} has no log"));
        let taken = log.iter().map(|word| word.swap(0, Ordering::Acquire)).collect();
        self.check_remembers().map(|()| taken)
    }

    fn clear_slot(&self, number: u32) -> io::Result<()> {
        if self.sticks.load(Ordering::Relaxed) {
            return Err(io::Error::other("stuck by the test"));
        }
        assert!(self.slots_mut().remove(&number).is_some(), "{number} is empty");
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
