//! Release Dynamic Capacity, 4803h: the host gives accepted capacity back, asked or not (CXL r4.0 8.2.10.9.9.4).
//!
//! Any part, any number of extents at once, all or nothing. What is left of a split extent keeps its tag, its sequence
//! number and its place in the list.

use wire::{Opcode, ReturnCode};

use crate::config::DeviceConfig;
use crate::limits::EXTENTS_MAX;
use crate::range::DpaRange;
use crate::windows;

use super::event_log::ChainPlace;
use super::update::Failed;
use super::{Fact, Plan, ReleaseCause, State, Steps, TaggedRange, Verdict, freeing};

impl State {
    pub(super) fn plan_give_back(&self, config: &DeviceConfig, payload: &[u8]) -> Plan {
        self.plan_update(config, Opcode::RELEASE_DC, payload, |ranges, place| match (ranges, place) {
            ([], ChainPlace::More) => Ok(Plan::command(Vec::new(), ReturnCode::Success, Vec::new())),
            ([], ChainPlace::Last) => Err(ReturnCode::InvalidInput.into()),
            (ranges, _) => self.plan_released(config, ranges),
        })
    }

    fn plan_released(&self, config: &DeviceConfig, ranges: &[DpaRange]) -> Result<Plan, Failed> {
        if !ranges.iter().all(|range| self.accepted.covers(*range)) {
            return Err(ReturnCode::InvalidPhysicalAddress.into());
        }
        if self.accepted.len_without(ranges) + self.offers.extents_len() > EXTENTS_MAX {
            return Err(ReturnCode::ResourcesExhausted.into());
        }
        let steps = Steps {
            backends: freeing(config, self.backends_emptied_by(ranges)),
            windows: Some(windows::Prepare::Unmap(ranges.to_vec())),
        };
        let released = Fact::Released { ranges: self.tagged(ranges), cause: ReleaseCause::Host };
        Ok(Plan { steps, verdict: Verdict::command(vec![released], ReturnCode::Success, Vec::new()) })
    }

    /// The ranges cut at the borders of accepted extents, each with its extent's tag.
    fn tagged(&self, ranges: &[DpaRange]) -> Vec<TaggedRange> {
        ranges
            .iter()
            .flat_map(|range| {
                self.accepted.overlapping(*range).filter_map(|extent| {
                    let part = extent.range.intersection(*range)?;
                    Some(TaggedRange { range: part, ..TaggedRange::of(extent) })
                })
            })
            .collect()
    }
}
