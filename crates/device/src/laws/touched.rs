//! What a record's facts touch, and what stood there before.
//!
//! ```text
//!  addresses ──────────┬───────────────────────┬──────────
//!                      │ a fact's range ± 1 B  │            a law that held everywhere can be broken only inside,
//!  ────────────────────┴───────────────────────┴──────────  or where a sum does not change by what changed inside
//! ```
//!
//! The byte on each side is for neighbours: what a cut leaves of an extent ends there. Deliberately absent: a plug and an
//! unplug, which touch all that a device has, and after which laws are asked of everything.

use wire::{Dpa, Tag};

use crate::config::{DeviceIndex, DynamicMemory};
use crate::extents::{self, Extent, Standing};
use crate::operation::Fact;
use crate::range::DpaRange;
use crate::stamp::Seq;
use crate::vm::{Device, Vm};
use crate::windows::Piece;
use crate::{backends, windows};

use super::owners::{Owner, owner};

/// What a record's facts touch of its device and of the registry.
#[derive(Default)]
pub(super) struct Touched {
    /// Addresses, rising and apart.
    ranges: Vec<DpaRange>,
    /// Offers, and with the same name what is held of them.
    pub(super) offers: Vec<Seq>,
    /// Tags of offers and extents.
    pub(super) tags: Vec<Tag>,
    /// Backends that are made, deleted, or held otherwise.
    pub(super) backends: Vec<String>,
    /// Tags that name another backend than before.
    pub(super) renamed: Vec<Tag>,
}

/// What stood where a record touches.
#[derive(Default)]
pub(super) struct Stood {
    /// Of each accepted extent its offer, its tag and its length in bytes.
    pub(super) extents: Vec<(Seq, Tag, u64)>,
    /// Of each offer its tag and how many extents it has.
    pub(super) offers: Vec<(Tag, u64)>,
    /// What is counted as held, by offer.
    pub(super) held_bytes: Vec<u64>,
    /// Extents that are counted, by tag.
    pub(super) uses: Vec<u64>,
    /// Offered extents that are counted.
    pub(super) offered: u64,
    /// Who owned a backend and is not touched, by backend.
    pub(super) owners: Vec<Option<Owner>>,
    /// The backend of each piece.
    pub(super) pieces: Vec<String>,
}

impl Touched {
    /// What facts touch that are about to change a state.
    pub(super) fn of(vm: &Vm, device: DeviceIndex, seq: Seq, facts: &[Fact]) -> Self {
        let mut touched = Self::default();
        for fact in facts {
            match fact {
                Fact::Extents(fact) => touched.extents_fact(seq, fact),
                Fact::Windows(fact) => touched.windows_fact(fact),
                Fact::Backends(fact) => touched.backends_fact(vm, fact),
                Fact::Mailbox(_) => {}
            }
        }
        if touched.is_empty() {
            return touched;
        }
        touched.ranges = widened(std::mem::take(&mut touched.ranges));
        if let Some(device) = vm.devices.get(&device) {
            touched.of_device(device);
        }
        sort(&mut touched.tags);
        sort(&mut touched.backends);
        touched
    }

    fn extents_fact(&mut self, seq: Seq, fact: &extents::Fact) {
        use extents::Fact;
        match fact {
            Fact::Offered { tag, backend, ranges, .. } => {
                self.offers.push(seq);
                self.tags.push(*tag);
                self.backends.push(backend.clone());
                self.ranges.extend(ranges);
            }
            Fact::Accepted { offer, tag, pieces, .. } => {
                self.offers.push(*offer);
                self.tags.push(*tag);
                self.ranges.extend(pieces.iter().map(|piece| piece.range));
            }
            Fact::Rejected { offer, tag, .. } | Fact::Died { offer, tag, .. } => {
                self.offers.push(*offer);
                self.tags.push(*tag);
            }
            Fact::Retired { offer } => self.offers.push(*offer),
            Fact::ReleaseRequested { ranges } | Fact::Released { ranges, .. } => {
                self.tags.extend(ranges.iter().map(|range| range.tag));
                self.ranges.extend(ranges.iter().map(|range| range.range));
            }
            Fact::Logged { .. }
            | Fact::LogOverflowed { .. }
            | Fact::EventsCleared { .. }
            | Fact::AllEventsCleared
            | Fact::ResponseChained { .. }
            | Fact::ChainEnded
            | Fact::DeadAnswered { .. }
            | Fact::TimestampSet { .. }
            | Fact::Reset => {}
        }
    }

    fn windows_fact(&mut self, fact: &windows::Fact) {
        match fact {
            windows::Fact::Mapped { pieces } => self.ranges.extend(pieces.iter().map(|piece| piece.range)),
            windows::Fact::Unmapped { ranges } => self.ranges.extend(ranges),
            _ => {}
        }
    }

    fn backends_fact(&mut self, vm: &Vm, fact: &backends::Fact) {
        use backends::Fact;
        let tag_of = |id: &str| vm.backends.get(id).map(|backend| backend.spec.tag);
        match fact {
            Fact::Added { id, spec, .. } => {
                self.renamed.push(spec.tag);
                self.backends.push(id.clone());
            }
            Fact::Retagged { id, tag, .. } => self.renamed.extend(tag_of(id).into_iter().chain([*tag])),
            Fact::Removed { id } => {
                self.renamed.extend(tag_of(id));
                self.backends.push(id.clone());
            }
            Fact::Reserved { id, .. }
            | Fact::Attached { id, .. }
            | Fact::Freed { id }
            | Fact::Dedicated { id, .. }
            | Fact::ContentsLost { id } => self.backends.push(id.clone()),
            Fact::DeviceAdded { .. } | Fact::DeviceRemoved | Fact::RunStarted { .. } => {}
        }
    }

    /// What the facts do not name, and stands where they touch.
    fn of_device(&mut self, device: &Device) {
        for extent in self.extents_of(device) {
            self.offers.push(extent.offer);
            self.tags.push(extent.tag);
        }
        sort(&mut self.offers);
        for id in &self.offers {
            if let Some(offer) = device.extents.offers().get(*id) {
                self.tags.push(offer.tag);
                self.backends.push(offer.backend.clone());
            }
            if let Some(holding) = device.extents.accepted().of_offer(*id) {
                self.backends.push(holding.backend.clone());
            }
        }
    }

    /// Whether nothing is touched that needs a look at the state.
    fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.offers.is_empty() && self.tags.is_empty() && self.backends.is_empty()
    }

    /// The touched addresses.
    pub(super) fn ranges(&self) -> &[DpaRange] {
        &self.ranges
    }

    /// The accepted extents at the touched addresses, by address.
    pub(super) fn extents_of<'a>(&self, device: &'a Device) -> Vec<&'a Extent> {
        let accepted = device.extents.accepted();
        let mut extents: Vec<_> = self.ranges.iter().flat_map(|range| accepted.overlapping(*range)).collect();
        extents.dedup_by_key(|extent| extent.range.start);
        extents
    }

    /// The pieces at the touched addresses, by address.
    pub(super) fn pieces_of<'a>(&self, device: &'a Device) -> Vec<&'a Piece> {
        let mut pieces: Vec<_> = self.ranges.iter().flat_map(|range| device.windows.overlapping(*range)).collect();
        pieces.dedup_by_key(|piece| piece.range.start);
        pieces
    }

    /// What touched offers and holdings own, by backend.
    pub(super) fn owners_of<'a>(&self, index: DeviceIndex, device: &'a Device) -> Vec<(&'a str, Owner)> {
        if device.config.dynamic_memory != DynamicMemory::Tagged {
            return Vec::new();
        }
        let mut owners = Vec::new();
        for id in &self.offers {
            let offer = device.extents.offers().get(*id).filter(|offer| offer.standing == Standing::Pending);
            owners.extend(offer.map(|offer| (offer.backend.as_str(), (index, "reserved"))));
            let holding = device.extents.accepted().of_offer(*id);
            owners.extend(holding.map(|holding| (holding.backend.as_str(), (index, "attached"))));
        }
        owners.sort_unstable();
        owners
    }
}

impl Stood {
    /// What stands where a record is about to touch.
    pub(super) fn of(vm: &Vm, index: DeviceIndex, touched: &Touched) -> Self {
        let mut stood = Self::default();
        let mut owners = Vec::new();
        if let Some(device) = vm.devices.get(&index) {
            let (offers, accepted) = (device.extents.offers(), device.extents.accepted());
            let extents = touched.extents_of(device).into_iter();
            stood.extents = extents.map(|extent| (extent.offer, extent.tag, extent.range.len_bytes)).collect();
            stood.offers = touched.offers.iter().filter_map(|id| offers.get(*id)).map(counted).collect();
            let held_bytes = |id: &Seq| accepted.of_offer(*id).map_or(0, |holding| holding.held_bytes);
            stood.held_bytes = touched.offers.iter().map(held_bytes).collect();
            let uses = |tag: &Tag| device.extents.tag_uses().get(tag).map_or(0, |uses| u64::from(*uses));
            stood.uses = touched.tags.iter().map(uses).collect();
            stood.offered = offers.extents_len() as u64;
            stood.pieces = touched.pieces_of(device).into_iter().map(|piece| piece.backend.clone()).collect();
            owners = touched.owners_of(index, device);
        }
        let stays = |id: &String| {
            let is_touched = owners.binary_search_by_key(&id.as_str(), |(backend, _)| backend).is_ok();
            vm.backends.get(id).filter(|_| !is_touched).and_then(|backend| owner(backend.holder))
        };
        stood.owners = touched.backends.iter().map(stays).collect();
        stood
    }
}

/// Of an offer its tag and how many extents it has.
pub(super) fn counted(offer: &extents::Offer) -> (Tag, u64) {
    (offer.tag, offer.extents.len() as u64)
}

/// Ranges with the byte on each side of them; those that meet are one.
fn widened(mut ranges: Vec<DpaRange>) -> Vec<DpaRange> {
    for range in &mut ranges {
        let (start, end) = (range.start.0.saturating_sub(1), range.end().saturating_add(1));
        *range = DpaRange { start: Dpa(start), len_bytes: end - start };
    }
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let is_met = next.start.0 <= last.end();
        if is_met {
            last.len_bytes = last.end().max(next.end()) - last.start.0;
        }
        is_met
    });
    ranges
}

fn sort<T: Ord>(things: &mut Vec<T>) {
    things.sort_unstable();
    things.dedup();
}
