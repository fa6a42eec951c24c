//! What reaches the extent manager, and what it decides to have happened.

use serde::{Deserialize, Serialize};
use wire::{Opcode, Tag};

use crate::range::DpaRange;
use crate::stamp::Seq;

use super::event_log::LoggedEvent;
use super::request::{AddRequest, ReleaseRequest, Removal};

/// What reaches the extent manager.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
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
        #[serde(with = "crate::hex")]
        payload: Vec<u8>,
    },
    /// Conventional reset of the device (CXL r4.0 9.13.3): accepted extents stay, all else is as at power-on.
    Reset,
    /// The operator unplugs the device.
    Unplug {
        /// Whether a device in use may be unplugged.
        removal: Removal,
        /// Decoders that the host has committed: the asker has looked.
        decoders: u32,
    },
}

/// A piece of an accepted offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AcceptedPiece {
    /// Its extent's place in the add.
    pub position: u32,
    /// Its addresses.
    pub range: DpaRange,
    /// Where in the backend it begins, in bytes.
    pub offset_bytes: u64,
}

/// A range with the tag and the region of the extent in which it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TaggedRange {
    /// The region.
    pub region: u8,
    /// The tag.
    pub tag: Tag,
    /// The addresses.
    pub range: DpaRange,
}

/// Why an offer ended without the host's taking any of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectReason {
    /// The host's answer was empty.
    Host,
    /// A reset wiped the record that announced it.
    Reset,
    /// The operator withdrew it by force.
    Forced,
    /// The device was unplugged.
    Unplug,
}

/// Who ended an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReleaseCause {
    /// The host gave it back.
    Host,
    /// The operator took it away.
    Forced,
    /// The device was unplugged.
    Unplug,
}

/// What was decided to have happened to extents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
