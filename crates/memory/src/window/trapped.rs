//! What of the window is in no slot although a decoder shows it, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use wire::Hpa;

use super::shown::Shown;

/// Why accesses come back as exits, to be served by the lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TrapReason {
    /// The hypervisor has no more slots. It gets one when there is room.
    Limit,
    /// Pages of guest addresses are none of the memory.
    Misaligned,
    /// It fills no page.
    UnderPage,
    /// The hypervisor refused.
    Refused,
    /// It is interleaved: granules have at most 16 KiB, and a slot for each would be the end of slots.
    Interleaved,
    /// Other decoders, or routes that lead elsewhere, share its addresses.
    Shared,
}

/// How much is trapped for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrapCount {
    /// Stretches of memory without a gap, however they came.
    pub pieces: u64,
    /// Bytes of memory.
    pub bytes: u64,
}

/// The trapped stretches.
#[derive(Debug, Default)]
pub(super) struct Trapped {
    /// By first address; no two share an address.
    stretches: BTreeMap<Hpa, (Shown, TrapReason)>,
    /// Those that wait for a slot.
    waiting: BTreeSet<Hpa>,
    counts: BTreeMap<TrapReason, TrapCount>,
}

impl Trapped {
    pub(super) fn insert(&mut self, stretch: Shown, reason: TrapReason) {
        let count = self.counts.entry(reason).or_default();
        count.pieces += 1;
        count.bytes += stretch.len_bytes;
        if reason == TrapReason::Limit {
            self.waiting.insert(stretch.hpa);
        }
        self.stretches.insert(stretch.hpa, (stretch, reason));
    }

    /// Forgets what is in some ranges, which are sorted and disjoint.
    pub(super) fn cut(&mut self, ranges: &[Range<Hpa>]) {
        for range in ranges {
            for hpa in overlapping(&self.stretches, range, |(stretch, _)| stretch.end()) {
                let Some((stretch, reason)) = self.remove(hpa) else { continue };
                stretch.outside(ranges).for_each(|rest| self.insert(rest, reason));
            }
        }
    }

    /// Takes one that waits for a slot.
    pub(super) fn take_waiting(&mut self) -> Option<Shown> {
        let hpa = *self.waiting.first()?;
        self.remove(hpa).map(|(stretch, _)| stretch)
    }

    /// How much there is for each reason.
    pub(super) fn counts(&self) -> &BTreeMap<TrapReason, TrapCount> {
        &self.counts
    }

    fn remove(&mut self, hpa: Hpa) -> Option<(Shown, TrapReason)> {
        let (stretch, reason) = self.stretches.remove(&hpa)?;
        self.waiting.remove(&hpa);
        if let Some(count) = self.counts.get_mut(&reason) {
            count.pieces -= 1;
            count.bytes -= stretch.len_bytes;
        }
        Some((stretch, reason))
    }
}

/// The first addresses of what overlaps a range, where no two share an address.
pub(super) fn overlapping<T>(of: &BTreeMap<Hpa, T>, range: &Range<Hpa>, end: impl Fn(&T) -> Hpa) -> Vec<Hpa> {
    let before = of.range(..range.start).next_back().filter(|(_, stretch)| end(stretch) > range.start);
    before.into_iter().chain(of.range(range.clone())).map(|(hpa, _)| *hpa).collect()
}
