//! What befalls a VM: resets, plugs, unplugs, crashes, and a disk that fails or stalls.
//!
//! Deliberately absent: damage. What is on the disk is what was written; other bytes are the journal's own tests' matter.

use device::backends::{self, Source, Survival};
use device::config::DeviceIndex;
use device::extents::{self, Removal};
use device::operation::Input;
use device::vm::Vm;
use journal::record::Origin;

use crate::devices::{PORTS, device_add};
use crate::dice::Dice;
use crate::mix::Mix;
use crate::operator::any_port;
use crate::world::Heard;

/// What may befall it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misfortune {
    /// The host of a device reboots.
    Reset,
    /// A device leaves, or one comes where none is.
    Plug,
    /// The process or its machine dies.
    Crash,
    /// A write of the disk will fail.
    FailedWrite,
    /// A sync of the disk will fail.
    FailedSync,
    /// The disk stands still for seconds.
    Stall,
}

impl Misfortune {
    pub(crate) const ALL: [Self; 6] =
        [Self::Reset, Self::Plug, Self::Crash, Self::FailedWrite, Self::FailedSync, Self::Stall];
}

/// The host of a device reboots.
pub(crate) fn reset(device: DeviceIndex) -> Heard {
    let (origin, outcomes) = (Origin::Guest, Vec::new());
    Heard { device, origin, input: Input::Extents(extents::Input::Reset), outcomes }
}

/// Plugs a device where none is; takes it away, or tries to, where one is; now and then plugs what does not fit.
pub(crate) fn plug(dice: &mut Dice, mix: &Mix, vm: &Vm) -> Vec<Heard> {
    let port = any_port(dice);
    if dice.one_in(4) {
        return wrong_plug(dice, mix, vm, port).into_iter().collect();
    }
    let Some(device) = vm.devices.get(&port) else {
        return mix.kinds[usize::from(port.0)].plug(port, Source::Request, vm);
    };
    let decoders = device.windows.committed();
    let removal = if dice.one_in(2) { Removal::Forced } else { Removal::Requested };
    let input = Input::Extents(extents::Input::Unplug { removal, decoders });
    vec![Heard { device: port, origin: Origin::Operator, input, outcomes: Vec::new() }]
}

/// A plug into the wrong port, of an id that is taken, or with a memdev that is used or is not there.
fn wrong_plug(dice: &mut Dice, mix: &Mix, vm: &Vm, port: DeviceIndex) -> Option<Heard> {
    let mut config = mix.kinds[usize::from(port.0)].config(port)?;
    if dice.one_in(2) {
        config.id = "cxl-other".into();
    }
    let free = (0..PORTS).map(DeviceIndex).find(|port| !vm.devices.contains_key(port));
    let any = DeviceIndex(dice.below(u64::from(PORTS) + 2) as u8);
    let into = free.filter(|_| dice.one_in(2)).unwrap_or(any);
    Some(device_add(into, config, Source::Request))
}

/// A process takes the journal over.
pub(crate) fn run_start(dice: &mut Dice, vm: &Vm) -> Heard {
    let survival = |dice: &mut Dice| if dice.one_in(2) { Survival::Lost } else { Survival::Kept };
    let survivals = vm.backends.iter().map(|(id, _)| (id.to_owned(), survival(dice))).collect();
    let input = Input::Backends(backends::Input::RunStart { build: crate::run::BUILD.into(), survivals });
    Heard { device: DeviceIndex(0), origin: Origin::Supervisor, input, outcomes: Vec::new() }
}
