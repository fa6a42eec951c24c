//! Offers, accepted extents, tags, the DC event log and the host's clock.

use wire::{Dpa, Tag};

use crate::extents::{
    Accepted, ChainPlace, EventKind, EventLog, Extent, LoggedEvent, Offer, Offers, Standing, State, Told,
};
use crate::range::DpaRange;
use crate::stamp::{Seq, VmTime};

use super::Value;
use super::node::{Node, fields, items, list};

pub(super) fn state(state: &State) -> Node<'_> {
    fields!(
        "generation" => Node::number(state.generation()),
        "available-extents" => Node::number(state.available_extents()),
        "available-tags" => Node::number(state.available_tags()),
        "offers" => offers(state.offers()),
        "accepted" => accepted(state.accepted()),
        "tags" => tags(state),
        "requested" => requested(state),
        "log" => log(state.log()),
        "chain" => chain(state),
        "clock" => clock(state),
    )
}

fn offers(offers: &Offers) -> Node<'_> {
    let named = |one: &'_ Offer| one.id.to_string();
    items(
        move || offers.iter().map(|one| (named(one), offer(one))).collect(),
        move |key| {
            let id = Value::parse_number(key.strip_prefix('#').unwrap_or(key))?;
            offers.get(Seq(id)).map(|one| (named(one), offer(one)))
        },
    )
}

fn offer(offer: &Offer) -> Node<'_> {
    let (standing, by) = match offer.standing {
        Standing::Pending => ("pending", offer.id),
        Standing::Dead { by, told: Told::NotYet } => ("dead", by),
        Standing::Dead { by, told: Told::Refused } => ("dead-refused", by),
    };
    fields!(
        "standing" => Node::word(standing),
        "by" => Node::record(by),
        "region" => Node::number(offer.region),
        "tag" => Node::tag(offer.tag),
        "backend" => Node::text(&offer.backend),
        "extents" => list(&offer.extents, range),
    )
}

fn range(range: &DpaRange) -> Node<'_> {
    fields!("start" => Node::dpa(range.start), "len-bytes" => Node::number(range.len_bytes))
}

fn accepted(accepted: &Accepted) -> Node<'_> {
    let named = |one: &'_ Extent| one.range.start.to_string();
    items(
        move || accepted.iter().map(|one| (named(one), extent(one))).collect(),
        move |key| {
            let start = Dpa(Value::parse_number(key)?);
            accepted.at(start).map(|one| (named(one), extent(one)))
        },
    )
}

fn extent(extent: &Extent) -> Node<'_> {
    fields!(
        "len-bytes" => Node::number(extent.range.len_bytes),
        "region" => Node::number(extent.region),
        "tag" => Node::tag(extent.tag),
        "backend" => Node::text(&extent.backend),
        "offset-bytes" => Node::number(extent.offset_bytes),
        "offered" => Node::record(extent.offer),
        "accepted" => Node::record(extent.accepted),
        "position" => Node::number(extent.position),
        "shared-sequence" => Node::number(extent.shared_sequence),
    )
}

/// Tags in use and tags that ended, as a status query tells them.
fn tags(state: &State) -> Node<'_> {
    let named = move |tag: Tag| {
        let status = state.tag_status(tag);
        let parts = fields!(
            "state" => Node::word(status.state.name()),
            "by" => Node::record(status.by),
            "region" => Node::number(status.region),
            "extents" => Node::count(status.extents.len()),
        );
        (tag.to_string(), parts)
    };
    items(
        move || state.known_tags().into_iter().map(named).collect(),
        move |key| {
            let tag = Tag::parse(key).ok()?;
            state.knows_tag(tag).then(|| named(tag))
        },
    )
}

fn requested(state: &State) -> Node<'_> {
    let named = |range: DpaRange| (range.start.to_string(), Node::number(range.len_bytes));
    items(
        move || state.requested().map(named).collect(),
        move |key| {
            let start = Value::parse_number(key)?;
            state.requested().find(|range| range.start.0 == start).map(named)
        },
    )
}

fn log(log: &EventLog) -> Node<'_> {
    let overflow = log.overflow();
    fields!(
        "records" => Node::count(log.len()),
        "dropped" => Node::number(overflow.map_or(0, |overflow| overflow.count)),
        "events" => events(log),
    )
}

/// By handle, oldest first.
fn events(log: &EventLog) -> Node<'_> {
    let named = |one: &'_ LoggedEvent| one.handle.to_string();
    items(
        move || log.iter().map(|one| (named(one), event(one))).collect(),
        move |key| {
            let handle = Value::parse_number(key)?;
            log.iter().find(|one| u64::from(one.handle) == handle).map(|one| (named(one), event(one)))
        },
    )
}

fn event(event: &LoggedEvent) -> Node<'_> {
    let kind = match event.kind {
        EventKind::Add => "add",
        EventKind::Release => "release",
        EventKind::ForcedRelease => "forced-release",
    };
    fields!(
        "kind" => Node::word(kind),
        "more" => Node::word(if event.place == ChainPlace::More { "yes" } else { "no" }),
        "start" => Node::dpa(event.range.start),
        "len-bytes" => Node::number(event.range.len_bytes),
        "tag" => Node::tag(event.tag),
        "timestamp-ns" => Node::number(event.timestamp_ns),
        "available-extents" => Node::number(event.available_extents),
        "available-tags" => Node::number(event.available_tags),
    )
}

fn chain(state: &State) -> Node<'_> {
    match state.chain() {
        None => Node::word("none"),
        Some(chain) => fields!("opcode" => Node::address(chain.opcode.0), "ranges" => list(&chain.ranges, range)),
    }
}

/// What the host's clock showed when the VM clock was 0, which no record changes but those that set it.
fn clock(state: &State) -> Node<'_> {
    match state.clock_set_at() {
        None => Node::word("not-set"),
        Some(VmTime(set_at_ns)) => {
            fields!(
                "set-at-ns" => Node::number(set_at_ns),
                "host-ns" => Node::number(state.host_ns(VmTime(set_at_ns))),
            )
        }
    }
}
