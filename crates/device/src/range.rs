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

/// So few ranges are compared one by one.
const RANGES_FEW: usize = 8;

/// Whether no two ranges overlap. Of few it takes no memory: the fold asks it of almost every record.
pub(crate) fn are_apart(ranges: impl Iterator<Item = DpaRange> + Clone) -> bool {
    if ranges.clone().nth(RANGES_FEW).is_some() {
        return first_overlap(&ranges.collect::<Vec<_>>()).is_none();
    }
    let mut rest = ranges;
    while let Some(range) = rest.next() {
        if rest.clone().any(|other| other.overlaps(range)) {
            return false;
        }
    }
    true
}

/// The first two ranges that overlap, if any do. Costs a sort.
pub fn first_overlap(ranges: &[DpaRange]) -> Option<(DpaRange, DpaRange)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    sorted.windows(2).find(|pair| pair[0].overlaps(pair[1])).map(|pair| (pair[0], pair[1]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_apart_where_no_two_overlap(ranges in prop::collection::vec((0u64..64, 0u64..6), 0..12)) {
            let ranges: Vec<_> = ranges.iter().map(|(start, len)| DpaRange { start: Dpa(*start), len_bytes: *len }).collect();
            prop_assert_eq!(are_apart(ranges.iter().copied()), first_overlap(&ranges).is_none());
        }
    }
}
