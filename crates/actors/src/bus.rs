//! The bus of the in-process guest: the platform's addresses behind the gate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use driver::{Bdf, Bus, PlatformMap, Width};
use platform::{Epoch, MMIO_BASE, MMIO_LEN_BYTES, Platform, ROOT_PORT_BUS};
use wire::Hpa;

use crate::gate::{Boot, Gate, Pass};

/// What a poll of the driver waits at most before it looks again: completions wake it at once.
const RELAX: Duration = Duration::from_millis(20);

/// What a guest in this process sees: configuration space, registers, memory. Clones are the same bus, each with the
/// boot in which it was made.
#[derive(Clone)]
pub struct GuestBus {
    platform: Arc<Platform>,
    gate: Arc<Gate>,
    boot: Boot,
    origin: Instant,
    seen: Epoch,
}

impl GuestBus {
    pub(crate) fn new(platform: Arc<Platform>, gate: Arc<Gate>) -> Self {
        let (boot, seen) = (gate.boot(), platform.epoch());
        Self { platform, gate, boot, origin: Instant::now(), seen }
    }

    /// The same bus for the boot under way: one of a boot that is over reads all ones.
    #[must_use]
    pub fn rebooted(&self) -> Self {
        Self { boot: self.gate.boot(), ..self.clone() }
    }

    pub(crate) fn in_boot(&self, boot: Boot) -> Self {
        Self { boot, ..self.clone() }
    }

    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// What firmware would tell a guest of the platform.
    pub fn platform_map(&self) -> PlatformMap<'static> {
        let window = self.platform.window();
        PlatformMap {
            root_buses: &[ROOT_PORT_BUS],
            mmio_base: MMIO_BASE,
            mmio_len_bytes: MMIO_LEN_BYTES,
            window_base: window.base(),
            window_len_bytes: window.size_bytes(),
        }
    }

    /// Waits until an interrupt message comes; not longer than `timeout`.
    pub fn wait_interrupt(&self, seen: u64, timeout: Duration) {
        self.gate.wait_interrupt(self.boot, seen, timeout);
    }

    /// Interrupt messages so far.
    pub fn interrupts(&self) -> u64 {
        self.gate.interrupts()
    }

    fn passes(&self) -> bool {
        self.gate.pass(self.boot) == Pass::Go
    }
}

impl Bus for GuestBus {
    fn config_read(&mut self, at: Bdf, offset: u16, width: Width) -> u32 {
        if !self.passes() {
            return u32::MAX;
        }
        self.platform.config_read(at.bus, at.device, at.function, offset, width.bytes())
    }

    fn config_write(&mut self, at: Bdf, offset: u16, width: Width, value: u32) {
        if self.passes() {
            self.platform.config_write(at.bus, at.device, at.function, offset, width.bytes(), value);
        }
    }

    fn read(&mut self, hpa: Hpa, into: &mut [u8]) {
        if self.passes() {
            self.platform.read(hpa, into);
        } else {
            into.fill(0xff);
        }
    }

    fn write(&mut self, hpa: Hpa, from: &[u8]) {
        if self.passes() {
            self.platform.write(hpa, from);
        }
    }

    fn relax(&mut self) {
        // Compared with the epoch at the end of the last wait, before the poll that now calls looked: what was published
        // in between ends this wait at once.
        self.seen = self.platform.wait(self.seen, RELAX);
    }

    fn now_ms(&mut self) -> u64 {
        // A boot that is over has no time left, so that no poll of it goes on.
        if self.passes() { self.origin.elapsed().as_millis() as u64 } else { u64::MAX }
    }
}
