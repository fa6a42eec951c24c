//! Every limit of the device, by name. What happens when one is reached is said where it is used.

/// Dynamic capacity regions of a device (CXL r4.0 8.2.10.9.9.1).
pub const REGIONS_MAX: usize = 8;

/// Extents that a device tracks, offered and accepted together; what 4800h reports as supported.
pub const EXTENTS_MAX: usize = 131_072;

/// Tags that a device tracks, offered and accepted together; what 4800h reports as supported.
pub const TAGS_MAX: usize = 131_072;

/// Records that the DC event log holds; what Identify reports at 43h.
pub const DC_EVENT_LOG_RECORDS_MAX: usize = 4_096;

/// Tags whose end is remembered for status queries; the one that ended first is forgotten first.
pub const ENDED_TAGS_MAX: usize = 4_096;

/// Backends of a VM.
pub const BACKENDS_MAX: usize = 65_536;

/// Devices of a VM: one root port each, on one bus.
pub const DEVICES_MAX: usize = 32;

/// Length in bytes of the id of a device or a backend.
pub const ID_LEN_BYTES_MAX: usize = 127;

/// Largest mailbox payload in bytes (CXL r4.0 8.2.8.4.3).
pub const MAILBOX_PAYLOAD_LEN_BYTES_MAX: usize = 1 << 20;
