//! The registry's state taken apart and put together again. The index by tag is not among the parts: it is made again.

use std::collections::BTreeMap;

use crate::config::{DeviceIndex, VmConfig};
use crate::limits::BACKENDS_MAX;

use super::{Backend, Plugged, State};

/// All that the registry's state is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The backends, by id.
    pub backends: BTreeMap<String, Backend>,
    /// The devices that are plugged, by root port.
    pub devices: BTreeMap<DeviceIndex, Plugged>,
    /// How many devices were ever plugged.
    pub plugs: u64,
    /// How many processes have run the VM.
    pub runs: u64,
}

impl State {
    /// What the state is made of.
    pub fn parts(&self) -> Parts {
        let Self { backends, by_tag: _, devices, plugs, runs } = self;
        Parts { backends: backends.clone(), devices: devices.clone(), plugs: *plugs, runs: *runs }
    }

    /// The state that is made of these parts, which may be from a file.
    ///
    /// # Errors
    /// Where no state is.
    pub fn from_parts(vm: &VmConfig, parts: Parts) -> Result<Self, String> {
        let Parts { backends, devices, plugs, runs } = parts;
        if backends.len() > BACKENDS_MAX {
            return Err(format!("{} backends: a VM has at most {BACKENDS_MAX}", backends.len()));
        }
        for (index, plugged) in &devices {
            plugged.config.check().map_err(|error| error.to_string())?;
            if usize::from(index.0) >= vm.root_ports.len() {
                return Err(format!("device {} is in port {}, which the VM does not have", plugged.config.id, index.0));
            }
        }
        let mut by_tag = BTreeMap::new();
        for (id, backend) in backends.iter().filter(|(_, backend)| !backend.spec.tag.is_none()) {
            if let Some(other) = by_tag.insert(backend.spec.tag, id.clone()) {
                return Err(format!("tag {} names two backends, {other} and {id}", backend.spec.tag));
            }
        }
        Ok(Self { backends, by_tag, devices, plugs, runs })
    }
}
