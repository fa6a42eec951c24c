//! The guest's side: what it sees of its platform and devices beside their journaled state, and what it is itself.
//!
//! ```text
//!  Quiet ─▶ GuestSide ─┬─ registers of each device, staged ones too     ─▶ parts of a snapshot ─▶ GuestSide ─▶ next life
//!                      ├─ bridges
//!                      └─ processors, where they are KVM's
//! ```
//!
//! Deliberately absent: memory, and the device's state.

use std::collections::BTreeMap;

use device::config::DeviceIndex;
use platform::{FaceState, Platform, PlatformState};
use vm::MachineState;

use crate::parts::Parts;
use crate::snapshot_error::SnapshotError;
use crate::start::Accel;

/// All of it, of a VM that is quiet.
#[derive(Clone, Debug)]
pub(crate) struct GuestSide {
    pub(crate) faces: BTreeMap<DeviceIndex, FaceState>,
    pub(crate) platform: PlatformState,
    /// `None` of a guest inside the process: its driver is a thread, which begins anew.
    pub(crate) machine: Option<MachineState>,
}

impl GuestSide {
    /// Takes it.
    pub(crate) fn of(parts: &Parts) -> Result<Self, SnapshotError> {
        let devices = parts.actors();
        let faces = devices.iter().map(|(index, actors)| Ok((*index, actors.face.save()?)));
        let faces = faces.collect::<Result<_, SnapshotError>>()?;
        let machine = parts.slots.processor.kvm.as_ref().map(|kvm| kvm.machine().save()).transpose()?;
        Ok(Self { faces, platform: parts.platform().save(), machine })
    }

    /// The registers of a device.
    pub(crate) fn face(&self, device: DeviceIndex) -> Result<&FaceState, SnapshotError> {
        self.faces.get(&device).ok_or(SnapshotError::NoRegisters { port: device.0 })
    }

    /// What ran it.
    pub(crate) fn accel(&self) -> Accel {
        match &self.machine {
            Some(machine) => Accel::Kvm { vcpus: machine.vcpus() },
            None => Accel::Soft,
        }
    }

    /// Sets the bridges; the devices are plugged.
    pub(crate) fn load(&self, platform: &Platform) -> Result<(), SnapshotError> {
        Ok(platform.load(&self.platform)?)
    }
}
