//! Laws of who holds what: backends and tags over all devices.

use std::collections::BTreeMap;

use wire::Tag;

use crate::backends::Holder;
use crate::config::{DeviceIndex, DynamicMemory};
use crate::extents::{Extent, Offer, Standing};
use crate::vm::{Device, Vm};

use super::holds;
use super::watch::Near;

/// A device that has a backend, and how.
pub(super) type Owner = (DeviceIndex, &'static str);

/// Who owns a backend, as the registry has it.
pub(super) fn owner(holder: Holder) -> Option<Owner> {
    match holder {
        Holder::Free => None,
        Holder::Reserved { device, .. } => Some((device, "reserved")),
        Holder::Attached { device, .. } => Some((device, "attached")),
        Holder::Memdev { device, .. } => Some((device, "memdev")),
    }
}

pub(super) fn backend_one_owner(vm: &Vm) -> Result<(), String> {
    let mut owners = BTreeMap::<&str, Vec<Owner>>::new();
    for (index, device) in &vm.devices {
        for (_, backend) in device.config.memdevs() {
            owners.entry(backend).or_default().push((*index, "memdev"));
        }
        if !is_tagged(device) {
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
        let expected = Vec::from_iter(owner(backend.holder));
        let found = owners.remove(id).unwrap_or_default();
        holds(found == expected, || format!("backend {id} is {}, and {}", named(vm, &expected), owned(vm, &found)))?;
    }
    holds(owners.is_empty(), || format!("{owners:?} own backends that do not exist"))
}

/// Who owned a touched backend and is not touched still does; the touched ones are asked.
pub(super) fn backend_one_owner_near(near: &Near<'_>) -> bool {
    let (before, touched) = (near.before, &near.before.touched);
    let now = near.device.map_or_else(Vec::new, |device| touched.owners_of(before.device, device));
    let is_right = |(id, stays): (&String, &Option<Owner>)| {
        let expected = near.vm.backends.get(id).and_then(|backend| owner(backend.holder));
        let first = now.partition_point(|(backend, _)| *backend < id.as_str());
        let own = now[first..].iter().take_while(|(backend, _)| backend == id).map(|(_, owner)| owner);
        stays.iter().chain(own).eq(&expected)
    };
    let is_known =
        |(backend, _): &(&str, Owner)| touched.backends.binary_search_by(|id| id.as_str().cmp(backend)).is_ok();
    now.iter().all(is_known) && touched.backends.iter().zip(&before.stood.owners).all(is_right)
}

pub(super) fn tag_one_owner(vm: &Vm) -> Result<(), String> {
    for device in vm.devices.values().filter(|device| is_tagged(device)) {
        let accepted = device.extents.accepted().iter();
        stand(vm, device.extents.offers().iter(), accepted)?;
    }
    Ok(())
}

/// What is touched, and what has a tag that names another backend now.
pub(super) fn tag_one_owner_near(near: &Near<'_>) -> bool {
    let touched = &near.before.touched;
    let is_right = |device: &Device| {
        let offers = touched.offers.iter().filter_map(|id| device.extents.offers().get(*id));
        stand(near.vm, offers, near.extents().iter().copied()).is_ok()
    };
    let is_still_right = |(device, tag): (&Device, &Tag)| {
        let accepted = device.extents.accepted().of_tag(*tag).into_iter();
        stand(near.vm, device.extents.offers().pending_of_tag(*tag), accepted).is_ok()
    };
    let tagged = || near.vm.devices.values().filter(|device| is_tagged(device));
    near.device.filter(|device| is_tagged(device)).is_none_or(is_right)
        && tagged().flat_map(|device| touched.renamed.iter().map(move |tag| (device, tag))).all(is_still_right)
}

fn is_tagged(device: &Device) -> bool {
    device.config.dynamic_memory == DynamicMemory::Tagged
}

/// Whether pending offers and extents stand on the backends that their tags name.
fn stand<'a>(
    vm: &Vm,
    offers: impl Iterator<Item = &'a Offer>,
    extents: impl Iterator<Item = &'a Extent>,
) -> Result<(), String> {
    let pending = offers.filter(|offer| offer.standing == Standing::Pending);
    let offered = pending.map(|offer| (offer.tag, offer.backend.as_str()));
    let accepted = extents.map(|extent| (extent.tag, extent.backend.as_str()));
    let mut last = None;
    // Neighbours mostly stand on the same.
    for (tag, backend) in offered.chain(accepted) {
        if last.replace((tag, backend)) == Some((tag, backend)) {
            continue;
        }
        let stands = vm.backends.by_tag(tag).is_some_and(|(id, _)| id == backend);
        holds(stands, || format!("tag {tag} stands on {backend}, which it does not name"))?;
    }
    Ok(())
}

fn named(vm: &Vm, holder: &[Owner]) -> String {
    match holder {
        [] => "free".to_owned(),
        [(device, holding), ..] => format!("{holding} by {}", vm.device_id(*device)),
    }
}

fn owned(vm: &Vm, owners: &[Owner]) -> String {
    let own = owners.iter().map(|(device, holding)| format!("{} has it {holding}", vm.device_id(*device)));
    if owners.is_empty() { "nobody has it".to_owned() } else { own.collect::<Vec<_>>().join(", ") }
}
