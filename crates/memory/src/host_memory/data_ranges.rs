//! Where memory may hold something other than zeros, without looking at it.
//!
//! ```text
//!                    bytes are in                         who says so
//!  shared file       the file                             its holes (SEEK_DATA, SEEK_HOLE)
//!  private file      the file, or this process            its holes, and the page map
//!  ram               this process                         the page map (/proc/self/pagemap)
//!  ram over files    the files' runs, or this process     the runs, and the page map
//! ```
//!
//! Looking would be a touch: a hole that is read becomes a page. A page that is there and holds zeros counts as data, and
//! where the host says nothing, everything does. Deliberately absent: changes meanwhile. What is written while this looks
//! may be missing in its answer: whoever needs it asks a tracked memory afterwards.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use device::backends::Sharing;
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::HostMemory;

/// Entries of the page map that are read at once.
const ENTRIES: usize = 32 << 10;
const ENTRY_BYTES: usize = size_of::<u64>();
/// The page is in memory, or swapped out (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;

impl HostMemory {
    /// Where it may hold something other than zeros: in whole pages up to the memory's end, sorted, with a gap between
    /// any two. No page is touched.
    ///
    /// # Errors
    ///
    /// The host cannot read what it keeps of a file.
    pub fn data_ranges(&self) -> io::Result<Vec<Range<u64>>> {
        let len_bytes = self.len_bytes();
        let mut ranges = match &self.file {
            Some(file) => in_file(file, len_bytes)?,
            None => Vec::new(),
        };
        if self.mapping.sharing() == Sharing::Private {
            ranges.extend_from_slice(self.lazy.ranges());
            // A host that says nothing of its page map: everything.
            let own = in_process(self.host_address() as u64, len_bytes).unwrap_or_else(|_| everything(len_bytes));
            ranges.extend(own);
        }
        Ok(joined(ranges, rustix::param::page_size() as u64, len_bytes))
    }
}

/// What a file has no holes in.
fn in_file(file: &File, len_bytes: u64) -> io::Result<Vec<Range<u64>>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < len_bytes {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // A file system that does not know.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::SPIPE) => return Ok(everything(len_bytes)),
            Err(errno) => return Err(errno.into()),
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) if end > start => end,
            // Made shorter meanwhile, or not up to what it says: more is harmless.
            Ok(_) | Err(Errno::NXIO) => len_bytes,
            Err(errno) => return Err(errno.into()),
        };
        ranges.push(start..end);
        at = end;
    }
    Ok(ranges)
}

/// What this process has pages for, from `address` on.
fn in_process(address: u64, len_bytes: u64) -> io::Result<Vec<Range<u64>>> {
    let map = File::open("/proc/self/pagemap")?;
    let page_bytes = rustix::param::page_size() as u64;
    let (first, pages) = (address / page_bytes, len_bytes.div_ceil(page_bytes));
    let mut entries = vec![0; ENTRIES.min(pages as usize) * ENTRY_BYTES];
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for begin in (0..pages).step_by(ENTRIES) {
        let count = (pages - begin).min(ENTRIES as u64) as usize;
        let entries = &mut entries[..count * ENTRY_BYTES];
        map.read_exact_at(entries, (first + begin) * ENTRY_BYTES as u64)?;
        for (page, entry) in (begin..).zip(entries.as_chunks().0) {
            if u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED == 0 {
                continue;
            }
            let (start, end) = (page * page_bytes, (page + 1) * page_bytes);
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
    }
    Ok(ranges)
}

pub(super) fn everything(len_bytes: u64) -> Vec<Range<u64>> {
    std::iter::once(0..len_bytes).collect()
}

/// In whole pages, sorted, one of those that touch, and up to the end.
fn joined(ranges: Vec<Range<u64>>, page_bytes: u64, len_bytes: u64) -> Vec<Range<u64>> {
    let in_pages = |range: Range<u64>| {
        let end = range.end.checked_next_multiple_of(page_bytes).unwrap_or(len_bytes).min(len_bytes);
        range.start - range.start % page_bytes..end
    };
    let mut ranges: Vec<_> = ranges.into_iter().map(in_pages).filter(|range| !range.is_empty()).collect();
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

    #[test]
    fn ranges_are_joined_in_whole_pages_up_to_the_end() {
        let ranges = vec![0x5001..0x5002, 0x1fff..0x2001, 0x9800..0xa000, 0x3000..0x4000, 0..0, 0xb000..0xc000];
        assert_eq!(joined(ranges, 0x1000, 0x9900), [0x1000..0x4000, 0x5000..0x6000, 0x9000..0x9900]);
    }

    /// Zeros would be the answer otherwise.
    #[test]
    fn addresses_that_the_page_map_does_not_have_are_an_error() {
        assert!(in_process(1 << 62, 0x2000).is_err());
    }
}
