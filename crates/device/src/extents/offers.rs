//! Offers: groups of extents that the host has not answered, in the order in which it must answer them
//! (CXL r4.0 9.13.3).
//!
//! ```text
//!           4802h, some extents            ┌─────────▶ accepted extents
//!  add ──▶ pending ────────────────────────┘
//!            │ │ 4802h, empty / reset ───────────────▶ rejected
//!            │ forced removal
//!            ▼
//!           dead ── 4802h, empty ────────────────────▶ retired
//!            └──── 4802h, not empty: refused, once; the next answer may pass it by
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use wire::{Dpa, Tag};

use crate::range::DpaRange;
use crate::stamp::Seq;

/// How an unanswered offer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Standing {
    /// The host may accept it.
    Pending,
    /// The operator withdrew it by force; the host has not noticed.
    Dead {
        /// The record that withdrew it.
        by: Seq,
        /// Whether the host was told so by a refused answer.
        told: Told,
    },
}

/// Whether the host knows that an offer is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// It never answered.
    NotYet,
    /// An answer with extents in it was refused.
    Refused,
}

/// One offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Offer {
    /// The record that made it: its name.
    pub id: Seq,
    /// The region of all its extents.
    pub region: u8,
    /// The tag of all its extents.
    pub tag: Tag,
    /// The backend that is reserved for it; extent `i` is backed by its `i`-th piece.
    pub backend: String,
    /// The extents in the order of the add.
    pub extents: Vec<DpaRange>,
    /// How it stands.
    pub standing: Standing,
}

impl Offer {
    /// Length of all extents in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.extents.iter().map(|range| range.len_bytes).sum()
    }

    /// The extents by address, each with its place in the add and the offset in bytes of its piece of the backend.
    pub fn by_address(&self) -> BTreeMap<Dpa, (DpaRange, u32, u64)> {
        let mut offset_bytes = 0u64;
        (0u32..)
            .zip(&self.extents)
            .map(|(position, range)| {
                let at = offset_bytes;
                offset_bytes += range.len_bytes;
                (range.start, (*range, position, at))
            })
            .collect()
    }
}

/// The offers, oldest first, with an index by address and one by tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offers {
    pub(super) queue: VecDeque<Offer>,
    pub(super) by_dpa: BTreeMap<Dpa, (u64, Seq)>,
    pub(super) by_tag: BTreeSet<(Tag, Seq)>,
}

impl Offers {
    /// The offers in the order in which the host must answer.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Offer> {
        self.queue.iter()
    }

    /// The offer that the host must answer next.
    pub fn head(&self) -> Option<&Offer> {
        self.queue.front()
    }

    /// An offer by its name.
    pub fn get(&self, id: Seq) -> Option<&Offer> {
        self.queue.binary_search_by_key(&id, |offer| offer.id).ok().and_then(|index| self.queue.get(index))
    }

    /// The newest offer of a tag that is not nil.
    pub fn by_tag(&self, tag: Tag) -> Option<&Offer> {
        let (_, id) = self.by_tag.range((tag, Seq(0))..=(tag, Seq(u64::MAX))).next_back()?;
        self.get(*id)
    }

    /// The offers of a tag that is not nil, oldest first, that the host may still accept.
    pub fn pending_of_tag(&self, tag: Tag) -> impl Iterator<Item = &Offer> {
        let named = self.by_tag.range((tag, Seq(0))..=(tag, Seq(u64::MAX)));
        named.filter_map(|(_, id)| self.get(*id)).filter(|offer| offer.standing == Standing::Pending)
    }

    /// How many offers are unanswered.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether no offer is unanswered.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Extents of all offers, dead ones too: their records may still be in the log.
    pub fn extents_len(&self) -> usize {
        self.by_dpa.len()
    }

    /// Offered extents that share an address with `range`, each with the name of its offer.
    pub fn overlapping(&self, range: DpaRange) -> impl Iterator<Item = (DpaRange, Seq)> {
        let before = self.by_dpa.range(..range.start).next_back();
        let inside = self.by_dpa.range(range.start..Dpa(range.end()));
        let hits = before.into_iter().chain(inside);
        hits.map(|(start, (len_bytes, id))| (DpaRange { start: *start, len_bytes: *len_bytes }, *id))
            .filter(move |(offered, _)| offered.overlaps(range))
    }

    pub(super) fn push(&mut self, offer: Offer) {
        let index = offer.extents.iter().map(|range| (range.start, (range.len_bytes, offer.id)));
        self.by_dpa.extend(index);
        self.by_tag.insert((offer.tag, offer.id));
        self.queue.push_back(offer);
    }

    pub(super) fn remove(&mut self, id: Seq) -> Option<Offer> {
        let index = self.queue.binary_search_by_key(&id, |offer| offer.id).ok()?;
        let offer = self.queue.remove(index)?;
        for range in &offer.extents {
            self.by_dpa.remove(&range.start);
        }
        self.by_tag.remove(&(offer.tag, offer.id));
        Some(offer)
    }

    pub(super) fn get_mut(&mut self, id: Seq) -> Option<&mut Offer> {
        let index = self.queue.binary_search_by_key(&id, |offer| offer.id).ok()?;
        self.queue.get_mut(index)
    }
}
