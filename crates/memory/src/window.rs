//! The window: where a guest sees the memory of its devices.
//!
//! ```text
//!  HPA ──first decoder that decodes it──▶ (device, DPA) ──piece──▶ memory + offset
//!   │              │ none                                 │ none
//!   │              └───────────────▶ reads all ones, writes vanish ◀┘
//!   └─ inside a route: only the decoders of the device whose turn it is are asked
//! ```
//!
//! An access holds the read side of one lock while it copies, so that [`Window::unmap`], which takes the write side,
//! returns only after every access under way. Where two devices decode one address and no [`Route`] chooses, the lower
//! device index answers.
//! Deliberately absent: why a piece is mapped, and slots of a virtual machine, which only cache [`Window::mappings`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use device::config::DeviceIndex;
use device::decode::{DecodedRange, Granularity, Ways};
use wire::{Dpa, Hpa};

use crate::host_memory::HostMemory;

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

/// Guest-physical addresses that a host bridge spreads over devices: granule by granule in the order of its targets
/// (CXL r4.0 8.2.4.20.7, 8.2.4.20.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    hpa: Hpa,
    size_bytes: u64,
    granularity: Granularity,
    targets: Vec<DeviceIndex>,
}

impl Route {
    /// A route over so many ways as there are targets. `None` without a target or a byte, or where the range leaves the
    /// address space. A target may be a device that is not there: then nobody answers in its ways.
    pub fn new(hpa: Hpa, size_bytes: u64, granularity: Granularity, targets: Vec<DeviceIndex>) -> Option<Self> {
        let is_range = size_bytes > 0 && hpa.checked_add(size_bytes).is_some();
        (is_range && !targets.is_empty()).then_some(Self { hpa, size_bytes, granularity, targets })
    }

    /// Whether two routes share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.hpa < other.end() && other.hpa < self.end()
    }

    fn end(&self) -> Hpa {
        Hpa(self.hpa.0 + self.size_bytes)
    }

    /// The device whose turn it is at `at`, and for how many bytes; `None` outside.
    fn target(&self, at: Hpa) -> Option<(DeviceIndex, u64)> {
        let offset = at.bytes_from(self.hpa).filter(|offset| *offset < self.size_bytes)?;
        let left = self.size_bytes - offset;
        if let [only] = self.targets[..] {
            return Some((only, left));
        }
        let granule_bytes = u64::from(self.granularity.bytes());
        let way = (offset / granule_bytes % self.targets.len() as u64) as usize;
        Some((self.targets[way], left.min(granule_bytes - offset % granule_bytes)))
    }

    /// Whether all of a range is one device's.
    fn leads_to(&self, device: DeviceIndex, start: Hpa, end: Hpa) -> bool {
        self.targets == [device] && self.hpa <= start && end <= self.end()
    }
}

/// Why a piece was not mapped or unmapped; nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// No bytes, or a range that leaves the address space.
    #[error("{len_bytes:#x} bytes from DPA {dpa} on are no range of device-physical addresses")]
    NoRange {
        /// First device-physical address.
        dpa: Dpa,
        /// Length in bytes.
        len_bytes: u64,
    },
    /// The piece is not inside its memory.
    #[error("{len_bytes:#x} bytes from offset {offset_bytes:#x} on are not inside {size_bytes:#x} bytes of memory")]
    OutsideMemory {
        /// Where in the memory the piece begins.
        offset_bytes: u64,
        /// Length in bytes.
        len_bytes: u64,
        /// Length of the memory in bytes.
        size_bytes: u64,
    },
    /// A piece is there already.
    #[error("DPA {dpa} of device {} is mapped already, by the {len_bytes:#x} bytes from {mapped} on", device.0)]
    Overlap {
        /// The device.
        device: DeviceIndex,
        /// The first address that both have.
        dpa: Dpa,
        /// First address of the piece that is there.
        mapped: Dpa,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// A range to unmap has a hole.
    #[error("DPA {dpa} of device {} is not mapped", device.0)]
    NotMapped {
        /// The device.
        device: DeviceIndex,
        /// The first address without a piece.
        dpa: Dpa,
    },
}

/// How many stretches of accesses were answered; statistics only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowCounters {
    /// By a memory.
    pub hits: u64,
    /// By all ones, or not at all.
    pub misses: u64,
}

/// The lookup from guest-physical addresses to memory.
#[derive(Debug)]
pub struct Window {
    base: Hpa,
    size_bytes: u64,
    routes: RwLock<Routes>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What an access goes by.
#[derive(Debug, Default)]
struct Routes {
    /// No two share an address.
    host: Vec<Route>,
    /// By device, then in the order of the device's decoders.
    decoders: Vec<(DeviceIndex, DecodedRange)>,
    /// No two of a device overlap; none is empty or wraps.
    pieces: BTreeMap<(DeviceIndex, Dpa), Backing>,
}

#[derive(Clone, Debug)]
struct Backing {
    len_bytes: u64,
    memory: Arc<HostMemory>,
    offset_bytes: u64,
}

/// What stands behind the first bytes of an access.
struct Stretch<'a> {
    len_bytes: u64,
    target: Option<(&'a HostMemory, u64)>,
}

impl Window {
    /// An empty window. A window that would leave the address space ends with it.
    pub fn new(base: Hpa, size_bytes: u64) -> Self {
        Self {
            base,
            size_bytes: size_bytes.min(u64::MAX - base.0),
            routes: RwLock::default(),
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

    /// Sets what the committed decoders of one device decode, in their order, in place of what they decoded before.
    pub fn set_decoders(&self, device: DeviceIndex, decoded: Vec<DecodedRange>) {
        let mut routes = self.routes_mut();
        routes.decoders.retain(|(of, _)| *of != device);
        routes.decoders.extend(decoded.into_iter().map(|range| (device, range)));
        routes.decoders.sort_by_key(|(of, _)| *of);
    }

    /// Sets what the host bridge spreads over devices, in place of what it spread before. No two routes may share an
    /// address ([`Route::overlaps`]).
    pub fn set_routes(&self, routes: Vec<Route>) {
        self.routes_mut().host = routes;
    }

    /// Puts a memory behind device-physical addresses.
    pub fn map(&self, device: DeviceIndex, piece: Piece) -> Result<(), WindowError> {
        let Piece { dpa, len_bytes, memory, offset_bytes } = piece;
        let end = range_end(dpa, len_bytes)?;
        let size_bytes = memory.len_bytes();
        if offset_bytes.checked_add(len_bytes).is_none_or(|end| end > size_bytes) {
            return Err(WindowError::OutsideMemory { offset_bytes, len_bytes, size_bytes });
        }
        let mut routes = self.routes_mut();
        if let Some((mapped, backing)) = routes.overlapping(device, dpa, end).next() {
            let len_bytes = backing.len_bytes;
            return Err(WindowError::Overlap { device, dpa: dpa.max(mapped), mapped, len_bytes });
        }
        routes.pieces.insert((device, dpa), Backing { len_bytes, memory, offset_bytes });
        Ok(())
    }

    /// Takes away what is behind a range of device-physical addresses; of a piece that reaches beyond it, the rest
    /// stays. When it returns, no access under way reaches the memory through the range. Returns what was there, so
    /// that a removal can be undone, and so that it is dropped after the lock: giving memory back can take long.
    pub fn unmap(&self, device: DeviceIndex, dpa: Dpa, len_bytes: u64) -> Result<Vec<Piece>, WindowError> {
        let end = range_end(dpa, len_bytes)?;
        self.routes_mut().remove(device, dpa, end)
    }

    /// Fills `to` from `hpa` on: all ones where no memory is.
    pub fn read(&self, hpa: Hpa, to: &mut [u8]) {
        let routes = self.routes();
        let mut done = 0;
        while let Some(left) = to.get_mut(done..).filter(|left| !left.is_empty()) {
            let stretch = self.stretch(&routes, hpa, done, left.len());
            let part = &mut left[..stretch.len_bytes as usize];
            if stretch.target.is_none_or(|(memory, offset_bytes)| memory.read(offset_bytes, part).is_err()) {
                part.fill(0xff);
            }
            done += part.len();
        }
    }

    /// Puts `from` at `hpa`: where no memory is, it vanishes.
    pub fn write(&self, hpa: Hpa, from: &[u8]) {
        let routes = self.routes();
        let mut done = 0;
        while let Some(left) = from.get(done..).filter(|left| !left.is_empty()) {
            let stretch = self.stretch(&routes, hpa, done, left.len());
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
        let routes = self.routes();
        let end = Hpa(self.base.0 + self.size_bytes);
        let mut mappings: Vec<Mapping> = routes
            .decoders
            .iter()
            .enumerate()
            .filter(|(index, (_, decoded))| decoded.ways == Ways::ONE && !routes.shares_addresses(*index))
            .flat_map(|(_, (device, decoded))| routes.mappings_of(*device, decoded))
            .filter_map(|mapping| clip(mapping, self.base, end))
            .collect();
        mappings.sort_unstable_by_key(|mapping| mapping.hpa);
        mappings
    }

    /// How many stretches were answered so far.
    pub fn counters(&self) -> WindowCounters {
        WindowCounters { hits: self.hits.load(Ordering::Relaxed), misses: self.misses.load(Ordering::Relaxed) }
    }

    /// What is behind `hpa + done`, for at most `left` bytes and at least one.
    fn stretch<'a>(&self, routes: &'a Routes, hpa: Hpa, done: usize, left: usize) -> Stretch<'a> {
        let left = left as u64;
        let at = hpa.checked_add(done as u64);
        let stretch = match at.and_then(|at| Some((at, at.bytes_from(self.base)?))) {
            Some((at, offset)) if offset < self.size_bytes => routes.stretch(at, left.min(self.size_bytes - offset)),
            Some((_, _)) | None => {
                let until_base = at.and_then(|at| self.base.bytes_from(at)).filter(|bytes| *bytes > 0);
                Stretch { len_bytes: until_base.map_or(left, |bytes| bytes.min(left)), target: None }
            }
        };
        let counter = if stretch.target.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        stretch
    }

    // A panic cannot leave the routes half changed: each change is one insertion or follows its checks.
    fn routes(&self) -> RwLockReadGuard<'_, Routes> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn routes_mut(&self) -> RwLockWriteGuard<'_, Routes> {
        self.routes.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Routes {
    fn stretch(&self, at: Hpa, left: u64) -> Stretch<'_> {
        let (only, left) = self.host_target(at, left);
        // Another decoder may answer from its base on.
        let bases = self.decoders.iter().filter_map(|(_, decoded)| decoded.hpa.bytes_from(at));
        let left = bases.filter(|bytes| *bytes > 0).fold(left, u64::min);
        let resolved = self
            .decoders
            .iter()
            .filter(|(device, _)| only.is_none_or(|only| only == *device))
            .find_map(|(device, decoded)| decoded.resolve(at).map(|(dpa, contiguous)| (*device, dpa, contiguous)));
        let Some((device, dpa, contiguous)) = resolved else {
            return Stretch { len_bytes: left, target: None };
        };
        let left = left.min(contiguous);
        if let Some((start, backing)) = self.piece_at_or_before(device, dpa) {
            let into = dpa.0 - start.0;
            if into < backing.len_bytes {
                let target = Some((&*backing.memory, backing.offset_bytes + into));
                return Stretch { len_bytes: left.min(backing.len_bytes - into), target };
            }
        }
        let next = self.pieces.range((device, dpa)..=(device, Dpa(u64::MAX))).next();
        let until_next = next.map_or(left, |((_, next), _)| next.0 - dpa.0);
        Stretch { len_bytes: left.min(until_next), target: None }
    }

    /// The only device that may answer at `at`, if a route chooses one, and for how many of `left` bytes that holds.
    fn host_target(&self, at: Hpa, left: u64) -> (Option<DeviceIndex>, u64) {
        if let Some((device, bytes)) = self.host.iter().find_map(|route| route.target(at)) {
            return (Some(device), left.min(bytes));
        }
        let bases = self.host.iter().filter_map(|route| route.hpa.bytes_from(at));
        (None, bases.filter(|bytes| *bytes > 0).fold(left, u64::min))
    }

    fn piece_at_or_before(&self, device: DeviceIndex, dpa: Dpa) -> Option<(Dpa, &Backing)> {
        let (key, backing) = self.pieces.range((device, Dpa(0))..=(device, dpa)).next_back()?;
        Some((key.1, backing))
    }

    /// The pieces that share an address with `dpa..end`, in order.
    fn overlapping(&self, device: DeviceIndex, dpa: Dpa, end: Dpa) -> impl Iterator<Item = (Dpa, &Backing)> {
        let first = self.piece_at_or_before(device, dpa).map_or(dpa, |(start, _)| start);
        let pieces = self.pieces.range((device, first)..(device, end)).map(|(key, backing)| (key.1, backing));
        pieces.filter(move |(start, backing)| start.0 + backing.len_bytes > dpa.0)
    }

    fn remove(&mut self, device: DeviceIndex, dpa: Dpa, end: Dpa) -> Result<Vec<Piece>, WindowError> {
        let mut covered = dpa;
        let mut hit = Vec::new();
        for (start, backing) in self.overlapping(device, dpa, end) {
            if start > covered {
                break;
            }
            covered = Dpa(start.0 + backing.len_bytes);
            hit.push(start);
        }
        if covered < end {
            return Err(WindowError::NotMapped { device, dpa: covered });
        }
        Ok(hit.into_iter().filter_map(|start| self.cut(device, start, dpa, end)).collect())
    }

    /// Removes `dpa..end` from the piece at `start`; what the piece has on both sides stays.
    fn cut(&mut self, device: DeviceIndex, start: Dpa, dpa: Dpa, end: Dpa) -> Option<Piece> {
        let backing = self.pieces.remove(&(device, start))?;
        let piece_end = start.0 + backing.len_bytes;
        let (from, to) = (start.max(dpa), piece_end.min(end.0));
        if start < dpa {
            let before = Backing { len_bytes: dpa.0 - start.0, ..backing.clone() };
            self.pieces.insert((device, start), before);
        }
        if end.0 < piece_end {
            let offset_bytes = backing.offset_bytes + (end.0 - start.0);
            let behind = Backing { len_bytes: piece_end - end.0, offset_bytes, ..backing.clone() };
            self.pieces.insert((device, end), behind);
        }
        let offset_bytes = backing.offset_bytes + (from.0 - start.0);
        Some(Piece { dpa: from, len_bytes: to - from.0, memory: backing.memory, offset_bytes })
    }

    fn shares_addresses(&self, index: usize) -> bool {
        let range = |(_, decoded): &(DeviceIndex, DecodedRange)| {
            (decoded.hpa.0, decoded.hpa.0.saturating_add(decoded.size_bytes))
        };
        let (start, end) = range(&self.decoders[index]);
        let others = self.decoders.iter().enumerate().filter(|(other, _)| *other != index);
        let is_shared = others
            .map(|(_, other)| range(other))
            .any(|(other_start, other_end)| start < other_end && other_start < end);
        let (device, start, end) = (self.decoders[index].0, Hpa(start), Hpa(end));
        let touched = self.host.iter().filter(|route| route.hpa < end && start < route.end());
        is_shared || touched.into_iter().any(|route| !route.leads_to(device, start, end))
    }

    fn mappings_of(&self, device: DeviceIndex, decoded: &DecodedRange) -> impl Iterator<Item = Mapping> {
        let end = Dpa(decoded.dpa.0.saturating_add(decoded.size_bytes));
        self.overlapping(device, decoded.dpa, end).filter_map(move |(start, backing)| {
            let dpa = start.max(decoded.dpa);
            let piece_end = start.0 + backing.len_bytes;
            Some(Mapping {
                hpa: decoded.hpa_of(dpa)?,
                len_bytes: piece_end.min(end.0) - dpa.0,
                device,
                dpa,
                offset_bytes: backing.offset_bytes + (dpa.0 - start.0),
            })
        })
    }
}

fn range_end(dpa: Dpa, len_bytes: u64) -> Result<Dpa, WindowError> {
    let end = dpa.checked_add(len_bytes).filter(|end| *end > dpa);
    end.ok_or(WindowError::NoRange { dpa, len_bytes })
}

/// The part of a mapping between two guest-physical addresses.
fn clip(mapping: Mapping, base: Hpa, end: Hpa) -> Option<Mapping> {
    let hpa = mapping.hpa.max(base);
    let into = hpa.0 - mapping.hpa.0;
    let mapping_end = mapping.hpa.0.saturating_add(mapping.len_bytes).min(end.0);
    let len_bytes = mapping_end.checked_sub(hpa.0).filter(|len_bytes| *len_bytes > 0)?;
    Some(Mapping {
        hpa,
        len_bytes,
        dpa: Dpa(mapping.dpa.0 + into),
        offset_bytes: mapping.offset_bytes + into,
        ..mapping
    })
}
