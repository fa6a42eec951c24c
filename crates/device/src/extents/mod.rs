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
mod event_log;
mod give_back;
mod notice;
mod offers;
mod queries;
mod release;
mod request;
mod response;
mod tags;
mod update;

use std::collections::BTreeMap;

use bincode::{Decode, Encode};
use rangemap::RangeSet;
use serde::Serialize;
use wire::{Opcode, ReturnCode, Tag};

use crate::backends;
use crate::config::DeviceConfig;
use crate::limits::{EXTENTS_MAX, TAGS_MAX};
use crate::mailbox;
use crate::operation::{Answers, CommandReply, Decision, Fact as AnyFact, Reply};
use crate::range::DpaRange;
use crate::refusal::Refusal;
use crate::stamp::{Seq, Stamp, VmTime};
use crate::windows;

pub use accepted::{Accepted, Extent, Holding};
pub use event_log::{ChainPlace, EventKind, EventLog, LoggedEvent, Overflow};
pub use notice::{Notice, NoticeKind};
pub use offers::{Offer, Offers, Standing, Told};
pub use request::{AddRequest, RegionRange, ReleaseRequest, Removal, RemovalPolicy, Sanitize, SelectionPolicy};
pub use tags::{Ended, EndedTags, TagState, TagStatus};
pub use update::Chain;

/// What reaches the extent manager.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// The operator offers capacity.
    Add(AddRequest),
    /// The operator wants capacity back.
    Release(ReleaseRequest),
    /// The host rang the doorbell with one of this actor's commands.
    Command {
        /// Which.
        opcode: Opcode,
        /// Its payload, as long as declared.
        #[serde(serialize_with = "crate::hex::serialize")]
        payload: Vec<u8>,
    },
    /// Conventional reset of the device (CXL r4.0 9.13.3): accepted extents stay, all else is as at power-on.
    Reset,
}

/// A piece of an accepted offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct AcceptedPiece {
    /// Its extent's place in the add.
    pub position: u32,
    /// Its addresses.
    pub range: DpaRange,
    /// Where in the backend it begins, in bytes.
    pub offset_bytes: u64,
}

/// A range with the tag and the region of the extent in which it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct TaggedRange {
    /// The region.
    pub region: u8,
    /// The tag.
    pub tag: Tag,
    /// The addresses.
    pub range: DpaRange,
}

/// Why an offer ended without the host's taking any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectReason {
    /// The host's answer was empty.
    Host,
    /// A reset wiped the record that announced it.
    Reset,
    /// The operator withdrew it by force.
    Forced,
}

/// Who ended an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseCause {
    /// The host gave it back.
    Host,
    /// The operator took it away.
    Forced,
}

/// What was decided to have happened to extents.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Capacity was offered; the record's sequence is the offer's name.
    Offered {
        /// The head.
        host_id: u16,
        /// The region.
        region: u8,
        /// The tag.
        tag: Tag,
        /// The reserved backend.
        backend: String,
        /// The extents in the order of the add.
        ranges: Vec<DpaRange>,
    },
    /// Records were put into the DC event log.
    Logged {
        /// The records.
        events: Vec<LoggedEvent>,
    },
    /// A chain of a forced removal did not fit into the log.
    LogOverflowed {
        /// Records of the chain.
        events: u32,
        /// The host's clock in nanoseconds.
        at_ns: u64,
    },
    /// The host cleared the oldest records.
    EventsCleared {
        /// How many.
        count: u32,
    },
    /// The host cleared the whole log after an overflow.
    AllEventsCleared,
    /// A message of an unfinished chain was taken in.
    ResponseChained {
        /// Whose chain.
        opcode: Opcode,
        /// The message's ranges.
        ranges: Vec<DpaRange>,
    },
    /// The chain is over: answered, refused or interrupted.
    ChainEnded,
    /// The host accepted; what is not in `pieces` is withdrawn.
    Accepted {
        /// The offer.
        offer: Seq,
        /// Its region.
        region: u8,
        /// Its tag.
        tag: Tag,
        /// What the host accepted, in the order of the add.
        pieces: Vec<AcceptedPiece>,
    },
    /// The offer ended without an accepted byte.
    Rejected {
        /// The offer.
        offer: Seq,
        /// Its region.
        region: u8,
        /// Its tag.
        tag: Tag,
        /// Its extents.
        ranges: Vec<DpaRange>,
        /// Why.
        reason: RejectReason,
    },
    /// The operator withdrew an offer by force; it keeps its place until the host has answered it.
    Died {
        /// The offer.
        offer: Seq,
        /// Its region.
        region: u8,
        /// Its tag.
        tag: Tag,
        /// Its extents.
        ranges: Vec<DpaRange>,
    },
    /// The host tried to accept a dead offer and was refused.
    DeadAnswered {
        /// The offer.
        offer: Seq,
    },
    /// A dead offer left the queue.
    Retired {
        /// The offer.
        offer: Seq,
    },
    /// The host was asked to give ranges back.
    ReleaseRequested {
        /// Which, each inside one extent.
        ranges: Vec<TaggedRange>,
    },
    /// Ranges are the host's no more.
    Released {
        /// Which, each inside one extent.
        ranges: Vec<TaggedRange>,
        /// Who ended it.
        cause: ReleaseCause,
    },
    /// The host set its clock.
    TimestampSet {
        /// Its time in nanoseconds.
        host_ns: u64,
    },
    /// Log, chain and clock are as at power-on.
    Reset,
}

/// The host's clock: what it set, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HostClock {
    host_ns: u64,
    set_at: VmTime,
}

/// The extent manager's state for one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    offers: Offers,
    accepted: Accepted,
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
            Input::Reset => Ok(self.plan_reset()),
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

    fn plan_reset(&self) -> Plan {
        let pending = self.offers.iter().filter(|offer| offer.standing == Standing::Pending);
        let ids: Vec<_> = pending.map(|offer| offer.backend.clone()).collect();
        Plan {
            steps: Steps {
                backends: (!ids.is_empty()).then_some(backends::Prepare::Free { ids }),
                windows: Some(windows::Prepare::Reset),
            },
            verdict: Verdict::Reset,
        }
    }

    /// Decides a plan that was made of this very state, with the answers to its steps.
    pub fn decide(&self, stamp: Stamp, plan: Plan, answers: &Answers) -> Decision {
        if let Some(refusal) = answers.refusal() {
            return self.decide_unprepared(plan, refusal.clone());
        }
        let done = Reply::Done;
        let (facts, reply) = match plan.verdict {
            Verdict::Refuse(refusal) => (Vec::new(), Reply::Refused(refusal)),
            Verdict::Nothing => (Vec::new(), done),
            Verdict::Command { facts, reply } => (facts, Reply::Command(reply)),
            Verdict::TellTime => {
                let payload = self.host_ns(stamp.time).to_le_bytes().to_vec();
                (Vec::new(), Reply::Command(CommandReply { return_code: ReturnCode::Success, payload }))
            }
            Verdict::RequestRelease { requested, log } => (self.release_requested(stamp, requested, &log), done),
            Verdict::Force { held, dying } => (self.forced(stamp, held, &dying), done),
            Verdict::Reset => return self.decide_reset(answers),
            Verdict::Offer { host_id, region, tag, ranges } => {
                let Some(backend) = answers.reserved_backend() else {
                    return Decision::refused(Refusal::NoBackend { tag });
                };
                (self.offered(stamp, host_id, region, tag, backend, ranges), done)
            }
        };
        Decision { facts: own(facts).chain(answers.facts()).collect(), reply }
    }

    /// Another actor could not prepare: a request is refused with its reason, a command has run out of resources.
    fn decide_unprepared(&self, plan: Plan, refusal: Refusal) -> Decision {
        match plan.verdict {
            Verdict::Command { .. } => Decision {
                facts: own(Vec::from_iter(self.chain.is_some().then_some(Fact::ChainEnded))).collect(),
                reply: Reply::Command(CommandReply {
                    return_code: ReturnCode::ResourcesExhausted,
                    payload: Vec::new(),
                }),
            },
            _ => Decision::refused(refusal),
        }
    }

    fn offered(
        &self,
        stamp: Stamp,
        host_id: u16,
        region: u8,
        tag: Tag,
        backend: &str,
        ranges: Vec<DpaRange>,
    ) -> Vec<Fact> {
        let tagged: Vec<_> = ranges.iter().map(|range| TaggedRange { region, tag, range: *range }).collect();
        let is_new_tag = !self.tag_uses.contains_key(&tag);
        let available_extents = self.available_extents().saturating_sub(ranges.len() as u32);
        let available_tags = self.available_tags().saturating_sub(u32::from(is_new_tag));
        let events = self.chain_of(stamp, EventKind::Add, &tagged, available_extents, available_tags);
        vec![Fact::Offered { host_id, region, tag, backend: backend.into(), ranges }, Fact::Logged { events }]
    }

    fn release_requested(&self, stamp: Stamp, requested: Vec<TaggedRange>, log: &[TaggedRange]) -> Vec<Fact> {
        let mut facts = Vec::new();
        if !requested.is_empty() {
            facts.push(Fact::ReleaseRequested { ranges: requested });
        }
        if !log.is_empty() {
            let (extents, tags) = (self.available_extents(), self.available_tags());
            facts.push(Fact::Logged { events: self.chain_of(stamp, EventKind::Release, log, extents, tags) });
        }
        facts
    }

    /// Accepted capacity goes at once and is announced; offered capacity dies silently (CXL r4.0 9.13.3).
    fn forced(&self, stamp: Stamp, held: Vec<TaggedRange>, dying: &[Seq]) -> Vec<Fact> {
        let died = dying.iter().filter_map(|id| self.offers.get(*id)).map(|offer| {
            let (offer, region, tag, ranges) = (offer.id, offer.region, offer.tag, offer.extents.clone());
            Fact::Died { offer, region, tag, ranges }
        });
        let mut facts: Vec<_> = died.collect();
        if held.is_empty() {
            return facts;
        }
        if held.len() <= self.log.room() {
            let (extents, tags) = (self.available_extents(), self.available_tags());
            let events = self.chain_of(stamp, EventKind::ForcedRelease, &held, extents, tags);
            facts.push(Fact::Logged { events });
        } else {
            facts.push(Fact::LogOverflowed { events: held.len() as u32, at_ns: self.host_ns(stamp.time) });
        }
        facts.push(Fact::Released { ranges: held, cause: ReleaseCause::Forced });
        facts
    }

    fn decide_reset(&self, answers: &Answers) -> Decision {
        let withdrawn = self.offers.iter().map(|offer| match offer.standing {
            Standing::Pending => offer.rejected(RejectReason::Reset),
            Standing::Dead { .. } => Fact::Retired { offer: offer.id },
        });
        let facts = withdrawn.chain([Fact::Reset]).collect();
        let mailbox = AnyFact::Mailbox(mailbox::Fact::Reset);
        Decision { facts: [mailbox].into_iter().chain(own(facts)).chain(answers.facts()).collect(), reply: Reply::Done }
    }

    fn chain_of(
        &self,
        stamp: Stamp,
        kind: EventKind,
        ranges: &[TaggedRange],
        available_extents: u32,
        available_tags: u32,
    ) -> Vec<LoggedEvent> {
        let timestamp_ns = self.host_ns(stamp.time);
        let last = ranges.len() - 1;
        let event = |(index, TaggedRange { range, tag, .. }): (usize, &TaggedRange)| LoggedEvent {
            handle: self.log.handle_after(index),
            kind,
            place: if index == last { ChainPlace::Last } else { ChainPlace::More },
            range: *range,
            tag: *tag,
            shared_sequence: 0,
            timestamp_ns,
            available_extents,
            available_tags,
        };
        ranges.iter().enumerate().map(event).collect()
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

    /// Whether the host was asked to give back any address of `range`.
    pub fn is_requested(&self, range: DpaRange) -> bool {
        self.requested.overlaps(&(range.start.0..range.end()))
    }

    /// How a tag stands.
    pub fn tag_status(&self, tag: Tag) -> TagStatus {
        if let Some(offer) = self.offers.by_tag(tag).filter(|offer| offer.standing == Standing::Pending) {
            let extents = offer.extents.clone();
            return TagStatus { state: TagState::Offered, region: offer.region, by: offer.id, extents };
        }
        let held = self.accepted.of_tag(tag);
        if let Some(holding) = held.first().and_then(|first| self.accepted.on_backend(&first.backend)) {
            let state = if held.iter().any(|extent| self.is_requested(extent.range)) {
                TagState::ReleaseRequested
            } else if holding.held_bytes == holding.offered_bytes {
                TagState::Accepted
            } else {
                TagState::PartlyAccepted
            };
            let extents = held.iter().map(|extent| extent.range).collect();
            return TagStatus { state, region: holding.region, by: holding.accepted, extents };
        }
        let ended = self.ended.get(tag);
        let ended = ended.unwrap_or(Ended { state: TagState::Unknown, region: 0, by: Seq(0) });
        TagStatus { state: ended.state, region: ended.region, by: ended.by, extents: Vec::new() }
    }

    /// Whether a fact from a file can be true of this state; if not, why.
    pub fn admit(&self, config: &DeviceConfig, fact: &Fact) -> Result<(), String> {
        let sound = |range: &DpaRange| {
            DpaRange::new(range.start, range.len_bytes).is_some_and(|range| config.region_of(range).is_some())
        };
        let held = |range: &TaggedRange| sound(&range.range) && self.accepted.covers(range.range);
        let fits = match fact {
            Fact::Offered { ranges, .. } => {
                !ranges.is_empty()
                    && crate::range::first_overlap(ranges).is_none()
                    && ranges.iter().all(|range| sound(range) && self.is_unused(*range))
            }
            Fact::Accepted { offer, pieces, .. } => self.offers.get(*offer).is_some_and(|offer| {
                let inside = |piece: &AcceptedPiece| {
                    let extent = offer.extents.get(piece.position as usize);
                    sound(&piece.range)
                        && extent.is_some_and(|extent| extent.contains(piece.range))
                        && piece.offset_bytes.checked_add(piece.range.len_bytes).is_some()
                };
                let ranges: Vec<_> = pieces.iter().map(|piece| piece.range).collect();
                pieces.iter().all(inside) && crate::range::first_overlap(&ranges).is_none()
            }),
            Fact::Rejected { offer, .. }
            | Fact::Died { offer, .. }
            | Fact::DeadAnswered { offer }
            | Fact::Retired { offer } => self.offers.get(*offer).is_some(),
            Fact::ReleaseRequested { ranges } => ranges.iter().all(held),
            Fact::Released { ranges, .. } => {
                let all: Vec<_> = ranges.iter().map(|range| range.range).collect();
                ranges.iter().all(held) && crate::range::first_overlap(&all).is_none()
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
            ReleaseCause::Forced => TagState::Forced,
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

    fn use_tag(&mut self, tag: Tag, extents: usize) {
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

fn own(facts: Vec<Fact>) -> impl Iterator<Item = AnyFact> {
    facts.into_iter().map(AnyFact::Extents)
}
