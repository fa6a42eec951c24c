//! How often a vCPU came back: statistics, read at any time.

use std::sync::atomic::{AtomicU64, Ordering};

/// Why a vCPU came back, how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExitCounts {
    /// Loads that no slot answered.
    pub mmio_reads: u64,
    /// Stores that no slot took.
    pub mmio_writes: u64,
    /// `in` instructions.
    pub port_reads: u64,
    /// `out` instructions, those to the machine's own ports too.
    pub port_writes: u64,
    /// Kicks and signals.
    pub interrupted: u64,
    /// Instructions that were tried again, because memory was just being replaced.
    pub retries: u64,
}

impl ExitCounts {
    /// All that a device sees: loads, stores, `in` and `out`.
    pub fn accesses(&self) -> u64 {
        self.mmio_reads + self.mmio_writes + self.port_reads + self.port_writes
    }
}

#[derive(Debug, Default)]
pub(crate) struct ExitCounters {
    pub(crate) mmio_reads: Counter,
    pub(crate) mmio_writes: Counter,
    pub(crate) port_reads: Counter,
    pub(crate) port_writes: Counter,
    pub(crate) interrupted: Counter,
    pub(crate) retries: Counter,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Only the vCPU's own thread counts.
    pub(crate) fn count(&self) {
        self.0.store(self.get() + 1, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl ExitCounters {
    pub(crate) fn read(&self) -> ExitCounts {
        ExitCounts {
            mmio_reads: self.mmio_reads.get(),
            mmio_writes: self.mmio_writes.get(),
            port_reads: self.port_reads.get(),
            port_writes: self.port_writes.get(),
            interrupted: self.interrupted.get(),
            retries: self.retries.get(),
        }
    }
}
