//! The hardware as this processor reaches it: memory by exact loads and stores, configuration space by ECAM where the
//! host bridge has it, else by ports.

use driver::{Bdf, Bus, Width};
use wire::Hpa;

use crate::access::{Wide, load, pieces, port_in, port_out, store, ticks};
use crate::clock::Clock;
use crate::pages::{Boot, Vcpu};

/// The ports of configuration space (PCI 3.0 3.2.2.3.2), which reach its first 256 bytes.
const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;
/// The host bridge, what it must be, and its register that opens configuration space by memory.
const HOST_BRIDGE: Bdf = Bdf { bus: 0, device: 0, function: 0 };
const Q35: u32 = 0x29c0_8086;
const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_ENABLE: u32 = 1;

/// A poll looks so often before it sleeps: the answer of a device that is fast comes sooner than a wake.
const SPINS: u32 = 4;
const SPIN_US: u64 = 4;
/// Its first sleep, and its longest; each is twice the one before.
const SLEEP_US: u64 = 30;
const SLEEP_US_MAX: u64 = 2_000;

/// The way to the hardware.
pub(crate) struct Hardware {
    boot: Boot,
    vcpu: Vcpu,
    pub(crate) clock: Clock,
    ecam_base: Option<u64>,
    /// Turns of the poll under way. What a poll waits for follows from a write, and a poll only reads.
    relaxes: u32,
}

impl Hardware {
    pub(crate) fn new(boot: Boot, vcpu: Vcpu) -> Self {
        Self { boot, vcpu, clock: Clock::new(boot), ecam_base: None, relaxes: 0 }
    }

    /// Opens configuration space by memory at `base`, if the host bridge is one that can.
    pub(crate) fn open_ecam(&mut self, base: u64) {
        self.ecam_base = None;
        if base == 0 || self.config_read(HOST_BRIDGE, 0, Width::Dword) != Q35 {
            return;
        }
        // Not half of it while it is on.
        self.config_write(HOST_BRIDGE, PCIEXBAR, Width::Dword, 0);
        self.config_write(HOST_BRIDGE, PCIEXBAR + 4, Width::Dword, (base >> 32) as u32);
        self.config_write(HOST_BRIDGE, PCIEXBAR, Width::Dword, base as u32 | PCIEXBAR_ENABLE);
        self.ecam_base = Some(base);
    }

    /// Selects a dword by the address port; the data port's register, or nothing where the ports do not reach.
    fn select(at: Bdf, offset: u16) -> Option<u16> {
        if offset > 0xff {
            return None;
        }
        let function = u32::from(at.bus) << 16 | u32::from(at.device) << 11 | u32::from(at.function) << 8;
        port_out(CONFIG_ADDRESS, Wide::Dword, u64::from(1 << 31 | function | u32::from(offset & 0xfc)));
        Some(CONFIG_DATA + (offset & 3))
    }
}

fn wide(width: Width) -> Wide {
    match width {
        Width::Byte => Wide::Byte,
        Width::Word => Wide::Word,
        Width::Dword => Wide::Dword,
    }
}

fn ecam_address(base: u64, at: Bdf, offset: u16) -> u64 {
    let function = u64::from(at.bus) << 20 | u64::from(at.device & 0x1f) << 15 | u64::from(at.function & 7) << 12;
    base + function + u64::from(offset & 0xfff)
}

impl Bus for Hardware {
    fn config_read(&mut self, at: Bdf, offset: u16, width: Width) -> u32 {
        if let Some(base) = self.ecam_base {
            return load(ecam_address(base, at, offset), wide(width)) as u32;
        }
        match Self::select(at, offset) {
            Some(port) => port_in(port, wide(width)) as u32,
            None => u32::MAX,
        }
    }

    fn config_write(&mut self, at: Bdf, offset: u16, width: Width, value: u32) {
        self.relaxes = 0;
        if let Some(base) = self.ecam_base {
            store(ecam_address(base, at, offset), wide(width), value.into());
        } else if let Some(port) = Self::select(at, offset) {
            port_out(port, wide(width), value.into());
        }
    }

    fn read(&mut self, hpa: Hpa, into: &mut [u8]) {
        copy_out(hpa.0, into);
    }

    fn write(&mut self, hpa: Hpa, from: &[u8]) {
        self.relaxes = 0;
        copy_in(hpa.0, from);
    }

    fn relax(&mut self) {
        let begun = ticks();
        if self.relaxes < SPINS {
            let spun = self.clock.ticks_of_us(SPIN_US);
            while ticks().saturating_sub(begun) < spun {
                core::hint::spin_loop();
            }
        } else {
            let doublings = (self.relaxes - SPINS).min(16);
            self.vcpu.park(self.vcpu.interrupts(), (SLEEP_US << doublings).min(SLEEP_US_MAX));
        }
        self.relaxes = self.relaxes.saturating_add(1);
        if self.boot.is_owed() {
            self.clock.leave_out(begun);
        }
    }

    fn now_ms(&mut self) -> u64 {
        self.clock.now_ms()
    }
}

/// One load where the length is a width, else a copy.
pub(crate) fn copy_out(address: u64, into: &mut [u8]) {
    if let Some(wide) = Wide::from_bytes(into.len() as u64) {
        into.copy_from_slice(&load(address, wide).to_le_bytes()[..into.len()]);
        return;
    }
    for (offset, wide) in pieces(address, into.len() as u64) {
        let bytes = load(address + offset, wide).to_le_bytes();
        into[offset as usize..].iter_mut().zip(&bytes[..wide.bytes()]).for_each(|(to, byte)| *to = *byte);
    }
}

/// One store where the length is a width, else a copy.
pub(crate) fn copy_in(address: u64, from: &[u8]) {
    if let Some(wide) = Wide::from_bytes(from.len() as u64) {
        return store(address, wide, word_of(from));
    }
    for (offset, wide) in pieces(address, from.len() as u64) {
        let piece = &from[offset as usize..][..wide.bytes()];
        store(address + offset, wide, word_of(piece));
    }
}

/// The word of at most 8 bytes.
fn word_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
