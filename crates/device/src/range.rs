//! A range of device-physical addresses.

use core::fmt;

use serde::Serialize;
use wire::Dpa;

/// `len_bytes` bytes from `start` on. `end()` is representable in every range that [`DpaRange::new`] made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct DpaRange {
    /// First address.
    pub start: Dpa,
    /// Length in bytes.
    pub len_bytes: u64,
}

impl DpaRange {
    /// The range, or `None` if it is empty or its end wraps.
    pub fn new(start: Dpa, len_bytes: u64) -> Option<Self> {
        (len_bytes > 0 && start.checked_add(len_bytes).is_some()).then_some(Self { start, len_bytes })
    }

    /// First address behind the range.
    pub fn end(self) -> u64 {
        self.start.0.saturating_add(self.len_bytes)
    }

    /// The range from its half-open bounds.
    pub fn between(start: u64, end: u64) -> Option<Self> {
        end.checked_sub(start).and_then(|len| Self::new(Dpa(start), len))
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Self) -> bool {
        self.start.0 < other.end() && other.start.0 < self.end()
    }

    /// Whether `other` lies inside.
    pub fn contains(self, other: Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// What the two share.
    pub fn intersection(self, other: Self) -> Option<Self> {
        Self::between(self.start.0.max(other.start.0), self.end().min(other.end()))
    }
}

impl fmt::Display for DpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end())
    }
}

/// The first two ranges that overlap, if any do. Costs a sort.
pub fn first_overlap(ranges: &[DpaRange]) -> Option<(DpaRange, DpaRange)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0].overlaps(pair[1])).map(|pair| (pair[0], pair[1]))
}
