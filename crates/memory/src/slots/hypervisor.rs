//! What can show memory of this process to a guest's processor: KVM, or what stands for it in a test.

use std::io;

use wire::Hpa;

/// What a guest's processor may do with a slot by itself; everything else comes back as an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotAccess {
    /// Loads and stores.
    ReadWrite,
    /// Loads; a store is an exit.
    ReadOnly,
}

/// Whether a slot keeps a log of the pages that the guest writes through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlotLog {
    /// It does not.
    #[default]
    Off,
    /// It does.
    On,
}

/// Memory of this process at guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotRegion {
    /// First guest-physical address, at a page's begin.
    pub hpa: Hpa,
    /// Length in bytes, in whole pages.
    pub len_bytes: u64,
    /// First address in this process, at a page's begin.
    pub host_address: usize,
    /// What the guest may do with it.
    pub access: SlotAccess,
}

/// Who has numbered memory slots.
pub trait Hypervisor: Send + Sync {
    /// How many slots there are; their numbers are below that.
    fn slot_limit(&self) -> u32;

    /// Fills an empty slot. A log begins empty.
    ///
    /// # Errors
    ///
    /// The slot stays empty.
    ///
    /// # Safety
    ///
    /// The memory of the region is mapped in this process, readable, and writable unless the access is read-only, and
    /// stays so until the slot was cleared or the hypervisor dropped.
    unsafe fn set_slot(&self, number: u32, region: SlotRegion, log: SlotLog) -> io::Result<()>;

    /// Begins the log of a filled slot, or ends it and forgets what was in it. Of what is written after it has begun
    /// nothing is missing in the log. Where it is so already, nothing happens.
    ///
    /// # Errors
    ///
    /// The slot stays as it was.
    ///
    /// # Safety
    ///
    /// The region is the one that the slot was filled with.
    unsafe fn set_log(&self, number: u32, region: SlotRegion, log: SlotLog) -> io::Result<()>;

    /// The pages that were written through a slot since its log began, or was last taken: a bit for each page of the host,
    /// the lowest one of the first word for the first one. Takes them: the next one tells of what is written from now on.
    ///
    /// # Errors
    ///
    /// What was in the log may be lost.
    ///
    /// # Safety
    ///
    /// The slot is filled, and `len_bytes` is its length.
    unsafe fn dirty_log(&self, number: u32, len_bytes: u64) -> io::Result<Vec<u64>>;

    /// Empties a slot. When it returns, no processor reaches the memory through it.
    ///
    /// # Errors
    ///
    /// The slot may still show its memory.
    fn clear_slot(&self, number: u32) -> io::Result<()>;
}
