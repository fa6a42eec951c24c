//! A release: the operator asks the host to give back, or takes away by force (CXL r4.0 7.6.7.6.6, 9.13.3).

use std::collections::{BTreeMap, BTreeSet};

use wire::Tag;

use crate::config::DeviceConfig;
use crate::limits::DC_EVENT_LOG_RECORDS_MAX;
use crate::range::DpaRange;
use crate::refusal::Refusal;
use crate::stamp::Seq;
use crate::windows;

use super::accepted::Extent;
use super::offers::Standing;
use super::request::{ReleaseRequest, Removal, RemovalPolicy, Sanitize, ranges_of, region_of};
use super::tags::{TagState, TagStatus};
use super::{Plan, State, Steps, TaggedRange, Verdict, freeing};

/// What a release request hits.
#[derive(Default)]
struct Targets {
    /// Accepted ranges, in the order of the list, each with its own tag.
    held: Vec<TaggedRange>,
    /// Offers that the host has not answered.
    offered: BTreeSet<Seq>,
}

impl State {
    pub(super) fn plan_release(&self, config: &DeviceConfig, request: &ReleaseRequest) -> Result<Plan, Refusal> {
        let region = region_of(config, request.host_id, request.region)?;
        if request.sanitize == Sanitize::OnRelease {
            return Err(Refusal::Sanitize);
        }
        let targets = match request.policy {
            RemovalPolicy::TagBased => match self.targets_of_tag(request)? {
                Some(targets) => targets,
                None => return Ok(Plan::without_steps(Verdict::Nothing)),
            },
            RemovalPolicy::Prescriptive => {
                self.targets_of_ranges(request, &ranges_of(request.region, region, &request.extents)?)?
            }
        };
        match request.removal {
            Removal::Requested => self.plan_request(targets),
            Removal::Forced => Ok(self.plan_force(config, targets)),
        }
    }

    /// What a tag-based request hits in its region; `None` where the tag is released already, which is what was asked
    /// for. On a plain device several offers can have the tag, answered or not; the host can be asked only for what it
    /// holds.
    fn targets_of_tag(&self, request: &ReleaseRequest) -> Result<Option<Targets>, Refusal> {
        let tag = request.tag;
        if tag.is_none() {
            return Err(Refusal::ReleaseTagNeeded);
        }
        let accepted = self.accepted.of_tag(tag).into_iter().filter(|extent| extent.region == request.region);
        let held: Vec<_> = accepted.map(TaggedRange::of).collect();
        let pending = self.offers.pending_of_tag(tag).filter(|offer| offer.region == request.region);
        let offered: BTreeSet<_> = pending.map(|offer| offer.id).collect();
        match (request.removal, held.is_empty(), offered.first()) {
            (_, true, None) => self.no_targets_of_tag(request),
            (Removal::Requested, true, Some(by)) => {
                let offer = self.offers.get(*by);
                let range = offer.and_then(|offer| offer.extents.first().copied()).unwrap_or_default();
                Err(Refusal::StillOffered { range, by: *by })
            }
            (Removal::Requested, false, _) => Ok(Some(Targets { held, ..Targets::default() })),
            (Removal::Forced, ..) => Ok(Some(Targets { held, offered })),
        }
    }

    /// Why nothing has the tag in the region of the request.
    fn no_targets_of_tag(&self, request: &ReleaseRequest) -> Result<Option<Targets>, Refusal> {
        let tag = request.tag;
        let TagStatus { state, region: actual, by, .. } = self.tag_status(tag);
        if state != TagState::Unknown && actual != request.region {
            return Err(Refusal::TagInOtherRegion { tag, region: request.region, actual, by });
        }
        match state {
            TagState::Rejected => Err(Refusal::TagRejected { tag, by }),
            TagState::Dead => Err(Refusal::TagDead { tag, by }),
            TagState::Released | TagState::Forced => Ok(None),
            // What is offered or accepted in this region was found.
            _ => Err(Refusal::TagUnknown { tag }),
        }
    }

    fn targets_of_ranges(&self, request: &ReleaseRequest, ranges: &[DpaRange]) -> Result<Targets, Refusal> {
        let mut targets = Targets::default();
        for range in ranges.iter().copied() {
            if let Some((offered, by)) = self.pending_overlapping(range) {
                if request.removal == Removal::Requested {
                    return Err(Refusal::StillOffered { range: offered, by });
                }
                let actual = self.offers.get(by).map_or(Tag::NONE, |offer| offer.tag);
                check_tag(request.tag, offered, actual, by)?;
                targets.offered.insert(by);
                continue;
            }
            if !self.accepted.covers(range) {
                return Err(Refusal::NotAccepted { range });
            }
            for extent in self.accepted.overlapping(range) {
                check_tag(request.tag, extent.range, extent.tag, extent.accepted)?;
                let part = extent.range.intersection(range);
                targets.held.extend(part.map(|range| TaggedRange { range, ..TaggedRange::of(extent) }));
            }
        }
        Ok(targets)
    }

    fn pending_overlapping(&self, range: DpaRange) -> Option<(DpaRange, Seq)> {
        let is_pending = |id| self.offers.get(id).is_some_and(|offer| offer.standing == Standing::Pending);
        self.offers.overlapping(range).find(|(_, id)| is_pending(*id))
    }

    /// Asks the host. A request that is repeated while its records are still in the log logs nothing; once the host
    /// has cleared them they are logged again, because Linux answers a busy release with nothing and looks at it anew
    /// only when a new record comes.
    fn plan_request(&self, targets: Targets) -> Result<Plan, Refusal> {
        let uncleared = self.log.uncleared_releases();
        let log: Vec<_> = targets.held.iter().filter(|held| !uncleared.contains(&held.range)).copied().collect();
        if log.len() > self.log.room() {
            let (room, capacity) = (self.log.room() as u32, DC_EVENT_LOG_RECORDS_MAX as u32);
            return Err(Refusal::EventLogFull { records: log.len() as u32, room, capacity });
        }
        let is_new = |held: &&TaggedRange| !self.is_requested(held.range);
        let requested = targets.held.iter().filter(is_new).copied().collect();
        Ok(Plan::without_steps(Verdict::RequestRelease { requested, log }))
    }

    fn plan_force(&self, config: &DeviceConfig, targets: Targets) -> Plan {
        let ranges: Vec<_> = targets.held.iter().map(|held| held.range).collect();
        let mut free = self.backends_emptied_by(&ranges);
        let dying = targets.offered.iter().filter_map(|id| self.offers.get(*id));
        free.extend(dying.map(|offer| offer.backend.clone()));
        Plan {
            steps: Steps {
                backends: freeing(config, free),
                windows: (!ranges.is_empty()).then_some(windows::Prepare::Unmap(ranges)),
            },
            verdict: Verdict::Force { held: targets.held, dying: targets.offered.into_iter().collect() },
        }
    }

    /// The backends of which the host holds nothing once `ranges` are gone.
    pub(super) fn backends_emptied_by(&self, ranges: &[DpaRange]) -> Vec<String> {
        let mut gone_bytes = BTreeMap::<Seq, u64>::new();
        for range in ranges.iter().copied() {
            for extent in self.accepted.overlapping(range) {
                let part_bytes = extent.range.intersection(range).map_or(0, |part| part.len_bytes);
                *gone_bytes.entry(extent.offer).or_default() += part_bytes;
            }
        }
        let holdings =
            gone_bytes.into_iter().filter_map(|(offer, bytes)| Some((self.accepted.of_offer(offer)?, bytes)));
        // With the planted bug what is left is forgotten: a part of a holding frees the backend of all of it.
        let is_planted = cfg!(feature = "planted-bug");
        let emptied = holdings.filter(|(holding, bytes)| is_planted || holding.held_bytes == *bytes);
        emptied.map(|(holding, _)| holding.backend.clone()).collect()
    }
}

impl TaggedRange {
    pub(super) fn of(extent: &Extent) -> Self {
        Self { region: extent.region, tag: extent.tag, range: extent.range }
    }
}

/// A prescriptive request without a tag takes what is there; with a tag it must be the right one.
fn check_tag(tag: Tag, range: DpaRange, actual: Tag, by: Seq) -> Result<(), Refusal> {
    if tag.is_none() || tag == actual { Ok(()) } else { Err(Refusal::OtherTag { tag, range, actual, by }) }
}
