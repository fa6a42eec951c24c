//! Doing what is right, but late.

use super::plain::Accept;
use super::{Answer, Decision, Leave, Sight, Strategy};
use crate::extents::Extent;
use crate::offer::Offer;

/// How long [`Policy::Late`](crate::Policy::Late) lets an offer or a request wait, in milliseconds of the bus' clock.
pub const LATE_MS: u64 = 100;

/// Takes all, and gives all back, some time after the event.
pub(super) struct Late;

impl Strategy for Late {
    fn answer(&self, offer: &Offer, sight: &Sight<'_>) -> Decision<Answer> {
        delayed(sight, || Accept.answer(offer, sight))
    }

    fn leave(&self, asked: &[Extent], sight: &Sight<'_>) -> Decision<Leave> {
        delayed(sight, || Accept.leave(asked, sight))
    }
}

fn delayed<T>(sight: &Sight<'_>, decide: impl FnOnce() -> Decision<T>) -> Decision<T> {
    let due_ms = sight.since_ms.saturating_add(LATE_MS);
    if sight.now_ms < due_ms { Decision::NotBefore(due_ms) } else { decide() }
}
