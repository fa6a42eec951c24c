//! Answering offers and giving capacity back, by policy or because the program says so.
//!
//! ```text
//! oldest offer ─▶ 4802h ─┬─ taken: the extents are the host's
//!                        └─ refused (the group died, another host was faster): the empty answer, so that the next can follow
//! ```
//!
//! Deliberately absent: answering out of order, which the standard forbids.

use alloc::vec::Vec;

use crate::bus::Bus;
use crate::chain::ChainEnd;
use crate::drain::Handled;
use crate::extents::{DpaRange, Extent};
use crate::host::Host;
use crate::host_set::Others;
use crate::mailbox::MailboxError;
use crate::offer::{Age, Offer, OfferAnswer, OfferError};
use crate::policy::{AfterRefusal, Answer, Decision, Leave, Messages, Sight};
use crate::update;
use crate::waiting::Waiting;

/// Why an answer was not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RespondError {
    /// There is nothing to answer.
    #[error("no offer waits for an answer")]
    NoOffer,
    /// The answer breaks a rule, or the offer does.
    #[error(transparent)]
    Offer(#[from] OfferError),
    /// The command failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
}

impl Host {
    /// Answers the oldest offer. If the device refuses the answer, the offer is over too: it gets the empty one.
    pub fn respond(&mut self, bus: &mut dyn Bus, answer: &OfferAnswer) -> Result<Handled, RespondError> {
        let offer = &self.offers.front().ok_or(RespondError::NoOffer)?.what;
        let accepted = offer.accepted(answer, &self.extents)?;
        Ok(self.send_answer(bus, Answer::accept(accepted))?)
    }

    /// Gives back what the oldest request asks for, or nothing where there is none.
    pub fn release_requested(&mut self, bus: &mut dyn Bus) -> Result<Option<Handled>, MailboxError> {
        let Some(asked) = self.requests.front() else { return Ok(None) };
        let ranges = self.extents.leaving(&asked.what);
        let handled = self.try_release(bus, ranges)?;
        // A request that was refused must not be repeated for ever.
        self.requests.pop_front();
        Ok(Some(handled))
    }

    /// Gives ranges back, asked for or not.
    pub fn release(&mut self, bus: &mut dyn Bus, ranges: &[DpaRange]) -> Result<(), MailboxError> {
        update::release(bus, &self.device.mailbox, ranges)?;
        ranges.iter().for_each(|range| self.extents.remove(*range));
        Ok(())
    }

    /// Does what the policy says about everything that waits, and notes when it has to be asked again.
    pub(crate) fn follow_policy(&mut self, bus: &mut dyn Bus, others: Others<'_>) -> Result<(), MailboxError> {
        let now_ms = bus.now_ms();
        let chain_due_ms = self.end_stalled_chain(now_ms);
        let offer_due_ms = self.follow_offers(bus, others, now_ms)?;
        let request_due_ms = self.follow_requests(bus, others, now_ms)?;
        self.wakes_at_ms = [chain_due_ms, offer_due_ms, request_due_ms].into_iter().flatten().min();
        Ok(())
    }

    /// Ends a chain that stayed open for longer than the policy waits; when the one that is open would be ended.
    fn end_stalled_chain(&mut self, now_ms: u64) -> Option<u64> {
        let timeout_ms = self.policy.strategy().habits().chain_timeout_ms?;
        let due_ms = self.chain.last_ms()?.saturating_add(timeout_ms);
        if now_ms < due_ms {
            return Some(due_ms);
        }
        let chain = self.chain.end(ChainEnd::TimedOut)?;
        self.take_chain(chain, now_ms);
        None
    }

    /// Answers offers until one has to wait; until when, if that is known.
    fn follow_offers(
        &mut self,
        bus: &mut dyn Bus,
        others: Others<'_>,
        now_ms: u64,
    ) -> Result<Option<u64>, MailboxError> {
        while let Some(Waiting { what: offer, since_ms }) = self.offers.front() {
            let sight = Sight { host: self, others, since_ms: *since_ms, now_ms };
            match self.policy.strategy().answer(offer, &sight) {
                Decision::Now(answer) => {
                    let handled = self.send_answer(bus, answer)?;
                    self.unreported.push(handled);
                }
                Decision::NotBefore(due_ms) => return Ok(Some(due_ms)),
                Decision::WhenTold => break,
            }
        }
        Ok(None)
    }

    /// Follows requests until one has to wait; until when, if that is known.
    fn follow_requests(
        &mut self,
        bus: &mut dyn Bus,
        others: Others<'_>,
        now_ms: u64,
    ) -> Result<Option<u64>, MailboxError> {
        let messages = self.policy.strategy().habits().release;
        if messages == Messages::Together {
            self.release_together(bus, others, now_ms)?;
        }
        while let Some(request) = self.requests.front() {
            let Leave { ranges, busy } = match self.decide_request(request, others, now_ms) {
                Decision::Now(leave) => leave,
                Decision::NotBefore(due_ms) => return Ok(Some(due_ms)),
                Decision::WhenTold => break,
            };
            let at_a_time = if messages == Messages::Together { ranges.len().max(1) } else { 1 };
            for ranges in ranges.chunks(at_a_time) {
                let handled = self.try_release(bus, ranges.to_vec())?;
                self.unreported.push(handled);
            }
            if !busy.is_empty() {
                self.unreported.push(Handled::Busy { asked: busy });
            }
            // A request that was refused must not be repeated for ever; one that found memory busy is forgotten too.
            self.requests.pop_front();
        }
        Ok(None)
    }

    fn decide_request(&self, request: &Waiting<Vec<Extent>>, others: Others<'_>, now_ms: u64) -> Decision<Leave> {
        let sight = Sight { host: self, others, since_ms: request.since_ms, now_ms };
        self.policy.strategy().leave(&request.what, &sight)
    }

    /// Gives back what several requests ask for with one command: each takes the device a while. If it refuses, perhaps
    /// because it has taken a part away meanwhile, the requests stay and are followed one by one.
    fn release_together(&mut self, bus: &mut dyn Bus, others: Others<'_>, now_ms: u64) -> Result<(), MailboxError> {
        let mut all: Vec<DpaRange> = Vec::new();
        let mut due = 0;
        for request in &self.requests {
            let Decision::Now(Leave { ranges, .. }) = self.decide_request(request, others, now_ms) else { break };
            // A request that was repeated asks for what leaves already.
            all.extend(
                ranges.into_iter().filter(|range| !all.iter().any(|other| other.overlaps(*range))).collect::<Vec<_>>(),
            );
            due += 1;
        }
        if due < 2 || all.is_empty() {
            return Ok(());
        }
        match self.release(bus, &all) {
            Ok(()) => {
                self.requests.drain(..due);
                self.unreported.push(Handled::Released { ranges: all });
                Ok(())
            }
            Err(error) if error.refusal().is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives ranges back; the device may refuse it.
    fn try_release(&mut self, bus: &mut dyn Bus, ranges: Vec<DpaRange>) -> Result<Handled, MailboxError> {
        match self.release(bus, &ranges) {
            Ok(()) => Ok(Handled::Released { ranges }),
            Err(error) => {
                let code = error.refusal().ok_or(error)?;
                Ok(Handled::ReleaseRefused { ranges, code })
            }
        }
    }

    /// Answers the oldest offer and takes it from the queue.
    fn send_answer(&mut self, bus: &mut dyn Bus, answer: Answer) -> Result<Handled, MailboxError> {
        let Answer { ranges, accepted } = answer;
        let mailbox = self.device.mailbox;
        let refused = match update::add_response(bus, &mailbox, &ranges) {
            Ok(()) => None,
            Err(error) => Some(error.refusal().ok_or(error)?),
        };
        // The empty answer closes a group that died. A refused answer to an inherited offer may mean that the offer was
        // answered before; then the empty one would reject the next.
        let is_new = self.offers.front().is_none_or(|offer| offer.what.age == Age::New);
        let is_closed = self.policy.strategy().habits().after_refusal == AfterRefusal::EmptyAnswer;
        if refused.is_some() && !ranges.is_empty() && is_new && is_closed {
            match update::add_response(bus, &mailbox, &[]) {
                Err(error) if error.refusal().is_none() => return Err(error),
                _ => {}
            }
        }
        let offer = self.offers.pop_front().map(|waiting| waiting.what);
        let offer = offer.unwrap_or_else(|| Offer { extents: Vec::new(), fault: None, age: Age::New });
        Ok(match refused {
            None => {
                self.extents.append(&accepted);
                Handled::Answered { offer, accepted }
            }
            Some(code) => Handled::AnswerRefused { offer, code },
        })
    }
}
