//! Laws of one device's offers, extents, counters and event log.

use std::collections::{BTreeMap, BTreeSet};

use wire::Tag;

use crate::config::DeviceConfig;
use crate::extents::{ChainPlace, Fact, State as Extents};
use crate::limits::DC_EVENT_LOG_RECORDS_MAX;
use crate::range::DpaRange;
use crate::vm::Device;

use super::holds;
use super::touched::counted;
use super::watch::Near;

fn all_ranges(extents: &Extents) -> Vec<DpaRange> {
    let offered = extents.offers().iter().flat_map(|offer| offer.extents.iter().copied());
    offered.chain(extents.accepted().iter().map(|extent| extent.range)).collect()
}

pub(super) fn extents_disjoint(config: &DeviceConfig, device: &Device) -> Result<(), String> {
    apart_and_placed(config, &all_ranges(&device.extents))
}

pub(super) fn extents_disjoint_near(near: &Near<'_>, device: &Device) -> bool {
    let touched = &near.before.touched;
    let offered = touched.ranges().iter().flat_map(|range| device.extents.offers().overlapping(*range));
    let mut ranges: Vec<_> = offered.map(|(range, _)| range).collect();
    ranges.dedup();
    ranges.extend(near.extents().iter().map(|extent| extent.range));
    apart_and_placed(&device.config, &ranges).is_ok()
}

fn apart_and_placed(config: &DeviceConfig, ranges: &[DpaRange]) -> Result<(), String> {
    if let Some((first, second)) = crate::range::first_overlap(ranges) {
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

/// What is counted of each touched offer changed by as much as its extents did.
pub(super) fn capacity_adds_up_near(near: &Near<'_>, device: &Device) -> bool {
    let (touched, stood, accepted) = (&near.before.touched, &near.before.stood, device.extents.accepted());
    let came = near.extents().iter().map(|extent| (extent.offer, extent.range.len_bytes));
    let went = stood.extents.iter().map(|(offer, _, len_bytes)| (*offer, *len_bytes));
    let Some(due_bytes) = moved(&touched.offers, &stood.held_bytes, came, went) else { return false };
    touched.offers.iter().zip(due_bytes).all(|(id, due_bytes)| match accepted.of_offer(*id) {
        None => due_bytes == 0,
        Some(holding) => (1..=holding.offered_bytes).contains(&due_bytes) && holding.held_bytes == due_bytes,
    })
}

/// Counts by key, with what came and without what went; `None` where a key is not there or a count would be negative.
fn moved<K: Ord>(
    keys: &[K],
    counts: &[u64],
    came: impl Iterator<Item = (K, u64)>,
    went: impl Iterator<Item = (K, u64)>,
) -> Option<Vec<u64>> {
    let mut counts = counts.to_vec();
    let place = |key: &K| keys.binary_search(key).ok();
    for (key, count) in came {
        let counted = counts.get_mut(place(&key)?)?;
        *counted = counted.checked_add(count)?;
    }
    for (key, count) in went {
        let counted = counts.get_mut(place(&key)?)?;
        *counted = counted.checked_sub(count)?;
    }
    Some(counts)
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

/// What is counted of each touched tag changed by as many extents as came and went.
pub(super) fn counters_match_near(near: &Near<'_>, device: &Device) -> bool {
    let (touched, stood, offers) = (&near.before.touched, &near.before.stood, device.extents.offers());
    let offered: Vec<_> = touched.offers.iter().filter_map(|id| offers.get(*id)).map(counted).collect();
    let came = offered.iter().copied().chain(near.extents().iter().map(|extent| (extent.tag, 1)));
    let went = stood.offers.iter().copied().chain(stood.extents.iter().map(|(_, tag, _)| (*tag, 1)));
    let is_counted = |(tag, _): &(Tag, u64)| !tag.is_none();
    let due = moved(&touched.tags, &stood.uses, came.filter(is_counted), went.filter(is_counted));
    let is_right = |(tag, due): (&Tag, u64)| {
        let uses = device.extents.tag_uses().get(tag).map(|uses| u64::from(*uses));
        uses == (due > 0).then_some(due)
    };
    let extents_of = |offers: &[(Tag, u64)]| offers.iter().map(|(_, extents)| extents).sum::<u64>();
    due.is_some_and(|due| touched.tags.iter().zip(due).all(is_right))
        && offers.extents_len() as u64 + extents_of(&stood.offers) == stood.offered + extents_of(&offered)
}

pub(super) fn list_complete(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let accepted = device.extents.accepted();
    if accepted.is_listed_whole() {
        return Ok(());
    }
    // What is wrong, or only looks so.
    let listed: Vec<_> = accepted.listed().collect();
    holds(listed.len() == accepted.len(), || format!("{} of {} extents listed", listed.len(), accepted.len()))?;
    let key = |extent: &crate::extents::Extent| (extent.offer, extent.position, extent.range.start);
    holds(listed.windows(2).all(|pair| key(pair[0]) < key(pair[1])), || "the list is out of order".into())
}

pub(super) fn list_complete_near(near: &Near<'_>, device: &Device) -> bool {
    let accepted = device.extents.accepted();
    accepted.listed_len() == accepted.len() && near.extents().iter().all(|extent| accepted.is_listed(extent))
}

pub(super) fn offers_in_order(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let ids: Vec<_> = device.extents.offers().iter().map(|offer| offer.id).collect();
    holds(ids.windows(2).all(|pair| pair[0] < pair[1]), || format!("offers stand as {ids:?}"))
}

/// Offers come at the end.
pub(super) fn offers_in_order_near(_: &Near<'_>, device: &Device) -> bool {
    let mut newest = device.extents.offers().iter().rev().map(|offer| offer.id);
    match (newest.next(), newest.next()) {
        (Some(last), Some(before)) => before < last,
        _ => true,
    }
}

pub(super) fn log_whole_chains(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let log = device.extents.log();
    holds(log.len() <= DC_EVENT_LOG_RECORDS_MAX, || format!("{} records", log.len()))?;
    let handles: BTreeSet<_> = log.iter().map(|event| event.handle).collect();
    holds(handles.len() == log.len() && !handles.contains(&0), || "handles repeat or are 0".into())?;
    let is_closed = log.iter().last().is_none_or(|event| event.place == ChainPlace::Last);
    holds(is_closed, || "the last record says that more follow".into())
}

/// What was put into the log has handles that count up, and none of them was there.
pub(super) fn log_whole_chains_near(near: &Near<'_>, device: &Device) -> bool {
    let log = device.extents.log();
    let logged =
        near.before.extents_facts().map(|fact| if let Fact::Logged { events } = fact { events.len() } else { 0 });
    let news = logged.sum::<usize>().min(log.len());
    let Some(first) = log.iter().rev().take(news).last().map(|event| event.handle) else { return true };
    let behind_first = |handle: u16| (u32::from(handle) + 0xffff - u32::from(first)) % 0xffff;
    let (mut old, new) = (log.iter().take(log.len() - news), log.iter().skip(log.len() - news));
    log.len() <= DC_EVENT_LOG_RECORDS_MAX
        && log.iter().next_back().is_none_or(|event| event.place == ChainPlace::Last)
        && new.zip(0..).all(|(event, place)| event.handle != 0 && behind_first(event.handle) == place)
        && old.all(|event| behind_first(event.handle) as usize >= news)
}

pub(super) fn requested_is_accepted(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    device.extents.requested().try_for_each(|range| {
        holds(device.extents.accepted().covers(range), || format!("{range} is asked back and not held"))
    })
}

pub(super) fn requested_is_accepted_near(near: &Near<'_>, device: &Device) -> bool {
    let requested = near.before.touched.ranges().iter().flat_map(|range| device.extents.requested_of(*range));
    requested.into_iter().all(|range| device.extents.accepted().covers(range))
}
