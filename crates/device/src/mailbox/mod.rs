//! The mailbox: configuration space, device registers, command dispatch, classic event logs, interrupt policy.
//!
//! ```text
//!  doorbell ──route──┬─▶ here: logs, Identify, policy      ──▶ record of the mailbox
//!                    └─▶ extent manager: DC, clock, log 4  ──▶ record of the extent manager
//! ```
//!
//! Deliberately absent: the registers that only show state (they are published from it) and those that take effect
//! only with the doorbell (they are copied into its input).

mod commands;
mod parts;

use serde::{Deserialize, Serialize};
use wire::{EventInterruptMode, EventInterruptSetting, EventLog, Opcode, ReturnCode};

use crate::config::DeviceConfig;
use crate::config_space::ConfigSpace;
use crate::operation::{CommandReply, Decision, Fact as AnyFact, Reply};

pub use parts::Parts;

/// MSI-X vectors of the function.
pub const MSIX_VECTORS: usize = 16;

/// MSI-X vector of a completed command.
pub const MAILBOX_VECTOR: u8 = 0;

/// MSI-X vectors of the event logs, by log (below 16, as the policy's message number has four bits).
pub const EVENT_VECTORS: [u8; 5] = [1, 2, 3, 4, 5];

/// Bytes of the MSI-X table.
pub const MSIX_TABLE_BYTES: usize = MSIX_VECTORS * 16;

/// What reaches the mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// A write to configuration space that changed something.
    ConfigWrite {
        /// Byte offset.
        offset: u16,
        /// Bytes: 1, 2 or 4.
        width: u8,
        /// The value.
        value: u32,
    },
    /// A write to the mailbox control register, the doorbell bit aside.
    MailboxControl {
        /// The value.
        value: u32,
    },
    /// A write to the MSI-X table.
    MsixWrite {
        /// Byte offset in the table.
        offset: u32,
        /// Bytes: 1, 2, 4 or 8.
        width: u8,
        /// The value.
        value: u64,
    },
    /// The doorbell, with what was staged when it rang.
    Doorbell {
        /// The command.
        opcode: Opcode,
        /// The payload length that was declared.
        declared_len_bytes: u32,
        /// The payload: as long as declared, or as the payload area is if that is less.
        #[serde(with = "crate::hex")]
        payload: Vec<u8>,
    },
}

/// What was decided to have happened to the mailbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Configuration space was written.
    ConfigWritten {
        /// Byte offset.
        offset: u16,
        /// Bytes.
        width: u8,
        /// The value.
        value: u32,
    },
    /// The mailbox control register has a new value.
    MailboxControlSet {
        /// The value.
        value: u32,
    },
    /// The MSI-X table was written.
    MsixWritten {
        /// Byte offset in the table.
        offset: u32,
        /// Bytes.
        width: u8,
        /// The value.
        value: u64,
    },
    /// The event interrupt policy, a byte for each log.
    PolicySet {
        /// Modes, as the host set them.
        policy: [u8; 5],
    },
    /// Everything is as at power-on.
    Reset,
}

/// Who decides a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The mailbox itself.
    Mailbox,
    /// The extent manager.
    Extents,
}

/// The mailbox's state for one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    config_space: ConfigSpace,
    control: u32,
    msix: Vec<u8>,
    policy: [u8; 5],
}

/// Who decides this command: what concerns extents, the clock that stamps their events, and their log is the extent
/// manager's. A payload that is longer than the payload area never gets there.
pub fn route(config: &DeviceConfig, opcode: Opcode, declared_len_bytes: u32, payload: &[u8]) -> Route {
    if declared_len_bytes as usize > config.mailbox_payload_bytes() {
        return Route::Mailbox;
    }
    let is_dc_log = payload.first() == Some(&(EventLog::DynamicCapacity as u8));
    match opcode {
        Opcode::GET_DC_CONFIGURATION
        | Opcode::GET_DC_EXTENT_LIST
        | Opcode::ADD_DC_RESPONSE
        | Opcode::RELEASE_DC
        | Opcode::GET_TIMESTAMP
        | Opcode::SET_TIMESTAMP => Route::Extents,
        Opcode::GET_EVENT_RECORDS | Opcode::CLEAR_EVENT_RECORDS if is_dc_log => Route::Extents,
        _ => Route::Mailbox,
    }
}

impl State {
    /// A mailbox as it is at power-on.
    pub fn new(config: &DeviceConfig) -> Self {
        Self {
            config_space: ConfigSpace::new(config.serial, config.mailbox_payload_log2)
                .with_static_len(config.static_len_bytes()),
            control: 0,
            msix: power_on_msix(),
            policy: [0; 5],
        }
    }

    /// Configuration space.
    pub fn config_space(&self) -> &ConfigSpace {
        &self.config_space
    }

    /// The mailbox control register, the doorbell bit aside.
    pub fn control(&self) -> u32 {
        self.control
    }

    /// The MSI-X table.
    pub fn msix(&self) -> &[u8] {
        &self.msix
    }

    /// The vector of a log's interrupt, if the host wants one (CXL r4.0 8.2.10.2.4).
    pub fn event_vector(&self, log: EventLog) -> Option<u8> {
        let setting = EventInterruptSetting::from(self.policy[log as usize]);
        (setting.mode() == EventInterruptMode::Message).then_some(EVENT_VECTORS[log as usize])
    }

    /// Decides an input that is the mailbox's own. A doorbell of another actor's command is not one.
    pub fn decide(&self, config: &DeviceConfig, input: &Input) -> Decision {
        let (facts, reply) = match *input {
            Input::ConfigWrite { offset, width, value } => {
                (vec![Fact::ConfigWritten { offset, width, value }], Reply::Done)
            }
            Input::MailboxControl { value } => (vec![Fact::MailboxControlSet { value }], Reply::Done),
            Input::MsixWrite { offset, width, value } => {
                (vec![Fact::MsixWritten { offset, width, value }], Reply::Done)
            }
            Input::Doorbell { opcode, declared_len_bytes, ref payload } => {
                let answer = if declared_len_bytes as usize > config.mailbox_payload_bytes() {
                    Err(ReturnCode::InvalidPayloadLength)
                } else {
                    self.command(config, opcode, payload)
                };
                let (facts, return_code, payload) = match answer {
                    Ok((facts, payload)) => (facts, ReturnCode::Success, payload),
                    Err(code) => (Vec::new(), code, Vec::new()),
                };
                (facts, Reply::Command(CommandReply { return_code, payload }))
            }
        };
        Decision { facts: facts.into_iter().map(AnyFact::Mailbox).collect(), reply }
    }

    /// Whether a fact from a file can be true of this state; if not, why.
    pub fn admit(&self, fact: &Fact) -> Result<(), String> {
        let fits = match fact {
            Fact::ConfigWritten { width, .. } => matches!(width, 1 | 2 | 4),
            Fact::MsixWritten { width, .. } => matches!(width, 1 | 2 | 4 | 8),
            Fact::MailboxControlSet { .. } | Fact::PolicySet { .. } | Fact::Reset => true,
        };
        if fits { Ok(()) } else { Err(format!("{fact:?} does not fit the mailbox")) }
    }

    /// Makes a fact true.
    pub fn evolve(&mut self, fact: &Fact) {
        match *fact {
            Fact::ConfigWritten { offset, width, value } => {
                self.config_space.write(offset, width, value);
            }
            Fact::MailboxControlSet { value } => self.control = value,
            Fact::MsixWritten { offset, width, value } => {
                write_msix(&mut self.msix, offset, width, value);
            }
            Fact::PolicySet { policy } => self.policy = policy,
            Fact::Reset => {
                self.config_space.reset();
                self.control = 0;
                self.msix = power_on_msix();
                self.policy = [0; 5];
            }
        }
    }
}

/// The MSI-X table at power-on: every vector masked.
pub fn power_on_msix() -> Vec<u8> {
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0].repeat(MSIX_VECTORS)
}

/// Writes the low `width` bytes of `value` into an MSI-X table; what lies outside it is dropped.
pub fn write_msix(table: &mut [u8], offset: u32, width: u8, value: u64) {
    let bytes = value.to_le_bytes();
    let range = (offset as usize)..(offset as usize).saturating_add(usize::from(width.min(8)));
    if let Some(to) = table.get_mut(range) {
        to.copy_from_slice(&bytes[..to.len()]);
    }
}
