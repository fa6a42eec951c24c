//! The three policies that look at nothing: accept, reject, hold.

use alloc::vec::Vec;

use super::{Answer, Decision, Leave, Sight, Strategy};
use crate::extents::Extent;
use crate::offer::{Offer, OfferAnswer};

/// Takes all.
pub(super) struct Accept;

/// Takes nothing, and keeps nothing.
pub(super) struct Reject;

/// Waits for the program.
pub(super) struct Hold;

impl Strategy for Accept {
    fn answer(&self, offer: &Offer, sight: &Sight<'_>) -> Decision<Answer> {
        Decision::Now(lawful(offer, &OfferAnswer::All, sight))
    }
}

impl Strategy for Reject {
    fn answer(&self, _: &Offer, _: &Sight<'_>) -> Decision<Answer> {
        Decision::Now(Answer::default())
    }
}

impl Strategy for Hold {
    fn answer(&self, _: &Offer, _: &Sight<'_>) -> Decision<Answer> {
        Decision::WhenTold
    }

    fn leave(&self, _: &[Extent], _: &Sight<'_>) -> Decision<Leave> {
        Decision::WhenTold
    }
}

/// An answer to an offer that breaks no rule; one that breaks a rule gets the empty answer, because it stands in the way
/// of the next.
pub(super) fn lawful(offer: &Offer, answer: &OfferAnswer, sight: &Sight<'_>) -> Answer {
    let accepted: Vec<Extent> = offer.accepted(answer, &sight.host.extents).unwrap_or_default();
    Answer::accept(accepted)
}
