//! What a host does by itself when capacity is offered or asked back.
//!
//! ```text
//! offer, request ─▶ Strategy: now, at a time, or when the program says so ─▶ 4802h, 4803h
//!                   Habits: record by record or read by read, what a refusal or a loss leads to
//! ```
//!
//! A policy is a name; its strategy decides one offer or one request at a time and keeps nothing: what it goes by is the
//! host's and comes in a [`Sight`]. Offers are answered in their order, whatever the strategy. Deliberately absent: what
//! the host does with the memory, except that a program can say which tags are busy.

mod late;
mod linux;
mod plain;
mod subset;

use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::extents::{DpaRange, Extent};
use crate::host::Host;
use crate::host_set::Others;
use crate::offer::Offer;

pub use late::LATE_MS;

/// What a host does by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Offers are accepted whole; what is asked back leaves at once.
    #[default]
    Accept,
    /// Offers are refused whole; what is asked back leaves at once.
    Reject,
    /// Nothing is answered: offers and requests wait for [`Host::respond`] and [`Host::release_requested`].
    Hold,
    /// Of every offer a part is accepted: every other extent, of a single one the first half; what is asked back leaves
    /// at once.
    Subset,
    /// As [`Policy::Accept`], but [`LATE_MS`] after the event.
    Late,
    /// As the Dynamic Capacity series for Linux does it, with its checks, its limits and its silence.
    Linux,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Accept, Self::Reject, Self::Hold, Self::Subset, Self::Late, Self::Linux];

    /// Its name, which [`Policy::from_str`] reads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Reject => "reject",
            Self::Hold => "hold",
            Self::Subset => "subset",
            Self::Late => "late",
            Self::Linux => "linux",
        }
    }

    pub(crate) fn strategy(self) -> &'static dyn Strategy {
        match self {
            Self::Accept => &plain::Accept,
            Self::Reject => &plain::Reject,
            Self::Hold => &plain::Hold,
            Self::Subset => &subset::Subset,
            Self::Late => &late::Late,
            Self::Linux => &linux::Linux,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no policy; says which names there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownPolicy;

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, rest @ .., last] = Policy::ALL;
        write!(f, "the policies are {first}")?;
        rest.iter().try_for_each(|policy| write!(f, ", {policy}"))?;
        write!(f, " and {last}")
    }
}

impl core::error::Error for UnknownPolicy {}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(text: &str) -> Result<Self, UnknownPolicy> {
        Self::ALL.into_iter().find(|policy| policy.name() == text).ok_or(UnknownPolicy)
    }
}

/// When something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision<T> {
    /// Now, and this.
    Now(T),
    /// Not before this time of the bus' clock, in milliseconds.
    NotBefore(u64),
    /// When the program says so.
    WhenTold,
}

/// An answer to an offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// What the answer lists.
    pub(crate) ranges: Vec<DpaRange>,
    /// What of it becomes the host's; less than is listed where the host has a part already.
    pub(crate) accepted: Vec<Extent>,
}

impl Answer {
    /// Lists what is accepted.
    pub(crate) fn accept(accepted: Vec<Extent>) -> Self {
        Self { ranges: accepted.iter().map(Extent::range).collect(), accepted }
    }
}

/// What a request leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leave {
    /// What is given back.
    pub(crate) ranges: Vec<DpaRange>,
    /// What of the request is not followed, because the memory is busy; the device must ask again.
    pub(crate) busy: Vec<Extent>,
}

/// What a strategy goes by.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    /// The host that was offered something, or asked.
    pub(crate) host: &'a Host,
    /// The hosts of the machine's other devices.
    pub(crate) others: Others<'a>,
    /// When the offer or the request came.
    pub(crate) since_ms: u64,
    /// The time.
    pub(crate) now_ms: u64,
}

/// How a policy decides.
pub(crate) trait Strategy: Sync {
    /// What to answer to the oldest offer.
    fn answer(&self, offer: &Offer, sight: &Sight<'_>) -> Decision<Answer>;

    /// What to give back of what the oldest request asks for.
    fn leave(&self, asked: &[Extent], sight: &Sight<'_>) -> Decision<Leave> {
        Decision::Now(Leave { ranges: sight.host.extents.leaving(asked), busy: Vec::new() })
    }

    /// What it does whatever it decides.
    fn habits(&self) -> &'static Habits {
        &Habits::STANDARD
    }
}

/// What a host does whatever it decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habits {
    /// How records are worked off.
    pub(crate) pace: Pace,
    /// How long an offer may stay open after its last record, where that has a bound.
    pub(crate) chain_timeout_ms: Option<u64>,
    /// How ranges are given back.
    pub(crate) release: Messages,
    /// What follows a refused answer.
    pub(crate) after_refusal: AfterRefusal,
    /// What follows a forced release or an overflow.
    pub(crate) loss: Loss,
}

impl Habits {
    /// What the standard asks for, and what loses no time.
    pub(crate) const STANDARD: Self = Self {
        pace: Pace::EachRead,
        chain_timeout_ms: None,
        release: Messages::Together,
        after_refusal: AfterRefusal::EmptyAnswer,
        loss: Loss::Believed,
    };
}

/// How records are worked off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// All of one read of the log are taken, then what waits is answered.
    EachRead,
    /// Each is done with before the next is looked at; only offers are collected into chains.
    EachRecord,
}

/// How ranges are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    /// As many as fit into one command, of several requests too.
    Together,
    /// One command for each range.
    OneEach,
}

/// What follows a refused answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterRefusal {
    /// The empty answer, so that the next offer can be answered.
    EmptyAnswer,
    /// Nothing.
    Nothing,
}

/// What follows a forced release or an overflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// What was taken is gone, and after an overflow the list is read anew.
    Believed,
    /// Nothing: it is logged.
    Logged,
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn every_policy_has_a_name_of_its_own() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!("Accept".parse::<Policy>(), Err(UnknownPolicy));
        assert_eq!(UnknownPolicy.to_string(), "the policies are accept, reject, hold, subset, late and linux");
    }
}
