//! A scripted device: register blocks as bytes, and a mailbox that answers from a script.
//!
//! BAR 0 holds component registers, BAR 2 device registers with the mailbox at 100h, BAR 4 the MSI-X table. It decides
//! nothing: what it answers was written down by the test.

use std::collections::VecDeque;

use wire::Opcode;
use wire::component::{
    ComponentCapabilityArray, ComponentCapabilityEntry, HDM_DECODER_CONTROL, HdmCapability, HdmDecoderControl,
    hdm_decoder_offset,
};
use wire::registers::{
    CAPABILITY_DEVICE_STATUS, CAPABILITY_MEMORY_DEVICE_STATUS, CAPABILITY_PRIMARY_MAILBOX, CapabilitiesArray,
    CapabilityHeader, MailboxCapabilities, MailboxCommand, MailboxStatus,
};

use crate::exchange::Exchange;

pub(crate) const MAILBOX: usize = 0x100;
pub(crate) const EVENT_STATUS: usize = 0x80;
pub(crate) const MEMORY_DEVICE_STATUS: usize = 0x90;
/// The HDM decoder capability in BAR 0.
pub(crate) const HDM: usize = 0x1100;

/// What a device makes of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnCommit {
    Commit,
    Refuse,
    Ignore,
}

/// What a device makes of a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDoorbell {
    /// The next exchange of the script, after the doorbell was seen set so often.
    AnswerAfter(u32),
    Ignore,
}

#[derive(Clone, Debug)]
pub(crate) struct Device {
    pub(crate) bars: [Vec<u8>; 3],
    pub(crate) script: VecDeque<Exchange>,
    pub(crate) sent: Vec<(Opcode, Vec<u8>)>,
    pub(crate) on_commit: OnCommit,
    pub(crate) on_doorbell: OnDoorbell,
    polls_left: u32,
}

fn put(to: &mut [u8], offset: usize, bytes: &[u8]) {
    to[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Device {
    pub(crate) fn new(payload_log2: u8, script: impl IntoIterator<Item = Exchange>) -> Self {
        let mut device = Self {
            bars: [vec![0; 0x1_0000], vec![0; 0x1_0000], vec![0; 0x1000]],
            script: script.into_iter().collect(),
            sent: Vec::new(),
            on_commit: OnCommit::Commit,
            on_doorbell: OnDoorbell::AnswerAfter(0),
            polls_left: 0,
        };
        device.lay_out_component();
        device.lay_out_device(payload_log2);
        device
    }

    fn lay_out_component(&mut self) {
        let [component, ..] = &mut self.bars;
        let head = ComponentCapabilityArray::new().with_id(1).with_version(1).with_count(2);
        put(component, 0x1000, &u32::from(head).to_le_bytes());
        let entry = |id, pointer| ComponentCapabilityEntry::new().with_id(id).with_version(1).with_pointer(pointer);
        put(component, 0x1004, &u32::from(entry(2, 0x80)).to_le_bytes());
        put(component, 0x1008, &u32::from(entry(5, 0x100)).to_le_bytes());
        put(component, HDM, &u32::from(HdmCapability::new().with_decoder_count_code(2)).to_le_bytes());
    }

    fn lay_out_device(&mut self, payload_log2: u8) {
        let [_, device, _] = &mut self.bars;
        let array = CapabilitiesArray::new().with_version(1).with_device_type(1).with_count(3);
        put(device, 0, &u64::from(array).to_le_bytes());
        let blocks = [
            (CAPABILITY_DEVICE_STATUS, EVENT_STATUS, 8),
            (CAPABILITY_PRIMARY_MAILBOX, MAILBOX, 0x20 + (1 << payload_log2.min(14))),
            (CAPABILITY_MEMORY_DEVICE_STATUS, MEMORY_DEVICE_STATUS, 8),
        ];
        for (index, (id, offset, len)) in (1..).zip(blocks) {
            let header = CapabilityHeader::new().with_id(id).with_version(1);
            put(device, index * 0x10, &u32::from(header).to_le_bytes());
            put(device, index * 0x10 + 4, &(offset as u32).to_le_bytes());
            put(device, index * 0x10 + 8, &(len as u32).to_le_bytes());
        }
        put(device, MEMORY_DEVICE_STATUS, &0x14_u64.to_le_bytes());
        let capabilities = MailboxCapabilities::new().with_payload_size_log2(payload_log2);
        put(device, MAILBOX, &u32::from(capabilities).to_le_bytes());
    }

    /// Lets the event status say whether the Dynamic Capacity log holds a record.
    pub(crate) fn set_event_status(&mut self, bits: u64) {
        put(&mut self.bars[1], EVENT_STATUS, &bits.to_le_bytes());
    }

    /// A register of four bytes in a BAR.
    pub(crate) fn dword(&self, bar: usize, offset: usize) -> u32 {
        u32::from_le_bytes(self.bars[bar][offset..offset + 4].try_into().expect("four bytes"))
    }

    pub(crate) fn read(&mut self, bar: usize, offset: usize, into: &mut [u8]) {
        if bar == 1 && offset == MAILBOX + 4 && self.dword(1, offset) & 1 == 1 {
            self.poll_doorbell();
        }
        into.copy_from_slice(&self.bars[bar][offset..offset + into.len()]);
    }

    pub(crate) fn write(&mut self, bar: usize, offset: usize, from: &[u8]) {
        put(&mut self.bars[bar], offset, from);
        if bar == 1 && offset == MAILBOX + 4 && from[0] & 1 == 1 {
            self.ring();
        }
        let decoder_control = (0..4).position(|index| offset == HDM + hdm_decoder_offset(index) + HDM_DECODER_CONTROL);
        if bar == 0 && decoder_control.is_some() {
            self.resolve_commit(offset);
        }
    }

    fn ring(&mut self) {
        match self.on_doorbell {
            OnDoorbell::Ignore => {}
            OnDoorbell::AnswerAfter(polls) => self.polls_left = polls,
        }
    }

    fn poll_doorbell(&mut self) {
        if self.on_doorbell == OnDoorbell::Ignore {
            return;
        }
        match self.polls_left.checked_sub(1) {
            Some(left) => self.polls_left = left,
            None => self.complete(),
        }
    }

    fn complete(&mut self) {
        let block = &mut self.bars[1][MAILBOX..];
        let command = u64::from_le_bytes(block[8..16].try_into().expect("eight bytes"));
        let command = MailboxCommand::from(command);
        let opcode = Opcode(command.opcode());
        let payload = block[0x20..0x20 + command.payload_len_bytes() as usize].to_vec();
        let exchange = self.script.pop_front();
        let exchange = exchange.unwrap_or_else(|| panic!("{opcode} with {payload:x?} after the end of the script"));
        assert_eq!(opcode, exchange.opcode, "the script goes on otherwise");
        self.sent.push((opcode, payload));
        let shown = MailboxCommand::new().with_opcode(opcode.0).with_payload_len_bytes(exchange.len_bytes);
        put(block, 8, &u64::from(shown).to_le_bytes());
        put(block, 0x10, &u64::from(MailboxStatus::new().with_return_code(exchange.code)).to_le_bytes());
        put(block, 0x20, &exchange.answer);
        put(block, 4, &[0]);
    }

    fn resolve_commit(&mut self, offset: usize) {
        let control = HdmDecoderControl::from(self.dword(0, offset));
        let resolved = match self.on_commit {
            _ if !control.commit() => control.with_committed(false).with_error_not_committed(false),
            OnCommit::Commit => control.with_committed(true),
            OnCommit::Refuse => control.with_error_not_committed(true),
            OnCommit::Ignore => control,
        };
        put(&mut self.bars[0], offset, &u32::from(resolved).to_le_bytes());
    }
}
