//! The pages that this program shares with its host, and the exact loads and stores on them.

use core::mem::offset_of;

use guest::place::{self, BOOT_PAGE, STATUS_PAGE, vcpu_block};
use guest::{BootPage, JobPage, StatusPage, StatusState, TEXT_LEN_BYTES_MAX, Text, VcpuPage};

use crate::access::{Wide, load, store};
use crate::ring0;

/// What the host tells.
#[derive(Clone, Copy)]
pub(crate) struct Boot;

impl Boot {
    /// The page as it is now. What changes while the guest runs is read one by one.
    pub(crate) fn page(self) -> BootPage {
        // SAFETY: the host has filled the page before the first instruction, and every bit pattern is a page.
        unsafe { core::ptr::read_volatile(BOOT_PAGE as *const BootPage) }
    }

    pub(crate) fn attention(self) -> u64 {
        word(BOOT_PAGE, offset_of!(BootPage, attention))
    }

    pub(crate) fn clock_sequence(self) -> u64 {
        word(BOOT_PAGE, offset_of!(BootPage, clock_sequence))
    }

    pub(crate) fn wall_ms(self) -> u64 {
        word(BOOT_PAGE, offset_of!(BootPage, wall_ms))
    }

    pub(crate) fn tsc_khz(self) -> u64 {
        word(BOOT_PAGE, offset_of!(BootPage, tsc_khz))
    }

    /// Whether a device has not answered a command.
    pub(crate) fn is_owed(self) -> bool {
        word(BOOT_PAGE, offset_of!(BootPage, owed)) != 0
    }
}

/// This vCPU's own pages.
#[derive(Clone, Copy)]
pub(crate) struct Vcpu {
    number: u32,
}

impl Vcpu {
    pub(crate) fn new(number: u32) -> Self {
        Self { number }
    }

    fn block(self) -> u64 {
        vcpu_block(self.number)
    }

    /// Interrupts so far.
    pub(crate) fn interrupts(self) -> u64 {
        word(self.block() + place::VCPU_PAGE, offset_of!(VcpuPage, interrupts))
    }

    /// Interrupts of devices so far.
    pub(crate) fn device_interrupts(self) -> u64 {
        word(self.block() + place::VCPU_PAGE, offset_of!(VcpuPage, device_interrupts))
    }

    /// Sleeps until there are more interrupts than `seen`, or `limit_ms` is over.
    pub(crate) fn park(self, seen: u64, limit_us: u64) {
        // The timer counts nanoseconds in 32 bits.
        let limit_ns = limit_us.saturating_mul(1_000).min(u64::from(u32::MAX));
        ring0::park(seen, limit_ns as u32);
    }

    /// A word of the job page.
    pub(crate) fn job(self, offset: usize) -> u64 {
        word(self.block() + place::JOB_PAGE, offset)
    }

    pub(crate) fn set_job(self, offset: usize, value: u64) {
        store(self.block() + place::JOB_PAGE + offset as u64, Wide::Qword, value);
    }

    /// Whether job `number` was told to stop.
    pub(crate) fn is_stopped(self, number: u64) -> bool {
        self.job(offset_of!(JobPage, stop)) == number
    }

    /// The bytes of a job that copies.
    pub(crate) fn job_data(self) -> u64 {
        self.block() + place::JOB_DATA
    }

    /// Writes down what a panic says.
    pub(crate) fn write_panic(self, what: &dyn core::fmt::Display) {
        write_text(self.block() + place::VCPU_PAGE + offset_of!(VcpuPage, panic) as u64, what);
    }
}

/// Writes the status page.
pub(crate) fn write_status(state: StatusState, extents: u64, attention: u64, text: &dyn core::fmt::Display) {
    let put = |offset: usize, value| store(STATUS_PAGE + offset as u64, Wide::Qword, value);
    put(offset_of!(StatusPage, state), state as u64);
    put(offset_of!(StatusPage, extents), extents);
    put(offset_of!(StatusPage, attention), attention);
    write_text(STATUS_PAGE + offset_of!(StatusPage, text) as u64, text);
}

fn word(page: u64, offset: usize) -> u64 {
    load(page + offset as u64, Wide::Qword)
}

fn write_text(at: u64, what: &dyn core::fmt::Display) {
    let mut writer = TextWriter { bytes: at + offset_of!(Text, bytes) as u64, len: 0 };
    // It is cut off where it is too long.
    let _ = core::fmt::write(&mut writer, format_args!("{what}"));
    store(at + offset_of!(Text, len_bytes) as u64, Wide::Qword, writer.len as u64);
}

struct TextWriter {
    bytes: u64,
    len: usize,
}

impl core::fmt::Write for TextWriter {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        for byte in text.bytes() {
            if self.len == TEXT_LEN_BYTES_MAX {
                return Err(core::fmt::Error);
            }
            store(self.bytes + self.len as u64, Wide::Byte, byte.into());
            self.len += 1;
        }
        Ok(())
    }
}
