//! Arming the Dynamic Capacity event log: read the policy, set the one mode, read back what the device made of it.
//!
//! Deliberately absent: other logs; nobody reads them here, so their modes stay as they were found.

use core::mem::size_of;

use wire::{EventInterruptMode, EventInterruptPolicy, EventInterruptSetting, Opcode};
use zerocopy::IntoBytes;

use crate::bus::Bus;
use crate::mailbox::{Mailbox, MailboxError};

/// Why offers of capacity would raise no interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArmError {
    /// A command failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The device did not take the mode.
    #[error(
        "the Dynamic Capacity log was set to message signalled interrupts, but its setting reads back as {setting:#04x}"
    )]
    NotTaken {
        /// What was read back.
        setting: u8,
    },
    /// The device would use an MSI-X entry that it does not have.
    #[error("the Dynamic Capacity log uses MSI-X entry {entry}, but the table has {entries}")]
    NoSuchEntry {
        /// The entry that it names.
        entry: u8,
        /// Entries in the table.
        entries: u16,
    },
}

/// Lets the Dynamic Capacity log raise an interrupt; the MSI-X entry of `entries` that it uses.
pub fn arm(bus: &mut dyn Bus, mailbox: &Mailbox, entries: u16) -> Result<u8, ArmError> {
    let mut policy = read(bus, mailbox)?;
    let setting = EventInterruptSetting::new().with_mode(EventInterruptMode::Message);
    policy.dynamic_capacity = setting.into();
    mailbox.send(bus, Opcode::SET_EVENT_INTERRUPT_POLICY, policy.as_bytes())?;
    let setting = EventInterruptSetting::from(read(bus, mailbox)?.dynamic_capacity);
    if setting.mode() != EventInterruptMode::Message {
        return Err(ArmError::NotTaken { setting: setting.into() });
    }
    let entry = setting.message_number();
    if u16::from(entry) >= entries {
        return Err(ArmError::NoSuchEntry { entry, entries });
    }
    Ok(entry)
}

/// A device before Dynamic Capacity answers a byte less, which is not enough here.
fn read(bus: &mut dyn Bus, mailbox: &Mailbox) -> Result<EventInterruptPolicy, MailboxError> {
    let answer = mailbox.send(bus, Opcode::GET_EVENT_INTERRUPT_POLICY, &[])?;
    answer.at_least(size_of::<EventInterruptPolicy>())?;
    answer.head::<EventInterruptPolicy>().map(|(policy, _)| policy)
}
