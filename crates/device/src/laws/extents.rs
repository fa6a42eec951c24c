//! Laws of one device's offers, extents, counters and event log.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::DeviceConfig;
use crate::extents::{ChainPlace, State as Extents};
use crate::limits::DC_EVENT_LOG_RECORDS_MAX;
use crate::range::DpaRange;
use crate::vm::Device;

use super::holds;

fn all_ranges(extents: &Extents) -> Vec<DpaRange> {
    let offered = extents.offers().iter().flat_map(|offer| offer.extents.iter().copied());
    offered.chain(extents.accepted().iter().map(|extent| extent.range)).collect()
}

pub(super) fn extents_disjoint(config: &DeviceConfig, device: &Device) -> Result<(), String> {
    let ranges = all_ranges(&device.extents);
    if let Some((first, second)) = crate::range::first_overlap(&ranges) {
        return Err(format!("{first} and {second} overlap"));
    }
    ranges.iter().try_for_each(|range| {
        let is_placed = config
            .region_of(*range)
            .is_some_and(|(_, region)| region.block.divides(range.start.0) && region.block.divides(range.len_bytes));
        holds(is_placed, || format!("{range} is not made of whole blocks of one region"))
    })
}

pub(super) fn capacity_adds_up(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let mut sums = BTreeMap::<_, u64>::new();
    for extent in device.extents.accepted().iter() {
        *sums.entry(extent.offer).or_default() += extent.range.len_bytes;
    }
    let counted: BTreeMap<_, _> = device.extents.accepted().holdings().collect();
    holds(sums.len() == counted.len(), || format!("{} offers have extents, {} count", sums.len(), counted.len()))?;
    sums.into_iter().try_for_each(|(offer, sum_bytes)| {
        let is_right = counted
            .get(&offer)
            .is_some_and(|holding| holding.held_bytes == sum_bytes && sum_bytes <= holding.offered_bytes);
        holds(is_right, || format!("{sum_bytes} bytes accepted of {offer} are not what is counted"))
    })
}

pub(super) fn counters_match(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let mut uses = BTreeMap::<_, u32>::new();
    for offer in device.extents.offers().iter().filter(|offer| !offer.tag.is_none()) {
        *uses.entry(offer.tag).or_default() += offer.extents.len() as u32;
    }
    for extent in device.extents.accepted().iter().filter(|extent| !extent.tag.is_none()) {
        *uses.entry(extent.tag).or_default() += 1;
    }
    let counted = device.extents.tag_uses();
    if let Some(tag) = uses.keys().chain(counted.keys()).find(|tag| uses.get(tag) != counted.get(tag)) {
        let count = |uses: &BTreeMap<_, u32>| uses.get(tag).copied().unwrap_or_default();
        return Err(format!("tag {tag} has {} extents, {} are counted", count(&uses), count(counted)));
    }
    let offered: usize = device.extents.offers().iter().map(|offer| offer.extents.len()).sum();
    let indexed = device.extents.offers().extents_len();
    holds(offered == indexed, || format!("{offered} extents are offered, {indexed} are counted"))
}

pub(super) fn list_complete(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let accepted = device.extents.accepted();
    let listed: Vec<_> = accepted.listed().collect();
    holds(listed.len() == accepted.len(), || format!("{} of {} extents listed", listed.len(), accepted.len()))?;
    let key = |extent: &crate::extents::Extent| (extent.offer, extent.position, extent.range.start);
    holds(listed.windows(2).all(|pair| key(pair[0]) < key(pair[1])), || "the list is out of order".into())
}

pub(super) fn offers_in_order(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let ids: Vec<_> = device.extents.offers().iter().map(|offer| offer.id).collect();
    holds(ids.windows(2).all(|pair| pair[0] < pair[1]), || format!("offers stand as {ids:?}"))
}

pub(super) fn log_whole_chains(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let log = device.extents.log();
    holds(log.len() <= DC_EVENT_LOG_RECORDS_MAX, || format!("{} records", log.len()))?;
    let handles: BTreeSet<_> = log.iter().map(|event| event.handle).collect();
    holds(handles.len() == log.len() && !handles.contains(&0), || "handles repeat or are 0".into())?;
    let is_closed = log.iter().last().is_none_or(|event| event.place == ChainPlace::Last);
    holds(is_closed, || "the last record says that more follow".into())
}

pub(super) fn requested_is_accepted(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    device.extents.requested().try_for_each(|range| {
        holds(device.extents.accepted().covers(range), || format!("{range} is asked back and not held"))
    })
}
