//! Event records, the Dynamic Capacity record among them, and the four commands that read, clear and arm event logs.
//!
//! ```text
//! record   00 UUID (16)  10 length  11 flags (3)  14 handle  16 related handle  18 timestamp  20.. rest  30 body
//! DC body  30 kind  31 validity  32 host id  34 region  35 flags  36 reserved  38 extent (28h)  60 reserved
//!          78 available extents  7C available tags
//! ```
//!
//! Deliberately absent: bodies of other records (a DCD's host only needs to step over them), and what a log does when
//! it is full.

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::extent::RawExtent;

/// Length of every event record in bytes (CXL r4.0 8.2.10.2.1).
pub const EVENT_RECORD_LEN_BYTES: usize = 128;

/// UUID of the Dynamic Capacity event record, `ca95afa7-f183-4018-8c2f-95268e101a2a`, in the order of its text
/// (CXL r4.0 8.2.10.2.1.6).
pub const DC_EVENT_UUID: [u8; 16] =
    [0xca, 0x95, 0xaf, 0xa7, 0xf1, 0x83, 0x40, 0x18, 0x8c, 0x2f, 0x95, 0x26, 0x8e, 0x10, 0x1a, 0x2a];

/// An event log of a device, with its number in commands (CXL r4.0 8.2.10.2.2).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "codec", derive(serde::Serialize))]
#[repr(u8)]
pub enum EventLog {
    /// What is good to know.
    Informational = 0,
    /// What may become a failure.
    Warning = 1,
    /// What failed, without loss of the device.
    Failure = 2,
    /// What makes the device unusable.
    Fatal = 3,
    /// Dynamic Capacity records, and no others.
    DynamicCapacity = 4,
}

impl EventLog {
    /// Every log, in the order of its number.
    pub const ALL: [Self; 5] = [Self::Informational, Self::Warning, Self::Failure, Self::Fatal, Self::DynamicCapacity];

    /// The log with this number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Informational),
            1 => Some(Self::Warning),
            2 => Some(Self::Failure),
            3 => Some(Self::Fatal),
            4 => Some(Self::DynamicCapacity),
            _ => None,
        }
    }
}

/// Severity in bits 1:0 of the first flag byte: informational, the only one of a DC record (CXL r4.0 8.2.10.2.1.1).
pub const EVENT_SEVERITY_INFORMATIONAL: u8 = 0;
/// Severity in bits 1:0 of the first flag byte: warning (CXL r4.0 8.2.10.2.1.1).
pub const EVENT_SEVERITY_WARNING: u8 = 1;
/// Severity in bits 1:0 of the first flag byte: failure (CXL r4.0 8.2.10.2.1.1).
pub const EVENT_SEVERITY_FAILURE: u8 = 2;
/// Severity in bits 1:0 of the first flag byte: fatal (CXL r4.0 8.2.10.2.1.1).
pub const EVENT_SEVERITY_FATAL: u8 = 3;

/// The first 48 bytes of every event record (CXL r4.0 8.2.10.2.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EventRecordHeader {
    /// What kind of record it is, in the order of the UUID's text.
    pub uuid: [u8; 16],
    /// [`EVENT_RECORD_LEN_BYTES`].
    pub len_bytes: u8,
    /// Bits 1:0 severity, 2 permanent, 3 maintenance needed, 4 performance degraded, 5 hardware replacement needed,
    /// 6 maintenance subclass valid, 7 LD-ID valid, 8 head id valid.
    pub flags: [u8; 3],
    /// Names the record within its log; never zero.
    pub handle: U16,
    /// Another record that belongs to this one, or zero.
    pub related_handle: U16,
    /// Device time in ns, zero where it was never set.
    pub timestamp_ns: U64,
    /// Class of the maintenance asked for, zero for none.
    pub maintenance_class: u8,
    /// Subclass of the maintenance asked for.
    pub maintenance_subclass: u8,
    /// Logical device, where flag bit 7 says so.
    pub ld_id: U16,
    /// Head, where flag bit 8 says so.
    pub head_id: u8,
    /// Zero.
    pub reserved: [u8; 11],
}

/// What a Dynamic Capacity record tells (CXL r4.0 8.2.10.2.1.6).
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "codec", derive(serde::Serialize))]
#[repr(u8)]
pub enum DcEventKind {
    /// To the host: capacity is offered.
    Add = 0,
    /// To the host: capacity is asked back.
    Release = 1,
    /// To the host: capacity is gone already.
    ForcedRelease = 2,
    /// To the host: a region's configuration is another one.
    RegionConfigurationUpdated = 3,
    /// To the fabric manager: the host answered an offer.
    AddResponse = 4,
    /// To the fabric manager: the host gave capacity back.
    Released = 5,
}

impl DcEventKind {
    /// The kind with this number.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Add),
            1 => Some(Self::Release),
            2 => Some(Self::ForcedRelease),
            3 => Some(Self::RegionConfigurationUpdated),
            4 => Some(Self::AddResponse),
            5 => Some(Self::Released),
            _ => None,
        }
    }
}

/// Flag of a DC record: the next record belongs to the same group (CXL r4.0 8.2.10.2.1.6).
pub const DC_EVENT_FLAG_MORE: u8 = 1;

/// Validity bit of a DC record: both counters at its end are valid (CXL r4.0 8.2.10.2.1.6).
pub const DC_EVENT_VALID_COUNTERS: u8 = 1;

/// A Dynamic Capacity event record (CXL r4.0 8.2.10.2.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DcEventRecord {
    /// With [`DC_EVENT_UUID`].
    pub header: EventRecordHeader,
    /// A [`DcEventKind`].
    pub kind: u8,
    /// [`DC_EVENT_VALID_COUNTERS`] or zero.
    pub validity: u8,
    /// The host, valid for the two kinds that go to the fabric manager.
    pub host_id: U16,
    /// The region, valid for [`DcEventKind::RegionConfigurationUpdated`].
    pub region: u8,
    /// [`DC_EVENT_FLAG_MORE`] or zero.
    pub flags: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// The range in question.
    pub extent: RawExtent,
    /// Zero.
    pub reserved_after_extent: [u8; 24],
    /// Extents that the device can still track for this host.
    pub available_extents: U32,
    /// Tags that the device can still track for this host.
    pub available_tags: U32,
}

/// Flag of Get Event Records: records were lost because the log was full (CXL r4.0 8.2.10.2.2).
pub const EVENT_FLAG_OVERFLOW: u8 = 1 << 0;

/// Flag of Get Event Records: the log holds more than this answer (CXL r4.0 8.2.10.2.2).
pub const EVENT_FLAG_MORE_RECORDS: u8 = 1 << 1;

/// The head of the answer to Get Event Records; records of 128 bytes follow (CXL r4.0 8.2.10.2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GetEventRecordsOut {
    /// [`EVENT_FLAG_OVERFLOW`] and [`EVENT_FLAG_MORE_RECORDS`].
    pub flags: u8,
    /// Zero.
    pub reserved: u8,
    /// Records lost, at most FFFFh.
    pub overflow_count: U16,
    /// When the first record was lost, in ns.
    pub first_overflow_timestamp: U64,
    /// When the last record was lost, in ns.
    pub last_overflow_timestamp: U64,
    /// Records that follow.
    pub record_count: U16,
    /// Zero.
    pub reserved_after_count: [u8; 10],
}

/// Flag of Clear Event Records: clear the whole log, legal after an overflow (CXL r4.0 8.2.10.2.3).
pub const CLEAR_FLAG_ALL: u8 = 1;

/// The head of Clear Event Records; handles of two bytes follow (CXL r4.0 8.2.10.2.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ClearEventRecordsIn {
    /// An [`EventLog`].
    pub log: u8,
    /// [`CLEAR_FLAG_ALL`] or zero.
    pub flags: u8,
    /// Handles that follow; zero with [`CLEAR_FLAG_ALL`].
    pub handle_count: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Payload of Get and Set Event Interrupt Policy: an [`EventInterruptSetting`] for each log. Set may leave out the last
/// byte, which devices before Dynamic Capacity do not know (CXL r4.0 8.2.10.2.4, 8.2.10.2.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EventInterruptPolicy {
    /// For [`EventLog::Informational`].
    pub info: u8,
    /// For [`EventLog::Warning`].
    pub warning: u8,
    /// For [`EventLog::Failure`].
    pub failure: u8,
    /// For [`EventLog::Fatal`].
    pub fatal: u8,
    /// For [`EventLog::DynamicCapacity`].
    pub dynamic_capacity: u8,
}

/// How one event log tells that it is no longer empty (CXL r4.0 8.2.10.2.4).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum EventInterruptMode {
    /// Not at all.
    None = 0,
    /// With the MSI or MSI-X message of the message number.
    Message = 1,
    /// With a firmware notification; not for the Dynamic Capacity log.
    Firmware = 2,
    /// A value that the standard reserves.
    Reserved = 3,
}

impl EventInterruptMode {
    const fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::None,
            1 => Self::Message,
            2 => Self::Firmware,
            _ => Self::Reserved,
        }
    }

    const fn into_bits(self) -> u8 {
        self as u8
    }
}

/// One byte of an [`EventInterruptPolicy`] (CXL r4.0 8.2.10.2.4).
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct EventInterruptSetting {
    /// How the log tells.
    #[bits(2)]
    pub mode: EventInterruptMode,
    #[bits(2)]
    __: u8,
    /// MSI-X entry or offset from the MSI base; filled by the device, ignored in a Set.
    #[bits(4)]
    pub message_number: u8,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<EventRecordHeader>() == 0x30);
    assert!(offset_of!(EventRecordHeader, len_bytes) == 0x10);
    assert!(offset_of!(EventRecordHeader, flags) == 0x11);
    assert!(offset_of!(EventRecordHeader, handle) == 0x14);
    assert!(offset_of!(EventRecordHeader, related_handle) == 0x16);
    assert!(offset_of!(EventRecordHeader, timestamp_ns) == 0x18);
    assert!(offset_of!(EventRecordHeader, maintenance_class) == 0x20);
    assert!(offset_of!(EventRecordHeader, maintenance_subclass) == 0x21);
    assert!(offset_of!(EventRecordHeader, ld_id) == 0x22);
    assert!(offset_of!(EventRecordHeader, head_id) == 0x24);
    assert!(size_of::<DcEventRecord>() == EVENT_RECORD_LEN_BYTES);
    assert!(offset_of!(DcEventRecord, kind) == 0x30);
    assert!(offset_of!(DcEventRecord, validity) == 0x31);
    assert!(offset_of!(DcEventRecord, host_id) == 0x32);
    assert!(offset_of!(DcEventRecord, region) == 0x34);
    assert!(offset_of!(DcEventRecord, flags) == 0x35);
    assert!(offset_of!(DcEventRecord, extent) == 0x38);
    assert!(offset_of!(DcEventRecord, reserved_after_extent) == 0x60);
    assert!(offset_of!(DcEventRecord, available_extents) == 0x78);
    assert!(offset_of!(DcEventRecord, available_tags) == 0x7c);
    assert!(size_of::<GetEventRecordsOut>() == 0x20);
    assert!(offset_of!(GetEventRecordsOut, overflow_count) == 0x02);
    assert!(offset_of!(GetEventRecordsOut, first_overflow_timestamp) == 0x04);
    assert!(offset_of!(GetEventRecordsOut, last_overflow_timestamp) == 0x0c);
    assert!(offset_of!(GetEventRecordsOut, record_count) == 0x14);
    assert!(size_of::<ClearEventRecordsIn>() == 0x06);
    assert!(offset_of!(ClearEventRecordsIn, handle_count) == 0x02);
    assert!(size_of::<EventInterruptPolicy>() == 5);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[rustfmt::skip]
    const RECORD: [u8; EVENT_RECORD_LEN_BYTES] = [
        0xca, 0x95, 0xaf, 0xa7, 0xf1, 0x83, 0x40, 0x18, 0x8c, 0x2f, 0x95, 0x26, 0x8e, 0x10, 0x1a, 0x2a, // 00 UUID
        0x80, 0x00, 0x00, 0x00,                         // 10 length, flags
        0x34, 0x12, 0x00, 0x00,                         // 14 handle, related handle
        0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, // 18 timestamp
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // 20
        0x02, 0x01, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, // 30 kind, validity, host, region, flags, reserved
        0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, // 38 start DPA
        0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, // 40 length
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, // 48 tag
        0x03, 0x00, 0, 0, 0, 0, 0, 0,                   // 58 shared sequence, reserved
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // 60
        0xfe, 0x01, 0x00, 0x00,                         // 78 available extents
        0x3f, 0x00, 0x00, 0x00,                         // 7C available tags
    ];

    #[test]
    fn a_dynamic_capacity_record_is_these_bytes() {
        let record = DcEventRecord {
            header: EventRecordHeader {
                uuid: DC_EVENT_UUID,
                len_bytes: 0x80,
                handle: U16::new(0x1234),
                timestamp_ns: U64::new(0x0102_0304_0506_0708),
                ..EventRecordHeader::default()
            },
            kind: DcEventKind::ForcedRelease as u8,
            validity: DC_EVENT_VALID_COUNTERS,
            flags: DC_EVENT_FLAG_MORE,
            extent: RawExtent {
                start_dpa: U64::new(0x1000_0000),
                len_bytes: U64::new(0x0800_0000),
                tag: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
                shared_sequence: U16::new(3),
                reserved: [0; 6],
            },
            available_extents: U32::new(0x1fe),
            available_tags: U32::new(0x3f),
            ..DcEventRecord::default()
        };
        assert_eq!(record.as_bytes(), RECORD);
        assert_eq!(DcEventRecord::read_from_bytes(&RECORD), Ok(record));
    }

    #[test]
    fn numbers_of_logs_and_kinds_come_back() {
        for log in EventLog::ALL {
            assert_eq!(EventLog::from_u8(log as u8), Some(log));
        }
        assert_eq!(EventLog::from_u8(5), None);
        for kind in 0..6 {
            assert_eq!(DcEventKind::from_u8(kind).map(|kind| kind as u8), Some(kind));
        }
        assert_eq!(DcEventKind::from_u8(6), None);
    }

    #[test]
    fn an_interrupt_setting_is_mode_and_message_number() {
        let setting = EventInterruptSetting::new().with_mode(EventInterruptMode::Message).with_message_number(9);
        assert_eq!(u8::from(setting), 0x91);
        assert_eq!(EventInterruptSetting::from(0x02).mode(), EventInterruptMode::Firmware);
    }
}
