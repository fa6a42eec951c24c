//! Pages: the grain in which memories are copied, held and found to be zeros.

use std::fs::File;
use std::io;
use std::ops::Range;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

/// Bytes of a page. It is the format's, whatever pages the host has.
pub const PAGE_BYTES: u64 = 4096;

/// Bytes that are read, written and digested at once.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

const CHUNK_PAGES: u64 = CHUNK_BYTES as u64 / PAGE_BYTES;

static ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];

/// Pages of a memory of so many bytes; the last may be shorter.
pub(crate) fn count(len_bytes: u64) -> u64 {
    len_bytes.div_ceil(PAGE_BYTES)
}

/// The pages that a range of bytes touches.
pub(crate) fn touched(bytes: &Range<u64>) -> Range<u64> {
    bytes.start / PAGE_BYTES..count(bytes.end)
}

/// The bytes of pages, up to the memory's end. Of a memory that is not longer than the format allows nothing overflows.
pub(crate) fn bytes(pages: &Range<u64>, len_bytes: u64) -> Range<u64> {
    let at = |page: u64| page.saturating_mul(PAGE_BYTES).min(len_bytes);
    at(pages.start)..at(pages.end)
}

/// Pages in pieces of at most a chunk.
pub(crate) fn chunks(pages: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let mut start = pages.start;
    std::iter::from_fn(move || {
        let end = pages.end.min(start.saturating_add(CHUNK_PAGES));
        let chunk = (start < end).then_some(start..end);
        start = end;
        chunk
    })
}

/// Whether these bytes of at most a page are all zero.
pub(crate) fn is_zero(page: &[u8]) -> bool {
    page == &ZEROS[..page.len()]
}

/// Where a file has bytes of its own, by what its file system says: the rest are holes, which read as zeros. One that
/// knows no holes has bytes everywhere.
pub(crate) fn data_ranges(file: &File, len_bytes: u64) -> io::Result<Vec<Range<u64>>> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < len_bytes {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(errno) => return Err(errno.into()),
        };
        let end = match seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(len_bytes),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => len_bytes,
            Err(errno) => return Err(errno.into()),
        };
        if start < end {
            ranges.push(start..end);
        }
        at = end.max(at + 1);
    }
    Ok(ranges)
}
