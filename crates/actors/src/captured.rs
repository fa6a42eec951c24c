//! Captured: everything of a quiet VM but the contents of its memories, and the parts that it is written as.
//!
//! ```text
//!  device             the state after a record: a keyframe, as the journal writes them
//!  registers-PORT     the registers of a device, staged ones too
//!  platform           the bridges
//!  machine            the processors, of a guest on KVM
//! ```
//!
//! A part has a form with a version of its own. Deliberately absent: where the parts are kept; a snapshot keeps them in a
//! file, a hand-over sends them, a pulse does neither.

use std::collections::BTreeMap;

use device::config::DeviceIndex;
use device::vm::Vm as State;
use journal::form::{KEYFRAME_VERSION, Keyframe};
use platform::{FACE_STATE_VERSION, FaceState, PLATFORM_STATE_VERSION, PlatformState};
use vm::{MACHINE_STATE_VERSION, MachineState};

use crate::guest_side::GuestSide;
use crate::quiet::Quiet;
use crate::snapshot_error::SnapshotError;
use crate::start::Accel;

const DEVICE: &str = "device";
const REGISTERS: &str = "registers-";
const PLATFORM: &str = "platform";
const MACHINE: &str = "machine";

/// All of a VM but its memories.
#[derive(Debug)]
pub(crate) struct Captured {
    /// Its time is that of the VM's clock, at or after that of the record.
    pub(crate) keyframe: Keyframe,
    pub(crate) guest_side: GuestSide,
}

/// A part, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) name: String,
    /// Of its form.
    pub(crate) version: u16,
    pub(crate) bytes: Vec<u8>,
}

impl Captured {
    /// Takes it, with the state that the VM was found in.
    pub(crate) fn of(quiet: &Quiet<'_>, state: State) -> Result<Self, SnapshotError> {
        let guest_side = GuestSide::of(&quiet.parts)?;
        let time = quiet.parts.journal.clock().now();
        Ok(Self { keyframe: Keyframe { seq: quiet.last, time, vm: state }, guest_side })
    }

    /// Writes it.
    pub(crate) fn to_parts(&self) -> Vec<Part> {
        let Self { keyframe, guest_side: GuestSide { faces, platform, machine } } = self;
        let part = |name: String, version, bytes| Part { name, version, bytes };
        let mut parts = vec![part(DEVICE.into(), KEYFRAME_VERSION, keyframe.to_bytes())];
        let of_face = |(port, face): (&DeviceIndex, &FaceState)| {
            part(format!("{REGISTERS}{}", port.0), FACE_STATE_VERSION, face.to_bytes())
        };
        parts.extend(faces.iter().map(of_face));
        parts.push(part(PLATFORM.into(), PLATFORM_STATE_VERSION, platform.to_bytes()));
        parts.extend(machine.iter().map(|machine| part(MACHINE.into(), MACHINE_STATE_VERSION, machine.to_bytes())));
        parts
    }

    /// Reads it. Every part must be known and of use: what is left over is of a form that is not this one.
    pub(crate) fn from_parts(parts: impl IntoIterator<Item = Part>) -> Result<Self, SnapshotError> {
        let (mut keyframe, mut platform, mut machine, mut faces) = (None, None, None, BTreeMap::new());
        for Part { name, version, bytes } in parts {
            let unreadable = |reason: String| SnapshotError::Part { name: name.clone(), reason };
            match name.as_str() {
                DEVICE => {
                    let read = Keyframe::from_stored(version, &bytes).map_err(|error| unreadable(error.to_string()))?;
                    keyframe = Some(read);
                }
                PLATFORM => {
                    let read = PlatformState::from_bytes(version, &bytes);
                    platform = Some(read.map_err(|error| unreadable(error.to_string()))?);
                }
                MACHINE => {
                    let read = MachineState::from_bytes(version, &bytes);
                    machine = Some(read.map_err(|error| unreadable(error.to_string()))?);
                }
                _ => {
                    let port = name.strip_prefix(REGISTERS).and_then(|port| port.parse().ok());
                    let port = port.ok_or_else(|| unreadable("this build does not know it".into()))?;
                    let read = FaceState::from_bytes(version, &bytes);
                    faces.insert(DeviceIndex(port), read.map_err(|error| unreadable(error.to_string()))?);
                }
            }
        }
        let keyframe = keyframe.ok_or(SnapshotError::Missing { name: DEVICE })?;
        let platform = platform.ok_or(SnapshotError::Missing { name: PLATFORM })?;
        let captured = Self { keyframe, guest_side: GuestSide { faces, platform, machine } };
        captured.check()?;
        Ok(captured)
    }

    /// Every device has its registers, and nothing else has.
    fn check(&self) -> Result<(), SnapshotError> {
        let plugged = &self.keyframe.vm.devices;
        for port in plugged.keys() {
            self.guest_side.face(*port)?;
        }
        match self.guest_side.faces.keys().find(|port| !plugged.contains_key(port)) {
            Some(port) => Err(SnapshotError::NoDevice { port: port.0 }),
            None => Ok(()),
        }
    }

    /// What ran it.
    pub(crate) fn accel(&self) -> Accel {
        match &self.guest_side.machine {
            Some(machine) => Accel::Kvm { vcpus: machine.vcpus() },
            None => Accel::Soft,
        }
    }
}
