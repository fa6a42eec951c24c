//! What the host tells the guest: once before it boots, and in a few words ever after.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::abi::magic;

/// Root buses at most.
pub const ROOT_BUSES_MAX: usize = 32;
/// Busy tags at most.
pub const BUSY_TAGS_MAX: usize = 128;
/// Says that the page was filled, by a host of this ABI.
pub const BOOT_MAGIC: u64 = magic(*b"dcdbot");

/// What the host tells the guest.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct BootPage {
    /// [`BOOT_MAGIC`].
    pub magic: u64,
    /// Rises when the guest is to look for devices anew. Changes while the guest runs.
    pub attention: u64,
    /// Rises when `wall_ms` is the time of now. Changes while the guest runs.
    pub clock_sequence: u64,
    /// Milliseconds since 1970 when `clock_sequence` last rose. Changes while the guest runs.
    pub wall_ms: u64,
    /// Not 0 while a device has not answered a command: such time does not count. Changes while the guest runs.
    pub owed: u64,
    /// How many vCPUs there are.
    pub vcpus: u64,
    /// Ticks of the time stamp counter in a millisecond. Changes with `clock_sequence`.
    pub tsc_khz: u64,
    /// First byte of the heap.
    pub heap_base: u64,
    /// Length of the heap in bytes.
    pub heap_len_bytes: u64,
    /// 0: no driver. Else one more than the policy's place in `driver::Policy::ALL`.
    pub policy: u64,
    /// Where configuration space is to be seen in memory; 0: nowhere.
    pub ecam_base: u64,
    /// Base of the addresses for base address registers.
    pub mmio_base: u64,
    /// Their length in bytes.
    pub mmio_len_bytes: u64,
    /// Base of the fixed memory windows.
    pub window_base: u64,
    /// Their length in bytes.
    pub window_len_bytes: u64,
    /// How many root buses there are.
    pub root_bus_count: u64,
    /// Their numbers.
    pub root_buses: [u8; ROOT_BUSES_MAX],
    /// How many tags are busy.
    pub busy_tag_count: u64,
    /// Tags whose memory is busy whenever it is there.
    pub busy_tags: [[u8; 16]; BUSY_TAGS_MAX],
}

const _: () = assert!(size_of::<BootPage>() <= 4096);
