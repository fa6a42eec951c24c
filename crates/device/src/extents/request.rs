//! What the operator asks of the extent manager: add, release (CXL r4.0 7.6.7.6.5 and 7.6.7.6.6, by QMP).

use serde::{Deserialize, Serialize};
use wire::{Dpa, Tag};

use crate::config::{DeviceConfig, RegionConfig};
use crate::range::{DpaRange, first_overlap};
use crate::refusal::Refusal;

/// How the device chooses the blocks of an add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SelectionPolicy {
    /// Any blocks.
    Free,
    /// One extent anywhere.
    Contiguous,
    /// The given extents.
    Prescriptive,
    /// The memory of an existing tag.
    EnableSharedAccess,
}

/// How the device finds what is to be released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemovalPolicy {
    /// Everything that has the tag; a list of extents is ignored.
    TagBased,
    /// The given extents.
    Prescriptive,
}

/// Whether the host is asked or overruled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Removal {
    /// The host decides when it gives back.
    Requested,
    /// The host loses access at once.
    Forced,
}

/// Whether released memory is cleared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sanitize {
    /// The bytes stay.
    Keep,
    /// The bytes are cleared before any other use.
    OnRelease,
}

/// An extent as a request names it: relative to its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct RegionRange {
    /// Offset from the region's base in bytes.
    pub offset: u64,
    /// Length in bytes.
    pub len_bytes: u64,
}

/// `cxl-add-dynamic-capacity`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct AddRequest {
    /// The head; only 0 exists.
    pub host_id: u16,
    /// How blocks are chosen.
    pub policy: SelectionPolicy,
    /// The region.
    pub region: u8,
    /// The tag.
    pub tag: Tag,
    /// The extents, in the order in which the backend stands behind them.
    pub extents: Vec<RegionRange>,
}

/// `cxl-release-dynamic-capacity`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct ReleaseRequest {
    /// The head; only 0 exists.
    pub host_id: u16,
    /// How the extents are found.
    pub policy: RemovalPolicy,
    /// Whether the host is asked or overruled.
    pub removal: Removal,
    /// Whether the memory is cleared.
    pub sanitize: Sanitize,
    /// The region.
    pub region: u8,
    /// The tag.
    pub tag: Tag,
    /// The extents; ignored where the policy is tag-based.
    pub extents: Vec<RegionRange>,
}

impl ReleaseRequest {
    /// The host is asked for all that it has with a tag; the bytes stay.
    pub fn by_tag(region: u8, tag: Tag) -> Self {
        Self {
            host_id: 0,
            policy: RemovalPolicy::TagBased,
            removal: Removal::Requested,
            sanitize: Sanitize::Keep,
            region,
            tag,
            extents: Vec::new(),
        }
    }
}

/// Checks head and region, which every request names.
pub(super) fn region_of(config: &DeviceConfig, host_id: u16, region: u8) -> Result<&RegionConfig, Refusal> {
    if host_id != 0 {
        return Err(Refusal::Host { host_id });
    }
    let count = config.regions.len() as u8;
    config.regions.get(usize::from(region)).ok_or(Refusal::Region { region, count })
}

/// The device addresses of a request's extents, each checked on its own and against the others.
pub(super) fn ranges_of(region: u8, config: &RegionConfig, extents: &[RegionRange]) -> Result<Vec<DpaRange>, Refusal> {
    if extents.is_empty() {
        return Err(Refusal::NoExtents);
    }
    let ranges = (0u32..)
        .zip(extents)
        .map(|(index, extent)| range_of(region, config, index, *extent))
        .collect::<Result<Vec<_>, _>>()?;
    match first_overlap(&ranges) {
        Some((first, second)) => Err(Refusal::Overlap { first, second }),
        None => Ok(ranges),
    }
}

fn range_of(region: u8, config: &RegionConfig, index: u32, extent: RegionRange) -> Result<DpaRange, Refusal> {
    let RegionRange { offset, len_bytes } = extent;
    if len_bytes == 0 {
        return Err(Refusal::ZeroLength { index, offset });
    }
    if !config.block.divides(offset) || !config.block.divides(len_bytes) {
        return Err(Refusal::Alignment { index, offset, len_bytes, block_bytes: config.block.bytes() });
    }
    let fits = offset.checked_add(len_bytes).is_some_and(|end| end <= config.len_bytes);
    let beyond = Refusal::BeyondRegion { index, offset, len_bytes, region, region_bytes: config.len_bytes };
    let start = Dpa(config.base.0.checked_add(offset).ok_or(beyond.clone())?);
    DpaRange::new(start, len_bytes).filter(|_| fits).ok_or(beyond)
}
