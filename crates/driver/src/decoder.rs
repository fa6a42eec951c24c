//! HDM decoders: what makes a device answer at host-physical addresses.
//!
//! ```text
//! control (read) ─▶ base hi, lo ─▶ size hi, lo ─▶ skip hi, lo ─▶ control: ways, granularity, commit ─▶ poll 20 ms
//! ```
//!
//! Every field of 64 bits is written as two of 32, as Linux does. A decoder that is committed with the wanted values is
//! kept: the device outlives its host, and what is mapped need not go and come. Deliberately absent: interleaving, locks.

use wire::component::{
    HDM_CAPABILITY, HDM_DECODER_BASE_HIGH, HDM_DECODER_BASE_LOW, HDM_DECODER_CONTROL, HDM_DECODER_LOW_MASK,
    HDM_DECODER_SIZE_HIGH, HDM_DECODER_SIZE_LOW, HDM_DECODER_SKIP_HIGH, HDM_DECODER_SKIP_LOW, HDM_GLOBAL_CONTROL,
    HdmCapability, HdmDecoderControl, HdmGlobalControl, hdm_decoder_offset, hdm_len_bytes,
};
use wire::{CAPACITY_MULTIPLE_BYTES, Hpa};

use crate::bus::Bus;
use crate::platform_map::HpaRange;
use crate::poll::poll;

/// How long a commit may take; the standard allows 10 ms, Linux waits 20.
pub const COMMIT_TIMEOUT_MS: u64 = 20;

/// What a decoder decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderRange {
    /// Host-physical addresses, a multiple of 256 MiB.
    pub hpa: HpaRange,
    /// Device-physical addresses left out before it, in bytes.
    pub skip_bytes: u64,
}

/// How a decoder came to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programmed {
    /// It was programmed and committed.
    Committed,
    /// It was committed with these values before.
    Kept,
}

/// Why a decoder does not decode what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecoderError {
    /// The capability names a number of decoders that no device has, or that its block does not hold.
    #[error(
        "the HDM decoder capability at {hpa} reads {capability:#010x}, whose decoders do not fit its {block_len_bytes:#x} bytes"
    )]
    Capability {
        /// The capability.
        hpa: Hpa,
        /// Its first register.
        capability: u32,
        /// What its block holds.
        block_len_bytes: u64,
    },
    /// There is no such decoder.
    #[error("decoder {index} was asked for, but the device has {count}")]
    NoSuchDecoder {
        /// The decoder.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// Decoders count in units of 256 MiB.
    #[error(
        "decoder {index} cannot decode {size_bytes:#x} bytes at {base} after {skip_bytes:#x}: all must be multiples of 256 MiB"
    )]
    Granule {
        /// The decoder.
        index: usize,
        /// The base.
        base: Hpa,
        /// The size.
        size_bytes: u64,
        /// The skip.
        skip_bytes: u64,
    },
    /// The decoder is locked with other values until reset.
    #[error("decoder {index} is locked on {size_bytes:#x} bytes at {base} until the device is reset")]
    Locked {
        /// The decoder.
        index: usize,
        /// Its base.
        base: Hpa,
        /// Its size.
        size_bytes: u64,
    },
    /// The device refused the values.
    #[error("the device refused to commit decoder {index} with {size_bytes:#x} bytes at {base}")]
    Refused {
        /// The decoder.
        index: usize,
        /// The base.
        base: Hpa,
        /// The size.
        size_bytes: u64,
    },
    /// The device did not commit or uncommit in time.
    #[error("decoder {index} still reads control {control:#x} after {timeout_ms} ms")]
    Timeout {
        /// The decoder.
        index: usize,
        /// Its control register.
        control: u32,
        /// How long it was waited for.
        timeout_ms: u64,
    },
}

/// A device's HDM decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HdmDecoders {
    base: Hpa,
    count: usize,
}

impl HdmDecoders {
    /// Takes the decoders of a capability that begins a block.
    pub fn open(bus: &mut dyn Bus, block: HpaRange) -> Result<Self, DecoderError> {
        let capability = HdmCapability::from(bus.read32(Hpa(block.base.0 + HDM_CAPABILITY as u64)));
        let error = DecoderError::Capability {
            hpa: block.base,
            capability: capability.into(),
            block_len_bytes: block.size_bytes,
        };
        let count = capability.decoder_count().ok_or(error)?;
        block.part(0, hdm_len_bytes(count) as u64).ok_or(error)?;
        Ok(Self { base: block.base, count })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Lets decoders count instead of the ranges of DVSEC 0.
    pub fn enable(&self, bus: &mut dyn Bus) {
        let register = Hpa(self.base.0 + HDM_GLOBAL_CONTROL as u64);
        let control = HdmGlobalControl::from(bus.read32(register));
        if !control.hdm_enable() {
            bus.write32(register, control.with_hdm_enable(true).into());
        }
    }

    /// What a decoder holds now, committed or not.
    pub fn read(&self, bus: &mut dyn Bus, index: usize) -> Result<(DecoderRange, HdmDecoderControl), DecoderError> {
        let decoder = self.decoder(index)?;
        let control = decoder.control(bus);
        Ok((decoder.range(bus), control))
    }

    /// Makes a decoder decode a range; one that is committed otherwise is uncommitted first.
    pub fn program(&self, bus: &mut dyn Bus, index: usize, range: DecoderRange) -> Result<Programmed, DecoderError> {
        let (base, size_bytes, skip_bytes) = (range.hpa.base, range.hpa.size_bytes, range.skip_bytes);
        if ![base.0, size_bytes, skip_bytes].iter().all(|value| value.is_multiple_of(CAPACITY_MULTIPLE_BYTES)) {
            return Err(DecoderError::Granule { index, base, size_bytes, skip_bytes });
        }
        let decoder = self.decoder(index)?;
        let control = decoder.control(bus);
        if control.committed() {
            if control.interleave_ways() == 0 && decoder.range(bus) == range {
                return Ok(Programmed::Kept);
            }
            self.uncommit(bus, index)?;
        }
        decoder.write_pair(bus, HDM_DECODER_BASE_HIGH, HDM_DECODER_BASE_LOW, base.0);
        decoder.write_pair(bus, HDM_DECODER_SIZE_HIGH, HDM_DECODER_SIZE_LOW, size_bytes);
        decoder.write_pair(bus, HDM_DECODER_SKIP_HIGH, HDM_DECODER_SKIP_LOW, skip_bytes);
        let commit = HdmDecoderControl::new().with_host_only(true).with_commit(true);
        bus.write32(decoder.register(HDM_DECODER_CONTROL), commit.into());
        decoder.await_commit(bus, range)
    }

    /// Makes a decoder decode nothing.
    pub fn uncommit(&self, bus: &mut dyn Bus, index: usize) -> Result<(), DecoderError> {
        let decoder = self.decoder(index)?;
        let control = decoder.control(bus);
        if control.committed() && control.lock_on_commit() {
            let hpa = decoder.range(bus).hpa;
            return Err(DecoderError::Locked { index, base: hpa.base, size_bytes: hpa.size_bytes });
        }
        bus.write32(decoder.register(HDM_DECODER_CONTROL), control.with_commit(false).into());
        poll(bus, COMMIT_TIMEOUT_MS, |bus| (!decoder.control(bus).committed()).then_some(()))
            .ok_or_else(|| decoder.timeout(bus))?;
        decoder.write_pair(bus, HDM_DECODER_SIZE_HIGH, HDM_DECODER_SIZE_LOW, 0);
        decoder.write_pair(bus, HDM_DECODER_BASE_HIGH, HDM_DECODER_BASE_LOW, 0);
        Ok(())
    }

    fn decoder(&self, index: usize) -> Result<Decoder, DecoderError> {
        if index >= self.count {
            return Err(DecoderError::NoSuchDecoder { index, count: self.count });
        }
        Ok(Decoder { index, base: Hpa(self.base.0 + hdm_decoder_offset(index) as u64) })
    }
}

/// One decoder's registers.
#[derive(Clone, Copy)]
struct Decoder {
    index: usize,
    base: Hpa,
}

impl Decoder {
    fn register(self, offset: usize) -> Hpa {
        Hpa(self.base.0 + offset as u64)
    }

    fn control(self, bus: &mut dyn Bus) -> HdmDecoderControl {
        bus.read32(self.register(HDM_DECODER_CONTROL)).into()
    }

    fn range(self, bus: &mut dyn Bus) -> DecoderRange {
        let base = Hpa(self.read_pair(bus, HDM_DECODER_BASE_HIGH, HDM_DECODER_BASE_LOW));
        let size_bytes = self.read_pair(bus, HDM_DECODER_SIZE_HIGH, HDM_DECODER_SIZE_LOW);
        let skip_bytes = self.read_pair(bus, HDM_DECODER_SKIP_HIGH, HDM_DECODER_SKIP_LOW);
        DecoderRange { hpa: HpaRange { base, size_bytes }, skip_bytes }
    }

    fn read_pair(self, bus: &mut dyn Bus, high: usize, low: usize) -> u64 {
        let high = bus.read32(self.register(high));
        let low = bus.read32(self.register(low)) & HDM_DECODER_LOW_MASK;
        u64::from(high) << 32 | u64::from(low)
    }

    fn write_pair(self, bus: &mut dyn Bus, high: usize, low: usize, value: u64) {
        bus.write32(self.register(high), (value >> 32) as u32);
        bus.write32(self.register(low), value as u32);
    }

    fn await_commit(self, bus: &mut dyn Bus, range: DecoderRange) -> Result<Programmed, DecoderError> {
        let HpaRange { base, size_bytes } = range.hpa;
        let resolved = poll(bus, COMMIT_TIMEOUT_MS, |bus| {
            let control = self.control(bus);
            (control.committed() || control.error_not_committed()).then_some(control)
        });
        match resolved {
            Some(control) if control.committed() => Ok(Programmed::Committed),
            Some(control) => {
                bus.write32(self.register(HDM_DECODER_CONTROL), control.with_commit(false).into());
                Err(DecoderError::Refused { index: self.index, base, size_bytes })
            }
            None => Err(self.timeout(bus)),
        }
    }

    fn timeout(self, bus: &mut dyn Bus) -> DecoderError {
        DecoderError::Timeout { index: self.index, control: self.control(bus).into(), timeout_ms: COMMIT_TIMEOUT_MS }
    }
}
