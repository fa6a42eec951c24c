//! `info cxl`: every device, and where the journal stands.
//!
//! Deliberately absent: what the registry and the address map have, which `info memdev` and `info mtree` show.

use std::fmt::{Display, Write};

use actors::Vm;
use device::config::{DeviceConfig, DeviceIndex};
use device::decode::DecodedRange;
use device::extents::{ChainPlace, EventKind, EventLog, LoggedEvent, Offer, Standing, State as Extents};
use device::limits::{DC_EVENT_LOG_RECORDS_MAX, EXTENTS_MAX, TAGS_MAX};
use device::windows::{Decoder, State as Windows};
use platform::ROOT_PORT_BUS;
use wire::Tag;
use wire::config_space::SECONDARY_BUS;

use super::super::path::device_path;
use crate::error::QmpError;

pub(super) async fn text(vm: &Vm) -> Result<String, QmpError> {
    let mut text = String::new();
    for (index, config) in vm.devices() {
        let windows = vm.windows(index, Clone::clone).await?;
        text += &head(vm, index, &config);
        text += &vm.extents(index, move |state| extents_text(&config, state, &windows)).await?;
    }
    let (last, durable) = vm.journal_position();
    Ok(text + &format!("journal: {last}, durable up to {durable}\n"))
}

fn head(vm: &Vm, index: DeviceIndex, config: &DeviceConfig) -> String {
    let place = bus_of(vm, index).map_or_else(|| "not enumerated".to_owned(), |bus| format!("at {bus:02x}:00.0"));
    let payload_bytes = config.mailbox_payload_bytes();
    let path = device_path(&config.id);
    format!("{}: {path}, {place}, serial {:#x}, mailbox payload {payload_bytes} bytes\n", config.id, config.serial)
}

/// The bus of the device, once the guest has numbered it: the secondary bus of its root port.
fn bus_of(vm: &Vm, index: DeviceIndex) -> Option<u8> {
    let bus = vm.platform().config_read(ROOT_PORT_BUS, index.0, 0, SECONDARY_BUS, 1) as u8;
    (bus != 0 && vm.platform().config_read(bus, 0, 0, 0, 4) != u32::MAX).then_some(bus)
}

fn extents_text(config: &DeviceConfig, state: &Extents, windows: &Windows) -> String {
    let mut text = String::new();
    section(&mut text, "regions", regions(config));
    section(&mut text, "offers", state.offers().iter().map(offer));
    section(&mut text, "extents", extents(state, windows));
    section(&mut text, "counters", counters(state));
    section(&mut text, "decoders", decoders(windows));
    section(&mut text, "event log", event_log(state.log()));
    text
}

/// A title and its lines; a title alone says that there are none.
fn section(text: &mut String, title: &str, lines: impl IntoIterator<Item = String>) {
    let mut lines = lines.into_iter().peekable();
    let none = if lines.peek().is_none() { " none" } else { "" };
    put(text, format_args!("  {title}:{none}\n"));
    lines.for_each(|line| put(text, format_args!("    {line}\n")));
}

fn put(text: &mut String, what: impl Display) {
    // Writing to a string cannot fail.
    write!(text, "{what}").ok();
}

fn tag_text(tag: Tag) -> String {
    if tag.is_none() { "untagged".to_owned() } else { format!("tag {tag}") }
}

fn regions(config: &DeviceConfig) -> impl Iterator<Item = String> {
    config
        .regions
        .iter()
        .enumerate()
        .map(|(number, region)| format!("{number}: {}, blocks of {} bytes", region.range(), region.block.bytes()))
}

fn offer(offer: &Offer) -> String {
    let standing = match offer.standing {
        Standing::Pending => String::new(),
        Standing::Dead { by, .. } => format!(", dead since {by}"),
    };
    let ranges: Vec<_> = offer.extents.iter().map(ToString::to_string).collect();
    let Offer { id, region, backend, .. } = offer;
    format!("{id}: region {region}, {}, backend {backend}{standing}: {}", tag_text(offer.tag), ranges.join(" "))
}

fn extents(state: &Extents, windows: &Windows) -> impl Iterator<Item = String> {
    state.accepted().listed().map(|extent| {
        let seen: Vec<_> = windows.hpas_of(extent.range).iter().map(ToString::to_string).collect();
        let seen = if seen.is_empty() { "nowhere".to_owned() } else { seen.join(" ") };
        let asked = if state.is_requested(extent.range) { ", release requested" } else { "" };
        format!(
            "{}: {}, region {}, {}, {} from {:#x} on, seen at {seen}{asked}",
            extent.accepted,
            extent.range,
            extent.region,
            tag_text(extent.tag),
            extent.backend,
            extent.offset_bytes
        )
    })
}

fn counters(state: &Extents) -> [String; 3] {
    [
        format!("extents: {} of {EXTENTS_MAX} left", state.available_extents()),
        format!("tags: {} of {TAGS_MAX} left", state.available_tags()),
        format!("generation: {}", state.generation()),
    ]
}

fn decoders(windows: &Windows) -> impl Iterator<Item = String> {
    let decoder = |(index, decoder): (usize, &Decoder)| match decoder {
        Decoder::Idle => None,
        Decoder::Failed => Some(format!("{index}: refused")),
        Decoder::Committed { range: None, .. } => Some(format!("{index}: committed, size 0")),
        Decoder::Committed { range: Some(range), .. } => Some(format!("{index}: {}", decoded(range))),
    };
    windows.decoders().iter().enumerate().filter_map(decoder)
}

fn decoded(range: &DecodedRange) -> String {
    let end = range.hpa.0.saturating_add(range.size_bytes);
    let interleave = match range.ways.count() {
        1 => String::new(),
        ways => format!(", {ways} ways of {} bytes", range.granularity.bytes()),
    };
    format!("{:#x}..{end:#x} to DPA {}{interleave}", range.hpa.0, range.dpa)
}

fn event_log(log: &EventLog) -> Vec<String> {
    let dropped = log.overflow().map_or(0, |overflow| overflow.count);
    let head = format!("{} of {DC_EVENT_LOG_RECORDS_MAX} records, {dropped} dropped", log.len());
    std::iter::once(head).chain(log.iter().map(event)).collect()
}

fn event(event: &LoggedEvent) -> String {
    let kind = match event.kind {
        EventKind::Add => "add",
        EventKind::Release => "release",
        EventKind::ForcedRelease => "forced release",
    };
    let more = if event.place == ChainPlace::More { ", more follow" } else { "" };
    format!("handle {}: {kind} {}, {}{more}", event.handle, event.range, tag_text(event.tag))
}
