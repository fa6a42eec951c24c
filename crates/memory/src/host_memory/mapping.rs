//! A mapping of this process that ends with its owner.
//!
//! ```text
//!            align_bytes                        what is laid over too much is cut off again
//!  ┌╌╌╌╌╌╌╌┬───────────────────────────┬╌╌╌╌╌╌┐
//!  ╎  cut  │ the mapping: whole pages  │  cut ╎
//!  └╌╌╌╌╌╌╌┴───────────────────────────┴╌╌╌╌╌╌┘
//!          ▲ a multiple of align_bytes
//! ```
//!
//! Deliberately absent: what the bytes mean.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::ptr::null_mut;

use device::backends::{Reservation, Sharing};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};
use vm_memory::MmapRegion;

/// File system type of huge pages (`HUGETLBFS_MAGIC` in linux/magic.h).
const HUGETLBFS: u32 = 0x958458f6;

/// What a mapping is asked to be.
#[derive(Debug)]
pub(super) struct MappingRequest {
    /// Length in bytes, not necessarily of whole pages.
    pub(super) len: usize,
    /// Bytes of a page of what is mapped.
    pub(super) page_bytes: usize,
    /// Its first address is a multiple of this power of two; 0 asks for nothing.
    pub(super) align_bytes: u64,
    /// Who sees writes.
    pub(super) sharing: Sharing,
    /// What may be done with it.
    pub(super) protection: Protection,
    /// Whether the host sets memory aside.
    pub(super) reservation: Reservation,
}

/// What may be done with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    /// Reads and writes.
    ReadWrite,
    /// Reads; a write would be a signal.
    ReadOnly,
}

/// Bytes of a page of a file, or of anonymous memory where there is none.
pub(super) fn page_bytes(file: Option<&File>) -> io::Result<usize> {
    let base = rustix::param::page_size();
    let Some(file) = file else { return Ok(base) };
    let stat = rustix::fs::fstatfs(file)?;
    // The type is a signed or unsigned word by architecture; the number is 32 bits in all of them.
    let is_huge = stat.f_type as u32 == HUGETLBFS;
    Ok(usize::try_from(stat.f_bsize).ok().filter(|_| is_huge).unwrap_or(base))
}

/// Pages of this process.
#[derive(Debug)]
pub(super) struct Mapping {
    region: MmapRegion,
    /// What to unmap: the region in whole pages.
    mapped_len: usize,
    page_bytes: usize,
    protection: Protection,
    sharing: Sharing,
    reservation: Reservation,
}

/// A stretch of a file that is laid over a part of a mapping, in whole pages of both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overlay<'a> {
    /// Where in the mapping it begins.
    pub(super) offset: usize,
    /// Length in bytes; the page that it ends in is the file's too.
    pub(super) len: usize,
    /// The file, which has so many bytes and keeps them.
    pub(super) file: &'a File,
    /// Where in the file it begins.
    pub(super) file_offset_bytes: u64,
}

impl Mapping {
    /// Maps `file` from its beginning, or zeros where there is none.
    pub(super) fn new(request: &MappingRequest, file: Option<&File>) -> io::Result<Self> {
        let MappingRequest { len, page_bytes, align_bytes: _, sharing, protection, reservation } = *request;
        let mapped_len = len.checked_next_multiple_of(page_bytes).ok_or(Errno::NOMEM)?;
        let start = match usize::try_from(request.align_bytes) {
            Ok(align) if align > page_bytes => map_aligned(request, file, mapped_len, align)?,
            Ok(_) => map_at(request, file, null_mut(), mapped_len)?,
            Err(_) => return Err(Errno::NOMEM.into()),
        };
        let (bits, flags) = (protection_flags(protection).bits() as i32, map_flags(sharing, reservation).bits() as i32);
        // SAFETY: `start` is the beginning of a mapping of at least `len` bytes that nobody else knows; it lives as
        // long as the region, because both are dropped with `Self` and the region hands out nothing that outlives it.
        let region = unsafe { MmapRegion::build_raw(start.cast(), len, bits, flags) };
        match region {
            Ok(region) => Ok(Self { region, mapped_len, page_bytes, protection, sharing, reservation }),
            Err(error) => {
                unmap(start, mapped_len);
                Err(io::Error::other(error))
            }
        }
    }

    /// The bytes.
    pub(super) fn region(&self) -> &MmapRegion {
        &self.region
    }

    /// Bytes of a page.
    pub(super) fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// What may be done with it.
    pub(super) fn protection(&self) -> Protection {
        self.protection
    }

    /// Who sees writes.
    pub(super) fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// Lays a stretch of a file over a part of it: what is written there stays this process's own, as in the rest, which
    /// must be private. Nothing of the file is read before it is touched.
    pub(super) fn overlay(&mut self, overlay: Overlay<'_>) -> Result<(), Errno> {
        let Overlay { offset, len, file, file_offset_bytes } = overlay;
        let mapped_len = len.checked_next_multiple_of(self.page_bytes).ok_or(Errno::INVAL)?;
        let is_inside = offset.checked_add(mapped_len).is_some_and(|end| end <= self.mapped_len);
        if !is_inside || !offset.is_multiple_of(self.page_bytes) || self.sharing != Sharing::Private {
            return Err(Errno::INVAL);
        }
        let at = self.region.as_ptr().wrapping_add(offset).cast();
        let flags = map_flags(Sharing::Private, self.reservation) | MapFlags::FIXED;
        // SAFETY: the stretch is inside the mapping that `self` owns, and `self` is borrowed for change: nobody else has
        // a reference to it.
        let mapped = unsafe {
            rustix::mm::mmap(at, mapped_len, protection_flags(self.protection), flags, file, file_offset_bytes)
        };
        mapped.map(|_| ())
    }

    /// Gives the pages of a stretch their memory without changing a byte. `offset` is of whole pages.
    pub(super) fn populate(&self, offset: usize, len: usize) -> Result<(), Errno> {
        if offset.checked_add(len).is_none_or(|end| end > self.mapped_len) {
            return Err(Errno::INVAL);
        }
        let advice = match self.protection {
            Protection::ReadWrite => Advice::LinuxPopulateWrite,
            Protection::ReadOnly => Advice::LinuxPopulateRead,
        };
        let start = self.region.as_ptr().wrapping_add(offset);
        // SAFETY: the stretch is inside the mapping that `self` owns and keeps alive, and populating it neither changes
        // its bytes nor unmaps anything.
        unsafe { rustix::mm::madvise(start.cast(), len, advice) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        unmap(self.region.as_ptr().cast(), self.mapped_len);
    }
}

fn protection_flags(protection: Protection) -> ProtFlags {
    match protection {
        Protection::ReadWrite => ProtFlags::READ | ProtFlags::WRITE,
        Protection::ReadOnly => ProtFlags::READ,
    }
}

fn map_flags(sharing: Sharing, reservation: Reservation) -> MapFlags {
    let sharing = match sharing {
        Sharing::Private => MapFlags::PRIVATE,
        Sharing::Shared => MapFlags::SHARED,
    };
    match reservation {
        Reservation::Reserved => sharing,
        Reservation::Unreserved => sharing | MapFlags::NORESERVE,
    }
}

/// Lays the mapping into a larger one that holds nothing, where an aligned address is, and cuts the rest off.
fn map_aligned(
    request: &MappingRequest,
    file: Option<&File>,
    mapped_len: usize,
    align: usize,
) -> io::Result<*mut c_void> {
    let room_len = mapped_len.checked_add(align).ok_or(Errno::NOMEM)?;
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: a new mapping at an address of the host's choice touches no other.
    let room = unsafe { rustix::mm::mmap_anonymous(null_mut(), room_len, ProtFlags::empty(), flags) }?;
    let before = room.addr().wrapping_neg() & (align - 1);
    let start = room.wrapping_byte_add(before);
    let mapped = map_at(request, file, start, mapped_len);
    if mapped.is_err() {
        unmap(room, room_len);
        return mapped;
    }
    unmap(room, before);
    unmap(start.wrapping_byte_add(mapped_len), align - before);
    mapped
}

/// Maps at `at`, which is null or inside a mapping of ours that holds nothing.
fn map_at(request: &MappingRequest, file: Option<&File>, at: *mut c_void, len: usize) -> io::Result<*mut c_void> {
    let protection = protection_flags(request.protection);
    let place = if at.is_null() { MapFlags::empty() } else { MapFlags::FIXED };
    let flags = map_flags(request.sharing, request.reservation) | place;
    let mapped = match file {
        // SAFETY: the host chooses the address, or the stretch is one that `map_aligned` has just mapped and shown to
        // nobody.
        Some(file) => unsafe { rustix::mm::mmap(at, len, protection, flags, file, 0) },
        // SAFETY: as above.
        None => unsafe { rustix::mm::mmap_anonymous(at, len, protection, flags) },
    };
    Ok(mapped?)
}

/// Ends a mapping of this module, or a part of it.
fn unmap(start: *mut c_void, len: usize) {
    if len == 0 {
        return;
    }
    // SAFETY: the callers pass whole pages that this module mapped, and no reference to them is left: those that
    // `HostMemory` hands out do not outlive it.
    let done = unsafe { rustix::mm::munmap(start, len) };
    // Only an address or length that is no page's fails; it would be a bug here, and a leak is the lesser harm.
    debug_assert_eq!(done, Ok(()));
}
