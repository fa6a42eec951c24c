//! A simulated operator and fabric manager: backends, adds and releases, one at a time or in bursts, right and wrong.
//!
//! They may look at the state, as a request that only asks may; what they want is often not possible, because places and
//! tags are few. Deliberately absent: plugs and resets, which befall a host ([`crate::misfortune`]).

use device::backends::{self, Holder, Source};
use device::config::{DeviceIndex, DynamicMemory};
use device::extents::{
    self, AddRequest, RegionRange, ReleaseRequest, Removal, RemovalPolicy, Sanitize, SelectionPolicy,
};
use device::limits::DC_EVENT_LOG_RECORDS_MAX;
use device::operation::{HostOutcome, Input};
use device::vm::{Device, Vm};
use journal::record::Origin;
use wire::Tag;

use crate::devices::{BLOCK_BYTES, PORTS, REGION_BLOCKS, REGIONS, any_memdev, object_add};
use crate::dice::Dice;
use crate::mix::Mix;
use crate::world::Heard;

/// Most extents of one add, floods aside: enough that a group of records needs many parts.
const ADD_EXTENTS_MAX: u64 = 40;

/// Where floods begin in a region: behind what is fought for.
const FLOOD_BLOCK: u64 = REGION_BLOCKS / 4;

fn tag(n: u64) -> Tag {
    let mut bytes = [0xa5; 16];
    bytes[..8].copy_from_slice(&(n + 1).to_be_bytes());
    Tag::from_bytes(bytes)
}

fn backend_id(n: u64) -> String {
    format!("tm{n}")
}

fn heard(device: DeviceIndex, input: Input) -> Heard {
    Heard { device, origin: Origin::Operator, input, outcomes: Vec::new() }
}

pub(crate) fn any_port(dice: &mut Dice) -> DeviceIndex {
    DeviceIndex(dice.below(u64::from(PORTS)) as u8)
}

/// One thing that the operator does.
pub(crate) fn request(dice: &mut Dice, mix: &Mix, vm: &Vm) -> Heard {
    let (n, device) = (dice.below(mix.tags), any_port(dice));
    match dice.weighed(&[2, 1, 1, 14, 5, 4]) {
        0 => {
            let blocks = dice.scale(1, 16);
            made(dice, n, blocks)
        }
        1 => {
            let id = if dice.one_in(4) { any_memdev(dice) } else { backend_id(n) };
            heard(DeviceIndex(0), Input::Backends(backends::Input::ObjectDel { id }))
        }
        2 => {
            let tag = if dice.one_in(4) { Tag::NONE } else { tag(dice.below(mix.tags)) };
            let retag = backends::Input::Retag { id: backend_id(n), tag, tag_text: tag.to_string() };
            heard(DeviceIndex(0), Input::Backends(retag))
        }
        3 => wanted(dice, mix, vm, n, device),
        4 => {
            let used = vm.devices.get(&device).filter(|_| dice.one_in(2)).and_then(|device| used_tag(dice, device));
            let request = release(dice, used.unwrap_or(tag(n)));
            heard(device, Input::Extents(extents::Input::Release(request)))
        }
        _ => {
            let request = release_of_ranges(dice, mix, vm.devices.get(&device));
            heard(device, Input::Extents(extents::Input::Release(request)))
        }
    }
}

/// A tag that is to be added: what has to come before it, mostly; the add itself, or a wrong one, else.
fn wanted(dice: &mut Dice, mix: &Mix, vm: &Vm, n: u64, device: DeviceIndex) -> Heard {
    let backend = vm.backends.by_tag(tag(n)).map(|(_, backend)| backend);
    let holder = backend.map(|backend| backend.holder);
    match holder.filter(|_| !dice.one_in(3)) {
        None if backend.is_none() && !dice.one_in(4) => {
            let blocks = dice.scale(1, 16);
            return made(dice, n, blocks);
        }
        Some(Holder::Attached { device, .. }) => {
            let used = vm.devices.get(&device).map(|device| device.extents.tag_status(tag(n)).region);
            let removal = removal(dice);
            let request = ReleaseRequest { removal, ..ReleaseRequest::by_tag(used.unwrap_or_default(), tag(n)) };
            return heard(device, Input::Extents(extents::Input::Release(request)));
        }
        _ => {}
    }
    let mut request = add(dice, mix, tag(n), backend.map_or(1, |backend| backend.spec.size_bytes / BLOCK_BYTES));
    if dice.one_in(10) {
        spoil(dice, &mut request);
    }
    heard(device, Input::Extents(extents::Input::Add(request)))
}

/// A burst of the fabric manager: backends with new tags, each offered at once; or one flood of single blocks, more than
/// an event log holds or nearly so.
pub(crate) fn burst(dice: &mut Dice, mix: &Mix, vm: &Vm) -> Vec<Heard> {
    let device = any_port(dice);
    let first = mix.tags + dice.below(1 << 16);
    if mix.has_floods && dice.one_in(2) {
        return flood(dice, vm, device, first);
    }
    let mut burst = Vec::new();
    for n in first..first + dice.scale(2, 16) {
        let blocks = dice.scale(1, ADD_EXTENTS_MAX * 2);
        burst.push(made(dice, n, blocks));
        burst.push(heard(device, Input::Extents(extents::Input::Add(add(dice, mix, tag(n), blocks)))));
    }
    burst
}

fn flood(dice: &mut Dice, vm: &Vm, device: DeviceIndex, n: u64) -> Vec<Heard> {
    let capacity = DC_EVENT_LOG_RECORDS_MAX as u64;
    // A device whose host holds something, where there is one.
    let used = vm.devices.iter().find(|(_, other)| !other.extents.accepted().is_empty());
    let device = used.map_or(device, |(index, _)| *index);
    let room = vm.devices.get(&device).map_or(0, |device| device.extents.log().room() as u64);
    let blocks = if dice.one_in(3) { dice.between(capacity / 4, capacity * 9 / 8) } else { room.max(1) };
    let extents = (FLOOD_BLOCK..FLOOD_BLOCK + blocks)
        .map(|at| RegionRange { offset: at * BLOCK_BYTES, len_bytes: BLOCK_BYTES })
        .collect();
    // Into a region in which no other flood stands, where there is one.
    let is_free = |region: &u8| {
        let known = vm.devices.get(&device).map_or_else(Vec::new, |device| known_ranges(device, *region));
        known.iter().all(|range| range.offset < FLOOD_BLOCK * BLOCK_BYTES)
    };
    let (policy, region) = (SelectionPolicy::Prescriptive, (0..REGIONS as u8).find(is_free).unwrap_or_default());
    let request = AddRequest { host_id: 0, policy, region, tag: tag(n), extents };
    let mut flood = vec![made(dice, n, blocks), heard(device, Input::Extents(extents::Input::Add(request)))];
    // What the host holds is taken while the log is full: the host must be told, and cannot be told what.
    flood.extend(vm.devices.get(&device).into_iter().flat_map(|plugged| take_back(device, plugged)));
    flood
}

fn made(dice: &mut Dice, n: u64, blocks: u64) -> Heard {
    let outcome = if dice.one_in(20) { HostOutcome::Failed("no memory".into()) } else { HostOutcome::Done };
    // Some take another's tag.
    let tag = tag(if dice.one_in(16) { n / 2 } else { n });
    object_add(backend_id(n), blocks * BLOCK_BYTES, tag, Source::Request, outcome)
}

/// Extents that together are as long as the backend, mostly, and that lie beside each other, mostly.
fn add(dice: &mut Dice, mix: &Mix, tag: Tag, mut blocks: u64) -> AddRequest {
    let (mut at, mut extents) = (dice.below(mix.blocks), Vec::new());
    if dice.one_in(16) {
        blocks += dice.below(3);
    }
    while blocks > 0 && (extents.len() as u64) < ADD_EXTENTS_MAX {
        let len = if extents.len() as u64 + 1 == ADD_EXTENTS_MAX { blocks } else { dice.between(1, blocks.min(8)) };
        extents.push(RegionRange { offset: at * BLOCK_BYTES, len_bytes: len * BLOCK_BYTES });
        at += len + if dice.one_in(4) { dice.below(4) } else { 0 };
        blocks -= len;
    }
    let region = dice.below(REGIONS) as u8;
    AddRequest { host_id: 0, policy: SelectionPolicy::Prescriptive, region, tag, extents }
}

/// One mistake.
fn spoil(dice: &mut Dice, request: &mut AddRequest) {
    let at = dice.below(request.extents.len() as u64) as usize;
    let Some(extent) = request.extents.get_mut(at) else { return };
    match dice.below(10) {
        0 => request.host_id = 1 + dice.below(4) as u16,
        1 => request.region = REGIONS as u8 + dice.below(7) as u8,
        2 => request.policy = dice.pick(&[SelectionPolicy::Free, SelectionPolicy::Contiguous]),
        3 => request.tag = Tag::NONE,
        4 => request.extents.clear(),
        5 => extent.len_bytes = 0,
        6 => extent.offset = extent.offset.wrapping_add(dice.pick(&[1, 4096, BLOCK_BYTES / 2])),
        7 => extent.offset = dice.pick(&[REGION_BLOCKS * BLOCK_BYTES, !(BLOCK_BYTES - 1)]),
        8 => extent.len_bytes = dice.pick(&[REGION_BLOCKS * BLOCK_BYTES * 2, !(BLOCK_BYTES - 1)]),
        _ => {
            let twice = *extent;
            request.extents.push(twice);
        }
    }
}

fn used_tag(dice: &mut Dice, device: &Device) -> Option<Tag> {
    let uses = device.extents.tag_uses();
    uses.keys().nth(dice.below(uses.len() as u64) as usize).copied()
}

fn removal(dice: &mut Dice) -> Removal {
    if dice.one_in(3) { Removal::Forced } else { Removal::Requested }
}

fn release(dice: &mut Dice, tag: Tag) -> ReleaseRequest {
    let mut request =
        ReleaseRequest { removal: removal(dice), ..ReleaseRequest::by_tag(dice.below(REGIONS) as u8, tag) };
    match dice.below(60) {
        0..=2 => request.sanitize = Sanitize::OnRelease,
        3 => request.host_id = 1,
        4 => request.region = REGIONS as u8,
        5 => request.tag = Tag::NONE,
        _ => {}
    }
    request
}

/// Ranges that the host holds or is offered, whole or a part; or any; sometimes with another's tag.
fn release_of_ranges(dice: &mut Dice, mix: &Mix, device: Option<&Device>) -> ReleaseRequest {
    let region = dice.below(REGIONS) as u8;
    let mut extents = device.map_or_else(Vec::new, |device| known_ranges(device, region));
    if extents.is_empty() || dice.one_in(3) {
        let range = |dice: &mut Dice| RegionRange {
            offset: dice.below(mix.blocks) * BLOCK_BYTES,
            len_bytes: dice.scale(1, 8) * BLOCK_BYTES,
        };
        extents = (0..dice.between(1, 3)).map(|_| range(dice)).collect();
    } else {
        let start = dice.below(extents.len() as u64) as usize;
        extents = extents.into_iter().skip(start).take(dice.between(1, 4) as usize).collect();
        if let Some(extent) = extents.first_mut().filter(|_| dice.one_in(2)) {
            extent.len_bytes = (extent.len_bytes / 2).next_multiple_of(BLOCK_BYTES);
        }
    }
    let tag = if dice.one_in(4) { tag(dice.below(mix.tags)) } else { Tag::NONE };
    let policy = RemovalPolicy::Prescriptive;
    ReleaseRequest { policy, removal: removal(dice), extents, ..ReleaseRequest::by_tag(region, tag) }
}

/// What a host of a region holds and is offered, as a request names it.
fn known_ranges(device: &Device, region: u8) -> Vec<RegionRange> {
    let Some(region) = device.config.regions.get(usize::from(region)) else { return Vec::new() };
    let held = device.extents.accepted().iter().map(|extent| extent.range);
    let offered = device.extents.offers().iter().flat_map(|offer| offer.extents.iter().copied());
    let inside = held.chain(offered).filter(|range| region.range().contains(*range));
    let relative =
        inside.map(|range| RegionRange { offset: range.start.0 - region.base.0, len_bytes: range.len_bytes });
    relative.collect()
}

/// Whatever a device still offers or has given, taken back by force.
pub(crate) fn take_back(port: DeviceIndex, device: &Device) -> Vec<Heard> {
    let regions = 0..device.config.regions.len() as u8;
    let by_range = regions.filter_map(|region| {
        let extents = known_ranges(device, region);
        let policy = RemovalPolicy::Prescriptive;
        (!extents.is_empty()).then(|| ReleaseRequest { policy, extents, ..ReleaseRequest::by_tag(region, Tag::NONE) })
    });
    let uses = device.extents.tag_uses().keys();
    let by_tag = uses.map(|tag| ReleaseRequest::by_tag(device.extents.tag_status(*tag).region, *tag));
    // A plain device's tag may be in several regions.
    let requests: Vec<_> = match device.config.dynamic_memory {
        DynamicMemory::Tagged => by_tag.collect(),
        DynamicMemory::Plain { .. } => by_range.collect(),
    };
    let forced = |request| ReleaseRequest { removal: Removal::Forced, ..request };
    let input = |request| heard(port, Input::Extents(extents::Input::Release(forced(request))));
    requests.into_iter().map(input).collect()
}
