//! The state of a whole VM: one registry, and for each device its mailbox, extents and windows.

use serde::Serialize;

use crate::config::{DeviceConfig, DeviceIndex, VmConfig};
use crate::operation::Fact;
use crate::stamp::Stamp;
use crate::{backends, extents, mailbox, windows};

/// One device's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
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
    /// The devices, in the order of [`VmConfig::devices`].
    pub devices: Vec<Device>,
}

impl Device {
    /// A device as it is at power-on.
    pub fn new(config: &DeviceConfig) -> Self {
        Self {
            mailbox: mailbox::State::new(config),
            extents: extents::State::default(),
            windows: windows::State::default(),
        }
    }
}

impl Vm {
    /// A VM as it is before its first record.
    pub fn new(config: VmConfig) -> Self {
        let devices = config.devices.iter().map(Device::new).collect();
        Self { config, backends: backends::State::default(), devices }
    }

    /// One device's configuration and state.
    pub fn device(&self, index: DeviceIndex) -> Option<(&DeviceConfig, &Device)> {
        let index = usize::from(index.0);
        Some((self.config.devices.get(index)?, self.devices.get(index)?))
    }

    /// Whether a fact from a file can be true of this state; if not, why.
    pub fn admit(&self, device: DeviceIndex, fact: &Fact) -> Result<(), String> {
        let (config, state) = self.device(device).ok_or_else(|| format!("there is no device {}", device.0))?;
        match fact {
            Fact::Mailbox(fact) => state.mailbox.admit(fact),
            Fact::Extents(fact) => state.extents.admit(config, fact),
            Fact::Backends(fact) => self.backends.admit(fact),
            Fact::Windows(fact) => state.windows.admit(fact),
        }
    }

    /// Makes a fact true. A fact from a file must have been admitted.
    pub fn evolve(&mut self, device: DeviceIndex, stamp: Stamp, fact: &Fact) {
        let Some(state) = self.devices.get_mut(usize::from(device.0)) else { return };
        match fact {
            Fact::Mailbox(fact) => state.mailbox.evolve(fact),
            Fact::Extents(fact) => state.extents.evolve(stamp, fact),
            Fact::Backends(fact) => self.backends.evolve(stamp, fact),
            Fact::Windows(fact) => state.windows.evolve(stamp, fact),
        }
    }
}
