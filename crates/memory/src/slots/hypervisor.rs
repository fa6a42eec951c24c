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

    /// Fills an empty slot.
    ///
    /// # Errors
    ///
    /// The slot stays empty.
    ///
    /// # Safety
    ///
    /// The memory of the region is mapped in this process, readable, and writable unless the access is read-only, and
    /// stays so until the slot was cleared or the hypervisor dropped.
    unsafe fn set_slot(&self, number: u32, region: SlotRegion) -> io::Result<()>;

    /// Empties a slot. When it returns, no processor reaches the memory through it.
    ///
    /// # Errors
    ///
    /// The slot may still show its memory.
    fn clear_slot(&self, number: u32) -> io::Result<()>;
}
