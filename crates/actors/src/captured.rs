//! Captured: everything of a quiet VM but the contents of its memories, and the parts that it is written as.
//!
//! ```text
//!  device             the state after a record: a keyframe, as the journal writes them
//!    or device-ahead  only after which record: the state came ahead, and was still the same
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
use device::{Seq, VmTime};
use journal::form::{Base, KEYFRAME_VERSION, Keyframe};
use platform::{FACE_STATE_VERSION, FaceState, PLATFORM_STATE_VERSION, PlatformState};
use vm::{MACHINE_STATE_VERSION, MachineState};

use crate::guest_side::GuestSide;
use crate::quiet::Quiet;
use crate::snapshot_error::SnapshotError;

const DEVICE: &str = "device";
const DEVICE_AHEAD: &str = "device-ahead";
const DEVICE_AHEAD_VERSION: u16 = 1;
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

/// The same as it was read from its parts.
#[derive(Debug)]
pub(crate) struct Recalled {
    /// What [`Captured::keyframe`] was.
    pub(crate) base: Base,
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
        self.parts(part(DEVICE.into(), KEYFRAME_VERSION, self.keyframe.to_bytes()))
    }

    /// Writes it for who was sent a state already.
    pub(crate) fn to_parts_behind(&self, ahead: &State) -> Vec<Part> {
        let Keyframe { seq, time, vm } = &self.keyframe;
        if vm != ahead {
            return self.to_parts();
        }
        self.parts(part(
            DEVICE_AHEAD.into(),
            DEVICE_AHEAD_VERSION,
            [seq.0.to_le_bytes(), time.0.to_le_bytes()].concat(),
        ))
    }

    fn parts(&self, device: Part) -> Vec<Part> {
        let Self { keyframe: _, guest_side: GuestSide { faces, platform, machine } } = self;
        let mut parts = vec![device];
        let of_face = |(port, face): (&DeviceIndex, &FaceState)| {
            part(format!("{REGISTERS}{}", port.0), FACE_STATE_VERSION, face.to_bytes())
        };
        parts.extend(faces.iter().map(of_face));
        parts.push(part(PLATFORM.into(), PLATFORM_STATE_VERSION, platform.to_bytes()));
        parts.extend(machine.iter().map(|machine| part(MACHINE.into(), MACHINE_STATE_VERSION, machine.to_bytes())));
        parts
    }
}

fn part(name: String, version: u16, bytes: Vec<u8>) -> Part {
    Part { name, version, bytes }
}

/// A state that came ahead, after the record that these bytes say.
fn moved(ahead: Base, version: u16, bytes: &[u8]) -> Result<Base, String> {
    match bytes.as_chunks() {
        ([seq, time], []) if version == DEVICE_AHEAD_VERSION => {
            Ok(ahead.moved_to(Seq(u64::from_le_bytes(*seq)), VmTime(u64::from_le_bytes(*time))))
        }
        _ => Err(format!("{} bytes of version {version} say no record and its time", bytes.len())),
    }
}

impl Recalled {
    /// Reads it, where nothing came ahead.
    pub(crate) fn from_parts(parts: impl IntoIterator<Item = Part>) -> Result<Self, SnapshotError> {
        Self::from_parts_behind(parts, None)
    }

    /// Reads it. Every part must be known and of use: what is left over is of a form that is not this one.
    pub(crate) fn from_parts_behind(
        parts: impl IntoIterator<Item = Part>,
        mut ahead: Option<Base>,
    ) -> Result<Self, SnapshotError> {
        let (mut base, mut platform, mut machine, mut faces) = (None, None, None, BTreeMap::new());
        for Part { name, version, bytes } in parts {
            let unreadable = |reason: String| SnapshotError::Part { name: name.clone(), reason };
            match name.as_str() {
                DEVICE => {
                    let read = Base::from_stored(version, bytes).map_err(|error| unreadable(error.to_string()))?;
                    base = Some(read);
                }
                DEVICE_AHEAD => {
                    let ahead = ahead.take().ok_or_else(|| unreadable("no state came ahead of it".into()))?;
                    base = Some(moved(ahead, version, &bytes).map_err(unreadable)?);
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
        let base = base.ok_or(SnapshotError::Missing { name: DEVICE })?;
        let platform = platform.ok_or(SnapshotError::Missing { name: PLATFORM })?;
        let recalled = Self { base, guest_side: GuestSide { faces, platform, machine } };
        recalled.check()?;
        Ok(recalled)
    }

    /// Every device has its registers, and nothing else has.
    fn check(&self) -> Result<(), SnapshotError> {
        let plugged = &self.base.keyframe().vm.devices;
        for port in plugged.keys() {
            self.guest_side.face(*port)?;
        }
        match self.guest_side.faces.keys().find(|port| !plugged.contains_key(port)) {
            Some(port) => Err(SnapshotError::NoDevice { port: port.0 }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ahead::tests::base;

    fn refused(parts: Vec<Part>, ahead: Option<Base>) -> String {
        Recalled::from_parts_behind(parts, ahead).expect_err("refused").to_string()
    }

    #[test]
    fn a_state_that_came_ahead_is_the_one_after_the_record_that_is_said() {
        let bytes = [7u64.to_le_bytes(), 70u64.to_le_bytes()].concat();
        assert_eq!(moved(base(5, 50), DEVICE_AHEAD_VERSION, &bytes), Ok(base(7, 70)));
        let said = |version, bytes: &[u8]| vec![part(DEVICE_AHEAD.into(), version, bytes.to_vec())];
        assert!(refused(said(DEVICE_AHEAD_VERSION, &bytes), None).contains("no state came ahead of it"));
        for (version, bytes) in [(2, &bytes[..]), (1, &bytes[..15]), (1, &[]), (1, &[0; 17])] {
            let reason = format!("{} bytes of version {version} say no record", bytes.len());
            assert!(refused(said(version, bytes), Some(base(5, 50))).contains(&reason));
        }
        // It came, and nobody says that it is the one.
        assert!(refused(Vec::new(), Some(base(5, 50))).contains(DEVICE));
        let twice = [said(1, &bytes), said(1, &bytes)].concat();
        assert!(refused(twice, Some(base(5, 50))).contains("no state came ahead of it"));
    }
}
