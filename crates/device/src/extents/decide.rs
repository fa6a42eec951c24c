//! The decision: a checked plan, the answers of those who prepared, a place and a time make facts and a reply.

use wire::{ReturnCode, Tag};

use crate::mailbox;
use crate::operation::{Answers, CommandReply, Decision, Fact as AnyFact, Reply};
use crate::range::DpaRange;
use crate::refusal::Refusal;
use crate::stamp::{Seq, Stamp};

use super::event_log::{ChainPlace, EventKind, LoggedEvent};
use super::fact::{Fact, RejectReason, ReleaseCause, TaggedRange};
use super::offers::Standing;
use super::{Plan, State, Verdict};

impl State {
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
            Verdict::Unplug { held } => return self.decide_unplug(held, answers),
            Verdict::Offer { host_id, region, tag, ranges, memdev } => {
                let Some(backend) = memdev.as_deref().or_else(|| answers.reserved_backend()) else {
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

    /// The facts that end every offer.
    fn withdrawn(&self, reason: RejectReason) -> Vec<Fact> {
        let withdrawn = self.offers.iter().map(|offer| match offer.standing {
            Standing::Pending => offer.rejected(reason),
            Standing::Dead { .. } => Fact::Retired { offer: offer.id },
        });
        withdrawn.collect()
    }

    /// The registry's facts come last: they end the device of which the others are.
    fn decide_unplug(&self, held: Vec<TaggedRange>, answers: &Answers) -> Decision {
        let mut facts = self.withdrawn(RejectReason::Unplug);
        if !held.is_empty() {
            facts.push(Fact::Released { ranges: held, cause: ReleaseCause::Unplug });
        }
        let (registry, windows): (Vec<_>, Vec<_>) =
            answers.facts().partition(|fact| matches!(fact, AnyFact::Backends(_)));
        Decision { facts: own(facts).chain(windows).chain(registry).collect(), reply: Reply::Done }
    }

    fn decide_reset(&self, answers: &Answers) -> Decision {
        let mut facts = self.withdrawn(RejectReason::Reset);
        facts.push(Fact::Reset);
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
}

fn own(facts: Vec<Fact>) -> impl Iterator<Item = AnyFact> {
    facts.into_iter().map(AnyFact::Extents)
}
