//! From a function's BARs to its register blocks.
//!
//! ```text
//! DVSEC 8 ─▶ block 1 (component) ─▶ +1000h CXL.cachemem ─▶ capability 5: HDM decoders
//!         ─▶ block 3 (device)    ─▶ capabilities array  ─▶ 1 device status, 2 mailbox, 4000h memory device status
//! ```
//!
//! Offsets and lengths come from the device and are checked to lie inside what holds them. As in Linux, a device without
//! one of the three device blocks is refused; one without HDM decoders has no region. Deliberately absent: RAS, the
//! secondary mailbox, other blocks.

use wire::Hpa;
use wire::component::{
    CACHEMEM_LEN_BYTES, CACHEMEM_OFFSET, COMPONENT_CAPABILITY_HDM, COMPONENT_CAPABILITY_ID, ComponentCapabilityArray,
    ComponentCapabilityEntry, HDM_DECODER_0,
};
use wire::config_space::{
    DVSEC_REGISTER_LOCATOR, REGISTER_BLOCK_COMPONENT, REGISTER_BLOCK_DEVICE, REGISTER_BLOCK_LEN_BYTES,
    REGISTER_LOCATOR_BLOCKS, RegisterBlockLow,
};
use wire::registers::{
    CAPABILITIES_ARRAY_ID, CAPABILITY_DEVICE_STATUS, CAPABILITY_HEADER_LEN, CAPABILITY_HEADER_OFFSET,
    CAPABILITY_HEADER_STRIDE_BYTES, CAPABILITY_MEMORY_DEVICE_STATUS, CAPABILITY_PRIMARY_MAILBOX, CapabilitiesArray,
    CapabilityHeader, DEVICE_STATUS_LEN_BYTES, MAILBOX_PAYLOAD, MEMORY_DEVICE_STATUS_LEN_BYTES,
};

use crate::bus::{Bdf, Bus, Width};
use crate::capabilities::dvsec;
use crate::discover::CxlFunction;
use crate::platform_map::HpaRange;

/// Where a function's registers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterBlocks {
    /// The event status register.
    pub event_status: Hpa,
    /// The primary mailbox with its payload area.
    pub mailbox: HpaRange,
    /// The memory device status register.
    pub memory_device_status: Hpa,
    /// The HDM decoder capability and what follows it, where there is one.
    pub hdm: Option<HpaRange>,
}

/// Why a function's register blocks cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// There is no DVSEC 8.
    #[error("{at} has no register locator (DVSEC 8), so its registers cannot be found")]
    NoRegisterLocator {
        /// The function.
        at: Bdf,
    },
    /// DVSEC 8 names no device registers.
    #[error("the register locator of {at} names no device register block (id 3)")]
    NoDeviceBlock {
        /// The function.
        at: Bdf,
    },
    /// A block is outside the BAR that holds it.
    #[error("register block {id} of {at} is at {offset_bytes:#x} in BAR {bar}, which does not reach there")]
    OutsideBar {
        /// The function.
        at: Bdf,
        /// The block's id.
        id: u8,
        /// The BAR.
        bar: u8,
        /// Where the block is said to begin.
        offset_bytes: u64,
    },
    /// A register block does not begin as it must.
    #[error("the register block at {hpa} begins with {value:#x}, which is no capability array")]
    NoCapabilityArray {
        /// Where.
        hpa: Hpa,
        /// What is there.
        value: u64,
    },
    /// A capability that a memory device must have is absent, or too small, or outside the block.
    #[error(
        "capability {id:#06x} of {at} is absent from its register block, or has less than {needed_bytes:#x} bytes there"
    )]
    NoCapability {
        /// The function.
        at: Bdf,
        /// The capability's id.
        id: u16,
        /// How many bytes it must have.
        needed_bytes: u64,
    },
}

/// Finds the register blocks of a function.
pub fn locate(bus: &mut dyn Bus, function: &CxlFunction) -> Result<RegisterBlocks, BlockError> {
    let at = function.bdf;
    let device = block(bus, function, REGISTER_BLOCK_DEVICE)?.ok_or(BlockError::NoDeviceBlock { at })?;
    let status_len_bytes = DEVICE_STATUS_LEN_BYTES as u64;
    let memory_device_len_bytes = MEMORY_DEVICE_STATUS_LEN_BYTES as u64;
    let event_status = device_capability(bus, at, device, CAPABILITY_DEVICE_STATUS, status_len_bytes)?.base;
    let mailbox = device_capability(bus, at, device, CAPABILITY_PRIMARY_MAILBOX, MAILBOX_PAYLOAD as u64)?;
    let memory_device_status =
        device_capability(bus, at, device, CAPABILITY_MEMORY_DEVICE_STATUS, memory_device_len_bytes)?.base;
    let hdm = match block(bus, function, REGISTER_BLOCK_COMPONENT)? {
        Some(component) => hdm_capability(bus, at, component)?,
        None => None,
    };
    Ok(RegisterBlocks { event_status, mailbox, memory_device_status, hdm })
}

/// The BAR from where the first block with this id begins.
fn block(bus: &mut dyn Bus, function: &CxlFunction, id: u8) -> Result<Option<HpaRange>, BlockError> {
    let at = function.bdf;
    let locator = dvsec(bus, at, DVSEC_REGISTER_LOCATOR).ok_or(BlockError::NoRegisterLocator { at })?;
    let entries = locator.len_bytes.saturating_sub(REGISTER_LOCATOR_BLOCKS) / REGISTER_BLOCK_LEN_BYTES;
    for entry in 0..entries {
        let offset = locator.offset + REGISTER_LOCATOR_BLOCKS + entry * REGISTER_BLOCK_LEN_BYTES;
        let low = RegisterBlockLow::from(bus.config_read(at, offset, Width::Dword));
        if low.id() != id {
            continue;
        }
        let high = bus.config_read(at, offset + 4, Width::Dword);
        let offset_bytes = u64::from(high) << 32 | u64::from(low.offset_31_16()) << 16;
        let range = function.bars.get(low.bir()).and_then(|bar| bar.tail(offset_bytes));
        return range.map(Some).ok_or(BlockError::OutsideBar { at, id, bar: low.bir(), offset_bytes });
    }
    Ok(None)
}

fn device_capability(
    bus: &mut dyn Bus,
    at: Bdf,
    block: HpaRange,
    id: u16,
    needed_bytes: u64,
) -> Result<HpaRange, BlockError> {
    let absent = BlockError::NoCapability { at, id, needed_bytes };
    let value = block.part(0, 8).map(|array| bus.read64(array.base)).ok_or(absent)?;
    let array = CapabilitiesArray::from(value);
    if array.id() != CAPABILITIES_ARRAY_ID || array.version() == 0 {
        return Err(BlockError::NoCapabilityArray { hpa: block.base, value });
    }
    let stride = CAPABILITY_HEADER_STRIDE_BYTES as u64;
    for index in 1..=u64::from(array.count()) {
        let header = block.part(index * stride, stride).ok_or(absent)?.base;
        if CapabilityHeader::from(bus.read32(header)).id() != id {
            continue;
        }
        let offset_bytes = bus.read32(Hpa(header.0 + CAPABILITY_HEADER_OFFSET as u64));
        let len_bytes = bus.read32(Hpa(header.0 + CAPABILITY_HEADER_LEN as u64));
        let range = block.part(offset_bytes.into(), len_bytes.into());
        return range.filter(|range| range.size_bytes >= needed_bytes).ok_or(absent);
    }
    Err(absent)
}

fn hdm_capability(bus: &mut dyn Bus, at: Bdf, block: HpaRange) -> Result<Option<HpaRange>, BlockError> {
    let absent = BlockError::NoCapability { at, id: COMPONENT_CAPABILITY_HDM, needed_bytes: HDM_DECODER_0 as u64 };
    let cachemem = block.part(CACHEMEM_OFFSET as u64, CACHEMEM_LEN_BYTES as u64).ok_or(absent)?;
    let value = bus.read32(cachemem.base);
    let array = ComponentCapabilityArray::from(value);
    if array.id() != COMPONENT_CAPABILITY_ID {
        return Err(BlockError::NoCapabilityArray { hpa: cachemem.base, value: value.into() });
    }
    for index in 1..=u64::from(array.count()) {
        let entry = cachemem.part(index * 4, 4).ok_or(absent)?.base;
        let entry = ComponentCapabilityEntry::from(bus.read32(entry));
        if entry.id() == COMPONENT_CAPABILITY_HDM {
            let hdm = cachemem.tail(entry.pointer().into());
            return hdm.filter(|hdm| hdm.size_bytes >= HDM_DECODER_0 as u64).map(Some).ok_or(absent);
        }
    }
    Ok(None)
}
