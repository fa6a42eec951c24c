//! Addresses and sizes that must not be mixed up: device-physical, host-physical, block.

use core::fmt;

/// Capacities of registers and commands count in units of this many bytes (256 MiB; CXL r4.0 8.2.10.9.1.1).
pub const CAPACITY_MULTIPLE_BYTES: u64 = 256 << 20;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "codec", derive(serde::Deserialize, serde::Serialize))]
        #[cfg_attr(feature = "codec", serde(transparent))]
        pub struct $name(pub u64);

        impl $name {
            /// The address `bytes` further up, or `None` past the end of the address space.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// Distance in bytes from `base` up to this address, or `None` where this address is below `base`.
            pub const fn bytes_from(self, base: Self) -> Option<u64> {
                self.0.checked_sub(base.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address! {
    /// A device-physical address in bytes (CXL r4.0 8.2.4.20).
    Dpa
}

address! {
    /// A host-physical (for the guest: guest-physical) address in bytes.
    Hpa
}

/// The block size of a dynamic capacity region in bytes: a power of two, at least 40h (CXL r4.0 8.2.10.9.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "codec", derive(serde::Deserialize, serde::Serialize))]
#[cfg_attr(feature = "codec", serde(try_from = "u64", into = "u64"))]
pub struct BlockSize(u64);

/// A number of bytes that is no block size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no block size: it must be a power of two of at least 64 bytes")]
pub struct BlockSizeError(pub u64);

impl TryFrom<u64> for BlockSize {
    type Error = BlockSizeError;

    fn try_from(bytes: u64) -> Result<Self, BlockSizeError> {
        Self::new(bytes)
    }
}

impl From<BlockSize> for u64 {
    fn from(block: BlockSize) -> Self {
        block.bytes()
    }
}

impl BlockSize {
    /// 2 MiB: what Linux needs for a DAX mapping, and QEMU's only choice.
    pub const DEFAULT: Self = Self(2 << 20);

    /// Takes a number of bytes as a block size.
    pub const fn new(bytes: u64) -> Result<Self, BlockSizeError> {
        if bytes.is_power_of_two() && bytes >= 0x40 { Ok(Self(bytes)) } else { Err(BlockSizeError(bytes)) }
    }

    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Whether an address or a length in bytes is a multiple of the block size.
    pub const fn divides(self, bytes: u64) -> bool {
        bytes & (self.0 - 1) == 0
    }
}
