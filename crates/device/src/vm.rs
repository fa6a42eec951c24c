//! The state of a whole VM: one registry, and for each plugged device its mailbox, extents and windows.
//!
//! Deliberately absent: devices that were unplugged. Their port is free, and the next one there begins at power-on.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::config::{DeviceConfig, DeviceIndex, VmConfig};
use crate::operation::Fact;
use crate::stamp::Stamp;
use crate::{backends, extents, mailbox, windows};

/// One device's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    /// What it is made of.
    pub config: DeviceConfig,
    /// Of the mailbox.
    pub mailbox: mailbox::State,
    /// Of the extent manager.
    pub extents: extents::State,
    /// Of the window mapper.
    pub windows: windows::State,
}

/// The whole state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Vm {
    /// What it was started as.
    pub config: VmConfig,
    /// Host memory.
    pub backends: backends::State,
    /// The devices, by root port.
    pub devices: BTreeMap<DeviceIndex, Device>,
}

impl Device {
    /// A device as it is at power-on.
    pub fn new(config: &DeviceConfig) -> Self {
        Self {
            mailbox: mailbox::State::new(config),
            extents: extents::State::default(),
            windows: windows::State::new(config),
            config: config.clone(),
        }
    }
}

impl Device {
    fn evolve(&mut self, stamp: Stamp, fact: &Fact) {
        match fact {
            Fact::Mailbox(fact) => self.mailbox.evolve(fact),
            Fact::Extents(fact) => self.extents.evolve(stamp, fact),
            Fact::Windows(fact) => self.windows.evolve(stamp, fact),
            // The registry's, not a device's.
            Fact::Backends(_) => {}
        }
    }
}

impl Vm {
    /// A VM as it is before its first record.
    pub fn new(config: VmConfig) -> Self {
        Self { config, backends: backends::State::default(), devices: BTreeMap::new() }
    }

    /// How a device is called; `?` where there is none.
    pub fn device_id(&self, index: DeviceIndex) -> &str {
        self.devices.get(&index).map_or("?", |device| &device.config.id)
    }

    /// Whether a fact from a file can be true of this state; if not, why.
    pub fn admit(&self, device: DeviceIndex, fact: &Fact) -> Result<(), String> {
        let of_device = || self.devices.get(&device).ok_or_else(|| format!("there is no device {}", device.0));
        match fact {
            Fact::Backends(fact) => self.backends.admit(&self.config, device, fact),
            Fact::Mailbox(fact) => of_device()?.mailbox.admit(fact),
            Fact::Extents(fact) => of_device().and_then(|state| state.extents.admit(&state.config, fact)),
            Fact::Windows(fact) => of_device()?.windows.admit(fact),
        }
    }

    /// Makes a fact true. A fact from a file must have been admitted.
    pub fn evolve(&mut self, device: DeviceIndex, stamp: Stamp, fact: &Fact) {
        if let Fact::Backends(fact) = fact {
            self.backends.evolve(device, stamp, fact);
            self.plug(device, fact);
        } else if let Some(state) = self.devices.get_mut(&device) {
            state.evolve(stamp, fact);
        }
    }

    /// A plug and an unplug are the registry's facts, and make and end the rest of a device's state.
    fn plug(&mut self, device: DeviceIndex, fact: &backends::Fact) {
        match fact {
            backends::Fact::DeviceAdded { config, .. } => drop(self.devices.insert(device, Device::new(config))),
            backends::Fact::DeviceRemoved => drop(self.devices.remove(&device)),
            _ => {}
        }
    }
}
