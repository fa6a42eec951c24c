//! Accepted extents: what the host may use, by address and in the order of 4801h.
//!
//! The order is by add, then by the place in the add, then by address inside a split extent: Linux joins the extents of
//! a tag in list order, so that another order would scramble what the user wrote. It does not depend on the order of
//! the host's answer.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wire::{Dpa, Tag};

use crate::range::DpaRange;
use crate::stamp::Seq;

use super::order::Order;

/// One accepted extent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// Its addresses.
    pub range: DpaRange,
    /// Its region.
    pub region: u8,
    /// Its tag.
    pub tag: Tag,
    /// Its place in a shared sequence; 0 in a region that is not sharable.
    pub shared_sequence: u16,
    /// The record that offered it.
    pub offer: Seq,
    /// Its place in the add.
    pub position: u32,
    /// Its backend.
    pub backend: String,
    /// Where in the backend it begins, in bytes.
    pub offset_bytes: u64,
    /// The record that accepted it.
    pub accepted: Seq,
}

/// What is held of one offer that was accepted, wholly or in part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// The region.
    pub region: u8,
    /// The record that accepted it.
    pub accepted: Seq,
    /// Bytes that were offered.
    pub offered_bytes: u64,
    /// Bytes that the host holds.
    pub held_bytes: u64,
    /// The backend behind it.
    pub backend: String,
}

/// The accepted extents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Accepted {
    pub(super) by_dpa: BTreeMap<Dpa, Extent>,
    pub(super) order: Order,
    pub(super) by_tag: BTreeSet<(Tag, Dpa)>,
    pub(super) by_offer: BTreeMap<Seq, Holding>,
}

impl Accepted {
    /// How many extents.
    pub fn len(&self) -> usize {
        self.by_dpa.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_dpa.is_empty()
    }

    /// The extents in the order of 4801h.
    pub fn listed(&self) -> impl Iterator<Item = &Extent> {
        self.listed_from(0)
    }

    /// The extents in the order of 4801h from the `start`-th on, counted from 0; to go there costs no walk.
    pub fn listed_from(&self, start: usize) -> impl Iterator<Item = &Extent> {
        self.order.from(start).filter_map(|(_, _, dpa)| self.by_dpa.get(dpa))
    }

    /// How many places the list has.
    pub(crate) fn listed_len(&self) -> usize {
        self.order.len()
    }

    /// Whether an extent stands in its place of the list.
    pub(crate) fn is_listed(&self, extent: &Extent) -> bool {
        self.order.has_in_place((extent.offer, extent.position, extent.range.start))
    }

    /// Whether the list has the keys of all extents, each in its place, and no others.
    pub(crate) fn is_listed_whole(&self) -> bool {
        let keys = self.iter().map(|extent| (extent.offer, extent.position, extent.range.start));
        self.order == keys.collect::<Order>() && self.order.is_sorted()
    }

    /// The extents by address.
    pub fn iter(&self) -> impl Iterator<Item = &Extent> {
        self.by_dpa.values()
    }

    /// The extent that begins at an address.
    pub fn at(&self, start: Dpa) -> Option<&Extent> {
        self.by_dpa.get(&start)
    }

    /// The extents of a tag, in the order of 4801h.
    pub fn of_tag(&self, tag: Tag) -> Vec<&Extent> {
        let named = self.by_tag.range((tag, Dpa(0))..=(tag, Dpa(u64::MAX)));
        let mut extents: Vec<_> = named.filter_map(|(_, dpa)| self.by_dpa.get(dpa)).collect();
        extents.sort_unstable_by_key(|extent| (extent.offer, extent.position, extent.range.start));
        extents
    }

    /// Whether the host holds anything of a tag.
    pub fn has_tag(&self, tag: Tag) -> bool {
        self.by_tag.range((tag, Dpa(0))..=(tag, Dpa(u64::MAX))).next().is_some()
    }

    /// The extents that share an address with `range`, by address.
    pub fn overlapping(&self, range: DpaRange) -> impl Iterator<Item = &Extent> {
        let before = self.by_dpa.range(..range.start).next_back();
        let inside = self.by_dpa.range(range.start..Dpa(range.end()));
        before.into_iter().chain(inside).map(|(_, extent)| extent).filter(move |extent| extent.range.overlaps(range))
    }

    /// Whether the host holds all of `range`.
    pub fn covers(&self, range: DpaRange) -> bool {
        let parts = self.overlapping(range).filter_map(|extent| extent.range.intersection(range));
        parts.map(|part| part.len_bytes).sum::<u64>() == range.len_bytes
    }

    /// What the host holds of an offer.
    pub fn of_offer(&self, offer: Seq) -> Option<&Holding> {
        self.by_offer.get(&offer)
    }

    /// What the host holds, by the record that offered it.
    pub fn holdings(&self) -> impl Iterator<Item = (Seq, &Holding)> {
        self.by_offer.iter().map(|(offer, holding)| (*offer, holding))
    }

    /// How many extents would be there if `ranges`, which are covered and do not overlap, were taken out.
    pub fn len_without(&self, ranges: &[DpaRange]) -> usize {
        // Each touched extent goes and leaves its gaps: one more than the holes cut into it, less those at its ends.
        let mut holes: BTreeMap<Dpa, Vec<DpaRange>> = BTreeMap::new();
        for range in ranges {
            for extent in self.overlapping(*range) {
                holes.entry(extent.range.start).or_default().extend(extent.range.intersection(*range));
            }
        }
        let left: usize = holes
            .iter_mut()
            .map(|(start, cuts)| {
                cuts.sort_unstable();
                let end = self.by_dpa.get(start).map_or(start.0, |extent| extent.range.end());
                let starts = std::iter::once(start.0).chain(cuts.iter().map(|cut| cut.end()));
                let ends = cuts.iter().map(|cut| cut.start.0).chain(std::iter::once(end));
                starts.zip(ends).filter(|(from, to)| from < to).count()
            })
            .sum();
        self.by_dpa.len() - holes.len() + left
    }

    /// Extents by address, none over another, at once: their trees are built from bottom to top. Of an offer that is not
    /// among those that are counted nothing was offered.
    pub(super) fn of(extents: Vec<Extent>, offered_bytes: &BTreeMap<Seq, u64>) -> Self {
        let mut accepted = Self {
            order: extents.iter().map(|extent| (extent.offer, extent.position, extent.range.start)).collect(),
            by_tag: extents.iter().map(|extent| (extent.tag, extent.range.start)).collect(),
            ..Self::default()
        };
        for extent in &extents {
            accepted.hold(extent, offered_bytes.get(&extent.offer).copied().unwrap_or_default());
        }
        accepted.by_dpa = extents.into_iter().map(|extent| (extent.range.start, extent)).collect();
        accepted
    }

    pub(super) fn insert(&mut self, extent: Extent, offered_bytes: u64) {
        self.hold(&extent, offered_bytes);
        self.index(extent);
    }

    /// Counts it as held of its offer.
    fn hold(&mut self, extent: &Extent, offered_bytes: u64) {
        let holding = self.by_offer.entry(extent.offer).or_insert_with(|| Holding {
            region: extent.region,
            accepted: extent.accepted,
            offered_bytes,
            held_bytes: 0,
            backend: extent.backend.clone(),
        });
        holding.held_bytes += extent.range.len_bytes;
    }

    fn index(&mut self, extent: Extent) {
        self.order.insert((extent.offer, extent.position, extent.range.start));
        self.by_tag.insert((extent.tag, extent.range.start));
        self.by_dpa.insert(extent.range.start, extent);
    }

    /// Where the first extent begins that shares an address with `range`.
    fn first_overlapping(&self, range: DpaRange) -> Option<Dpa> {
        self.overlapping(range).next().map(|extent| extent.range.start)
    }

    /// Takes a range out; what is left of split extents stays in their place.
    pub(super) fn remove(&mut self, range: DpaRange) {
        // What is left of an extent overlaps the range no more.
        while let Some(start) = self.first_overlapping(range) {
            let Some(extent) = self.by_dpa.remove(&start) else { return };
            self.order.remove((extent.offer, extent.position, start));
            self.by_tag.remove(&(extent.tag, start));
            let gone_bytes = extent.range.intersection(range).map_or(0, |gone| gone.len_bytes);
            if let Some(holding) = self.by_offer.get_mut(&extent.offer) {
                holding.held_bytes = holding.held_bytes.saturating_sub(gone_bytes);
                if holding.held_bytes == 0 {
                    self.by_offer.remove(&extent.offer);
                }
            }
            let before = DpaRange::between(extent.range.start.0, range.start.0);
            let behind = DpaRange::between(range.end(), extent.range.end());
            for rest in before.into_iter().chain(behind) {
                let offset_bytes = extent.offset_bytes + (rest.start.0 - extent.range.start.0);
                self.index(Extent { range: rest, offset_bytes, ..extent.clone() });
            }
        }
    }
}

/// Ways for tests to spoil what the fold keeps.
#[cfg(test)]
impl Accepted {
    pub(super) fn by_dpa_mut(&mut self, start: Dpa) -> &mut Extent {
        self.by_dpa.get_mut(&start).expect("an extent")
    }

    pub(super) fn holding_mut(&mut self, offer: Seq, spoil: impl Fn(&mut Holding)) {
        spoil(self.by_offer.get_mut(&offer).expect("a holding"));
    }

    pub(super) fn list(&mut self, key: (Seq, u32, Dpa)) {
        self.order.insert(key);
    }

    pub(super) fn unlist(&mut self, key: (Seq, u32, Dpa)) {
        self.order.remove(key);
    }
}
