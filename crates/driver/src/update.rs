//! Sending a list of ranges with 4802h or 4803h, in as many messages as it takes.
//!
//! ```text
//! head (count, More) + ranges ─▶ head (count, More) + ranges ─▶ head (count) + ranges
//! ```

use alloc::vec::Vec;
use core::mem::size_of;

use wire::{Opcode, UPDATE_FLAG_MORE, UpdateHeader, UpdatedExtent};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::bus::Bus;
use crate::extents::DpaRange;
use crate::mailbox::{Mailbox, MailboxError};

/// Answers the oldest offer: these ranges are accepted, none or more.
pub fn add_response(bus: &mut dyn Bus, mailbox: &Mailbox, ranges: &[DpaRange]) -> Result<(), MailboxError> {
    if ranges.is_empty() {
        return send_message(bus, mailbox, Opcode::ADD_DC_RESPONSE, &[], 0);
    }
    send(bus, mailbox, Opcode::ADD_DC_RESPONSE, ranges)
}

/// Gives ranges back. An empty list is not legal, and not sent.
pub fn release(bus: &mut dyn Bus, mailbox: &Mailbox, ranges: &[DpaRange]) -> Result<(), MailboxError> {
    send(bus, mailbox, Opcode::RELEASE_DC, ranges)
}

fn send(bus: &mut dyn Bus, mailbox: &Mailbox, opcode: Opcode, ranges: &[DpaRange]) -> Result<(), MailboxError> {
    let mut messages = ranges.chunks(mailbox.capacity::<UpdateHeader, UpdatedExtent>()).peekable();
    while let Some(message) = messages.next() {
        let flags = if messages.peek().is_some() { UPDATE_FLAG_MORE } else { 0 };
        send_message(bus, mailbox, opcode, message, flags)?;
    }
    Ok(())
}

fn send_message(
    bus: &mut dyn Bus,
    mailbox: &Mailbox,
    opcode: Opcode,
    ranges: &[DpaRange],
    flags: u8,
) -> Result<(), MailboxError> {
    let head = UpdateHeader { count: U32::new(ranges.len() as u32), flags, reserved: [0; 3] };
    let mut payload = Vec::with_capacity(size_of::<UpdateHeader>() + size_of_val(ranges));
    payload.extend_from_slice(head.as_bytes());
    ranges.iter().for_each(|range| payload.extend_from_slice(range.to_wire().as_bytes()));
    mailbox.send(bus, opcode, &payload).map(drop)
}
