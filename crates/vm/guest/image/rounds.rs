//! What vCPU 0 does: finds its devices, serves their events, and begins anew whenever the host asks for its attention.
//!
//! ```text
//!  Booting ─▶ Serving ─ interrupt, policy's time, watchdog ─▶ Serving
//!     ▲  └──▶ Failed       │
//!     └──── attention ─────┘          jobs are served wherever it would sleep
//! ```

use alloc::string::{String, ToString};

use driver::{Bus, DrainError, HostSet, PlatformMap, Policy};
use guest::place::PORT_STATUS;
use guest::{BootPage, StatusState};
use wire::{Hpa, Tag};

use crate::access::tell;
use crate::bus::Hardware;
use crate::jobs;
use crate::pages::{Boot, Vcpu, write_status};

/// How long it sleeps without an interrupt before it looks by itself: a lost interrupt is a delay, not a hang.
const WATCHDOG_MS: u64 = 1_000;

/// Serves until the host ends it.
pub(crate) fn run(boot: Boot, vcpu: Vcpu, policy: Policy) -> ! {
    let page = boot.page();
    let mut bus = Hardware::new(boot, vcpu);
    loop {
        let mut round = Round { boot, vcpu, attention: boot.attention(), said: None };
        round.say(StatusState::Booting, 0, &"");
        if let Err(reason) = round.serve(&mut bus, &page, policy) {
            round.say(StatusState::Failed, 0, &reason);
        }
        while !round.is_over() {
            round.sleep(WATCHDOG_MS);
        }
    }
}

/// A stretch in which no device comes or goes.
struct Round {
    boot: Boot,
    vcpu: Vcpu,
    attention: u64,
    /// The extents that it last said it holds.
    said: Option<u64>,
}

impl Round {
    fn is_over(&self) -> bool {
        self.boot.attention() != self.attention
    }

    fn say(&self, state: StatusState, extents: u64, text: &dyn core::fmt::Display) {
        write_status(state, extents, self.attention, text);
        tell(PORT_STATUS);
    }

    fn serve(&mut self, bus: &mut Hardware, page: &BootPage, policy: Policy) -> Result<(), String> {
        bus.open_ecam(page.ecam_base);
        let probed = HostSet::probe(bus, &platform_map(page), policy);
        if self.is_over() {
            return Ok(());
        }
        let (mut hosts, failures) = probed.map_err(|error| error.to_string())?;
        if !failures.is_empty() {
            self.say(StatusState::Warning, 0, &failures);
        }
        let busy = page.busy_tags.iter().take(page.busy_tag_count as usize);
        busy.for_each(|tag| hosts.mark_busy(Tag::from_bytes(*tag)));
        loop {
            let seen = self.vcpu.device_interrupts();
            let served = match hosts.on_interrupt(bus) {
                // Operators fill the log as fast as it is read; that is no reason to stop reading it.
                Ok(_) | Err(DrainError::NeverEmpty { .. }) => Ok(()),
                Err(error) => Err(error.to_string()),
            };
            if self.is_over() {
                return Ok(());
            }
            served?;
            self.say_extents(hosts.hosts().iter().map(|host| host.extents().len() as u64).sum());
            self.wait(bus, seen, hosts.wakes_at_ms());
        }
    }

    fn say_extents(&mut self, extents: u64) {
        if self.said.replace(extents) != Some(extents) {
            self.say(StatusState::Serving, extents, &"");
        }
    }

    /// Sleeps until a device sent an interrupt after `seen`, the policy has something to do, or the watchdog looks.
    fn wait(&self, bus: &mut Hardware, seen: u64, wakes_at_ms: Option<u64>) {
        let now_ms = bus.now_ms();
        let until_ms = wakes_at_ms.unwrap_or(u64::MAX).min(now_ms.saturating_add(WATCHDOG_MS));
        while self.vcpu.device_interrupts() == seen && !self.is_over() {
            let Some(left_ms) = until_ms.checked_sub(bus.now_ms()).filter(|left_ms| *left_ms > 0) else { return };
            self.sleep(left_ms);
        }
    }

    /// Sleeps once, unless there is a job.
    fn sleep(&self, limit_ms: u64) {
        let seen = self.vcpu.interrupts();
        jobs::serve(self.vcpu);
        if !self.is_over() {
            self.vcpu.park(seen, limit_ms.saturating_mul(1_000));
        }
    }
}

fn platform_map(page: &BootPage) -> PlatformMap<'_> {
    PlatformMap {
        root_buses: page.root_buses.get(..page.root_bus_count as usize).unwrap_or(&[]),
        mmio_base: Hpa(page.mmio_base),
        mmio_len_bytes: page.mmio_len_bytes,
        window_base: Hpa(page.window_base),
        window_len_bytes: page.window_len_bytes,
    }
}
