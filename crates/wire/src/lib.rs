//! The bytes of the standard: what a host and a CXL Type 3 Dynamic Capacity Device put in front of each other.
//!
//! Layouts only: registers, configuration space, mailbox headers, payloads, event records and extents, each with the
//! section of CXL r4.0 that fixes it. Deliberately absent: state, decisions, allocation of meaning to a value; a value
//! that the standard does not know stays representable. `no_std`, so that a freestanding guest uses the same types.
#![no_std]

extern crate alloc;

mod address;
pub mod component;
pub mod config_space;
pub mod event;
pub mod extent;
pub mod opcode;
pub mod payload;
pub mod registers;
pub mod return_code;
mod tag;

pub use address::{BlockSize, BlockSizeError, CAPACITY_MULTIPLE_BYTES, Dpa, Hpa};
pub use event::{
    CLEAR_FLAG_ALL, ClearEventRecordsIn, DC_EVENT_FLAG_MORE, DC_EVENT_UUID, DC_EVENT_VALID_COUNTERS, DcEventKind,
    DcEventRecord, EVENT_FLAG_MORE_RECORDS, EVENT_FLAG_OVERFLOW, EVENT_RECORD_LEN_BYTES, EventInterruptMode,
    EventInterruptPolicy, EventInterruptSetting, EventLog, EventRecordHeader, GetEventRecordsOut,
};
pub use extent::{RawExtent, UPDATE_FLAG_MORE, UpdateHeader, UpdatedExtent};
pub use opcode::Opcode;
pub use payload::{
    CEL_UUID, CelEntry, CommandEffects, DcConfigurationTail, DcRegion, GetDcConfigurationIn, GetDcConfigurationOut,
    GetDcExtentListIn, GetDcExtentListOut, GetLogIn, GetSupportedLogsOut, IdentifyMemoryDeviceOut, SupportedLog,
};
pub use registers::{
    MAILBOX_BACKGROUND_STATUS, MAILBOX_CAPABILITIES, MAILBOX_COMMAND, MAILBOX_CONTROL, MAILBOX_PAYLOAD, MAILBOX_STATUS,
    MailboxCapabilities, MailboxCommand, MailboxControl, MailboxStatus,
};
pub use return_code::ReturnCode;
pub use tag::{Tag, TagError};
