//! How a tag stands, and how tags that ended are remembered: an orchestrator asks after the fact.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use wire::Tag;

use crate::limits::ENDED_TAGS_MAX;
use crate::range::DpaRange;
use crate::stamp::Seq;

/// How a tag stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TagState {
    /// Never offered, or forgotten.
    Unknown,
    /// Offered, not answered.
    Offered,
    /// The host holds all that was offered.
    Accepted,
    /// The host holds a part of what was offered.
    PartlyAccepted,
    /// The host refused all, or a reset withdrew the offer.
    Rejected,
    /// The host was asked to give back what it still holds.
    ReleaseRequested,
    /// The host gave back the last piece.
    Released,
    /// The last piece was taken away by force.
    Forced,
    /// Withdrawn by force before the host answered.
    Dead,
}

impl TagState {
    /// The word on the wire of QMP and the shell.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::PartlyAccepted => "partly-accepted",
            Self::Rejected => "rejected",
            Self::ReleaseRequested => "release-requested",
            Self::Released => "released",
            Self::Forced => "forced",
            Self::Dead => "dead",
        }
    }
}

/// The answer to a question about a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TagStatus {
    /// How it stands.
    pub state: TagState,
    /// Its region.
    pub region: u8,
    /// The record that put it there; `#0` if unknown.
    pub by: Seq,
    /// What is offered or held of it, in the order of the add.
    pub extents: Vec<DpaRange>,
}

/// How a tag ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// How.
    pub state: TagState,
    /// Its region.
    pub region: u8,
    /// The record that ended it.
    pub by: Seq,
}

/// The tags that ended, at most [`ENDED_TAGS_MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EndedTags {
    pub(super) by_tag: BTreeMap<Tag, Ended>,
    pub(super) oldest: BTreeSet<(Seq, Tag)>,
}

impl EndedTags {
    /// How a tag ended.
    pub fn get(&self, tag: Tag) -> Option<Ended> {
        self.by_tag.get(&tag).copied()
    }

    /// The tags, in their order.
    pub fn tags(&self) -> impl Iterator<Item = Tag> {
        self.by_tag.keys().copied()
    }

    pub(super) fn insert(&mut self, tag: Tag, ended: Ended) {
        if tag.is_none() {
            return;
        }
        self.remove(tag);
        self.by_tag.insert(tag, ended);
        self.oldest.insert((ended.by, tag));
        if self.oldest.len() > ENDED_TAGS_MAX
            && let Some((_, forgotten)) = self.oldest.pop_first()
        {
            self.by_tag.remove(&forgotten);
        }
    }

    /// A tag that is offered again has no past.
    pub(super) fn remove(&mut self, tag: Tag) {
        if let Some(ended) = self.by_tag.remove(&tag) {
            self.oldest.remove(&(ended.by, tag));
        }
    }
}
