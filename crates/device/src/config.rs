//! What a VM is made of when it starts: fixed for its life, kept as the journal's genesis.
//!
//! Deliberately absent: everything that changes (that is state), and host addresses.

use bincode::{Decode, Encode};
use serde::Serialize;
use thiserror::Error;
use wire::{BlockSize, CAPACITY_MULTIPLE_BYTES, Dpa, Hpa};

use crate::limits::{DEVICES_MAX, ID_LEN_BYTES_MAX, REGIONS_MAX};
use crate::range::DpaRange;

/// No address space is larger, so that no sum of a few addresses and lengths can wrap.
pub const ADDRESS_LIMIT_BYTES: u64 = 1 << 52;

/// Which device of the VM, by its place in [`VmConfig::devices`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[serde(transparent)]
pub struct DeviceIndex(pub u8);

/// A VM: guest memory, one fixed window, and its devices.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct VmConfig {
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Base of the CXL fixed memory window.
    pub window_base: Hpa,
    /// Size of the CXL fixed memory window in bytes.
    pub window_bytes: u64,
    /// The devices, in the order of their root ports.
    pub devices: Vec<DeviceConfig>,
}

/// One Type 3 device.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct DeviceConfig {
    /// Its id, unique in the VM: the last part of its QOM path.
    pub id: String,
    /// PCI Express device serial number.
    pub serial: u64,
    /// Size of the mailbox payload area as log2 of bytes, 8 to 20 (CXL r4.0 8.2.8.4.3).
    pub mailbox_payload_log2: u8,
    /// Dynamic capacity regions, 1 to 8, in rising order of base.
    pub regions: Vec<RegionConfig>,
}

/// One dynamic capacity region (CXL r4.0 8.2.10.9.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct RegionConfig {
    /// First address, a multiple of 256 MiB.
    pub base: Dpa,
    /// Length in bytes, a multiple of 256 MiB; the decode length is the same.
    pub len_bytes: u64,
    /// Extents are aligned to it.
    pub block: BlockSize,
}

impl RegionConfig {
    /// The addresses of the region.
    pub fn range(&self) -> DpaRange {
        DpaRange { start: self.base, len_bytes: self.len_bytes }
    }
}

impl DeviceConfig {
    /// Where the last region ends.
    pub fn dpa_end(&self) -> u64 {
        self.regions.last().map_or(0, |region| region.range().end())
    }

    /// Size of the mailbox payload area in bytes.
    pub fn mailbox_payload_bytes(&self) -> usize {
        1 << self.mailbox_payload_log2
    }

    /// The region in which a range lies as a whole, with its index.
    pub fn region_of(&self, range: DpaRange) -> Option<(u8, &RegionConfig)> {
        (0u8..).zip(&self.regions).find(|(_, region)| region.range().contains(range))
    }
}

/// The options of a device as they are asked for, not yet checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceRequest {
    /// `id`
    pub id: String,
    /// `sn`
    pub serial: u64,
    /// `num-dc-regions`; 1 where it is not given.
    pub num_dc_regions: Option<u64>,
    /// `dc-regions-total-size` in bytes.
    pub dc_regions_total_size_bytes: Option<u64>,
    /// `dc-block-size` in bytes.
    pub dc_block_size_bytes: Option<u64>,
    /// `mailbox-payload` in bytes.
    pub mailbox_payload_bytes: Option<u64>,
}

/// Why a VM or a device cannot be made as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No capacity.
    #[error(
        "device {id}: dc-regions-total-size is missing: give the total dynamic capacity, for example dc-regions-total-size=4G"
    )]
    NoTotalSize {
        /// The device.
        id: String,
    },
    /// Too few or too many regions.
    #[error(
        "device {id}: num-dc-regions={regions} is out of range: a device has 1 to {REGIONS_MAX} dynamic capacity regions"
    )]
    RegionCount {
        /// The device.
        id: String,
        /// What was asked.
        regions: u64,
    },
    /// The total cannot be split into equal regions of whole 256 MiB.
    #[error(
        "device {id}: dc-regions-total-size={total_bytes} does not split into {regions} regions of whole 256 MiB: it must be a multiple of {}",
        regions * CAPACITY_MULTIPLE_BYTES
    )]
    TotalSize {
        /// The device.
        id: String,
        /// What was asked, in bytes.
        total_bytes: u64,
        /// Over how many regions.
        regions: u64,
    },
    /// Not a block size, or larger than the alignment of a region.
    #[error("device {id}: dc-block-size={block_bytes} must be a power of two from 64 bytes to 256 MiB")]
    Block {
        /// The device.
        id: String,
        /// What was asked, in bytes.
        block_bytes: u64,
    },
    /// Not a mailbox payload size.
    #[error("device {id}: mailbox-payload={payload_bytes} must be a power of two from 256 bytes to 1 MiB")]
    MailboxPayload {
        /// The device.
        id: String,
        /// What was asked, in bytes.
        payload_bytes: u64,
    },
    /// Not an id.
    #[error(
        "'{id}' is no id: it begins with a letter, goes on with letters, digits, '-', '.' or '_', and has at most {ID_LEN_BYTES_MAX} bytes"
    )]
    Id {
        /// What was asked.
        id: String,
    },
    /// Two devices of one name.
    #[error("there are two devices with the id {id}")]
    DuplicateDevice {
        /// The id.
        id: String,
    },
    /// Too many devices.
    #[error("{count} devices: a VM has at most {DEVICES_MAX}")]
    TooManyDevices {
        /// What was asked.
        count: usize,
    },
    /// A configuration from a file that no option could have made.
    #[error("device {id}: {what}")]
    Unsound {
        /// The device.
        id: String,
        /// What is wrong.
        what: &'static str,
    },
    /// Window sizes are whole 256 MiB.
    #[error("window size={size_bytes} must be a non-zero multiple of 256 MiB")]
    WindowSize {
        /// What was asked, in bytes.
        size_bytes: u64,
    },
}

/// Whether a text can name a device or a backend, by QEMU's rule for ids.
pub fn is_id(text: &str) -> bool {
    text.len() <= ID_LEN_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
}

impl DeviceConfig {
    /// A device with dynamic capacity only and no memory behind it ("lazy"): equal regions from DPA 0 on.
    pub fn lazy(request: &DeviceRequest) -> Result<Self, ConfigError> {
        let id = request.id.clone();
        if !is_id(&id) {
            return Err(ConfigError::Id { id });
        }
        let Some(total_bytes) = request.dc_regions_total_size_bytes else {
            return Err(ConfigError::NoTotalSize { id });
        };
        let regions = request.num_dc_regions.unwrap_or(1);
        if regions == 0 || regions > REGIONS_MAX as u64 {
            return Err(ConfigError::RegionCount { id, regions });
        }
        if total_bytes == 0
            || !total_bytes.is_multiple_of(regions * CAPACITY_MULTIPLE_BYTES)
            || total_bytes > ADDRESS_LIMIT_BYTES
        {
            return Err(ConfigError::TotalSize { id, total_bytes, regions });
        }
        let block = Self::block(request)?;
        let len_bytes = total_bytes / regions;
        let regions =
            (0..regions).map(|index| RegionConfig { base: Dpa(index * len_bytes), len_bytes, block }).collect();
        let mailbox_payload_log2 = Self::mailbox_payload(request)?;
        Ok(Self { id, serial: request.serial, mailbox_payload_log2, regions })
    }

    fn block(request: &DeviceRequest) -> Result<BlockSize, ConfigError> {
        let block_bytes = request.dc_block_size_bytes.unwrap_or(BlockSize::DEFAULT.bytes());
        match BlockSize::new(block_bytes) {
            Ok(block) if block_bytes <= CAPACITY_MULTIPLE_BYTES => Ok(block),
            _ => Err(ConfigError::Block { id: request.id.clone(), block_bytes }),
        }
    }

    fn mailbox_payload(request: &DeviceRequest) -> Result<u8, ConfigError> {
        let payload_bytes = request.mailbox_payload_bytes.unwrap_or(32 << 10);
        if payload_bytes.is_power_of_two() && (256..=1 << 20).contains(&payload_bytes) {
            Ok(payload_bytes.trailing_zeros() as u8)
        } else {
            Err(ConfigError::MailboxPayload { id: request.id.clone(), payload_bytes })
        }
    }
}

impl DeviceConfig {
    /// Checks what [`DeviceConfig::lazy`] guarantees: a configuration may come from a file.
    pub fn check(&self) -> Result<(), ConfigError> {
        let unsound = |what| Err(ConfigError::Unsound { id: self.id.clone(), what });
        if !is_id(&self.id) {
            return Err(ConfigError::Id { id: self.id.clone() });
        }
        if !(8..=20).contains(&self.mailbox_payload_log2) {
            return unsound("its mailbox payload is not of 256 bytes to 1 MiB");
        }
        if self.regions.is_empty() || self.regions.len() > REGIONS_MAX {
            return unsound("it has no region, or more than 8");
        }
        let mut end = 0;
        for region in &self.regions {
            let is_whole = region.len_bytes > 0 && region.len_bytes.is_multiple_of(CAPACITY_MULTIPLE_BYTES);
            let block_bytes = region.block.bytes();
            let is_block = BlockSize::new(block_bytes).is_ok() && block_bytes <= CAPACITY_MULTIPLE_BYTES;
            if region.base.0 != end || !is_whole || !is_block || region.len_bytes > ADDRESS_LIMIT_BYTES {
                return unsound("its regions do not follow each other in whole 256 MiB and blocks");
            }
            end = region.range().end();
        }
        if end > ADDRESS_LIMIT_BYTES { unsound("its capacity is out of every address space") } else { Ok(()) }
    }
}

impl VmConfig {
    /// Checks all of it.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.devices.len() > DEVICES_MAX {
            return Err(ConfigError::TooManyDevices { count: self.devices.len() });
        }
        if self.window_bytes == 0 || !self.window_bytes.is_multiple_of(CAPACITY_MULTIPLE_BYTES) {
            return Err(ConfigError::WindowSize { size_bytes: self.window_bytes });
        }
        if self.window_base.checked_add(self.window_bytes).is_none() || self.memory_bytes > ADDRESS_LIMIT_BYTES {
            return Err(ConfigError::WindowSize { size_bytes: self.window_bytes });
        }
        for (index, device) in self.devices.iter().enumerate() {
            device.check()?;
            if self.devices[..index].iter().any(|other| other.id == device.id) {
                return Err(ConfigError::DuplicateDevice { id: device.id.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> DeviceRequest {
        DeviceRequest {
            id: "cxl-vmem0".into(),
            serial: 0,
            num_dc_regions: None,
            dc_regions_total_size_bytes: Some(4 << 30),
            dc_block_size_bytes: None,
            mailbox_payload_bytes: None,
        }
    }

    #[test]
    fn one_region_where_none_is_asked() {
        let device = DeviceConfig::lazy(&request()).unwrap();
        assert_eq!(device.regions.len(), 1);
        assert_eq!(device.dpa_end(), 4 << 30);
        assert_eq!(device.mailbox_payload_bytes(), 32 << 10);
    }

    #[test]
    fn regions_are_equal_and_aligned() {
        let device = DeviceConfig::lazy(&DeviceRequest { num_dc_regions: Some(8), ..request() }).unwrap();
        assert!(device.regions.iter().all(|r| r.len_bytes == 512 << 20 && r.base.0 % CAPACITY_MULTIPLE_BYTES == 0));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for bad in [
            DeviceRequest { num_dc_regions: Some(9), ..request() },
            DeviceRequest { num_dc_regions: Some(0), ..request() },
            DeviceRequest { num_dc_regions: Some(3), ..request() },
            DeviceRequest { dc_regions_total_size_bytes: None, ..request() },
            DeviceRequest { dc_regions_total_size_bytes: Some(0), ..request() },
            DeviceRequest { dc_regions_total_size_bytes: Some(!0xfff_ffff), ..request() },
            DeviceRequest { dc_block_size_bytes: Some(3 << 20), ..request() },
            DeviceRequest { mailbox_payload_bytes: Some(128), ..request() },
            DeviceRequest { id: "0x".into(), ..request() },
        ] {
            assert!(DeviceConfig::lazy(&bad).is_err(), "{bad:?}");
        }
    }
}
