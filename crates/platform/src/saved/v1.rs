//! Version 1 of the saved forms. Frozen: not a field of it changes any more (`tests/platform/saved_v1.hex` holds its bytes).
//!
//! ```text
//!  face      device: event status, mailbox control, command, status, payload area │ component: global control, 10 decoders
//!            │ MSI-X: table, pending bits
//!  platform  configuration address │ host bridge │ CXL host registers: global control, 8 decoders │ root ports
//! ```

use std::collections::BTreeMap;

use crate::bridges::ROOT_PORTS_MAX;
use crate::component_block::ComponentBlock;
use crate::config_access::ConfigAddress;
use crate::device_block::DeviceRegisters;
use crate::hdm_decoder::{GLOBAL_CONTROL_WRITABLE, HdmDecoder, LastRegister};
use crate::host_bridge_block::HostBridgeBlock;
use crate::msix::Msix;
use crate::pci::{self, HostBridge, RootPort, RootPortParts};

use super::{FaceState, PlatformState, SavedError};

/// Of one device.
#[derive(bincode::Encode, bincode::Decode)]
pub(super) struct Face {
    event_status: u64,
    mailbox_control: u32,
    mailbox_command: u64,
    mailbox_status: u64,
    payload_len_bytes: u32,
    /// Without the zeros at its end.
    payload: Vec<u8>,
    hdm_global_control: u32,
    decoders: [Decoder; 10],
    msix_table: [u8; 256],
    msix_pending: u64,
}

/// Of everything above the devices.
#[derive(bincode::Encode, bincode::Decode)]
pub(super) struct Platform {
    config_address: u32,
    host_bridge: Vec<Dword>,
    hdm_global_control: u32,
    decoders: [Decoder; 8],
    root_ports: Vec<Port>,
}

/// The last register is the DPA skip in a device, the target list in a host bridge.
#[derive(Clone, Copy, bincode::Encode, bincode::Decode)]
struct Decoder {
    base: u64,
    size_bytes: u64,
    last: u64,
    control: u32,
}

/// One of configuration space that is not as at power-on; by rising offset.
#[derive(bincode::Encode, bincode::Decode)]
struct Dword {
    offset: u16,
    value: u32,
}

#[derive(bincode::Encode, bincode::Decode)]
struct Port {
    written: Vec<Dword>,
    presence: Presence,
    changes: u16,
}

#[derive(bincode::Encode, bincode::Decode)]
enum Presence {
    Empty,
    Plugged,
}

/// What cannot be, in the words of its part.
fn impossible(what: &'static str, part: impl Into<String>, reason: impl Into<String>) -> SavedError {
    SavedError::Impossible { what, part: part.into(), reason: reason.into() }
}

impl Face {
    pub(super) fn of(state: &FaceState) -> Self {
        let FaceState { device, component: ComponentBlock { global_control, decoders }, msix } = state;
        let DeviceRegisters { event_status, control, command, status, payload_len, payload } = device;
        let (msix_table, msix_pending) = msix.parts();
        Self {
            event_status: *event_status,
            mailbox_control: (*control).into(),
            mailbox_command: (*command).into(),
            mailbox_status: (*status).into(),
            payload_len_bytes: *payload_len as u32,
            payload: payload.clone(),
            hdm_global_control: *global_control,
            decoders: decoders.map(|decoder| Decoder::of(&decoder)),
            msix_table: *msix_table,
            msix_pending,
        }
    }

    pub(super) fn thawed(self, what: &'static str) -> Result<FaceState, SavedError> {
        let Self {
            event_status,
            mailbox_control,
            mailbox_command,
            mailbox_status,
            payload_len_bytes,
            payload,
            hdm_global_control,
            decoders,
            msix_table,
            msix_pending,
        } = self;
        let device = DeviceRegisters {
            event_status,
            control: mailbox_control.into(),
            command: mailbox_command.into(),
            status: mailbox_status.into(),
            payload_len: payload_len_bytes as usize,
            payload,
        };
        if !device.is_possible() {
            let reason = format!(
                "control {mailbox_control:#x}, command {mailbox_command:#x}, status {mailbox_status:#x}, {} bytes in a payload area of {payload_len_bytes}",
                device.payload.len()
            );
            return Err(impossible(what, "the mailbox", reason));
        }
        let component = ComponentBlock {
            global_control: global_control(what, hdm_global_control)?,
            decoders: thawed_decoders(what, decoders, LastRegister::Skip)?,
        };
        let msix = Msix::of(msix_table, msix_pending);
        let msix = msix.ok_or_else(|| impossible(what, "MSI-X", "bits are set that no host writes"))?;
        Ok(FaceState { device, component, msix })
    }
}

impl Platform {
    pub(super) fn of(state: &PlatformState) -> Self {
        let PlatformState { config_address, host, host_registers, ports } = state;
        let HostBridgeBlock { global_control, decoders } = host_registers;
        Self {
            config_address: config_address.0,
            host_bridge: dwords(host.written().dwords()),
            hdm_global_control: *global_control,
            decoders: decoders.map(|decoder| Decoder::of(&decoder)),
            root_ports: ports.iter().map(Port::of).collect(),
        }
    }

    pub(super) fn thawed(self, what: &'static str) -> Result<PlatformState, SavedError> {
        let Self { config_address, host_bridge, hdm_global_control, decoders, root_ports } = self;
        let host = written(host_bridge).and_then(HostBridge::of);
        let host_registers = HostBridgeBlock {
            global_control: global_control(what, hdm_global_control)?,
            decoders: thawed_decoders(what, decoders, LastRegister::TargetList)?,
        };
        if !host_registers.is_possible() {
            return Err(impossible(what, "the decoders", "what they are committed to cannot be decoded"));
        }
        if root_ports.len() > usize::from(ROOT_PORTS_MAX) {
            return Err(impossible(what, "the root ports", format!("there are {}", root_ports.len())));
        }
        let ports = (0u8..).zip(root_ports).map(|(index, port)| {
            port.thawed(index).map_err(|reason| impossible(what, format!("root port {index}"), reason))
        });
        Ok(PlatformState {
            config_address: ConfigAddress(config_address),
            host: host.map_err(|reason| impossible(what, "the host bridge", reason))?,
            host_registers,
            ports: ports.collect::<Result<_, _>>()?,
        })
    }
}

impl Port {
    fn of(port: &RootPort) -> Self {
        let RootPortParts { written, presence, changes } = port.parts();
        let presence = match presence {
            pci::Presence::Empty => Presence::Empty,
            pci::Presence::Plugged => Presence::Plugged,
        };
        Self { written: dwords(&written), presence, changes }
    }

    fn thawed(self, index: u8) -> Result<RootPort, String> {
        let Self { written: dwords, presence, changes } = self;
        let presence = match presence {
            Presence::Empty => pci::Presence::Empty,
            Presence::Plugged => pci::Presence::Plugged,
        };
        RootPort::of(index, RootPortParts { written: written(dwords)?, presence, changes })
    }
}

impl Decoder {
    fn of(decoder: &HdmDecoder) -> Self {
        let HdmDecoder { base, size, last, control } = *decoder;
        Self { base, size_bytes: size, last, control: control.into() }
    }

    fn thawed(self, last_register: LastRegister) -> Result<HdmDecoder, String> {
        let Self { base, size_bytes, last, control } = self;
        let decoder = HdmDecoder { base, size: size_bytes, last, control: control.into() };
        let is_sound = decoder.is_possible(last_register) && decoder.is_settled();
        is_sound.then_some(decoder).ok_or_else(|| {
            format!("base {base:#x}, size {size_bytes:#x}, skip or targets {last:#x}, control {control:#x}")
        })
    }
}

fn thawed_decoders<const COUNT: usize>(
    what: &'static str,
    frozen: [Decoder; COUNT],
    last_register: LastRegister,
) -> Result<[HdmDecoder; COUNT], SavedError> {
    let mut decoders = [HdmDecoder::default(); COUNT];
    for (index, (to, decoder)) in decoders.iter_mut().zip(frozen).enumerate() {
        let thawed = decoder.thawed(last_register);
        *to = thawed.map_err(|reason| impossible(what, format!("decoder {index}"), reason))?;
    }
    Ok(decoders)
}

fn global_control(what: &'static str, value: u32) -> Result<u32, SavedError> {
    let is_written = value & !GLOBAL_CONTROL_WRITABLE == 0;
    is_written.then_some(value).ok_or_else(|| impossible(what, "HDM decoder global control", format!("{value:#x}")))
}

fn dwords(written: &BTreeMap<u16, u32>) -> Vec<Dword> {
    written.iter().map(|(offset, value)| Dword { offset: *offset, value: *value }).collect()
}

/// Dwords by offset, if they rise.
fn written(dwords: Vec<Dword>) -> Result<BTreeMap<u16, u32>, String> {
    let rises = dwords.iter().zip(dwords.iter().skip(1)).all(|(one, next)| one.offset < next.offset);
    let by_offset = || dwords.iter().map(|Dword { offset, value }| (*offset, *value)).collect();
    rises.then(by_offset).ok_or_else(|| "its registers are not in their order".into())
}
