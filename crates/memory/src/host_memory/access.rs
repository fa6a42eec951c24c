//! Reads and writes of host memory. A write marks its pages where they are tracked.

use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use vm_memory::VolatileMemory;

use super::HostMemory;
use super::mapping::Protection;

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

impl HostMemory {
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

    /// Puts the bytes of `from` at `offset_bytes`. Memory that is only read stays as it is.
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
        let slice = self.slice(offset_bytes, from.len())?;
        if self.takes_writes() {
            slice.copy_from(from);
            self.mark_written(offset_bytes, from.len());
        }
        Ok(())
    }

    fn slice(&self, offset_bytes: u64, len: usize) -> Result<vm_memory::VolatileSlice<'_>, OutOfRange> {
        usize::try_from(offset_bytes)
            .ok()
            .and_then(|offset| self.mapping.region().get_slice(offset, len).ok())
            .ok_or(OutOfRange { offset_bytes, len_bytes: len as u64, size_bytes: self.len_bytes() })
    }

    /// A write to memory that is mapped for reading would be a signal.
    pub(crate) fn takes_writes(&self) -> bool {
        self.mapping.protection() == Protection::ReadWrite
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

                #[doc = concat!("Puts a ", $width, " at `offset_bytes`. Memory that is only read stays as it is.")]
                pub fn $write(&self, offset_bytes: u64, value: $int) -> Result<(), OutOfRange> {
                    let slice = self.slice(offset_bytes, size_of::<$int>())?;
                    if !self.takes_writes() {
                        return Ok(());
                    }
                    match slice.get_atomic_ref::<$atomic>(0) {
                        Ok(place) => place.store(value.to_le(), Ordering::Relaxed),
                        Err(_) => slice.copy_from(&value.to_le_bytes()),
                    }
                    self.mark_written(offset_bytes, size_of::<$int>());
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
