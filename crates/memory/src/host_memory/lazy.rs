//! Memory whose bytes are in files until they are touched.
//!
//! ```text
//!  runs      ┌── file A ──┐        ┌ file B ┐
//!  memory  0 │ 0 0 0 0 0 0│0 0 0 0 0│0 0 0 0 │ 0       zeros, and each run laid over them (private: copy on write)
//!            └ read when it is touched, or by pull(); the file is never changed
//! ```
//!
//! A file that is mapped must stay as it is: what somebody else changes in it may be seen or not. From
//! [`HostMemory::pull`] on every byte is this process's own, and the file may be changed. It may be removed at any time, and
//! made shorter never: then the host takes away what was mapped of it, changed or not, and ends a process that touches it.
//! Each run takes up to two mappings of a process, of which the host allows about 65000 ([`RUNS_MAX`]); those beyond,
//! the shortest, are read at once. Deliberately absent: what the files are.

use std::fs::File;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use device::backends::{BackendKind, Population};
use rustix::io::Errno;

use super::error::{HostMemoryError, RunError};
use super::mapping::Overlay;
use super::{HostMemory, HostMemorySpec, Surroundings, backend_dir, prealloc};

/// How many runs this process maps at most, in all of its memories.
const RUNS_MAX: usize = 16 << 10;
/// And no more than one of so many mappings that the host allows it.
const MAPPINGS_SHARE: usize = 4;
/// What is read or pulled at once.
const CHUNK_BYTES: u64 = 4 << 20;

/// Runs of all memories of this process that are mapped.
static MAPPED: AtomicUsize = AtomicUsize::new(0);

/// A stretch of a file that is the content of a stretch of memory. Offsets are at a page's begin, and so is the end but at
/// the end of the memory.
#[derive(Clone, Debug)]
pub struct FileRun {
    /// Where in the memory it begins, in bytes.
    pub offset_bytes: u64,
    /// Length in bytes.
    pub len_bytes: u64,
    /// The file, open for reading. It is not changed, and must not be.
    pub file: Arc<File>,
    /// Where in the file it begins, in bytes.
    pub file_offset_bytes: u64,
}

/// How far [`HostMemory::pull`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pulled {
    /// No byte is in a file only: what is in the files from now on does not matter.
    All,
    /// It was told to stop.
    Stopped,
}

/// The stretches of a memory that files are laid over, sorted.
#[derive(Debug, Default)]
pub(super) struct Lazy {
    ranges: Vec<Range<u64>>,
    /// How many of [`RUNS_MAX`] they take.
    share: Share,
}

impl Lazy {
    pub(super) fn ranges(&self) -> &[Range<u64>] {
        &self.ranges
    }
}

/// A part of the runs that may be mapped, until it is dropped.
#[derive(Debug, Default)]
struct Share(usize);

impl Share {
    /// As much as there is of what is wanted.
    fn take(wanted: usize) -> Self {
        let limit = runs_max();
        let more = |taken: usize| Some(taken + wanted.min(limit.saturating_sub(taken)));
        let before = MAPPED.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).unwrap_or_else(|taken| taken);
        Self(wanted.min(limit.saturating_sub(before)))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        MAPPED.fetch_sub(self.0, Ordering::Relaxed);
    }
}

impl FileRun {
    fn end(&self) -> u64 {
        self.offset_bytes.saturating_add(self.len_bytes)
    }

    fn goes_on_in(&self, next: &Self) -> bool {
        Arc::ptr_eq(&self.file, &next.file)
            && self.end() == next.offset_bytes
            && self.file_offset_bytes.checked_add(self.len_bytes) == Some(next.file_offset_bytes)
    }

    fn refused(&self, reason: RunError) -> HostMemoryError {
        HostMemoryError::Run { offset_bytes: self.offset_bytes, len_bytes: self.len_bytes, reason }
    }

    fn check(&self, size_bytes: u64) -> Result<(), RunError> {
        let Self { offset_bytes, len_bytes, ref file, file_offset_bytes } = *self;
        let page_bytes = rustix::param::page_size() as u64;
        let end = offset_bytes.checked_add(len_bytes).filter(|end| *end <= size_bytes && len_bytes > 0);
        let Some(end) = end else { return Err(RunError::OutsideMemory { size_bytes }) };
        let is_aligned = [offset_bytes, file_offset_bytes].iter().all(|at| at.is_multiple_of(page_bytes));
        if !is_aligned || !(end.is_multiple_of(page_bytes) || end == size_bytes) {
            return Err(RunError::Unaligned { file_offset_bytes, page_bytes });
        }
        if let Some(kind) = backend_dir::other_kind(file)? {
            return Err(RunError::NotRegular { kind });
        }
        let file_bytes = file.metadata()?.len();
        if file_offset_bytes.checked_add(len_bytes).is_none_or(|end| end > file_bytes) {
            return Err(RunError::OutsideFile { file_offset_bytes, file_bytes });
        }
        Ok(())
    }
}

impl HostMemory {
    /// Memory of kind `ram` with the bytes of files in it, and zeros where no run is. No byte is read before it is touched;
    /// where the memory is to be preallocated, all of them are, and no file is needed any more. Whatever it says of sharing,
    /// nobody else sees its bytes, and writes never reach a file.
    ///
    /// # Errors
    ///
    /// As [`HostMemory::create`]; [`HostMemoryError::NotLazy`] for memory that is a file itself: create it and write into
    /// it; [`HostMemoryError::Run`] for a run that is not in the memory, or not in its file, or not in whole pages, or
    /// shares a byte with another.
    pub fn over(
        spec: &HostMemorySpec,
        surroundings: Surroundings<'_>,
        runs: &[FileRun],
    ) -> Result<Self, HostMemoryError> {
        if spec.kind != BackendKind::Ram {
            return Err(HostMemoryError::NotLazy);
        }
        let runs = checked(spec.size_bytes, runs)?;
        let mut memory = Self::create(spec, surroundings)?;
        let mapped = match spec.population {
            Population::OnDemand => runs.len(),
            Population::Preallocated => 0,
        };
        memory.lay(runs, mapped)?;
        Ok(memory)
    }

    /// Reads what is in files only, a part at a time, so that what is in them does not matter any more. For a thread of its
    /// own, while the memory is used. `progress` hears how many bytes are done, of how many in all, and says whether to go
    /// on. Memory that was not made by [`HostMemory::over`] has nothing to pull.
    ///
    /// # Errors
    ///
    /// The host cannot read a file, or it has become shorter, or there is no memory left. Another call begins anew.
    pub fn pull(&self, mut progress: impl FnMut(u64, u64) -> ControlFlow<()>) -> io::Result<Pulled> {
        let total_bytes = self.lazy.ranges.iter().map(|range| range.end - range.start).sum();
        let mut done_bytes = 0;
        for range in &self.lazy.ranges {
            let mut at = range.start;
            while at < range.end {
                let len_bytes = CHUNK_BYTES.min(range.end - at);
                match prealloc::populate(&self.mapping, at as usize, len_bytes as usize) {
                    // What would have been a signal.
                    Err(Errno::FAULT) => return Err(io::Error::other("its file cannot be read, or became shorter")),
                    done => done?,
                }
                at += len_bytes;
                done_bytes += len_bytes;
                if progress(done_bytes, total_bytes).is_break() {
                    return Ok(Pulled::Stopped);
                }
            }
        }
        Ok(Pulled::All)
    }

    /// Maps the longest runs, so many of them as there may be and are wanted, and reads the others. They were checked.
    fn lay(&mut self, mut runs: Vec<FileRun>, wanted: usize) -> Result<(), HostMemoryError> {
        self.lazy.share = Share::take(wanted);
        runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.len_bytes));
        let read = runs.split_off(self.lazy.share.0.min(runs.len()));
        for run in &runs {
            let overlay = Overlay {
                offset: run.offset_bytes as usize,
                len: run.len_bytes as usize,
                file: &run.file,
                file_offset_bytes: run.file_offset_bytes,
            };
            self.mapping.overlay(overlay).map_err(|errno| run.refused(RunError::Host(errno.into())))?;
            self.lazy.ranges.push(run.offset_bytes..run.end());
        }
        self.lazy.ranges.sort_unstable_by_key(|range| range.start);
        read.iter().try_for_each(|run| self.read_run(run).map_err(|error| run.refused(error.into())))
    }

    fn read_run(&self, run: &FileRun) -> io::Result<()> {
        let mut bytes = vec![0; CHUNK_BYTES.min(run.len_bytes) as usize];
        let mut done = 0;
        while done < run.len_bytes {
            let part = (run.len_bytes - done).min(CHUNK_BYTES);
            let bytes = &mut bytes[..part as usize];
            run.file.read_exact_at(bytes, run.file_offset_bytes + done)?;
            self.write(run.offset_bytes + done, bytes).map_err(io::Error::other)?;
            done += part;
        }
        Ok(())
    }
}

/// The runs by offset, one of those that go on in each other.
fn checked(size_bytes: u64, runs: &[FileRun]) -> Result<Vec<FileRun>, HostMemoryError> {
    for run in runs {
        run.check(size_bytes).map_err(|reason| run.refused(reason))?;
    }
    let mut runs = runs.to_vec();
    runs.sort_unstable_by_key(|run| run.offset_bytes);
    for pair in runs.windows(2) {
        if let [run, next] = pair
            && next.offset_bytes < run.end()
        {
            let (offset_bytes, len_bytes) = (run.offset_bytes, run.len_bytes);
            return Err(next.refused(RunError::Overlap { offset_bytes, len_bytes }));
        }
    }
    runs.dedup_by(|next, run| {
        let goes_on = run.goes_on_in(next);
        if goes_on {
            run.len_bytes += next.len_bytes;
        }
        goes_on
    });
    Ok(runs)
}

/// How many runs this process may map.
fn runs_max() -> usize {
    static LIMIT: OnceLock<usize> = OnceLock::new();
    *LIMIT.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap_or_default();
        let mappings = text.trim().parse::<usize>().ok();
        mappings.map_or(RUNS_MAX, |mappings| RUNS_MAX.min(mappings / MAPPINGS_SHARE))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_all_runs_are_given_back() {
        let limit = runs_max();
        assert!(limit > 0 && limit <= RUNS_MAX);
        let (most, rest) = (Share::take(limit - 1), Share::take(7));
        assert_eq!((most.0, rest.0, Share::take(1).0), (limit - 1, 1, 0));
        drop(most);
        assert_eq!(Share::take(limit).0, limit - 1);
        drop(rest);
        assert_eq!(MAPPED.load(Ordering::Relaxed), 0);
    }
}
