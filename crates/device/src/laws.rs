//! Laws: sentences that are true of every state after every record.
//!
//! Tests and simulation check them after every record, replay checks them over a journal. A broken law is a bug of the
//! device, never of a host or an operator.

use std::collections::{BTreeMap, BTreeSet};

use wire::Dpa;

use crate::backends::Holder;
use crate::config::{DeviceConfig, DeviceIndex, DynamicMemory};
use crate::extents::{ChainPlace, Standing, State as Extents};
use crate::limits::DC_EVENT_LOG_RECORDS_MAX;
use crate::range::DpaRange;
use crate::vm::{Device, Vm};

/// One law.
pub struct Law {
    /// Its name, for the command line.
    pub name: &'static str,
    /// What it says.
    pub sentence: &'static str,
    check: fn(&Vm) -> Result<(), String>,
}

/// A broken law.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("law {name} is broken: {detail}")]
pub struct Broken {
    /// The law.
    pub name: &'static str,
    /// Where.
    pub detail: String,
}

/// Every law.
pub const LAWS: &[Law] = &[
    Law {
        name: "extents-disjoint",
        sentence: "No two extents, offered or accepted, of one device share an address, and each lies in one region in whole blocks.",
        check: |vm| every_device(vm, extents_disjoint),
    },
    Law {
        name: "capacity-adds-up",
        sentence: "What is counted as held of an offer is the sum of its extents, and no more than was offered.",
        check: |vm| every_device(vm, capacity_adds_up),
    },
    Law {
        name: "counters-match",
        sentence: "The extent and tag counters count the offered and the accepted extents and their tags.",
        check: |vm| every_device(vm, counters_match),
    },
    Law {
        name: "list-complete",
        sentence: "The list of 4801h names every accepted extent once, by add, place in the add and address.",
        check: |vm| every_device(vm, list_complete),
    },
    Law {
        name: "backend-one-owner",
        sentence: "A backend is reserved by exactly one pending offer or attached to the accepted extents of exactly one device, or a device's own memory, or free.",
        check: backend_one_owner,
    },
    Law {
        name: "tag-one-owner",
        sentence: "Where capacity comes by tag, a tag names one backend, and what is offered or accepted with it stands on that backend.",
        check: tag_one_owner,
    },
    Law {
        name: "mapped-is-accepted",
        sentence: "Behind every accepted extent stands its piece of its backend, behind static memory its backend, and behind nothing else stands anything.",
        check: |vm| every_device(vm, mapped_is_accepted),
    },
    Law {
        name: "mappings-inside-backends",
        sentence: "Every piece lies inside its backend.",
        check: mappings_inside_backends,
    },
    Law {
        name: "offers-in-order",
        sentence: "Offers stand in the order in which they were made.",
        check: |vm| every_device(vm, offers_in_order),
    },
    Law {
        name: "log-whole-chains",
        sentence: "The DC event log holds at most its size, handles are not 0 and differ, and its last chain is closed.",
        check: |vm| every_device(vm, log_whole_chains),
    },
    Law {
        name: "requested-is-accepted",
        sentence: "The host was asked to give back only what it holds.",
        check: |vm| every_device(vm, requested_is_accepted),
    },
];

/// Checks every law.
pub fn check(vm: &Vm) -> Result<(), Broken> {
    LAWS.iter().try_for_each(|law| (law.check)(vm).map_err(|detail| Broken { name: law.name, detail }))
}

/// Checks the law that binds two states: the generation number moves exactly with the list of a device.
pub fn check_step(before: &Vm, after: &Vm) -> Result<(), Broken> {
    let both = before.devices.iter().filter_map(|(index, old)| Some((old, after.devices.get(index)?)));
    for (old, new) in both {
        let list_moved = !old.extents.accepted().listed().eq(new.extents.accepted().listed());
        if list_moved && old.extents.generation() == new.extents.generation() {
            let detail = format!("the extent list changed and the generation stayed {}", new.extents.generation());
            return Err(Broken { name: "generation-moves", detail });
        }
    }
    Ok(())
}

fn every_device(vm: &Vm, check: fn(&DeviceConfig, &Device) -> Result<(), String>) -> Result<(), String> {
    for device in vm.devices.values() {
        check(&device.config, device).map_err(|detail| format!("{}: {detail}", device.config.id))?;
    }
    Ok(())
}

fn holds(is_true: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_true { Ok(()) } else { Err(otherwise()) }
}

fn all_ranges(extents: &Extents) -> Vec<DpaRange> {
    let offered = extents.offers().iter().flat_map(|offer| offer.extents.iter().copied());
    offered.chain(extents.accepted().iter().map(|extent| extent.range)).collect()
}

fn extents_disjoint(config: &DeviceConfig, device: &Device) -> Result<(), String> {
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

fn capacity_adds_up(_: &DeviceConfig, device: &Device) -> Result<(), String> {
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

fn counters_match(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let mut uses = BTreeMap::<_, u32>::new();
    for offer in device.extents.offers().iter().filter(|offer| !offer.tag.is_none()) {
        *uses.entry(offer.tag).or_default() += offer.extents.len() as u32;
    }
    for extent in device.extents.accepted().iter().filter(|extent| !extent.tag.is_none()) {
        *uses.entry(extent.tag).or_default() += 1;
    }
    holds(&uses == device.extents.tag_uses(), || format!("tags {uses:?}, counted {:?}", device.extents.tag_uses()))?;
    let offered: usize = device.extents.offers().iter().map(|offer| offer.extents.len()).sum();
    let indexed = device.extents.offers().extents_len();
    holds(offered == indexed, || format!("{offered} extents are offered, {indexed} are counted"))
}

fn list_complete(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let accepted = device.extents.accepted();
    let listed: Vec<_> = accepted.listed().collect();
    holds(listed.len() == accepted.len(), || format!("{} of {} extents listed", listed.len(), accepted.len()))?;
    let key = |extent: &crate::extents::Extent| (extent.offer, extent.position, extent.range.start);
    holds(listed.windows(2).all(|pair| key(pair[0]) < key(pair[1])), || "the list is out of order".into())
}

fn backend_one_owner(vm: &Vm) -> Result<(), String> {
    let mut owners = BTreeMap::<&str, Vec<(DeviceIndex, &str)>>::new();
    for (index, device) in &vm.devices {
        for (_, backend) in device.config.memdevs() {
            owners.entry(backend).or_default().push((*index, "memdev"));
        }
        if device.config.dynamic_memory != DynamicMemory::Tagged {
            continue;
        }
        let pending = device.extents.offers().iter().filter(|offer| offer.standing == Standing::Pending);
        for offer in pending {
            owners.entry(&offer.backend).or_default().push((*index, "reserved"));
        }
        for (_, holding) in device.extents.accepted().holdings() {
            owners.entry(&holding.backend).or_default().push((*index, "attached"));
        }
    }
    for (id, backend) in vm.backends.iter() {
        let expected = match backend.holder {
            Holder::Free => vec![],
            Holder::Reserved { device, .. } => vec![(device, "reserved")],
            Holder::Attached { device, .. } => vec![(device, "attached")],
            Holder::Memdev { device, .. } => vec![(device, "memdev")],
        };
        let found = owners.remove(id).unwrap_or_default();
        holds(found == expected, || format!("backend {id} is {:?}, its owners are {found:?}", backend.holder))?;
    }
    holds(owners.is_empty(), || format!("{owners:?} own backends that do not exist"))
}

fn tag_one_owner(vm: &Vm) -> Result<(), String> {
    let stands = |tag, backend: &str| match vm.backends.by_tag(tag) {
        Some((id, _)) => id == backend,
        None => false,
    };
    for device in vm.devices.values().filter(|device| device.config.dynamic_memory == DynamicMemory::Tagged) {
        let pending = device.extents.offers().iter().filter(|offer| offer.standing == Standing::Pending);
        let offered = pending.map(|offer| (offer.tag, offer.backend.as_str()));
        let accepted = device.extents.accepted().iter().map(|extent| (extent.tag, extent.backend.as_str()));
        for (tag, backend) in offered.chain(accepted) {
            holds(stands(tag, backend), || format!("tag {tag} stands on {backend}, which it does not name"))?;
        }
    }
    Ok(())
}

fn mapped_is_accepted(config: &DeviceConfig, device: &Device) -> Result<(), String> {
    // A partial release may cut a piece and an extent at the same place, so both sides are compared as they stand.
    let fixed = config.static_memory.iter().map(|memory| {
        let range = DpaRange { start: Dpa(0), len_bytes: memory.len_bytes };
        (range, memory.backend.as_str(), 0)
    });
    let accepted = device.extents.accepted().iter().map(|e| (e.range, e.backend.as_str(), e.offset_bytes));
    let accepted = fixed.chain(accepted);
    let mapped = device.windows.pieces().map(|p| (p.range, p.backend.as_str(), p.offset_bytes));
    let (accepted, mapped): (Vec<_>, Vec<_>) = (accepted.collect(), mapped.collect());
    holds(accepted == mapped, || format!("accepted {accepted:?}, mapped {mapped:?}"))
}

fn mappings_inside_backends(vm: &Vm) -> Result<(), String> {
    for piece in vm.devices.values().flat_map(|device| device.windows.pieces()) {
        let end = piece.offset_bytes.checked_add(piece.range.len_bytes);
        let is_inside = vm.backends.get(&piece.backend).zip(end).is_some_and(|(b, end)| end <= b.spec.size_bytes);
        holds(is_inside, || format!("{piece:?} reaches out of its backend"))?;
    }
    Ok(())
}

fn offers_in_order(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let ids: Vec<_> = device.extents.offers().iter().map(|offer| offer.id).collect();
    holds(ids.windows(2).all(|pair| pair[0] < pair[1]), || format!("offers stand as {ids:?}"))
}

fn log_whole_chains(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let log = device.extents.log();
    holds(log.len() <= DC_EVENT_LOG_RECORDS_MAX, || format!("{} records", log.len()))?;
    let handles: BTreeSet<_> = log.iter().map(|event| event.handle).collect();
    holds(handles.len() == log.len() && !handles.contains(&0), || "handles repeat or are 0".into())?;
    let is_closed = log.iter().last().is_none_or(|event| event.place == ChainPlace::Last);
    holds(is_closed, || "the last record says that more follow".into())
}

fn requested_is_accepted(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    device.extents.requested().try_for_each(|range| {
        holds(device.extents.accepted().covers(range), || format!("{range} is asked back and not held"))
    })
}
