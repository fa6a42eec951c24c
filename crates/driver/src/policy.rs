//! What a host does by itself when capacity is offered or asked back.
//!
//! An offer is answered after every offer before it, so a policy speaks for the whole queue. Deliberately absent:
//! deciding by tag, size or time; a program that wants that holds, looks at the queue, and answers itself.

use crate::offer::OfferAnswer;

/// What a host does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Offers are accepted whole; what is asked back leaves at once.
    #[default]
    Accept,
    /// Offers are refused whole; what is asked back leaves at once.
    Reject,
    /// Nothing is answered: offers and requests wait for [`Host::respond`](crate::Host::respond) and
    /// [`Host::release_requested`](crate::Host::release_requested).
    Hold,
}

/// When capacity that is asked back leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReleaseTime {
    /// Before the record is cleared.
    Now,
    /// When the program says so.
    Later,
}

impl Policy {
    /// The answer to an offer, or `None` for none now.
    pub(crate) fn answer(self) -> Option<OfferAnswer> {
        match self {
            Self::Accept => Some(OfferAnswer::All),
            Self::Reject => Some(OfferAnswer::Nothing),
            Self::Hold => None,
        }
    }

    pub(crate) fn release_time(self) -> ReleaseTime {
        match self {
            Self::Accept | Self::Reject => ReleaseTime::Now,
            Self::Hold => ReleaseTime::Later,
        }
    }
}
