//! The mailbox's state taken apart and put together again. What the device's configuration fixes is not among the
//! parts.

use std::collections::BTreeMap;

use crate::config::DeviceConfig;

use super::{MSIX_TABLE_BYTES, State};

/// All that changes in a mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Dwords of configuration space that are not as at power-on, by offset.
    pub config_written: BTreeMap<u16, u32>,
    /// The mailbox control register, the doorbell bit aside.
    pub control: u32,
    /// The MSI-X table.
    pub msix: Vec<u8>,
    /// The event interrupt policy, a byte for each log.
    pub policy: [u8; 5],
}

impl State {
    /// What the state is made of.
    pub fn parts(&self) -> Parts {
        let Self { config_space, control, msix, policy } = self;
        let config_written = config_space.written().dwords().clone();
        Parts { config_written, control: *control, msix: msix.clone(), policy: *policy }
    }

    /// The state that is made of these parts, which may be from a file.
    ///
    /// # Errors
    /// Where no state of the device is.
    pub fn from_parts(config: &DeviceConfig, parts: Parts) -> Result<Self, String> {
        let Parts { config_written, control, msix, policy } = parts;
        if msix.len() != MSIX_TABLE_BYTES {
            return Err(format!("an MSI-X table of {} bytes: the device's has {MSIX_TABLE_BYTES}", msix.len()));
        }
        let config_space = Self::new(config).config_space.with_written(config_written)?;
        Ok(Self { config_space, control, msix, policy })
    }
}
