//! Configuration space of what stands above the devices: the host bridge and the root ports.
//!
//! ```text
//!  00:00.0 HostBridge        0C:00.0, 0C:01.0 ... RootPort, one for each device, which is on its secondary bus
//! ```
//!
//! Deliberately absent: CXL DVSECs and component registers of ports, hot plug, error reporting, IO windows, and the
//! secondary bus reset (its bit is storage).

use device::config_space::{ConfigLayout, ConfigWrite, WrittenRegisters};
use wire::Hpa;
use wire::config_space as pci;

/// The host bridge of bus 0: a function that only says what it is. Its ids are those of QEMU's q35 machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostBridge;

impl HostBridge {
    /// What a host reads.
    pub fn read(&self, offset: u16, width: u8) -> u32 {
        WrittenRegisters::default().read(self, offset, width)
    }
}

impl ConfigLayout for HostBridge {
    fn power_on(&self, offset: u16) -> u32 {
        match offset {
            pci::VENDOR_ID => 0x29c0_8086,
            pci::REVISION_ID => u32::from(pci::CLASS_HOST_BRIDGE) << 16,
            _ => 0,
        }
    }

    fn write_mask(&self, _: u16) -> u32 {
        0
    }
}

/// A root port: a bridge between the root bus and the bus of one device. Its ids are those of QEMU's CXL root port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootPort {
    identity: PortIdentity,
    written: WrittenRegisters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PortIdentity {
    port: u8,
}

const PCI_EXPRESS: u16 = 0x40;
/// Dword of the cache line size, and of the header type.
const CACHE_LINE: u16 = 0x0c;
/// Link of 32 GT/s and 16 lanes, as the device has it.
const LINK_SPEED_AND_WIDTH: u32 = 0x105;
/// Port number in the link capabilities (PCI Express base 7.5.3.6, bits 31:24).
const LINK_PORT_NUMBER_SHIFT: u32 = 24;

impl RootPort {
    /// The port with this number, at power-on.
    pub fn new(port: u8) -> Self {
        Self { identity: PortIdentity { port }, written: WrittenRegisters::default() }
    }

    /// What a host reads.
    pub fn read(&self, offset: u16, width: u8) -> u32 {
        self.written.read(&self.identity, offset, width)
    }

    /// What a host writes.
    pub fn write(&mut self, offset: u16, width: u8, value: u32) -> ConfigWrite {
        self.written.write(&self.identity, offset, width, value)
    }

    /// Puts all registers into their power-on state.
    pub fn reset(&mut self) {
        self.written.reset();
    }

    /// The bus below, or `None` while it has no number.
    pub fn secondary_bus(&self) -> Option<u8> {
        let bus = self.read(pci::SECONDARY_BUS, 1) as u8;
        (bus != 0 && bus <= self.read(pci::SUBORDINATE_BUS, 1) as u8).then_some(bus)
    }

    /// Whether the port forwards a whole range to the bus below: memory space is on, and one of the two windows holds
    /// it.
    pub fn forwards(&self, hpa: Hpa, len_bytes: u64) -> bool {
        let Some(last) = len_bytes.checked_sub(1).and_then(|len| hpa.checked_add(len)) else { return false };
        let is_on = pci::Command::from(self.read(pci::COMMAND, 2) as u16).memory_space();
        let holds = |(start, end): (u64, u64)| start <= hpa.0 && last.0 <= end;
        is_on && (holds(self.memory_window()) || holds(self.prefetchable_window()))
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

const WINDOW_GRANULE_MASK: u64 = pci::BRIDGE_WINDOW_GRANULE_BYTES - 1;

impl ConfigLayout for PortIdentity {
    fn power_on(&self, offset: u16) -> u32 {
        match offset {
            pci::VENDOR_ID => 0x7075_8086,
            pci::COMMAND => u32::from(u16::from(pci::Status::new().with_capabilities_list(true))) << 16,
            pci::REVISION_ID => u32::from(pci::CLASS_PCI_BRIDGE) << 16,
            CACHE_LINE => u32::from(pci::HEADER_TYPE_BRIDGE) << 16,
            // A base above the limit closes a window.
            pci::MEMORY_BASE => 0x0000_fff0,
            // Bit 0 of both: the window has addresses of 64 bits.
            pci::PREFETCHABLE_BASE => 0x0001_fff1,
            pci::CAPABILITY_POINTER => u32::from(PCI_EXPRESS),
            PCI_EXPRESS..PCI_EXPRESS_END => self.pci_express(offset - PCI_EXPRESS),
            _ => 0,
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
            pci::PRIMARY_BUS => 0x00ff_ffff,
            pci::MEMORY_BASE | pci::PREFETCHABLE_BASE => 0xfff0_fff0,
            pci::PREFETCHABLE_BASE_UPPER | pci::PREFETCHABLE_LIMIT_UPPER => u32::MAX,
            // Interrupt line, and of bridge control: parity, system errors, secondary bus reset.
            pci::INTERRUPT_LINE => 0x0043_00ff,
            DEVICE_CONTROL => 0x78ff,
            LINK_CONTROL => 0x00cb,
            _ => 0,
        }
    }
}

const PCI_EXPRESS_END: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_LEN_BYTES as u16;
const DEVICE_CONTROL: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_DEVICE_CONTROL;
const LINK_CONTROL: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_LINK_CONTROL;

impl PortIdentity {
    fn pci_express(self, offset: u16) -> u32 {
        match offset {
            0 => {
                let port = pci::PciExpressCapabilities::new()
                    .with_version(2)
                    .with_device_port_type(pci::PCI_EXPRESS_ROOT_PORT);
                u32::from(u16::from(port)) << 16 | u32::from(pci::CAPABILITY_PCI_EXPRESS)
            }
            // Role-based error reporting, which every port since 1.1 has.
            pci::PCI_EXPRESS_DEVICE_CAPABILITIES => 1 << 15,
            pci::PCI_EXPRESS_LINK_CAPABILITIES => u32::from(self.port) << LINK_PORT_NUMBER_SHIFT | LINK_SPEED_AND_WIDTH,
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
        assert_eq!(HostBridge.read(0x08, 4) >> 16, 0x0600);
        let port = RootPort::new(3);
        assert_eq!(port.read(0x08, 4) >> 8, 0x06_0400);
        assert_eq!(port.read(0x0e, 1), 1);
        assert_eq!(port.read(0x40, 4), 0x0042_0010);
        assert_eq!(port.read(0x4c, 4) >> 24, 3);
    }

    #[test]
    fn windows_are_closed_until_they_are_programmed() {
        let mut port = RootPort::new(0);
        let _ = port.write(0x04, 2, 0xffff);
        assert!(!port.forwards(Hpa(0), 1));
        assert!(!port.forwards(Hpa(0xfff0_0000), 1));
        let _ = port.write(0x20, 4, 0xc010_c000);
        assert!(port.forwards(Hpa(0xc000_0000), 0x20_0000));
        assert!(!port.forwards(Hpa(0xc000_0000), 0x20_0001));
        assert!(!port.forwards(Hpa(0xbfff_ffff), 1));
        assert!(!port.forwards(Hpa(0xc000_0000), 0));
        assert!(!port.forwards(Hpa(u64::MAX), 2));
        let _ = port.write(0x28, 4, 1);
        let _ = port.write(0x2c, 4, 1);
        let _ = port.write(0x24, 4, 0x0000_0000);
        assert_eq!(port.read(0x24, 4), 0x0001_0001);
        assert!(port.forwards(Hpa(1 << 32), 1 << 20));
        let _ = port.write(0x04, 2, 0);
        assert!(!port.forwards(Hpa(1 << 32), 1 << 20));
    }

    #[test]
    fn the_secondary_bus_counts_when_it_is_numbered() {
        let mut port = RootPort::new(0);
        assert_eq!(port.secondary_bus(), None);
        let _ = port.write(0x18, 4, 0xff0d_0d0c);
        assert_eq!(port.secondary_bus(), Some(0x0d));
        assert_eq!(port.read(0x1b, 1), 0);
        let _ = port.write(0x1a, 1, 0x0c);
        assert_eq!(port.secondary_bus(), None);
    }
}
