//! The guest-physical address map.
//!
//! ```text
//! 0                RAM, up to 2 GiB
//! B000_0000        configuration space, where a host leaves it when it turns it on
//! C000_0000        BARs, to E000_0000, as this house's driver places them; bridges forward any address
//! 1_0000_0000      the rest of RAM
//! next 256 MiB     CXL host registers (the first MiB)
//! + 256 MiB        the CXL fixed memory windows, one behind the other
//! ```
//!
//! With RAM of up to 2 GiB, host registers and windows are where QEMU's q35 machine has them. Deliberately absent:
//! firmware, and everything legacy.

use wire::{CAPACITY_MULTIPLE_BYTES, Hpa};

/// Where configuration space is by memory, where a host leaves the register for it as it is at power-on.
pub const ECAM_BASE: Hpa = Hpa(0xb000_0000);
/// Its length in bytes: 256 buses.
pub const ECAM_LEN_BYTES: u64 = 256 << 20;
/// Where BARs may be put.
pub const MMIO_BASE: Hpa = Hpa(0xc000_0000);
/// How many bytes of addresses there are for BARs.
pub const MMIO_LEN_BYTES: u64 = 0x2000_0000;
/// Addresses for the registers of CXL host bridges, in bytes.
pub const CXL_HOST_REGISTERS_LEN_BYTES: u64 = 1 << 20;

/// RAM below 4 GiB at most, in bytes.
const LOW_RAM_LEN_BYTES_MAX: u64 = 2 << 30;
/// Where RAM goes on.
const HIGH_RAM_BASE: Hpa = Hpa(4 << 30);

/// Where RAM is, and what follows from its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressMap {
    ram_len_bytes: u64,
}

impl AddressMap {
    /// The map for so much RAM.
    pub const fn new(ram_len_bytes: u64) -> Self {
        Self { ram_len_bytes }
    }

    /// RAM from address 0 on, in bytes.
    pub fn low_ram_len_bytes(&self) -> u64 {
        self.ram_len_bytes.min(LOW_RAM_LEN_BYTES_MAX)
    }

    /// RAM from 4 GiB on, in bytes.
    pub fn high_ram_len_bytes(&self) -> u64 {
        self.ram_len_bytes - self.low_ram_len_bytes()
    }

    /// Where the registers of CXL host bridges are, or `None` where RAM leaves no addresses for them.
    pub fn cxl_host_registers(&self) -> Option<Hpa> {
        let end = HIGH_RAM_BASE.checked_add(self.high_ram_len_bytes())?;
        end.0.checked_next_multiple_of(CAPACITY_MULTIPLE_BYTES).map(Hpa)
    }

    /// Where the CXL fixed memory window begins, or `None` where RAM leaves no addresses for it.
    pub fn fixed_window_base(&self) -> Option<Hpa> {
        self.cxl_host_registers()?.checked_add(CAPACITY_MULTIPLE_BYTES)
    }

    /// Where in RAM an address is, and how much RAM follows it without a gap; `None` where no RAM is.
    pub(crate) fn ram_offset(&self, at: Hpa) -> Option<(u64, u64)> {
        let low = self.low_ram_len_bytes();
        if at.0 < low {
            return Some((at.0, low - at.0));
        }
        let into = at.bytes_from(HIGH_RAM_BASE)?;
        let left = self.high_ram_len_bytes().checked_sub(into).filter(|left| *left > 0)?;
        Some((low + into, left))
    }

    /// RAM: address, where in its memory, and length in bytes.
    pub(crate) fn ram_parts(&self) -> [(Hpa, u64, u64); 2] {
        let low = self.low_ram_len_bytes();
        [(Hpa(0), 0, low), (HIGH_RAM_BASE, low, self.high_ram_len_bytes())]
    }

    /// Bytes from `at` up to where RAM goes on, if that is further up.
    pub(crate) fn bytes_to_high_ram(&self, at: Hpa) -> Option<u64> {
        HIGH_RAM_BASE.bytes_from(at).filter(|bytes| *bytes > 0 && self.high_ram_len_bytes() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_follows_ram() {
        assert_eq!(AddressMap::new(1 << 30).fixed_window_base(), Some(Hpa(0x1_1000_0000)));
        assert_eq!(AddressMap::new(2 << 30).fixed_window_base(), Some(Hpa(0x1_1000_0000)));
        assert_eq!(AddressMap::new(3 << 30).fixed_window_base(), Some(Hpa(0x1_5000_0000)));
        assert_eq!(AddressMap::new((2 << 30) + 1).cxl_host_registers(), Some(Hpa(0x1_1000_0000)));
        assert_eq!(AddressMap::new(u64::MAX).fixed_window_base(), None);
        assert_eq!(AddressMap::new(u64::MAX - (2 << 30)).cxl_host_registers(), None);
    }

    #[test]
    fn ram_is_split_at_2_gib() {
        let map = AddressMap::new(3 << 30);
        assert_eq!(map.ram_offset(Hpa(0x7fff_ffff)), Some((0x7fff_ffff, 1)));
        assert_eq!(map.ram_offset(Hpa(0x8000_0000)), None);
        assert_eq!(map.ram_offset(Hpa(0x1_0000_0000)), Some((0x8000_0000, 1 << 30)));
        assert_eq!(map.ram_offset(Hpa(0x1_4000_0000)), None);
        assert_eq!(map.ram_parts(), [(Hpa(0), 0, 2 << 30), (Hpa(1 << 32), 2 << 30, 1 << 30)]);
        assert_eq!(map.bytes_to_high_ram(Hpa(0xffff_fffe)), Some(2));
        assert_eq!(AddressMap::new(1 << 30).bytes_to_high_ram(Hpa(0)), None);
    }
}
