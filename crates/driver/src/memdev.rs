//! Asking a memory device what it is, in the order in which Linux asks.
//!
//! ```text
//! 0400h logs ─▶ 0401h Command Effects Log, in bites of a payload ─▶ 0301h time ─▶ 4000h identity ─▶ 4800h regions
//! ```
//!
//! Deliberately absent: partitions (4100h), features, firmware, labels; a device that lacks one of 4800h to 4803h is no
//! Dynamic Capacity Device and is refused, where Linux would go on with its static capacity.

use alloc::vec::Vec;
use core::mem::size_of;

use wire::{
    CAPACITY_MULTIPLE_BYTES, CEL_UUID, CelEntry, CommandEffects, GetLogIn, GetSupportedLogsOut,
    IdentifyMemoryDeviceOut, Opcode, ReturnCode, SupportedLog,
};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, IntoBytes};

use crate::bus::Bus;
use crate::mailbox::{Mailbox, MailboxError};
use crate::regions::{ConfigurationError, DcConfiguration};

/// A Command Effects Log of every opcode there can be, in bytes.
const CEL_LEN_BYTES_MAX: u32 = (1 << 16) * size_of::<CelEntry>() as u32;
/// Length of an identity before Dynamic Capacity was added.
const IDENTITY_LEN_BYTES_MIN: usize = 0x43;
/// What makes a device a Dynamic Capacity Device.
const DC_COMMANDS: [Opcode; 4] =
    [Opcode::GET_DC_CONFIGURATION, Opcode::GET_DC_EXTENT_LIST, Opcode::ADD_DC_RESPONSE, Opcode::RELEASE_DC];

/// What a memory device said of itself.
#[derive(Clone, Debug)]
pub struct MemoryDevice {
    /// Its primary mailbox.
    pub mailbox: Mailbox,
    /// Its identity.
    pub identity: IdentifyMemoryDeviceOut,
    /// The commands that it supports.
    pub commands: Vec<CelEntry>,
    /// Its dynamic capacity.
    pub dc: DcConfiguration,
}

/// Why a memory device cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemdevError {
    /// A command failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// There is no Command Effects Log, or one that cannot be.
    #[error("the Command Effects Log has {size_bytes} bytes: 4 to {CEL_LEN_BYTES_MAX} can be")]
    CommandEffectsLog {
        /// The size it is said to have; 0 where it is absent.
        size_bytes: u32,
    },
    /// The device is no Dynamic Capacity Device.
    #[error("{missing} is not in the Command Effects Log, so the device has no dynamic capacity")]
    NoDynamicCapacity {
        /// The first command that is missing.
        missing: Opcode,
    },
    /// The device has more static capacity than there are addresses.
    #[error("the device says it has {multiples} x 256 MiB of static capacity, more than there are addresses")]
    StaticCapacity {
        /// Capacity in units of 256 MiB.
        multiples: u64,
    },
    /// The regions cannot be used.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
}

impl MemoryDevice {
    /// Asks a device what it is.
    pub fn probe(bus: &mut dyn Bus, mailbox: Mailbox) -> Result<Self, MemdevError> {
        let commands = command_effects_log(bus, &mailbox)?;
        let is_missing = |opcode: &Opcode| !commands.iter().any(|entry| entry.opcode.get() == opcode.0);
        if let Some(missing) = DC_COMMANDS.into_iter().find(is_missing) {
            return Err(MemdevError::NoDynamicCapacity { missing });
        }
        set_timestamp(bus, &mailbox)?;
        let identity = identify(bus, &mailbox)?;
        let multiples = identity.total_capacity.get();
        let static_len_bytes = multiples.checked_mul(CAPACITY_MULTIPLE_BYTES);
        let static_len_bytes = static_len_bytes.ok_or(MemdevError::StaticCapacity { multiples })?;
        let dc = DcConfiguration::read(bus, &mailbox, static_len_bytes)?;
        Ok(Self { mailbox, identity, commands, dc })
    }

    /// What a command does to the device, or `None` where the device does not support it.
    pub fn effects(&self, opcode: Opcode) -> Option<CommandEffects> {
        let entry = self.commands.iter().find(|entry| entry.opcode.get() == opcode.0)?;
        Some(CommandEffects::from(entry.effects.get()))
    }
}

fn command_effects_log(bus: &mut dyn Bus, mailbox: &Mailbox) -> Result<Vec<CelEntry>, MemdevError> {
    let answer = mailbox.send(bus, Opcode::GET_SUPPORTED_LOGS, &[])?;
    let (head, rest) = answer.head::<GetSupportedLogsOut>()?;
    let (logs, _) = answer.list::<SupportedLog>(rest, head.count.get().into())?;
    let size_bytes = logs.iter().find(|log| log.uuid == CEL_UUID).map_or(0, |log| log.size_bytes.get());
    if size_bytes < size_of::<CelEntry>() as u32 || size_bytes > CEL_LEN_BYTES_MAX {
        return Err(MemdevError::CommandEffectsLog { size_bytes });
    }
    let mut log = Vec::new();
    let mut offset_bytes = 0;
    while offset_bytes < size_bytes {
        let bite = (size_bytes - offset_bytes).min(mailbox.payload_len_bytes() as u32);
        let request = GetLogIn { uuid: CEL_UUID, offset_bytes: U32::new(offset_bytes), len_bytes: U32::new(bite) };
        let answer = mailbox.send(bus, Opcode::GET_LOG, request.as_bytes())?;
        answer.at_least(bite as usize)?;
        answer.at_most(bite as usize, answer.bytes().len())?;
        log.extend_from_slice(answer.bytes());
        offset_bytes += bite;
    }
    Ok(log.chunks_exact(size_of::<CelEntry>()).filter_map(|entry| CelEntry::read_from_bytes(entry).ok()).collect())
}

/// A device need not know the time.
fn set_timestamp(bus: &mut dyn Bus, mailbox: &Mailbox) -> Result<(), MailboxError> {
    let now_ns = U64::new(bus.now_ms().saturating_mul(1_000_000));
    match mailbox.send(bus, Opcode::SET_TIMESTAMP, now_ns.as_bytes()) {
        Err(error) if error.refusal() == Some(ReturnCode::Unsupported) => Ok(()),
        answer => answer.map(drop),
    }
}

/// The identity; an older device leaves out its end, which then reads zero.
fn identify(bus: &mut dyn Bus, mailbox: &Mailbox) -> Result<IdentifyMemoryDeviceOut, MailboxError> {
    let answer = mailbox.send(bus, Opcode::IDENTIFY_MEMORY_DEVICE, &[])?;
    answer.at_least(IDENTITY_LEN_BYTES_MIN)?;
    let mut identity = IdentifyMemoryDeviceOut::default();
    identity.as_mut_bytes().iter_mut().zip(answer.bytes()).for_each(|(to, from)| *to = *from);
    Ok(identity)
}
