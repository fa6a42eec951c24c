//! The hardware as instructions of the guest reach it, one by one, for a driver in this process.
//!
//! ```text
//!  driver ──access──▶ job of vCPU 0 ──▶ load, store ──▶ slot, or exit ──▶ platform
//! ```
//!
//! The guest's own driver must not be there: two drivers of one mailbox are in each other's way. Deliberately absent:
//! speed. An access takes two interrupts; the driver inside the guest takes none.

use std::sync::Arc;
use std::time::Duration;

use driver::{Bdf, Bus, Width};
use platform::ECAM_BASE;
use vm::{AccessWidth, COPY_LEN_BYTES_MAX, Job, JobAnswer};
use wire::Hpa;

use crate::bus::GuestBus;
use crate::kvm_guest::KvmGuest;

/// Longer than any access takes, with a disk that stalls behind it.
const PATIENCE: Duration = Duration::from_secs(60);
/// Who does it.
const VCPU: u32 = 0;
/// The ports of configuration space (PCI 3.0 3.2.2.3.2).
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// Bus 0, device 0, function 0, the register that opens configuration space by memory.
const PCIEXBAR: u64 = 1 << 31 | 0x60;
const PCIEXBAR_ENABLE: u64 = 1;

/// A bus of which every access is an instruction of the guest.
#[derive(Clone)]
pub struct InstructionBus {
    /// For time and patience, which are this process's.
    inside: GuestBus,
    guest: Arc<KvmGuest>,
}

impl InstructionBus {
    /// Opens configuration space by memory.
    pub(crate) fn new(inside: GuestBus, guest: Arc<KvmGuest>) -> Self {
        let bus = Self { inside, guest };
        let dword = AccessWidth::Dword;
        bus.ask(Job::PortWrite { port: CONFIG_ADDRESS, width: dword, value: PCIEXBAR });
        bus.ask(Job::PortWrite { port: CONFIG_DATA, width: dword, value: ECAM_BASE.0 | PCIEXBAR_ENABLE });
        bus
    }

    /// A guest that has ended reads as all ones, like a bus that nobody answers on.
    fn ask(&self, job: Job) -> Option<JobAnswer> {
        match self.guest.machine().job(VCPU, job, PATIENCE) {
            Ok(answer) => Some(answer),
            Err(error) => {
                tracing::warn!("an instruction of the guest: {error}");
                None
            }
        }
    }

    fn load(&self, hpa: Hpa, width: AccessWidth) -> u64 {
        match self.ask(Job::Read { hpa, width }) {
            Some(JobAnswer::Value(value)) => value,
            _ => u64::MAX,
        }
    }
}

fn config_hpa(at: Bdf, offset: u16) -> Hpa {
    let function = u64::from(at.bus) << 20 | u64::from(at.device & 0x1f) << 15 | u64::from(at.function & 7) << 12;
    Hpa(ECAM_BASE.0 + function + u64::from(offset & 0xfff))
}

fn of_config(width: Width) -> AccessWidth {
    match width {
        Width::Byte => AccessWidth::Byte,
        Width::Word => AccessWidth::Word,
        Width::Dword => AccessWidth::Dword,
    }
}

fn of_len(len_bytes: usize) -> Option<AccessWidth> {
    match len_bytes {
        1 => Some(AccessWidth::Byte),
        2 => Some(AccessWidth::Word),
        4 => Some(AccessWidth::Dword),
        8 => Some(AccessWidth::Qword),
        _ => None,
    }
}

impl Bus for InstructionBus {
    fn config_read(&mut self, at: Bdf, offset: u16, width: Width) -> u32 {
        self.load(config_hpa(at, offset), of_config(width)) as u32
    }

    fn config_write(&mut self, at: Bdf, offset: u16, width: Width, value: u32) {
        self.ask(Job::Write { hpa: config_hpa(at, offset), width: of_config(width), value: value.into() });
    }

    fn read(&mut self, hpa: Hpa, into: &mut [u8]) {
        if let Some(width) = of_len(into.len()) {
            let value = self.load(hpa, width).to_le_bytes();
            into.iter_mut().zip(value).for_each(|(to, byte)| *to = byte);
            return;
        }
        for (n, part) in (0..).zip(into.chunks_mut(COPY_LEN_BYTES_MAX as usize)) {
            let job = Job::CopyOut { hpa: Hpa(hpa.0 + n * COPY_LEN_BYTES_MAX), len_bytes: part.len() as u64 };
            match self.ask(job) {
                Some(JobAnswer::Bytes(bytes)) if bytes.len() == part.len() => part.copy_from_slice(&bytes),
                _ => part.fill(0xff),
            }
        }
    }

    fn write(&mut self, hpa: Hpa, from: &[u8]) {
        if let Some(width) = of_len(from.len()) {
            let mut value = [0; 8];
            value.iter_mut().zip(from).for_each(|(to, byte)| *to = *byte);
            self.ask(Job::Write { hpa, width, value: u64::from_le_bytes(value) });
            return;
        }
        for (n, part) in (0..).zip(from.chunks(COPY_LEN_BYTES_MAX as usize)) {
            self.ask(Job::CopyIn { hpa: Hpa(hpa.0 + n * COPY_LEN_BYTES_MAX), bytes: part.to_vec() });
        }
    }

    fn relax(&mut self) {
        self.inside.relax();
    }

    fn now_ms(&mut self) -> u64 {
        self.inside.now_ms()
    }
}
