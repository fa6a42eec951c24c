//! A hypervisor whose processors are threads of this process: for tests of whoever fills slots.
//!
//! It holds its users to the trait's rules, and panics where they break one. Deliberately absent: a guest.

use std::collections::BTreeMap;
use std::io;
use std::ptr::with_exposed_provenance_mut;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use wire::Hpa;

use super::hypervisor::{Hypervisor, SlotAccess, SlotRegion};

/// Numbered regions. A processor holds the read side while it accesses memory through one, so that a slot is cleared
/// when no processor is in it.
#[derive(Debug)]
pub struct FakeHypervisor {
    limit: u32,
    regions: RwLock<BTreeMap<u32, SlotRegion>>,
    refuses: AtomicBool,
    sticks: AtomicBool,
    calls: AtomicU64,
}

impl FakeHypervisor {
    /// With so many slots, all empty.
    pub fn new(limit: u32) -> Arc<Self> {
        let (regions, refuses, sticks, calls) = Default::default();
        Arc::new(Self { limit, regions, refuses, sticks, calls })
    }

    /// From now on no slot is filled, or slots are again.
    pub fn refuse(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// From now on no slot is cleared, or slots are again.
    pub fn stick(&self, sticks: bool) {
        self.sticks.store(sticks, Ordering::Relaxed);
    }

    /// How often slots were filled and cleared so far.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// The regions: number, first address, length and access.
    pub fn regions(&self) -> Vec<(u32, u64, u64, SlotAccess)> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let mut regions: Vec<_> = regions.iter().map(|(n, r)| (*n, r.hpa.0, r.len_bytes, r.access)).collect();
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
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        let has = |region: &&SlotRegion| hpa.bytes_from(region.hpa).is_some_and(|into| into < region.len_bytes);
        let region = regions.values().find(has)?;
        if access == SlotAccess::ReadWrite && region.access == SlotAccess::ReadOnly {
            return None;
        }
        let into = (hpa.0 - region.hpa.0) as usize;
        Some(at(with_exposed_provenance_mut::<u8>(region.host_address + into)))
    }
}

impl Hypervisor for FakeHypervisor {
    fn slot_limit(&self) -> u32 {
        self.limit
    }

    // SAFETY: it only remembers the region, and reaches it under the caller's promise.
    unsafe fn set_slot(&self, number: u32, region: SlotRegion) -> io::Result<()> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(io::Error::other("refused by the test"));
        }
        let mut regions = self.regions.write().unwrap_or_else(PoisonError::into_inner);
        assert!(number < self.limit, "{number} is no slot");
        let (start, end) = (region.hpa.0, region.hpa.0 + region.len_bytes);
        let page_bytes = rustix::param::page_size() as u64;
        assert!([start, end, region.host_address as u64].iter().all(|at| at % page_bytes == 0), "{region:?}");
        let meets = |other: &SlotRegion| start < other.hpa.0 + other.len_bytes && other.hpa.0 < end;
        assert!(!regions.values().any(meets), "{region:?} overlaps a slot");
        assert!(regions.insert(number, region).is_none(), "{number} is filled");
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn clear_slot(&self, number: u32) -> io::Result<()> {
        if self.sticks.load(Ordering::Relaxed) {
            return Err(io::Error::other("stuck by the test"));
        }
        assert!(
            self.regions.write().unwrap_or_else(PoisonError::into_inner).remove(&number).is_some(),
            "{number} is empty"
        );
        self.calls.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
