//! Accepting a part of every offer, as the standard allows where capacity is not shared.
//!
//! ```text
//! several extents:  [ first ] [ second ] [ third ] ...  ─▶  [ first ]            [ third ] ...
//! one extent:       [ block | block | block ]           ─▶  [ block ]
//! ```
//!
//! Deliberately absent: parts of what is asked back; it leaves whole.

use alloc::vec;

use super::plain::lawful;
use super::{Answer, Decision, Sight, Strategy};
use crate::extents::{DpaRange, Extent};
use crate::offer::{Offer, OfferAnswer};

/// Takes a part.
pub(super) struct Subset;

impl Strategy for Subset {
    fn answer(&self, offer: &Offer, sight: &Sight<'_>) -> Decision<Answer> {
        let ranges = match &offer.extents[..] {
            [only] => vec![first_half(*only, sight)],
            several => several.iter().step_by(2).map(Extent::range).collect(),
        };
        Decision::Now(lawful(offer, &OfferAnswer::Ranges(ranges), sight))
    }
}

/// The first half of an extent in whole blocks; all of it where that is none.
fn first_half(extent: Extent, sight: &Sight<'_>) -> DpaRange {
    let range = extent.range();
    // Outside every region there are no blocks, and nothing is accepted either.
    let block_bytes = sight.host.device.dc.region_of(range).map_or(1, |region| region.block_size.bytes());
    let half_bytes = range.len_bytes / 2 / block_bytes * block_bytes;
    if half_bytes == 0 { range } else { DpaRange { len_bytes: half_bytes, ..range } }
}
