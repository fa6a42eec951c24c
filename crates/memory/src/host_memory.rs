//! One stretch of host memory that a guest sees as its own.
//!
//! ```text
//!  HostMemorySpec ──create──▶ anonymous or memfd mapping ──read, write──▶ bytes
//! ```
//!
//! Guests change the bytes at any time, so accesses are volatile, and a naturally aligned access of 1, 2, 4 or 8 bytes
//! is one load or store. Nothing is reserved: a page costs memory when it is first touched. Deliberately absent: files,
//! huge pages, host addresses.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// Smallest page of every host: the stride at which memory is touched.
const PAGE_BYTES: usize = 4096;

/// What stands behind a memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryKind {
    /// Anonymous memory.
    Ram,
    /// An unnamed file in memory, which another process can be given.
    Memfd,
}

/// Whether a child or another process that maps the same memory sees writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Copied on write.
    Private,
    /// Seen by all.
    Shared,
}

/// When pages get their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prealloc {
    /// When they are first touched.
    OnTouch,
    /// All of them before [`HostMemory::create`] returns.
    AtOnce,
}

/// What memory to create.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemorySpec {
    /// What stands behind it.
    pub kind: MemoryKind,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Who sees writes.
    pub share: Sharing,
    /// When pages get their memory.
    pub prealloc: Prealloc,
}

/// Why memory could not be created.
#[derive(Debug, thiserror::Error)]
pub enum HostMemoryError {
    /// Nothing to map.
    #[error("host memory of 0 bytes cannot be mapped")]
    Empty,
    /// More than the host can address.
    #[error("host memory of {size_bytes} bytes is more than this host can address")]
    TooLarge {
        /// What was asked.
        size_bytes: u64,
    },
    /// The memfd could not be made.
    #[error("memfd of {size_bytes} bytes: {source}")]
    Memfd {
        /// What was asked.
        size_bytes: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The mapping failed.
    #[error("mapping {size_bytes} bytes of host memory: {source}")]
    Map {
        /// What was asked.
        size_bytes: u64,
        /// What the host said.
        source: vm_memory::mmap::MmapRegionError,
    },
    /// The host has not enough memory for all pages at once.
    #[error("preallocating {size_bytes} bytes of host memory: {source}")]
    Prealloc {
        /// What was asked.
        size_bytes: u64,
        /// What the host said.
        source: io::Error,
    },
}

/// An access that is not inside the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{len_bytes} bytes at offset {offset_bytes:#x} are not inside {size_bytes:#x} bytes of host memory")]
pub struct OutOfRange {
    /// Where it begins.
    pub offset_bytes: u64,
    /// How long it is.
    pub len_bytes: u64,
    /// How long the memory is.
    pub size_bytes: u64,
}

/// A mapped stretch of host memory.
#[derive(Debug)]
pub struct HostMemory {
    region: MmapRegion,
}

impl HostMemory {
    /// Maps what `spec` asks for; its bytes are zero.
    pub fn create(spec: &HostMemorySpec) -> Result<Self, HostMemoryError> {
        let size_bytes = spec.size_bytes;
        if size_bytes == 0 {
            return Err(HostMemoryError::Empty);
        }
        let size = usize::try_from(size_bytes)
            .ok()
            .filter(|size| isize::try_from(*size).is_ok())
            .ok_or(HostMemoryError::TooLarge { size_bytes })?;
        let file = match spec.kind {
            MemoryKind::Ram => None,
            MemoryKind::Memfd => Some(memfd(spec).map_err(|source| HostMemoryError::Memfd { size_bytes, source })?),
        };
        let region = map(file, size, spec.share).map_err(|source| HostMemoryError::Map { size_bytes, source })?;
        let memory = Self { region };
        if spec.prealloc == Prealloc::AtOnce {
            memory.touch().map_err(|source| HostMemoryError::Prealloc { size_bytes, source })?;
        }
        Ok(memory)
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.region.size() as u64
    }

    /// Fills `to` with the bytes from `offset_bytes` on.
    pub fn read(&self, offset_bytes: u64, to: &mut [u8]) -> Result<(), OutOfRange> {
        match to.len() {
            1 => to.copy_from_slice(&[self.read_u8(offset_bytes)?]),
            2 => to.copy_from_slice(&self.read_u16(offset_bytes)?.to_le_bytes()),
            4 => to.copy_from_slice(&self.read_u32(offset_bytes)?.to_le_bytes()),
            8 => to.copy_from_slice(&self.read_u64(offset_bytes)?.to_le_bytes()),
            _ => self.copy_out(offset_bytes, to)?,
        }
        Ok(())
    }

    /// Puts the bytes of `from` at `offset_bytes`.
    pub fn write(&self, offset_bytes: u64, from: &[u8]) -> Result<(), OutOfRange> {
        match *from {
            [byte] => self.write_u8(offset_bytes, byte),
            [a, b] => self.write_u16(offset_bytes, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.write_u32(offset_bytes, u32::from_le_bytes([a, b, c, d])),
            [a, b, c, d, e, f, g, h] => self.write_u64(offset_bytes, u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            _ => self.copy_in(offset_bytes, from),
        }
    }

    fn copy_out(&self, offset_bytes: u64, to: &mut [u8]) -> Result<(), OutOfRange> {
        self.slice(offset_bytes, to.len())?.copy_to(to);
        Ok(())
    }

    fn copy_in(&self, offset_bytes: u64, from: &[u8]) -> Result<(), OutOfRange> {
        self.slice(offset_bytes, from.len())?.copy_from(from);
        Ok(())
    }

    fn slice(&self, offset_bytes: u64, len: usize) -> Result<vm_memory::VolatileSlice<'_>, OutOfRange> {
        usize::try_from(offset_bytes)
            .ok()
            .and_then(|offset| self.region.get_slice(offset, len).ok())
            .ok_or(OutOfRange { offset_bytes, len_bytes: len as u64, size_bytes: self.len_bytes() })
    }

    /// Gives every page its memory, without changing a byte.
    fn touch(&self) -> io::Result<()> {
        if let Some(file) = self.region.file_offset() {
            // A page of a file that finds no memory is a signal; an allocation that finds none is an error.
            rustix::fs::fallocate(file.file(), FallocateFlags::empty(), 0, self.len_bytes())?;
        }
        match self.populate() {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => self.touch_page_by_page(),
            done => Ok(done?),
        }
    }

    fn populate(&self) -> Result<(), rustix::io::Errno> {
        let start = self.region.as_ptr().cast();
        // SAFETY: the range is exactly the mapping that `self.region` owns and keeps alive, and populating it neither
        // changes its bytes nor unmaps anything.
        unsafe { rustix::mm::madvise(start, self.region.size(), Advice::LinuxPopulateWrite) }
    }

    /// What hosts older than Linux 5.14 can do.
    fn touch_page_by_page(&self) -> io::Result<()> {
        for offset in (0..self.region.size()).step_by(PAGE_BYTES) {
            let byte = self.region.get_atomic_ref::<AtomicU8>(offset).map_err(io::Error::other)?;
            byte.fetch_or(0, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Accesses of one width: a single load or store where the offset is naturally aligned, else byte order is all that is
/// promised.
macro_rules! accesses {
    ($($read:ident $write:ident $int:ty, $atomic:ty, $width:literal;)*) => {
        impl HostMemory {
            $(
                #[doc = concat!("The ", $width, " at `offset_bytes`.")]
                pub fn $read(&self, offset_bytes: u64) -> Result<$int, OutOfRange> {
                    let slice = self.slice(offset_bytes, size_of::<$int>())?;
                    if let Ok(place) = slice.get_atomic_ref::<$atomic>(0) {
                        return Ok(<$int>::from_le(place.load(Ordering::Relaxed)));
                    }
                    let mut bytes = [0; size_of::<$int>()];
                    slice.copy_to(&mut bytes);
                    Ok(<$int>::from_le_bytes(bytes))
                }

                #[doc = concat!("Puts a ", $width, " at `offset_bytes`.")]
                pub fn $write(&self, offset_bytes: u64, value: $int) -> Result<(), OutOfRange> {
                    let slice = self.slice(offset_bytes, size_of::<$int>())?;
                    match slice.get_atomic_ref::<$atomic>(0) {
                        Ok(place) => place.store(value.to_le(), Ordering::Relaxed),
                        Err(_) => slice.copy_from(&value.to_le_bytes()),
                    }
                    Ok(())
                }
            )*
        }
    };
}

accesses! {
    read_u8 write_u8 u8, AtomicU8, "byte";
    read_u16 write_u16 u16, AtomicU16, "little-endian 16-bit value";
    read_u32 write_u32 u32, AtomicU32, "little-endian 32-bit value";
    read_u64 write_u64 u64, AtomicU64, "little-endian 64-bit value";
}

fn memfd(spec: &HostMemorySpec) -> io::Result<File> {
    let file = File::from(rustix::fs::memfd_create("dcd-memory", MemfdFlags::CLOEXEC)?);
    file.set_len(spec.size_bytes)?;
    Ok(file)
}

fn map(file: Option<File>, size: usize, share: Sharing) -> Result<MmapRegion, vm_memory::mmap::MmapRegionError> {
    let sharing = match share {
        Sharing::Private => MapFlags::PRIVATE,
        Sharing::Shared => MapFlags::SHARED,
    };
    let mut flags = (sharing | MapFlags::NORESERVE).bits();
    if file.is_none() {
        // rustix has a call of its own for anonymous mappings instead of this flag.
        flags |= MAP_ANONYMOUS;
    }
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    let file = file.map(|file| FileOffset::new(file, 0));
    MmapRegion::build(file, size, protection.bits() as i32, flags as i32)
}

/// MAP_ANONYMOUS of Linux on x86-64, AArch64, RISC-V and s390x.
const MAP_ANONYMOUS: u32 = 0x20;

#[cfg(test)]
mod tests {
    use super::*;

    const ALL_KINDS: [(MemoryKind, Sharing); 4] = [
        (MemoryKind::Ram, Sharing::Private),
        (MemoryKind::Ram, Sharing::Shared),
        (MemoryKind::Memfd, Sharing::Private),
        (MemoryKind::Memfd, Sharing::Shared),
    ];

    fn spec(size_bytes: u64) -> HostMemorySpec {
        HostMemorySpec { kind: MemoryKind::Ram, size_bytes, share: Sharing::Private, prealloc: Prealloc::OnTouch }
    }

    #[test]
    fn every_kind_begins_with_zeroes_and_keeps_what_is_written() {
        for (kind, share) in ALL_KINDS {
            for prealloc in [Prealloc::OnTouch, Prealloc::AtOnce] {
                let memory = HostMemory::create(&HostMemorySpec { kind, share, prealloc, size_bytes: 0x5000 }).unwrap();
                let mut bytes = [1; 100];
                memory.read(0x4f00, &mut bytes).unwrap();
                assert_eq!(bytes, [0; 100]);
                memory.write(0x4ffb, b"bytes").unwrap();
                memory.read(0x4ffb, &mut bytes[..5]).unwrap();
                assert_eq!(&bytes[..5], b"bytes");
            }
        }
    }

    #[test]
    fn a_large_memory_costs_nothing_until_it_is_touched() {
        let memory = HostMemory::create(&spec(1 << 40)).unwrap();
        memory.write_u64((1 << 40) - 8, 7).unwrap();
        assert_eq!(memory.read_u64((1 << 40) - 8), Ok(7));
    }

    #[test]
    fn widths_agree_with_bytes_at_every_alignment() {
        let memory = HostMemory::create(&spec(0x1000)).unwrap();
        for offset in 0..16 {
            memory.write_u64(offset, 0x0807_0605_0403_0201).unwrap();
            assert_eq!(memory.read_u64(offset), Ok(0x0807_0605_0403_0201));
            assert_eq!(memory.read_u32(offset + 1), Ok(0x0504_0302));
            assert_eq!(memory.read_u16(offset + 3), Ok(0x0504));
            assert_eq!(memory.read_u8(offset + 7), Ok(8));
            memory.write_u16(offset + 2, 0xbbaa).unwrap();
            let mut bytes = [0; 7];
            memory.read(offset, &mut bytes).unwrap();
            assert_eq!(bytes, [1, 2, 0xaa, 0xbb, 5, 6, 7]);
        }
    }

    #[test]
    fn what_is_outside_is_an_error() {
        let memory = HostMemory::create(&spec(0x1000)).unwrap();
        let error = OutOfRange { offset_bytes: 0xff9, len_bytes: 8, size_bytes: 0x1000 };
        assert_eq!(memory.read_u64(0xff9), Err(error));
        assert_eq!(error.to_string(), "8 bytes at offset 0xff9 are not inside 0x1000 bytes of host memory");
        for offset in [0x1000, u64::MAX, u64::MAX - 3, 1 << 63] {
            for len in [1, 2, 3, 4, 8, 100] {
                assert!(memory.read(offset, &mut vec![0; len]).is_err());
                assert!(memory.write(offset, &vec![0; len]).is_err());
            }
        }
        assert_eq!(memory.read(0x1000, &mut []), Ok(()));
    }

    #[test]
    fn what_cannot_be_mapped_is_an_error() {
        assert!(matches!(HostMemory::create(&spec(0)), Err(HostMemoryError::Empty)));
        assert!(matches!(HostMemory::create(&spec(u64::MAX)), Err(HostMemoryError::TooLarge { .. })));
        assert!(matches!(HostMemory::create(&spec(i64::MAX as u64)), Err(HostMemoryError::Map { .. })));
        let memfd = HostMemorySpec { kind: MemoryKind::Memfd, ..spec(i64::MAX as u64) };
        assert!(HostMemory::create(&memfd).is_err());
    }
}
