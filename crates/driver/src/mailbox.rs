//! The primary mailbox: one command after the other, in Linux' order of accesses.
//!
//! ```text
//! control.doorbell is 0 ─▶ payload ─▶ command (8 bytes at once) ─▶ control = doorbell ─▶ poll until 0, 2 s
//!                       ─▶ status: return code ─▶ command: length of the answer ─▶ copy the payload
//! ```
//!
//! Deliberately absent: background commands (none that a DCD's host sends is one), the doorbell interrupt, retries.

use alloc::vec;
use alloc::vec::Vec;
use core::mem::size_of;

use wire::registers::{MAILBOX_PAYLOAD_MAX_LOG2, MAILBOX_PAYLOAD_MIN_LOG2};
use wire::{
    Hpa, MAILBOX_CAPABILITIES, MAILBOX_COMMAND, MAILBOX_CONTROL, MAILBOX_PAYLOAD, MAILBOX_STATUS, MailboxCapabilities,
    MailboxCommand, MailboxControl, MailboxStatus, Opcode, ReturnCode,
};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::bus::Bus;
use crate::platform_map::HpaRange;
use crate::poll::poll;

/// How long a command may take, as in Linux.
pub const DOORBELL_TIMEOUT_MS: u64 = 2_000;

/// A device's primary mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mailbox {
    base: Hpa,
    payload_size_bytes: usize,
}

/// Why a command has no answer that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxError {
    /// The payload area is smaller than the standard allows, or than the block that holds it.
    #[error(
        "the mailbox at {hpa} has a payload area of 2^{payload_log2} bytes in a block of {block_len_bytes:#x} bytes"
    )]
    PayloadSize {
        /// The mailbox.
        hpa: Hpa,
        /// The size it tells, as a power of two.
        payload_log2: u8,
        /// The length of its block.
        block_len_bytes: u64,
    },
    /// The doorbell of a mailbox that nobody uses stayed set.
    #[error("the doorbell of the mailbox at {hpa} was still set after {timeout_ms} ms, before any command was sent")]
    NotIdle {
        /// The mailbox.
        hpa: Hpa,
        /// How long it was waited for.
        timeout_ms: u64,
    },
    /// The command before has not ended.
    #[error("{opcode} cannot be sent: the doorbell is set, an earlier command has not ended")]
    Busy {
        /// The command.
        opcode: Opcode,
    },
    /// The request does not fit.
    #[error("{opcode} cannot be sent: its {len_bytes} bytes do not fit into a payload area of {payload_size_bytes}")]
    RequestTooLong {
        /// The command.
        opcode: Opcode,
        /// The request's length.
        len_bytes: usize,
        /// The payload area's size.
        payload_size_bytes: usize,
    },
    /// The device did not answer.
    #[error("{opcode} was not answered within {timeout_ms} ms")]
    Timeout {
        /// The command.
        opcode: Opcode,
        /// How long it was waited for.
        timeout_ms: u64,
    },
    /// The device answered no.
    #[error("{opcode} was refused with {code}")]
    Refused {
        /// The command.
        opcode: Opcode,
        /// The device's answer.
        code: ReturnCode,
    },
    /// The device answered with a code that the standard does not have.
    #[error("{opcode} was answered with return code {code:#x}, which the standard does not define")]
    UnknownReturnCode {
        /// The command.
        opcode: Opcode,
        /// The device's answer.
        code: u16,
    },
    /// The device says that its answer is longer than the area that holds it.
    #[error("{opcode} was answered with {len_bytes} bytes, more than the payload area's {payload_size_bytes}")]
    AnswerTooLong {
        /// The command.
        opcode: Opcode,
        /// The answer's length.
        len_bytes: usize,
        /// The payload area's size.
        payload_size_bytes: usize,
    },
    /// The answer is shorter than what it says it holds.
    #[error("{opcode} was answered with {len_bytes} bytes where {needed_bytes} are needed")]
    AnswerTooShort {
        /// The command.
        opcode: Opcode,
        /// The answer's length.
        len_bytes: usize,
        /// What its counts ask for.
        needed_bytes: usize,
    },
    /// A count in the answer is larger than what was asked for.
    #[error("{opcode} was answered with {returned} entries where at most {asked} were asked for")]
    AnswerTooMany {
        /// The command.
        opcode: Opcode,
        /// What the answer says it holds.
        returned: usize,
        /// What was asked for.
        asked: usize,
    },
}

impl MailboxError {
    /// The device's return code, where the device took the command and answered no.
    pub fn refusal(&self) -> Option<ReturnCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

impl Mailbox {
    /// Takes the mailbox in a register block, and waits until nobody uses it.
    pub fn open(bus: &mut dyn Bus, block: HpaRange) -> Result<Self, MailboxError> {
        let hpa = block.base;
        let capabilities = MailboxCapabilities::from(bus.read32(Hpa(hpa.0 + MAILBOX_CAPABILITIES as u64)));
        let payload_log2 = capabilities.payload_size_log2();
        let block_len_bytes = block.size_bytes;
        // Linux takes no more than 1 MiB either.
        let size_bytes = 1 << payload_log2.min(MAILBOX_PAYLOAD_MAX_LOG2);
        if payload_log2 < MAILBOX_PAYLOAD_MIN_LOG2 || block.part(MAILBOX_PAYLOAD as u64, size_bytes).is_none() {
            return Err(MailboxError::PayloadSize { hpa, payload_log2, block_len_bytes });
        }
        let mailbox = Self { base: hpa, payload_size_bytes: size_bytes as usize };
        mailbox.await_doorbell(bus).ok_or(MailboxError::NotIdle { hpa, timeout_ms: DOORBELL_TIMEOUT_MS })?;
        Ok(mailbox)
    }

    /// Its registers, to the end of the payload area.
    pub fn registers(&self) -> HpaRange {
        HpaRange { base: self.base, size_bytes: (MAILBOX_PAYLOAD + self.payload_size_bytes) as u64 }
    }

    /// Size of the payload area in bytes.
    pub fn payload_len_bytes(&self) -> usize {
        self.payload_size_bytes
    }

    /// How many elements of a type fit into the payload behind a head.
    pub(crate) fn capacity<Head, Element>(&self) -> usize {
        (self.payload_size_bytes - size_of::<Head>()) / size_of::<Element>()
    }

    /// Sends a command and waits for the payload of its answer; [`ReturnCode::Success`] alone is an answer.
    pub fn execute(&self, bus: &mut dyn Bus, opcode: Opcode, payload: &[u8]) -> Result<Vec<u8>, MailboxError> {
        self.send(bus, opcode, payload).map(|answer| answer.bytes)
    }

    /// As [`Mailbox::execute`], with the answer ready to be taken apart.
    pub(crate) fn send(&self, bus: &mut dyn Bus, opcode: Opcode, payload: &[u8]) -> Result<Answer, MailboxError> {
        let payload_size_bytes = self.payload_size_bytes;
        if payload.len() > payload_size_bytes {
            return Err(MailboxError::RequestTooLong { opcode, len_bytes: payload.len(), payload_size_bytes });
        }
        if self.doorbell(bus) {
            return Err(MailboxError::Busy { opcode });
        }
        if !payload.is_empty() {
            bus.write(self.register(MAILBOX_PAYLOAD), payload);
        }
        let command = MailboxCommand::new().with_opcode(opcode.0).with_payload_len_bytes(payload.len() as u32);
        bus.write64(self.register(MAILBOX_COMMAND), command.into());
        bus.write32(self.register(MAILBOX_CONTROL), MailboxControl::new().with_doorbell(true).into());
        self.await_doorbell(bus).ok_or(MailboxError::Timeout { opcode, timeout_ms: DOORBELL_TIMEOUT_MS })?;
        self.take_answer(bus, opcode)
    }

    fn take_answer(&self, bus: &mut dyn Bus, opcode: Opcode) -> Result<Answer, MailboxError> {
        let code = MailboxStatus::from(bus.read64(self.register(MAILBOX_STATUS))).return_code();
        match ReturnCode::from_u16(code) {
            Some(ReturnCode::Success) => {}
            Some(code) => return Err(MailboxError::Refused { opcode, code }),
            None => return Err(MailboxError::UnknownReturnCode { opcode, code }),
        }
        let command = MailboxCommand::from(bus.read64(self.register(MAILBOX_COMMAND)));
        let (len_bytes, payload_size_bytes) = (command.payload_len_bytes() as usize, self.payload_size_bytes);
        if len_bytes > payload_size_bytes {
            return Err(MailboxError::AnswerTooLong { opcode, len_bytes, payload_size_bytes });
        }
        let mut bytes = vec![0; len_bytes];
        if !bytes.is_empty() {
            bus.read(self.register(MAILBOX_PAYLOAD), &mut bytes);
        }
        Ok(Answer { opcode, bytes })
    }

    fn await_doorbell(&self, bus: &mut dyn Bus) -> Option<()> {
        poll(bus, DOORBELL_TIMEOUT_MS, |bus| (!self.doorbell(bus)).then_some(()))
    }

    fn doorbell(&self, bus: &mut dyn Bus) -> bool {
        MailboxControl::from(bus.read32(self.register(MAILBOX_CONTROL))).doorbell()
    }

    fn register(&self, offset: usize) -> Hpa {
        Hpa(self.base.0 + offset as u64)
    }
}

/// What a device answered to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    opcode: Opcode,
    bytes: Vec<u8>,
}

impl Answer {
    /// The bytes that came.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The fixed head of the answer, and what follows it.
    pub(crate) fn head<Head: FromBytes>(&self) -> Result<(Head, &[u8]), MailboxError> {
        Head::read_from_prefix(&self.bytes).map_err(|_| self.too_short(size_of::<Head>()))
    }

    /// `count` elements at the begin of `rest`, a tail of the answer, and what follows them.
    pub(crate) fn list<'a, Element>(
        &self,
        rest: &'a [u8],
        count: usize,
    ) -> Result<(&'a [Element], &'a [u8]), MailboxError>
    where
        Element: FromBytes + KnownLayout + Immutable + Unaligned,
    {
        <[Element]>::ref_from_prefix_with_elems(rest, count).map_err(|_| {
            let head_len_bytes = self.bytes.len() - rest.len().min(self.bytes.len());
            self.too_short(count.saturating_mul(size_of::<Element>()).saturating_add(head_len_bytes))
        })
    }

    /// Checks a count in the answer against what was asked for.
    pub(crate) fn at_most(&self, asked: usize, returned: usize) -> Result<(), MailboxError> {
        if returned <= asked {
            return Ok(());
        }
        Err(MailboxError::AnswerTooMany { opcode: self.opcode, returned, asked })
    }

    /// Checks that so many bytes came.
    pub(crate) fn at_least(&self, needed_bytes: usize) -> Result<(), MailboxError> {
        if self.bytes.len() >= needed_bytes { Ok(()) } else { Err(self.too_short(needed_bytes)) }
    }

    fn too_short(&self, needed_bytes: usize) -> MailboxError {
        MailboxError::AnswerTooShort { opcode: self.opcode, len_bytes: self.bytes.len(), needed_bytes }
    }
}
