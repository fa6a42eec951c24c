//! Laws of who holds what: backends and tags over all devices.

use std::collections::BTreeMap;

use crate::backends::Holder;
use crate::config::{DeviceIndex, DynamicMemory};
use crate::extents::Standing;
use crate::vm::Vm;

use super::holds;

pub(super) fn backend_one_owner(vm: &Vm) -> Result<(), String> {
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
        holds(found == expected, || format!("backend {id} is {}, and {}", named(vm, &expected), owned(vm, &found)))?;
    }
    holds(owners.is_empty(), || format!("{owners:?} own backends that do not exist"))
}

pub(super) fn tag_one_owner(vm: &Vm) -> Result<(), String> {
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

fn named(vm: &Vm, holder: &[(DeviceIndex, &str)]) -> String {
    match holder {
        [] => "free".to_owned(),
        [(device, holding), ..] => format!("{holding} by {}", vm.device_id(*device)),
    }
}

fn owned(vm: &Vm, owners: &[(DeviceIndex, &str)]) -> String {
    let own = owners.iter().map(|(device, holding)| format!("{} has it {holding}", vm.device_id(*device)));
    if owners.is_empty() { "nobody has it".to_owned() } else { own.collect::<Vec<_>>().join(", ") }
}
