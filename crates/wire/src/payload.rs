//! Payloads of the memory device's commands, except events and extents, which have files of their own.
//!
//! Fixed heads only; where a list follows (regions, extents, logs, effects), its element is here too. Deliberately
//! absent: commands with an empty payload, and the eight bytes of the two timestamp commands, which are one `U64`.

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The answer to Identify Memory Device (CXL r4.0 8.2.10.9.1.1). Capacities are static ones, in units of
/// [`CAPACITY_MULTIPLE_BYTES`](crate::CAPACITY_MULTIPLE_BYTES); dynamic capacity is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct IdentifyMemoryDeviceOut {
    /// Firmware revision as ASCII, padded with zeros.
    pub fw_revision: [u8; 16],
    /// Total static capacity in units of 256 MiB.
    pub total_capacity: U64,
    /// Capacity that is always volatile, in units of 256 MiB.
    pub volatile_capacity: U64,
    /// Capacity that is always persistent, in units of 256 MiB.
    pub persistent_capacity: U64,
    /// Alignment of the volatile/persistent split in units of 256 MiB; zero where it is fixed.
    pub partition_alignment: U64,
    /// Size of the informational event log in records.
    pub info_log_size: U16,
    /// Size of the warning event log in records.
    pub warning_log_size: U16,
    /// Size of the failure event log in records.
    pub failure_log_size: U16,
    /// Size of the fatal event log in records.
    pub fatal_log_size: U16,
    /// Size of the label storage area in bytes.
    pub lsa_size_bytes: U32,
    /// Records of the poison list at most (24 bits, little-endian).
    pub poison_list_max_records: [u8; 3],
    /// Addresses that can be poisoned by injection.
    pub inject_poison_limit: U16,
    /// Bit 0 injects persistent poison, bit 1 scans for poison.
    pub poison_capabilities: u8,
    /// Bit 0 egress port congestion, bit 1 temporary throughput reduction.
    pub qos_capabilities: u8,
    /// Size of the Dynamic Capacity event log in records.
    pub dc_event_log_size: U16,
}

/// Asks for the dynamic capacity regions (CXL r4.0 8.2.10.9.9.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GetDcConfigurationIn {
    /// Regions wanted at most.
    pub region_count: u8,
    /// Index of the first region wanted.
    pub start_region: u8,
}

/// The head of the answer to Get Dynamic Capacity Configuration; the returned [`DcRegion`]s follow and, right after
/// them, one [`DcConfigurationTail`] (CXL r4.0 8.2.10.9.9.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GetDcConfigurationOut {
    /// Regions that the device has, 1 to 8.
    pub available_regions: u8,
    /// Regions in this answer.
    pub returned_regions: u8,
    /// Zero.
    pub reserved: [u8; 6],
}

/// Flag of a region: blocks are cleaned when they are released (CXL r4.0 8.2.10.9.9.1).
pub const DC_REGION_FLAG_SANITIZE_ON_RELEASE: u8 = 1;

/// One dynamic capacity region (CXL r4.0 8.2.10.9.9.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DcRegion {
    /// First device-physical address, a multiple of 256 MiB.
    pub base_dpa: U64,
    /// Range of addresses set aside, in units of 256 MiB.
    pub decode_len_multiples: U64,
    /// Usable length in bytes, at most the decode length.
    pub len_bytes: U64,
    /// Block size in bytes, a power of two of at least 40h.
    pub block_size_bytes: U64,
    /// Handle of the range's DSMAS entry in the CDAT.
    pub dsmad_handle: U32,
    /// [`DC_REGION_FLAG_SANITIZE_ON_RELEASE`] or zero.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// The end of the answer to Get Dynamic Capacity Configuration (CXL r4.0 8.2.10.9.9.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DcConfigurationTail {
    /// Extents that the device can track.
    pub supported_extents: U32,
    /// Extents that it can track further.
    pub available_extents: U32,
    /// Tags that the device can track.
    pub supported_tags: U32,
    /// Tags that it can track further.
    pub available_tags: U32,
}

/// Asks for a part of the list of accepted extents (CXL r4.0 8.2.10.9.9.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GetDcExtentListIn {
    /// Extents wanted at most; zero asks for total and generation only.
    pub count: U32,
    /// Index of the first extent wanted.
    pub start: U32,
}

/// The head of the answer to Get Dynamic Capacity Extent List; [`RawExtent`](crate::RawExtent)s follow
/// (CXL r4.0 8.2.10.9.9.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GetDcExtentListOut {
    /// Extents in this answer.
    pub returned: U32,
    /// Extents in the whole list.
    pub total: U32,
    /// Changes with every change of the list.
    pub generation: U32,
    /// Zero.
    pub reserved: U32,
}

/// The head of the answer to Get Supported Logs; [`SupportedLog`]s follow (CXL r4.0 8.2.10.5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GetSupportedLogsOut {
    /// Logs that follow.
    pub count: U16,
    /// Zero.
    pub reserved: [u8; 6],
}

/// A log that Get Log can read (CXL r4.0 8.2.10.5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SupportedLog {
    /// Which log it is, in the order of the UUID's text.
    pub uuid: [u8; 16],
    /// Its size in bytes.
    pub size_bytes: U32,
}

/// Asks for a part of a log; the answer is those bytes (CXL r4.0 8.2.10.5.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GetLogIn {
    /// Which log, in the order of the UUID's text.
    pub uuid: [u8; 16],
    /// First byte wanted.
    pub offset_bytes: U32,
    /// Bytes wanted.
    pub len_bytes: U32,
}

/// UUID of the Command Effects Log, `0da9c0b5-bf41-4b78-8f79-96b1623b3f17`, in the order of its text
/// (CXL r4.0 8.2.10.5.2.1).
pub const CEL_UUID: [u8; 16] =
    [0x0d, 0xa9, 0xc0, 0xb5, 0xbf, 0x41, 0x4b, 0x78, 0x8f, 0x79, 0x96, 0xb1, 0x62, 0x3b, 0x3f, 0x17];

/// One supported command in the Command Effects Log (CXL r4.0 8.2.10.5.2.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CelEntry {
    /// An [`Opcode`](crate::Opcode).
    pub opcode: U16,
    /// [`CommandEffects`].
    pub effects: U16,
}

/// What a command does to the device, and where it may be sent (CXL r4.0 8.2.10.5.2.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CommandEffects {
    /// Configuration changes after a cold reset.
    pub configuration_change_after_cold_reset: bool,
    /// Configuration changes at once.
    pub immediate_configuration_change: bool,
    /// Data change at once.
    pub immediate_data_change: bool,
    /// A policy changes at once.
    pub immediate_policy_change: bool,
    /// A log changes at once.
    pub immediate_log_change: bool,
    /// The security state changes.
    pub security_state_change: bool,
    /// The command goes on in the background.
    pub background_operation: bool,
    /// The secondary mailbox takes it too.
    pub secondary_mailbox_supported: bool,
    /// The background operation can be aborted on request.
    pub request_abort_supported: bool,
    /// The two bits that follow are valid.
    pub reset_bits_valid: bool,
    /// Configuration changes after a Conventional Reset.
    pub configuration_change_after_conventional_reset: bool,
    /// Configuration changes after a CXL Reset.
    pub configuration_change_after_cxl_reset: bool,
    #[bits(4)]
    __: u8,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<IdentifyMemoryDeviceOut>() == 0x45);
    assert!(offset_of!(IdentifyMemoryDeviceOut, total_capacity) == 0x10);
    assert!(offset_of!(IdentifyMemoryDeviceOut, volatile_capacity) == 0x18);
    assert!(offset_of!(IdentifyMemoryDeviceOut, persistent_capacity) == 0x20);
    assert!(offset_of!(IdentifyMemoryDeviceOut, partition_alignment) == 0x28);
    assert!(offset_of!(IdentifyMemoryDeviceOut, info_log_size) == 0x30);
    assert!(offset_of!(IdentifyMemoryDeviceOut, fatal_log_size) == 0x36);
    assert!(offset_of!(IdentifyMemoryDeviceOut, lsa_size_bytes) == 0x38);
    assert!(offset_of!(IdentifyMemoryDeviceOut, poison_list_max_records) == 0x3c);
    assert!(offset_of!(IdentifyMemoryDeviceOut, inject_poison_limit) == 0x3f);
    assert!(offset_of!(IdentifyMemoryDeviceOut, poison_capabilities) == 0x41);
    assert!(offset_of!(IdentifyMemoryDeviceOut, qos_capabilities) == 0x42);
    assert!(offset_of!(IdentifyMemoryDeviceOut, dc_event_log_size) == 0x43);
    assert!(size_of::<GetDcConfigurationIn>() == 2);
    assert!(size_of::<GetDcConfigurationOut>() == 8);
    assert!(size_of::<DcRegion>() == 0x28);
    assert!(offset_of!(DcRegion, decode_len_multiples) == 0x08);
    assert!(offset_of!(DcRegion, len_bytes) == 0x10);
    assert!(offset_of!(DcRegion, block_size_bytes) == 0x18);
    assert!(offset_of!(DcRegion, dsmad_handle) == 0x20);
    assert!(offset_of!(DcRegion, flags) == 0x24);
    assert!(size_of::<DcConfigurationTail>() == 16);
    assert!(offset_of!(DcConfigurationTail, available_tags) == 12);
    assert!(size_of::<GetDcExtentListIn>() == 8);
    assert!(size_of::<GetDcExtentListOut>() == 0x10);
    assert!(offset_of!(GetDcExtentListOut, total) == 0x04);
    assert!(offset_of!(GetDcExtentListOut, generation) == 0x08);
    assert!(size_of::<GetSupportedLogsOut>() == 8);
    assert!(size_of::<SupportedLog>() == 20);
    assert!(offset_of!(SupportedLog, size_bytes) == 0x10);
    assert!(size_of::<GetLogIn>() == 24);
    assert!(offset_of!(GetLogIn, offset_bytes) == 0x10);
    assert!(offset_of!(GetLogIn, len_bytes) == 0x14);
    assert!(size_of::<CelEntry>() == 4);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effects_have_the_bits_of_the_standard() {
        assert_eq!(u16::from(CommandEffects::new().with_immediate_configuration_change(true)), 1 << 1);
        assert_eq!(u16::from(CommandEffects::new().with_background_operation(true)), 1 << 6);
        assert_eq!(u16::from(CommandEffects::new().with_secondary_mailbox_supported(true)), 1 << 7);
        assert_eq!(u16::from(CommandEffects::new().with_configuration_change_after_cxl_reset(true)), 1 << 11);
    }

    #[test]
    fn a_region_is_these_forty_bytes() {
        let region = DcRegion {
            base_dpa: U64::new(0x1000_0000),
            decode_len_multiples: U64::new(8),
            len_bytes: U64::new(0x8000_0000),
            block_size_bytes: U64::new(0x20_0000),
            dsmad_handle: U32::new(5),
            flags: DC_REGION_FLAG_SANITIZE_ON_RELEASE,
            reserved: [0; 3],
        };
        #[rustfmt::skip]
        assert_eq!(region.as_bytes(), [
            0, 0, 0, 0x10, 0, 0, 0, 0,
            8, 0, 0, 0, 0, 0, 0, 0,
            0, 0, 0, 0x80, 0, 0, 0, 0,
            0, 0, 0x20, 0, 0, 0, 0, 0,
            5, 0, 0, 0, 1, 0, 0, 0,
        ]);
    }
}
