//! An offer of capacity: the extents of one closed chain, and which of them an answer accepts.
//!
//! An offer that breaks a rule is still an offer: it keeps its place in the queue and gets the empty answer, because the
//! device answers for it before it takes the answer to the next. Deliberately absent: rules for shared capacity.

use alloc::vec::Vec;

use crate::chain::{CHAIN_EXTENTS_MAX, Chain, ChainEnd};
use crate::extents::{DpaRange, Extent, ExtentTable};
use crate::regions::DcConfiguration;

/// Whether the host may have answered an offer before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Age {
    /// Its records came while this host was there.
    #[default]
    New,
    /// Its records were in the log when the host was probed: an earlier life of the host may have answered and not
    /// cleared them.
    Inherited,
}

/// Capacity that a device offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The extents, in the order of the log.
    pub extents: Vec<Extent>,
    /// The rule that the offer breaks, if it breaks one; then nothing of it can be accepted.
    pub fault: Option<OfferError>,
    /// Whether an earlier life of the host may have answered it.
    pub age: Age,
}

/// What to answer to an offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OfferAnswer {
    /// Accept all of it.
    All,
    /// Accept nothing.
    Nothing,
    /// Accept these ranges, each inside one extent of the offer.
    Ranges(Vec<DpaRange>),
}

/// The rule that an offer, or an answer to it, breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// The device did not close the chain.
    #[error("the offer was not closed: a record of another kind followed, or records were lost")]
    Unfinished,
    /// The device did not close the chain in time.
    #[error("the offer was not closed in time: its last record says that more follow, and none came")]
    TimedOut,
    /// The chain is too long.
    #[error("the offer has more than {CHAIN_EXTENTS_MAX} extents")]
    TooLong,
    /// An extent is not where capacity can be.
    #[error("{range} are offered, which are empty, misaligned, or outside every dynamic capacity region")]
    Outside {
        /// The extent.
        range: DpaRange,
    },
    /// Capacity is offered twice, or was accepted before.
    #[error("{range} are offered, of which the host has a part already, or which are offered twice")]
    Overlap {
        /// The extent.
        range: DpaRange,
    },
    /// A range in an answer is not in the offer.
    #[error("{range} cannot be accepted: no extent of the offer holds them")]
    NotOffered {
        /// The range.
        range: DpaRange,
    },
}

impl Offer {
    /// The offer that a chain makes.
    pub(crate) fn new(chain: &Chain, dc: &DcConfiguration, age: Age) -> Self {
        let extents: Vec<Extent> = chain.extents.iter().map(Extent::from).collect();
        let fault = match chain.end {
            ChainEnd::Closed => check(&extents, dc).err(),
            ChainEnd::Broken => Some(OfferError::Unfinished),
            ChainEnd::TooLong => Some(OfferError::TooLong),
            ChainEnd::TimedOut => Some(OfferError::TimedOut),
        };
        Self { extents, fault, age }
    }

    /// Whether an earlier life of the host accepted it: a device offers nothing that the host has.
    pub(crate) fn was_accepted(&self, held: &ExtentTable) -> bool {
        self.age == Age::Inherited && self.extents.iter().any(|extent| held.overlaps(extent.range()))
    }

    /// The extents that an answer accepts, given what the host has.
    pub(crate) fn accepted(&self, answer: &OfferAnswer, held: &ExtentTable) -> Result<Vec<Extent>, OfferError> {
        let accepted = match answer {
            OfferAnswer::Nothing => Vec::new(),
            OfferAnswer::All => self.extents.clone(),
            OfferAnswer::Ranges(ranges) => ranges.iter().map(|range| self.part(*range)).collect::<Result<_, _>>()?,
        };
        match self.fault {
            Some(fault) if !accepted.is_empty() => Err(fault),
            _ => {
                let clash = accepted.iter().map(Extent::range).find(|range| held.overlaps(*range));
                clash.map_or(Ok(accepted), |range| Err(OfferError::Overlap { range }))
            }
        }
    }

    /// A part of an extent, with the extent's tag.
    fn part(&self, range: DpaRange) -> Result<Extent, OfferError> {
        let extent = self.extents.iter().find(|extent| extent.range().holds(range));
        extent.map(|extent| extent.at(range)).ok_or(OfferError::NotOffered { range })
    }
}

fn check(extents: &[Extent], dc: &DcConfiguration) -> Result<(), OfferError> {
    let mut ranges: Vec<DpaRange> = extents.iter().map(Extent::range).collect();
    if let Some(range) = ranges.iter().copied().find(|range| !dc.can_hold(*range)) {
        return Err(OfferError::Outside { range });
    }
    ranges.sort_unstable();
    let overlap = ranges.iter().zip(ranges.iter().skip(1)).find(|(range, next)| range.overlaps(**next));
    overlap.map_or(Ok(()), |(_, next)| Err(OfferError::Overlap { range: *next }))
}
