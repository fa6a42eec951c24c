//! The DVSECs of a CXL root port (CXL r4.0 8.1.5, 8.1.6, 8.1.8, 8.1.9).
//!
//! ```text
//! 100 DVSEC 3 port extensions   128 DVSEC 4 GPF   138 DVSEC 7 flex bus port   158 DVSEC 8 register locator: BAR 0
//! ```
//!
//! Deliberately absent: what the port extensions would do (their control register is storage).

use wire::config_space as pci;

use crate::pci::COMPONENT_BAR;

const PORT_EXTENSIONS: u16 = pci::EXTENDED_CAPABILITIES;
const GPF: u16 = 0x128;
const FLEX_BUS: u16 = 0x138;
const LOCATOR: u16 = 0x158;
const END: u16 = 0x17c;

/// A dword of the DVSECs at power-on.
pub(crate) fn power_on(offset: u16) -> u32 {
    match offset {
        PORT_EXTENSIONS..GPF => {
            header(offset - PORT_EXTENSIONS, pci::DVSEC_PORT_EXTENSIONS, 0, GPF - PORT_EXTENSIONS, GPF)
        }
        // Both phases time out after a microsecond: what QEMU tells.
        GPF_CONTROLS => 0x0001_0001,
        GPF..FLEX_BUS => header(offset - GPF, pci::DVSEC_GPF_PORT, 0, FLEX_BUS - GPF, FLEX_BUS),
        // CXL.io, CXL.mem and 68-byte flits, as the link came up.
        FLEX_BUS_CAPABILITY => 0x26 << 16 | u32::from(pci::DVSEC_FLEX_BUS_PORT),
        FLEX_BUS_CONTROL => 0x26 << 16 | 0x02,
        FLEX_BUS..LOCATOR => header(offset - FLEX_BUS, pci::DVSEC_FLEX_BUS_PORT, 2, LOCATOR - FLEX_BUS, LOCATOR),
        LOCATOR_BLOCK_0 => {
            pci::RegisterBlockLow::new().with_bir(COMPONENT_BAR).with_id(pci::REGISTER_BLOCK_COMPONENT).into()
        }
        LOCATOR..END => header(offset - LOCATOR, pci::DVSEC_REGISTER_LOCATOR, 0, END - LOCATOR, 0),
        _ => 0,
    }
}

/// The bits of a dword that a host can write.
pub(crate) fn write_mask(offset: u16) -> u32 {
    match offset {
        PORT_EXTENSIONS_CONTROL => 0x400f,
        GPF_CONTROLS => 0x0f0f_0f0f,
        _ => 0,
    }
}

const PORT_EXTENSIONS_CONTROL: u16 = PORT_EXTENSIONS + 0x0c;
const GPF_CONTROLS: u16 = GPF + 0x0c;
const FLEX_BUS_CAPABILITY: u16 = FLEX_BUS + pci::DVSEC_ID;
const FLEX_BUS_CONTROL: u16 = FLEX_BUS + 0x0c;
const LOCATOR_BLOCK_0: u16 = LOCATOR + pci::REGISTER_LOCATOR_BLOCKS;

/// The dword at `into` bytes into a DVSEC, as far as its headers reach.
fn header(into: u16, id: u16, revision: u8, len_bytes: u16, next: u16) -> u32 {
    match into {
        0 => {
            let header = pci::ExtendedCapabilityHeader::new().with_id(pci::EXTENDED_CAPABILITY_DVSEC);
            header.with_version(1).with_next(next).into()
        }
        pci::DVSEC_HEADER_1 => {
            let header = pci::DvsecHeader1::new().with_vendor_id(pci::DVSEC_VENDOR_CXL);
            header.with_revision(revision).with_len_bytes(len_bytes).into()
        }
        pci::DVSEC_ID => u32::from(id),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_the_four_dvsecs_of_a_port() {
        let (mut found, mut offset) = (Vec::new(), 0x100);
        while offset != 0 {
            let header = power_on(offset);
            assert_eq!(header & 0xf_ffff, 0x1_0023);
            let header_1 = power_on(offset + 4);
            assert_eq!(header_1 & 0xffff, 0x1e98);
            found.push((power_on(offset + 8) & 0xffff, header_1 >> 16 & 0xf, header_1 >> 20));
            offset = (header >> 20) as u16;
        }
        assert_eq!(found, [(3, 0, 0x28), (4, 0, 0x10), (7, 2, 0x20), (8, 0, 0x24)]);
        assert_eq!(power_on(LOCATOR_BLOCK_0), 0x100);
        assert_eq!(power_on(0x140), 0x26_0007);
        assert_eq!(power_on(0x144), 0x26_0002);
    }
}
