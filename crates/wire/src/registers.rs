//! The CXL device register block: capabilities array, device status, memory device status and mailbox.
//!
//! ```text
//! +0    capabilities array register (8)      what follows, and how many
//! +10h  capability header (16) each          id, version, offset and length of a block
//!  ...  device status | mailbox | memory device status, each where its header says
//!
//! mailbox  00 capabilities (4)  04 control (4)  08 command (8)  10 status (8)  18 background status (8)  20 payload
//! ```
//!
//! Deliberately absent: where a device puts its blocks, and what a write does.

use bitfield_struct::bitfield;

/// The first register of the block (CXL r4.0 8.2.9.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CapabilitiesArray {
    /// [`CAPABILITIES_ARRAY_ID`].
    pub id: u16,
    /// [`CAPABILITIES_ARRAY_VERSION`].
    pub version: u8,
    /// Kind of device: 1 for a memory device ([`DEVICE_TYPE_MEMORY`]); some devices leave it 0.
    #[bits(4)]
    pub device_type: u8,
    #[bits(4)]
    __: u8,
    /// Headers that follow.
    pub count: u16,
    __: u16,
}

/// Id in the capabilities array register.
pub const CAPABILITIES_ARRAY_ID: u16 = 0;
/// Version in the capabilities array register.
pub const CAPABILITIES_ARRAY_VERSION: u8 = 1;
/// Memory device in [`CapabilitiesArray::device_type`].
pub const DEVICE_TYPE_MEMORY: u8 = 1;

/// Bytes from one capability header to the next; the first is one stride from the start (CXL r4.0 8.2.9.2).
pub const CAPABILITY_HEADER_STRIDE_BYTES: usize = 0x10;
/// Offset of the block's offset (u32, from the start of the register block) in a capability header.
pub const CAPABILITY_HEADER_OFFSET: usize = 4;
/// Offset of the block's length (u32, in bytes) in a capability header.
pub const CAPABILITY_HEADER_LEN: usize = 8;

/// The first dword of a capability header (CXL r4.0 8.2.9.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct CapabilityHeader {
    /// Which block it is.
    pub id: u16,
    /// Version of the block's layout.
    pub version: u8,
    __: u8,
}

/// Id of the device status block (CXL r4.0 8.2.9.2.1).
pub const CAPABILITY_DEVICE_STATUS: u16 = 0x0001;
/// Version of the device status block that knows the Dynamic Capacity log.
pub const CAPABILITY_DEVICE_STATUS_VERSION: u8 = 2;
/// Id of the primary mailbox block.
pub const CAPABILITY_PRIMARY_MAILBOX: u16 = 0x0002;
/// Id of the secondary mailbox block.
pub const CAPABILITY_SECONDARY_MAILBOX: u16 = 0x0003;
/// Id of the memory device status block (CXL r4.0 8.2.9.5).
pub const CAPABILITY_MEMORY_DEVICE_STATUS: u16 = 0x4000;

/// The event status register, first of the device status block: a bit is set while its log holds a record
/// (CXL r4.0 8.2.9.3.1). Bits have the number of their [`EventLog`](crate::EventLog).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct EventStatus {
    /// The informational log.
    pub informational: bool,
    /// The warning log.
    pub warning: bool,
    /// The failure log.
    pub failure: bool,
    /// The fatal log.
    pub fatal: bool,
    /// The Dynamic Capacity log.
    pub dynamic_capacity: bool,
    #[bits(59)]
    __: u64,
}

/// Length of the device status block in bytes.
pub const DEVICE_STATUS_LEN_BYTES: usize = 8;
/// Length of the memory device status block in bytes.
pub const MEMORY_DEVICE_STATUS_LEN_BYTES: usize = 8;

/// The memory device status register (CXL r4.0 8.2.9.5.1.1).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MemoryDeviceStatus {
    /// The device must be replaced or reset.
    pub device_fatal: bool,
    /// Firmware stands still.
    pub firmware_halt: bool,
    /// State of the media: [`MEDIA_NOT_READY`], [`MEDIA_READY`], [`MEDIA_ERROR`] or [`MEDIA_DISABLED`].
    #[bits(2)]
    pub media_status: u8,
    /// Mailboxes take commands.
    pub mailbox_interfaces_ready: bool,
    /// What makes a fatal device work again: 0 nothing, 1 cold reset, 2 warm reset, 3 hot reset, 4 CXL reset.
    #[bits(3)]
    pub reset_needed: u8,
    #[bits(56)]
    __: u64,
}

/// Media status: not ready yet.
pub const MEDIA_NOT_READY: u8 = 0;
/// Media status: ready.
pub const MEDIA_READY: u8 = 1;
/// Media status: failed.
pub const MEDIA_ERROR: u8 = 2;
/// Media status: disabled.
pub const MEDIA_DISABLED: u8 = 3;

/// Offset of the mailbox capabilities register (u32).
pub const MAILBOX_CAPABILITIES: usize = 0x00;
/// Offset of the mailbox control register (u32).
pub const MAILBOX_CONTROL: usize = 0x04;
/// Offset of the command register (u64).
pub const MAILBOX_COMMAND: usize = 0x08;
/// Offset of the mailbox status register (u64).
pub const MAILBOX_STATUS: usize = 0x10;
/// Offset of the background command status register (u64).
pub const MAILBOX_BACKGROUND_STATUS: usize = 0x18;
/// Offset of the payload area.
pub const MAILBOX_PAYLOAD: usize = 0x20;

/// Smallest payload area as a power of two of bytes.
pub const MAILBOX_PAYLOAD_MIN_LOG2: u8 = 8;
/// Largest payload area as a power of two of bytes.
pub const MAILBOX_PAYLOAD_MAX_LOG2: u8 = 20;

/// The mailbox capabilities register, read only (CXL r4.0 8.2.9.4.3).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MailboxCapabilities {
    /// Size of the payload area as a power of two of bytes, 8 to 20.
    #[bits(5)]
    pub payload_size_log2: u8,
    /// Completion of a command can raise an interrupt.
    pub doorbell_interrupt_capable: bool,
    /// Completion of a background command can raise an interrupt.
    pub background_interrupt_capable: bool,
    /// MSI-X entry or offset from the MSI base of both interrupts.
    #[bits(4)]
    pub interrupt_message_number: u8,
    /// After a reset the mailbox is ready within this time in s; 0 tells nothing.
    pub ready_time_s: u8,
    /// [`MAILBOX_TYPE_MEMORY_DEVICE`] or [`MAILBOX_TYPE_FM_API`]; 0 names none.
    #[bits(4)]
    pub mailbox_type: u8,
    #[bits(9)]
    __: u16,
}

/// A mailbox for a memory device's commands.
pub const MAILBOX_TYPE_MEMORY_DEVICE: u8 = 1;
/// A mailbox for a fabric manager's commands.
pub const MAILBOX_TYPE_FM_API: u8 = 2;

/// The mailbox control register (CXL r4.0 8.2.9.4.4).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MailboxControl {
    /// Set by the host to start a command, cleared by the device when it is done.
    pub doorbell: bool,
    /// Completion raises an interrupt.
    pub doorbell_interrupt: bool,
    /// Completion of a background command raises an interrupt.
    pub background_interrupt: bool,
    #[bits(29)]
    __: u32,
}

/// The command register (CXL r4.0 8.2.9.4.5).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MailboxCommand {
    /// An [`Opcode`](crate::Opcode).
    pub opcode: u16,
    /// Bytes of payload: of the request, and after completion of the answer.
    #[bits(21)]
    pub payload_len_bytes: u32,
    #[bits(27)]
    __: u32,
}

/// The mailbox status register, valid while the doorbell is clear (CXL r4.0 8.2.9.4.6).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MailboxStatus {
    /// A background command runs.
    pub background_running: bool,
    #[bits(31)]
    __: u32,
    /// A [`ReturnCode`](crate::ReturnCode) by its number.
    pub return_code: u16,
    /// A vendor's further word on it.
    pub vendor_status: u16,
}

/// The background command status register (CXL r4.0 8.2.9.4.7).
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MailboxBackgroundStatus {
    /// The [`Opcode`](crate::Opcode) that runs or ran last.
    pub opcode: u16,
    /// Progress in percent.
    #[bits(7)]
    pub percent: u8,
    #[bits(9)]
    __: u16,
    /// A [`ReturnCode`](crate::ReturnCode) by its number, valid at 100 percent.
    pub return_code: u16,
    /// A vendor's further word on it.
    pub vendor_status: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_bits_of_the_standard() {
        assert_eq!(
            u64::from(CapabilitiesArray::new().with_version(1).with_device_type(1).with_count(3)),
            0x3_0101_0000
        );
        assert_eq!(u32::from(CapabilityHeader::new().with_id(0x4000).with_version(1)), 0x1_4000);
        assert_eq!(u64::from(EventStatus::new().with_dynamic_capacity(true)), 1 << 4);
        let ready = MemoryDeviceStatus::new().with_media_status(MEDIA_READY).with_mailbox_interfaces_ready(true);
        assert_eq!(u64::from(ready), 0x14);
    }

    #[test]
    fn mailbox_fields_have_the_bits_of_the_standard() {
        let capabilities = MailboxCapabilities::from(0x1f_ffff & !(0xff << 11));
        assert_eq!(capabilities.payload_size_log2(), 0x1f);
        assert_eq!(capabilities.interrupt_message_number(), 0xf);
        assert_eq!(capabilities.ready_time_s(), 0);
        assert_eq!(capabilities.mailbox_type(), 3);
        assert_eq!(u32::from(MailboxControl::new().with_background_interrupt(true)), 4);
        assert_eq!(u64::from(MailboxCommand::new().with_opcode(0x4802).with_payload_len_bytes(32)), 0x0020_4802);
        assert_eq!(MailboxStatus::from(0x0007_001e_0000_0001).return_code(), 0x1e);
        assert_eq!(MailboxStatus::from(0x0007_001e_0000_0001).vendor_status(), 7);
        assert_eq!(MailboxBackgroundStatus::from(0x64_4400).percent(), 100);
    }
}
