//! Add Dynamic Capacity Response, 4802h: the host answers the offer at the head of the queue (CXL r4.0 8.2.10.9.9.3).
//!
//! The whole answer is checked before anything changes. An empty one rejects the offer. The host may accept parts of
//! extents; what it leaves out is withdrawn.

use wire::{Opcode, ReturnCode};

use crate::backends;
use crate::config::{DeviceConfig, DynamicMemory};
use crate::limits::EXTENTS_MAX;
use crate::range::DpaRange;
use crate::stamp::Seq;
use crate::windows::{self, Piece};

use super::event_log::ChainPlace;
use super::offers::{Offer, Standing, Told};
use super::update::Failed;
use super::{AcceptedPiece, Fact, Plan, RejectReason, State, Steps, Verdict, freeing};

/// Which offer an answer means.
enum Addressee<'a> {
    /// This one; the dead ones before it are passed by.
    Pending { offer: &'a Offer, passed: Vec<Seq> },
    /// A dead one.
    Dead(&'a Offer),
    /// None, and this is what is wrong.
    Nobody(ReturnCode),
}

impl State {
    pub(super) fn plan_response(&self, config: &DeviceConfig, payload: &[u8]) -> Plan {
        self.plan_update(config, Opcode::ADD_DC_RESPONSE, payload, |ranges, place| match (ranges, place) {
            ([], ChainPlace::More) => Ok(Plan::command(Vec::new(), ReturnCode::Success, Vec::new())),
            ([], ChainPlace::Last) => Ok(self.plan_rejection(config)),
            (ranges, _) => self.plan_acceptance(config, ranges),
        })
    }

    /// An empty answer always succeeds; with no offer at all it has nothing to reject.
    fn plan_rejection(&self, config: &DeviceConfig) -> Plan {
        let Some(offer) = self.offers.head() else {
            return Plan::command(Vec::new(), ReturnCode::Success, Vec::new());
        };
        let mut free = None;
        let fact = match offer.standing {
            Standing::Dead { .. } => Fact::Retired { offer: offer.id },
            Standing::Pending => {
                free = freeing(config, vec![offer.backend.clone()]);
                offer.rejected(RejectReason::Host)
            }
        };
        Plan {
            steps: Steps { backends: free, windows: None },
            verdict: Verdict::command(vec![fact], ReturnCode::Success, Vec::new()),
        }
    }

    fn plan_acceptance(&self, config: &DeviceConfig, ranges: &[DpaRange]) -> Result<Plan, Failed> {
        let (offer, passed) = match self.addressee(ranges) {
            Addressee::Pending { offer, passed } => (offer, passed),
            Addressee::Nobody(code) => return Err(code.into()),
            Addressee::Dead(offer) => {
                let is_news = matches!(offer.standing, Standing::Dead { told: Told::NotYet, .. });
                let facts = Vec::from_iter(is_news.then_some(Fact::DeadAnswered { offer: offer.id }));
                return Err(Failed { facts, return_code: ReturnCode::InvalidPhysicalAddress });
            }
        };
        let others = self.offers.extents_len() - offer.extents.len();
        if self.accepted.len() + others + ranges.len() > EXTENTS_MAX {
            return Err(ReturnCode::ResourcesExhausted.into());
        }
        let pieces = offer.pieces(config, ranges);
        let behind = pieces.iter().map(|piece| Piece {
            range: piece.range,
            backend: offer.backend.clone(),
            offset_bytes: piece.offset_bytes,
        });
        let steps = Steps {
            backends: Some(attaching(config, offer.backend.clone())),
            windows: Some(windows::Prepare::Map(behind.collect())),
        };
        let retired = passed.into_iter().map(|offer| Fact::Retired { offer });
        let accepted = Fact::Accepted { offer: offer.id, region: offer.region, tag: offer.tag, pieces };
        let facts = retired.chain([accepted]).collect();
        Ok(Plan { steps, verdict: Verdict::command(facts, ReturnCode::Success, Vec::new()) })
    }

    /// Offers are answered in their order. A dead offer keeps its place until the host knows: it is told by a refused
    /// answer, and may then either close the offer with an empty answer or go on with the next one.
    fn addressee(&self, ranges: &[DpaRange]) -> Addressee<'_> {
        let mut passed = Vec::new();
        for offer in self.offers.iter() {
            let fits = offer.holds_all(ranges);
            match offer.standing {
                Standing::Pending if fits => return Addressee::Pending { offer, passed },
                Standing::Dead { .. } if fits => return Addressee::Dead(offer),
                Standing::Dead { told: Told::Refused, .. } => passed.push(offer.id),
                Standing::Pending | Standing::Dead { told: Told::NotYet, .. } => {
                    let is_later = self.offers.iter().any(|other| other.id > offer.id && other.holds_all(ranges));
                    let out_of_order = ReturnCode::InvalidInput;
                    let outside = ReturnCode::InvalidPhysicalAddress;
                    return Addressee::Nobody(if is_later { out_of_order } else { outside });
                }
            }
        }
        Addressee::Nobody(ReturnCode::InvalidPhysicalAddress)
    }
}

/// What makes a backend's memory ready to be mapped.
fn attaching(config: &DeviceConfig, id: String) -> backends::Prepare {
    match config.dynamic_memory {
        DynamicMemory::Tagged => backends::Prepare::Attach { id },
        DynamicMemory::Plain { .. } => backends::Prepare::Lend { id },
    }
}

impl Offer {
    /// Whether each range lies inside one extent of the offer.
    fn holds_all(&self, ranges: &[DpaRange]) -> bool {
        // Most answers are the extents in their order: one pass. Any other order costs an index.
        if ranges.len() <= self.extents.len()
            && ranges.iter().zip(&self.extents).all(|(range, extent)| extent.contains(*range))
        {
            return true;
        }
        let by_address = self.by_address();
        ranges.iter().all(|range| {
            let candidate = by_address.range(..=range.start).next_back();
            candidate.is_some_and(|(_, (extent, ..))| extent.contains(*range))
        })
    }

    /// The accepted pieces in the order of the add, whatever the order of the answer.
    fn pieces(&self, config: &DeviceConfig, ranges: &[DpaRange]) -> Vec<AcceptedPiece> {
        let by_address = self.by_address();
        let mut pieces: Vec<_> = ranges
            .iter()
            .filter_map(|range| {
                let (_, (extent, position, offset_bytes)) = by_address.range(..=range.start).next_back()?;
                let offset_bytes = match config.dynamic_memory {
                    DynamicMemory::Tagged => offset_bytes + (range.start.0 - extent.start.0),
                    DynamicMemory::Plain { .. } => config.plain_offset(range.start),
                };
                Some(AcceptedPiece { position: *position, range: *range, offset_bytes })
            })
            .collect();
        pieces.sort_unstable_by_key(|piece| (piece.position, piece.range.start));
        pieces
    }

    pub(super) fn rejected(&self, reason: RejectReason) -> Fact {
        let (offer, region, tag, ranges) = (self.id, self.region, self.tag, self.extents.clone());
        Fact::Rejected { offer, region, tag, ranges, reason }
    }
}
