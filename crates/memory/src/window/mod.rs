//! The window: where a guest sees the memory of its devices.
//!
//! ```text
//!  HPA ──first decoder that decodes it──▶ (device, DPA) ──piece──▶ memory + offset
//!   │              │ none                                 │ none
//!   │              └───────────────▶ reads all ones, writes vanish ◀┘
//!   └─ inside a route: only the decoders of the device whose turn it is are asked
//! ```
//!
//! An access holds the read side of one lock while it copies. Where two devices decode one address and no [`Route`]
//! chooses, the lower device index answers.
//!
//! The lookup is the truth; slots ([`Window::attach`]) only cache it, so that a guest's processor needs no exit. A change
//! takes these steps, one change at a time:
//!
//! ```text
//!  changes ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄ locked from begin to end
//!    1 write-lock the lookup: accesses under way end; change it; unlock
//!    2 clear the slots of what has changed: processors in the guest let go of it
//!    3 fill slots with what the lookup shows there now, and with what else was in the cleared ones
//! ```
//!
//! *No stale access*: after step 1 no exit, and after step 2 no processor, reaches what was taken away, and only then the
//! change returns. *The kept part of a release is never missing*: its slot shows it until step 2 and from step 3 on; in
//! between an access to it is an exit, and the lookup has shown it all the while; both are the same bytes of the same
//! memory, so that no store is lost. *No deadlock*: an exit waits for the lookup alone, which is locked for writing only
//! while it is changed, never while a slot is; a slot that is being cleared waits for processors that are in the guest,
//! never for a thread that answers an exit. A thread that changes the window from within an exit is not in the guest
//! while it waits for its turn.
//!
//! An instruction that reads and writes at once comes back from a hypervisor as two exits. While its slot is replaced, it
//! is one for other processors only where they stand still: that is for whoever runs them. Deliberately absent: why a
//! piece is mapped.

mod error;
mod lookup;
mod route;
mod shown;
mod slotted;
mod trapped;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use device::DpaRange;
use device::config::DeviceIndex;
use device::decode::DecodedRange;
use wire::{Dpa, Hpa};

use crate::host_memory::HostMemory;
use crate::slots::{Slots, StuckSlot};

pub use error::{Refused, WindowError};
pub use route::Route;
pub use trapped::{TrapCount, TrapReason};

use lookup::{Lookup, Stretch};
use shown::in_pages;
use slotted::Slotted;

/// A stretch of a memory behind a device's addresses.
#[derive(Clone)]
pub struct Piece {
    /// First device-physical address.
    pub dpa: Dpa,
    /// Length in bytes.
    pub len_bytes: u64,
    /// The memory.
    pub memory: Arc<HostMemory>,
    /// Where in the memory it begins, in bytes.
    pub offset_bytes: u64,
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x} at {:#x}", self.dpa, self.len_bytes, self.offset_bytes)
    }
}

/// A stretch of guest-physical addresses that shows a memory, through a decoder without interleave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First guest-physical address.
    pub hpa: Hpa,
    /// Length in bytes.
    pub len_bytes: u64,
    /// The device.
    pub device: DeviceIndex,
    /// First device-physical address.
    pub dpa: Dpa,
    /// Where in the memory it begins, in bytes.
    pub offset_bytes: u64,
}

/// How many stretches of accesses were answered; statistics only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounters {
    /// By a memory.
    pub hits: u64,
    /// By all ones, or not at all.
    pub misses: u64,
}

/// What of the window guests reach without an exit, and what not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowSlots {
    /// Slots in use.
    pub slots: u64,
    /// Bytes of guest-physical addresses in them.
    pub bytes: u64,
    /// What is trapped although a decoder shows it, and why.
    pub trapped: BTreeMap<TrapReason, TrapCount>,
    /// Stretches of accesses that the lookup answered from a memory since slots were attached.
    pub trapped_accesses: u64,
}

/// The lookup from guest-physical addresses to memory, and its slots.
#[derive(Debug)]
pub struct Window {
    base: Hpa,
    size_bytes: u64,
    lookup: RwLock<Lookup>,
    /// Held over every change, and locked before the lookup.
    slotted: Mutex<Option<Slotted>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Window {
    /// An empty window. A window that would leave the address space ends with it.
    pub fn new(base: Hpa, size_bytes: u64) -> Self {
        Self {
            base,
            size_bytes: size_bytes.min(u64::MAX - base.0),
            lookup: RwLock::default(),
            slotted: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    /// First guest-physical address.
    pub fn base(&self) -> Hpa {
        self.base
    }

    /// Length in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Shows in slots what the lookup shows, now and after every change from now on. Slots that were attached before are
    /// cleared.
    ///
    /// # Errors
    ///
    /// A slot from before is stuck: those that could be cleared are, and the new ones are not attached.
    pub fn attach(&self, slots: Arc<Slots>) -> Result<(), StuckSlot> {
        let mut slotted = self.slotted();
        clear_all(&mut slotted)?;
        *slotted = Some(Slotted::new(slots, self.counters().hits));
        self.settle(&mut slotted, vec![self.range()])
    }

    /// Clears the window's slots: from then on every access is answered by the lookup.
    ///
    /// # Errors
    ///
    /// A slot is stuck: those that could be cleared are.
    pub fn detach(&self) -> Result<(), StuckSlot> {
        clear_all(&mut self.slotted())
    }

    /// What is in slots and what is not; `None` where none are attached. Costs a walk over the pieces behind interleaved
    /// decoders.
    pub fn slots(&self) -> Option<WindowSlots> {
        let slotted = self.slotted();
        let slotted = slotted.as_ref()?;
        let mut trapped = slotted.trapped().clone();
        for (reason, count) in self.lookup().trapped() {
            let all = trapped.entry(reason).or_default();
            all.pieces += count.pieces;
            all.bytes += count.bytes;
        }
        trapped.retain(|_, count| count.pieces > 0);
        let (slots, bytes) = slotted.filled();
        let trapped_accesses = self.counters().hits - slotted.served_before;
        Some(WindowSlots { slots, bytes, trapped, trapped_accesses })
    }

    /// Sets what the committed decoders of one device decode, in their order, in place of what they decoded before.
    ///
    /// # Errors
    ///
    /// The lookup has changed, and a slot that shows what was there is stuck.
    pub fn set_decoders(&self, device: DeviceIndex, decoded: Vec<DecodedRange>) -> Result<(), StuckSlot> {
        self.change(|lookup| Ok(((), lookup.set_decoders(device, decoded))))
    }

    /// Sets what the host bridge spreads over devices, in place of what it spread before. No two routes may share an
    /// address ([`Route::overlaps`]).
    ///
    /// # Errors
    ///
    /// The lookup has changed, and a slot that shows what was there is stuck.
    pub fn set_routes(&self, routes: Vec<Route>) -> Result<(), StuckSlot> {
        self.change(|lookup| Ok(((), lookup.set_routes(routes))))
    }

    /// Puts a memory behind device-physical addresses.
    ///
    /// # Errors
    ///
    /// As [`Window::map_all`].
    pub fn map(&self, device: DeviceIndex, piece: Piece) -> Result<(), WindowError> {
        self.map_all(device, vec![piece]).map_err(|refused| refused.error)
    }

    /// Puts memories behind device-physical addresses, all of them or none. Neighbours share a slot. A piece that cannot
    /// be in one is no error: it is served by the lookup.
    ///
    /// # Errors
    ///
    /// Which piece stands in the way of what.
    pub fn map_all(&self, device: DeviceIndex, pieces: Vec<Piece>) -> Result<(), Refused> {
        self.change(|lookup| Ok(((), lookup.map(device, pieces)?)))
    }

    /// Takes away what is behind a range of device-physical addresses.
    ///
    /// # Errors
    ///
    /// As [`Window::unmap_all`].
    pub fn unmap(&self, device: DeviceIndex, dpa: Dpa, len_bytes: u64) -> Result<Vec<Piece>, WindowError> {
        self.unmap_all(device, &[DpaRange { start: dpa, len_bytes }]).map_err(|refused| refused.error)
    }

    /// Takes away what is behind ranges of device-physical addresses, all of it or nothing; of a piece that reaches
    /// beyond them, the rest stays, and every access to it is answered from its memory all the while. When it returns,
    /// no access under way reaches the memory through the ranges. Returns what was there, so that a removal can be
    /// undone, and so that it is dropped after the locks: giving memory back can take long.
    ///
    /// # Errors
    ///
    /// Which range is not mapped. [`WindowError::Stuck`] where all is removed from the lookup, and a slot still shows it.
    pub fn unmap_all(&self, device: DeviceIndex, ranges: &[DpaRange]) -> Result<Vec<Piece>, Refused> {
        self.change(|lookup| lookup.unmap(device, ranges))
    }

    /// Fills `to` from `hpa` on: all ones where no memory is.
    pub fn read(&self, hpa: Hpa, to: &mut [u8]) {
        let lookup = self.lookup();
        let mut done = 0;
        while let Some(left) = to.get_mut(done..).filter(|left| !left.is_empty()) {
            let stretch = self.stretch(&lookup, hpa, done, left.len());
            let part = &mut left[..stretch.len_bytes as usize];
            if stretch.target.is_none_or(|(memory, offset_bytes)| memory.read(offset_bytes, part).is_err()) {
                part.fill(0xff);
            }
            done += part.len();
        }
    }

    /// Puts `from` at `hpa`: where no memory is, it vanishes.
    pub fn write(&self, hpa: Hpa, from: &[u8]) {
        let lookup = self.lookup();
        let mut done = 0;
        while let Some(left) = from.get(done..).filter(|left| !left.is_empty()) {
            let stretch = self.stretch(&lookup, hpa, done, left.len());
            let part = &left[..stretch.len_bytes as usize];
            if let Some((memory, offset_bytes)) = stretch.target {
                // A piece is inside its memory, so this cannot be out of range.
                let _ = memory.write(offset_bytes, part);
            }
            done += part.len();
        }
    }

    /// What the guest sees through decoders without interleave, in the order of its addresses. A decoder that shares
    /// an address with another one, or with a route that does not lead to its device alone, is left out: the lookup
    /// serves it.
    pub fn mappings(&self) -> Vec<Mapping> {
        self.lookup().mappings(&self.range())
    }

    /// How many stretches were answered so far.
    pub fn counters(&self) -> WindowCounters {
        WindowCounters { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed) }
    }

    /// What is behind `hpa + done`, for at most `left` bytes and at least one.
    fn stretch<'a>(&self, lookup: &'a Lookup, hpa: Hpa, done: usize, left: usize) -> Stretch<'a> {
        let left = left as u64;
        let at = hpa.checked_add(done as u64);
        let stretch = match at.and_then(|at| Some((at, at.bytes_from(self.base)?))) {
            Some((at, offset)) if offset < self.size_bytes => lookup.stretch(at, left.min(self.size_bytes - offset)),
            Some((_, _)) | None => {
                let until_base = at.and_then(|at| self.base.bytes_from(at)).filter(|bytes| *bytes > 0);
                Stretch { len_bytes: until_base.map_or(left, |bytes| bytes.min(left)), target: None }
            }
        };
        let counter = if stretch.target.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        stretch
    }

    fn range(&self) -> Range<Hpa> {
        self.base..Hpa(self.base.0 + self.size_bytes)
    }

    /// Changes the lookup, then brings the slots in line. `change` says where the guest sees other memory now.
    fn change<T, E: From<StuckSlot>>(
        &self,
        change: impl FnOnce(&mut Lookup) -> Result<(T, Vec<Range<Hpa>>), E>,
    ) -> Result<T, E> {
        let mut slotted = self.slotted();
        // The lookup's lock is not kept: whoever waits for it may be needed to let go of a slot.
        let (changed, ranges) = change(&mut self.lookup_mut())?;
        self.settle(&mut slotted, ranges)?;
        Ok(changed)
    }

    fn settle(&self, slotted: &mut Option<Slotted>, ranges: Vec<Range<Hpa>>) -> Result<(), StuckSlot> {
        let Some(slotted) = slotted else { return Ok(()) };
        let changed = in_pages(ranges, slotted.page_bytes());
        let window = self.range();
        let within = |range: &Range<Hpa>| range.start.max(window.start)..range.end.min(window.end);
        let visible: Vec<_> = changed.iter().map(within).filter(|range| !range.is_empty()).collect();
        let shown = self.lookup().shown(&visible);
        slotted.settle(&changed, shown)
    }

    // A panic cannot leave the lookup half changed: each change is one insertion or follows its checks.
    fn lookup(&self) -> RwLockReadGuard<'_, Lookup> {
        self.lookup.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lookup_mut(&self) -> RwLockWriteGuard<'_, Lookup> {
        self.lookup.write().unwrap_or_else(PoisonError::into_inner)
    }

    // What a panic leaves here is fewer slots than there could be: they only cache.
    fn slotted(&self) -> MutexGuard<'_, Option<Slotted>> {
        self.slotted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn clear_all(slotted: &mut Option<Slotted>) -> Result<(), StuckSlot> {
    if let Some(attached) = slotted {
        attached.clear_all()?;
    }
    *slotted = None;
    Ok(())
}
