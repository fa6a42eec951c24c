//! What an interrupt leads to: the Dynamic Capacity log is read until it is empty, in Linux' order.
//!
//! ```text
//! event status ─▶ 0100h ─▶ per record: chain, forced release, ... ─▶ closed chains: policy ─▶ 4802h / 4803h
//!                   ▲                                                                            │
//!                   └──────────────── 0101h of the same records, in order ◀──────────────────────┘   until 0 records
//! ```
//!
//! The answer goes out before the records are cleared. If a command fails on the way, what was taken from the log is
//! remembered: the next drain answers and clears it before it reads on. After an overflow the list of extents is
//! read anew, as the standard asks; a policy may leave that out, and handle record by record. Deliberately absent: logs
//! that a DCD does not need.

use alloc::vec::Vec;

use wire::registers::EventStatus;
use wire::{DC_EVENT_UUID, DcEventKind, DcEventRecord, ReturnCode};

use crate::bus::Bus;
use crate::chain::{Chain, ChainEnd, ChainKind};
use crate::event_log;
use crate::extent_list::ExtentListError;
use crate::extents::{DpaRange, Extent};
use crate::host::Host;
use crate::host_set::Others;
use crate::mailbox::MailboxError;
use crate::offer::{Age, Offer};
use crate::policy::{Loss, Pace};
use crate::waiting::Waiting;

/// Reads of one drain at most; a log that is longer is filled as fast as it is read.
pub(crate) const READS_MAX: usize = 0x1_0000;

/// One thing that happened while events were handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handled {
    /// Capacity is offered, and waits for an answer.
    Offered {
        /// The offer.
        offer: Offer,
    },
    /// An offer was answered, and the device took the answer.
    Answered {
        /// The offer.
        offer: Offer,
        /// What of it the host has now; empty for a refusal.
        accepted: Vec<Extent>,
    },
    /// An offer was answered, and the device refused the answer; the offer is over.
    AnswerRefused {
        /// The offer.
        offer: Offer,
        /// The device's refusal.
        code: ReturnCode,
    },
    /// The record of an offer that an earlier life of the host accepted and did not clear. It needs no answer: one would
    /// be taken for the answer to the next offer.
    AnsweredBefore {
        /// The offer.
        offer: Offer,
    },
    /// Capacity is asked back.
    ReleaseRequested {
        /// As the device named it.
        asked: Vec<Extent>,
    },
    /// Capacity was given back.
    Released {
        /// What left.
        ranges: Vec<DpaRange>,
    },
    /// Capacity was to be given back, and the device refused it.
    ReleaseRefused {
        /// What was to leave.
        ranges: Vec<DpaRange>,
        /// The device's refusal.
        code: ReturnCode,
    },
    /// Capacity was asked back, and is busy. Nothing was sent; the device must ask again.
    Busy {
        /// As the device named it.
        asked: Vec<Extent>,
    },
    /// Capacity was taken away; whatever the host had there is gone, unless its policy only logs it.
    ForcedRelease {
        /// What was taken.
        extent: Extent,
    },
    /// A region has another configuration than the one that was read.
    RegionConfigurationUpdated {
        /// Which region.
        region: u8,
    },
    /// The log was full, and the device dropped records; the list of extents was read anew, unless the policy only logs
    /// it.
    RecordsLost {
        /// How many, at most FFFFh.
        count: u16,
    },
    /// A record that says nothing to a host.
    Ignored {
        /// The record.
        record: DcEventRecord,
    },
}

/// Why the log was not drained. What was handled before is reported by the next drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// A command failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The list of extents cannot be read after records were lost.
    #[error(transparent)]
    ExtentList(#[from] ExtentListError),
    /// The log does not become empty.
    #[error("the Dynamic Capacity log was read {reads} times and still has records")]
    NeverEmpty {
        /// How often it was read.
        reads: usize,
    },
}

impl Host {
    /// Handles whatever the device has to say; nothing where its event status says that the log is empty, except what
    /// the policy has put off until now.
    pub fn on_interrupt(&mut self, bus: &mut dyn Bus) -> Result<Vec<Handled>, DrainError> {
        self.on_interrupt_among(bus, Others::NONE)
    }

    /// As [`Host::on_interrupt`], in a machine with other devices.
    pub(crate) fn on_interrupt_among(
        &mut self,
        bus: &mut dyn Bus,
        others: Others<'_>,
    ) -> Result<Vec<Handled>, DrainError> {
        let status = EventStatus::from(bus.read64(self.event_status()));
        if status.dynamic_capacity() {
            return self.drain_among(bus, others);
        }
        self.settle(bus, others)?;
        Ok(core::mem::take(&mut self.unreported))
    }

    /// Reads the log until it is empty, whatever the event status says.
    pub fn drain(&mut self, bus: &mut dyn Bus) -> Result<Vec<Handled>, DrainError> {
        self.drain_among(bus, Others::NONE)
    }

    fn drain_among(&mut self, bus: &mut dyn Bus, others: Others<'_>) -> Result<Vec<Handled>, DrainError> {
        let mut lost_records = 0;
        for _ in 0..READS_MAX {
            self.settle(bus, others)?;
            let batch = event_log::read(bus, &self.device.mailbox)?;
            lost_records = lost_records.max(batch.lost_records);
            if batch.records.is_empty() {
                self.log = Age::New;
                self.after_overflow(bus, others, lost_records)?;
                return Ok(core::mem::take(&mut self.unreported));
            }
            self.take_batch(bus, others, &batch.records)?;
        }
        Err(DrainError::NeverEmpty { reads: READS_MAX })
    }

    /// Answers what waits, then clears the records that are done with.
    fn settle(&mut self, bus: &mut dyn Bus, others: Others<'_>) -> Result<(), MailboxError> {
        self.follow_policy(bus, others)?;
        event_log::clear(bus, &self.device.mailbox, &self.uncleared)?;
        self.uncleared.clear();
        Ok(())
    }

    /// Takes what one read brought, and answers it. If a command fails on the way, what was not taken is read again.
    fn take_batch(
        &mut self,
        bus: &mut dyn Bus,
        others: Others<'_>,
        records: &[DcEventRecord],
    ) -> Result<(), MailboxError> {
        let at_a_time = match self.policy.strategy().habits().pace {
            Pace::EachRead => records.len(),
            Pace::EachRecord => 1,
        };
        for records in records.chunks(at_a_time) {
            let now_ms = bus.now_ms();
            records.iter().for_each(|record| self.take_record(record, now_ms));
            self.follow_policy(bus, others)?;
        }
        Ok(())
    }

    /// Takes a record over from the log; from here on it is the host's to remember.
    fn take_record(&mut self, record: &DcEventRecord, now_ms: u64) {
        self.uncleared.push(record.header.handle);
        let kind = DcEventKind::from_u8(record.kind).filter(|_| record.header.uuid == DC_EVENT_UUID);
        let habits = self.policy.strategy().habits();
        if let Some(kind) = kind.and_then(ChainKind::of) {
            let ended = match (kind, habits.pace) {
                (ChainKind::Release, Pace::EachRecord) => [Some(Chain::of_one(kind, record)), None],
                _ => self.chain.add(kind, record, now_ms),
            };
            return ended.into_iter().flatten().for_each(|chain| self.take_chain(chain, now_ms));
        }
        match kind {
            Some(DcEventKind::ForcedRelease) => {
                let extent = Extent::from(&record.extent);
                if habits.loss == Loss::Believed {
                    self.extents.remove(extent.range());
                }
                self.unreported.push(Handled::ForcedRelease { extent });
            }
            Some(DcEventKind::RegionConfigurationUpdated) => {
                self.unreported.push(Handled::RegionConfigurationUpdated { region: record.region });
            }
            _ => self.unreported.push(Handled::Ignored { record: *record }),
        }
    }

    pub(crate) fn take_chain(&mut self, chain: Chain, now_ms: u64) {
        match chain.kind {
            ChainKind::Add => {
                let offer = Offer::new(&chain, &self.device.dc, self.log);
                if offer.was_accepted(&self.extents) {
                    return self.unreported.push(Handled::AnsweredBefore { offer });
                }
                self.unreported.push(Handled::Offered { offer: offer.clone() });
                self.offers.push_back(Waiting { what: offer, since_ms: now_ms });
            }
            ChainKind::Release => {
                let asked: Vec<Extent> = chain.extents.iter().map(Extent::from).collect();
                self.unreported.push(Handled::ReleaseRequested { asked: asked.clone() });
                self.requests.push_back(Waiting { what: asked, since_ms: now_ms });
            }
        }
    }

    /// Records were lost: the end of an open chain among them, and perhaps more.
    fn after_overflow(&mut self, bus: &mut dyn Bus, others: Others<'_>, lost_records: u16) -> Result<(), DrainError> {
        if lost_records == 0 {
            return Ok(());
        }
        if self.policy.strategy().habits().loss == Loss::Believed {
            if let Some(chain) = self.chain.end(ChainEnd::Broken) {
                let now_ms = bus.now_ms();
                self.take_chain(chain, now_ms);
                self.follow_policy(bus, others)?;
            }
            self.refresh(bus)?;
        }
        self.unreported.push(Handled::RecordsLost { count: lost_records });
        Ok(())
    }
}
