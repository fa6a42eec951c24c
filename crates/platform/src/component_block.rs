//! The component register block: CXL.cachemem capabilities with the device's HDM decoders (CXL r4.0 8.2.4).
//!
//! ```text
//! 0000 CXL.io registers: none
//! 1000 capability array   1080 RAS (all zero)   1110 HDM decoder capability with ten decoders
//! ```
//!
//! Base, size and skip are staged until the commit bit is set; from then on until it is cleared they do not change, so
//! what a host reads is what was committed. Deliberately absent: error records, poison on a decode error, and whether a
//! commit succeeds.

use wire::Hpa;
use wire::component::{
    CACHEMEM_OFFSET, COMPONENT_CAPABILITY_HDM, COMPONENT_CAPABILITY_ID, COMPONENT_CAPABILITY_RAS,
    ComponentCapabilityArray, ComponentCapabilityEntry, HDM_CAPABILITY, HDM_DECODER_BASE_HIGH, HDM_DECODER_BASE_LOW,
    HDM_DECODER_CONTROL, HDM_DECODER_LOW_MASK, HDM_DECODER_SIZE_HIGH, HDM_DECODER_SIZE_LOW, HDM_DECODER_SKIP_HIGH,
    HDM_DECODER_SKIP_LOW, HDM_DECODER_STRIDE_BYTES, HDM_DEVICE_DECODERS_MAX, HDM_GLOBAL_CONTROL, HdmCapability,
    HdmDecoderControl, HdmGlobalControl, RAS_LEN_BYTES, hdm_decoder_offset, hdm_len_bytes,
};

use crate::dwords::{self, DwordWrite};
use crate::face::CommandedWrite;

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
#[derive(Debug, Default)]
pub(crate) struct ComponentBlock {
    global_control: u32,
    decoders: [Decoder; HDM_DEVICE_DECODERS_MAX],
}

#[derive(Clone, Copy, Debug, Default)]
struct Decoder {
    base: u64,
    size: u64,
    skip: u64,
    control: HdmDecoderControl,
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
        let Some(Decoder { control, .. }) = self.decoders.get_mut(usize::from(decoder)) else { return };
        let asked = control.commit();
        control.set_committed(asked && status == DecoderStatus::Committed);
        control.set_error_not_committed(asked && status == DecoderStatus::Error);
    }

    pub(crate) fn restore_global_control(&mut self, control: u32) {
        self.global_control = control;
    }

    /// Sets a decoder to what its host had programmed when it set the commit bit.
    pub(crate) fn restore_decoder(&mut self, decoder: u8, base: Hpa, size_bytes: u64, skip_bytes: u64, control: u32) {
        let Some(restored) = self.decoders.get_mut(usize::from(decoder)) else { return };
        let control = HdmDecoderControl::from(control).with_commit(true);
        let control = control.with_committed(false).with_error_not_committed(false);
        *restored = Decoder { base: base.0, size: size_bytes, skip: skip_bytes, control };
    }

    fn write_global_control(&mut self, write: DwordWrite) -> Option<CommandedWrite> {
        let writable = HdmGlobalControl::new().with_hdm_enable(true);
        let new = write.merge(self.global_control, writable.into());
        let changed = new != self.global_control;
        self.global_control = new;
        changed.then_some(CommandedWrite::HdmGlobalControl(new))
    }

    fn write_decoder(&mut self, write: DwordWrite) -> Option<CommandedWrite> {
        let (index, field) = decoder_field(write.offset);
        let decoder = self.decoders.get_mut(usize::from(index))?;
        if field == HDM_DECODER_CONTROL {
            return decoder.write_control(index, write);
        }
        decoder.write_field(field, write);
        None
    }

    fn dword(&self, offset: u64) -> u32 {
        match offset {
            ARRAY => ComponentCapabilityArray::new()
                .with_id(COMPONENT_CAPABILITY_ID)
                .with_version(1)
                .with_cachemem_version(1)
                .with_count(2)
                .into(),
            ARRAY_RAS => entry(COMPONENT_CAPABILITY_RAS, 2, RAS_POINTER).into(),
            ARRAY_HDM => entry(COMPONENT_CAPABILITY_HDM, 3, HDM_POINTER).into(),
            CAPABILITY => hdm_capability().into(),
            GLOBAL_CONTROL => self.global_control,
            DECODERS..DECODERS_END => {
                let (index, field) = decoder_field(offset);
                self.decoders.get(usize::from(index)).map_or(0, |decoder| decoder.dword(field))
            }
            _ => 0,
        }
    }
}

const ARRAY_RAS: u64 = ARRAY + 4;
const ARRAY_HDM: u64 = ARRAY + 8;
const CAPABILITY: u64 = HDM + HDM_CAPABILITY as u64;
const GLOBAL_CONTROL: u64 = HDM + HDM_GLOBAL_CONTROL as u64;

impl Decoder {
    fn dword(&self, field: usize) -> u32 {
        match field {
            HDM_DECODER_BASE_LOW => self.base as u32,
            HDM_DECODER_BASE_HIGH => (self.base >> 32) as u32,
            HDM_DECODER_SIZE_LOW => self.size as u32,
            HDM_DECODER_SIZE_HIGH => (self.size >> 32) as u32,
            HDM_DECODER_CONTROL => self.control.into(),
            HDM_DECODER_SKIP_LOW => self.skip as u32,
            HDM_DECODER_SKIP_HIGH => (self.skip >> 32) as u32,
            _ => 0,
        }
    }

    /// Fields stand still while the commit bit is set.
    fn write_field(&mut self, field: usize, write: DwordWrite) {
        if self.control.commit() {
            return;
        }
        let (register, high) = match field {
            HDM_DECODER_BASE_LOW => (&mut self.base, false),
            HDM_DECODER_BASE_HIGH => (&mut self.base, true),
            HDM_DECODER_SIZE_LOW => (&mut self.size, false),
            HDM_DECODER_SIZE_HIGH => (&mut self.size, true),
            HDM_DECODER_SKIP_LOW => (&mut self.skip, false),
            HDM_DECODER_SKIP_HIGH => (&mut self.skip, true),
            _ => return,
        };
        let (low_half, high_half) = (*register as u32, (*register >> 32) as u32);
        let (low_half, high_half) = if high {
            (low_half, write.merge(high_half, u32::MAX))
        } else {
            (write.merge(low_half, HDM_DECODER_LOW_MASK), high_half)
        };
        *register = u64::from(high_half) << 32 | u64::from(low_half);
    }

    fn write_control(&mut self, index: u8, write: DwordWrite) -> Option<CommandedWrite> {
        let old = self.control;
        if old.committed() && old.lock_on_commit() {
            return None;
        }
        let writable = HdmDecoderControl::new()
            .with_interleave_granularity(0xf)
            .with_interleave_ways(0xf)
            .with_lock_on_commit(true)
            .with_commit(true)
            .with_host_only(true);
        let new = HdmDecoderControl::from(write.merge(old.into(), writable.into()));
        match (old.commit(), new.commit()) {
            (true, true) => None,
            (true, false) => {
                self.control = new.with_error_not_committed(false);
                Some(CommandedWrite::DecoderUncommit { decoder: index, control: self.control.into() })
            }
            (false, false) => {
                self.control = new;
                None
            }
            (false, true) => {
                // Committed may still show the commit before, if its end was not published yet.
                self.control = new.with_committed(false).with_error_not_committed(false);
                Some(CommandedWrite::DecoderCommit {
                    decoder: index,
                    base: Hpa(self.base),
                    size_bytes: self.size,
                    skip_bytes: self.skip,
                    control: self.control.into(),
                })
            }
        }
    }
}

/// Which decoder, and where in it, for an offset among the decoders.
fn decoder_field(offset: u64) -> (u8, usize) {
    let into = (offset - DECODERS) as usize;
    ((into / HDM_DECODER_STRIDE_BYTES) as u8, into % HDM_DECODER_STRIDE_BYTES)
}

fn entry(id: u16, version: u8, pointer: usize) -> ComponentCapabilityEntry {
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
