//! Walking the two lists of capabilities in configuration space.
//!
//! Both walks are bounded by how many capabilities fit, so that a list that bites its tail ends too.

use wire::config_space::{
    CAPABILITY_POINTER, CONFIG_SPACE_LEN_BYTES, DVSEC_HEADER_1, DVSEC_ID, DVSEC_VENDOR_CXL, DvsecHeader1,
    EXTENDED_CAPABILITIES, EXTENDED_CAPABILITY_DVSEC, EXTENDED_CAPABILITY_SERIAL_NUMBER, ExtendedCapabilityHeader,
    STATUS, Status,
};

use crate::bus::{Bdf, Bus, Width};

/// Where capabilities may begin: behind the header.
const CAPABILITIES_BEGIN: u16 = 0x40;
/// Capabilities that fit into the first 256 bytes, a dword each.
const CAPABILITIES_MAX: usize = (0x100 - 0x40) / 4;
/// Extended capabilities that fit, two dwords each.
const EXTENDED_CAPABILITIES_MAX: usize = (CONFIG_SPACE_LEN_BYTES - 0x100) / 8;

/// A DVSEC of the CXL vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dvsec {
    /// Where it begins.
    pub(crate) offset: u16,
    /// Its length in bytes; it ends inside configuration space.
    pub(crate) len_bytes: u16,
}

/// Where the first capability with this id is.
pub(crate) fn capability(bus: &mut dyn Bus, at: Bdf, id: u8) -> Option<u16> {
    if !Status::from(bus.config_read(at, STATUS, Width::Word) as u16).capabilities_list() {
        return None;
    }
    let mut offset = bus.config_read(at, CAPABILITY_POINTER, Width::Byte) as u16 & 0xfc;
    for _ in 0..CAPABILITIES_MAX {
        if offset < CAPABILITIES_BEGIN {
            return None;
        }
        let [found, next, ..] = bus.config_read(at, offset, Width::Word).to_le_bytes();
        if found == id {
            return Some(offset);
        }
        offset = u16::from(next & 0xfc);
    }
    None
}

/// The first DVSEC of the CXL vendor with this id.
pub(crate) fn dvsec(bus: &mut dyn Bus, at: Bdf, id: u16) -> Option<Dvsec> {
    extended_capability(bus, at, EXTENDED_CAPABILITY_DVSEC, |bus, offset| {
        let header = DvsecHeader1::from(bus.config_read(at, offset + DVSEC_HEADER_1, Width::Dword));
        let is_it = header.vendor_id() == DVSEC_VENDOR_CXL
            && bus.config_read(at, offset + DVSEC_ID, Width::Word) == u32::from(id);
        let end = usize::from(offset) + usize::from(header.len_bytes());
        (is_it && end <= CONFIG_SPACE_LEN_BYTES).then_some(Dvsec { offset, len_bytes: header.len_bytes() })
    })
}

/// The serial number, if the function has one.
pub(crate) fn serial_number(bus: &mut dyn Bus, at: Bdf) -> Option<u64> {
    extended_capability(bus, at, EXTENDED_CAPABILITY_SERIAL_NUMBER, |bus, offset| {
        let low = bus.config_read(at, offset + 4, Width::Dword);
        let high = bus.config_read(at, offset + 8, Width::Dword);
        Some(u64::from(high) << 32 | u64::from(low))
    })
}

fn extended_capability<T>(
    bus: &mut dyn Bus,
    at: Bdf,
    id: u16,
    mut look: impl FnMut(&mut dyn Bus, u16) -> Option<T>,
) -> Option<T> {
    let mut offset = EXTENDED_CAPABILITIES;
    for _ in 0..EXTENDED_CAPABILITIES_MAX {
        // The three dwords that are read here are inside.
        if offset < EXTENDED_CAPABILITIES || usize::from(offset) + 12 > CONFIG_SPACE_LEN_BYTES {
            return None;
        }
        let header = ExtendedCapabilityHeader::from(bus.config_read(at, offset, Width::Dword));
        if header.id() == id
            && let Some(found) = look(bus, offset)
        {
            return Some(found);
        }
        offset = header.next() & 0xffc;
    }
    None
}
