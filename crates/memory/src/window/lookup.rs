//! What answers an access: routes, decoders and pieces.
//!
//! Deliberately absent: locks, counters, and the bounds of the window for accesses.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use device::DpaRange;
use device::config::DeviceIndex;
use device::decode::{DecodedRange, Ways};
use wire::{Dpa, Hpa};

use crate::host_memory::HostMemory;

use super::error::{Refused, WindowError};
use super::route::Route;
use super::shown::{Shown, joined};
use super::trapped::{TrapCount, TrapReason};
use super::{Mapping, Piece};

/// What an access goes by.
#[derive(Debug, Default)]
pub(super) struct Lookup {
    /// No two share an address.
    host: Vec<Route>,
    /// By device, then in the order of the device's decoders.
    decoders: Vec<Decoder>,
    /// No two of a device overlap; none is empty or wraps.
    pieces: BTreeMap<(DeviceIndex, Dpa), Backing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Decoder {
    device: DeviceIndex,
    decoded: DecodedRange,
    /// `None` where it shows memory as it lies there: worked out when decoders or routes change.
    trap: Option<TrapReason>,
}

#[derive(Clone, Debug)]
struct Backing {
    len_bytes: u64,
    memory: Arc<HostMemory>,
    offset_bytes: u64,
}

impl Backing {
    /// Whether the one at `start` begins where this one, which is at `own`, ends: in addresses and in memory.
    fn goes_on_in(&self, own: Dpa, start: Dpa, next: &Self) -> bool {
        own.0 + self.len_bytes == start.0
            && Arc::ptr_eq(&self.memory, &next.memory)
            && self.offset_bytes + self.len_bytes == next.offset_bytes
    }
}

/// What stands behind the first bytes of an access.
pub(super) struct Stretch<'a> {
    pub(super) len_bytes: u64,
    pub(super) target: Option<(&'a HostMemory, u64)>,
}

impl Lookup {
    /// Sets what the decoders of one device decode. Returns where the guest sees other memory now than before.
    pub(super) fn set_decoders(&mut self, device: DeviceIndex, decoded: Vec<DecodedRange>) -> Vec<Range<Hpa>> {
        self.reroute(|lookup| {
            lookup.decoders.retain(|decoder| decoder.device != device);
            lookup.decoders.extend(decoded.into_iter().map(|decoded| Decoder { device, decoded, trap: None }));
            lookup.decoders.sort_by_key(|decoder| decoder.device);
        })
    }

    /// Sets what the host bridge spreads. Returns where the guest sees other memory now than before.
    pub(super) fn set_routes(&mut self, routes: Vec<Route>) -> Vec<Range<Hpa>> {
        self.reroute(|lookup| lookup.host = routes)
    }

    /// Puts memory behind device-physical addresses: all of it or none. Returns where the guest sees it.
    pub(super) fn map(&mut self, device: DeviceIndex, pieces: Vec<Piece>) -> Result<Vec<Range<Hpa>>, Refused> {
        let mut done = Vec::with_capacity(pieces.len());
        let mut seen = Vec::new();
        for (index, piece) in pieces.into_iter().enumerate() {
            match self.map_one(device, piece) {
                Ok((start, end)) => {
                    done.push(start);
                    seen.extend(self.seen_at(device, start, end));
                }
                Err(error) => {
                    done.into_iter().for_each(|start| drop(self.pieces.remove(&(device, start))));
                    return Err(Refused { index, error });
                }
            }
        }
        Ok(seen)
    }

    /// Takes away what is behind ranges of device-physical addresses: all of it or nothing. Returns it, and where the
    /// guest saw it.
    pub(super) fn unmap(
        &mut self,
        device: DeviceIndex,
        ranges: &[DpaRange],
    ) -> Result<(Vec<Piece>, Vec<Range<Hpa>>), Refused> {
        let (mut removed, mut seen) = (Vec::with_capacity(ranges.len()), Vec::new());
        for (index, range) in ranges.iter().enumerate() {
            let (start, end) = (range.start, range_end(range.start, range.len_bytes));
            match end.and_then(|end| Ok((end, self.remove(device, start, end)?))) {
                Ok((end, pieces)) => {
                    removed.extend(pieces);
                    seen.extend(self.seen_at(device, start, end));
                }
                Err(error) => {
                    removed.into_iter().for_each(|piece| self.put(device, piece));
                    return Err(Refused { index, error });
                }
            }
        }
        Ok((removed, seen))
    }

    /// What the guest sees in `range` through decoders that show memory as it lies there, in the order of its addresses.
    pub(super) fn mappings(&self, range: &Range<Hpa>) -> Vec<Mapping> {
        let mut mappings: Vec<_> =
            self.plain().flat_map(|d| self.seen_through(d, range)).map(|(seen, _)| seen).collect();
        mappings.sort_unstable_by_key(|mapping| mapping.hpa);
        mappings
    }

    /// The same as stretches of memory, one of those that go on in each other.
    pub(super) fn shown(&self, ranges: &[Range<Hpa>]) -> Vec<Shown> {
        let seen = ranges.iter().flat_map(|range| self.plain().flat_map(|decoder| self.seen_through(decoder, range)));
        let shown = seen.map(|(Mapping { hpa, len_bytes, offset_bytes, .. }, memory)| {
            let memory = Arc::clone(memory);
            Shown { hpa, len_bytes, memory, offset_bytes }
        });
        joined(shown.collect())
    }

    /// What is behind decoders that do not show memory as it lies there. Pieces that go on in each other are one.
    pub(super) fn trapped(&self) -> Vec<(TrapReason, TrapCount)> {
        let trapped = self.decoders.iter().filter_map(|decoder| Some((decoder.trap?, decoder)));
        trapped
            .map(|(reason, Decoder { device, decoded, .. })| {
                let end = Dpa(decoded.dpa.0.saturating_add(decoded.dpa_len_bytes()));
                let (mut count, mut last) = (TrapCount::default(), None::<(Dpa, &Backing)>);
                for (start, backing) in self.overlapping(*device, decoded.dpa, end) {
                    let goes_on = last.is_some_and(|(before, last)| last.goes_on_in(before, start, backing));
                    count.pieces += u64::from(!goes_on);
                    count.bytes += end.0.min(start.0 + backing.len_bytes) - start.0.max(decoded.dpa.0);
                    last = Some((start, backing));
                }
                (reason, count)
            })
            .collect()
    }

    pub(super) fn stretch(&self, at: Hpa, left: u64) -> Stretch<'_> {
        let (only, left) = self.host_target(at, left);
        // Another decoder may answer from its base on.
        let bases = self.decoders.iter().filter_map(|decoder| decoder.decoded.hpa.bytes_from(at));
        let left = bases.filter(|bytes| *bytes > 0).fold(left, u64::min);
        let resolved = self.decoders.iter().filter(|decoder| only.is_none_or(|only| only == decoder.device)).find_map(
            |Decoder { device, decoded, .. }| decoded.resolve(at).map(|(dpa, contiguous)| (*device, dpa, contiguous)),
        );
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

    fn reroute(&mut self, change: impl FnOnce(&mut Self)) -> Vec<Range<Hpa>> {
        let before: Vec<_> = self.plain().copied().collect();
        change(self);
        for index in 0..self.decoders.len() {
            self.decoders[index].trap = self.trap(index);
        }
        let after: Vec<_> = self.plain().copied().collect();
        let gone = before.iter().filter(|decoder| !after.contains(decoder));
        let new = after.iter().filter(|decoder| !before.contains(decoder));
        gone.chain(new).map(|decoder| hpa_range(&decoder.decoded)).collect()
    }

    fn map_one(&mut self, device: DeviceIndex, piece: Piece) -> Result<(Dpa, Dpa), WindowError> {
        let Piece { dpa, len_bytes, ref memory, offset_bytes } = piece;
        let end = range_end(dpa, len_bytes)?;
        let size_bytes = memory.len_bytes();
        if offset_bytes.checked_add(len_bytes).is_none_or(|end| end > size_bytes) {
            return Err(WindowError::OutsideMemory { offset_bytes, len_bytes, size_bytes });
        }
        if let Some((mapped, backing)) = self.overlapping(device, dpa, end).next() {
            let len_bytes = backing.len_bytes;
            return Err(WindowError::Overlap { device, dpa: dpa.max(mapped), mapped, len_bytes });
        }
        self.put(device, piece);
        Ok((dpa, end))
    }

    fn put(&mut self, device: DeviceIndex, piece: Piece) {
        let Piece { dpa, len_bytes, memory, offset_bytes } = piece;
        self.pieces.insert((device, dpa), Backing { len_bytes, memory, offset_bytes });
    }

    /// The decoders that show memory as it lies there; no two share an address.
    fn plain(&self) -> impl Iterator<Item = &Decoder> {
        self.decoders.iter().filter(|decoder| decoder.trap.is_none())
    }

    /// Where plain decoders show `dpa..end`.
    fn seen_at(&self, device: DeviceIndex, dpa: Dpa, end: Dpa) -> impl Iterator<Item = Range<Hpa>> {
        let decoders = self.plain().filter(move |decoder| decoder.device == device);
        decoders.filter_map(move |Decoder { decoded, .. }| {
            let (from, to) = (dpa.max(decoded.dpa), end.0.min(decoded.dpa.0.saturating_add(decoded.size_bytes)));
            let len_bytes = to.checked_sub(from.0).filter(|len_bytes| *len_bytes > 0)?;
            let hpa = decoded.hpa_of(from)?;
            Some(hpa..Hpa(hpa.0.saturating_add(len_bytes)))
        })
    }

    /// What a plain decoder shows in `range`.
    fn seen_through(
        &self,
        Decoder { device, decoded, .. }: &Decoder,
        range: &Range<Hpa>,
    ) -> impl Iterator<Item = (Mapping, &Arc<HostMemory>)> {
        let decodes = hpa_range(decoded);
        let (start, end) = (range.start.max(decodes.start), range.end.min(decodes.end));
        let from = Dpa(decoded.dpa.0.saturating_add(start.0 - decodes.start.0));
        let to = Dpa(from.0.saturating_add(end.bytes_from(start).unwrap_or_default()));
        let (device, decoded) = (*device, *decoded);
        self.overlapping(device, from, to).filter_map(move |(start, backing)| {
            let dpa = start.max(from);
            let hpa = decoded.hpa_of(dpa)?;
            let until = to.0.min(start.0 + backing.len_bytes);
            let len_bytes = until.checked_sub(dpa.0).filter(|len_bytes| *len_bytes > 0)?;
            let offset_bytes = backing.offset_bytes + (dpa.0 - start.0);
            Some((Mapping { hpa, len_bytes, device, dpa, offset_bytes }, &backing.memory))
        })
    }

    /// The only device that may answer at `at`, if a route chooses one, and for how many of `left` bytes that holds.
    fn host_target(&self, at: Hpa, left: u64) -> (Option<DeviceIndex>, u64) {
        if let Some((device, bytes)) = self.host.iter().find_map(|route| route.target(at)) {
            return (Some(device), left.min(bytes));
        }
        let bases = self.host.iter().filter_map(|route| route.hpa().bytes_from(at));
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

    /// Takes away what is behind `dpa..end`; of a piece that reaches beyond, the rest stays.
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

    /// Why a decoder does not show memory as it lies there, if it does not.
    fn trap(&self, index: usize) -> Option<TrapReason> {
        let Decoder { device, decoded, .. } = self.decoders[index];
        if decoded.ways != Ways::ONE {
            return Some(TrapReason::Interleaved);
        }
        let Range { start, end } = hpa_range(&decoded);
        let others = self.decoders.iter().enumerate().filter(|(other, _)| *other != index);
        let mut others = others.map(|(_, other)| hpa_range(&other.decoded));
        let is_shared = others.any(|other| start < other.end && other.start < end);
        let mut touched = self.host.iter().filter(|route| route.hpa() < end && start < route.end());
        let leads_elsewhere = touched.any(|route| !route.leads_to(device, start, end));
        (is_shared || leads_elsewhere).then_some(TrapReason::Shared)
    }
}

fn hpa_range(decoded: &DecodedRange) -> Range<Hpa> {
    decoded.hpa..Hpa(decoded.hpa.0.saturating_add(decoded.size_bytes))
}

fn range_end(dpa: Dpa, len_bytes: u64) -> Result<Dpa, WindowError> {
    let end = dpa.checked_add(len_bytes).filter(|end| *end > dpa);
    end.ok_or(WindowError::NoRange { dpa, len_bytes })
}
