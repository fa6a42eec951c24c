//! Waiting for a device to publish something, without a lost wake-up.
//!
//! ```text
//!  seen = epoch()  ──▶  look at the registers  ──▶  wait(seen): returns at once if anything was published since
//! ```
//!
//! Deliberately absent: what was published; the guest looks at the registers again.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// Who hears of publications. Called by whoever publishes: it must never wait for anything.
pub type PublicationListener = Arc<dyn Fn() + Send + Sync>;

/// A count of publications; equal where nothing was published in between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(u64);

/// What a guest sleeps on until a device has published something.
#[derive(Default)]
pub struct Publications {
    epoch: Mutex<Epoch>,
    published: Condvar,
    listener: OnceLock<PublicationListener>,
}

impl fmt::Debug for Publications {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publications").field("epoch", &self.epoch()).finish_non_exhaustive()
    }
}

impl Publications {
    /// The epoch now.
    pub fn epoch(&self) -> Epoch {
        *self.epoch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new epoch and wakes all who wait.
    pub fn announce(&self) {
        let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        epoch.0 = epoch.0.wrapping_add(1);
        self.published.notify_all();
        drop(epoch);
        if let Some(listener) = self.listener.get() {
            listener();
        }
    }

    /// Connects who hears of every publication; the first one stays.
    pub fn connect(&self, listener: PublicationListener) {
        self.listener.get_or_init(|| listener);
    }

    /// Waits until the epoch is not `seen` any more, or `timeout` is over; returns the epoch then.
    pub fn wait(&self, seen: Epoch, timeout: Duration) -> Epoch {
        let epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.published.wait_timeout_while(epoch, timeout, |epoch| *epoch == seen);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
