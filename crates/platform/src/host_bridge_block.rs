//! The component registers of the CXL host bridge: CXL.cachemem capabilities with its HDM decoders (CXL r4.0 8.2.4.20).
//!
//! ```text
//! 0000 CXL.io registers: none
//! 1000 capability array   1110 HDM decoder capability: eight decoders, each with up to eight targets
//!
//! committed decoder ──▶ memory::Route: granule n of its range goes to root port targets[n mod ways]
//! ```
//!
//! Nobody but the platform has to agree, so a commit is decided while it is written. It fails where the interleave is
//! none of the standard's or has more ways than there are targets, where the range leaves the address space, and where
//! another committed decoder has one of its addresses. As with devices, the global enable need not be set. Deliberately
//! absent: a record of the registers; a host programs them anew after every boot.

use memory::Route;
use wire::Hpa;
use wire::component::{
    CACHEMEM_OFFSET, COMPONENT_CAPABILITY_HDM, HDM_CAPABILITY, HDM_GLOBAL_CONTROL, HdmCapability, hdm_decoder_offset,
    hdm_len_bytes,
};

use device::config::DeviceIndex;
use device::decode::{Granularity, Ways};

use crate::component_block::{DecoderStatus, capability_array, entry};
use crate::dwords::{self, DwordWrite};
use crate::hdm_decoder::{self, DecoderWrite, HdmDecoder, LastRegister};

/// Decoders of the host bridge.
const DECODER_COUNT: usize = 8;
/// Targets of each decoder: bytes of its target list register.
const TARGET_COUNT: usize = 8;

const HDM_POINTER: usize = 0x110;
const ARRAY: u64 = CACHEMEM_OFFSET as u64;
const ARRAY_HDM: u64 = ARRAY + 4;
const HDM: u64 = ARRAY + HDM_POINTER as u64;
const CAPABILITY: u64 = HDM + HDM_CAPABILITY as u64;
const GLOBAL_CONTROL: u64 = HDM + HDM_GLOBAL_CONTROL as u64;
const DECODERS: u64 = HDM + hdm_decoder_offset(0) as u64;
const DECODERS_END: u64 = HDM + hdm_len_bytes(DECODER_COUNT) as u64;

/// What a write changed for accesses to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoutesChange {
    /// Nothing.
    Same,
    /// [`HostBridgeBlock::routes`] has changed.
    Changed,
}

/// The block's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostBridgeBlock {
    pub(crate) global_control: u32,
    pub(crate) decoders: [HdmDecoder; DECODER_COUNT],
}

impl HostBridgeBlock {
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) {
        dwords::read(offset, to, |offset| self.dword(offset));
    }

    pub(crate) fn write(&mut self, offset: u64, from: &[u8]) -> RoutesChange {
        let mut change = RoutesChange::Same;
        for write in dwords::write(offset, from) {
            match write.offset {
                GLOBAL_CONTROL => self.global_control = hdm_decoder::global_control(self.global_control, write),
                DECODERS..DECODERS_END if self.write_decoder(write) == RoutesChange::Changed => {
                    change = RoutesChange::Changed;
                }
                _ => {}
            }
        }
        change
    }

    /// What the committed decoders spread over root ports.
    pub(crate) fn routes(&self) -> Vec<Route> {
        self.decoders.iter().filter(|decoder| decoder.control.committed()).filter_map(|d| route(d).flatten()).collect()
    }

    /// Whether what is committed can be, all of it at once.
    pub(crate) fn is_possible(&self) -> bool {
        let committed = self.decoders.iter().filter(|decoder| decoder.control.committed());
        let Some(routes) = committed.map(route).collect::<Option<Vec<_>>>() else { return false };
        let routes: Vec<_> = routes.into_iter().flatten().collect();
        !(1..routes.len()).any(|index| routes[..index].iter().any(|other| other.overlaps(&routes[index])))
    }

    fn write_decoder(&mut self, write: DwordWrite) -> RoutesChange {
        let (index, field) = hdm_decoder::place(write.offset - DECODERS);
        let Some(decoder) = self.decoders.get_mut(usize::from(index)) else { return RoutesChange::Same };
        let status = match decoder.write(field, LastRegister::TargetList, write) {
            DecoderWrite::Staged => return RoutesChange::Same,
            DecoderWrite::Uncommit => DecoderStatus::Uncommitted,
            DecoderWrite::Commit => {
                // Its own committed bit is clear, so the others are all that decode.
                let staged = route(decoder);
                let others = self.routes();
                let fits = |route: &Route| !others.iter().any(|other| other.overlaps(route));
                match staged {
                    Some(route) if route.as_ref().is_none_or(fits) => DecoderStatus::Committed,
                    _ => DecoderStatus::Error,
                }
            }
        };
        self.decoders[usize::from(index)].show(status);
        RoutesChange::Changed
    }

    fn dword(&self, offset: u64) -> u32 {
        match offset {
            ARRAY => capability_array(1).into(),
            ARRAY_HDM => entry(COMPONENT_CAPABILITY_HDM, 3, HDM_POINTER).into(),
            CAPABILITY => capability().into(),
            GLOBAL_CONTROL => self.global_control,
            DECODERS..DECODERS_END => {
                let (index, field) = hdm_decoder::place(offset - DECODERS);
                self.decoders.get(usize::from(index)).map_or(0, |decoder| decoder.dword(field))
            }
            _ => 0,
        }
    }
}

fn capability() -> HdmCapability {
    HdmCapability::new()
        .with_decoder_count_code((DECODER_COUNT / 2) as u8)
        .with_target_count(TARGET_COUNT as u8)
        .with_interleave_11_8(true)
        .with_interleave_14_12(true)
        .with_ways_3_6_12(true)
}

/// What a decoder would spread: `Some(None)` for size 0, which is legal, `None` for what cannot be committed.
fn route(decoder: &HdmDecoder) -> Option<Option<Route>> {
    let granularity = Granularity::from_code(decoder.control.interleave_granularity())?;
    let ways = Ways::from_code(decoder.control.interleave_ways()).map(|ways| usize::from(ways.count()))?;
    let targets = decoder.last.to_le_bytes();
    let targets = targets.get(..ways)?.iter().copied().map(DeviceIndex).collect();
    if decoder.size == 0 {
        return Some(None);
    }
    Route::new(Hpa(decoder.base), decoder.size, granularity, targets).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DECODER_1: u64 = DECODERS + 0x20;

    fn write(block: &mut HostBridgeBlock, offset: u64, value: u32) -> RoutesChange {
        block.write(offset, &value.to_le_bytes())
    }

    fn read(block: &HostBridgeBlock, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        block.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Programs and commits a decoder from 4 GiB on; its control register then.
    fn commit(block: &mut HostBridgeBlock, at: u64, base_low: u32, size_low: u32, targets: u32, control: u32) -> u32 {
        write(block, at + 0x10, 0);
        for (field, value) in [(0, base_low), (4, 1), (8, size_low), (12, 0), (0x14, targets), (0x18, 0x0706_0504)] {
            assert_eq!(write(block, at + field, value), RoutesChange::Same);
        }
        assert_eq!(write(block, at + 0x10, control | 0x200), RoutesChange::Changed);
        read(block, at + 0x10)
    }

    fn expected(base: u64, size_bytes: u64, targets: &[u8]) -> Route {
        let targets = targets.iter().copied().map(DeviceIndex).collect();
        Route::new(Hpa(base), size_bytes, Granularity::MIN, targets).unwrap()
    }

    #[test]
    fn a_driver_finds_eight_decoders_of_eight_targets() {
        let block = HostBridgeBlock::default();
        assert_eq!(read(&block, 0x1000), 0x0111_0001);
        assert_eq!(read(&block, 0x1004), 0x1103_0005);
        assert_eq!(read(&block, 0x1110) & 0xff, 0x84);
    }

    #[test]
    fn a_commit_is_decided_at_once() {
        let mut block = HostBridgeBlock::default();
        assert_eq!(commit(&mut block, DECODERS, 0x1000_0000, 0x2000_0000, 0x0100, 0x1010), 0x1610);
        assert_eq!(block.routes(), [expected(0x1_1000_0000, 0x2000_0000, &[0, 1])]);
        // Registers stand still while committed.
        assert_eq!(write(&mut block, DECODERS, 0x4000_0000), RoutesChange::Same);
        assert_eq!(read(&block, DECODERS), 0x1000_0000);
        // One address of the first one, then the one behind it.
        assert_eq!(commit(&mut block, DECODER_1, 0x2000_0000, 0x1000_0000, 2, 0) & 0xe00, 0xa00);
        assert_eq!(commit(&mut block, DECODER_1, 0x3000_0000, 0x1000_0000, 2, 0) & 0xe00, 0x600);
        assert_eq!(block.routes().len(), 2);
        assert_eq!(write(&mut block, DECODERS + 0x10, 0x10), RoutesChange::Changed);
        assert_eq!(read(&block, DECODERS + 0x10), 0x10);
        assert_eq!(block.routes(), [expected(0x1_3000_0000, 0x1000_0000, &[2])]);
    }

    #[test]
    fn what_cannot_be_decoded_is_an_error() {
        let mut block = HostBridgeBlock::default();
        for control in [0x50, 0x40, 0xa0, 0xf0, 0x07] {
            assert_eq!(commit(&mut block, DECODERS, 0, 0x1000_0000, 0, control) & 0xe00, 0xa00, "{control:#x}");
        }
        write(&mut block, DECODERS + 0x10, 0);
        assert_eq!(commit(&mut block, DECODERS, 0, 0, 0, 0) & 0xe00, 0x600, "size 0 is legal");
        assert!(block.routes().is_empty());
        assert_eq!(commit(&mut block, DECODERS, 0, 0x1000_0000, 0x0302_0100, 0x30) & 0xe00, 0x600);
        assert_eq!(block.routes(), [expected(1 << 32, 0x1000_0000, &[0, 1, 2, 3, 4, 5, 6, 7])]);
        write(&mut block, DECODERS + 0x10, 0);
        write(&mut block, DECODERS + 4, u32::MAX);
        write(&mut block, DECODERS, 0xf000_0000);
        write(&mut block, DECODERS + 0x10, 0x200);
        assert_eq!(read(&block, DECODERS + 0x10) & 0xe00, 0xa00, "it would leave the address space");
    }

    #[test]
    fn a_locked_decoder_stays() {
        let mut block = HostBridgeBlock::default();
        assert_eq!(commit(&mut block, DECODERS, 0, 0x1000_0000, 0, 0x100), 0x700);
        assert_eq!(write(&mut block, DECODERS + 0x10, 0), RoutesChange::Same);
        assert_eq!(block.routes().len(), 1);
    }
}
