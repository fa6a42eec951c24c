//! What one client has yet to be sent: answers and events in the order in which they were handed over.
//!
//! ```text
//! connection's own task ── answer ──┐
//!                                   ├──▶ bytes ──take──▶ connection's task ──▶ socket
//! any thread ───────────── event ───┘      (wakes the task if it sleeps)
//! ```
//!
//! Nobody waits here: the lock is held only to copy bytes. An event that finds more than [`OUTPUT_LIMIT_BYTES`] waiting gives the
//! client up. Answers are exempt, since a connection begins no request while much of its output waits. Deliberately absent:
//! message boundaries; what waits is sent together.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

/// How much may wait for one client that does not read before the next event makes the server drop it.
pub const OUTPUT_LIMIT_BYTES: usize = 8 << 20;

/// Memory above this is given back when everything was sent.
const KEPT_CAPACITY_BYTES: usize = 64 << 10;

/// How far a connection is in its life, as decided by others than itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Requests are answered.
    Open,
    /// The server shuts down: what was begun is answered, then the connection ends.
    Closing,
    /// The client did not read and is given up.
    Overrun,
}

/// What a sleeping connection wants to be woken for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WakeOn {
    /// Output or a new phase.
    Output,
    /// A new phase only: its socket takes no more output at the moment.
    Phase,
}

/// The queue of one connection.
pub(crate) struct Outgoing {
    inner: Mutex<Inner>,
}

struct Inner {
    bytes: Vec<u8>,
    phase: Phase,
    sleeper: Option<(Waker, WakeOn)>,
}

impl Inner {
    fn wake(&mut self, reason: WakeOn) -> Option<Waker> {
        let wanted = |(_, wake_on): &mut (Waker, WakeOn)| reason == WakeOn::Phase || *wake_on == WakeOn::Output;
        self.sleeper.take_if(wanted).map(|(waker, _)| waker)
    }

    fn sleep(&mut self, context: &Context<'_>, wake_on: WakeOn) {
        match &mut self.sleeper {
            Some((waker, wanted)) if waker.will_wake(context.waker()) => *wanted = wake_on,
            sleeper => *sleeper = Some((context.waker().clone(), wake_on)),
        }
    }
}

impl Outgoing {
    pub(crate) const fn new() -> Self {
        Self { inner: Mutex::new(Inner { bytes: Vec::new(), phase: Phase::Open, sleeper: None }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while it is held, and bytes that are there are there.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an answer. Only for the connection's own task, which therefore is not woken. Gives how much waits now.
    pub(crate) fn answer(&self, answer: &[u8]) -> usize {
        let mut inner = self.lock();
        inner.bytes.extend_from_slice(answer);
        inner.bytes.len()
    }

    /// Adds an event, or gives the client up.
    pub(crate) fn event(&self, event: &[u8]) {
        let mut inner = self.lock();
        let waker = match inner.phase {
            Phase::Overrun => None,
            Phase::Open | Phase::Closing if inner.bytes.len() + event.len() > OUTPUT_LIMIT_BYTES => {
                inner.phase = Phase::Overrun;
                inner.bytes = Vec::new();
                inner.wake(WakeOn::Phase)
            }
            Phase::Open | Phase::Closing => {
                inner.bytes.extend_from_slice(event);
                inner.wake(WakeOn::Output)
            }
        };
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Asks the connection to end.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        if inner.phase == Phase::Open {
            inner.phase = Phase::Closing;
        }
        let waker = inner.wake(WakeOn::Phase);
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Exchanges `empty` for what waits; if nothing does, the task is woken for what comes.
    pub(crate) fn take(&self, empty: &mut Vec<u8>, context: &Context<'_>) -> Phase {
        let mut inner = self.lock();
        if inner.bytes.is_empty() {
            empty.shrink_to(KEPT_CAPACITY_BYTES);
            inner.bytes.shrink_to(KEPT_CAPACITY_BYTES);
            inner.sleep(context, WakeOn::Output);
        } else {
            mem::swap(&mut inner.bytes, empty);
        }
        inner.phase
    }

    /// Has the task woken for a new phase only.
    pub(crate) fn sleep_through_output(&self, context: &Context<'_>) -> Phase {
        let mut inner = self.lock();
        inner.sleep(context, WakeOn::Phase);
        inner.phase
    }
}
