//! The registers of one HDM decoder, as devices and host bridges have them (CXL r4.0 8.2.4.20.3 and following).
//!
//! ```text
//! +00 base   +08 size   +10 control   +14 DPA skip (in a device) or target list (in a host bridge)
//! ```
//!
//! All but the control register is staged: it stands still while the commit bit is set, so that what a host reads is
//! what was committed. Deliberately absent: whether a commit succeeds.

use wire::component::{
    HDM_DECODER_BASE_HIGH, HDM_DECODER_BASE_LOW, HDM_DECODER_CONTROL, HDM_DECODER_LOW_MASK, HDM_DECODER_SIZE_HIGH,
    HDM_DECODER_SIZE_LOW, HDM_DECODER_SKIP_HIGH, HDM_DECODER_SKIP_LOW, HDM_DECODER_STRIDE_BYTES, HdmDecoderControl,
    HdmGlobalControl,
};

use crate::component_block::DecoderStatus;
use crate::dwords::DwordWrite;

/// What the last of a decoder's 64-bit registers is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastRegister {
    /// The DPA skip: a multiple of 256 MiB.
    Skip,
    /// Eight port numbers.
    TargetList,
}

impl LastRegister {
    fn low_mask(self) -> u32 {
        match self {
            Self::Skip => HDM_DECODER_LOW_MASK,
            Self::TargetList => u32::MAX,
        }
    }
}

/// What a write asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DecoderWrite {
    /// Nothing.
    Staged,
    /// To decode what is staged.
    Commit,
    /// To decode no more.
    Uncommit,
}

/// One decoder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HdmDecoder {
    pub(crate) base: u64,
    pub(crate) size: u64,
    /// As [`LastRegister`] says.
    pub(crate) last: u64,
    pub(crate) control: HdmDecoderControl,
}

impl HdmDecoder {
    /// The dword at `field` bytes into the decoder.
    pub(crate) fn dword(&self, field: usize) -> u32 {
        match field {
            HDM_DECODER_BASE_LOW => self.base as u32,
            HDM_DECODER_BASE_HIGH => (self.base >> 32) as u32,
            HDM_DECODER_SIZE_LOW => self.size as u32,
            HDM_DECODER_SIZE_HIGH => (self.size >> 32) as u32,
            HDM_DECODER_CONTROL => self.control.into(),
            HDM_DECODER_SKIP_LOW => self.last as u32,
            HDM_DECODER_SKIP_HIGH => (self.last >> 32) as u32,
            _ => 0,
        }
    }

    /// Writes the dword at `field` bytes into the decoder.
    pub(crate) fn write(&mut self, field: usize, last: LastRegister, write: DwordWrite) -> DecoderWrite {
        if field == HDM_DECODER_CONTROL {
            return self.write_control(write);
        }
        self.write_field(field, last, write);
        DecoderWrite::Staged
    }

    /// Shows how a commit went. What no commit bit asked for any more is not shown as committed.
    pub(crate) fn show(&mut self, status: DecoderStatus) {
        let asked = self.control.commit();
        self.control.set_committed(asked && status == DecoderStatus::Committed);
        self.control.set_error_not_committed(asked && status == DecoderStatus::Error);
    }

    /// Whether a host can have brought the registers to these values.
    pub(crate) fn is_possible(&self, last: LastRegister) -> bool {
        let Self { base, size, last: last_register, control } = *self;
        let low = |register: u64, mask: u32| register as u32 & !mask == 0;
        let has_fields = low(base, HDM_DECODER_LOW_MASK) && low(size, HDM_DECODER_LOW_MASK);
        let shown = control.committed() || control.error_not_committed();
        let is_answer = !(shown && !control.commit() || control.committed() && control.error_not_committed());
        let bits = writable_control().with_committed(true).with_error_not_committed(true);
        has_fields && low(last_register, last.low_mask()) && is_answer && u32::from(control) & !u32::from(bits) == 0
    }

    /// Whether the control register shows the answer to what was last asked of it.
    pub(crate) fn is_settled(&self) -> bool {
        let control = self.control;
        control.commit() == (control.committed() || control.error_not_committed())
    }

    fn write_field(&mut self, field: usize, last: LastRegister, write: DwordWrite) {
        if self.control.commit() {
            return;
        }
        let (register, high, low_mask) = match field {
            HDM_DECODER_BASE_LOW => (&mut self.base, false, HDM_DECODER_LOW_MASK),
            HDM_DECODER_BASE_HIGH => (&mut self.base, true, 0),
            HDM_DECODER_SIZE_LOW => (&mut self.size, false, HDM_DECODER_LOW_MASK),
            HDM_DECODER_SIZE_HIGH => (&mut self.size, true, 0),
            HDM_DECODER_SKIP_LOW => (&mut self.last, false, last.low_mask()),
            HDM_DECODER_SKIP_HIGH => (&mut self.last, true, 0),
            _ => return,
        };
        let (low_half, high_half) = (*register as u32, (*register >> 32) as u32);
        let (low_half, high_half) = if high {
            (low_half, write.merge(high_half, u32::MAX))
        } else {
            (write.merge(low_half, low_mask), high_half)
        };
        *register = u64::from(high_half) << 32 | u64::from(low_half);
    }

    fn write_control(&mut self, write: DwordWrite) -> DecoderWrite {
        let old = self.control;
        if old.committed() && old.lock_on_commit() {
            return DecoderWrite::Staged;
        }
        let new = HdmDecoderControl::from(write.merge(old.into(), writable_control().into()));
        match (old.commit(), new.commit()) {
            (true, true) => DecoderWrite::Staged,
            (true, false) => {
                self.control = new.with_error_not_committed(false);
                DecoderWrite::Uncommit
            }
            (false, false) => {
                self.control = new;
                DecoderWrite::Staged
            }
            (false, true) => {
                // Committed may still show the commit before, if its end was not published yet.
                self.control = new.with_committed(false).with_error_not_committed(false);
                DecoderWrite::Commit
            }
        }
    }
}

/// The bits of a control register that a host can write.
fn writable_control() -> HdmDecoderControl {
    HdmDecoderControl::new()
        .with_interleave_granularity(0xf)
        .with_interleave_ways(0xf)
        .with_lock_on_commit(true)
        .with_commit(true)
        .with_host_only(true)
}

/// The global control register after a write.
pub(crate) fn global_control(old: u32, write: DwordWrite) -> u32 {
    write.merge(old, GLOBAL_CONTROL_WRITABLE)
}

/// The bits of the global control register that a host can write.
pub(crate) const GLOBAL_CONTROL_WRITABLE: u32 = HdmGlobalControl::new().with_hdm_enable(true).into_bits();

/// Which decoder, and where in it, for an offset into the decoders.
pub(crate) fn place(into: u64) -> (u8, usize) {
    let into = into as usize;
    ((into / HDM_DECODER_STRIDE_BYTES) as u8, into % HDM_DECODER_STRIDE_BYTES)
}
