//! Waiting until a device can be talked to, and turning CXL.mem on.
//!
//! ```text
//! DVSEC 0: each range valid (1 s), active (60 s) ─▶ memory device status: media ready, mailbox ready (60 s)
//! ```
//!
//! Linux waits for the ranges even where their size is 0, and so does this. Deliberately absent: use of the ranges' sizes.

use wire::Hpa;
use wire::config_space::{
    CXL_DEVICE_CAPABILITY, CXL_DEVICE_CONTROL, CXL_DEVICE_RANGE_1_SIZE_HIGH, CXL_DEVICE_RANGE_1_SIZE_LOW,
    CXL_DEVICE_RANGE_STRIDE_BYTES, CxlCapability, CxlControl, DVSEC_CXL_DEVICE, RangeSizeLow,
};
use wire::registers::{MEDIA_NOT_READY, MEDIA_READY, MemoryDeviceStatus};

use crate::bus::{Bdf, Bus, Width};
use crate::capabilities::{Dvsec, dvsec};
use crate::poll::poll;

/// How long a range may take to become valid.
pub const RANGE_VALID_TIMEOUT_MS: u64 = 1_000;
/// How long media and mailbox may take to become ready.
pub const READY_TIMEOUT_MS: u64 = 60_000;

/// Both ranges; what follows them came with later revisions.
const DEVICE_DVSEC_LEN_BYTES_MIN: u16 = CXL_DEVICE_RANGE_1_SIZE_HIGH + 2 * CXL_DEVICE_RANGE_STRIDE_BYTES;

/// Why a device cannot be talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MediaError {
    /// There is no DVSEC 0, or one without its ranges.
    #[error("{at} has no CXL device DVSEC (DVSEC 0) that reaches to the end of its two ranges")]
    NoDeviceDvsec {
        /// The function.
        at: Bdf,
    },
    /// DVSEC 0 describes no memory device.
    #[error("{at} shows CXL capabilities {capability:#06x}: CXL.mem with 1 or 2 ranges is needed")]
    NoMemory {
        /// The function.
        at: Bdf,
        /// The capability register.
        capability: u16,
    },
    /// A range did not become valid or active in time.
    #[error("range {range} of {at} was not valid and active within {timeout_ms} ms")]
    RangeTimeout {
        /// The function.
        at: Bdf,
        /// Which range, from 1.
        range: u16,
        /// How long it was waited for.
        timeout_ms: u64,
    },
    /// The device reports that it does not work.
    #[error("the memory device status of {at} is {status:#x}: fatal, firmware halted, or media that will not be ready")]
    Failed {
        /// The function.
        at: Bdf,
        /// The status register.
        status: u64,
    },
    /// The device did not become ready in time.
    #[error(
        "the memory device status of {at} was still {status:#x} after {timeout_ms} ms: media and mailbox not ready"
    )]
    ReadyTimeout {
        /// The function.
        at: Bdf,
        /// The status register.
        status: u64,
        /// How long it was waited for.
        timeout_ms: u64,
    },
}

/// Waits until media and mailbox are ready.
pub fn await_ready(bus: &mut dyn Bus, at: Bdf, memory_device_status: Hpa) -> Result<(), MediaError> {
    let device = device_dvsec(bus, at)?;
    let capability = bus.config_read(at, device.offset + CXL_DEVICE_CAPABILITY, Width::Word) as u16;
    let ranges = CxlCapability::from(capability).hdm_count();
    if !CxlCapability::from(capability).mem_capable() || !(1..=2).contains(&ranges) {
        return Err(MediaError::NoMemory { at, capability });
    }
    for range in 0..u16::from(ranges) {
        let size_low = device.offset + CXL_DEVICE_RANGE_1_SIZE_LOW + range * CXL_DEVICE_RANGE_STRIDE_BYTES;
        await_range(bus, at, range + 1, size_low)?;
    }
    await_status(bus, at, memory_device_status)
}

fn await_range(bus: &mut dyn Bus, at: Bdf, range: u16, size_low: u16) -> Result<(), MediaError> {
    let await_bit = |bus: &mut dyn Bus, timeout_ms, bit: fn(RangeSizeLow) -> bool| {
        poll(bus, timeout_ms, |bus| bit(bus.config_read(at, size_low, Width::Dword).into()).then_some(()))
            .ok_or(MediaError::RangeTimeout { at, range, timeout_ms })
    };
    await_bit(bus, RANGE_VALID_TIMEOUT_MS, |low| low.memory_info_valid())?;
    await_bit(bus, READY_TIMEOUT_MS, |low| low.memory_active())
}

fn await_status(bus: &mut dyn Bus, at: Bdf, register: Hpa) -> Result<(), MediaError> {
    let answer = poll(bus, READY_TIMEOUT_MS, |bus| {
        let status = MemoryDeviceStatus::from(bus.read64(register));
        let has_failed = status.device_fatal()
            || status.firmware_halt()
            || !matches!(status.media_status(), MEDIA_NOT_READY | MEDIA_READY);
        if has_failed {
            return Some(Err(MediaError::Failed { at, status: status.into() }));
        }
        (status.media_status() == MEDIA_READY && status.mailbox_interfaces_ready()).then_some(Ok(()))
    });
    answer.unwrap_or_else(|| {
        let status = bus.read64(register);
        Err(MediaError::ReadyTimeout { at, status, timeout_ms: READY_TIMEOUT_MS })
    })
}

fn device_dvsec(bus: &mut dyn Bus, at: Bdf) -> Result<Dvsec, MediaError> {
    let found = dvsec(bus, at, DVSEC_CXL_DEVICE).filter(|device| device.len_bytes >= DEVICE_DVSEC_LEN_BYTES_MIN);
    found.ok_or(MediaError::NoDeviceDvsec { at })
}

/// Lets a device answer CXL.mem.
pub(crate) fn enable_mem(bus: &mut dyn Bus, at: Bdf) -> Result<(), MediaError> {
    let device = device_dvsec(bus, at)?;
    let offset = device.offset + CXL_DEVICE_CONTROL;
    let control = CxlControl::from(bus.config_read(at, offset, Width::Word) as u16);
    if !control.mem_enable() {
        bus.config_write(at, offset, Width::Word, u16::from(control.with_mem_enable(true)).into());
    }
    Ok(())
}
