//! The fold of facts into the extent manager's state. It cannot fail: a fact from a file is admitted first.

use wire::Tag;

use crate::config::DeviceConfig;
use crate::range::{DpaRange, are_apart};
use crate::stamp::{Seq, Stamp};

use super::accepted::Extent;
use super::fact::{AcceptedPiece, Fact, ReleaseCause, TaggedRange};
use super::offers::{Offer, Standing, Told};
use super::tags::{Ended, TagState};
use super::update::Chain;
use super::{HostClock, State};

impl State {
    /// Whether a fact from a file can be true of this state; if not, why.
    pub fn admit(&self, config: &DeviceConfig, fact: &Fact) -> Result<(), String> {
        let sound = |range: &DpaRange| {
            DpaRange::new(range.start, range.len_bytes).is_some_and(|range| config.region_of(range).is_some())
        };
        let held = |range: &TaggedRange| sound(&range.range) && self.accepted.covers(range.range);
        let fits = match fact {
            Fact::Offered { ranges, .. } => {
                !ranges.is_empty()
                    && are_apart(ranges.iter().copied())
                    && ranges.iter().all(|range| sound(range) && self.is_unused(*range))
            }
            Fact::Accepted { offer, pieces, .. } => self.offers.get(*offer).is_some_and(|offer| {
                let inside = |piece: &AcceptedPiece| {
                    let extent = offer.extents.get(piece.position as usize);
                    sound(&piece.range)
                        && extent.is_some_and(|extent| extent.contains(piece.range))
                        && piece.offset_bytes.checked_add(piece.range.len_bytes).is_some()
                };
                pieces.iter().all(inside) && are_apart(pieces.iter().map(|piece| piece.range))
            }),
            Fact::Rejected { offer, .. }
            | Fact::Died { offer, .. }
            | Fact::DeadAnswered { offer }
            | Fact::Retired { offer } => self.offers.get(*offer).is_some(),
            Fact::ReleaseRequested { ranges } => ranges.iter().all(held),
            Fact::Released { ranges, .. } => {
                ranges.iter().all(held) && are_apart(ranges.iter().map(|range| range.range))
            }
            Fact::Logged { events } => events.iter().all(|event| event.handle != 0) && events.len() <= self.log.room(),
            Fact::EventsCleared { count } => *count as usize <= self.log.len(),
            Fact::ResponseChained { ranges, .. } => ranges.iter().all(sound),
            Fact::LogOverflowed { .. }
            | Fact::AllEventsCleared
            | Fact::ChainEnded
            | Fact::TimestampSet { .. }
            | Fact::Reset => true,
        };
        if fits { Ok(()) } else { Err(format!("{fact:?} does not fit the extents")) }
    }

    fn is_unused(&self, range: DpaRange) -> bool {
        self.accepted.overlapping(range).next().is_none() && self.offers.overlapping(range).next().is_none()
    }

    /// Makes a fact true.
    pub fn evolve(&mut self, stamp: Stamp, fact: &Fact) {
        match fact {
            Fact::Offered { region, tag, backend, ranges, .. } => {
                self.ended.remove(*tag);
                self.use_tag(*tag, ranges.len());
                let (id, region, tag, backend) = (stamp.seq, *region, *tag, backend.clone());
                let offer = Offer { id, region, tag, backend, extents: ranges.clone(), standing: Standing::Pending };
                self.offers.push(offer);
            }
            Fact::Logged { events } => self.log.append(events),
            Fact::LogOverflowed { events, at_ns } => self.log.overflowed(*events, *at_ns),
            Fact::EventsCleared { count } => self.log.clear_oldest(*count as usize),
            Fact::AllEventsCleared => self.log.clear_all(),
            Fact::ResponseChained { opcode, ranges } => {
                let chain = self.chain.get_or_insert_with(|| Chain { opcode: *opcode, ranges: Vec::new() });
                chain.ranges.extend_from_slice(ranges);
            }
            Fact::ChainEnded => self.chain = None,
            Fact::Accepted { offer, pieces, .. } => self.accept(stamp, *offer, pieces),
            Fact::Rejected { offer, .. } => self.end_offer(stamp, *offer, TagState::Rejected),
            Fact::Retired { offer } => self.end_offer(stamp, *offer, TagState::Dead),
            Fact::Died { offer, region, tag, .. } => {
                if let Some(offer) = self.offers.get_mut(*offer) {
                    offer.standing = Standing::Dead { by: stamp.seq, told: Told::NotYet };
                }
                self.ended.insert(*tag, Ended { state: TagState::Dead, region: *region, by: stamp.seq });
            }
            Fact::DeadAnswered { offer } => {
                if let Some(Offer { standing: Standing::Dead { told, .. }, .. }) = self.offers.get_mut(*offer) {
                    *told = Told::Refused;
                }
            }
            Fact::ReleaseRequested { ranges } => {
                for range in ranges {
                    self.requested.insert(range.range.start.0..range.range.end());
                }
            }
            Fact::Released { ranges, cause } => self.released(stamp, ranges, *cause),
            Fact::TimestampSet { host_ns } => {
                self.clock = Some(HostClock { host_ns: *host_ns, set_at: stamp.time });
            }
            Fact::Reset => {
                self.log.clear_all();
                self.chain = None;
                self.clock = None;
            }
        }
    }

    fn accept(&mut self, stamp: Stamp, offer: Seq, pieces: &[AcceptedPiece]) {
        let Some(offer) = self.offers.remove(offer) else { return };
        let offered_bytes = offer.len_bytes();
        self.use_tag(offer.tag, pieces.len());
        self.unuse_tag(offer.tag, offer.extents.len());
        for piece in pieces {
            let extent = Extent {
                range: piece.range,
                region: offer.region,
                tag: offer.tag,
                shared_sequence: 0,
                offer: offer.id,
                position: piece.position,
                backend: offer.backend.clone(),
                offset_bytes: piece.offset_bytes,
                accepted: stamp.seq,
            };
            self.accepted.insert(extent, offered_bytes);
        }
        self.generation = self.generation.wrapping_add(1);
    }

    fn end_offer(&mut self, stamp: Stamp, offer: Seq, state: TagState) {
        let Some(offer) = self.offers.remove(offer) else { return };
        self.unuse_tag(offer.tag, offer.extents.len());
        // A dead offer's tag may have been offered anew since; then it did not end.
        let is_over = match offer.standing {
            Standing::Pending => true,
            Standing::Dead { .. } => false,
        };
        if is_over {
            self.ended.insert(offer.tag, Ended { state, region: offer.region, by: stamp.seq });
        }
    }

    fn released(&mut self, stamp: Stamp, ranges: &[TaggedRange], cause: ReleaseCause) {
        let state = match cause {
            ReleaseCause::Host => TagState::Released,
            ReleaseCause::Forced | ReleaseCause::Unplug => TagState::Forced,
        };
        for TaggedRange { region, tag, range } in ranges {
            let before = self.accepted.len();
            let touched = self.accepted.overlapping(*range).count();
            self.accepted.remove(*range);
            self.use_tag(*tag, self.accepted.len() + touched - before);
            self.unuse_tag(*tag, touched);
            self.requested.remove(range.start.0..range.end());
            if !self.accepted.has_tag(*tag) {
                self.ended.insert(*tag, Ended { state, region: *region, by: stamp.seq });
            }
        }
        self.generation = self.generation.wrapping_add(1);
    }

    pub(super) fn use_tag(&mut self, tag: Tag, extents: usize) {
        if !tag.is_none() && extents > 0 {
            *self.tag_uses.entry(tag).or_default() += extents as u32;
        }
    }

    fn unuse_tag(&mut self, tag: Tag, extents: usize) {
        if let Some(uses) = self.tag_uses.get_mut(&tag) {
            *uses = uses.saturating_sub(extents as u32);
            if *uses == 0 {
                self.tag_uses.remove(&tag);
            }
        }
    }
}
