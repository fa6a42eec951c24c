//! Routes: guest-physical addresses that a host bridge spreads over devices.
//!
//! Deliberately absent: the registers that program them.

use device::config::DeviceIndex;
use device::decode::Granularity;
use wire::Hpa;

/// Guest-physical addresses that a host bridge spreads over devices: granule by granule in the order of its targets
/// (CXL r4.0 8.2.4.20.7, 8.2.4.20.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    hpa: Hpa,
    size_bytes: u64,
    granularity: Granularity,
    targets: Vec<DeviceIndex>,
}

impl Route {
    /// A route over so many ways as there are targets. `None` without a target or a byte, or where the range leaves the
    /// address space. A target may be a device that is not there: then nobody answers in its ways.
    pub fn new(hpa: Hpa, size_bytes: u64, granularity: Granularity, targets: Vec<DeviceIndex>) -> Option<Self> {
        let is_range = size_bytes > 0 && hpa.checked_add(size_bytes).is_some();
        (is_range && !targets.is_empty()).then_some(Self { hpa, size_bytes, granularity, targets })
    }

    /// Whether two routes share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.hpa < other.end() && other.hpa < self.end()
    }

    pub(super) fn hpa(&self) -> Hpa {
        self.hpa
    }

    pub(super) fn end(&self) -> Hpa {
        Hpa(self.hpa.0 + self.size_bytes)
    }

    /// The device whose turn it is at `at`, and for how many bytes; `None` outside.
    pub(super) fn target(&self, at: Hpa) -> Option<(DeviceIndex, u64)> {
        let offset = at.bytes_from(self.hpa).filter(|offset| *offset < self.size_bytes)?;
        let left = self.size_bytes - offset;
        if let [only] = self.targets[..] {
            return Some((only, left));
        }
        let granule_bytes = u64::from(self.granularity.bytes());
        let way = (offset / granule_bytes % self.targets.len() as u64) as usize;
        Some((self.targets[way], left.min(granule_bytes - offset % granule_bytes)))
    }

    /// Whether all of a range is one device's.
    pub(super) fn leads_to(&self, device: DeviceIndex, start: Hpa, end: Hpa) -> bool {
        self.targets == [device] && self.hpa <= start && end <= self.end()
    }
}
