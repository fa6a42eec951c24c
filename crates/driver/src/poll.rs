//! Waiting for a device, with a bound.

use crate::bus::Bus;

/// Asks until there is an answer, at least once and for `timeout_ms` at most; `None` when the time is over.
pub(crate) fn poll<T>(bus: &mut dyn Bus, timeout_ms: u64, mut ask: impl FnMut(&mut dyn Bus) -> Option<T>) -> Option<T> {
    let deadline_ms = bus.now_ms().saturating_add(timeout_ms);
    loop {
        // The time first: after a long sleep the device still gets one look.
        let is_over = bus.now_ms() >= deadline_ms;
        if let Some(answer) = ask(bus) {
            return Some(answer);
        }
        if is_over {
            return None;
        }
        bus.relax();
    }
}
