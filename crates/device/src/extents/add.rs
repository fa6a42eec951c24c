//! An add: from the operator's request to an offer and its chain of events.

use wire::Tag;

use crate::backends;
use crate::config::{DeviceConfig, DynamicMemory, TagRule};
use crate::limits::{DC_EVENT_LOG_RECORDS_MAX, EXTENTS_MAX, TAGS_MAX};
use crate::range::DpaRange;
use crate::refusal::Refusal;

use super::request::{AddRequest, SelectionPolicy, ranges_of, region_of};
use super::{Plan, State, Steps, Verdict};

impl State {
    pub(super) fn plan_add(&self, config: &DeviceConfig, request: &AddRequest) -> Result<Plan, Refusal> {
        let region = region_of(config, request.host_id, request.region)?;
        if request.policy != SelectionPolicy::Prescriptive {
            return Err(Refusal::SelectionPolicy);
        }
        let ranges = ranges_of(request.region, region, &request.extents)?;
        let (steps, memdev) = match &config.dynamic_memory {
            DynamicMemory::Tagged if request.tag.is_none() => return Err(Refusal::TagNeeded),
            DynamicMemory::Tagged => {
                let len_bytes = ranges.iter().map(|range| range.len_bytes).sum();
                let reserve = backends::Prepare::Reserve { tag: request.tag, len_bytes };
                (Steps { backends: Some(reserve), windows: None }, None)
            }
            DynamicMemory::Plain { backend, tag_rule } => {
                self.check_label(*tag_rule, request.tag)?;
                (Steps::default(), Some(backend.clone()))
            }
        };
        self.check_unused(&ranges)?;
        self.check_room(request, ranges.len())?;
        let (host_id, region, tag) = (request.host_id, request.region, request.tag);
        Ok(Plan { steps, verdict: Verdict::Offer { host_id, region, tag, ranges, memdev } })
    }

    /// On a plain device a tag is a label, which Linux wants on one group at a time.
    fn check_label(&self, rule: TagRule, tag: Tag) -> Result<(), Refusal> {
        if rule == TagRule::Reusable || !self.tag_uses.contains_key(&tag) {
            return Ok(());
        }
        let offered = self.offers.by_tag(tag).map(|offer| offer.id);
        let by = offered.or_else(|| self.accepted.of_tag(tag).first().map(|extent| extent.offer));
        Err(Refusal::TagLive { tag, by: by.unwrap_or_default() })
    }

    fn check_unused(&self, ranges: &[DpaRange]) -> Result<(), Refusal> {
        for asked in ranges.iter().copied() {
            if let Some(extent) = self.accepted.overlapping(asked).next() {
                return Err(Refusal::AlreadyAccepted { asked, accepted: extent.range, by: extent.accepted });
            }
            if let Some((offered, by)) = self.offers.overlapping(asked).next() {
                return Err(Refusal::AlreadyOffered { asked, offered, by });
            }
        }
        Ok(())
    }

    /// The device never announces half a chain and never offers what it could not track.
    fn check_room(&self, request: &AddRequest, extents: usize) -> Result<(), Refusal> {
        if extents > self.log.room() {
            let (room, capacity) = (self.log.room() as u32, DC_EVENT_LOG_RECORDS_MAX as u32);
            return Err(Refusal::EventLogFull { records: extents as u32, room, capacity });
        }
        let available = self.available_extents();
        if extents > available as usize {
            return Err(Refusal::ExtentTracking { asked: extents as u32, available, capacity: EXTENTS_MAX as u32 });
        }
        if self.available_tags() == 0 && !self.tag_uses.contains_key(&request.tag) {
            return Err(Refusal::TagTracking { capacity: TAGS_MAX as u32 });
        }
        Ok(())
    }
}
