//! Configuration space of the device: an endpoint with the DVSECs of a CXL memory device.
//!
//! ```text
//! 000 header, BARs: 0 component registers, 2 device registers, 4 MSI-X
//! 080 PCI Express        0C0 MSI-X
//! 100 serial number      10C DVSEC 0 device    148 DVSEC 5 GPF    158 DVSEC 7 flex bus port    178 DVSEC 8 locator
//! ```
//!
//! What the standard fixes is computed; only what was written is kept, so that a copy is cheap and two equal spaces
//! compare equal. Deliberately absent: DOE, AER, function level reset (not offered), and what a write causes elsewhere.

use std::collections::BTreeMap;

use serde::Serialize;
use wire::Hpa;
use wire::config_space as pci;
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use crate::mailbox::{MSIX_TABLE_BYTES, MSIX_VECTORS};

/// Vendor of the function; with [`DEVICE`] the pair that QEMU's CXL memory device shows.
pub const VENDOR: u16 = 0x8086;
/// Device id of the function.
pub const DEVICE: u16 = 0x0d93;

/// BAR of the component registers (CXL r4.0 8.2.3).
pub const COMPONENT_BAR: u8 = 0;
/// BAR of the device registers (CXL r4.0 8.2.9).
pub const DEVICE_BAR: u8 = 2;
/// BAR of the MSI-X table and its pending bits.
pub const MSIX_BAR: u8 = 4;

/// Length of the MSI-X BAR in bytes.
pub const MSIX_BAR_LEN_BYTES: u64 = 0x1000;
/// Offset of the MSI-X table in its BAR.
pub const MSIX_TABLE_OFFSET: u32 = 0;
/// Offset of the pending bits in the MSI-X BAR.
pub const MSIX_PENDING_OFFSET: u32 = 0x800;

/// Offset of the mailbox payload area in the device registers: a page of its own, so that it can be plain memory.
pub const PAYLOAD_OFFSET: u64 = 0x1000;
/// Smallest BAR of a register block in bytes: blocks begin at multiples of 64 KiB (CXL r4.0 8.1.9.1).
const REGISTER_BAR_LEN_BYTES_MIN: u64 = 0x1_0000;

const PCI_EXPRESS: u16 = 0x80;
const MSIX: u16 = 0xc0;
const SERIAL_NUMBER: u16 = pci::EXTENDED_CAPABILITIES;
const DVSEC_DEVICE: u16 = 0x10c;
const DVSEC_GPF: u16 = 0x148;
const DVSEC_FLEX_BUS: u16 = 0x158;
const DVSEC_LOCATOR: u16 = 0x178;
const DVSEC_LOCATOR_END: u16 = 0x19c;
/// Slots of the register locator: two used, one empty, as QEMU has it.
const LOCATOR_SLOTS: u16 = 3;
/// Link of 32 GT/s and 16 lanes, the least that CXL 2.0 hosts expect (PCI Express base, link capabilities 9:0).
const LINK_SPEED_AND_WIDTH: u32 = 0x105;
/// Bit 0 of the DVSEC lock register: control and range bases are read only until reset (CXL r4.0 8.1.3.7).
const DVSEC_LOCK: u32 = 1;
/// Bytes from a range's size to its base in DVSEC 0.
const RANGE_BASE: u16 = 8;

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigWrite {
    /// Nothing: read only, the value that was there, or an access that no bus makes.
    Ignored,
    /// A register has a new value.
    Changed,
}

/// What the registers of a function are at power-on and which of their bits a host can write, a dword at a time.
pub trait ConfigLayout {
    /// The dword at `offset`, a multiple of 4, at power-on.
    fn power_on(&self, offset: u16) -> u32;
    /// The bits of the dword at `offset`, a multiple of 4, that a host can write.
    fn write_mask(&self, offset: u16) -> u32;
}

/// The registers of a function that a host has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct WrittenRegisters {
    /// Dwords that differ from power-on in a writable bit, by offset.
    dwords: BTreeMap<u16, u32>,
}

impl WrittenRegisters {
    /// The dword at `offset`, a multiple of 4.
    pub fn dword(&self, layout: &impl ConfigLayout, offset: u16) -> u32 {
        self.dwords.get(&offset).copied().unwrap_or_else(|| layout.power_on(offset))
    }

    /// What a host reads. An access that no bus makes (a width other than 1, 2 and 4, an odd alignment, one past the
    /// end) gives all ones.
    pub fn read(&self, layout: &impl ConfigLayout, offset: u16, width: u8) -> u32 {
        match Lanes::of(offset, width) {
            Some(lanes) => self.dword(layout, lanes.dword) >> lanes.shift & lanes.ones(),
            None => u32::MAX,
        }
    }

    /// What a host writes; an access that no bus makes changes nothing.
    pub fn write(&mut self, layout: &impl ConfigLayout, offset: u16, width: u8, value: u32) -> ConfigWrite {
        let Some(lanes) = Lanes::of(offset, width) else { return ConfigWrite::Ignored };
        let mask = layout.write_mask(lanes.dword) & lanes.ones() << lanes.shift;
        let old = self.dword(layout, lanes.dword);
        let new = old & !mask | value << lanes.shift & mask;
        if new == old {
            return ConfigWrite::Ignored;
        }
        if new == layout.power_on(lanes.dword) {
            self.dwords.remove(&lanes.dword);
        } else {
            self.dwords.insert(lanes.dword, new);
        }
        ConfigWrite::Changed
    }

    /// Puts all registers into their power-on state.
    pub fn reset(&mut self) {
        self.dwords.clear();
    }

    /// The dwords that are not as at power-on, by offset.
    pub fn dwords(&self) -> &BTreeMap<u16, u32> {
        let Self { dwords } = self;
        dwords
    }

    /// The registers of which these dwords are not as at power-on.
    ///
    /// # Errors
    /// Where no host can have written a dword so.
    pub fn from_dwords(layout: &impl ConfigLayout, dwords: BTreeMap<u16, u32>) -> Result<Self, String> {
        let is_written = |offset: u16, value: u32| {
            let changed = value ^ layout.power_on(offset);
            changed != 0 && changed & !layout.write_mask(offset) == 0
        };
        let fits = |offset: u16| offset.is_multiple_of(4) && usize::from(offset) < pci::CONFIG_SPACE_LEN_BYTES;
        match dwords.iter().find(|(offset, value)| !fits(**offset) || !is_written(**offset, **value)) {
            Some((offset, value)) => Err(format!("no host writes {value:#010x} at {offset:#x} of configuration space")),
            None => Ok(Self { dwords }),
        }
    }
}

/// The part of a dword that an access touches.
#[derive(Clone, Copy)]
struct Lanes {
    dword: u16,
    shift: u32,
    width: u8,
}

impl Lanes {
    fn of(offset: u16, width: u8) -> Option<Self> {
        let fits = matches!(width, 1 | 2 | 4) && offset.is_multiple_of(u16::from(width));
        (fits && usize::from(offset) < pci::CONFIG_SPACE_LEN_BYTES).then_some(Self {
            dword: offset & !3,
            shift: u32::from(offset & 3) * 8,
            width,
        })
    }

    fn ones(self) -> u32 {
        u32::MAX >> (32 - 8 * u32::from(self.width))
    }
}

/// Configuration space of one device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigSpace {
    identity: Identity,
    written: WrittenRegisters,
}

/// What distinguishes the configuration spaces of two devices at power-on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Identity {
    serial: u64,
    payload_log2: u8,
    static_len_bytes: u64,
}

impl ConfigSpace {
    /// The space at power-on of a device with this serial number and a mailbox payload area of two to the power of
    /// `payload_log2` bytes, which is brought into 8 to 20.
    pub fn new(serial: u64, payload_log2: u8) -> Self {
        let range = wire::registers::MAILBOX_PAYLOAD_MIN_LOG2..=wire::registers::MAILBOX_PAYLOAD_MAX_LOG2;
        let payload_log2 = payload_log2.clamp(*range.start(), *range.end());
        let identity = Identity { serial, payload_log2, static_len_bytes: 0 };
        Self { identity, written: WrittenRegisters::default() }
    }

    /// The same with so many bytes of static memory, a multiple of 256 MiB: the size of range 1 (CXL r4.0 8.1.3.8).
    #[must_use]
    pub fn with_static_len(mut self, len_bytes: u64) -> Self {
        self.identity.static_len_bytes = len_bytes;
        self
    }

    /// The same with registers that a host has written, given as those of [`ConfigSpace::written`].
    ///
    /// # Errors
    /// Where no host can have written them so.
    pub fn with_written(self, dwords: BTreeMap<u16, u32>) -> Result<Self, String> {
        let Self { identity, written: _ } = self;
        Ok(Self { written: WrittenRegisters::from_dwords(&identity, dwords)?, identity })
    }

    /// The registers that a host has changed.
    pub fn written(&self) -> &WrittenRegisters {
        let Self { identity: _, written } = self;
        written
    }

    /// Serial number of the device.
    pub fn serial(&self) -> u64 {
        self.identity.serial
    }

    /// Size of the mailbox payload area as log2 of bytes.
    pub fn payload_log2(&self) -> u8 {
        self.identity.payload_log2
    }

    /// What a host reads; see [`WrittenRegisters::read`].
    pub fn read(&self, offset: u16, width: u8) -> u32 {
        self.written.read(&self.identity, offset, width)
    }

    /// What a host writes; see [`WrittenRegisters::write`].
    pub fn write(&mut self, offset: u16, width: u8, value: u32) -> ConfigWrite {
        let is_locked = self.dword(DVSEC_DEVICE + 0x14) & DVSEC_LOCK != 0;
        if is_locked && matches!(offset & !3, DEVICE_CONTROL_DWORD | DEVICE_LOCK_DWORD | RANGES..RANGES_END) {
            return ConfigWrite::Ignored;
        }
        self.written.write(&self.identity, offset, width, value)
    }

    /// Puts all registers into their power-on state.
    pub fn reset(&mut self) {
        self.written.reset();
    }

    /// Where the registers of a BAR answer: `None` while memory space is off, the BAR is not programmed or would leave
    /// the address space, or there is no such BAR.
    pub fn bar(&self, bar: u8) -> Option<Hpa> {
        let command = pci::Command::from(self.dword(pci::COMMAND) as u16);
        let len_bytes = self.bar_len_bytes(bar).filter(|_| command.memory_space())?;
        let low = pci::BAR_0 + 4 * u16::from(bar);
        let base = u64::from(self.dword(low + 4)) << 32 | u64::from(self.dword(low) & !0xf);
        (base != 0 && base.checked_add(len_bytes).is_some()).then_some(Hpa(base))
    }

    /// Length of a BAR in bytes, or `None` where there is no such BAR.
    pub fn bar_len_bytes(&self, bar: u8) -> Option<u64> {
        self.identity.bar_len_bytes(bar)
    }

    /// Whether MSI-X is on.
    pub fn msix_enabled(&self) -> bool {
        self.msix_control().enable()
    }

    /// Whether all MSI-X vectors are masked.
    pub fn function_masked(&self) -> bool {
        self.msix_control().function_mask()
    }

    fn msix_control(&self) -> pci::MsixControl {
        pci::MsixControl::from((self.dword(MSIX) >> 16) as u16)
    }

    fn dword(&self, offset: u16) -> u32 {
        self.written.dword(&self.identity, offset)
    }
}

/// Dword of DVSEC 0 with control and status.
const DEVICE_CONTROL_DWORD: u16 = DVSEC_DEVICE + pci::CXL_DEVICE_CONTROL;
/// Dword of DVSEC 0 with lock and capability 2.
const DEVICE_LOCK_DWORD: u16 = DVSEC_DEVICE + 0x14;
/// The ranges of DVSEC 0.
const RANGES: u16 = DVSEC_DEVICE + pci::CXL_DEVICE_RANGE_1_SIZE_HIGH;
/// Behind the ranges of DVSEC 0.
const RANGES_END: u16 = RANGES + 2 * pci::CXL_DEVICE_RANGE_STRIDE_BYTES;

impl ConfigLayout for Identity {
    fn power_on(&self, offset: u16) -> u32 {
        match offset {
            0..PCI_EXPRESS => self.header(offset),
            PCI_EXPRESS..MSIX => pci_express(offset - PCI_EXPRESS),
            MSIX..SERIAL_NUMBER => msix(offset - MSIX),
            SERIAL_NUMBER..DVSEC_DEVICE => dword_of(&self.serial_number(), offset - SERIAL_NUMBER),
            DVSEC_DEVICE..DVSEC_GPF => dword_of(&dvsec_device(self.static_len_bytes), offset - DVSEC_DEVICE),
            DVSEC_GPF..DVSEC_FLEX_BUS => dword_of(&dvsec_gpf(), offset - DVSEC_GPF),
            DVSEC_FLEX_BUS..DVSEC_LOCATOR => dword_of(&dvsec_flex_bus(), offset - DVSEC_FLEX_BUS),
            DVSEC_LOCATOR..DVSEC_LOCATOR_END => register_locator(offset - DVSEC_LOCATOR),
            _ => 0,
        }
    }

    fn write_mask(&self, offset: u16) -> u32 {
        match offset {
            pci::COMMAND => u32::from(command_mask()),
            // Cache line size and interrupt line are storage for software.
            0x0c | pci::INTERRUPT_LINE => 0xff,
            pci::BAR_0..0x28 => self.bar_mask(offset),
            DEVICE_CONTROL => 0x78ff,
            LINK_CONTROL => 0x00cb,
            MSIX => {
                let writable = pci::MsixControl::new().with_enable(true).with_function_mask(true);
                u32::from(u16::from(writable)) << 16
            }
            DEVICE_CONTROL_DWORD => u32::from(u16::from(pci::CxlControl::new().with_mem_enable(true))),
            DEVICE_LOCK_DWORD => DVSEC_LOCK,
            RANGES..RANGES_END => range_mask((offset - RANGES) % pci::CXL_DEVICE_RANGE_STRIDE_BYTES),
            _ => 0,
        }
    }
}

const DEVICE_CONTROL: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_DEVICE_CONTROL;
const LINK_CONTROL: u16 = PCI_EXPRESS + pci::PCI_EXPRESS_LINK_CONTROL;

impl Identity {
    fn header(&self, offset: u16) -> u32 {
        match offset {
            pci::VENDOR_ID | pci::SUBSYSTEM_VENDOR_ID => u32::from(DEVICE) << 16 | u32::from(VENDOR),
            pci::COMMAND => u32::from(u16::from(pci::Status::new().with_capabilities_list(true))) << 16,
            pci::REVISION_ID => u32::from(pci::CLASS_CXL_MEMORY) << 16 | u32::from(pci::PROG_IF_CXL_MEMORY) << 8,
            pci::BAR_0..0x28 if self.bar_of(offset).is_some() => {
                pci::MemoryBar::new().with_kind(pci::BAR_KIND_64_BIT).into()
            }
            pci::CAPABILITY_POINTER => u32::from(PCI_EXPRESS),
            _ => 0,
        }
    }

    fn bar_len_bytes(&self, bar: u8) -> Option<u64> {
        match bar {
            COMPONENT_BAR => Some(wire::component::COMPONENT_BLOCK_LEN_BYTES as u64),
            DEVICE_BAR => {
                let end = PAYLOAD_OFFSET + (1 << self.payload_log2);
                Some(end.next_power_of_two().max(REGISTER_BAR_LEN_BYTES_MIN))
            }
            MSIX_BAR => Some(MSIX_BAR_LEN_BYTES),
            _ => None,
        }
    }

    /// The length of the BAR whose low dword is at `offset`.
    fn bar_of(&self, offset: u16) -> Option<u64> {
        self.bar_len_bytes(((offset - pci::BAR_0) / 4) as u8)
    }

    fn bar_mask(&self, offset: u16) -> u32 {
        match self.bar_of(offset) {
            Some(len_bytes) => !((len_bytes - 1) as u32),
            // Every second one is the high dword of a BAR of 64 bits.
            None => u32::MAX,
        }
    }

    fn serial_number(&self) -> pci::SerialNumberCapability {
        pci::SerialNumberCapability {
            header: extended(pci::EXTENDED_CAPABILITY_SERIAL_NUMBER, DVSEC_DEVICE),
            serial_number: U64::new(self.serial),
        }
    }
}

fn command_mask() -> u16 {
    let command = pci::Command::new().with_memory_space(true).with_bus_master(true).with_interrupt_disable(true);
    command.with_parity_error_response(true).with_serr(true).into()
}

/// Sizes are read only; bases are multiples of 256 MiB (CXL r4.0 8.1.3.8).
fn range_mask(offset: u16) -> u32 {
    match offset {
        RANGE_BASE => u32::MAX,
        0xc => 0xf000_0000,
        _ => 0,
    }
}

fn pci_express(offset: u16) -> u32 {
    match offset {
        0 => {
            let capabilities =
                pci::PciExpressCapabilities::new().with_version(2).with_device_port_type(pci::PCI_EXPRESS_ENDPOINT);
            capability(pci::CAPABILITY_PCI_EXPRESS, MSIX as u8, capabilities.into())
        }
        // Role-based error reporting, which every device since 1.1 has.
        pci::PCI_EXPRESS_DEVICE_CAPABILITIES => 1 << 15,
        // Relaxed ordering, no snoop and reads of 512 bytes are on at power-on.
        pci::PCI_EXPRESS_DEVICE_CONTROL => 0x2810,
        pci::PCI_EXPRESS_LINK_CAPABILITIES => LINK_SPEED_AND_WIDTH,
        pci::PCI_EXPRESS_LINK_CONTROL => LINK_SPEED_AND_WIDTH << 16,
        // All speeds up to 32 GT/s.
        pci::PCI_EXPRESS_LINK_CAPABILITIES_2 => 0x3e,
        pci::PCI_EXPRESS_LINK_CONTROL_2 => LINK_SPEED_AND_WIDTH & 0xf,
        _ => 0,
    }
}

fn msix(offset: u16) -> u32 {
    match offset {
        0 => {
            let control = pci::MsixControl::new().with_table_size_less_one(MSIX_VECTORS as u16 - 1);
            capability(pci::CAPABILITY_MSIX, 0, control.into())
        }
        pci::MSIX_TABLE => pci::BarOffset::at(MSIX_BAR, MSIX_TABLE_OFFSET).into(),
        pci::MSIX_PENDING => pci::BarOffset::at(MSIX_BAR, MSIX_PENDING_OFFSET).into(),
        _ => 0,
    }
}

fn dvsec_device(static_len_bytes: u64) -> pci::CxlDeviceDvsec {
    // HDM count 1 even with a range of size 0: a host waits for valid and active then too.
    let capability = pci::CxlCapability::new().with_io_capable(true).with_mem_capable(true).with_mem_hw_init_mode(true);
    let size_low = pci::RangeSizeLow::new().with_memory_info_valid(true).with_memory_active(true);
    let size_low = size_low.with_media_type(2).with_memory_class(2);
    let size_low = U32::new(size_low.with_size_31_28((static_len_bytes >> 28 & 0xf) as u8).into());
    let size_high = U32::new((static_len_bytes >> 32) as u32);
    let range_1 = pci::CxlDeviceRange { size_high, size_low, ..Default::default() };
    pci::CxlDeviceDvsec {
        header: dvsec::<pci::CxlDeviceDvsec>(pci::DVSEC_CXL_DEVICE, 3, DVSEC_GPF),
        capability: U16::new(capability.with_hdm_count(1).into()),
        control: U16::new(pci::CxlControl::new().with_io_enable(true).into()),
        status2: U16::new(2),
        ranges: [range_1, Default::default()],
        ..Default::default()
    }
}

fn dvsec_gpf() -> pci::GpfDeviceDvsec {
    pci::GpfDeviceDvsec {
        header: dvsec::<pci::GpfDeviceDvsec>(pci::DVSEC_GPF_DEVICE, 0, DVSEC_FLEX_BUS),
        // 3 s at 51 mW: what QEMU tells.
        phase2_duration: U16::new(0x603),
        phase2_power_mw: U32::new(0x33),
    }
}

fn dvsec_flex_bus() -> pci::FlexBusPortDvsec {
    pci::FlexBusPortDvsec {
        header: dvsec::<pci::FlexBusPortDvsec>(pci::DVSEC_FLEX_BUS_PORT, 2, DVSEC_LOCATOR),
        // CXL.io, CXL.mem and 68-byte flits, as the link came up.
        capability: U16::new(0x26),
        control: U16::new(0x02),
        status: U16::new(0x26),
        ..Default::default()
    }
}

fn register_locator(offset: u16) -> u32 {
    let slot = |bir, id| pci::RegisterBlockLow::new().with_bir(bir).with_id(id).into();
    let block = |index: u16| pci::REGISTER_LOCATOR_BLOCKS + index * pci::REGISTER_BLOCK_LEN_BYTES;
    let len_bytes = block(LOCATOR_SLOTS);
    match offset {
        _ if offset == block(0) => slot(COMPONENT_BAR, pci::REGISTER_BLOCK_COMPONENT),
        _ if offset == block(1) => slot(DEVICE_BAR, pci::REGISTER_BLOCK_DEVICE),
        _ if offset < block(0) => {
            let header = dvsec_of_len(pci::DVSEC_REGISTER_LOCATOR, 0, len_bytes, 0);
            dword_of(&pci::RegisterLocatorDvsec { header, reserved: U16::new(0) }, offset)
        }
        _ => 0,
    }
}

fn capability(id: u8, next: u8, control: u16) -> u32 {
    u32::from(control) << 16 | u32::from(next) << 8 | u32::from(id)
}

fn extended(id: u16, next: u16) -> U32 {
    U32::new(pci::ExtendedCapabilityHeader::new().with_id(id).with_version(1).with_next(next).into())
}

fn dvsec<T>(id: u16, revision: u8, next: u16) -> pci::DvsecHeader {
    dvsec_of_len(id, revision, size_of::<T>() as u16, next)
}

fn dvsec_of_len(id: u16, revision: u8, len_bytes: u16, next: u16) -> pci::DvsecHeader {
    let header1 = pci::DvsecHeader1::new().with_vendor_id(pci::DVSEC_VENDOR_CXL).with_revision(revision);
    pci::DvsecHeader {
        extended: extended(pci::EXTENDED_CAPABILITY_DVSEC, next),
        header1: U32::new(header1.with_len_bytes(len_bytes).into()),
        id: U16::new(id),
    }
}

/// The dword at `offset` of a structure; zero bytes follow its end.
fn dword_of(of: &(impl IntoBytes + zerocopy::Immutable), offset: u16) -> u32 {
    let mut dword = [0; 4];
    let bytes = of.as_bytes().get(usize::from(offset)..).unwrap_or_default();
    bytes.iter().zip(&mut dword).for_each(|(from, to)| *to = *from);
    u32::from_le_bytes(dword)
}

const _: () = {
    // The blocks follow one another without holes.
    assert!(MSIX as usize >= PCI_EXPRESS as usize + pci::PCI_EXPRESS_LEN_BYTES);
    assert!(DVSEC_DEVICE as usize == SERIAL_NUMBER as usize + size_of::<pci::SerialNumberCapability>());
    assert!(DVSEC_GPF as usize == DVSEC_DEVICE as usize + size_of::<pci::CxlDeviceDvsec>());
    assert!(DVSEC_FLEX_BUS as usize == DVSEC_GPF as usize + size_of::<pci::GpfDeviceDvsec>());
    assert!(DVSEC_LOCATOR as usize == DVSEC_FLEX_BUS as usize + size_of::<pci::FlexBusPortDvsec>());
    assert!(
        DVSEC_LOCATOR_END
            == DVSEC_LOCATOR + pci::REGISTER_LOCATOR_BLOCKS + LOCATOR_SLOTS * pci::REGISTER_BLOCK_LEN_BYTES
    );
    assert!(MSIX_TABLE_BYTES <= (MSIX_PENDING_OFFSET - MSIX_TABLE_OFFSET) as usize);
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn space() -> ConfigSpace {
        ConfigSpace::new(0x1122_3344_5566_7788, 15)
    }

    /// The DVSECs of the CXL vendor, by walking the extended capabilities: (id, revision, offset).
    fn dvsecs(space: &ConfigSpace) -> Vec<(u32, u32, u16)> {
        let mut found = Vec::new();
        let mut offset = 0x100;
        while offset != 0 {
            let header = space.read(offset, 4);
            if header & 0xffff == 0x23 {
                assert_eq!(space.read(offset + 4, 2), 0x1e98);
                found.push((space.read(offset + 8, 2), space.read(offset + 6, 1) & 0xf, offset));
            }
            offset = (header >> 20) as u16;
        }
        found
    }

    #[test]
    fn it_is_a_cxl_memory_device() {
        let space = space();
        assert_eq!(space.read(0, 4), 0x0d93_8086);
        assert_eq!(space.read(0x08, 4) >> 8, 0x05_0210);
        assert_eq!(space.read(0x0e, 1), 0);
        assert_eq!(space.read(0x104, 4), 0x5566_7788);
        assert_eq!(space.read(0x108, 4), 0x1122_3344);
        assert_eq!(space.read(0x34, 1), 0x80);
        assert_eq!(space.read(0x81, 1), 0xc0);
        assert_eq!(space.read(0xc0, 4), 0x000f_0011);
        let found: Vec<_> = dvsecs(&space).into_iter().map(|(id, revision, _)| (id, revision)).collect();
        assert_eq!(found, [(0, 3), (5, 0), (7, 2), (8, 0)]);
    }

    #[test]
    fn the_dvsecs_say_what_a_dc_only_device_says() {
        let space = space();
        assert_eq!(space.read(0x10c + 0x06, 2) >> 4, 0x3c);
        assert_eq!(space.read(0x10c + 0x0a, 2), 0x1e);
        assert_eq!(space.read(0x10c + 0x0c, 2), 2);
        assert_eq!(space.read(0x10c + 0x12, 2), 2);
        assert_eq!(space.read(0x10c + 0x18, 4), 0);
        assert_eq!(space.read(0x10c + 0x1c, 4), 0x4b);
        assert_eq!(space.read(0x178 + 0x06, 2) >> 4, 0x24);
        assert_eq!(space.read(0x178 + 0x0c, 4), 0x100);
        assert_eq!(space.read(0x178 + 0x14, 4), 0x302);
        assert_eq!(space.read(0x178 + 0x1c, 4), 0);
    }

    #[test]
    fn sizing_a_bar_gives_its_size() {
        for (payload_log2, device_bar_len_bytes) in [(8, 0x1_0000), (15, 0x1_0000), (16, 0x2_0000), (20, 0x20_0000)] {
            let mut space = ConfigSpace::new(0, payload_log2);
            for (bar, len_bytes) in [(0, 0x1_0000), (2, device_bar_len_bytes), (4, 0x1000u32)] {
                let low = 0x10 + 4 * bar;
                assert_eq!(space.write(low, 4, u32::MAX), ConfigWrite::Changed);
                assert_eq!(space.write(low + 4, 4, u32::MAX), ConfigWrite::Changed);
                assert_eq!(space.read(low, 4), !(len_bytes - 1) | 4);
                assert_eq!(space.read(low + 4, 4), u32::MAX);
                assert_eq!(space.bar_len_bytes(bar as u8), Some(u64::from(len_bytes)));
            }
        }
    }

    #[test]
    fn a_bar_answers_when_it_is_programmed_and_memory_space_is_on() {
        let mut space = space();
        assert_eq!(space.write(0x18, 4, 0xc001_2345), ConfigWrite::Changed);
        assert_eq!(space.bar(2), None);
        assert_eq!(space.write(0x04, 2, 0xffff), ConfigWrite::Changed);
        assert_eq!(space.bar(2), Some(Hpa(0xc001_0000)));
        assert_eq!(space.write(0x1c, 4, 1), ConfigWrite::Changed);
        assert_eq!(space.bar(2), Some(Hpa(0x1_c001_0000)));
        for bar in [0, 1, 3, 4, 5, 6, 255] {
            assert_eq!(space.bar(bar), None);
        }
        let _ = space.write(0x18, 4, u32::MAX);
        let _ = space.write(0x1c, 4, u32::MAX);
        assert_eq!(space.bar(2), None, "it would leave the address space");
    }

    #[test]
    fn msix_goes_on_and_off() {
        let mut space = space();
        assert!(!space.msix_enabled());
        assert_eq!(space.write(0xc2, 2, 0xffff), ConfigWrite::Changed);
        assert!(space.msix_enabled() && space.function_masked());
        assert_eq!(space.read(0xc2, 2), 0xc00f);
        assert_eq!(space.write(0xc3, 1, 0x80), ConfigWrite::Changed);
        assert!(space.msix_enabled() && !space.function_masked());
    }

    #[test]
    fn the_lock_holds_until_reset() {
        let mut space = space();
        assert_eq!(space.write(0x10c + 0x0c, 2, 4), ConfigWrite::Changed);
        assert_eq!(space.read(0x10c + 0x0c, 2), 6);
        assert_eq!(space.write(0x10c + 0x24, 4, u32::MAX), ConfigWrite::Changed);
        assert_eq!(space.read(0x10c + 0x24, 4), 0xf000_0000);
        assert_eq!(space.write(0x10c + 0x14, 2, 1), ConfigWrite::Changed);
        for (offset, value) in [(0x0c, 0), (0x14, 0), (0x20, 7), (0x24, 0)] {
            assert_eq!(space.write(0x10c + offset, 4, value), ConfigWrite::Ignored);
        }
        space.reset();
        assert_eq!(space, super::tests::space());
        assert_eq!(space.write(0x10c + 0x20, 4, 7), ConfigWrite::Changed);
    }

    #[test]
    fn writing_a_value_back_leaves_an_equal_space() {
        let mut space = space();
        assert_eq!(space.write(0x04, 2, 6), ConfigWrite::Changed);
        assert_eq!(space.write(0x04, 2, 6), ConfigWrite::Ignored);
        assert_ne!(space, super::tests::space());
        assert_eq!(space.write(0x04, 2, 0), ConfigWrite::Changed);
        assert_eq!(space, super::tests::space());
    }

    proptest! {
        #[test]
        fn hostile_accesses_do_not_panic(
            writes in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u32>()), 0..64), log2 in any::<u8>(),
        ) {
            let mut space = ConfigSpace::new(7, log2);
            let identity = space.read(0, 4);
            for (offset, width, value) in writes {
                for (offset, width) in [(offset, width), (offset % 0x200, width % 6), (offset % 0x1004, 4)] {
                    let before = space.clone();
                    let changed = space.write(offset, width, value) == ConfigWrite::Changed;
                    prop_assert_eq!(changed, before != space);
                    space.read(offset, width);
                    (0..8).for_each(|bar| { space.bar(bar); });
                }
            }
            prop_assert_eq!(space.read(0, 4), identity);
        }
    }
}
