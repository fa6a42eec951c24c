//! The extent manager: offers, accepted extents, tags, counters, generation, the DC event log and the host's clock.
//!
//! ```text
//!  request ─┐                       ┌─▶ refusal or reply
//!           ├─▶ plan ──▶ decide ────┤
//!  command ─┘    │         ▲        └─▶ facts ──▶ evolve
//!                └ steps ──┘ answers
//! ```
//!
//! It coordinates: a plan says what the backend registry and the window mapper must prepare, their answers go into the
//! decision, and the decision's facts, theirs included, are one record. Deliberately absent: everything that an
//! operator does not ask of capacity and a host does not ask with a DC command; and the memory itself.

mod accepted;
mod add;
#[cfg(test)]
mod broken;
mod decide;
mod event_log;
mod evolve;
mod fact;
mod give_back;
mod notice;
mod offers;
mod order;
mod parts;
mod queries;
mod release;
mod request;
mod response;
mod tags;
mod unplug;
mod update;

use std::collections::{BTreeMap, BTreeSet};

use rangemap::RangeSet;
use serde::Serialize;
use wire::{Opcode, ReturnCode, Tag};

use crate::backends;
use crate::config::{DeviceConfig, DynamicMemory};
use crate::limits::{EXTENTS_MAX, TAGS_MAX};
use crate::operation::CommandReply;
use crate::range::DpaRange;
use crate::refusal::Refusal;
use crate::shared::Shared;
use crate::stamp::{Seq, VmTime};
use crate::windows;

pub use accepted::{Accepted, Extent, Holding};
pub use event_log::{ChainPlace, EventKind, EventLog, LoggedEvent, Overflow};
pub use fact::{AcceptedPiece, Fact, Input, RejectReason, ReleaseCause, TaggedRange};
pub use notice::{Notice, NoticeKind};
pub use offers::{Offer, Offers, Standing, Told};
pub use parts::Parts;
pub use request::{AddRequest, RegionRange, ReleaseRequest, Removal, RemovalPolicy, Sanitize, SelectionPolicy};
pub use tags::{Ended, EndedTags, TagState, TagStatus};
pub use update::Chain;

/// The host's clock: what it set, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HostClock {
    /// What it set, in nanoseconds.
    pub host_ns: u64,
    /// When.
    pub set_at: VmTime,
}

/// The extent manager's state for one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    offers: Offers,
    accepted: Shared<Accepted>,
    ended: EndedTags,
    log: EventLog,
    chain: Option<Chain>,
    generation: u32,
    clock: Option<HostClock>,
    /// Extents offered or accepted by tag, nil aside; what the tag counters count.
    tag_uses: BTreeMap<Tag, u32>,
    /// Accepted addresses that the host was asked to give back.
    requested: RangeSet<u64>,
}

/// What other actors must prepare for a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Of the backend registry, first.
    pub backends: Option<backends::Prepare>,
    /// Of the window mapper, after it.
    pub windows: Option<windows::Prepare>,
}

/// A checked input: what must be prepared, and what is decided then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What other actors must prepare.
    pub steps: Steps,
    verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Refuse(Refusal),
    /// The request is fulfilled already.
    Nothing,
    Offer {
        host_id: u16,
        region: u8,
        tag: Tag,
        ranges: Vec<DpaRange>,
        /// The plain backend, where the tag names none.
        memdev: Option<String>,
    },
    RequestRelease {
        requested: Vec<TaggedRange>,
        log: Vec<TaggedRange>,
    },
    Force {
        held: Vec<TaggedRange>,
        dying: Vec<Seq>,
    },
    Command {
        facts: Vec<Fact>,
        reply: CommandReply,
    },
    TellTime,
    Reset,
    Unplug {
        held: Vec<TaggedRange>,
    },
}

impl Verdict {
    fn command(facts: Vec<Fact>, return_code: ReturnCode, payload: Vec<u8>) -> Self {
        Self::Command { facts, reply: CommandReply { return_code, payload } }
    }
}

impl Plan {
    fn without_steps(verdict: Verdict) -> Self {
        Self { steps: Steps::default(), verdict }
    }

    fn command(facts: Vec<Fact>, return_code: ReturnCode, payload: Vec<u8>) -> Self {
        Self::without_steps(Verdict::command(facts, return_code, payload))
    }

    fn preceded_by(mut self, fact: Option<Fact>) -> Self {
        if let (Verdict::Command { facts, .. }, Some(fact)) = (&mut self.verdict, fact) {
            facts.insert(0, fact);
        }
        self
    }
}

impl State {
    /// Checks an input against the state. Changes nothing and needs no time.
    pub fn plan(&self, config: &DeviceConfig, input: &Input) -> Plan {
        let planned = match input {
            Input::Add(request) => self.plan_add(config, request),
            Input::Release(request) => self.plan_release(config, request),
            Input::Command { opcode, payload } => Ok(self.plan_command(config, *opcode, payload)),
            Input::Reset => Ok(self.plan_reset(config)),
            Input::Unplug { removal, decoders } => self.plan_unplug(config, *removal, *decoders),
        };
        planned.unwrap_or_else(|refusal| Plan::without_steps(Verdict::Refuse(refusal)))
    }

    fn plan_command(&self, config: &DeviceConfig, opcode: Opcode, payload: &[u8]) -> Plan {
        let answer = match opcode {
            Opcode::GET_DC_CONFIGURATION => self.get_configuration(config, payload),
            Opcode::GET_DC_EXTENT_LIST => self.get_extent_list(config, payload),
            Opcode::GET_EVENT_RECORDS => self.get_event_records(config, payload),
            Opcode::ADD_DC_RESPONSE => return self.plan_response(config, payload),
            Opcode::RELEASE_DC => return self.plan_give_back(config, payload),
            Opcode::CLEAR_EVENT_RECORDS => return self.plan_clear_events(payload),
            Opcode::GET_TIMESTAMP => return Self::plan_get_timestamp(payload),
            Opcode::SET_TIMESTAMP => return Self::plan_set_timestamp(payload),
            _ => Err(ReturnCode::Unsupported),
        };
        match answer {
            Ok(payload) => Plan::command(Vec::new(), ReturnCode::Success, payload),
            Err(code) => Plan::command(Vec::new(), code, Vec::new()),
        }
    }

    fn plan_reset(&self, config: &DeviceConfig) -> Plan {
        let pending = self.offers.iter().filter(|offer| offer.standing == Standing::Pending);
        Plan {
            steps: Steps {
                backends: freeing(config, pending.map(|offer| offer.backend.clone()).collect()),
                windows: Some(windows::Prepare::Reset),
            },
            verdict: Verdict::Reset,
        }
    }

    /// The offers that the host has not answered.
    pub fn offers(&self) -> &Offers {
        &self.offers
    }

    /// The extents that the host may use.
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// The DC event log.
    pub fn log(&self) -> &EventLog {
        &self.log
    }

    /// The unfinished chain of an answer.
    pub fn chain(&self) -> Option<&Chain> {
        self.chain.as_ref()
    }

    /// The generation number of the extent list (CXL r4.0 8.2.10.9.9.2).
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The tags in use, each with the number of its extents.
    pub fn tag_uses(&self) -> &BTreeMap<Tag, u32> {
        &self.tag_uses
    }

    /// The accepted addresses that the host was asked to give back.
    pub fn requested(&self) -> impl Iterator<Item = DpaRange> {
        self.requested.iter().filter_map(|range| DpaRange::between(range.start, range.end))
    }

    /// What of a range the host was asked to give back.
    pub(crate) fn requested_of(&self, range: DpaRange) -> impl Iterator<Item = DpaRange> {
        let bounds = range.start.0..range.end();
        let asked = self.requested.overlapping(bounds);
        asked.filter_map(move |asked| DpaRange::between(asked.start, asked.end)?.intersection(range))
    }

    /// Extents that can still be tracked: neither offered (dead offers count) nor accepted.
    pub fn available_extents(&self) -> u32 {
        EXTENTS_MAX.saturating_sub(self.offers.extents_len() + self.accepted.len()) as u32
    }

    /// Tags that can still be tracked.
    pub fn available_tags(&self) -> u32 {
        TAGS_MAX.saturating_sub(self.tag_uses.len()) as u32
    }

    /// The host's clock, 0 before it was set.
    pub fn host_ns(&self, now: VmTime) -> u64 {
        self.clock.map_or(0, |clock| clock.host_ns.wrapping_add(now.0.saturating_sub(clock.set_at.0)))
    }

    /// The VM clock when the host set its own, if it did.
    pub fn clock_set_at(&self) -> Option<VmTime> {
        self.clock.map(|clock| clock.set_at)
    }

    /// The tags in use and those that ended and are not forgotten, in their order.
    pub fn known_tags(&self) -> BTreeSet<Tag> {
        self.tag_uses.keys().copied().chain(self.ended.tags()).collect()
    }

    /// Whether a tag is in use, or ended and is not forgotten.
    pub fn knows_tag(&self, tag: Tag) -> bool {
        self.tag_uses.contains_key(&tag) || self.ended.get(tag).is_some()
    }

    /// Whether the host was asked to give back any address of `range`.
    pub fn is_requested(&self, range: DpaRange) -> bool {
        self.requested.overlaps(&(range.start.0..range.end()))
    }

    /// Whether the host holds everything of the offers from which these extents are.
    fn holds_all_of(&self, extents: &[&Extent]) -> bool {
        let offers: BTreeSet<_> = extents.iter().map(|extent| extent.offer).collect();
        let mut holdings = offers.into_iter().filter_map(|offer| self.accepted.of_offer(offer));
        holdings.all(|holding| holding.held_bytes == holding.offered_bytes)
    }

    /// How a tag stands. Where a plain device has several offers with it as their label, the newest one speaks.
    pub fn tag_status(&self, tag: Tag) -> TagStatus {
        self.live_status(tag, |_| true).unwrap_or_else(|| {
            let ended = self.ended.get(tag);
            let ended = ended.unwrap_or(Ended { state: TagState::Unknown, region: 0, by: Seq(0) });
            TagStatus { state: ended.state, region: ended.region, by: ended.by, extents: Vec::new() }
        })
    }

    /// How a tag stands in a region, which on a plain device need not be its only one. Where it is in no use there: how
    /// it stands elsewhere, or how it ended.
    pub fn tag_status_in(&self, region: u8, tag: Tag) -> TagStatus {
        self.live_status(tag, |other| other == region).unwrap_or_else(|| self.tag_status(tag))
    }

    /// How a tag stands that is offered or accepted in one of these regions.
    fn live_status(&self, tag: Tag, is_asked: impl Fn(u8) -> bool) -> Option<TagStatus> {
        // The newest that the host may still accept: a dead one says nothing of those before it.
        if let Some(offer) = self.offers.pending_of_tag(tag).filter(|offer| is_asked(offer.region)).last() {
            let extents = offer.extents.clone();
            return Some(TagStatus { state: TagState::Offered, region: offer.region, by: offer.id, extents });
        }
        let mut held = self.accepted.of_tag(tag);
        held.retain(|extent| is_asked(extent.region));
        let holding = held.last().and_then(|last| self.accepted.of_offer(last.offer))?;
        let state = if held.iter().any(|extent| self.is_requested(extent.range)) {
            TagState::ReleaseRequested
        } else if self.holds_all_of(&held) {
            TagState::Accepted
        } else {
            TagState::PartlyAccepted
        };
        let extents = held.iter().map(|extent| extent.range).collect();
        Some(TagStatus { state, region: holding.region, by: holding.accepted, extents })
    }
}

/// What frees backends that offers or extents held: a plain device's one backend stays its own.
fn freeing(config: &DeviceConfig, ids: Vec<String>) -> Option<backends::Prepare> {
    let is_tagged = config.dynamic_memory == DynamicMemory::Tagged;
    (is_tagged && !ids.is_empty()).then_some(backends::Prepare::Free { ids })
}
