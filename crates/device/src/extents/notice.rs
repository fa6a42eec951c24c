//! Notices: what the operator is told when capacity changes hands, so that nobody polls.

use serde::Serialize;
use wire::Tag;

use crate::config::DeviceConfig;
use crate::range::DpaRange;
use crate::stamp::Seq;

use super::{Fact, RegionRange, RejectReason, ReleaseCause};

/// What changed hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// The device offers.
    Offered,
    /// The host accepted.
    Accepted,
    /// The offer ended without an accepted byte.
    Rejected(RejectReason),
    /// The host was asked to give back.
    ReleaseRequested,
    /// The host has it no more.
    Released(ReleaseCause),
}

/// One notice: extents of one tag in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// What changed hands.
    pub kind: NoticeKind,
    /// The head.
    pub host_id: u16,
    /// The region.
    pub region: u8,
    /// The tag.
    pub tag: Tag,
    /// The extents, relative to the region.
    pub extents: Vec<RegionRange>,
    /// The record that says so.
    pub record: Seq,
}

impl Notice {
    /// The notices of a record's facts, in their order.
    pub fn of(config: &DeviceConfig, record: Seq, fact: &Fact) -> Vec<Self> {
        let notice = |kind, region: u8, tag, ranges: &mut dyn Iterator<Item = DpaRange>| Self {
            kind,
            host_id: 0,
            region,
            tag,
            extents: ranges.map(|range| relative(config, region, range)).collect(),
            record,
        };
        match fact {
            Fact::Offered { region, tag, ranges, .. } => {
                vec![notice(NoticeKind::Offered, *region, *tag, &mut ranges.iter().copied())]
            }
            Fact::Accepted { region, tag, pieces, .. } => {
                vec![notice(NoticeKind::Accepted, *region, *tag, &mut pieces.iter().map(|piece| piece.range))]
            }
            Fact::Rejected { region, tag, ranges, reason, .. } => {
                vec![notice(NoticeKind::Rejected(*reason), *region, *tag, &mut ranges.iter().copied())]
            }
            Fact::Died { region, tag, ranges, .. } => {
                let kind = NoticeKind::Rejected(RejectReason::Forced);
                vec![notice(kind, *region, *tag, &mut ranges.iter().copied())]
            }
            Fact::ReleaseRequested { ranges } => by_tag(ranges)
                .map(|(region, tag, mut ranges)| notice(NoticeKind::ReleaseRequested, region, tag, &mut ranges))
                .collect(),
            Fact::Released { ranges, cause } => by_tag(ranges)
                .map(|(region, tag, mut ranges)| notice(NoticeKind::Released(*cause), region, tag, &mut ranges))
                .collect(),
            _ => Vec::new(),
        }
    }
}

/// The ranges grouped by region and tag, the groups in the order in which they first appear.
fn by_tag(ranges: &[super::TaggedRange]) -> impl Iterator<Item = (u8, Tag, std::vec::IntoIter<DpaRange>)> {
    let mut groups: Vec<(u8, Tag, Vec<DpaRange>)> = Vec::new();
    for entry in ranges {
        match groups.iter_mut().find(|(region, tag, _)| (*region, *tag) == (entry.region, entry.tag)) {
            Some((_, _, group)) => group.push(entry.range),
            None => groups.push((entry.region, entry.tag, vec![entry.range])),
        }
    }
    groups.into_iter().map(|(region, tag, ranges)| (region, tag, ranges.into_iter()))
}

fn relative(config: &DeviceConfig, region: u8, range: DpaRange) -> RegionRange {
    let base = config.regions.get(usize::from(region)).map_or(0, |region| region.base.0);
    RegionRange { offset: range.start.0.saturating_sub(base), len_bytes: range.len_bytes }
}
