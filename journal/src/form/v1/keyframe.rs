//! The state of a whole VM. A device's configuration stands once, with the device.

use std::collections::BTreeMap;

use device::backends::Plugged;
use device::config::DeviceIndex;
use device::vm::{self, Vm};

use crate::codec::CodecError;
use crate::form;
use crate::form::frozen::Frozen;

use super::backends::{Backend, Source};
use super::config::{DeviceConfig, VmConfig};
use super::{extents_state, mailbox, windows};

/// The state after a record.
#[derive(bincode::Encode, bincode::Decode)]
pub(super) struct Keyframe {
    seq: u64,
    time: u64,
    config: VmConfig,
    backends: Vec<(String, Backend)>,
    plugs: u64,
    runs: u64,
    devices: Vec<(u8, Device)>,
}

/// A device in its port, as the registry knows it, and the state of its actors.
#[derive(bincode::Encode, bincode::Decode)]
struct Device {
    config: DeviceConfig,
    source: Source,
    by: u64,
    mailbox: mailbox::State,
    extents: extents_state::State,
    windows: windows::State,
}

impl Frozen<form::Keyframe> for Keyframe {
    fn of(keyframe: &form::Keyframe) -> Self {
        let form::Keyframe { seq, time, vm: Vm { config, backends, devices } } = keyframe;
        let device::backends::Parts { backends, devices: plugged, plugs, runs } = backends.parts();
        // Both know the same devices: a fact of the registry makes the one and the other.
        let devices = plugged.iter().filter_map(|(index, plugged)| Some((index, plugged, devices.get(index)?)));
        Self {
            seq: Frozen::of(seq),
            time: Frozen::of(time),
            config: Frozen::of(config),
            backends: Frozen::of(&backends),
            plugs,
            runs,
            devices: devices.map(|(index, plugged, state)| (Frozen::of(index), Device::of(plugged, state))).collect(),
        }
    }

    fn thawed(self) -> Result<form::Keyframe, CodecError> {
        let Self { seq, time, config, backends, plugs, runs, devices } = self;
        let config: device::config::VmConfig = config.thawed()?;
        config.check().map_err(|error| CodecError::Unsound(error.to_string()))?;
        let (mut plugged, mut states) = (BTreeMap::new(), BTreeMap::new());
        for (index, device) in devices {
            let index: DeviceIndex = index.thawed()?;
            if states.last_key_value().is_some_and(|(last, _)| *last >= index) {
                return Err(CodecError::Unsound(format!("device {} is out of order", index.0)));
            }
            let (registered, state) = device.thawed()?;
            plugged.insert(index, registered);
            states.insert(index, state);
        }
        let parts = device::backends::Parts { backends: backends.thawed()?, devices: plugged, plugs, runs };
        let backends = device::backends::State::from_parts(&config, parts).map_err(CodecError::Unsound)?;
        Ok(form::Keyframe { seq: seq.thawed()?, time: time.thawed()?, vm: Vm { config, backends, devices: states } })
    }
}

impl Device {
    fn of(plugged: &Plugged, state: &vm::Device) -> Self {
        let Plugged { config, source, by } = plugged;
        let vm::Device { config: _, mailbox, extents, windows } = state;
        Self {
            config: Frozen::of(config),
            source: Frozen::of(source),
            by: Frozen::of(by),
            mailbox: Frozen::of(&mailbox.parts()),
            extents: Frozen::of(&extents.parts()),
            windows: Frozen::of(&windows.parts()),
        }
    }

    fn thawed(self) -> Result<(Plugged, vm::Device), CodecError> {
        let Self { config, source, by, mailbox, extents, windows } = self;
        let config: device::config::DeviceConfig = config.thawed()?;
        config.check().map_err(|error| CodecError::Unsound(error.to_string()))?;
        let mailbox = device::mailbox::State::from_parts(&config, mailbox.thawed()?);
        let extents = device::extents::State::from_parts(&config, extents.thawed()?);
        let windows = device::windows::State::from_parts(&config, windows.thawed()?);
        let state = vm::Device {
            config: config.clone(),
            mailbox: mailbox.map_err(CodecError::Unsound)?,
            extents: extents.map_err(CodecError::Unsound)?,
            windows: windows.map_err(CodecError::Unsound)?,
        };
        Ok((Plugged { config, source: source.thawed()?, by: by.thawed()? }, state))
    }
}
