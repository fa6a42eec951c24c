//! Writing the bytes of one memory, as often as they change.
//!
//! ```text
//!          ┌ bytes ──▶ written at their place; a run of data
//! a page ──┤          ┌ the parent has bytes ──▶ a run of zeros ┐
//!          └ zeros ───┤                                         ├ a hole, also where this draft had bytes before
//!                     └ it has none ───────────▶ no run         ┘
//! ```
//!
//! A page that changes while it is read is stored as some mixture: whoever copies says when it holds still, and copies it
//! again then. Deliberately absent: syncing and digests, which wait until everything is there.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use memory::HostMemory;
use rangemap::{RangeMap, RangeSet};
use rustix::fs::{FallocateFlags, copy_file_range, fallocate, ioctl_ficlone};
use rustix::io::Errno;

use crate::error::SnapshotError;
use crate::manifest::{Base, Contents, Memory};
use crate::name::SnapshotName;
use crate::pages::{self, CHUNK_BYTES, PAGE_BYTES};
use crate::runs::Fill;

/// Takes in the bytes of one memory of a [`crate::Draft`]. It can be sent to another thread, and goes back to
/// [`crate::Draft::finish`].
#[derive(Debug)]
pub struct ContentsWriter {
    pub(crate) snapshot: Arc<SnapshotName>,
    pub(crate) memory: Memory,
    pub(crate) file: File,
    pub(crate) runs: RangeMap<u64, Fill>,
    /// Pages that the parent has bytes for.
    below: RangeSet<u64>,
    buffer: Vec<u8>,
}

/// What a copy came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes that were written.
    pub written_bytes: u64,
    /// Bytes that were zeros, and take no room.
    pub zero_bytes: u64,
}

/// Whether a file could be cloned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloneOutcome {
    /// It shares its blocks with the snapshot now, until one of them is written to.
    Cloned,
    /// The file system cannot, or it is another one: nothing has changed, and copying is left.
    Unsupported,
}

impl ContentsWriter {
    pub(crate) fn new(
        snapshot: Arc<SnapshotName>,
        memory: Memory,
        file: File,
        below: RangeSet<u64>,
    ) -> Result<Self, SnapshotError> {
        let len_bytes = memory.len_bytes;
        let writer = Self { snapshot, memory, file, runs: RangeMap::new(), below, buffer: vec![0; CHUNK_BYTES] };
        writer.file.set_len(len_bytes).map_err(writer.failed("extend"))?;
        Ok(writer)
    }

    /// Copies the pages that these ranges touch, and takes them for the memory's bytes from now on: what was copied from there
    /// before counts no more. Ranges are in bytes.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Length`] if this is not a memory of the length that was announced, [`SnapshotError::Range`] if a
    /// range is not inside it, [`SnapshotError::File`] if the file cannot be written: the draft is of no use then.
    pub fn copy(&mut self, memory: &HostMemory, ranges: &[Range<u64>]) -> Result<Copied, SnapshotError> {
        self.check_len(memory.len_bytes())?;
        let mut copied = Copied::default();
        for range in ranges {
            let pages = self.pages(range)?;
            for chunk in pages::chunks(pages) {
                self.copy_chunk(memory, chunk, &mut copied)?;
            }
        }
        Ok(copied)
    }

    /// Takes bytes that were copied from the memory, from an offset on: whole pages, or up to its end. What was copied from there
    /// before counts no more.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Range`] if they are not whole pages inside the memory, [`SnapshotError::File`] as
    /// [`ContentsWriter::copy`].
    pub fn write(&mut self, start: u64, bytes: &[u8]) -> Result<Copied, SnapshotError> {
        let range = start..start.saturating_add(bytes.len() as u64);
        if pages::bytes(&self.pages(&range)?, self.memory.len_bytes) != range {
            return Err(self.range_error(&range));
        }
        let mut copied = Copied::default();
        self.take_in(start, bytes, &mut copied)?;
        Ok(copied)
    }

    /// Takes all bytes from the begin of a file by sharing its blocks (`FICLONE`), as XFS and btrfs can; what was copied before
    /// counts no more, and what the parent has neither. The file must hold still meanwhile.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Length`] if the file is shorter than the memory, [`SnapshotError::File`] for what the host says beside
    /// that it cannot.
    pub fn clone_file(&mut self, source: &File) -> Result<CloneOutcome, SnapshotError> {
        // It may be longer. A backend that was the begin of a longer file could once not be saved at all.
        let file_bytes = source.metadata().map_err(self.failed("clone into"))?.len();
        self.check_len(file_bytes.min(self.memory.len_bytes))?;
        match ioctl_ficlone(&self.file, source) {
            Ok(()) => self.take_all().map(|()| CloneOutcome::Cloned),
            // A source that is no file of a file system with shared blocks answers in one of these ways.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::BADF) => {
                Ok(CloneOutcome::Unsupported)
            }
            Err(errno) => Err(self.failed("clone into")(errno.into())),
        }
    }

    /// Takes pages of another snapshot's file, at the same place, for its own: their blocks are shared where the file system does
    /// that.
    pub(crate) fn take_pages(&mut self, source: &File, pages: &Range<u64>) -> Result<(), SnapshotError> {
        let bytes = pages::bytes(pages, self.memory.len_bytes);
        copy_bytes(source, &self.file, &bytes).map_err(self.failed("copy into"))?;
        self.runs.insert(pages.clone(), Fill::Data);
        Ok(())
    }

    /// Takes everything that the file has for the memory's bytes.
    fn take_all(&mut self) -> Result<(), SnapshotError> {
        let len_bytes = self.memory.len_bytes;
        // The source may be longer.
        self.file.set_len(len_bytes).map_err(self.failed("cut"))?;
        self.runs.clear();
        // Nothing shows through: a chain of such memories was once read whole, one after the other, for the bytes of the newest.
        self.memory.contents = Contents::Copied(Base::Zeros);
        self.below.clear();
        for data in pages::data_ranges(&self.file, len_bytes).map_err(self.failed("look into"))? {
            self.runs.insert(pages::touched(&data), Fill::Data);
        }
        Ok(())
    }

    fn copy_chunk(&mut self, memory: &HostMemory, chunk: Range<u64>, copied: &mut Copied) -> Result<(), SnapshotError> {
        let bytes = pages::bytes(&chunk, self.memory.len_bytes);
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = &mut buffer[..(bytes.end - bytes.start) as usize];
        // The range was checked, and a memory does not change its length.
        let done = match memory.read(bytes.start, read) {
            Ok(()) => self.take_in(bytes.start, read, copied),
            Err(_) => Err(self.range_error(&bytes)),
        };
        self.buffer = buffer;
        done
    }

    /// Takes in bytes that begin at a page.
    fn take_in(&mut self, start: u64, bytes: &[u8], copied: &mut Copied) -> Result<(), SnapshotError> {
        let are_zeros: Vec<_> = bytes.chunks(PAGE_BYTES as usize).map(pages::is_zero).collect();
        let mut rest = bytes;
        for alike in are_zeros.chunk_by(PartialEq::eq) {
            let at = start + (bytes.len() - rest.len()) as u64;
            let (these, behind) = rest.split_at(rest.len().min(alike.len() * PAGE_BYTES as usize));
            let pages = pages::touched(&(at..at + these.len() as u64));
            if alike[0] {
                self.put_zeros(pages)?;
                copied.zero_bytes += these.len() as u64;
            } else {
                self.file.write_all_at(these, at).map_err(self.failed("write"))?;
                self.runs.insert(pages, Fill::Data);
                copied.written_bytes += these.len() as u64;
            }
            rest = behind;
        }
        Ok(())
    }

    fn put_zeros(&mut self, pages: Range<u64>) -> Result<(), SnapshotError> {
        if self.runs.overlapping(&pages).any(|(_, fill)| *fill == Fill::Data) {
            self.punch(&pages).map_err(self.failed("punch a hole into"))?;
        }
        self.runs.remove(pages.clone());
        for below in self.below.overlapping(&pages) {
            self.runs.insert(below.start.max(pages.start)..below.end.min(pages.end), Fill::Zeros);
        }
        Ok(())
    }

    fn punch(&self, pages: &Range<u64>) -> io::Result<()> {
        let Range { start, end } = pages::bytes(pages, self.memory.len_bytes);
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match fallocate(&self.file, hole, start, end - start) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let zeros = vec![0; CHUNK_BYTES.min((end - start) as usize)];
                pages::chunks(pages.clone()).try_for_each(|chunk| {
                    let bytes = pages::bytes(&chunk, self.memory.len_bytes);
                    self.file.write_all_at(&zeros[..(bytes.end - bytes.start) as usize], bytes.start)
                })
            }
            done => Ok(done?),
        }
    }

    fn pages(&self, range: &Range<u64>) -> Result<Range<u64>, SnapshotError> {
        if range.start > range.end || range.end > self.memory.len_bytes {
            return Err(self.range_error(range));
        }
        Ok(if range.is_empty() { 0..0 } else { pages::touched(range) })
    }

    fn range_error(&self, range: &Range<u64>) -> SnapshotError {
        SnapshotError::Range {
            snapshot: self.snapshot.to_string(),
            id: self.memory.id.to_string(),
            start: range.start,
            end: range.end,
            len_bytes: self.memory.len_bytes,
        }
    }

    fn check_len(&self, found_bytes: u64) -> Result<(), SnapshotError> {
        let Memory { id, len_bytes: expected_bytes, contents: _ } = &self.memory;
        if found_bytes == *expected_bytes {
            return Ok(());
        }
        let (snapshot, id) = (self.snapshot.to_string(), id.to_string());
        Err(SnapshotError::Length { snapshot, id, expected_bytes: *expected_bytes, found_bytes })
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
        let (snapshot, file) = (self.snapshot.to_string(), self.memory.id.file_name());
        move |source| SnapshotError::File { snapshot, file, doing, source }
    }
}

/// Copies bytes of a file to the same place in another.
fn copy_bytes(from: &File, to: &File, bytes: &Range<u64>) -> io::Result<()> {
    let mut at = bytes.start;
    while at < bytes.end {
        let left = usize::try_from(bytes.end - at).unwrap_or(usize::MAX);
        match copy_file_range(from, Some(&mut at.clone()), to, Some(&mut at.clone()), left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(copied) => at += copied as u64,
            Err(Errno::INTR) => {}
            // A file system that cannot, or two of them.
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => {
                let mut buffer = vec![0; CHUNK_BYTES.min(left)];
                from.read_exact_at(&mut buffer, at)?;
                to.write_all_at(&buffer, at)?;
                at += buffer.len() as u64;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::slice::from_ref;

    use super::*;

    fn writer(len_bytes: u64, below: &[Range<u64>]) -> ContentsWriter {
        let contents = Contents::Copied(Base::Parent);
        let memory = Memory { id: "ram".parse().expect("a name"), len_bytes, contents };
        let name = Arc::new("test".parse().expect("a name"));
        let file = tempfile::tempfile().expect("a file");
        ContentsWriter::new(name, memory, file, below.iter().cloned().collect()).expect("a writer")
    }

    fn runs(writer: &ContentsWriter) -> Vec<(Range<u64>, Fill)> {
        writer.runs.iter().map(|(pages, fill)| (pages.clone(), *fill)).collect()
    }

    #[test]
    fn zeros_are_told_where_there_were_bytes() {
        let memory = HostMemory::anonymous(8 * PAGE_BYTES).expect("memory");
        let mut writer = writer(8 * PAGE_BYTES, from_ref(&(5..7)));
        memory.write(2 * PAGE_BYTES, &[1; 2 * PAGE_BYTES as usize]).expect("inside");
        let copied = writer.copy(&memory, from_ref(&(0..8 * PAGE_BYTES))).expect("copied");
        assert_eq!(copied, Copied { written_bytes: 2 * PAGE_BYTES, zero_bytes: 6 * PAGE_BYTES });
        assert_eq!(runs(&writer), [(2..4, Fill::Data), (5..7, Fill::Zeros)]);
        memory.write(2 * PAGE_BYTES, &[0; PAGE_BYTES as usize]).expect("inside");
        memory.write(6 * PAGE_BYTES, &[1]).expect("inside");
        writer
            .copy(&memory, &[2 * PAGE_BYTES..2 * PAGE_BYTES + 1, 6 * PAGE_BYTES..6 * PAGE_BYTES + 1])
            .expect("copied");
        assert_eq!(runs(&writer), [(3..4, Fill::Data), (5..6, Fill::Zeros), (6..7, Fill::Data)]);
        let mut page = [1; PAGE_BYTES as usize];
        writer.file.read_exact_at(&mut page, 2 * PAGE_BYTES).expect("readable");
        assert!(pages::is_zero(&page), "what counts no more is gone from the file");
    }

    #[test]
    fn bytes_that_were_copied_elsewhere_are_whole_pages_of_it() {
        let mut writer = writer(2 * PAGE_BYTES + 100, &[]);
        let page = PAGE_BYTES as usize;
        let copied = writer.write(PAGE_BYTES, &[vec![0; page], vec![7; 100]].concat()).expect("up to the end");
        assert_eq!(copied, Copied { written_bytes: 100, zero_bytes: PAGE_BYTES });
        assert_eq!(runs(&writer), [(2..3, Fill::Data)]);
        assert_eq!(writer.write(0, &[]).expect("nothing"), Copied::default());
        for (start, len) in [(1, page), (0, page - 1), (2 * PAGE_BYTES, page), (u64::MAX, 1), (3 * PAGE_BYTES, 1)] {
            let refused = writer.write(start, &vec![1; len]).expect_err("refused");
            assert!(matches!(refused, SnapshotError::Range { .. }), "{refused}");
        }
        assert_eq!(runs(&writer), [(2..3, Fill::Data)]);
    }

    /// What cloning leaves to do, where the file system of the test cannot clone.
    #[test]
    fn what_a_cloned_file_has_is_taken_for_the_memory() {
        let mut writer = writer(64 * PAGE_BYTES, &[10..12, 40..41]);
        writer.runs.insert(50..60, Fill::Data);
        writer.file.write_all_at(&[7; 100], 40 * PAGE_BYTES + 5).expect("writable");
        writer.take_all().expect("taken");
        let fills = |page| writer.runs.get(&page).copied();
        assert_eq!((fills(10), fills(40)), (None, Some(Fill::Data)));
        assert_eq!(fills(20), fills(55), "both are holes");
        assert_eq!(writer.memory.contents, Contents::Copied(Base::Zeros), "it needs no parent");
    }

    #[test]
    fn a_file_that_cannot_be_cloned_changes_nothing() {
        let mut writer = writer(PAGE_BYTES, &[]);
        writer.runs.insert(0..1, Fill::Data);
        let memfd = File::from(rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("a memfd"));
        memfd.set_len(PAGE_BYTES - 1).expect("cut");
        let said = writer.clone_file(&memfd).expect_err("too short").to_string();
        assert!(said.contains("4096 bytes there, and 4095 here"), "{said}");
        for len_bytes in [PAGE_BYTES, PAGE_BYTES + 1] {
            memfd.set_len(len_bytes).expect("extended");
            assert_eq!(writer.clone_file(&memfd).expect("an answer"), CloneOutcome::Unsupported);
        }
        assert_eq!(runs(&writer), [(0..1, Fill::Data)]);
    }

    #[test]
    fn ranges_are_checked() {
        let memory = HostMemory::anonymous(PAGE_BYTES).expect("memory");
        let mut writer = writer(PAGE_BYTES, &[]);
        let copied = writer.copy(&memory, &[PAGE_BYTES..PAGE_BYTES, 0..0]).expect("nothing");
        assert_eq!(copied, Copied::default());
        let said = writer.copy(&memory, from_ref(&(PAGE_BYTES - 1..PAGE_BYTES + 1))).expect_err("outside").to_string();
        assert!(said.contains("bytes 0xfff to 0x1001 are not inside memory 'ram' of 0x1000 bytes"), "{said}");
        let short = HostMemory::anonymous(PAGE_BYTES * 2).expect("memory");
        assert!(matches!(writer.copy(&short, &[]), Err(SnapshotError::Length { found_bytes: 8192, .. })));
    }
}
