//! Stretches of guest-physical addresses that show memory as it lies in this process.
//!
//! ```text
//!  guest   │ head │ page │ page │ page │ tail │        head and tail fill no page: they cannot be in a slot
//!  memory         └ at a page's begin, or nothing of it can be in a slot
//! ```

use std::ops::Range;
use std::sync::Arc;

use wire::Hpa;

use crate::host_memory::HostMemory;

/// One stretch.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) hpa: Hpa,
    pub(super) len_bytes: u64,
    pub(super) memory: Arc<HostMemory>,
    pub(super) offset_bytes: u64,
}

/// A stretch by what of it can be in a slot.
#[derive(Debug)]
pub(super) enum Pages {
    /// Its pages are none in the memory.
    Misaligned(Shown),
    /// Whole pages, if there are any, and what is left on both sides.
    Aligned { head: Option<Shown>, pages: Option<Shown>, tail: Option<Shown> },
}

impl Shown {
    pub(super) fn end(&self) -> Hpa {
        // Stretches are inside the window, which ends inside the address space.
        Hpa(self.hpa.0 + self.len_bytes)
    }

    /// What of it is in a range.
    pub(super) fn within(&self, range: &Range<Hpa>) -> Option<Self> {
        let hpa = self.hpa.max(range.start);
        let len_bytes = self.end().min(range.end).bytes_from(hpa).filter(|len_bytes| *len_bytes > 0)?;
        let offset_bytes = self.offset_bytes + (hpa.0 - self.hpa.0);
        Some(Self { hpa, len_bytes, memory: Arc::clone(&self.memory), offset_bytes })
    }

    /// What of it is in none of some ranges, which are sorted and disjoint.
    pub(super) fn outside<'a>(&'a self, ranges: &'a [Range<Hpa>]) -> impl Iterator<Item = Self> + 'a {
        let first = ranges.partition_point(|range| range.end <= self.hpa);
        let touching = ranges[first..].iter().take_while(|range| range.start < self.end());
        let starts = std::iter::once(self.hpa).chain(touching.clone().map(|range| range.end));
        let ends = touching.map(|range| range.start).chain(std::iter::once(self.end()));
        starts.zip(ends).filter_map(|(start, end)| self.within(&(start..end)))
    }

    /// Cuts it at the pages of guest and memory.
    pub(super) fn pages(self, page_bytes: u64) -> Pages {
        if self.hpa.0 % page_bytes != self.offset_bytes % page_bytes {
            return Pages::Misaligned(self);
        }
        let end = self.end().0;
        let first = self.hpa.0.checked_next_multiple_of(page_bytes).unwrap_or(end).min(end);
        let last = (end - end % page_bytes).max(first);
        let part = |from, to| self.within(&(Hpa(from)..Hpa(to)));
        Pages::Aligned { head: part(self.hpa.0, first), pages: part(first, last), tail: part(last, end) }
    }

    fn goes_on_in(&self, next: &Self) -> bool {
        self.end() == next.hpa
            && Arc::ptr_eq(&self.memory, &next.memory)
            && self.offset_bytes + self.len_bytes == next.offset_bytes
    }
}

/// Sorts disjoint stretches and makes one of those that go on in each other.
pub(super) fn joined(mut stretches: Vec<Shown>) -> Vec<Shown> {
    stretches.sort_unstable_by_key(|stretch| stretch.hpa);
    stretches.dedup_by(|next, stretch| {
        let goes_on = stretch.goes_on_in(next);
        if goes_on {
            stretch.len_bytes += next.len_bytes;
        }
        goes_on
    });
    stretches
}

/// Ranges in whole pages, sorted, and one of those that touch.
pub(super) fn in_pages(ranges: impl IntoIterator<Item = Range<Hpa>>, page_bytes: u64) -> Vec<Range<Hpa>> {
    let rounded = |range: Range<Hpa>| {
        let end = range.end.0.checked_next_multiple_of(page_bytes).unwrap_or(u64::MAX);
        Hpa(range.start.0 - range.start.0 % page_bytes)..Hpa(end)
    };
    let mut ranges: Vec<_> = ranges.into_iter().filter(|range| !range.is_empty()).map(rounded).collect();
    ranges.sort_unstable_by_key(|range| range.start);
    ranges.dedup_by(|next, range| {
        let touches = next.start <= range.end;
        if touches {
            range.end = range.end.max(next.end);
        }
        touches
    });
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    fn shown(hpa: u64, len_bytes: u64, memory: &Arc<HostMemory>, offset_bytes: u64) -> Shown {
        Shown { hpa: Hpa(hpa), len_bytes, memory: Arc::clone(memory), offset_bytes }
    }

    fn places(stretches: impl IntoIterator<Item = Shown>) -> Vec<(u64, u64, u64)> {
        stretches.into_iter().map(|s| (s.hpa.0, s.len_bytes, s.offset_bytes)).collect()
    }

    #[test]
    fn neighbours_become_one_only_where_their_memory_goes_on() {
        let (one, other) =
            (Arc::new(HostMemory::anonymous(1 << 20).unwrap()), Arc::new(HostMemory::anonymous(1).unwrap()));
        let stretches = vec![
            shown(0x3000, 0x1000, &one, 0x2000),
            shown(0x1000, 0x1000, &one, 0),
            shown(0x2000, 0x1000, &one, 0x1000),
            shown(0x4000, 0x1000, &one, 0x4000),
            shown(0x5000, 0x1000, &other, 0x5000),
            shown(0x7000, 0x1000, &other, 0x6000),
        ];
        let expected =
            [(0x1000, 0x3000, 0), (0x4000, 0x1000, 0x4000), (0x5000, 0x1000, 0x5000), (0x7000, 0x1000, 0x6000)];
        assert_eq!(places(joined(stretches)), expected);
    }

    #[test]
    fn what_fills_no_page_is_cut_off() {
        let memory = Arc::new(HostMemory::anonymous(1 << 20).unwrap());
        let Pages::Aligned { head, pages, tail } = shown(0x1f00, 0x2200, &memory, 0xf00).pages(PAGE) else { panic!() };
        assert_eq!(places(head), [(0x1f00, 0x100, 0xf00)]);
        assert_eq!(places(pages), [(0x2000, 0x2000, 0x1000)]);
        assert_eq!(places(tail), [(0x4000, 0x100, 0x3000)]);
        let Pages::Aligned { head, pages, tail } = shown(0x1100, 0x200, &memory, 0x100).pages(PAGE) else { panic!() };
        assert_eq!((places(head), pages.is_none(), tail.is_none()), (vec![(0x1100, 0x200, 0x100)], true, true));
        assert!(matches!(shown(0x1000, 0x1000, &memory, 0x100).pages(PAGE), Pages::Misaligned(_)));
    }

    #[test]
    fn ranges_are_cut_out() {
        let memory = Arc::new(HostMemory::anonymous(1 << 20).unwrap());
        let stretch = shown(0x1000, 0x8000, &memory, 0);
        let ranges = |list: &[(u64, u64)]| in_pages(list.iter().map(|(start, end)| Hpa(*start)..Hpa(*end)), PAGE);
        assert_eq!(places(stretch.outside(&[])), [(0x1000, 0x8000, 0)]);
        let cut = ranges(&[(0x4800, 0x4900), (0, 0x1001), (0x8fff, 0x9fff), (0xa000, 0xa000)]);
        assert_eq!(cut, [Hpa(0)..Hpa(0x2000), Hpa(0x4000)..Hpa(0x5000), Hpa(0x8000)..Hpa(0xa000)]);
        assert_eq!(places(stretch.outside(&cut)), [(0x2000, 0x2000, 0x1000), (0x5000, 0x3000, 0x4000)]);
        assert_eq!(places(stretch.outside(&ranges(&[(0, 0x9000)]))), []);
        assert_eq!(ranges(&[(u64::MAX - 1, u64::MAX)]), [Hpa(u64::MAX - 4095)..Hpa(u64::MAX)]);
    }
}
