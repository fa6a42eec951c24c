//! Giving every page its memory at once, by several threads, a chunk at a time.
//!
//! ```text
//!  next ──▶ chunk ──▶ allocate in the file ──▶ populate ──▶ done += chunk ──▶ progress(done, total)
//! ```
//!
//! A page that finds no memory when it is touched is a signal; an allocation that finds none is an error. Deliberately
//! absent: host nodes and which of them a page is on.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use device::backends::Sharing;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use vm_memory::VolatileMemory;

use super::error::HostMemoryError;
use super::mapping::{Mapping, Protection};

/// What a thread takes at a time: long enough that taking costs nothing, short enough that progress is seen.
const CHUNK_BYTES: usize = 64 << 20;

/// More threads than this wait for each other in the host's page allocator.
const THREADS_MAX: usize = 8;

/// File system type of files in memory (`TMPFS_MAGIC` in linux/magic.h).
const TMPFS: u32 = 0x0102_1994;

/// Refuses at once what the host does not have. It would take all there is first: of a disk, everybody's room; of
/// memory, until it ends a process, perhaps this one.
pub(super) fn check_room(size_bytes: u64, sharing: Sharing, file: Option<&File>) -> Result<(), HostMemoryError> {
    let failed = |source: io::Error| HostMemoryError::Prealloc { size_bytes, source };
    // Pages that are written privately are this process's own, whatever is under them.
    let mut from_memory_bytes = if sharing == Sharing::Private || file.is_none() { size_bytes } else { 0 };
    if let Some(file) = file {
        let more_bytes = size_bytes.saturating_sub(file.metadata().map_err(failed)?.blocks().saturating_mul(512));
        let stat = rustix::fs::fstatfs(file).map_err(|errno| failed(errno.into()))?;
        // The type is a signed or unsigned word by architecture; the number is 32 bits in all of them.
        if stat.f_type as u32 == TMPFS {
            from_memory_bytes = from_memory_bytes.saturating_add(more_bytes);
        }
        let free = rustix::fs::fstatvfs(file).map_err(|errno| failed(errno.into()))?;
        // A file system of no blocks is one without a limit of its own.
        let available_bytes = free.f_bavail.saturating_mul(free.f_frsize);
        if free.f_blocks > 0 && available_bytes < more_bytes {
            return Err(HostMemoryError::NoRoom { size_bytes, more_bytes, available_bytes });
        }
    }
    match available_bytes() {
        Some(available_bytes) if available_bytes < from_memory_bytes => {
            Err(HostMemoryError::NotEnough { size_bytes, available_bytes })
        }
        // A host that does not say is asked page by page.
        _ => Ok(()),
    }
}

/// Memory that the host can give, with what it can swap out.
fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(field_bytes(&text, "MemAvailable:")?.saturating_add(field_bytes(&text, "SwapFree:").unwrap_or(0)))
}

/// `MemAvailable:   1024 kB`
fn field_bytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// A mapping whose pages are getting their memory.
pub(super) struct Filling<'a> {
    mapping: &'a Mapping,
    file: Option<&'a File>,
    progress: &'a (dyn Fn(u64, u64) + Sync),
    chunk_bytes: usize,
    next: AtomicUsize,
    has_failed: AtomicBool,
    /// Bytes done. Held while they are told, so that nobody hears of fewer than before.
    done_bytes: Mutex<u64>,
}

impl<'a> Filling<'a> {
    /// `file` is what pages are allocated in first.
    pub(super) fn new(mapping: &'a Mapping, file: Option<&'a File>, progress: &'a (dyn Fn(u64, u64) + Sync)) -> Self {
        Self {
            mapping,
            file,
            progress,
            chunk_bytes: CHUNK_BYTES.max(mapping.page_bytes()),
            next: AtomicUsize::new(0),
            has_failed: AtomicBool::new(false),
            done_bytes: Mutex::new(0),
        }
    }

    /// Fills all of it: by this thread and as many more as help.
    pub(super) fn run(&self) -> io::Result<()> {
        let chunks = self.mapping.region().size().div_ceil(self.chunk_bytes);
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(chunks);
        thread::scope(|scope| {
            // A thread that cannot be had is one fewer: the others do its part.
            let spawn = |_| thread::Builder::new().name("prealloc".into()).spawn_scoped(scope, || self.work()).ok();
            let helpers: Vec<_> = (1..threads).map_while(spawn).collect();
            let mut outcome = self.work();
            for helper in helpers {
                let theirs = helper.join().unwrap_or_else(|_| Err(io::Error::other("a thread ended in a panic")));
                outcome = outcome.and(theirs);
            }
            outcome
        })
    }

    /// Takes chunks until there are no more, or one failed.
    fn work(&self) -> io::Result<()> {
        let len = self.mapping.region().size();
        while !self.has_failed.load(Ordering::Relaxed) {
            let chunk = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(offset) = chunk.checked_mul(self.chunk_bytes).filter(|offset| *offset < len) else { break };
            let chunk_len = self.chunk_bytes.min(len - offset);
            if let Err(error) = self.fill(offset, chunk_len) {
                self.has_failed.store(true, Ordering::Relaxed);
                return Err(error);
            }
            self.tell(chunk_len as u64, len as u64);
        }
        Ok(())
    }

    fn tell(&self, more_bytes: u64, total_bytes: u64) {
        let mut done_bytes = self.done_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        *done_bytes += more_bytes;
        (self.progress)(*done_bytes, total_bytes);
    }

    fn fill(&self, offset: usize, len: usize) -> io::Result<()> {
        if let Some(file) = self.file {
            match retry(|| rustix::fs::fallocate(file, FallocateFlags::empty(), offset as u64, len as u64)) {
                // A file system that cannot allocate ahead; what populating finds missing is an error too.
                Err(Errno::OPNOTSUPP) | Ok(()) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        match populate(self.mapping, offset, len) {
            // What would have been a signal.
            Err(Errno::FAULT) => Err(io::Error::new(io::ErrorKind::StorageFull, "no room for a page of it")),
            done => Ok(done?),
        }
    }
}

/// Gives the pages of a stretch their memory without changing a byte. `offset` is of whole pages.
pub(super) fn populate(mapping: &Mapping, offset: usize, len: usize) -> Result<(), Errno> {
    match retry(|| mapping.populate(offset, len)) {
        Err(Errno::INVAL | Errno::NOSYS) => touch(mapping, offset, len),
        done => done,
    }
}

/// What hosts older than Linux 5.14 can do.
fn touch(mapping: &Mapping, offset: usize, len: usize) -> Result<(), Errno> {
    for at in (offset..offset + len).step_by(rustix::param::page_size()) {
        let byte = mapping.region().get_atomic_ref::<AtomicU8>(at).map_err(|_| Errno::INVAL)?;
        match mapping.protection() {
            Protection::ReadWrite => byte.fetch_or(0, Ordering::Relaxed),
            Protection::ReadOnly => byte.load(Ordering::Relaxed),
        };
    }
    Ok(())
}

/// A signal that is handled elsewhere ends no allocation.
fn retry(mut call: impl FnMut() -> Result<(), Errno>) -> Result<(), Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_meminfo_are_read_or_absent() {
        let text = "MemTotal:       100 kB\nMemAvailable:     12 kB\nSwapFree: many kB\n";
        assert_eq!(field_bytes(text, "MemAvailable:"), Some(12 << 10));
        assert_eq!(field_bytes(text, "SwapFree:"), None);
        assert_eq!(field_bytes(text, "Buffers:"), None);
        assert!(available_bytes().is_some_and(|bytes| bytes > 0));
    }
}
