//! The host's own list of what it accepted: ranges with their tags, in the order of acceptance.
//!
//! Deliberately absent: what the host does with the memory.

use alloc::vec::Vec;
use core::fmt;

use wire::{Dpa, RawExtent, Tag, UpdatedExtent};
use zerocopy::little_endian::U64;

/// A range of device-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DpaRange {
    /// The first address.
    pub start: Dpa,
    /// How many bytes.
    pub len_bytes: u64,
}

impl DpaRange {
    /// Behind the last address, or the end of the address space.
    fn end(self) -> u64 {
        self.start.0.saturating_add(self.len_bytes)
    }

    /// Whether `other` is inside. A range without bytes, or past the end of the address space, is inside nothing.
    pub fn holds(self, other: Self) -> bool {
        let has_end = other.len_bytes > 0 && other.start.checked_add(other.len_bytes).is_some();
        has_end && self.start <= other.start && other.end() <= self.end()
    }

    /// What both have.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let len_bytes = self.end().min(other.end()).checked_sub(start.0).filter(|len_bytes| *len_bytes > 0)?;
        Some(Self { start, len_bytes })
    }

    /// Whether both have a byte.
    pub fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }

    /// What is left without `other`: below and above it.
    fn without(self, other: Self) -> [Option<Self>; 2] {
        let Some(gone) = self.intersection(other) else { return [Some(self), None] };
        let part = |start: u64, end: u64| {
            (start < end).then_some(Self { start: Dpa(start), len_bytes: end.saturating_sub(start) })
        };
        [part(self.start.0, gone.start.0), part(gone.end(), self.end())]
    }

    pub(crate) fn to_wire(self) -> UpdatedExtent {
        UpdatedExtent { start_dpa: U64::new(self.start.0), len_bytes: U64::new(self.len_bytes), reserved: [0; 8] }
    }
}

impl fmt::Display for DpaRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} bytes at {}", self.len_bytes, self.start)
    }
}

/// A range with what the device said of it: offered, asked back, or held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its first address.
    pub dpa: Dpa,
    /// How many bytes.
    pub len_bytes: u64,
    /// Its tag.
    pub tag: Tag,
    /// Its position among the tag's extents, where they are shared.
    pub shared_sequence: u16,
}

/// An extent that the host has accepted.
pub type HeldExtent = Extent;

impl Extent {
    /// Where it is.
    pub fn range(&self) -> DpaRange {
        DpaRange { start: self.dpa, len_bytes: self.len_bytes }
    }

    /// Another range with the same tag and sequence.
    pub(crate) fn at(self, range: DpaRange) -> Self {
        Self { dpa: range.start, len_bytes: range.len_bytes, ..self }
    }
}

impl From<&RawExtent> for Extent {
    fn from(raw: &RawExtent) -> Self {
        Self {
            dpa: Dpa(raw.start_dpa.get()),
            len_bytes: raw.len_bytes.get(),
            tag: Tag::from_bytes(raw.tag),
            shared_sequence: raw.shared_sequence.get(),
        }
    }
}

/// What the host has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ExtentTable(Vec<HeldExtent>);

impl ExtentTable {
    pub(crate) fn new(extents: Vec<Extent>) -> Self {
        Self(extents)
    }

    /// What it has, in the order of acceptance; the parts of an extent that lost some stand in its place.
    pub(crate) fn as_slice(&self) -> &[HeldExtent] {
        &self.0
    }

    /// The extents of one tag.
    pub(crate) fn tagged(&self, tag: Tag) -> impl Iterator<Item = &HeldExtent> {
        self.0.iter().filter(move |extent| extent.tag == tag)
    }

    /// Whether a byte of a range is accepted.
    pub(crate) fn overlaps(&self, range: DpaRange) -> bool {
        self.0.iter().any(|extent| extent.range().overlaps(range))
    }

    pub(crate) fn append(&mut self, extents: &[Extent]) {
        self.0.extend_from_slice(extents);
    }

    /// Takes a range away.
    pub(crate) fn remove(&mut self, range: DpaRange) {
        let parts = |extent: &Extent| {
            let extent = *extent;
            extent.range().without(range).into_iter().flatten().map(move |range| extent.at(range))
        };
        self.0 = self.0.iter().flat_map(parts).collect();
    }

    /// What the host gives back when it is asked for `asked`. The extents of a tag leave together, as in Linux, even if
    /// one of them is named; without a tag, what is named leaves. What the host does not have is given back as it was
    /// named: then the device errs, and it will say so.
    pub(crate) fn leaving(&self, asked: &[Extent]) -> Vec<DpaRange> {
        let mut leaving = Vec::new();
        for asked in asked.iter().map(Extent::range) {
            let mut found = false;
            for held in self.0.iter().filter(|held| held.range().overlaps(asked)) {
                found = true;
                if held.tag.is_none() {
                    leaving.extend(held.range().intersection(asked));
                } else {
                    leaving.extend(self.tagged(held.tag).map(Extent::range));
                }
            }
            if !found {
                leaving.push(asked);
            }
        }
        keep_first(leaving)
    }
}

/// Drops what was named before; a device may name the members of a tag one by one.
fn keep_first(ranges: Vec<DpaRange>) -> Vec<DpaRange> {
    let mut kept: Vec<DpaRange> = Vec::new();
    for range in ranges {
        if !kept.iter().any(|earlier| earlier.overlaps(range)) {
            kept.push(range);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn range(start: u64, len_bytes: u64) -> DpaRange {
        DpaRange { start: Dpa(start), len_bytes }
    }

    fn extent(start: u64, len_bytes: u64, tag: u8) -> Extent {
        Extent { dpa: Dpa(start), len_bytes, tag: Tag::from_bytes([tag; 16]), shared_sequence: 0 }
    }

    #[test]
    fn a_hole_splits_an_extent_in_its_place() {
        let mut table = ExtentTable::new(vec![extent(0, 10, 1), extent(20, 10, 0), extent(40, 10, 2)]);
        table.remove(range(23, 4));
        assert_eq!(table.0, [extent(0, 10, 1), extent(20, 3, 0), extent(27, 3, 0), extent(40, 10, 2)]);
        table.remove(range(0, 24));
        assert_eq!(table.0, [extent(27, 3, 0), extent(40, 10, 2)]);
        table.remove(range(0, u64::MAX));
        assert_eq!(table.as_slice(), []);
    }

    #[test]
    fn a_tag_leaves_as_a_whole_and_once() {
        let table = ExtentTable::new(vec![extent(0, 10, 1), extent(20, 10, 0), extent(40, 10, 1)]);
        let leaving = table.leaving(&[extent(0, 5, 1), extent(40, 10, 1)]);
        assert_eq!(leaving, [range(0, 10), range(40, 10)]);
        assert_eq!(table.leaving(&[extent(25, 100, 0)]), [range(25, 5), range(0, 10), range(40, 10)]);
        assert_eq!(table.leaving(&[extent(100, 5, 0)]), [range(100, 5)]);
    }

    #[test]
    fn ranges_end_with_the_address_space() {
        assert!(!range(0, u64::MAX).holds(range(u64::MAX, 1)));
        assert!(!range(0, u64::MAX).holds(range(1, 0)));
        assert!(range(0x10, 0x10).holds(range(0x1f, 1)));
        assert_eq!(range(u64::MAX, 5).intersection(range(0, u64::MAX)), None);
    }
}
