//! What the Dynamic Capacity series for Linux does (version 11, June 2026), with its checks, its limits and its silence.
//!
//! ```text
//! closed chain ─▶ groups: each tag, each untagged extent ─┬─ all members pass ─▶ listed    one 4802h for all groups
//!                                                         └─ one does not ─▶ left out
//! release record ─▶ the extent of its tag that holds it ─┬─ none ─▶ 4803h of what was named
//!                                                        ├─ busy ─▶ silence
//!                                                        └─ free ─▶ one 4803h for each extent of the tag
//! ```
//!
//! A member passes if it has no shared sequence (no partition is sharable without a CDAT), begins and ends on 2 MiB
//! whatever the block size, lies in region 0, which is the only one that becomes a partition, and in the committed
//! region; and if its tag lives nowhere in this machine. What lies in an untagged extent that the host has is answered
//! as accepted once more. A chain is refused whole if it has more than 100 records or stalls for 20 s.
//!
//! A forced release and an overflow are logged and change nothing here: the memory stays mapped, and its tag stays taken.
//! An answer that the device refuses is not followed by the empty one: no dead group is ever closed.
//! Deliberately absent: the drain of the log before there is a region, and sharing.

use alloc::vec;
use alloc::vec::Vec;

use super::{AfterRefusal, Answer, Decision, Habits, Leave, Loss, Messages, Pace, Sight, Strategy};
use crate::extents::{DpaRange, Extent};
use crate::offer::{Offer, OfferError};

/// What the start and the length of an extent must be multiples of: the smallest page that DAX maps.
const ALIGNMENT_BYTES: u64 = 2 << 20;
/// Records of a chain at most.
const CHAIN_EXTENTS_MAX: usize = 100;
/// How long a chain may stay open after its last record.
const CHAIN_TIMEOUT_MS: u64 = 20_000;

const HABITS: Habits = Habits {
    pace: Pace::EachRecord,
    chain_timeout_ms: Some(CHAIN_TIMEOUT_MS),
    release: Messages::OneEach,
    after_refusal: AfterRefusal::Nothing,
    loss: Loss::Logged,
};

/// Does as Linux does.
pub(super) struct Linux;

impl Strategy for Linux {
    fn answer(&self, offer: &Offer, sight: &Sight<'_>) -> Decision<Answer> {
        let is_whole = match offer.fault {
            Some(OfferError::Unfinished | OfferError::TimedOut | OfferError::TooLong) => false,
            // Where extents may lie has other rules here.
            _ => offer.extents.len() <= CHAIN_EXTENTS_MAX,
        };
        let mut answer = Answer::default();
        if is_whole {
            groups(&offer.extents).iter().for_each(|group| admit(&mut answer, group, sight));
        }
        Decision::Now(answer)
    }

    fn leave(&self, asked: &[Extent], sight: &Sight<'_>) -> Decision<Leave> {
        let mut leave = Leave::default();
        asked.iter().for_each(|named| follow(&mut leave, *named, sight));
        Decision::Now(leave)
    }

    fn habits(&self) -> &'static Habits {
        &HABITS
    }
}

/// The members of each tag, in the order of the log, by their first member; each untagged extent is alone.
fn groups(extents: &[Extent]) -> Vec<Vec<Extent>> {
    let mut groups: Vec<Vec<Extent>> = Vec::new();
    for extent in extents {
        let same_tag = |group: &&mut Vec<Extent>| group.iter().any(|member| member.tag == extent.tag);
        match groups.iter_mut().filter(|_| !extent.tag.is_none()).find(same_tag) {
            Some(group) => group.push(*extent),
            None => groups.push(vec![*extent]),
        }
    }
    groups
}

/// Lists a group whose members all pass.
fn admit(answer: &mut Answer, group: &[Extent], sight: &Sight<'_>) {
    if group.iter().any(|member| sight.is_live(member) || !can_be_mapped(member, sight)) {
        return;
    }
    let mut new: Vec<Extent> = Vec::new();
    for member in group {
        let range = member.range();
        let had = || sight.host.extents().iter().chain(&answer.accepted).map(Extent::range);
        if had().any(|had| had.holds(range)) {
            continue;
        }
        if had().chain(new.iter().map(Extent::range)).any(|had| had.overlaps(range)) {
            return;
        }
        new.push(*member);
    }
    answer.ranges.extend(group.iter().map(Extent::range));
    answer.accepted.extend(new);
}

/// Whether an extent is such that DAX can map it: aligned, in the partition, and in the region over it.
fn can_be_mapped(extent: &Extent, sight: &Sight<'_>) -> bool {
    let range = extent.range();
    let is_aligned = range.start.0.is_multiple_of(ALIGNMENT_BYTES) && range.len_bytes.is_multiple_of(ALIGNMENT_BYTES);
    let partition = sight.host.device.dc.regions.first();
    let is_inside = |start, len_bytes| DpaRange { start, len_bytes }.holds(range);
    extent.shared_sequence == 0
        && is_aligned
        && partition.is_some_and(|partition| is_inside(partition.base, partition.decode_len_bytes))
        && sight.host.region().is_some_and(|region| is_inside(region.dpa_base, region.hpa.size_bytes))
}

/// What one record that asks for capacity leads to.
fn follow(leave: &mut Leave, named: Extent, sight: &Sight<'_>) {
    let extents = sight.host.extents();
    let is_meant = |held: &&Extent| {
        held.tag == named.tag && held.range().holds(named.range()) && !leave.ranges.contains(&held.range())
    };
    // Without a region nothing is known, and the device is told so.
    let meant = extents.iter().find(is_meant).filter(|_| sight.host.region().is_some());
    match meant {
        None => leave.ranges.push(named.range()),
        Some(_) if sight.host.is_busy(named.tag) => leave.busy.push(named),
        Some(held) if held.tag.is_none() => leave.ranges.push(held.range()),
        Some(held) => leave.ranges.extend(extents.iter().filter(|other| other.tag == held.tag).map(Extent::range)),
    }
}

impl Sight<'_> {
    /// Whether an extent's tag lives in this machine: a tag is one allocation, and its extents come together.
    fn is_live(&self, extent: &Extent) -> bool {
        let tag = extent.tag;
        !tag.is_none() && (self.host.extents.tagged(tag).next().is_some() || self.others.have(tag))
    }
}
