//! The two ways to configuration space that a host has: the ports CF8h and CFCh, and memory (ECAM).
//!
//! ```text
//!  CF8h  │ 31 enable │ 23:16 bus │ 15:11 device │ 10:8 function │ 7:2 dword │     CFCh..CFFh: the bytes of that dword
//!  ECAM + │ 27:20 bus │ 19:15 device │ 14:12 function │ 11:0 register │
//! ```
//!
//! Memory accesses are cut into what a bus makes: pieces of 1, 2 and 4 bytes that are aligned to their length.
//! Deliberately absent: everything else that is in IO space; it reads all ones and swallows writes.

/// The port of the address register.
const CONFIG_ADDRESS: u16 = 0xcf8;
/// The first port of the data register.
const CONFIG_DATA: u16 = 0xcfc;
const CONFIG_DATA_END: u16 = CONFIG_DATA + 4;

/// A register of a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConfigRegister {
    pub(crate) bus: u8,
    pub(crate) device: u8,
    pub(crate) function: u8,
    pub(crate) offset: u16,
}

impl ConfigRegister {
    /// The register at so many bytes into the memory of configuration space, of at most 256 MiB.
    pub(crate) fn in_ecam(offset: u64) -> Self {
        Self {
            bus: (offset >> 20) as u8,
            device: (offset >> 15) as u8 & 0x1f,
            function: (offset >> 12) as u8 & 7,
            offset: offset as u16 & 0xfff,
        }
    }
}

/// What an access to an IO port reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PortAccess {
    /// The address register.
    Address,
    /// The register that the address register selects.
    Data(ConfigRegister),
    /// Nothing.
    Nobody,
}

/// The address register.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ConfigAddress(pub(crate) u32);

impl ConfigAddress {
    /// What an access of `width` bytes at a port reaches. The address register takes accesses of 4 bytes only.
    pub(crate) fn access(self, port: u16, width: u8) -> PortAccess {
        match port {
            CONFIG_ADDRESS if width == 4 => PortAccess::Address,
            CONFIG_DATA..CONFIG_DATA_END if self.0 >> 31 != 0 => PortAccess::Data(ConfigRegister {
                bus: (self.0 >> 16) as u8,
                device: (self.0 >> 11) as u8 & 0x1f,
                function: (self.0 >> 8) as u8 & 7,
                offset: self.0 as u16 & 0xfc | port & 3,
            }),
            _ => PortAccess::Nobody,
        }
    }
}

/// Cuts `len` bytes from `at` on into accesses of at most `max` bytes, a power of two, each a power of two long and
/// aligned to its length: (offset from `at`, length).
pub(crate) fn natural_pieces(at: u64, len: usize, max: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|left| *left > 0)?;
        let aligned = 1usize << at.wrapping_add(done as u64).trailing_zeros().min(max.trailing_zeros());
        let piece = if aligned <= left { aligned } else { 1 << left.ilog2() };
        let start = done;
        done += piece;
        Some((start, piece))
    })
}

/// The bytes of a value as a bus carries them.
pub(crate) fn to_bytes(value: u32, to: &mut [u8]) {
    to.iter_mut().zip(value.to_le_bytes()).for_each(|(to, byte)| *to = byte);
}

/// The value that at most 4 bytes carry.
pub(crate) fn from_bytes(from: &[u8]) -> u32 {
    from.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// The bits that an access of so many bytes has: what a read gives where nothing answers.
pub(crate) fn lanes(width: u8) -> u32 {
    match width {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let register = ConfigRegister { bus: 0x0c, device: 0x1f, function: 7, offset: 0x19 };
        assert_eq!(ConfigAddress(0x800c_ff18).access(0xcfd, 1), PortAccess::Data(register));
        assert_eq!(ConfigAddress(0x000c_ff18).access(0xcfd, 1), PortAccess::Nobody);
        assert_eq!(ConfigAddress(0).access(0xcf8, 4), PortAccess::Address);
        assert_eq!(ConfigAddress(0).access(0xcf8, 2), PortAccess::Nobody);
        let register = ConfigRegister { offset: 0xabc, ..register };
        assert_eq!(ConfigRegister::in_ecam(0x0cf_fabc), register);
    }

    #[test]
    fn pieces_are_aligned_to_their_length() {
        let pieces = |at, len, max| natural_pieces(at, len, max).collect::<Vec<_>>();
        assert_eq!(pieces(0, 8, 4), [(0, 4), (4, 4)]);
        assert_eq!(pieces(1, 8, 4), [(0, 1), (1, 2), (3, 4), (7, 1)]);
        assert_eq!(pieces(4, 13, 8), [(0, 4), (4, 8), (12, 1)]);
        assert_eq!(pieces(8, 7, 8), [(0, 4), (4, 2), (6, 1)]);
        assert_eq!(pieces(u64::MAX, 2, 8), [(0, 1), (1, 1)]);
        assert!(pieces(0, 0, 8).is_empty());
        assert_eq!(from_bytes(&[1, 2]), 0x0201);
    }
}
