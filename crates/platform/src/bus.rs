//! The platform: every access of a guest, routed to what answers it.
//!
//! ```text
//!  address ──▶ RAM, else CXL window, else the BAR of a device behind a port that forwards it, else nothing
//!  bus:device.function ──▶ 00:00.0 host bridge, 0C:nn.0 port nn, secondary bus:00.0 the device behind its port
//! ```
//!
//! What nobody claims reads all ones and swallows writes; an access that straddles two claims is split. A port forwards
//! only what its memory windows hold, so a driver that forgets them sees no device. Deliberately absent: who decides
//! (the actors behind each [`Face`]), and timing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use memory::{HostMemory, Window};
use wire::Hpa;

use crate::address_map::AddressMap;
use crate::face::{BarIndex, Face};
use crate::pci::{HostBridge, RootPort};
use crate::publications::{Epoch, Publications};

/// The bus of the host bridge.
pub const HOST_BRIDGE_BUS: u8 = 0x00;
/// The root bus of the CXL host bridge, with one root port for each device.
pub const ROOT_PORT_BUS: u8 = 0x0c;

/// Root ports at most: device numbers on one bus.
const ROOT_PORTS_MAX: usize = 32;

/// Guest memory, the CXL window and the devices, as a guest reaches them.
#[derive(Debug)]
pub struct Platform {
    map: AddressMap,
    ram: Arc<HostMemory>,
    window: Arc<Window>,
    faces: Vec<Arc<Face>>,
    ports: Mutex<Vec<RootPort>>,
    publications: Arc<Publications>,
}

/// What answers at an address.
enum Claim<'a> {
    Ram { offset_bytes: u64 },
    Window,
    Bar { face: &'a Face, bar: BarIndex, offset: u64 },
    Nobody,
}

/// A BAR that answers.
struct ActiveBar<'a> {
    face: &'a Face,
    bar: BarIndex,
    base: Hpa,
    len_bytes: u64,
}

/// What answers configuration accesses to one function.
enum Function<'a> {
    HostBridge,
    RootPort(usize),
    Device(&'a Face),
}

impl Platform {
    /// A platform with the devices in the order of their root ports. There are root ports for 32 devices; further ones
    /// are on no bus.
    pub fn new(ram: Arc<HostMemory>, window: Arc<Window>, faces: Vec<Arc<Face>>) -> Self {
        let publications = Arc::new(Publications::default());
        faces.iter().for_each(|face| face.relay_publications(Arc::clone(&publications)));
        let ports = (0u8..).zip(faces.iter().take(ROOT_PORTS_MAX)).map(|(port, _)| RootPort::new(port)).collect();
        let map = AddressMap::new(ram.len_bytes());
        Self { map, ram, window, faces, ports: Mutex::new(ports), publications }
    }

    /// Where what is.
    pub fn address_map(&self) -> AddressMap {
        self.map
    }

    /// Guest memory.
    pub fn ram(&self) -> &Arc<HostMemory> {
        &self.ram
    }

    /// The CXL fixed memory window.
    pub fn window(&self) -> &Arc<Window> {
        &self.window
    }

    /// The devices, in the order of their root ports.
    pub fn faces(&self) -> &[Arc<Face>] {
        &self.faces
    }

    /// What the guest reads from a function's configuration space: all ones where there is no function.
    pub fn config_read(&self, bus: u8, device: u8, function: u8, offset: u16, width: u8) -> u32 {
        let ports = self.ports();
        let value = match self.function(&ports, bus, device, function) {
            Some(Function::HostBridge) => HostBridge.read(offset, width),
            Some(Function::RootPort(port)) => ports[port].read(offset, width),
            Some(Function::Device(face)) => {
                drop(ports);
                face.config_read(offset, width)
            }
            None => u32::MAX,
        };
        match width {
            1 => value & 0xff,
            2 => value & 0xffff,
            _ => value,
        }
    }

    /// What the guest writes to a function's configuration space.
    pub fn config_write(&self, bus: u8, device: u8, function: u8, offset: u16, width: u8, value: u32) {
        let mut ports = self.ports();
        match self.function(&ports, bus, device, function) {
            Some(Function::RootPort(port)) => {
                ports[port].write(offset, width, value);
            }
            Some(Function::Device(face)) => {
                // The write can tell the device's actors something: not with the ports locked.
                drop(ports);
                face.config_write(offset, width, value);
            }
            Some(Function::HostBridge) | None => {}
        }
    }

    /// Fills `to` from `hpa` on.
    pub fn read(&self, hpa: Hpa, to: &mut [u8]) {
        let mut done = 0;
        while let Some(left) = to.get_mut(done..).filter(|left| !left.is_empty()) {
            let Some(at) = hpa.checked_add(done as u64) else { return left.fill(0xff) };
            let (claim, len) = self.claim(at, left.len());
            let part = &mut left[..len];
            match claim {
                Claim::Ram { offset_bytes } => {
                    if self.ram.read(offset_bytes, part).is_err() {
                        part.fill(0xff);
                    }
                }
                Claim::Window => self.window.read(at, part),
                Claim::Bar { face, bar, offset } => face.mmio_read(bar, offset, part),
                Claim::Nobody => part.fill(0xff),
            }
            done += len;
        }
    }

    /// Puts `from` at `hpa`.
    pub fn write(&self, hpa: Hpa, from: &[u8]) {
        let mut done = 0;
        while let Some(left) = from.get(done..).filter(|left| !left.is_empty()) {
            let Some(at) = hpa.checked_add(done as u64) else { return };
            let (claim, len) = self.claim(at, left.len());
            let part = &left[..len];
            match claim {
                // The map has as much RAM as there is, so this cannot be out of range.
                Claim::Ram { offset_bytes } => drop(self.ram.write(offset_bytes, part)),
                Claim::Window => self.window.write(at, part),
                Claim::Bar { face, bar, offset } => face.mmio_write(bar, offset, part),
                Claim::Nobody => {}
            }
            done += len;
        }
    }

    /// The epoch of all devices' publications now; take it before looking at a register that is waited for.
    pub fn epoch(&self) -> Epoch {
        self.publications.epoch()
    }

    /// Waits until a device published something after `seen`, or `timeout` is over.
    pub fn wait(&self, seen: Epoch, timeout: Duration) -> Epoch {
        self.publications.wait(seen, timeout)
    }

    /// Puts the root ports into their power-on state. The devices are reset by their actors.
    pub fn reset(&self) {
        self.ports().iter_mut().for_each(RootPort::reset);
    }

    /// What answers at `at`, and for how many of `left` bytes, at least one.
    fn claim(&self, at: Hpa, left: usize) -> (Claim<'_>, usize) {
        let bounded = |len_bytes: u64| usize::try_from(len_bytes).unwrap_or(left).min(left);
        if let Some((offset_bytes, len_bytes)) = self.map.ram_offset(at) {
            return (Claim::Ram { offset_bytes }, bounded(len_bytes));
        }
        let into_window = at.bytes_from(self.window.base());
        let in_window = into_window.and_then(|into| self.window.size_bytes().checked_sub(into));
        if let Some(len_bytes) = in_window.filter(|len_bytes| *len_bytes > 0) {
            return (Claim::Window, bounded(len_bytes));
        }
        let bars = self.active_bars();
        let next_window = self.window.base().bytes_from(at).filter(|bytes| *bytes > 0);
        let next_bars = bars.iter().filter_map(|bar| bar.base.bytes_from(at)).filter(|bytes| *bytes > 0);
        let next_claims = next_window.into_iter().chain(self.map.bytes_to_high_ram(at)).chain(next_bars);
        let len_bytes = next_claims.fold(left as u64, u64::min);
        for ActiveBar { face, bar, base, len_bytes: bar_len_bytes } in bars {
            if let Some(offset) = at.bytes_from(base).filter(|offset| *offset < bar_len_bytes) {
                return (Claim::Bar { face, bar, offset }, bounded(len_bytes.min(bar_len_bytes - offset)));
            }
        }
        (Claim::Nobody, bounded(len_bytes))
    }

    /// The BARs that answer and that their port forwards, in the order of the devices.
    fn active_bars(&self) -> Vec<ActiveBar<'_>> {
        let ports = self.ports();
        let mut active = Vec::new();
        for (port, face) in ports.iter().zip(&self.faces) {
            for bar in BarIndex::ALL {
                let Some((base, len_bytes)) = face.bar(bar) else { continue };
                if port.forwards(base, len_bytes) {
                    active.push(ActiveBar { face, bar, base, len_bytes });
                }
            }
        }
        active
    }

    fn function(&self, ports: &[RootPort], bus: u8, device: u8, function: u8) -> Option<Function<'_>> {
        match (bus, device, function) {
            (HOST_BRIDGE_BUS, 0, 0) => Some(Function::HostBridge),
            (HOST_BRIDGE_BUS, _, _) => None,
            (ROOT_PORT_BUS, port, 0) => {
                let port = usize::from(port);
                (port < ports.len()).then_some(Function::RootPort(port))
            }
            (ROOT_PORT_BUS, _, _) => None,
            (bus, 0, 0) => {
                let port = ports.iter().position(|port| port.secondary_bus() == Some(bus))?;
                self.faces.get(port).map(|face| Function::Device(face))
            }
            _ => None,
        }
    }

    fn ports(&self) -> MutexGuard<'_, Vec<RootPort>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
