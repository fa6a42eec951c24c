//! An unplug: the device leaves its port, and everything that it offered or that the host holds of it ends.
//!
//! Refused while the device is in use, unless it is forced: then offers are withdrawn, extents taken away, decoders
//! undone, and the backends free, in one record. Deliberately absent: event records; there is no device left to read them.

use crate::backends;
use crate::config::{DeviceConfig, DynamicMemory};
use crate::refusal::Refusal;
use crate::windows;

use super::request::Removal;
use super::{Plan, Standing, State, Steps, TaggedRange, Verdict};

impl State {
    pub(super) fn plan_unplug(&self, config: &DeviceConfig, removal: Removal, decoders: u32) -> Result<Plan, Refusal> {
        let (extents, offers) = (self.accepted.len() as u32, self.offers.len() as u32);
        let is_in_use = [extents, offers, decoders].into_iter().any(|count| count > 0);
        if removal == Removal::Requested && is_in_use {
            return Err(Refusal::DeviceInUse { id: config.id.clone(), extents, offers, decoders });
        }
        let held: Vec<_> = self.accepted.listed().map(TaggedRange::of).collect();
        let ids = if config.dynamic_memory == DynamicMemory::Tagged { self.backends_held() } else { Vec::new() };
        Ok(Plan {
            steps: Steps { backends: Some(backends::Prepare::Unplug { ids }), windows: Some(windows::Prepare::Unplug) },
            verdict: Verdict::Unplug { held },
        })
    }

    /// The backends behind pending offers and accepted extents.
    fn backends_held(&self) -> Vec<String> {
        let pending = self.offers.iter().filter(|offer| offer.standing == Standing::Pending);
        let reserved = pending.map(|offer| offer.backend.clone());
        reserved.chain(self.accepted.holdings().map(|(_, holding)| holding.backend.clone())).collect()
    }
}
