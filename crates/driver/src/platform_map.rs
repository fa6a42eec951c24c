//! What a platform tells a driver before it looks: where buses begin, and which addresses are free for what.
//!
//! Deliberately absent: where this comes from (ACPI on a real machine, constants in a small guest).

use wire::Hpa;

/// A range of host-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HpaRange {
    /// The first address.
    pub base: Hpa,
    /// How many bytes.
    pub size_bytes: u64,
}

impl HpaRange {
    /// The part at `offset_bytes` with a length, or `None` where it is not inside.
    pub fn part(self, offset_bytes: u64, size_bytes: u64) -> Option<Self> {
        let end = offset_bytes.checked_add(size_bytes)?;
        if end > self.size_bytes || self.base.checked_add(end).is_none() {
            return None;
        }
        Some(Self { base: self.base.checked_add(offset_bytes)?, size_bytes })
    }

    /// The part from `offset_bytes` to the end, or `None` where it begins outside.
    pub fn tail(self, offset_bytes: u64) -> Option<Self> {
        self.part(offset_bytes, self.size_bytes.checked_sub(offset_bytes)?)
    }
}

/// What a platform tells a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlatformMap<'a> {
    /// Buses that are not below a bridge, in any order.
    pub root_buses: &'a [u8],
    /// Base of the addresses for base address registers.
    pub mmio_base: Hpa,
    /// Their length in bytes; what is above 4 GiB is not used, as bridges forward only what is below.
    pub mmio_len_bytes: u64,
    /// Base of the CXL fixed memory window.
    pub window_base: Hpa,
    /// Its length in bytes.
    pub window_len_bytes: u64,
}

impl PlatformMap<'_> {
    /// Addresses for base address registers.
    pub(crate) fn mmio(&self) -> HpaRange {
        HpaRange { base: self.mmio_base, size_bytes: self.mmio_len_bytes }
    }

    /// The CXL fixed memory window.
    pub(crate) fn window(&self) -> HpaRange {
        HpaRange { base: self.window_base, size_bytes: self.window_len_bytes }
    }
}
