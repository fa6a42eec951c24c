//! Configuration space of what stands above the devices: the host bridge and the root ports.
//!
//! ```text
//!  00:00.0 HostBridge, whose register 60h (PCIEXBAR) opens configuration space by memory
//!  0C:00.0, 0C:01.0 ... RootPort, each with a slot, whose device is on its secondary bus
//! ```
//!
//! Deliberately absent: interrupts of a slot (its status is polled), error reporting, IO windows, and the secondary bus
//! reset (its bit is storage).

use std::collections::BTreeMap;

use device::config_space::{ConfigLayout, ConfigWrite, WrittenRegisters};
use wire::Hpa;
use wire::component::COMPONENT_BLOCK_LEN_BYTES;
use wire::config_space as pci;

use crate::address_map::ECAM_BASE;
use crate::config_access::lanes;
use crate::port_dvsecs;

/// The host bridge of bus 0. Its ids and PCIEXBAR are those of QEMU's q35 machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostBridge {
    written: WrittenRegisters,
    ecam: Option<Ecam>,
}

/// Where configuration space is reached by memory (PCI Express base 7.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ecam {
    pub(crate) base: Hpa,
    pub(crate) len_bytes: u64,
}

/// Base 63:26, length 2:1 (256, 128, 64 MiB), enable 0; the base is a multiple of the length.
const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_HIGH: u16 = PCIEXBAR + 4;
/// Not enabled, 256 MiB.
const PCIEXBAR_POWER_ON: u32 = ECAM_BASE.0 as u32;

impl HostBridge {
    /// The bridge with registers that a host has written.
    ///
    /// # Errors
    ///
    /// No host can have written them so.
    pub(crate) fn of(dwords: BTreeMap<u16, u32>) -> Result<Self, String> {
        let mut bridge = Self { written: WrittenRegisters::from_dwords(&HostBridgeIdentity, dwords)?, ecam: None };
        bridge.ecam = bridge.programmed_ecam();
        Ok(bridge)
    }

    /// The registers that a host has written.
    pub(crate) fn written(&self) -> &WrittenRegisters {
        // ECAM is where they say.
        let Self { written, ecam: _ } = self;
        written
    }

    /// What a host reads.
    pub(crate) fn read(&self, offset: u16, width: u8) -> u32 {
        self.written.read(&HostBridgeIdentity, offset, width)
    }

    /// What a host writes.
    pub(crate) fn write(&mut self, offset: u16, width: u8, value: u32) {
        if self.written.write(&HostBridgeIdentity, offset, width, value) == ConfigWrite::Changed {
            self.ecam = self.programmed_ecam();
        }
    }

    /// Puts all registers into their power-on state.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
    }

    /// Configuration space by memory, if it is on.
    pub(crate) fn ecam(&self) -> Option<Ecam> {
        self.ecam
    }

    fn programmed_ecam(&self) -> Option<Ecam> {
        let low = self.read(PCIEXBAR, 4);
        let len_bytes = match low >> 1 & 0b11 {
            0 => 256 << 20,
            1 => 128 << 20,
            2 => 64 << 20,
            _ => return None,
        };
        let base = u64::from(self.read(PCIEXBAR_HIGH, 4)) << 32 | u64::from(low);
        (low & 1 != 0).then_some(Ecam { base: Hpa(base & !(len_bytes - 1)), len_bytes })
    }
}

struct HostBridgeIdentity;

impl ConfigLayout for HostBridgeIdentity {
    fn power_on(&self, offset: u16) -> u32 {
        match offset {
            pci::VENDOR_ID => 0x29c0_8086,
            pci::REVISION_ID => u32::from(pci::CLASS_HOST_BRIDGE) << 16,
            PCIEXBAR => PCIEXBAR_POWER_ON,
            _ => 0,
        }
    }

    fn write_mask(&self, offset: u16) -> u32 {
        match offset {
            PCIEXBAR => 0xfc00_0007,
            PCIEXBAR_HIGH => 0xf,
            _ => 0,
        }
    }
}

/// A root port: a bridge between the root bus and the bus of one device. Its ids are those of QEMU's CXL root port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootPort {
    identity: PortIdentity,
    written: WrittenRegisters,
    presence: Presence,
    /// Changes of the slot that the host has not yet cleared: bits of the slot status.
    changes: u16,
    forwarding: Forwarding,
}

/// Whether there is a device in the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    Empty,
    Plugged,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PortIdentity {
    port: u8,
}

/// What the registers say about accesses that the port sees; worked out when they change, because every access asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Forwarding {
    secondary_bus: Option<u8>,
    /// First and last address of the two windows, while memory space is on; empty where the first is above the last.
    windows: Option<[(u64, u64); 2]>,
    /// Where the port's own component registers answer.
    component: Option<Hpa>,
}

/// BAR of a root port's component registers (CXL r4.0 8.2.3).
pub(crate) const COMPONENT_BAR: u8 = 0;

const PCI_EXPRESS: u16 = 0x40;
/// Dword of the cache line size, and of the header type.
const CACHE_LINE: u16 = 0x0c;
/// Link of 32 GT/s and 16 lanes, as the device has it.
const LINK_SPEED_AND_WIDTH: u32 = 0x105;
/// Port number in the link capabilities (PCI Express base 7.5.3.6, bits 31:24).
const LINK_PORT_NUMBER_SHIFT: u32 = 24;
/// Link capabilities: the link status tells whether the data link is active.
const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
/// Link status: the data link is active.
const LINK_ACTIVE: u16 = 1 << 13;
/// Slot capabilities: devices come and go while the machine runs, and without asking (PCI Express base 7.5.3.9).
const SLOT_HOT_PLUG: u32 = 0x60;
/// Slot number in the slot capabilities.
const SLOT_NUMBER_SHIFT: u32 = 19;
/// Slot status: presence has changed; a host clears it by writing it.
const PRESENCE_CHANGED: u16 = 1 << 3;
/// Slot status: there is a device.
const PRESENCE: u16 = 1 << 6;
/// Slot status: the state of the data link has changed; a host clears it by writing it.
const LINK_CHANGED: u16 = 1 << 8;

/// What a root port is made of; the rest follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RootPortParts {
    pub(crate) written: BTreeMap<u16, u32>,
    pub(crate) presence: Presence,
    pub(crate) changes: u16,
}

impl RootPort {
    /// The port with this number, as its parts say.
    ///
    /// # Errors
    ///
    /// No host and no slot can have made them so.
    pub(crate) fn of(port: u8, parts: RootPortParts) -> Result<Self, String> {
        let RootPortParts { written, presence, changes } = parts;
        if changes & !(PRESENCE_CHANGED | LINK_CHANGED) != 0 {
            return Err(format!("a slot has no changes {changes:#06x}"));
        }
        let identity = PortIdentity { port };
        let written = WrittenRegisters::from_dwords(&identity, written)?;
        let mut port = Self { identity, written, presence, changes, forwarding: Forwarding::default() };
        port.forwarding = port.programmed();
        Ok(port)
    }

    /// What the port is made of.
    pub(crate) fn parts(&self) -> RootPortParts {
        // Its number is its place, and what it forwards follows from what was written.
        let Self { identity: _, written, presence, changes, forwarding: _ } = self;
        RootPortParts { written: written.dwords().clone(), presence: *presence, changes: *changes }
    }

    /// Whether there is a device in the slot.
    pub(crate) fn presence(&self) -> Presence {
        self.presence
    }

    /// The port with this number, at power-on, its slot empty.
    pub(crate) fn new(port: u8) -> Self {
        Self {
            identity: PortIdentity { port },
            written: WrittenRegisters::default(),
            presence: Presence::Empty,
            changes: 0,
            forwarding: Forwarding::default(),
        }
    }

    /// What a host reads.
    pub(crate) fn read(&self, offset: u16, width: u8) -> u32 {
        let value = self.written.read(&self.identity, offset, width);
        // Bits that no host writes and that the layout has as zero.
        let live = u32::from(self.live(offset & !3)) << 16;
        value | live >> (8 * (offset & 3)) & lanes(width)
    }

    /// What a host writes.
    pub(crate) fn write(&mut self, offset: u16, width: u8, value: u32) {
        if let Some(cleared) = slot_status_part(offset, width, value) {
            self.changes &= !cleared;
        }
        if self.written.write(&self.identity, offset, width, value) == ConfigWrite::Changed {
            self.forwarding = self.programmed();
        }
    }

    /// Puts all registers into their power-on state; what is in the slot stays there.
    pub(crate) fn reset(&mut self) {
        *self = Self { presence: self.presence, ..Self::new(self.identity.port) };
    }

    /// A device came, or went.
    pub(crate) fn set_presence(&mut self, presence: Presence) {
        if presence != self.presence {
            self.presence = presence;
            self.changes |= PRESENCE_CHANGED | LINK_CHANGED;
        }
    }

    /// The bus below, or `None` while it has no number.
    pub(crate) fn secondary_bus(&self) -> Option<u8> {
        self.forwarding.secondary_bus
    }

    /// Whether the port forwards a whole range to the bus below: memory space is on, and one of the two windows holds
    /// it.
    pub(crate) fn forwards(&self, hpa: Hpa, len_bytes: u64) -> bool {
        let Some(last) = len_bytes.checked_sub(1).and_then(|len| hpa.checked_add(len)) else { return false };
        self.windows().any(|(start, end)| start <= hpa.0 && last.0 <= end)
    }

    /// Whether a window has an address from `first` to `last`.
    pub(crate) fn touches(&self, first: Hpa, last: Hpa) -> bool {
        self.windows().any(|(start, end)| start <= end && start <= last.0 && first.0 <= end)
    }

    /// Where the port's own component registers answer.
    pub(crate) fn component_bar(&self) -> Option<Hpa> {
        self.forwarding.component
    }

    fn windows(&self) -> impl Iterator<Item = (u64, u64)> {
        self.forwarding.windows.into_iter().flatten()
    }

    /// The upper half of a dword, as far as the slot decides it.
    fn live(&self, dword: u16) -> u16 {
        let is_plugged = self.presence == Presence::Plugged;
        match dword {
            LINK_CONTROL if is_plugged => LINK_ACTIVE,
            SLOT_CONTROL if is_plugged => PRESENCE | self.changes,
            SLOT_CONTROL => self.changes,
            _ => 0,
        }
    }

    fn programmed(&self) -> Forwarding {
        let bus = self.read(pci::SECONDARY_BUS, 1) as u8;
        let is_numbered = bus != 0 && bus <= self.read(pci::SUBORDINATE_BUS, 1) as u8;
        let has_memory = pci::Command::from(self.read(pci::COMMAND, 2) as u16).memory_space();
        let component = u64::from(self.read(COMPONENT_BAR_HIGH, 4)) << 32 | u64::from(self.read(pci::BAR_0, 4) & !0xf);
        let fits = component.checked_add(COMPONENT_BLOCK_LEN_BYTES as u64).is_some();
        Forwarding {
            secondary_bus: is_numbered.then_some(bus),
            windows: has_memory.then(|| [self.memory_window(), self.prefetchable_window()]),
            component: (has_memory && component != 0 && fits).then_some(Hpa(component)),
        }
    }

    /// First and last address; empty where the first is above the last.
    fn memory_window(&self) -> (u64, u64) {
        (self.window_edge(pci::MEMORY_BASE), self.window_edge(pci::MEMORY_LIMIT) | WINDOW_GRANULE_MASK)
    }

    fn prefetchable_window(&self) -> (u64, u64) {
        let upper = |offset| u64::from(self.read(offset, 4)) << 32;
        (
            upper(pci::PREFETCHABLE_BASE_UPPER) | self.window_edge(pci::PREFETCHABLE_BASE),
            upper(pci::PREFETCHABLE_LIMIT_UPPER) | self.window_edge(pci::PREFETCHABLE_LIMIT) | WINDOW_GRANULE_MASK,
        )
    }

    /// Address bits 31:20 are in bits 15:4 of a window register.
    fn window_edge(&self, offset: u16) -> u64 {
        u64::from(self.read(offset, 2) & 0xfff0) << 16
    }
}

/// The bits that a write has for the slot status.
fn slot_status_part(offset: u16, width: u8, value: u32) -> Option<u16> {
    match (offset, width) {
        (SLOT_CONTROL, 4) => Some((value >> 16) as u16),
        (SLOT_STATUS, 2) => Some(value as u16),
        (SLOT_STATUS, 1) => Some(value as u16 & 0xff),
        (SLOT_STATUS_HIGH, 1) => Some((value as u16) << 8),
        _ => None,
    }
}

const WINDOW_GRANULE_MASK: u64 = pci::BRIDGE_WINDOW_GRANULE_BYTES - 1;

impl ConfigLayout for PortIdentity {
    fn power_on(&self, offset: u16) -> u32 {
        match offset {
            pci::VENDOR_ID => 0x7075_8086,
            pci::COMMAND => u32::from(u16::from(pci::Status::new().with_capabilities_list(true))) << 16,
            pci::REVISION_ID => u32::from(pci::CLASS_PCI_BRIDGE) << 16,
            CACHE_LINE => u32::from(pci::HEADER_TYPE_BRIDGE) << 16,
            pci::BAR_0 => pci::MemoryBar::new().with_kind(pci::BAR_KIND_64_BIT).into(),
            // A base above the limit closes a window.
            pci::MEMORY_BASE => 0x0000_fff0,
            // Bit 0 of both: the window has addresses of 64 bits.
            pci::PREFETCHABLE_BASE => 0x0001_fff1,
            pci::CAPABILITY_POINTER => u32::from(PCI_EXPRESS),
            PCI_EXPRESS..PCI_EXPRESS_END => self.pci_express(offset - PCI_EXPRESS),
            _ => port_dvsecs::power_on(offset),
        }
    }

    fn write_mask(&self, offset: u16) -> u32 {
        match offset {
            pci::COMMAND => {
                let command = pci::Command::new().with_memory_space(true).with_bus_master(true);
                let command = command.with_parity_error_response(true).with_serr(true).with_interrupt_disable(true);
                u32::from(u16::from(command))
            }
            CACHE_LINE => 0xff,
            pci::BAR_0 => !(COMPONENT_BLOCK_LEN_BYTES as u32 - 1),
            COMPONENT_BAR_HIGH => u32::MAX,
            pci::PRIMARY_BUS => 0x00ff_ffff,
            pci::MEMORY_BASE | pci::PREFETCHABLE_BASE => 0xfff0_fff0,
            pci::PREFETCHABLE_BASE_UPPER | pci::PREFETCHABLE_LIMIT_UPPER => u32::MAX,
            // Interrupt line, and of bridge control: parity, system errors, secondary bus reset.
            pci::INTERRUPT_LINE => 0x0043_00ff,
            DEVICE_CONTROL => 0x78ff,
            LINK_CONTROL => 0x00cb,
            // Enables of interrupts that never come, indicators and power: storage.
            SLOT_CONTROL => 0x1fff,
            _ => port_dvsecs::write_mask(offset),
        }
    }
}

const PCI_EXPRESS_END: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_LEN_BYTES as u16;
const DEVICE_CONTROL: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_DEVICE_CONTROL;
const LINK_CONTROL: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_LINK_CONTROL;
const SLOT_CONTROL: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_SLOT_CONTROL;
const SLOT_STATUS: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_SLOT_STATUS;
const SLOT_STATUS_HIGH: u16 = SLOT_STATUS + 1;
const COMPONENT_BAR_HIGH: u16 = pci::BAR_0 + 4;

impl PortIdentity {
    fn pci_express(self, offset: u16) -> u32 {
        match offset {
            0 => {
                let port = pci::PciExpressCapabilities::new()
                    .with_version(2)
                    .with_device_port_type(pci::PCI_EXPRESS_ROOT_PORT)
                    .with_slot_implemented(true);
                u32::from(u16::from(port)) << 16 | u32::from(pci::CAPABILITY_PCI_EXPRESS)
            }
            // Role-based error reporting, which every port since 1.1 has.
            pci::PCI_EXPRESS_DEVICE_CAPABILITIES => 1 << 15,
            pci::PCI_EXPRESS_LINK_CAPABILITIES => {
                u32::from(self.port) << LINK_PORT_NUMBER_SHIFT | LINK_ACTIVE_REPORTING | LINK_SPEED_AND_WIDTH
            }
            // Slots are counted from 1.
            pci::PCI_EXPRESS_SLOT_CAPABILITIES => (u32::from(self.port) + 1) << SLOT_NUMBER_SHIFT | SLOT_HOT_PLUG,
            pci::PCI_EXPRESS_LINK_CONTROL => LINK_SPEED_AND_WIDTH << 16,
            pci::PCI_EXPRESS_LINK_CAPABILITIES_2 => 0x3e,
            pci::PCI_EXPRESS_LINK_CONTROL_2 => LINK_SPEED_AND_WIDTH & 0xf,
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_say_what_they_are() {
        assert_eq!(HostBridge::default().read(0x08, 4) >> 16, 0x0600);
        let port = RootPort::new(3);
        assert_eq!(port.read(0x08, 4) >> 8, 0x06_0400);
        assert_eq!(port.read(0x0e, 1), 1);
        assert_eq!(port.read(0x40, 4), 0x0142_0010);
        assert_eq!(port.read(0x108, 4), 3);
        assert_eq!(port.read(0x4c, 4) >> 24, 3);
    }

    #[test]
    fn windows_are_closed_until_they_are_programmed() {
        let mut port = RootPort::new(0);
        port.write(0x04, 2, 0xffff);
        assert!(!port.forwards(Hpa(0), 1));
        assert!(!port.forwards(Hpa(0xfff0_0000), 1));
        port.write(0x20, 4, 0xc010_c000);
        assert!(port.forwards(Hpa(0xc000_0000), 0x20_0000));
        assert!(!port.forwards(Hpa(0xc000_0000), 0x20_0001));
        assert!(!port.forwards(Hpa(0xbfff_ffff), 1));
        assert!(!port.forwards(Hpa(0xc000_0000), 0));
        assert!(!port.forwards(Hpa(u64::MAX), 2));
        port.write(0x28, 4, 1);
        port.write(0x2c, 4, 1);
        port.write(0x24, 4, 0x0000_0000);
        assert_eq!(port.read(0x24, 4), 0x0001_0001);
        assert!(port.forwards(Hpa(1 << 32), 1 << 20));
        port.write(0x04, 2, 0);
        assert!(!port.forwards(Hpa(1 << 32), 1 << 20));
    }

    #[test]
    fn the_slot_says_what_is_in_it() {
        let mut port = RootPort::new(1);
        assert_eq!((port.read(0x54, 4), port.read(0x58, 4), port.read(0x52, 2)), (0x10_0060, 0, 0x105));
        port.write(0x50, 2, 0x40);
        port.set_presence(Presence::Plugged);
        assert_eq!((port.read(0x58, 4), port.read(0x5a, 2), port.read(0x52, 2)), (0x148_0000, 0x148, 0x2105));
        assert_eq!((port.read(0x5a, 1), port.read(0x5b, 1), port.read(0x50, 4)), (0x48, 1, 0x2105_0040));
        port.write(0x5a, 2, 8);
        assert_eq!(port.read(0x5a, 2), 0x140);
        port.write(0x5b, 1, 1);
        assert_eq!(port.read(0x5a, 2), 0x40);
        port.write(0x58, 4, 0xffff_0010);
        assert_eq!(port.read(0x58, 4), 0x40_0010);
        port.set_presence(Presence::Empty);
        assert_eq!((port.read(0x5a, 2), port.read(0x52, 2)), (0x108, 0x105));
        port.set_presence(Presence::Plugged);
        port.reset();
        assert_eq!(port.read(0x58, 4), 0x40_0000, "what is in the slot stays there");
        assert_eq!(port.read(0x5a, 3), u32::MAX, "no bus makes such an access");
    }

    #[test]
    fn pciexbar_opens_configuration_space_by_memory() {
        let mut bridge = HostBridge::default();
        assert_eq!((bridge.read(0x60, 4), bridge.ecam()), (0xb000_0000, None));
        bridge.write(0x60, 4, 0xb000_0001);
        assert_eq!(bridge.ecam(), Some(Ecam { base: Hpa(0xb000_0000), len_bytes: 256 << 20 }));
        bridge.write(0x60, 4, 0xec00_0005);
        assert_eq!(bridge.ecam(), Some(Ecam { base: Hpa(0xec00_0000), len_bytes: 64 << 20 }));
        bridge.write(0x60, 1, 3);
        bridge.write(0x64, 4, u32::MAX);
        assert_eq!(bridge.ecam(), Some(Ecam { base: Hpa(0xf_e800_0000), len_bytes: 128 << 20 }));
        bridge.write(0x60, 1, 7);
        assert_eq!(bridge.ecam(), None, "a reserved length");
        bridge.reset();
        assert_eq!((bridge.read(0x60, 4), bridge.read(0x64, 4)), (0xb000_0000, 0));
    }

    #[test]
    fn the_secondary_bus_counts_when_it_is_numbered() {
        let mut port = RootPort::new(0);
        assert_eq!(port.secondary_bus(), None);
        port.write(0x18, 4, 0xff0d_0d0c);
        assert_eq!(port.secondary_bus(), Some(0x0d));
        assert_eq!(port.read(0x1b, 1), 0);
        port.write(0x1a, 1, 0x0c);
        assert_eq!(port.secondary_bus(), None);
    }
}
