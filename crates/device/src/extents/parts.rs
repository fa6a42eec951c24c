//! The extent manager's state taken apart and put together again. Indexes, orders and sums are not among the parts:
//! they are made again.

use std::collections::BTreeMap;

use wire::Tag;

use crate::config::DeviceConfig;
use crate::limits::{DC_EVENT_LOG_RECORDS_MAX, ENDED_TAGS_MAX};
use crate::range::{DpaRange, first_overlap};
use crate::stamp::Seq;

use super::accepted::{Accepted, Extent, Holding};
use super::event_log::{EventLog, LoggedEvent, Overflow};
use super::offers::{Offer, Offers};
use super::tags::{Ended, EndedTags};
use super::update::Chain;
use super::{HostClock, State};

/// All that the extent manager's state is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The offers, oldest first.
    pub offers: Vec<Offer>,
    /// The accepted extents, by address.
    pub accepted: Vec<Extent>,
    /// Of each offer of which the host holds something: how many bytes were offered.
    pub offered_bytes: BTreeMap<Seq, u64>,
    /// The tags that ended and are not forgotten.
    pub ended: BTreeMap<Tag, Ended>,
    /// The records of the DC event log, oldest first.
    pub events: Vec<LoggedEvent>,
    /// The handle that was given out last.
    pub last_handle: u16,
    /// What the log dropped since the last clear.
    pub overflow: Option<Overflow>,
    /// The unfinished chain of an answer.
    pub chain: Option<Chain>,
    /// The generation number of the extent list.
    pub generation: u32,
    /// The host's clock, if it set one.
    pub clock: Option<HostClock>,
    /// The accepted addresses that the host was asked to give back, by address; none touches the next.
    pub requested: Vec<DpaRange>,
}

impl State {
    /// What the state is made of. Whatever it has is named here: what is left out can be made again.
    pub fn parts(&self) -> Parts {
        let Self { offers, accepted, ended, log, chain, generation, clock, tag_uses: _, requested: _ } = self;
        let Offers { queue, by_dpa: _, by_tag: _ } = offers;
        let Accepted { by_dpa, order: _, by_tag: _, by_offer } = &**accepted;
        let EndedTags { by_tag, oldest: _ } = ended;
        let EventLog { events, last_handle, overflow } = log;
        Parts {
            offers: queue.iter().cloned().collect(),
            accepted: by_dpa.values().cloned().collect(),
            offered_bytes: by_offer.iter().map(|(offer, holding)| (*offer, offered_bytes(holding))).collect(),
            ended: by_tag.clone(),
            events: events.iter().copied().collect(),
            last_handle: *last_handle,
            overflow: *overflow,
            chain: chain.clone(),
            generation: *generation,
            clock: *clock,
            requested: self.requested().collect(),
        }
    }

    /// The state that is made of these parts, which may be from a file.
    ///
    /// # Errors
    /// Where no state of the device is. Laws are not checked.
    pub fn from_parts(config: &DeviceConfig, parts: Parts) -> Result<Self, String> {
        check_ranges(config, &parts)?;
        check_order(&parts)?;
        let Parts {
            offers,
            accepted,
            offered_bytes,
            ended,
            events,
            last_handle,
            overflow,
            chain,
            generation,
            clock,
            requested,
        } = parts;
        if events.len() > DC_EVENT_LOG_RECORDS_MAX || events.iter().any(|event| event.handle == 0) {
            return Err("the event log is longer than it can be, or has a record without a handle".into());
        }
        let log = EventLog { events: events.into(), last_handle, overflow };
        let mut state = Self { log, chain, generation, clock, ended: ended_tags(ended)?, ..Self::default() };
        for offer in offers {
            state.use_tag(offer.tag, offer.extents.len());
            state.offers.push(offer);
        }
        for of_tag in accepted.chunk_by(|one, next| one.tag == next.tag) {
            state.use_tag(of_tag[0].tag, of_tag.len());
        }
        state.accepted = self::accepted(accepted, &offered_bytes)?.into();
        if state.accepted.holdings().count() != offered_bytes.len() {
            return Err("an offer counts as held in part, and no extent is of it".into());
        }
        state.requested.extend(requested.iter().map(|range| range.start.0..range.end()));
        if state.requested().eq(requested) { Ok(state) } else { Err("what is asked back is out of order".into()) }
    }
}

/// The rest of a holding is that of its extents.
fn offered_bytes(holding: &Holding) -> u64 {
    let Holding { region: _, accepted: _, offered_bytes, held_bytes: _, backend: _ } = holding;
    *offered_bytes
}

/// Every range lies in a region; what is offered and what is accepted shares no address.
fn check_ranges(config: &DeviceConfig, parts: &Parts) -> Result<(), String> {
    let sound = |range: &DpaRange| {
        let range = DpaRange::new(range.start, range.len_bytes);
        range.is_some_and(|range| config.region_of(range).is_some())
    };
    let accepted = parts.accepted.iter().map(|extent| extent.range);
    let used: Vec<_> = parts.offers.iter().flat_map(|offer| offer.extents.iter().copied()).chain(accepted).collect();
    let chained = parts.chain.iter().flat_map(|chain| &chain.ranges);
    if let Some(range) = used.iter().chain(chained).chain(&parts.requested).find(|range| !sound(range)) {
        return Err(format!("{range} is in no region"));
    }
    match first_overlap(&used) {
        Some((first, second)) => Err(format!("{first} and {second} overlap")),
        None => Ok(()),
    }
}

/// Offers stand by their records, extents by address.
fn check_order(parts: &Parts) -> Result<(), String> {
    let is_early = |pair: &&[Offer]| pair[0].id >= pair[1].id;
    if let Some(pair) = parts.offers.windows(2).find(is_early) {
        return Err(format!("the offer of {} stands behind that of {}", pair[1].id, pair[0].id));
    }
    if let Some(empty) = parts.offers.iter().find(|offer| offer.extents.is_empty()) {
        return Err(format!("the offer of {} is of nothing", empty.id));
    }
    let is_before = |pair: &&[Extent]| pair[0].range.start >= pair[1].range.start;
    match parts.accepted.windows(2).find(is_before) {
        Some(pair) => Err(format!("the accepted extent {} stands behind {}", pair[1].range, pair[0].range)),
        None => Ok(()),
    }
}

/// The extents stand by address, and apart.
fn accepted(extents: Vec<Extent>, offered_bytes: &BTreeMap<Seq, u64>) -> Result<Accepted, String> {
    for extent in &extents {
        if !offered_bytes.contains_key(&extent.offer) {
            return Err(format!("{} is accepted of the offer of {}, which is not counted", extent.range, extent.offer));
        }
        if extent.offset_bytes.checked_add(extent.range.len_bytes).is_none() {
            return Err(format!("the accepted extent {} is out of every backend", extent.range));
        }
    }
    Ok(Accepted::of(extents, offered_bytes))
}

fn ended_tags(ended: BTreeMap<Tag, Ended>) -> Result<EndedTags, String> {
    if ended.len() > ENDED_TAGS_MAX || ended.contains_key(&Tag::NONE) {
        return Err(format!("{} ended tags, of which nil is none: at most {ENDED_TAGS_MAX}", ended.len()));
    }
    let mut tags = EndedTags::default();
    ended.into_iter().for_each(|(tag, ended)| tags.insert(tag, ended));
    Ok(tags)
}
