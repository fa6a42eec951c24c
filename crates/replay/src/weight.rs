//! The weight of a state: between two keyframes there are as many records as a state has things, so that keyframes never take
//! more than a few bytes a record.

use device::vm::Vm;

/// How many things a state holds.
pub(crate) fn weight(vm: &Vm) -> u64 {
    let of_devices = vm.devices.values().map(|device| {
        let extents = &device.extents;
        extents.accepted().len() + extents.offers().extents_len() + extents.log().len()
    });
    (of_devices.sum::<usize>() + vm.backends.iter().count()) as u64
}
