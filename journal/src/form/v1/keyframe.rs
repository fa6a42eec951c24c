//! The state of a whole VM. A device's configuration stands once, with the device.

use std::collections::BTreeMap;
use std::fmt::Display;

use device::backends::Plugged;
use device::config::DeviceIndex;
use device::vm::{self, Vm};

use crate::codec::{CodecError, Reader};
use crate::form;
use crate::form::frozen::Frozen;

use super::backends::{Backend, Source};
use super::config::{DeviceConfig, VmConfig};
use super::{extents_state, mailbox, windows};

/// The state after a record.
#[derive(bincode::Encode)]
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
#[derive(bincode::Encode)]
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

    fn read(reader: &mut Reader<'_>) -> Option<form::Keyframe> {
        let (seq, time) = (<u64 as Frozen<_>>::read(reader)?, <u64 as Frozen<_>>::read(reader)?);
        let config = VmConfig::read(reader)?;
        sound(reader, config.check())?;
        let backends = <Vec<(String, Backend)> as Frozen<_>>::read(reader)?;
        let (plugs, runs) = (reader.u64()?, reader.u64()?);
        let (mut plugged, mut states) = (BTreeMap::new(), BTreeMap::new());
        for _ in 0..reader.count::<(u8, Device)>()? {
            reader.item::<(u8, Device)>();
            let index = <u8 as Frozen<DeviceIndex>>::read(reader)?;
            if states.last_key_value().is_some_and(|(last, _)| *last >= index) {
                return reader.refuse(CodecError::Unsound(format!("device {} is out of order", index.0)));
            }
            let (registered, state) = Device::read(reader)?;
            plugged.insert(index, registered);
            states.insert(index, state);
        }
        let parts = device::backends::Parts { backends, devices: plugged, plugs, runs };
        let backends = sound(reader, device::backends::State::from_parts(&config, parts))?;
        Some(form::Keyframe { seq, time, vm: Vm { config, backends, devices: states } })
    }
}

/// What can be, of what a body says.
fn sound<T>(reader: &mut Reader<'_>, made: Result<T, impl Display>) -> Option<T> {
    made.map_or_else(|reason| reader.refuse(CodecError::Unsound(reason.to_string())), Some)
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

    fn read(reader: &mut Reader<'_>) -> Option<(Plugged, vm::Device)> {
        let config = DeviceConfig::read(reader)?;
        sound(reader, config.check())?;
        let source = Source::read(reader)?;
        let by = <u64 as Frozen<_>>::read(reader)?;
        let mailbox = mailbox::State::read(reader)?;
        let mailbox = sound(reader, device::mailbox::State::from_parts(&config, mailbox))?;
        let extents = extents_state::State::read(reader)?;
        let extents = sound(reader, device::extents::State::from_parts(&config, extents))?;
        let windows = windows::State::read(reader)?;
        let windows = sound(reader, device::windows::State::from_parts(&config, windows))?;
        let state = vm::Device { config: config.clone(), mailbox, extents, windows };
        Some((Plugged { config, source, by }, state))
    }
}
