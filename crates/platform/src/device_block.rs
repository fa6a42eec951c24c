//! The CXL device register block: capabilities, device status, mailbox, memory device status (CXL r4.0 8.2.9).
//!
//! ```text
//! 0000 capabilities array   0010 header of device status   0020 of mailbox   0030 of memory device status
//! 0080 device status        0088 memory device status
//! 0FE0 mailbox registers    1000 mailbox payload area, to the end of its size
//! ```
//!
//! The payload begins on a page of its own, with the mailbox registers directly before it. Command register and payload
//! are staged: without effect until the doorbell copies them. Registers and payload are memory too, which a guest may
//! reach without an access here: the registers to read ([`RegisterPage`]), the payload to read and write at any time.
//! So a command is what was copied at the doorbell, whatever the guest writes after it, and an answer puts exactly its
//! own bytes there. Deliberately absent: background commands and a secondary mailbox.

use std::sync::Arc;

use device::config_space::PAYLOAD_OFFSET;
use device::mailbox::MAILBOX_VECTOR;
use memory::{HostMemory, HostMemoryError};
use wire::registers::{
    CAPABILITIES_ARRAY_ID, CAPABILITIES_ARRAY_VERSION, CAPABILITY_DEVICE_STATUS, CAPABILITY_DEVICE_STATUS_VERSION,
    CAPABILITY_HEADER_STRIDE_BYTES, CAPABILITY_MEMORY_DEVICE_STATUS, CAPABILITY_PRIMARY_MAILBOX, CapabilitiesArray,
    CapabilityHeader, DEVICE_STATUS_LEN_BYTES, DEVICE_TYPE_MEMORY, MAILBOX_PAYLOAD_MAX_LOG2, MAILBOX_PAYLOAD_MIN_LOG2,
    MAILBOX_TYPE_MEMORY_DEVICE, MEDIA_READY, MEMORY_DEVICE_STATUS_LEN_BYTES, MemoryDeviceStatus,
};
use wire::{
    MAILBOX_CAPABILITIES, MAILBOX_COMMAND, MAILBOX_CONTROL, MAILBOX_PAYLOAD, MAILBOX_STATUS, MailboxCapabilities,
    MailboxCommand, MailboxControl, MailboxStatus, Opcode, ReturnCode,
};

use crate::dwords::{self, DwordWrite};
use crate::register_page::RegisterPage;
use crate::saved::{LoadError, same_as_state};

const DEVICE_STATUS: u64 = 0x80;
const MEMORY_DEVICE_STATUS: u64 = 0x88;
const MAILBOX: u64 = PAYLOAD_OFFSET - MAILBOX_PAYLOAD as u64;

const CAPABILITIES: u64 = MAILBOX + MAILBOX_CAPABILITIES as u64;
const CONTROL: u64 = MAILBOX + MAILBOX_CONTROL as u64;
/// Capabilities and control are one word of the page.
const _: () = assert!(CAPABILITIES.is_multiple_of(8) && CONTROL == CAPABILITIES + 4);
const COMMAND: u64 = MAILBOX + MAILBOX_COMMAND as u64;
const COMMAND_END: u64 = COMMAND + 8;
const STATUS: u64 = MAILBOX + MAILBOX_STATUS as u64;
const STATUS_END: u64 = STATUS + 8;

/// Behind the last capability header.
const HEADERS_END: u64 = CAPABILITY_HEADER_STRIDE_BYTES as u64 * (1 + CAPABILITY_COUNT as u64);
const CAPABILITY_COUNT: u16 = 3;

/// What a host had put into the mailbox when it rang the doorbell, copied once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxCommandImage {
    /// The command.
    pub opcode: Opcode,
    /// The payload length that was declared, up to 2 MiB - 1.
    pub declared_len_bytes: u32,
    /// The payload: as long as declared, or as the payload area is if that is less.
    pub payload: Vec<u8>,
}

/// What a write to the mailbox control register asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ControlWrite {
    /// The control register without the doorbell, if it changed.
    pub(crate) control: Option<u32>,
    /// The command, if the doorbell was rung.
    pub(crate) doorbell: Option<MailboxCommandImage>,
}

/// Whether the completion of a command asks for an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CompletionInterrupt {
    /// The host polls, or no command was under way.
    NotWanted,
    /// The host has set the doorbell interrupt bit.
    Wanted,
}

/// What the registers hold, and what is in the payload area.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceRegisters {
    pub(crate) event_status: u64,
    /// Without the doorbell: no command is under way.
    pub(crate) control: MailboxControl,
    pub(crate) command: MailboxCommand,
    pub(crate) status: MailboxStatus,
    /// Of the payload area.
    pub(crate) payload_len: usize,
    /// Up to the last byte that is not zero.
    pub(crate) payload: Vec<u8>,
}

impl DeviceRegisters {
    /// Whether guest and device can have brought the registers to these values.
    pub(crate) fn is_possible(&self) -> bool {
        let Self { event_status: _, control, command, status, payload_len, payload } = self;
        let lens = 1 << MAILBOX_PAYLOAD_MIN_LOG2..=1usize << MAILBOX_PAYLOAD_MAX_LOG2;
        let has_bits = u32::from(*control) & !u32::from(MailboxControl::new().with_doorbell_interrupt(true)) == 0
            && u64::from(*command) & !u64::from(writable_command()) == 0
            && *status == MailboxStatus::new().with_return_code(status.return_code());
        has_bits && payload_len.is_power_of_two() && lens.contains(payload_len) && payload.len() <= *payload_len
    }
}

/// The block's registers.
#[derive(Debug)]
pub(crate) struct DeviceBlock {
    event_status: u64,
    control: MailboxControl,
    command: MailboxCommand,
    status: MailboxStatus,
    /// The payload area; its length is a power of two.
    payload: Arc<HostMemory>,
    payload_len: usize,
    /// Equal to what a read of the registers gives whenever the block is not being changed.
    page: RegisterPage,
}

impl DeviceBlock {
    /// The block at power-on, with two to the power of `payload_log2` bytes of payload area.
    ///
    /// # Errors
    ///
    /// The host has no memory for it.
    pub(crate) fn new(payload_log2: u8) -> Result<Self, HostMemoryError> {
        let block = Self {
            event_status: 0,
            control: MailboxControl::new(),
            command: MailboxCommand::new(),
            status: MailboxStatus::new(),
            payload: Arc::new(HostMemory::anonymous(1 << payload_log2)?),
            payload_len: 1 << payload_log2,
            page: RegisterPage::new()?,
        };
        block.page.show_all(|offset, to| block.read(offset, to));
        Ok(block)
    }

    /// Puts the block into its power-on state, in the memory that it has.
    pub(crate) fn reset(&mut self) {
        (self.event_status, self.control) = (0, MailboxControl::new());
        (self.command, self.status) = (MailboxCommand::new(), MailboxStatus::new());
        self.fill_payload(0, &vec![0; self.payload_len]);
        self.show();
    }

    /// The page of the registers, as a guest may read it.
    pub(crate) fn register_page(&self) -> &Arc<HostMemory> {
        self.page.memory()
    }

    /// The payload area, as a guest may read and write it.
    pub(crate) fn payload_area(&self) -> &Arc<HostMemory> {
        &self.payload
    }

    /// Fills `to` from `offset` on; there are zeroes behind the payload area.
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) {
        let (registers, area) = to.split_at_mut(register_len(offset, to.len()));
        dwords::read(offset, registers, |offset| self.dword(offset));
        let from = self.payload_at(offset.max(PAYLOAD_OFFSET), area.len());
        let (filled, behind) = area.split_at_mut(from.len());
        if self.payload.read(from.start as u64, filled).is_err() {
            filled.fill(0);
        }
        behind.fill(0);
    }

    /// Stages `from` at `offset`. While a command is under way, nothing changes (CXL r4.0 8.2.9.4.4). The doorbell shows
    /// when this returns.
    pub(crate) fn write(&mut self, offset: u64, from: &[u8]) -> ControlWrite {
        let mut asked = ControlWrite::default();
        if self.control.doorbell() {
            return asked;
        }
        let (registers, area) = from.split_at(register_len(offset, from.len()));
        let to = self.payload_at(offset.max(PAYLOAD_OFFSET), area.len());
        self.fill_payload(to.start as u64, &area[..to.len()]);
        // A write that reaches into the payload area is none that a register takes.
        let registers = if area.is_empty() { registers } else { &[] };
        for write in dwords::write(offset, registers) {
            match write.offset {
                CONTROL => asked = self.write_control(write),
                COMMAND..COMMAND_END => self.write_command(write),
                _ => {}
            }
        }
        self.show();
        asked
    }

    fn write_command(&mut self, write: DwordWrite) {
        self.command = dwords::merge_half(self.command.into(), write, writable_command().into()).into();
    }

    fn write_control(&mut self, write: DwordWrite) -> ControlWrite {
        let writable = MailboxControl::new().with_doorbell(true).with_doorbell_interrupt(true);
        let new = MailboxControl::from(write.merge(self.control.into(), writable.into()));
        let changed = new.doorbell_interrupt() != self.control.doorbell_interrupt();
        self.control = new;
        ControlWrite {
            control: changed.then(|| new.with_doorbell(false).into()),
            doorbell: new.doorbell().then(|| self.image()),
        }
    }

    fn image(&self) -> MailboxCommandImage {
        let declared_len_bytes = self.command.payload_len_bytes();
        let mut payload = vec![0; self.payload_len.min(declared_len_bytes as usize)];
        // The one copy: what the guest writes from here on is no part of the command. It is inside the area.
        self.payload.read(0, &mut payload).ok();
        MailboxCommandImage { opcode: Opcode(self.command.opcode()), declared_len_bytes, payload }
    }

    /// Shows the answer to the command under way and clears the doorbell. Without one nothing happens: a reset came
    /// between. What is longer than the payload area is cut off.
    pub(crate) fn complete(&mut self, opcode: Opcode, return_code: ReturnCode, payload: &[u8]) -> CompletionInterrupt {
        if !self.control.doorbell() {
            return CompletionInterrupt::NotWanted;
        }
        let len = payload.len().min(self.payload_len);
        self.fill_payload(0, &payload[..len]);
        self.command = MailboxCommand::new().with_opcode(opcode.0).with_payload_len_bytes(len as u32);
        self.status = MailboxStatus::new().with_return_code(return_code as u16);
        self.control.set_doorbell(false);
        self.show();
        if self.control.doorbell_interrupt() { CompletionInterrupt::Wanted } else { CompletionInterrupt::NotWanted }
    }

    /// Whether a command waits for its answer.
    pub(crate) fn is_command_under_way(&self) -> bool {
        self.control.doorbell()
    }

    pub(crate) fn set_event_status(&mut self, bits: u64) {
        self.event_status = bits;
        self.show();
    }

    /// Sets the control register to what it was before this process began, without a command under way.
    pub(crate) fn restore_control(&mut self, control: u32) {
        self.control = MailboxControl::from(control).with_doorbell(false);
        self.show();
    }

    /// All that a guest reads here and that is not fixed. No command is under way.
    pub(crate) fn save(&self) -> DeviceRegisters {
        let Self { event_status, control, command, status, payload: area, payload_len, page: _ } = self;
        let mut payload = vec![0; *payload_len];
        // It is inside the area.
        area.read(0, &mut payload).ok();
        payload.truncate(payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        DeviceRegisters {
            event_status: *event_status,
            control: *control,
            command: *command,
            status: *status,
            payload_len: *payload_len,
            payload,
        }
    }

    /// Whether saved registers are those of the device's state, which these show.
    pub(crate) fn check(&self, saved: &DeviceRegisters) -> Result<(), LoadError> {
        let DeviceRegisters { event_status, control, command: _, status: _, payload_len, payload: _ } = saved;
        if *payload_len != self.payload_len {
            return Err(LoadError::PayloadLen { saved_len_bytes: *payload_len, len_bytes: self.payload_len });
        }
        same_as_state("event status register", DEVICE_STATUS, *event_status, self.event_status)?;
        let (saved, here) = (u32::from(*control), u32::from(self.control.with_doorbell(false)));
        same_as_state("mailbox control register", CONTROL, saved, here)
    }

    /// Makes the block what it was when the registers were saved.
    pub(crate) fn load(&mut self, saved: &DeviceRegisters) {
        let DeviceRegisters { event_status, control, command, status, payload_len, payload } = saved;
        (self.event_status, self.control, self.command, self.status) = (*event_status, *control, *command, *status);
        self.fill_payload(0, payload);
        self.fill_payload(payload.len() as u64, &vec![0; payload_len - payload.len()]);
        self.show();
    }

    /// Puts bytes into the payload area, in which they are.
    fn fill_payload(&self, offset: u64, bytes: &[u8]) {
        self.payload.write(offset, bytes).ok();
    }

    /// Shows the registers that change in the page, the doorbell last.
    fn show(&self) {
        let word = |offset| u64::from(self.dword(offset + 4)) << 32 | u64::from(self.dword(offset));
        for offset in [DEVICE_STATUS, COMMAND, STATUS] {
            self.page.show(offset, word(offset));
        }
        self.page.show_last(CAPABILITIES, word(CAPABILITIES));
    }

    /// The part of the payload area that an access to `offset`, at or behind the area's begin, touches.
    fn payload_at(&self, offset: u64, len: usize) -> std::ops::Range<usize> {
        let area = self.payload_len;
        let start = usize::try_from(offset - PAYLOAD_OFFSET).unwrap_or(area).min(area);
        start..start.saturating_add(len).min(area)
    }

    fn dword(&self, offset: u64) -> u32 {
        match offset {
            0..8 => dwords::half(capabilities_array().into(), offset),
            0x10..HEADERS_END => self.header(offset),
            DEVICE_STATUS..MEMORY_DEVICE_STATUS => dwords::half(self.event_status, offset),
            MEMORY_DEVICE_STATUS..0x90 => {
                let ready =
                    MemoryDeviceStatus::new().with_media_status(MEDIA_READY).with_mailbox_interfaces_ready(true);
                dwords::half(ready.into(), offset)
            }
            CAPABILITIES => self.capabilities().into(),
            CONTROL => self.control.into(),
            COMMAND..COMMAND_END => dwords::half(self.command.into(), offset),
            STATUS..STATUS_END => dwords::half(self.status.into(), offset),
            _ => 0,
        }
    }

    fn capabilities(&self) -> MailboxCapabilities {
        MailboxCapabilities::new()
            .with_payload_size_log2(self.payload_len.trailing_zeros() as u8)
            .with_doorbell_interrupt_capable(true)
            .with_interrupt_message_number(MAILBOX_VECTOR)
            .with_mailbox_type(MAILBOX_TYPE_MEMORY_DEVICE)
    }

    fn header(&self, offset: u64) -> u32 {
        let mailbox_len = (MAILBOX_PAYLOAD + self.payload_len) as u64;
        let (id, version, at, len) = match offset / CAPABILITY_HEADER_STRIDE_BYTES as u64 {
            1 => (
                CAPABILITY_DEVICE_STATUS,
                CAPABILITY_DEVICE_STATUS_VERSION,
                DEVICE_STATUS,
                DEVICE_STATUS_LEN_BYTES as u64,
            ),
            2 => (CAPABILITY_PRIMARY_MAILBOX, 1, MAILBOX, mailbox_len),
            _ => (CAPABILITY_MEMORY_DEVICE_STATUS, 1, MEMORY_DEVICE_STATUS, MEMORY_DEVICE_STATUS_LEN_BYTES as u64),
        };
        match offset % CAPABILITY_HEADER_STRIDE_BYTES as u64 {
            0 => CapabilityHeader::new().with_id(id).with_version(version).into(),
            4 => at as u32,
            8 => len as u32,
            _ => 0,
        }
    }
}

/// The bits of the command register that a host can write.
fn writable_command() -> MailboxCommand {
    MailboxCommand::new().with_opcode(u16::MAX).with_payload_len_bytes(0x1f_ffff)
}

/// How many of `len` bytes from `offset` on come before the payload area.
fn register_len(offset: u64, len: usize) -> usize {
    let before = PAYLOAD_OFFSET.saturating_sub(offset);
    usize::try_from(before).unwrap_or(len).min(len)
}

fn capabilities_array() -> CapabilitiesArray {
    CapabilitiesArray::new()
        .with_id(CAPABILITIES_ARRAY_ID)
        .with_version(CAPABILITIES_ARRAY_VERSION)
        .with_device_type(DEVICE_TYPE_MEMORY)
        .with_count(CAPABILITY_COUNT)
}
