//! What stands between the root and the devices: host bridge, CXL host bridge, root ports and what is in their slots.
//!
//! ```text
//!  00:00.0 HostBridge ── ECAM        HostBridgeBlock (CXL host registers) ──▶ routes of the window
//!  0C:nn.0 RootPort nn ── own component registers
//!            └─ slot ── nothing, or a Face on the secondary bus
//! ```
//!
//! It answers which of them an access reaches; the access itself happens without the lock, on a handle of its own, so
//! that a device that goes away does not wait for anybody. Deliberately absent: RAM and the window.

use std::sync::Arc;

use wire::Hpa;
use wire::component::{CACHEMEM_OFFSET, COMPONENT_BLOCK_LEN_BYTES, COMPONENT_CAPABILITY_RAS};

use crate::bus::{HOST_BRIDGE_BUS, PlugError, ROOT_PORT_BUS};
use crate::component_block::{capability_array, entry};
use crate::config_access::ConfigAddress;
use crate::dwords;
use crate::face::{BarIndex, Face};
use crate::host_bridge_block::HostBridgeBlock;
use crate::pci::{HostBridge, Presence, RootPort};
use crate::saved::{LoadError, PlatformState};

/// Root ports at most: device numbers on one bus.
pub(crate) const ROOT_PORTS_MAX: u8 = 32;

const COMPONENT_LEN_BYTES: u64 = COMPONENT_BLOCK_LEN_BYTES as u64;

/// The bridges and the devices behind them.
#[derive(Debug)]
pub(crate) struct Bridges {
    pub(crate) config_address: ConfigAddress,
    pub(crate) host: HostBridge,
    pub(crate) host_registers: HostBridgeBlock,
    /// Where the host registers are, if there are addresses for them.
    host_registers_base: Option<Hpa>,
    ports: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    port: RootPort,
    face: Option<Arc<Face>>,
}

/// What answers at an address.
pub(crate) enum Claim {
    /// The registers of the CXL host bridge.
    HostRegisters { offset: u64 },
    /// Configuration space by memory.
    Ecam { offset: u64 },
    /// The component registers of a root port.
    PortRegisters { offset: u64 },
    /// A BAR of a device.
    Bar { face: Arc<Face>, bar: BarIndex, offset: u64 },
    /// Nothing.
    Nobody,
}

/// What answers configuration accesses to one function.
pub(crate) enum Function<'a> {
    HostBridge(&'a mut HostBridge),
    RootPort(&'a mut RootPort),
    Device(Arc<Face>),
}

impl Bridges {
    /// So many root ports, at most [`ROOT_PORTS_MAX`], with nothing in their slots.
    pub(crate) fn new(root_ports: u8, host_registers_base: Option<Hpa>) -> Self {
        let ports = (0..root_ports.min(ROOT_PORTS_MAX)).map(|port| Slot { port: RootPort::new(port), face: None });
        Self {
            config_address: ConfigAddress::default(),
            host: HostBridge::default(),
            host_registers: HostBridgeBlock::default(),
            host_registers_base,
            ports: ports.collect(),
        }
    }

    pub(crate) fn plug(&mut self, port: u8, face: Arc<Face>) -> Result<(), PlugError> {
        let root_ports = self.ports.len() as u8;
        let slot = self.ports.get_mut(usize::from(port)).ok_or(PlugError::NoPort { port, root_ports })?;
        if slot.face.is_some() {
            return Err(PlugError::Occupied { port });
        }
        slot.face = Some(face);
        slot.port.set_presence(Presence::Plugged);
        Ok(())
    }

    pub(crate) fn unplug(&mut self, port: u8) -> Option<Arc<Face>> {
        let slot = self.ports.get_mut(usize::from(port))?;
        slot.port.set_presence(Presence::Empty);
        slot.face.take()
    }

    /// The devices, with their root ports.
    pub(crate) fn faces(&self) -> impl Iterator<Item = (u8, &Arc<Face>)> {
        (0u8..).zip(&self.ports).filter_map(|(port, slot)| Some((port, slot.face.as_ref()?)))
    }

    /// Puts everything into its power-on state but what is in the slots.
    pub(crate) fn reset(&mut self) {
        self.config_address = ConfigAddress::default();
        self.host.reset();
        self.host_registers = HostBridgeBlock::default();
        self.ports.iter_mut().for_each(|slot| slot.port.reset());
    }

    /// What a guest has programmed, and what is in which slot.
    pub(crate) fn save(&self) -> PlatformState {
        let Self { config_address, host, host_registers, host_registers_base: _, ports } = self;
        PlatformState {
            config_address: *config_address,
            host: host.clone(),
            host_registers: host_registers.clone(),
            ports: ports.iter().map(|Slot { port, face: _ }| port.clone()).collect(),
        }
    }

    /// Makes the bridges what they were, if as many ports have the same slots occupied.
    pub(crate) fn load(&mut self, state: &PlatformState) -> Result<(), LoadError> {
        let PlatformState { config_address, host, host_registers, ports } = state;
        if ports.len() != self.ports.len() {
            return Err(LoadError::Ports { saved: ports.len(), ports: self.ports.len() });
        }
        for (port, (saved, slot)) in (0u8..).zip(ports.iter().zip(&self.ports)) {
            match (saved.presence(), slot.port.presence()) {
                (Presence::Plugged, Presence::Empty) => return Err(LoadError::Missing { port }),
                (Presence::Empty, Presence::Plugged) => return Err(LoadError::Unknown { port }),
                (Presence::Plugged, Presence::Plugged) | (Presence::Empty, Presence::Empty) => {}
            }
        }
        self.config_address = *config_address;
        (self.host, self.host_registers) = (host.clone(), host_registers.clone());
        self.ports.iter_mut().zip(ports).for_each(|(slot, saved)| slot.port = saved.clone());
        Ok(())
    }

    pub(crate) fn function(&mut self, bus: u8, device: u8, function: u8) -> Option<Function<'_>> {
        match (bus, device, function) {
            (HOST_BRIDGE_BUS, 0, 0) => Some(Function::HostBridge(&mut self.host)),
            (HOST_BRIDGE_BUS, _, _) => None,
            (ROOT_PORT_BUS, port, 0) => {
                let slot = self.ports.get_mut(usize::from(port))?;
                Some(Function::RootPort(&mut slot.port))
            }
            (ROOT_PORT_BUS, _, _) => None,
            (bus, 0, 0) => {
                let slot = self.ports.iter().find(|slot| slot.port.secondary_bus() == Some(bus))?;
                slot.face.clone().map(Function::Device)
            }
            _ => None,
        }
    }

    /// What answers at `at`, where neither RAM nor the window does, and for how many of `left` bytes (at least one).
    ///
    /// The host registers come before ECAM, that before BARs, and those in the order of the ports. What comes first
    /// may begin in the middle of what comes later, so each bounds the rest.
    pub(crate) fn claim(&self, at: Hpa, left: u64) -> (Claim, u64) {
        let mut left = left;
        if let Some(base) = self.host_registers_base {
            match Place::of(at, base, COMPONENT_LEN_BYTES) {
                Place::Inside { offset, len_bytes } => return (Claim::HostRegisters { offset }, left.min(len_bytes)),
                Place::Before { bytes } => left = left.min(bytes),
                Place::Behind => {}
            }
        }
        if let Some(ecam) = self.host.ecam() {
            match Place::of(at, ecam.base, ecam.len_bytes) {
                Place::Inside { offset, len_bytes } => return (Claim::Ecam { offset }, left.min(len_bytes)),
                Place::Before { bytes } => left = left.min(bytes),
                Place::Behind => {}
            }
        }
        self.claim_of_ports(at, left)
    }

    fn claim_of_ports(&self, at: Hpa, left: u64) -> (Claim, u64) {
        let (mut claim, mut left) = (Claim::Nobody, left);
        let last = Hpa(at.0.saturating_add(left.saturating_sub(1)));
        let mut consider = |base: Hpa, len_bytes: u64, of: &dyn Fn(u64) -> Claim| match Place::of(at, base, len_bytes) {
            Place::Inside { offset, len_bytes } if matches!(claim, Claim::Nobody) => {
                claim = of(offset);
                left = left.min(len_bytes);
            }
            Place::Before { bytes } => left = left.min(bytes),
            Place::Inside { .. } | Place::Behind => {}
        };
        for slot in &self.ports {
            if let Some(base) = slot.port.component_bar() {
                consider(base, COMPONENT_LEN_BYTES, &|offset| Claim::PortRegisters { offset });
            }
            let Some(face) = slot.face.as_ref().filter(|_| slot.port.touches(at, last)) else { continue };
            for (bar, answers) in BarIndex::ALL.into_iter().zip(face.bars()) {
                let Some((base, len_bytes)) = answers.filter(|(base, len)| slot.port.forwards(*base, *len)) else {
                    continue;
                };
                consider(base, len_bytes, &|offset| Claim::Bar { face: Arc::clone(face), bar, offset });
            }
        }
        (claim, left)
    }
}

/// Where an address is, seen from a range.
enum Place {
    /// So many bytes before it.
    Before { bytes: u64 },
    /// At an offset in it, with so many bytes to its end.
    Inside { offset: u64, len_bytes: u64 },
    /// Behind it.
    Behind,
}

impl Place {
    fn of(at: Hpa, base: Hpa, len_bytes: u64) -> Self {
        match at.bytes_from(base) {
            Some(offset) if offset < len_bytes => Self::Inside { offset, len_bytes: len_bytes - offset },
            Some(_) => Self::Behind,
            None => Self::Before { bytes: base.0 - at.0 },
        }
    }
}

/// What a host reads from the component registers of a root port: CXL.cachemem with a RAS capability that is all zero.
/// There is nothing to write.
pub(crate) fn read_port_registers(offset: u64, to: &mut [u8]) {
    const ARRAY: u64 = CACHEMEM_OFFSET as u64;
    const ARRAY_RAS: u64 = ARRAY + 4;
    dwords::read(offset, to, |offset| match offset {
        ARRAY => capability_array(1).into(),
        ARRAY_RAS => entry(COMPONENT_CAPABILITY_RAS, 2, 0x80).into(),
        _ => 0,
    });
}
