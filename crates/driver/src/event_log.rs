//! The Dynamic Capacity event log: reading its oldest records and clearing them.
//!
//! Deliberately absent: what a record means, and clearing a whole log at once.

use alloc::vec::Vec;
use core::mem::size_of;

use wire::{ClearEventRecordsIn, DcEventRecord, EVENT_FLAG_OVERFLOW, EventLog, GetEventRecordsOut, Opcode};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

use crate::bus::Bus;
use crate::mailbox::{Mailbox, MailboxError};

/// What one Get Event Records brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The oldest records.
    pub records: Vec<DcEventRecord>,
    /// Records that the device dropped because the log was full; 0 for none.
    pub lost_records: u16,
}

/// Reads the oldest records; none where the log is empty.
pub fn read(bus: &mut dyn Bus, mailbox: &Mailbox) -> Result<Batch, MailboxError> {
    let answer = mailbox.send(bus, Opcode::GET_EVENT_RECORDS, &[EventLog::DynamicCapacity as u8])?;
    let (head, rest) = answer.head::<GetEventRecordsOut>()?;
    let (records, _) = answer.list::<DcEventRecord>(rest, head.record_count.get().into())?;
    let has_overflowed = head.flags & EVENT_FLAG_OVERFLOW != 0;
    let lost_records = if has_overflowed { head.overflow_count.get().max(1) } else { 0 };
    Ok(Batch { records: records.to_vec(), lost_records })
}

/// Clears the oldest records, which must be these and in this order.
pub fn clear(bus: &mut dyn Bus, mailbox: &Mailbox, handles: &[U16]) -> Result<(), MailboxError> {
    // The count is one byte.
    let fit = mailbox.capacity::<ClearEventRecordsIn, U16>().min(u8::MAX.into());
    for handles in handles.chunks(fit) {
        let head = ClearEventRecordsIn {
            log: EventLog::DynamicCapacity as u8,
            flags: 0,
            handle_count: handles.len() as u8,
            reserved: [0; 3],
        };
        let mut payload = Vec::with_capacity(size_of::<ClearEventRecordsIn>() + size_of_val(handles));
        payload.extend_from_slice(head.as_bytes());
        payload.extend_from_slice(handles.as_bytes());
        mailbox.send(bus, Opcode::CLEAR_EVENT_RECORDS, &payload)?;
    }
    Ok(())
}
