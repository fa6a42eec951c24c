//! Why a slot is not what was asked.

use std::io;

use thiserror::Error;
use wire::Hpa;

/// Why a slot was not filled. Nothing has changed then, and the addresses are exits as they were.
#[derive(Debug, Error)]
pub enum SlotError {
    /// Not whole pages in the guest, or in this process.
    #[error(
        "{len_bytes:#x} bytes of host memory from offset {offset_bytes:#x} on, at guest address {hpa}, are not whole pages of {page_bytes} bytes in both"
    )]
    Unaligned {
        /// First guest-physical address.
        hpa: Hpa,
        /// Length in bytes.
        len_bytes: u64,
        /// Where in the memory it begins, in bytes.
        offset_bytes: u64,
        /// Bytes of a page.
        page_bytes: u64,
    },
    /// No bytes, or a range that leaves the address space.
    #[error("{len_bytes:#x} bytes from guest address {hpa} on are no range of addresses")]
    NoRange {
        /// First guest-physical address.
        hpa: Hpa,
        /// Length in bytes.
        len_bytes: u64,
    },
    /// Not inside its memory.
    #[error("{len_bytes:#x} bytes from offset {offset_bytes:#x} on are not inside {size_bytes:#x} bytes of memory")]
    OutsideMemory {
        /// Where in the memory it begins, in bytes.
        offset_bytes: u64,
        /// Length in bytes.
        len_bytes: u64,
        /// Length of the memory in bytes.
        size_bytes: u64,
    },
    /// A slot is there already.
    #[error("guest address {hpa} is in a slot already, of the {slot_len_bytes:#x} bytes from {slot_hpa} on")]
    Overlap {
        /// The first address that both have.
        hpa: Hpa,
        /// First address of the slot that is there.
        slot_hpa: Hpa,
        /// Its length in bytes.
        slot_len_bytes: u64,
    },
    /// The hypervisor has no more slots.
    #[error("all slots that may be used for this are in use: the hypervisor has {limit}")]
    Full {
        /// How many the hypervisor has.
        limit: u32,
    },
    /// The hypervisor refused.
    #[error("the hypervisor refused a slot of {len_bytes:#x} bytes at guest address {hpa}: {source}")]
    Refused {
        /// First guest-physical address.
        hpa: Hpa,
        /// Length in bytes.
        len_bytes: u64,
        /// What it said.
        source: io::Error,
    },
}

/// A slot that could not be cleared: the guest may still reach its memory, which is therefore never given back.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the slot of {len_bytes:#x} bytes at guest address {hpa} cannot be cleared: {reason}")]
pub struct StuckSlot {
    /// First guest-physical address.
    pub hpa: Hpa,
    /// Length in bytes.
    pub len_bytes: u64,
    /// What the hypervisor said.
    pub reason: String,
}
