//! Who may run the guest: both ends as pure state machines.
//!
//! ```text
//!  giver  AwaitsHello ─▶ Offers ─▶ AwaitsReady ─▶ Copies ─pause▶ States ─▶ AwaitsTaken
//!              └───────────┴──────────┴────────────┴──▶ Keeps ◀─Won─┐ └──────┬──┘ whatever comes
//!                                              HasGiven ◀──Gone── Draws ◀────┘
//!
//!  taker  Greets ─▶ AwaitsOffer ─▶ Prepares ─▶ AwaitsState ─▶ Loads ─durable▶ Draws ─Won▶ Owns
//!            └────────────┴────────────┴────────────┴───────────┴────▶ NotOurs ◀──Gone──┘
//! ```
//!
//! The guest stands with the giver in States, AwaitsTaken and Draws, and for good in HasGiven. What each end does between
//! these steps is [`crate::giver`]'s and [`crate::taker`]'s. Deliberately absent: sockets, time and reasons.

use crate::deed::Draw;
use crate::frame::Kind;

/// What came of listening or of speaking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum News {
    /// A sound message of this kind came.
    Heard(Kind),
    /// All that was to be said is on its way.
    Told,
    /// Neither: the end, silence, garbage, or this side's own failure.
    Failed,
}

impl News {
    /// The news of a result: heard or told where it is one.
    pub(crate) fn of<T, E>(self, result: &Result<T, E>) -> Self {
        if result.is_ok() { self } else { Self::Failed }
    }
}

/// How far the giver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum GiverStage {
    AwaitsHello,
    Offers,
    AwaitsReady,
    /// The taker is prepared; the guest runs while its memory is copied.
    Copies,
    /// The guest stands; the state is being sent.
    States,
    AwaitsTaken,
    Draws,
    /// The guest is this process's for good.
    Keeps,
    /// The guest is the other's for good.
    HasGiven,
}

impl GiverStage {
    pub(crate) fn after(self, news: News) -> Self {
        match (self, news) {
            (Self::AwaitsHello, News::Heard(Kind::Hello)) => Self::Offers,
            (Self::Offers, News::Told) => Self::AwaitsReady,
            (Self::AwaitsReady, News::Heard(Kind::Ready)) => Self::Copies,
            (Self::AwaitsHello | Self::Offers | Self::AwaitsReady | Self::Copies, _) => Self::Keeps,
            (Self::States, News::Told) => Self::AwaitsTaken,
            // The deed may be with the other from the first try to send it.
            (Self::States | Self::AwaitsTaken, _) => Self::Draws,
            (Self::Draws | Self::Keeps | Self::HasGiven, _) => self,
        }
    }

    pub(crate) fn paused(self) -> Self {
        if self == Self::Copies { Self::States } else { self }
    }

    pub(crate) fn drew(self, draw: Draw) -> Self {
        match (self, draw) {
            (Self::Draws, Draw::Won) => Self::Keeps,
            (Self::Draws, Draw::Gone) => Self::HasGiven,
            _ => self,
        }
    }

    #[cfg(test)]
    pub(crate) fn may_run(self) -> bool {
        !matches!(self, Self::States | Self::AwaitsTaken | Self::Draws | Self::HasGiven)
    }
}

/// How far the taker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TakerStage {
    Greets,
    AwaitsOffer,
    Prepares,
    AwaitsState,
    /// It has the state and begins its journal behind it.
    Loads,
    Draws,
    /// The guest is this process's for good.
    Owns,
    /// The guest is not this process's.
    NotOurs,
}

impl TakerStage {
    pub(crate) fn after(self, news: News) -> Self {
        match (self, news) {
            (Self::Greets, News::Told) => Self::AwaitsOffer,
            (Self::AwaitsOffer, News::Heard(Kind::Offer)) => Self::Prepares,
            (Self::Prepares, News::Told) => Self::AwaitsState,
            (Self::AwaitsState, News::Heard(Kind::End)) => Self::Loads,
            (Self::Greets | Self::AwaitsOffer | Self::Prepares | Self::AwaitsState, _) => Self::NotOurs,
            (Self::Loads, News::Failed) => Self::NotOurs,
            (Self::Loads | Self::Draws | Self::Owns | Self::NotOurs, _) => self,
        }
    }

    /// The state is durable in this process's journal and everything that can fail is done.
    pub(crate) fn durable(self) -> Self {
        if self == Self::Loads { Self::Draws } else { self }
    }

    pub(crate) fn drew(self, draw: Draw) -> Self {
        match (self, draw) {
            (Self::Draws, Draw::Won) => Self::Owns,
            (Self::Draws, Draw::Gone) => Self::NotOurs,
            _ => self,
        }
    }

    #[cfg(test)]
    pub(crate) fn may_run(self) -> bool {
        self == Self::Owns
    }
}
