//! The component register block: CXL.cachemem capabilities with the device's HDM decoders (CXL r4.0 8.2.4).
//!
//! ```text
//! 0000 CXL.io registers: none
//! 1000 capability array   1080 RAS (all zero)   1110 HDM decoder capability with ten decoders
//! ```
//!
//! Deliberately absent: error records, poison on a decode error, and whether a commit succeeds.

use wire::Hpa;
use wire::component::{
    CACHEMEM_OFFSET, COMPONENT_CAPABILITY_HDM, COMPONENT_CAPABILITY_ID, COMPONENT_CAPABILITY_RAS,
    ComponentCapabilityArray, ComponentCapabilityEntry, HDM_CAPABILITY, HDM_DEVICE_DECODERS_MAX, HDM_GLOBAL_CONTROL,
    HdmCapability, HdmDecoderControl, RAS_LEN_BYTES, hdm_decoder_offset, hdm_len_bytes,
};

use crate::dwords::{self, DwordWrite};
use crate::face::CommandedWrite;
use crate::hdm_decoder::{self, DecoderWrite, HdmDecoder, LastRegister};
use crate::saved::{CommittedDecoder, LoadError, same_as_state};

const RAS_POINTER: usize = 0x80;
const HDM_POINTER: usize = 0x110;
const _: () = assert!(RAS_POINTER + RAS_LEN_BYTES <= HDM_POINTER);

const ARRAY: u64 = CACHEMEM_OFFSET as u64;
const HDM: u64 = ARRAY + HDM_POINTER as u64;
const DECODERS: u64 = HDM + hdm_decoder_offset(0) as u64;
const DECODERS_END: u64 = HDM + hdm_len_bytes(HDM_DEVICE_DECODERS_MAX) as u64;

/// How a decoder's commit went (CXL r4.0 8.2.4.20.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecoderStatus {
    /// The decoder decodes.
    Committed,
    /// The decoder was refused.
    Error,
    /// The decoder decodes no more.
    Uncommitted,
}

/// The block's registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ComponentBlock {
    pub(crate) global_control: u32,
    pub(crate) decoders: [HdmDecoder; HDM_DEVICE_DECODERS_MAX],
}

impl ComponentBlock {
    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) {
        dwords::read(offset, to, |offset| self.dword(offset));
    }

    /// Stages a write, or returns what it commands. A write of 8 bytes can reach two registers, but no two of them
    /// command anything.
    pub(crate) fn write(&mut self, offset: u64, from: &[u8]) -> Option<CommandedWrite> {
        let mut commanded = None;
        for write in dwords::write(offset, from) {
            let effect = match write.offset {
                GLOBAL_CONTROL => self.write_global_control(write),
                DECODERS..DECODERS_END => self.write_decoder(write),
                _ => None,
            };
            commanded = effect.or(commanded);
        }
        commanded
    }

    /// Shows how a commit went. What no commit bit asked for any more is not shown as committed.
    pub(crate) fn set_decoder(&mut self, decoder: u8, status: DecoderStatus) {
        if let Some(decoder) = self.decoders.get_mut(usize::from(decoder)) {
            decoder.show(status);
        }
    }

    /// Whether every commit and its undoing has been answered.
    pub(crate) fn is_settled(&self) -> bool {
        self.decoders.iter().all(HdmDecoder::is_settled)
    }

    /// The first decoder that waits for its answer.
    pub(crate) fn unanswered(&self) -> Option<u8> {
        (0u8..).zip(&self.decoders).find(|(_, decoder)| !decoder.is_settled()).map(|(index, _)| index)
    }

    /// Whether a saved block is one of the device's state, which this block shows.
    pub(crate) fn check(&self, saved: &Self) -> Result<(), LoadError> {
        let Self { global_control, decoders } = saved;
        same_as_state("HDM decoder global control", GLOBAL_CONTROL, *global_control, self.global_control)?;
        for (decoder, (saved, here)) in (0u8..).zip(decoders.iter().zip(&self.decoders)) {
            let (saved, state) = (committed(saved), committed(here));
            if saved != state {
                return Err(LoadError::Decoder { decoder, saved, state });
            }
        }
        Ok(())
    }

    pub(crate) fn restore_global_control(&mut self, control: u32) {
        self.global_control = control;
    }

    /// Sets a decoder to what its host had programmed when it set the commit bit.
    pub(crate) fn restore_decoder(&mut self, decoder: u8, base: Hpa, size_bytes: u64, skip_bytes: u64, control: u32) {
        let Some(restored) = self.decoders.get_mut(usize::from(decoder)) else { return };
        let control = HdmDecoderControl::from(control).with_commit(true);
        let control = control.with_committed(false).with_error_not_committed(false);
        *restored = HdmDecoder { base: base.0, size: size_bytes, last: skip_bytes, control };
    }

    fn write_global_control(&mut self, write: DwordWrite) -> Option<CommandedWrite> {
        let new = hdm_decoder::global_control(self.global_control, write);
        let changed = new != self.global_control;
        self.global_control = new;
        changed.then_some(CommandedWrite::HdmGlobalControl(new))
    }

    fn write_decoder(&mut self, write: DwordWrite) -> Option<CommandedWrite> {
        let (index, field) = hdm_decoder::place(write.offset - DECODERS);
        let decoder = self.decoders.get_mut(usize::from(index))?;
        let asked = decoder.write(field, LastRegister::Skip, write);
        let control = decoder.control.into();
        match asked {
            DecoderWrite::Staged => None,
            DecoderWrite::Uncommit => Some(CommandedWrite::DecoderUncommit { decoder: index, control }),
            DecoderWrite::Commit => Some(CommandedWrite::DecoderCommit {
                decoder: index,
                base: Hpa(decoder.base),
                size_bytes: decoder.size,
                skip_bytes: decoder.last,
                control,
            }),
        }
    }

    fn dword(&self, offset: u64) -> u32 {
        match offset {
            ARRAY => capability_array(2).into(),
            ARRAY_RAS => entry(COMPONENT_CAPABILITY_RAS, 2, RAS_POINTER).into(),
            ARRAY_HDM => entry(COMPONENT_CAPABILITY_HDM, 3, HDM_POINTER).into(),
            CAPABILITY => hdm_capability().into(),
            GLOBAL_CONTROL => self.global_control,
            DECODERS..DECODERS_END => {
                let (index, field) = hdm_decoder::place(offset - DECODERS);
                self.decoders.get(usize::from(index)).map_or(0, |decoder| decoder.dword(field))
            }
            _ => 0,
        }
    }
}

/// What a decoder decodes, if it does.
fn committed(decoder: &HdmDecoder) -> Option<CommittedDecoder> {
    let HdmDecoder { base, size: size_bytes, last: skip_bytes, control } = *decoder;
    let shown = CommittedDecoder { base: Hpa(base), size_bytes, skip_bytes, control: control.into() };
    control.committed().then_some(shown)
}

const ARRAY_RAS: u64 = ARRAY + 4;
const ARRAY_HDM: u64 = ARRAY + 8;
const CAPABILITY: u64 = HDM + HDM_CAPABILITY as u64;
const GLOBAL_CONTROL: u64 = HDM + HDM_GLOBAL_CONTROL as u64;

/// The header before `count` capabilities (CXL r4.0 8.2.4.1).
pub(crate) fn capability_array(count: u8) -> ComponentCapabilityArray {
    ComponentCapabilityArray::new()
        .with_id(COMPONENT_CAPABILITY_ID)
        .with_version(1)
        .with_cachemem_version(1)
        .with_count(count)
}

/// Where a capability is in the block.
pub(crate) fn entry(id: u16, version: u8, pointer: usize) -> ComponentCapabilityEntry {
    ComponentCapabilityEntry::new().with_id(id).with_version(version).with_pointer(pointer as u16)
}

fn hdm_capability() -> HdmCapability {
    HdmCapability::new()
        .with_decoder_count_code((HDM_DEVICE_DECODERS_MAX / 2) as u8)
        .with_interleave_11_8(true)
        .with_interleave_14_12(true)
        .with_ways_3_6_12(true)
        .with_ways_16(true)
        .with_coherency_models(2)
}
