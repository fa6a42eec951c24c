//! What a VM is made of when it starts, kept as the journal's genesis, and what a device is made of when it is plugged.
//!
//! ```text
//!  VmConfig: memory, windows, root ports          fixed for the life of the VM
//!  DeviceRequest ──new──▶ DeviceConfig            fixed for the life of the device, in the record that plugs it
//!
//!  DPA 0 ── static memory ──┬── region 0 ── region 1 ── … ── region 7 ──
//!        (volatile-memdev)  └ tagged backends, or pieces of one (volatile-dc-memdev)
//! ```
//!
//! Deliberately absent: everything that changes (that is state), and host addresses.

use serde::{Deserialize, Serialize};
use thiserror::Error;
use wire::{BlockSize, CAPACITY_MULTIPLE_BYTES, Dpa, Hpa};

use crate::limits::{DEVICES_MAX, ID_LEN_BYTES_MAX, REGIONS_MAX};
use crate::range::DpaRange;

/// No address space is larger, so that no sum of a few addresses and lengths can wrap.
pub const ADDRESS_LIMIT_BYTES: u64 = 1 << 52;

/// Which device of the VM: the number of the root port that it is behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct DeviceIndex(pub u8);

/// A VM without its devices: guest memory, fixed windows, and root ports into which devices are plugged.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct VmConfig {
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// Base of the first CXL fixed memory window; each further one follows the one before it.
    pub window_base: Hpa,
    /// Sizes of the CXL fixed memory windows in bytes.
    pub windows_bytes: Vec<u64>,
    /// Ids of the root ports, in the order of their device numbers.
    pub root_ports: Vec<String>,
}

/// Where a device's dynamic capacity comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DynamicMemory {
    /// From backends that are added by tag: the device starts with no memory behind it.
    Tagged,
    /// From one backend behind the whole dynamic capacity (`volatile-dc-memdev`); a tag is a label.
    Plain {
        /// The backend.
        backend: String,
        /// What an add may do with a tag in use.
        tag_rule: TagRule,
    },
}

/// Whether a plain device takes a tag that is in use once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TagRule {
    /// `unique-tags=off`: a tag is a label like any other.
    Reusable,
    /// `unique-tags=on`: one add at a time has the tag, as Linux wants it.
    Unique,
}

/// Memory that a device has from the start (`volatile-memdev`), below its regions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct StaticMemory {
    /// The backend.
    pub backend: String,
    /// Its length in bytes, a multiple of 256 MiB.
    pub len_bytes: u64,
}

/// One Type 3 device.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct DeviceConfig {
    /// Its id, unique in the VM: the last part of its QOM path.
    pub id: String,
    /// PCI Express device serial number.
    pub serial: u64,
    /// Size of the mailbox payload area as log2 of bytes, 8 to 20 (CXL r4.0 8.2.8.4.3).
    pub mailbox_payload_log2: u8,
    /// Memory below the regions.
    pub static_memory: Option<StaticMemory>,
    /// Where dynamic capacity comes from.
    pub dynamic_memory: DynamicMemory,
    /// Dynamic capacity regions, 1 to 8, in rising order of base.
    pub regions: Vec<RegionConfig>,
}

/// One dynamic capacity region (CXL r4.0 8.2.10.9.9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
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
    /// Length of the static memory in bytes.
    pub fn static_len_bytes(&self) -> u64 {
        self.static_memory.as_ref().map_or(0, |memory| memory.len_bytes)
    }

    /// The backends that are the device's own, each with the property that names it.
    pub fn memdevs(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let plain = match &self.dynamic_memory {
            DynamicMemory::Tagged => None,
            DynamicMemory::Plain { backend, .. } => Some(("volatile-dc-memdev", backend.as_str())),
        };
        let fixed = self.static_memory.as_ref().map(|memory| ("volatile-memdev", memory.backend.as_str()));
        fixed.into_iter().chain(plain)
    }

    /// Length of the dynamic capacity in bytes.
    pub fn dynamic_len_bytes(&self) -> u64 {
        self.regions.iter().map(|region| region.len_bytes).sum()
    }

    /// Where in the plain backend an address of a region is, in bytes.
    pub fn plain_offset(&self, dpa: Dpa) -> u64 {
        dpa.0.saturating_sub(self.static_len_bytes())
    }

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
    /// `volatile-dc-memdev`: the id of a backend.
    pub volatile_dc_memdev: Option<String>,
    /// `volatile-memdev`: the id of a backend.
    pub volatile_memdev: Option<String>,
    /// `unique-tags`
    pub unique_tags: Option<bool>,
    /// `bus`: the id of a root port; the first free one where it is not given.
    pub bus: Option<String>,
}

impl DeviceRequest {
    /// Whether the properties fit each other, whatever backends there are.
    ///
    /// # Errors
    ///
    /// Names the properties that contradict each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let id = self.id.clone();
        match (&self.volatile_dc_memdev, self.dc_regions_total_size_bytes) {
            (None, None) => Err(ConfigError::NoTotalSize { id }),
            (Some(_), Some(_)) => Err(ConfigError::TwoSources { id }),
            (None, Some(_)) if self.unique_tags.is_some() => Err(ConfigError::TagRule { id }),
            (Some(_), None) | (None, Some(_)) => Ok(()),
        }
    }
}

/// Why a VM or a device cannot be made as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// No capacity.
    #[error(
        "device {id}: its regions have no size: give dc-regions-total-size=SIZE for capacity that is added by tag, or volatile-dc-memdev=ID for one backend behind all of it"
    )]
    NoTotalSize {
        /// The device.
        id: String,
    },
    /// Memory from the start and memory by tag.
    #[error(
        "device {id}: volatile-dc-memdev and dc-regions-total-size exclude each other: a device has memory from the start or gets it by tag"
    )]
    TwoSources {
        /// The device.
        id: String,
    },
    /// A rule for labels where tags are no labels.
    #[error(
        "device {id}: unique-tags is a property of a device with volatile-dc-memdev; without it a tag names one backend and is unique"
    )]
    TagRule {
        /// The device.
        id: String,
    },
    /// A backend that does not exist.
    #[error("device {id}: {property}={backend}: there is no such backend: make it first, with --object or object-add")]
    NoMemdev {
        /// The device.
        id: String,
        /// The property.
        property: &'static str,
        /// What was asked.
        backend: String,
    },
    /// Static memory is whole 256 MiB.
    #[error("device {id}: volatile-memdev={backend} has {size_bytes} bytes: it must be a multiple of 256 MiB")]
    StaticSize {
        /// The device.
        id: String,
        /// The backend.
        backend: String,
        /// Its size in bytes.
        size_bytes: u64,
    },
    /// One backend in two places.
    #[error("device {id}: volatile-memdev and volatile-dc-memdev are both {backend}: they must be two backends")]
    SameMemdev {
        /// The device.
        id: String,
        /// The backend.
        backend: String,
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
        "device {id}: {total_bytes} bytes of dynamic capacity do not split into {regions} regions of whole 256 MiB: it must be a multiple of {}",
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
    /// Two root ports of one name.
    #[error("there are two root ports with the id {id}")]
    DuplicatePort {
        /// The id.
        id: String,
    },
    /// A device on a port that does not exist.
    #[error("device {id}: bus={bus}: there is no such root port (there are {ports})")]
    NoSuchPort {
        /// The device.
        id: String,
        /// What was asked.
        bus: String,
        /// The ports that there are.
        ports: String,
    },
    /// No port is left.
    #[error("device {id}: all {count} root ports have a device: give the VM another, --device cxl-rp,id=NAME")]
    NoFreePort {
        /// The device.
        id: String,
        /// How many ports there are.
        count: usize,
    },
    /// Too many root ports.
    #[error("{count} root ports: a VM has at most {DEVICES_MAX}")]
    TooManyPorts {
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
    /// The device that a request describes; `size_of` tells the size in bytes of a backend, if there is one.
    ///
    /// # Errors
    ///
    /// Names the property that is missing, contradicts another one, or does not fit.
    pub fn new(request: &DeviceRequest, size_of: &dyn Fn(&str) -> Option<u64>) -> Result<Self, ConfigError> {
        let id = request.id.clone();
        if !is_id(&id) {
            return Err(ConfigError::Id { id });
        }
        request.check()?;
        let static_memory = Self::static_memory(request, size_of)?;
        let (dynamic_memory, total_bytes) = Self::dynamic_memory(request, size_of)?;
        let base = static_memory.as_ref().map_or(0, |memory| memory.len_bytes);
        let regions = Self::regions(request, base, total_bytes)?;
        let mailbox_payload_log2 = Self::mailbox_payload(request)?;
        let device = Self { id, serial: request.serial, mailbox_payload_log2, static_memory, dynamic_memory, regions };
        device.check()?;
        Ok(device)
    }

    /// A device with no memory behind it, whose capacity is added by tag.
    ///
    /// # Errors
    ///
    /// As [`DeviceConfig::new`]; a memdev does not exist here.
    pub fn lazy(request: &DeviceRequest) -> Result<Self, ConfigError> {
        Self::new(request, &|_| None)
    }

    fn static_memory(
        request: &DeviceRequest,
        size_of: &dyn Fn(&str) -> Option<u64>,
    ) -> Result<Option<StaticMemory>, ConfigError> {
        let Some(backend) = request.volatile_memdev.clone() else { return Ok(None) };
        let id = request.id.clone();
        if request.volatile_dc_memdev.as_ref() == Some(&backend) {
            return Err(ConfigError::SameMemdev { id, backend });
        }
        match size_of(&backend) {
            None => Err(ConfigError::NoMemdev { id, property: "volatile-memdev", backend }),
            Some(size_bytes) if size_bytes.is_multiple_of(CAPACITY_MULTIPLE_BYTES) => {
                Ok(Some(StaticMemory { backend, len_bytes: size_bytes }))
            }
            Some(size_bytes) => Err(ConfigError::StaticSize { id, backend, size_bytes }),
        }
    }

    /// Where dynamic capacity comes from, and how much there is in bytes.
    fn dynamic_memory(
        request: &DeviceRequest,
        size_of: &dyn Fn(&str) -> Option<u64>,
    ) -> Result<(DynamicMemory, u64), ConfigError> {
        let Some(backend) = request.volatile_dc_memdev.clone() else {
            return Ok((DynamicMemory::Tagged, request.dc_regions_total_size_bytes.unwrap_or_default()));
        };
        let Some(size_bytes) = size_of(&backend) else {
            let id = request.id.clone();
            return Err(ConfigError::NoMemdev { id, property: "volatile-dc-memdev", backend });
        };
        let tag_rule = if request.unique_tags == Some(true) { TagRule::Unique } else { TagRule::Reusable };
        Ok((DynamicMemory::Plain { backend, tag_rule }, size_bytes))
    }

    /// Equal regions from `base` on.
    fn regions(request: &DeviceRequest, base: u64, total_bytes: u64) -> Result<Vec<RegionConfig>, ConfigError> {
        let (id, regions) = (request.id.clone(), request.num_dc_regions.unwrap_or(1));
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
        let region = |index| RegionConfig { base: Dpa(base + index * len_bytes), len_bytes, block };
        Ok((0..regions).map(region).collect())
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
    /// Checks what [`DeviceConfig::new`] guarantees: a configuration may come from a file.
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
        let static_bytes = self.static_len_bytes();
        if static_bytes > ADDRESS_LIMIT_BYTES || !static_bytes.is_multiple_of(CAPACITY_MULTIPLE_BYTES) {
            return unsound("its static memory is not whole 256 MiB");
        }
        let mut end = static_bytes;
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
    /// The fixed windows: base and size in bytes.
    pub fn windows(&self) -> impl Iterator<Item = (Hpa, u64)> {
        self.windows_bytes.iter().scan(self.window_base, |base, size_bytes| {
            let window = (*base, *size_bytes);
            *base = Hpa(base.0.saturating_add(*size_bytes));
            Some(window)
        })
    }

    /// Size of all fixed windows in bytes.
    pub fn window_bytes(&self) -> u64 {
        self.windows_bytes.iter().fold(0, |sum, size_bytes| sum.saturating_add(*size_bytes))
    }

    /// The root port with this id.
    pub fn root_port(&self, id: &str) -> Option<DeviceIndex> {
        self.ports().find(|(_, port)| *port == id).map(|(index, _)| index)
    }

    /// The root ports with their ids.
    pub fn ports(&self) -> impl Iterator<Item = (DeviceIndex, &str)> {
        (0u8..).map(DeviceIndex).zip(&self.root_ports).map(|(index, port)| (index, port.as_str()))
    }

    /// The port of a new device: the one that it asks for, else the first for which `is_free`.
    ///
    /// # Errors
    ///
    /// Names the ports that there are, or says that all have a device.
    pub fn port_for(
        &self,
        request: &DeviceRequest,
        is_free: &dyn Fn(DeviceIndex) -> bool,
    ) -> Result<DeviceIndex, ConfigError> {
        let id = request.id.clone();
        match &request.bus {
            Some(bus) => self.root_port(bus).ok_or_else(|| {
                let (bus, ports) = (bus.clone(), self.root_ports.join(", "));
                ConfigError::NoSuchPort { id, bus, ports }
            }),
            None => {
                let mut ports = self.ports().map(|(index, _)| index);
                ports.find(|index| is_free(*index)).ok_or(ConfigError::NoFreePort { id, count: self.root_ports.len() })
            }
        }
    }

    /// Checks all of it.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.root_ports.len() > DEVICES_MAX {
            return Err(ConfigError::TooManyPorts { count: self.root_ports.len() });
        }
        if let Some(size_bytes) = self.windows_bytes.iter().copied().find(|size_bytes| !is_window_size(*size_bytes)) {
            return Err(ConfigError::WindowSize { size_bytes });
        }
        let size_bytes = self.window_bytes();
        if size_bytes == 0
            || self.window_base.checked_add(size_bytes).is_none()
            || self.memory_bytes > ADDRESS_LIMIT_BYTES
        {
            return Err(ConfigError::WindowSize { size_bytes });
        }
        for (index, id) in self.root_ports.iter().enumerate() {
            if !is_id(id) {
                return Err(ConfigError::Id { id: id.clone() });
            }
            if self.root_ports[..index].contains(id) {
                return Err(ConfigError::DuplicatePort { id: id.clone() });
            }
        }
        Ok(())
    }
}

fn is_window_size(size_bytes: u64) -> bool {
    size_bytes > 0 && size_bytes.is_multiple_of(CAPACITY_MULTIPLE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> DeviceRequest {
        DeviceRequest { id: "cxl-vmem0".into(), dc_regions_total_size_bytes: Some(4 << 30), ..DeviceRequest::default() }
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

    #[test]
    fn regions_follow_static_memory() {
        let asked = DeviceRequest {
            dc_regions_total_size_bytes: None,
            volatile_dc_memdev: Some("dc".into()),
            volatile_memdev: Some("fixed".into()),
            num_dc_regions: Some(2),
            ..request()
        };
        let sizes = |id: &str| match id {
            "dc" => Some(2 << 30),
            "fixed" => Some(256 << 20),
            _ => None,
        };
        let device = DeviceConfig::new(&asked, &sizes).unwrap();
        assert_eq!(device.regions[0].base, Dpa(256 << 20));
        assert_eq!(device.plain_offset(device.regions[1].base), 1 << 30);
        assert_eq!(device.memdevs().collect::<Vec<_>>(), [("volatile-memdev", "fixed"), ("volatile-dc-memdev", "dc")]);
        let error = DeviceConfig::lazy(&asked).unwrap_err().to_string();
        assert!(error.contains("volatile-memdev=fixed: there is no such backend"), "{error}");
        let both = DeviceRequest { dc_regions_total_size_bytes: Some(4 << 30), ..asked.clone() };
        assert!(DeviceConfig::new(&both, &sizes).unwrap_err().to_string().contains("exclude each other"));
        let neither = DeviceRequest { volatile_dc_memdev: None, ..asked.clone() };
        assert!(DeviceConfig::new(&neither, &sizes).unwrap_err().to_string().contains("have no size"));
        let same = DeviceRequest { volatile_memdev: Some("dc".into()), ..asked };
        assert!(DeviceConfig::new(&same, &sizes).unwrap_err().to_string().contains("two backends"));
        let rule = DeviceRequest { unique_tags: Some(true), ..request() };
        assert!(DeviceConfig::lazy(&rule).unwrap_err().to_string().contains("unique-tags"));
    }

    #[test]
    fn windows_follow_each_other() {
        let config = VmConfig {
            memory_bytes: 1 << 30,
            window_base: Hpa(0x1_1000_0000),
            windows_bytes: vec![1 << 30, 256 << 20],
            root_ports: vec!["rp0".into(), "rp1".into()],
        };
        config.check().unwrap();
        assert_eq!(config.windows().nth(1), Some((Hpa(0x1_5000_0000), 256 << 20)));
        let asked = DeviceRequest { bus: Some("rp1".into()), ..request() };
        assert_eq!(config.port_for(&asked, &|_| true), Ok(DeviceIndex(1)));
        assert_eq!(config.port_for(&request(), &|port| port.0 == 1), Ok(DeviceIndex(1)));
        assert!(config.port_for(&request(), &|_| false).is_err());
        let twice = VmConfig { root_ports: vec!["rp0".into(), "rp0".into()], ..config };
        assert!(twice.check().is_err());
    }
}
