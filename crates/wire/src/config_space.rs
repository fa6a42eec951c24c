//! PCI configuration space of a CXL memory device and of the ports above it.
//!
//! ```text
//! 00 vendor, device  04 command, status  08 revision, class  0C..0F header type at 0E
//! 10 BARs (type 0: six, type 1: two)     18 bus numbers (type 1)   20 memory windows (type 1)
//! 34 first capability                    40.. capabilities: PCI Express, MSI-X
//! 100 extended capabilities: serial number, DVSECs of vendor 1E98h (0 device, 5 GPF, 7 flex bus port, 8 locator)
//! ```
//!
//! PCI names are those of the PCI Express base specification; DVSECs are CXL r4.0 8.1. Deliberately absent: DOE, AER,
//! legacy interrupts, IO windows, and the DVSECs that only a port has.

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Length of a function's configuration space in bytes.
pub const CONFIG_SPACE_LEN_BYTES: usize = 0x1000;
/// What a read of the vendor id gives where there is no function.
pub const VENDOR_NONE: u16 = 0xffff;

/// Offset of the vendor id (u16).
pub const VENDOR_ID: u16 = 0x00;
/// Offset of the device id (u16).
pub const DEVICE_ID: u16 = 0x02;
/// Offset of [`Command`] (u16).
pub const COMMAND: u16 = 0x04;
/// Offset of [`Status`] (u16).
pub const STATUS: u16 = 0x06;
/// Offset of the revision id (u8).
pub const REVISION_ID: u16 = 0x08;
/// Offset of the class code: programming interface (u8), then class (u16).
pub const CLASS_CODE: u16 = 0x09;
/// Offset of [`HeaderType`] (u8).
pub const HEADER_TYPE: u16 = 0x0e;
/// Offset of the first base address register (u32).
pub const BAR_0: u16 = 0x10;
/// Base address registers of a type 0 header.
pub const BAR_COUNT: usize = 6;
/// Base address registers of a type 1 header.
pub const BRIDGE_BAR_COUNT: usize = 2;
/// Offset of the subsystem vendor id in a type 0 header (u16).
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Offset of the subsystem id in a type 0 header (u16).
pub const SUBSYSTEM_ID: u16 = 0x2e;
/// Offset of the first capability's offset (u8).
pub const CAPABILITY_POINTER: u16 = 0x34;
/// Offset of the interrupt line (u8).
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Offset of the interrupt pin (u8).
pub const INTERRUPT_PIN: u16 = 0x3d;

/// Offset of the primary bus number in a type 1 header (u8).
pub const PRIMARY_BUS: u16 = 0x18;
/// Offset of the secondary bus number in a type 1 header (u8).
pub const SECONDARY_BUS: u16 = 0x19;
/// Offset of the subordinate bus number in a type 1 header (u8).
pub const SUBORDINATE_BUS: u16 = 0x1a;
/// Offset of the memory window's base in a type 1 header (u16): bits 15:4 are address bits 31:20.
pub const MEMORY_BASE: u16 = 0x20;
/// Offset of the memory window's last MiB in a type 1 header (u16): bits 15:4 are address bits 31:20.
pub const MEMORY_LIMIT: u16 = 0x22;
/// Offset of the prefetchable window's base in a type 1 header (u16): bits 15:4 are address bits 31:20, bit 0 says 64-bit.
pub const PREFETCHABLE_BASE: u16 = 0x24;
/// Offset of the prefetchable window's last MiB in a type 1 header (u16).
pub const PREFETCHABLE_LIMIT: u16 = 0x26;
/// Offset of the prefetchable base's address bits 63:32 in a type 1 header (u32).
pub const PREFETCHABLE_BASE_UPPER: u16 = 0x28;
/// Offset of the prefetchable limit's address bits 63:32 in a type 1 header (u32).
pub const PREFETCHABLE_LIMIT_UPPER: u16 = 0x2c;
/// Offset of the bridge control register in a type 1 header (u16); bit 6 resets the secondary bus.
pub const BRIDGE_CONTROL: u16 = 0x3e;
/// Granularity of a bridge's memory window in bytes.
pub const BRIDGE_WINDOW_GRANULE_BYTES: u64 = 1 << 20;

/// Class code of a CXL memory device: class 05h, subclass 02h (CXL r4.0 8.1.12).
pub const CLASS_CXL_MEMORY: u16 = 0x0502;
/// Programming interface of a CXL memory device.
pub const PROG_IF_CXL_MEMORY: u8 = 0x10;
/// Class code of a host bridge.
pub const CLASS_HOST_BRIDGE: u16 = 0x0600;
/// Class code of a PCI-to-PCI bridge.
pub const CLASS_PCI_BRIDGE: u16 = 0x0604;

/// The command register.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Command {
    /// The function answers IO space.
    pub io_space: bool,
    /// The function answers memory space.
    pub memory_space: bool,
    /// The function may send requests, message signalled interrupts among them.
    pub bus_master: bool,
    #[bits(3)]
    __: u8,
    /// Parity errors are answered.
    pub parity_error_response: bool,
    __: bool,
    /// System errors are reported.
    pub serr: bool,
    __: bool,
    /// The legacy interrupt is off.
    pub interrupt_disable: bool,
    #[bits(5)]
    __: u8,
}

/// The status register, as far as an enumerator reads it.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Status {
    #[bits(3)]
    __: u8,
    /// The legacy interrupt is asserted.
    pub interrupt: bool,
    /// There is a list of capabilities.
    pub capabilities_list: bool,
    #[bits(11)]
    __: u16,
}

/// The header type register.
#[bitfield(u8)]
#[derive(PartialEq, Eq)]
pub struct HeaderType {
    /// [`HEADER_TYPE_ENDPOINT`] or [`HEADER_TYPE_BRIDGE`].
    #[bits(7)]
    pub layout: u8,
    /// The device has further functions.
    pub multi_function: bool,
}

/// Layout of an endpoint's header.
pub const HEADER_TYPE_ENDPOINT: u8 = 0;
/// Layout of a bridge's header.
pub const HEADER_TYPE_BRIDGE: u8 = 1;

/// The low dword of a memory base address register.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MemoryBar {
    /// The register is for IO space, and the rest of this layout does not hold.
    pub io_space: bool,
    /// [`BAR_KIND_32_BIT`] or [`BAR_KIND_64_BIT`].
    #[bits(2)]
    pub kind: u8,
    /// Reads have no side effects.
    pub prefetchable: bool,
    /// Address bits 31:4.
    #[bits(28)]
    pub address_31_4: u32,
}

/// A base address register of one dword.
pub const BAR_KIND_32_BIT: u8 = 0;
/// A base address register whose address goes on in the next one.
pub const BAR_KIND_64_BIT: u8 = 2;

/// Capability id of PCI Express.
pub const CAPABILITY_PCI_EXPRESS: u8 = 0x10;
/// Capability id of MSI.
pub const CAPABILITY_MSI: u8 = 0x05;
/// Capability id of MSI-X.
pub const CAPABILITY_MSIX: u8 = 0x11;

/// Length of the PCI Express capability in bytes.
pub const PCI_EXPRESS_LEN_BYTES: usize = 0x3c;
/// Offset of [`PciExpressCapabilities`] in the PCI Express capability (u16).
pub const PCI_EXPRESS_CAPABILITIES: u16 = 0x02;
/// Offset of the device capabilities in the PCI Express capability (u32); bit 28 is function level reset.
pub const PCI_EXPRESS_DEVICE_CAPABILITIES: u16 = 0x04;
/// Offset of the device control in the PCI Express capability (u16); bit 15 starts a function level reset.
pub const PCI_EXPRESS_DEVICE_CONTROL: u16 = 0x08;
/// Offset of the device status in the PCI Express capability (u16).
pub const PCI_EXPRESS_DEVICE_STATUS: u16 = 0x0a;
/// Offset of the link capabilities in the PCI Express capability (u32).
pub const PCI_EXPRESS_LINK_CAPABILITIES: u16 = 0x0c;
/// Offset of the link control in the PCI Express capability (u16).
pub const PCI_EXPRESS_LINK_CONTROL: u16 = 0x10;
/// Offset of the link status in the PCI Express capability (u16).
pub const PCI_EXPRESS_LINK_STATUS: u16 = 0x12;
/// Offset of the slot capabilities in the PCI Express capability (u32).
pub const PCI_EXPRESS_SLOT_CAPABILITIES: u16 = 0x14;
/// Offset of the slot control in the PCI Express capability (u16).
pub const PCI_EXPRESS_SLOT_CONTROL: u16 = 0x18;
/// Offset of the slot status in the PCI Express capability (u16).
pub const PCI_EXPRESS_SLOT_STATUS: u16 = 0x1a;
/// Offset of the second device capabilities in the PCI Express capability (u32).
pub const PCI_EXPRESS_DEVICE_CAPABILITIES_2: u16 = 0x24;
/// Offset of the second device control in the PCI Express capability (u16).
pub const PCI_EXPRESS_DEVICE_CONTROL_2: u16 = 0x28;
/// Offset of the second link capabilities in the PCI Express capability (u32).
pub const PCI_EXPRESS_LINK_CAPABILITIES_2: u16 = 0x2c;
/// Offset of the second link control in the PCI Express capability (u16).
pub const PCI_EXPRESS_LINK_CONTROL_2: u16 = 0x30;
/// Offset of the second link status in the PCI Express capability (u16).
pub const PCI_EXPRESS_LINK_STATUS_2: u16 = 0x32;
/// Device capabilities bit: function level reset works.
pub const PCI_EXPRESS_DEVICE_CAPABILITY_FLR: u32 = 1 << 28;
/// Device control bit: start a function level reset.
pub const PCI_EXPRESS_DEVICE_CONTROL_FLR: u16 = 1 << 15;

/// The PCI Express capabilities register.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct PciExpressCapabilities {
    /// Version of the capability: 2.
    #[bits(4)]
    pub version: u8,
    /// [`PCI_EXPRESS_ENDPOINT`], [`PCI_EXPRESS_ROOT_PORT`] and others.
    #[bits(4)]
    pub device_port_type: u8,
    /// A port with a slot.
    pub slot_implemented: bool,
    /// Message of the port's own interrupts.
    #[bits(5)]
    pub interrupt_message_number: u8,
    #[bits(2)]
    __: u8,
}

/// Device/port type of an endpoint.
pub const PCI_EXPRESS_ENDPOINT: u8 = 0;
/// Device/port type of a root port.
pub const PCI_EXPRESS_ROOT_PORT: u8 = 4;
/// Device/port type of a switch's upstream port.
pub const PCI_EXPRESS_UPSTREAM_PORT: u8 = 5;
/// Device/port type of a switch's downstream port.
pub const PCI_EXPRESS_DOWNSTREAM_PORT: u8 = 6;

/// Length of the MSI-X capability in bytes.
pub const MSIX_LEN_BYTES: usize = 0x0c;
/// Offset of [`MsixControl`] in the MSI-X capability (u16).
pub const MSIX_CONTROL: u16 = 0x02;
/// Offset of the table's [`BarOffset`] in the MSI-X capability (u32).
pub const MSIX_TABLE: u16 = 0x04;
/// Offset of the pending bit array's [`BarOffset`] in the MSI-X capability (u32).
pub const MSIX_PENDING: u16 = 0x08;

/// The MSI-X message control register.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct MsixControl {
    /// Entries of the table less one.
    #[bits(11)]
    pub table_size_less_one: u16,
    #[bits(3)]
    __: u8,
    /// All entries are masked.
    pub function_mask: bool,
    /// MSI-X is on.
    pub enable: bool,
}

/// A place in a BAR: which, and at what offset.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct BarOffset {
    /// Index of the base address register.
    #[bits(3)]
    pub bir: u8,
    /// Offset bits 31:3; a multiple of 8 bytes.
    #[bits(29)]
    pub offset_31_3: u32,
}

impl BarOffset {
    /// The place at `offset_bytes`, a multiple of 8, in BAR `bir`.
    pub const fn at(bir: u8, offset_bytes: u32) -> Self {
        Self::from_bits(offset_bytes & !7 | (bir & 7) as u32)
    }

    /// The offset in bytes.
    pub const fn offset_bytes(self) -> u32 {
        self.into_bits() & !7
    }
}

/// One entry of the MSI-X table, in memory space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MsixTableEntry {
    /// Where the message is written.
    pub address: U64,
    /// What is written.
    pub data: U32,
    /// Bit 0 masks the entry ([`MSIX_VECTOR_MASKED`]).
    pub vector_control: U32,
}

/// Vector control bit: the entry is masked.
pub const MSIX_VECTOR_MASKED: u32 = 1;
/// Length of one entry of the MSI-X table in bytes.
pub const MSIX_TABLE_ENTRY_LEN_BYTES: usize = 16;

/// Offset of the first extended capability.
pub const EXTENDED_CAPABILITIES: u16 = 0x100;

/// The first dword of an extended capability.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ExtendedCapabilityHeader {
    /// Which capability it is.
    pub id: u16,
    /// Version of its layout.
    #[bits(4)]
    pub version: u8,
    /// Offset of the next one, 0 after the last.
    #[bits(12)]
    pub next: u16,
}

/// Extended capability id of the device serial number.
pub const EXTENDED_CAPABILITY_SERIAL_NUMBER: u16 = 0x0003;
/// Extended capability id of a DVSEC.
pub const EXTENDED_CAPABILITY_DVSEC: u16 = 0x0023;
/// Extended capability id of DOE.
pub const EXTENDED_CAPABILITY_DOE: u16 = 0x002e;

/// The device serial number capability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SerialNumberCapability {
    /// An [`ExtendedCapabilityHeader`].
    pub header: U32,
    /// The serial number, low dword first.
    pub serial_number: U64,
}

/// Vendor id in every DVSEC of the CXL standard (CXL r4.0 8.1.1).
pub const DVSEC_VENDOR_CXL: u16 = 0x1e98;
/// DVSEC id of the CXL device DVSEC (CXL r4.0 8.1.3).
pub const DVSEC_CXL_DEVICE: u16 = 0;
/// DVSEC id of the port extensions (CXL r4.0 8.1.5).
pub const DVSEC_PORT_EXTENSIONS: u16 = 3;
/// DVSEC id of GPF for ports (CXL r4.0 8.1.6).
pub const DVSEC_GPF_PORT: u16 = 4;
/// DVSEC id of GPF for devices (CXL r4.0 8.1.7).
pub const DVSEC_GPF_DEVICE: u16 = 5;
/// DVSEC id of the flex bus port (CXL r4.0 8.1.8).
pub const DVSEC_FLEX_BUS_PORT: u16 = 7;
/// DVSEC id of the register locator (CXL r4.0 8.1.9).
pub const DVSEC_REGISTER_LOCATOR: u16 = 8;

/// The second dword of a DVSEC.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DvsecHeader1 {
    /// [`DVSEC_VENDOR_CXL`].
    pub vendor_id: u16,
    /// Revision of the layout.
    #[bits(4)]
    pub revision: u8,
    /// Length in bytes, headers included.
    #[bits(12)]
    pub len_bytes: u16,
}

/// The head of every DVSEC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DvsecHeader {
    /// An [`ExtendedCapabilityHeader`] with [`EXTENDED_CAPABILITY_DVSEC`].
    pub extended: U32,
    /// A [`DvsecHeader1`].
    pub header1: U32,
    /// Which DVSEC of the vendor it is.
    pub id: U16,
}

/// Offset of [`DvsecHeader1`] in a DVSEC (u32).
pub const DVSEC_HEADER_1: u16 = 0x04;
/// Offset of the id in a DVSEC (u16).
pub const DVSEC_ID: u16 = 0x08;
/// Offset of [`CxlCapability`] in the CXL device DVSEC (u16).
pub const CXL_DEVICE_CAPABILITY: u16 = 0x0a;
/// Offset of [`CxlControl`] in the CXL device DVSEC (u16).
pub const CXL_DEVICE_CONTROL: u16 = 0x0c;
/// Offset of the high dword of the first range's size in the CXL device DVSEC (u32).
pub const CXL_DEVICE_RANGE_1_SIZE_HIGH: u16 = 0x18;
/// Offset of [`RangeSizeLow`] of the first range in the CXL device DVSEC (u32).
pub const CXL_DEVICE_RANGE_1_SIZE_LOW: u16 = 0x1c;
/// Bytes from the first range to the second.
pub const CXL_DEVICE_RANGE_STRIDE_BYTES: u16 = 0x10;

/// One of the two ranges of the CXL device DVSEC (CXL r4.0 8.1.3.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CxlDeviceRange {
    /// Size bits 63:32.
    pub size_high: U32,
    /// A [`RangeSizeLow`].
    pub size_low: U32,
    /// Base bits 63:32.
    pub base_high: U32,
    /// Base bits 31:28.
    pub base_low: U32,
}

/// DVSEC 0 of a CXL device (CXL r4.0 8.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct CxlDeviceDvsec {
    /// With id [`DVSEC_CXL_DEVICE`].
    pub header: DvsecHeader,
    /// A [`CxlCapability`].
    pub capability: U16,
    /// A [`CxlControl`].
    pub control: U16,
    /// Status; bit 14 is viral.
    pub status: U16,
    /// Control 2; bit 2 starts a CXL reset, bit 0 disables caching.
    pub control2: U16,
    /// Status 2; bit 1 tells that the CXL reset is complete.
    pub status2: U16,
    /// Bit 0 locks the configuration.
    pub lock: U16,
    /// Capability 2: cache size.
    pub capability2: U16,
    /// The two ranges, of use where HDM decoders are not enabled.
    pub ranges: [CxlDeviceRange; 2],
    /// Capability 3.
    pub capability3: U32,
}

/// What a CXL device is (CXL r4.0 8.1.3.1).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CxlCapability {
    /// CXL.cache.
    pub cache_capable: bool,
    /// CXL.io.
    pub io_capable: bool,
    /// CXL.mem.
    pub mem_capable: bool,
    /// Memory comes up without software.
    pub mem_hw_init_mode: bool,
    /// Ranges in this DVSEC, 1 or 2.
    #[bits(2)]
    pub hdm_count: u8,
    /// Caches can be written back and invalidated on request.
    pub cache_writeback_capable: bool,
    /// CXL reset works.
    pub cxl_reset_capable: bool,
    /// Time-out of a CXL reset as a code: 10 ms times ten to this power.
    #[bits(3)]
    pub cxl_reset_timeout_code: u8,
    /// CXL reset can clear memory.
    pub cxl_reset_mem_clear_capable: bool,
    /// Several logical devices, with their own DVSEC.
    pub tsp_capable: bool,
    /// More than one logical device.
    pub multiple_logical_device: bool,
    /// Viral handling works.
    pub viral_capable: bool,
    /// Power management initialisation tells when it is complete.
    pub pm_init_completion_reporting: bool,
}

/// What of a CXL device is on (CXL r4.0 8.1.3.2).
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct CxlControl {
    /// CXL.cache is on.
    pub cache_enable: bool,
    /// CXL.io is on; always set.
    pub io_enable: bool,
    /// CXL.mem is on.
    pub mem_enable: bool,
    #[bits(13)]
    __: u16,
}

/// The low dword of a range's size (CXL r4.0 8.1.3.8.2).
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RangeSizeLow {
    /// This and the high dword hold a size.
    pub memory_info_valid: bool,
    /// The range can be used.
    pub memory_active: bool,
    /// Kind of media; 2 asks to look into the CDAT.
    #[bits(3)]
    pub media_type: u8,
    /// Class of memory; 2 asks to look into the CDAT.
    #[bits(3)]
    pub memory_class: u8,
    /// Wanted interleave granularity.
    #[bits(5)]
    pub desired_interleave: u8,
    /// Time to become active as a code.
    #[bits(3)]
    pub active_timeout_code: u8,
    #[bits(12)]
    __: u16,
    /// Size bits 31:28.
    #[bits(4)]
    pub size_31_28: u8,
}

/// DVSEC 5, global persistent flush of a device (CXL r4.0 8.1.7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GpfDeviceDvsec {
    /// With id [`DVSEC_GPF_DEVICE`].
    pub header: DvsecHeader,
    /// Time of phase 2: value in 3:0, scale in 11:8.
    pub phase2_duration: U16,
    /// Power in phase 2 in mW.
    pub phase2_power_mw: U32,
}

/// DVSEC 7, flex bus port (CXL r4.0 8.1.8, 8.2.1.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FlexBusPortDvsec {
    /// With id [`DVSEC_FLEX_BUS_PORT`].
    pub header: DvsecHeader,
    /// Bit 0 cache, 1 io, 2 mem, 5 68-byte flits.
    pub capability: U16,
    /// Bit 0 cache, 1 io, 2 mem.
    pub control: U16,
    /// Bit 0 cache, 1 io, 2 mem, 5 68-byte flits: what the link came up with.
    pub status: U16,
    /// Modified training sets received in phase 1.
    pub received_modified_ts: U32,
    /// Capability 2.
    pub capability2: U32,
    /// Control 2.
    pub control2: U32,
    /// Status 2.
    pub status2: U32,
}

/// Offset of the first [`RegisterBlock`] in the register locator.
pub const REGISTER_LOCATOR_BLOCKS: u16 = 0x0c;
/// Length of one [`RegisterBlock`] in bytes.
pub const REGISTER_BLOCK_LEN_BYTES: u16 = 8;

/// The head of DVSEC 8, the register locator; [`RegisterBlock`]s follow up to the DVSEC's length (CXL r4.0 8.1.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RegisterLocatorDvsec {
    /// With id [`DVSEC_REGISTER_LOCATOR`].
    pub header: DvsecHeader,
    /// Zero.
    pub reserved: U16,
}

/// One entry of the register locator (CXL r4.0 8.1.9.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RegisterBlock {
    /// A [`RegisterBlockLow`].
    pub low: U32,
    /// Offset bits 63:32 in the BAR.
    pub offset_high: U32,
}

/// The low dword of a [`RegisterBlock`].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RegisterBlockLow {
    /// Index of the base address register.
    #[bits(3)]
    pub bir: u8,
    #[bits(5)]
    __: u8,
    /// [`REGISTER_BLOCK_COMPONENT`], [`REGISTER_BLOCK_DEVICE`] or another.
    pub id: u8,
    /// Offset bits 31:16 in the BAR; blocks begin at multiples of 64 KiB.
    pub offset_31_16: u16,
}

/// Register block id: the entry is empty.
pub const REGISTER_BLOCK_EMPTY: u8 = 0;
/// Register block id: component registers.
pub const REGISTER_BLOCK_COMPONENT: u8 = 1;
/// Register block id: device registers.
pub const REGISTER_BLOCK_DEVICE: u8 = 3;

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<MsixTableEntry>() == MSIX_TABLE_ENTRY_LEN_BYTES);
    assert!(offset_of!(MsixTableEntry, data) == 0x08);
    assert!(offset_of!(MsixTableEntry, vector_control) == 0x0c);
    assert!(size_of::<SerialNumberCapability>() == 0x0c);
    assert!(size_of::<DvsecHeader>() == 0x0a);
    assert!(offset_of!(DvsecHeader, id) == DVSEC_ID as usize);
    assert!(size_of::<CxlDeviceDvsec>() == 0x3c);
    assert!(offset_of!(CxlDeviceDvsec, capability) == CXL_DEVICE_CAPABILITY as usize);
    assert!(offset_of!(CxlDeviceDvsec, control) == CXL_DEVICE_CONTROL as usize);
    assert!(offset_of!(CxlDeviceDvsec, status) == 0x0e);
    assert!(offset_of!(CxlDeviceDvsec, control2) == 0x10);
    assert!(offset_of!(CxlDeviceDvsec, status2) == 0x12);
    assert!(offset_of!(CxlDeviceDvsec, lock) == 0x14);
    assert!(offset_of!(CxlDeviceDvsec, capability2) == 0x16);
    assert!(offset_of!(CxlDeviceDvsec, ranges) == CXL_DEVICE_RANGE_1_SIZE_HIGH as usize);
    assert!(offset_of!(CxlDeviceDvsec, capability3) == 0x38);
    assert!(size_of::<CxlDeviceRange>() == CXL_DEVICE_RANGE_STRIDE_BYTES as usize);
    assert!(size_of::<GpfDeviceDvsec>() == 0x10);
    assert!(offset_of!(GpfDeviceDvsec, phase2_duration) == 0x0a);
    assert!(offset_of!(GpfDeviceDvsec, phase2_power_mw) == 0x0c);
    assert!(size_of::<FlexBusPortDvsec>() == 0x20);
    assert!(offset_of!(FlexBusPortDvsec, status) == 0x0e);
    assert!(size_of::<RegisterLocatorDvsec>() == REGISTER_LOCATOR_BLOCKS as usize);
    assert!(size_of::<RegisterBlock>() == REGISTER_BLOCK_LEN_BYTES as usize);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_the_bits_of_the_standard() {
        assert_eq!(u16::from(Command::new().with_memory_space(true).with_bus_master(true)), 6);
        assert_eq!(u16::from(Status::new().with_capabilities_list(true)), 0x10);
        assert_eq!(u16::from(MsixControl::new().with_enable(true).with_table_size_less_one(7)), 0x8007);
        assert_eq!(u32::from(MemoryBar::from(0xfe00_000c)) & 0xf, 0xc);
        assert_eq!(MemoryBar::from(0xfe00_000c).kind(), BAR_KIND_64_BIT);
        assert_eq!(u32::from(BarOffset::at(4, 0x800)), 0x804);
        assert_eq!(BarOffset::at(4, 0x800).offset_bytes(), 0x800);
        let header = DvsecHeader1::new().with_vendor_id(DVSEC_VENDOR_CXL).with_revision(3).with_len_bytes(0x3c);
        assert_eq!(u32::from(header), 0x03c3_1e98);
    }

    #[test]
    fn the_device_dvsec_has_the_bits_that_a_dc_only_device_shows() {
        let capability = CxlCapability::new()
            .with_io_capable(true)
            .with_mem_capable(true)
            .with_mem_hw_init_mode(true)
            .with_hdm_count(1);
        assert_eq!(u16::from(capability), 0x1e);
        let size = RangeSizeLow::new()
            .with_memory_info_valid(true)
            .with_memory_active(true)
            .with_media_type(2)
            .with_memory_class(2);
        assert_eq!(u32::from(size), 0x4b);
        assert_eq!(RangeSizeLow::from(0xf000_e000).active_timeout_code(), 7);
        let block = RegisterBlockLow::new().with_bir(2).with_id(REGISTER_BLOCK_DEVICE).with_offset_31_16(1);
        assert_eq!(u32::from(block), 0x0001_0302);
    }
}
