//! The devices that are plugged: which, into which root port, and with which backends as their own memory.
//!
//! ```text
//!             DeviceAdd: DeviceAdded, Dedicated of each memdev
//!  port free ────────────────────────────────────────────────▶ plugged
//!      ▲        Unplug: Freed of all that it has, DeviceRemoved    │
//!      └───────────────────────────────────────────────────────────┘
//! ```
//!
//! Deliberately absent: whether a device may be unplugged, which its extent manager knows.

use serde::Serialize;

use crate::config::{DeviceConfig, DeviceIndex, VmConfig};
use crate::refusal::Refusal;
use crate::stamp::Seq;

use super::{Fact, Source, State};

/// A device in its port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plugged {
    /// What it is made of.
    pub config: DeviceConfig,
    /// Who asked for it.
    pub source: Source,
    /// The record that plugged it.
    pub by: Seq,
}

impl State {
    /// The devices, by root port.
    pub fn devices(&self) -> impl Iterator<Item = (DeviceIndex, &Plugged)> {
        self.devices.iter().map(|(index, plugged)| (*index, plugged))
    }

    /// The device in a port.
    pub fn device(&self, index: DeviceIndex) -> Option<&Plugged> {
        self.devices.get(&index)
    }

    pub(super) fn decide_device_add(
        &self,
        vm: &VmConfig,
        port: DeviceIndex,
        config: &DeviceConfig,
        source: Source,
    ) -> Result<Vec<Fact>, Refusal> {
        let id = config.id.clone();
        if let Some((_, other)) = self.devices().find(|(_, plugged)| plugged.config.id == id) {
            return Err(Refusal::DuplicateDevice { id, by: other.by });
        }
        let Some(name) = vm.root_ports.get(usize::from(port.0)) else {
            return Err(Refusal::NoSuchPort { id, port: port.0, count: vm.root_ports.len() as u32 });
        };
        if let Some(other) = self.devices.get(&port) {
            let (port, device, by) = (name.clone(), other.config.id.clone(), other.by);
            return Err(Refusal::PortTaken { id, port, device, by });
        }
        let added = Fact::DeviceAdded { config: config.clone(), source };
        let memdevs = config.memdevs().map(|(property, backend)| self.dedicated(port, config, property, backend));
        std::iter::once(Ok(added)).chain(memdevs).collect()
    }

    fn dedicated(
        &self,
        device: DeviceIndex,
        config: &DeviceConfig,
        property: &'static str,
        id: &str,
    ) -> Result<Fact, Refusal> {
        let Some(backend) = self.get(id) else { return Err(Refusal::NoSuchBackend { id: id.into() }) };
        if let Some((device, holding, by)) = self.holder_names(backend.holder) {
            return Err(Refusal::MemdevInUse { id: config.id.clone(), backend: id.into(), device, holding, by });
        }
        let needed_bytes = match property {
            "volatile-memdev" => config.static_len_bytes(),
            _ => config.dynamic_len_bytes(),
        };
        if backend.spec.size_bytes != needed_bytes {
            let (backend, backend_bytes) = (id.into(), backend.spec.size_bytes);
            return Err(Refusal::BackendSize { backend, backend_bytes, len_bytes: needed_bytes });
        }
        Ok(Fact::Dedicated { id: id.into(), device })
    }

    /// The facts of an unplug: `ids` are held for extents, the memdevs are the device's own.
    pub(super) fn unplugged(&self, device: DeviceIndex, ids: &[String]) -> Vec<Fact> {
        let own = self.devices.get(&device).into_iter().flat_map(|plugged| plugged.config.memdevs());
        let freed = ids.iter().cloned().chain(own.map(|(_, id)| id.to_owned()));
        freed.map(|id| Fact::Freed { id }).chain([Fact::DeviceRemoved]).collect()
    }
}
