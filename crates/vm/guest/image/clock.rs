//! Milliseconds since 1970, by the time stamp counter from where the host last said what time it is.
//!
//! Deliberately absent: time that the driver spends waiting for a device that owes it an answer. A completion waits for
//! the host's disk, and a disk that stalls for longer than a driver's time-out is a delay, not a dead device.

use crate::access::ticks;
use crate::pages::Boot;

/// The clock of one vCPU.
pub(crate) struct Clock {
    boot: Boot,
    tsc_khz: u64,
    sequence: u64,
    base_ms: u64,
    base_ticks: u64,
    last_ms: u64,
}

impl Clock {
    pub(crate) fn new(boot: Boot) -> Self {
        let mut clock = Self { boot, tsc_khz: 1, sequence: 0, base_ms: 0, base_ticks: 0, last_ms: 0 };
        clock.rebase();
        clock
    }

    /// Now; never less than before.
    pub(crate) fn now_ms(&mut self) -> u64 {
        let now = ticks();
        // Another host has another counter, and it says the time anew.
        if self.boot.clock_sequence() != self.sequence || now < self.base_ticks {
            self.rebase();
        }
        let since_ms = ticks().saturating_sub(self.base_ticks) / self.tsc_khz;
        self.last_ms = self.last_ms.max(self.base_ms.saturating_add(since_ms));
        self.last_ms
    }

    /// Leaves out the time since `begun`, in ticks.
    pub(crate) fn leave_out(&mut self, begun: u64) {
        self.base_ticks = self.base_ticks.saturating_add(ticks().saturating_sub(begun));
    }

    /// Ticks of so many microseconds.
    pub(crate) fn ticks_of_us(&self, us: u64) -> u64 {
        us.saturating_mul(self.tsc_khz) / 1_000
    }

    fn rebase(&mut self) {
        self.sequence = self.boot.clock_sequence();
        self.tsc_khz = self.boot.tsc_khz().max(1);
        self.base_ms = self.boot.wall_ms().max(self.last_ms);
        self.base_ticks = ticks();
    }
}
