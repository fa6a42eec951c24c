//! Why the window was not changed.

use device::config::DeviceIndex;
use thiserror::Error;
use wire::Dpa;

use crate::slots::StuckSlot;

/// Why a piece was not mapped or unmapped; nothing has changed then, but where a slot is stuck.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WindowError {
    /// No bytes, or a range that leaves the address space.
    #[error("{len_bytes:#x} bytes from DPA {dpa} on are no range of device-physical addresses")]
    NoRange {
        /// First device-physical address.
        dpa: Dpa,
        /// Length in bytes.
        len_bytes: u64,
    },
    /// The piece is not inside its memory.
    #[error("{len_bytes:#x} bytes from offset {offset_bytes:#x} on are not inside {size_bytes:#x} bytes of memory")]
    OutsideMemory {
        /// Where in the memory the piece begins.
        offset_bytes: u64,
        /// Length in bytes.
        len_bytes: u64,
        /// Length of the memory in bytes.
        size_bytes: u64,
    },
    /// A piece is there already.
    #[error("DPA {dpa} of device {} is mapped already, by the {len_bytes:#x} bytes from {mapped} on", device.0)]
    Overlap {
        /// The device.
        device: DeviceIndex,
        /// The first address that both have.
        dpa: Dpa,
        /// First address of the piece that is there.
        mapped: Dpa,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// A range to unmap has a hole.
    #[error("DPA {dpa} of device {} is not mapped", device.0)]
    NotMapped {
        /// The device.
        device: DeviceIndex,
        /// The first address without a piece.
        dpa: Dpa,
    },
    /// The lookup has changed, but a slot that shows what was there cannot be cleared: the guest may see what it must
    /// not, and nothing but the end of its virtual machine helps.
    #[error(transparent)]
    Stuck(#[from] StuckSlot),
}

/// Which of several pieces or ranges was refused; none of them was mapped or unmapped then, but where a slot is stuck.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{error}")]
pub struct Refused {
    /// Its index; 0 where the reason is a slot.
    pub index: usize,
    /// Why.
    pub error: WindowError,
}

impl From<StuckSlot> for Refused {
    fn from(stuck: StuckSlot) -> Self {
        Self { index: 0, error: stuck.into() }
    }
}
