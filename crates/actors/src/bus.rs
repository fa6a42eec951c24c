//! The bus of the in-process guest: the platform's addresses behind the gate.

use std::sync::Arc;
use std::time::{Duration, Instant};

use driver::{Bdf, Bus, PlatformMap, Width};
use platform::{Epoch, MMIO_BASE, MMIO_LEN_BYTES, Platform, ROOT_PORT_BUS, Settled};
use wire::Hpa;

use crate::gate::{Boot, Gate, Pass, Passage};

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
    /// Time spent in [`Bus::relax`] while a device owed an answer, which the guest's clock leaves out.
    waited: Duration,
}

impl GuestBus {
    pub(crate) fn new(platform: Arc<Platform>, gate: Arc<Gate>) -> Self {
        let (boot, seen) = (gate.boot(), platform.epoch());
        Self { platform, gate, boot, origin: Instant::now(), seen, waited: Duration::ZERO }
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
        platform_map(&self.platform)
    }

    /// Waits until an interrupt message comes; not longer than `timeout`.
    pub fn wait_interrupt(&self, seen: u64, timeout: Duration) {
        self.gate.wait_interrupt(self.boot, seen, timeout);
    }

    /// Interrupt messages so far.
    pub fn interrupts(&self) -> u64 {
        self.gate.interrupts()
    }

    fn enter(&self) -> Option<Passage<'_>> {
        self.gate.enter(self.boot)
    }
}

/// What firmware would tell a guest of a platform.
pub(crate) fn platform_map(platform: &Platform) -> PlatformMap<'static> {
    let window = platform.window();
    PlatformMap {
        root_buses: &[ROOT_PORT_BUS],
        mmio_base: MMIO_BASE,
        mmio_len_bytes: MMIO_LEN_BYTES,
        window_base: window.base(),
        window_len_bytes: window.size_bytes(),
    }
}

impl Bus for GuestBus {
    fn config_read(&mut self, at: Bdf, offset: u16, width: Width) -> u32 {
        let Some(_passage) = self.enter() else { return u32::MAX };
        self.platform.config_read(at.bus, at.device, at.function, offset, width.bytes())
    }

    fn config_write(&mut self, at: Bdf, offset: u16, width: Width, value: u32) {
        let Some(_passage) = self.enter() else { return };
        self.platform.config_write(at.bus, at.device, at.function, offset, width.bytes(), value);
    }

    fn read(&mut self, hpa: Hpa, into: &mut [u8]) {
        let Some(_passage) = self.enter() else { return into.fill(0xff) };
        self.platform.read(hpa, into);
    }

    fn write(&mut self, hpa: Hpa, from: &[u8]) {
        let Some(_passage) = self.enter() else { return };
        self.platform.write(hpa, from);
    }

    fn relax(&mut self) {
        // Compared with the epoch at the end of the last wait, before the poll that now calls looked: what was published
        // in between ends this wait at once.
        let begun = Instant::now();
        let is_owed = self.platform.settle(Duration::ZERO) == Settled::TimedOut;
        self.seen = self.platform.wait(self.seen, RELAX);
        if is_owed {
            self.waited += begun.elapsed();
        }
    }

    fn now_ms(&mut self) -> u64 {
        // A boot that is over has no time left, so that no poll of it goes on. Waiting for the device takes no time: a
        // completion waits for the disk, and a disk that stalls for longer than a driver's time-out of two seconds is
        // a delay, not a dead device. A device that was unplugged owes nothing: time goes on, and the poll ends.
        let awake = self.origin.elapsed().saturating_sub(self.waited);
        match self.gate.pass(self.boot) {
            Pass::Go => awake.as_millis() as u64,
            Pass::BootOver => u64::MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use device::config_space::ConfigSpace;
    use memory::{HostMemory, Window};
    use platform::{BarIndex, CommandSink, CommandedWrite, Face, MailboxCommandImage};

    use super::*;

    /// A device that never answers.
    struct Silence;

    impl CommandSink for Silence {
        fn doorbell(&self, _: MailboxCommandImage) {}
        fn commanded(&self, _: CommandedWrite) {}
    }

    /// A bus with a device whose doorbell was rung.
    fn rung() -> GuestBus {
        let bus = bus();
        let face = Arc::new(Face::new(ConfigSpace::new(1, 8), 8, Arc::new(Silence)).expect("memory"));
        bus.platform.plug(0, Arc::clone(&face)).expect("an empty port");
        let control = 0x1000 - 0x20 + wire::registers::MAILBOX_CONTROL as u64;
        face.mmio_write(BarIndex::Device, control, &1u32.to_le_bytes());
        assert!(!face.is_settled(), "a command is under way");
        bus
    }

    fn bus() -> GuestBus {
        let ram = Arc::new(HostMemory::anonymous(1 << 20).expect("memory"));
        let window = Arc::new(Window::new(Hpa(1 << 32), 1 << 28));
        let platform = Platform::new(platform::PlatformParts { ram, window, root_ports: 1 });
        GuestBus::new(Arc::new(platform), Arc::new(Gate::new()))
    }

    /// A driver gives a command two seconds; a disk that took longer once cost the guest its device until the next reset.
    #[test]
    fn waiting_for_the_device_takes_no_time() {
        let mut bus = rung();
        let begun = Instant::now();
        while begun.elapsed() < RELAX * 3 {
            bus.relax();
        }
        assert!(bus.now_ms() < RELAX.as_millis() as u64, "{} ms", bus.now_ms());
    }

    /// A device was unplugged with its doorbell set: the guest polled a register that read all ones, and because waiting
    /// took no time it did so for ever.
    #[test]
    fn a_device_that_left_owes_nothing_and_its_poll_ends() {
        let mut bus = rung();
        bus.platform.unplug(0);
        let begun_ms = bus.now_ms();
        for _ in 0..3 {
            bus.relax();
        }
        assert!(bus.now_ms() > begun_ms, "time goes on");
    }

    #[test]
    fn a_boot_that_is_over_reads_ones_and_has_no_time() {
        let mut bus = bus();
        bus.write(Hpa(0), &[7]);
        bus.gate().reset_begins();
        let mut byte = [0];
        bus.read(Hpa(0), &mut byte);
        assert_eq!((byte, bus.now_ms()), ([0xff], u64::MAX));
        bus.gate().reset_ends();
        let mut next = bus.rebooted();
        next.read(Hpa(0), &mut byte);
        assert_eq!(byte, [7]);
    }
}
