//! The commands that the mailbox answers itself: event logs 0 to 3, interrupt policy, logs, Identify.

use wire::event::CLEAR_FLAG_ALL;
use wire::{
    CAPACITY_MULTIPLE_BYTES, CEL_UUID, CelEntry, ClearEventRecordsIn, CommandEffects, EventInterruptMode,
    EventInterruptSetting, EventLog, GetEventRecordsOut, GetLogIn, GetSupportedLogsOut, IdentifyMemoryDeviceOut,
    Opcode, ReturnCode, SupportedLog,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes, little_endian as le};

use crate::config::DeviceConfig;
use crate::limits::DC_EVENT_LOG_RECORDS_MAX;

use super::{EVENT_VECTORS, Fact, State};

type Answer = Result<(Vec<Fact>, Vec<u8>), ReturnCode>;

/// The commands of the device with their effects: its Command Effects Log (CXL r4.0 8.2.10.5.2.1).
pub(super) fn command_effects() -> [(Opcode, CommandEffects); 13] {
    let none = CommandEffects::new();
    let policy = none.with_immediate_policy_change(true);
    let configuration = none.with_immediate_configuration_change(true);
    [
        (Opcode::GET_EVENT_RECORDS, none),
        (Opcode::CLEAR_EVENT_RECORDS, none.with_immediate_log_change(true)),
        (Opcode::GET_EVENT_INTERRUPT_POLICY, none),
        (Opcode::SET_EVENT_INTERRUPT_POLICY, policy),
        (Opcode::GET_TIMESTAMP, none),
        (Opcode::SET_TIMESTAMP, policy),
        (Opcode::GET_SUPPORTED_LOGS, none),
        (Opcode::GET_LOG, none),
        (Opcode::IDENTIFY_MEMORY_DEVICE, none),
        (Opcode::GET_DC_CONFIGURATION, none),
        (Opcode::GET_DC_EXTENT_LIST, none),
        (Opcode::ADD_DC_RESPONSE, configuration),
        (Opcode::RELEASE_DC, configuration),
    ]
}

fn cel() -> Vec<u8> {
    let entry = |(opcode, effects): (Opcode, CommandEffects)| CelEntry {
        opcode: le::U16::new(opcode.0),
        effects: le::U16::new(effects.into()),
    };
    command_effects().into_iter().map(entry).flat_map(|entry| entry.as_bytes().to_vec()).collect()
}

impl State {
    pub(super) fn command(&self, config: &DeviceConfig, opcode: Opcode, payload: &[u8]) -> Answer {
        match opcode {
            Opcode::GET_EVENT_RECORDS => read_only(classic_records(payload)),
            Opcode::CLEAR_EVENT_RECORDS => read_only(clear_classic(payload)),
            Opcode::GET_EVENT_INTERRUPT_POLICY => read_only(empty(payload).map(|()| self.policy_out())),
            Opcode::SET_EVENT_INTERRUPT_POLICY => self.set_policy(payload),
            Opcode::GET_SUPPORTED_LOGS => read_only(empty(payload).map(|()| supported_logs())),
            Opcode::GET_LOG => read_only(get_log(config, payload)),
            Opcode::IDENTIFY_MEMORY_DEVICE => read_only(empty(payload).map(|()| identify(config))),
            _ => Err(ReturnCode::Unsupported),
        }
    }

    /// 0102h: modes as set, message numbers filled in (CXL r4.0 8.2.10.2.4).
    fn policy_out(&self) -> Vec<u8> {
        let with_vector =
            |(mode, vector): (&u8, u8)| u8::from(EventInterruptSetting::from(*mode).with_message_number(vector));
        self.policy.iter().zip(EVENT_VECTORS).map(with_vector).collect()
    }

    /// 0103h: four bytes, and perhaps the DC byte, whose firmware mode is reserved (CXL r4.0 8.2.10.2.5).
    fn set_policy(&self, payload: &[u8]) -> Answer {
        let mut policy = self.policy;
        if !matches!(payload.len(), 4 | 5) {
            return Err(ReturnCode::InvalidPayloadLength);
        }
        for (log, (slot, byte)) in policy.iter_mut().zip(payload).enumerate() {
            let mode = EventInterruptSetting::from(*byte).mode();
            let is_dc = log == EventLog::DynamicCapacity as usize;
            if mode == EventInterruptMode::Reserved || is_dc && mode == EventInterruptMode::Firmware {
                return Err(ReturnCode::InvalidInput);
            }
            *slot = EventInterruptSetting::new().with_mode(mode).into();
        }
        Ok((vec![Fact::PolicySet { policy }], Vec::new()))
    }
}

fn read_only(answer: Result<Vec<u8>, ReturnCode>) -> Answer {
    answer.map(|payload| (Vec::new(), payload))
}

fn empty(payload: &[u8]) -> Result<(), ReturnCode> {
    if payload.is_empty() { Ok(()) } else { Err(ReturnCode::InvalidPayloadLength) }
}

/// 0100h of the logs 0 to 3, in which nothing is ever written yet (CXL r4.0 8.2.10.2.2).
fn classic_records(payload: &[u8]) -> Result<Vec<u8>, ReturnCode> {
    let [log] = payload else { return Err(ReturnCode::InvalidPayloadLength) };
    EventLog::from_u8(*log).ok_or(ReturnCode::InvalidInput)?;
    Ok(GetEventRecordsOut::new_zeroed().as_bytes().to_vec())
}

/// 0101h of the logs 0 to 3: there is no record to name, and no overflow that would make a clear-all legal.
fn clear_classic(payload: &[u8]) -> Result<Vec<u8>, ReturnCode> {
    let (head, handles) =
        ClearEventRecordsIn::read_from_prefix(payload).map_err(|_| ReturnCode::InvalidPayloadLength)?;
    if handles.len() != usize::from(head.handle_count) * 2 {
        return Err(ReturnCode::InvalidPayloadLength);
    }
    EventLog::from_u8(head.log).ok_or(ReturnCode::InvalidInput)?;
    if head.flags & CLEAR_FLAG_ALL != 0 {
        return Err(ReturnCode::InvalidInput);
    }
    if head.handle_count > 0 { Err(ReturnCode::InvalidHandle) } else { Ok(Vec::new()) }
}

/// 0400h: the Command Effects Log is the one log (CXL r4.0 8.2.10.5.1).
fn supported_logs() -> Vec<u8> {
    let mut head = GetSupportedLogsOut::new_zeroed();
    head.count = le::U16::new(1);
    let log = SupportedLog { uuid: CEL_UUID, size_bytes: le::U32::new(cel().len() as u32) };
    [head.as_bytes(), log.as_bytes()].concat()
}

/// 0401h (CXL r4.0 8.2.10.5.2).
fn get_log(config: &DeviceConfig, payload: &[u8]) -> Result<Vec<u8>, ReturnCode> {
    let asked = GetLogIn::read_from_bytes(payload).map_err(|_| ReturnCode::InvalidPayloadLength)?;
    if asked.uuid != CEL_UUID {
        return Err(ReturnCode::InvalidLog);
    }
    let (offset, len) = (asked.offset_bytes.get() as usize, asked.len_bytes.get() as usize);
    if len > config.mailbox_payload_bytes() {
        return Err(ReturnCode::InvalidInput);
    }
    cel().get(offset..offset.saturating_add(len)).map(<[u8]>::to_vec).ok_or(ReturnCode::InvalidInput)
}

/// 4000h: the capacities are those of static memory, which is volatile (CXL r4.0 8.2.10.9.1.1).
fn identify(config: &DeviceConfig) -> Vec<u8> {
    let mut out = IdentifyMemoryDeviceOut::new_zeroed();
    let revision = concat!("dcd ", env!("CARGO_PKG_VERSION")).as_bytes();
    let len = revision.len().min(out.fw_revision.len());
    out.fw_revision[..len].copy_from_slice(&revision[..len]);
    let static_multiples = le::U64::new(config.static_len_bytes() / CAPACITY_MULTIPLE_BYTES);
    (out.total_capacity, out.volatile_capacity) = (static_multiples, static_multiples);
    out.dc_event_log_size = le::U16::new(DC_EVENT_LOG_RECORDS_MAX as u16);
    out.as_bytes().to_vec()
}
