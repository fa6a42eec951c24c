//! The outbox: what waits to leave until its record is durable.
//!
//! ```text
//!  actors ── push(seq, effect) ──▶ waiting ── durable(seq) ──▶ performed, in order of (seq, arrival)
//!                                      └───── close() ───────▶ dropped: nothing leaves that might be lost
//! ```
//!
//! Handlers never wait for durability, nothing leaves before it. Deliberately absent: threads. Effects are performed by
//! whoever brings the news: the keeper, or the pushing actor where its record is durable already.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device::Seq;

use crate::effect::Effect;

/// A handle to the VM's one outbox.
#[derive(Clone, Default)]
pub(crate) struct Outbox(Arc<Mutex<Waiting>>);

#[derive(Default)]
struct Waiting {
    effects: BTreeMap<(Seq, u64), Effect>,
    arrivals: u64,
    durable: Seq,
    closed: bool,
}

impl Outbox {
    /// Lets an effect leave once everything up to `after` is durable.
    pub(crate) fn push(&self, after: Seq, effect: Effect) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        waiting.arrivals += 1;
        let arrival = waiting.arrivals;
        waiting.effects.insert((after, arrival), effect);
        waiting.leave();
    }

    /// Everything up to `seq` is durable.
    pub(crate) fn durable(&self, seq: Seq) {
        let mut waiting = self.lock();
        waiting.durable = waiting.durable.max(seq);
        waiting.leave();
    }

    /// Nothing leaves any more; askers find their answer's sender dropped.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.effects.clear();
    }

    /// Whether nothing waits, and what has left was done.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().effects.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // A panicking effect leaves the queue as it is: whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Performed under the lock: two threads that bring news must not overtake each other.
    fn leave(&mut self) {
        while let Some(first) = self.effects.first_entry() {
            if first.key().0 > self.durable || self.closed {
                return;
            }
            first.remove().perform();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(log: &Arc<Mutex<Vec<u32>>>, n: u32) -> Effect {
        let log = Arc::clone(log);
        Effect::Answer(Box::new(move || log.lock().unwrap().push(n)))
    }

    #[test]
    fn effects_leave_in_order_and_only_when_durable() {
        let (outbox, log) = (Outbox::default(), Arc::default());
        outbox.push(Seq(2), note(&log, 3));
        outbox.push(Seq(1), note(&log, 1));
        outbox.push(Seq(1), note(&log, 2));
        assert!(log.lock().unwrap().is_empty());
        outbox.durable(Seq(1));
        assert_eq!(*log.lock().unwrap(), [1, 2]);
        outbox.push(Seq(1), note(&log, 4));
        assert_eq!(*log.lock().unwrap(), [1, 2, 4], "what is durable already does not wait");
        outbox.durable(Seq(2));
        assert_eq!(*log.lock().unwrap(), [1, 2, 4, 3]);
    }

    #[test]
    fn nothing_leaves_a_closed_outbox() {
        let (outbox, log) = (Outbox::default(), Arc::default());
        outbox.push(Seq(1), note(&log, 1));
        outbox.close();
        outbox.durable(Seq(9));
        outbox.push(Seq(0), note(&log, 2));
        assert!(log.lock().unwrap().is_empty());
    }
}
