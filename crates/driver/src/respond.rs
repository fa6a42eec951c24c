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
use crate::drain::Handled;
use crate::extents::{DpaRange, Extent};
use crate::host::Host;
use crate::mailbox::MailboxError;
use crate::offer::{Age, Offer, OfferAnswer, OfferError};
use crate::policy::ReleaseTime;
use crate::update;

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
        let offer = self.offers.front().ok_or(RespondError::NoOffer)?;
        let accepted = offer.accepted(answer, &self.extents)?;
        Ok(self.send_answer(bus, accepted)?)
    }

    /// Gives back what the oldest request asks for, or nothing where there is none.
    pub fn release_requested(&mut self, bus: &mut dyn Bus) -> Result<Option<Handled>, MailboxError> {
        let Some(asked) = self.requests.front() else { return Ok(None) };
        let ranges = self.extents.leaving(asked);
        let handled = match self.release(bus, &ranges) {
            Ok(()) => Handled::Released { ranges },
            Err(error) => {
                let code = error.refusal().ok_or(error)?;
                Handled::ReleaseRefused { ranges, code }
            }
        };
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

    /// Does what the policy says about everything that waits.
    pub(crate) fn follow_policy(&mut self, bus: &mut dyn Bus) -> Result<(), MailboxError> {
        if let Some(answer) = self.policy.answer() {
            while let Some(offer) = self.offers.front() {
                // An offer that breaks a rule gets the empty answer: it stands in the way of the next.
                let accepted = offer.accepted(&answer, &self.extents).unwrap_or_default();
                let handled = self.send_answer(bus, accepted)?;
                self.unreported.push(handled);
            }
        }
        if self.policy.release_time() == ReleaseTime::Now {
            self.release_together(bus)?;
            while let Some(handled) = self.release_requested(bus)? {
                self.unreported.push(handled);
            }
        }
        Ok(())
    }

    /// Gives back what several requests ask for with one command: each takes the device a while. If it refuses, perhaps
    /// because it has taken a part away meanwhile, the requests stay and are followed one by one.
    fn release_together(&mut self, bus: &mut dyn Bus) -> Result<(), MailboxError> {
        let mut all: Vec<DpaRange> = Vec::new();
        for asked in &self.requests {
            let ranges = self.extents.leaving(asked);
            // A request that was repeated asks for what leaves already.
            all.extend(
                ranges.into_iter().filter(|range| !all.iter().any(|other| other.overlaps(*range))).collect::<Vec<_>>(),
            );
        }
        if self.requests.len() < 2 || all.is_empty() {
            return Ok(());
        }
        match self.release(bus, &all) {
            Ok(()) => {
                self.requests.clear();
                self.unreported.push(Handled::Released { ranges: all });
                Ok(())
            }
            Err(error) if error.refusal().is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Answers the oldest offer and takes it from the queue.
    fn send_answer(&mut self, bus: &mut dyn Bus, accepted: Vec<Extent>) -> Result<Handled, MailboxError> {
        let ranges: Vec<DpaRange> = accepted.iter().map(Extent::range).collect();
        let mailbox = self.device.mailbox;
        let refused = match update::add_response(bus, &mailbox, &ranges) {
            Ok(()) => None,
            Err(error) => Some(error.refusal().ok_or(error)?),
        };
        // The empty answer closes a group that died. A refused answer to an inherited offer may mean that the offer was
        // answered before; then the empty one would reject the next.
        let is_new = self.offers.front().is_none_or(|offer| offer.age == Age::New);
        if refused.is_some() && !ranges.is_empty() && is_new {
            match update::add_response(bus, &mailbox, &[]) {
                Err(error) if error.refusal().is_none() => return Err(error),
                _ => {}
            }
        }
        let offer =
            self.offers.pop_front().unwrap_or_else(|| Offer { extents: Vec::new(), fault: None, age: Age::New });
        Ok(match refused {
            None => {
                self.extents.append(&accepted);
                Handled::Answered { offer, accepted }
            }
            Some(code) => Handled::AnswerRefused { offer, code },
        })
    }
}
