//! The dynamic capacity regions, read with 4800h and checked as Linux checks them.
//!
//! ```text
//! request: count, start ─▶ head (8), regions (28h each), tail (10h) ─▶ again from `start + returned` until all are here
//! ```
//!
//! Deliberately absent: what a region's memory is like (sharable, read only, non-volatile); that is in the CDAT.

use alloc::vec::Vec;
use core::mem::size_of;

use wire::{
    BlockSize, CAPACITY_MULTIPLE_BYTES, DcConfigurationTail, DcRegion, Dpa, GetDcConfigurationIn,
    GetDcConfigurationOut, Opcode,
};
use zerocopy::IntoBytes;

use crate::bus::Bus;
use crate::extents::DpaRange;
use crate::mailbox::{Mailbox, MailboxError};

/// Regions of a device at most.
pub const REGIONS_MAX: u8 = 8;

/// One region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its first address.
    pub base: Dpa,
    /// Addresses set aside for it, in bytes.
    pub decode_len_bytes: u64,
    /// Addresses that may be used, in bytes.
    pub len_bytes: u64,
    /// Its block size.
    pub block_size: BlockSize,
    /// Handle of its range in the CDAT.
    pub dsmad_handle: u8,
}

/// All regions and what the device can track in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DcConfiguration {
    /// The regions, by rising address; at least one.
    pub regions: Vec<Region>,
    /// Extents that the device can track.
    pub supported_extents: u32,
    /// Tags that the device can track.
    pub supported_tags: u32,
}

/// Why a device's dynamic capacity cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// The command failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The number of regions is none that a device can have, or changes, or cannot be read.
    #[error(
        "the device has {available} dynamic capacity regions and returned {returned} from index {start}: 1 to 8 are legal"
    )]
    Count {
        /// Regions that it says it has.
        available: u8,
        /// Regions that it returned.
        returned: u8,
        /// From where it was asked.
        start: usize,
    },
    /// A region breaks a rule.
    #[error(
        "dynamic capacity region {index} is not legal: {rule} (base {base}, decode {decode_multiples} x 256 MiB, {len_bytes:#x} bytes in blocks of {block_size_bytes:#x})"
    )]
    Region {
        /// Which region.
        index: usize,
        /// The rule.
        rule: &'static str,
        /// Its base.
        base: Dpa,
        /// Its decode length in units of 256 MiB.
        decode_multiples: u64,
        /// Its length in bytes.
        len_bytes: u64,
        /// Its block size in bytes.
        block_size_bytes: u64,
    },
    /// Dynamic capacity does not follow static capacity.
    #[error("dynamic capacity begins at {base}, but static capacity ends at {static_len_bytes:#x}")]
    NotBehindStatic {
        /// Where dynamic capacity begins.
        base: Dpa,
        /// Where static capacity ends.
        static_len_bytes: u64,
    },
}

impl DcConfiguration {
    /// Reads and checks all regions of a device with so much static capacity.
    pub fn read(bus: &mut dyn Bus, mailbox: &Mailbox, static_len_bytes: u64) -> Result<Self, ConfigurationError> {
        let mut raw = Vec::new();
        let tail = loop {
            let (available, tail) = read_page(bus, mailbox, &mut raw)?;
            if raw.len() >= usize::from(available) {
                break tail;
            }
        };
        let mut regions: Vec<Region> = Vec::new();
        for (index, region) in raw.iter().enumerate() {
            let below = regions.last().map_or(Some(Dpa(0)), Region::end);
            let region = Region::check(region, below).map_err(|rule| ConfigurationError::Region {
                index,
                rule,
                base: Dpa(region.base_dpa.get()),
                decode_multiples: region.decode_len_multiples.get(),
                len_bytes: region.len_bytes.get(),
                block_size_bytes: region.block_size_bytes.get(),
            })?;
            regions.push(region);
        }
        let (supported_extents, supported_tags) = (tail.supported_extents.get(), tail.supported_tags.get());
        let configuration = Self { regions, supported_extents, supported_tags };
        let base = configuration.base();
        if base.0 != static_len_bytes {
            return Err(ConfigurationError::NotBehindStatic { base, static_len_bytes });
        }
        Ok(configuration)
    }

    /// Where dynamic capacity begins.
    pub fn base(&self) -> Dpa {
        self.regions.first().map_or(Dpa(0), |region| region.base)
    }

    /// From the first region's base to the last one's decoded end, in bytes.
    pub fn decode_len_bytes(&self) -> u64 {
        let end = self.regions.last().and_then(Region::end);
        end.and_then(|end| end.bytes_from(self.base())).unwrap_or(0)
    }

    /// The region that holds a whole range.
    pub fn region_of(&self, range: DpaRange) -> Option<&Region> {
        self.regions.iter().find(|region| DpaRange { start: region.base, len_bytes: region.len_bytes }.holds(range))
    }

    /// Whether a range can be an extent: whole blocks of one region.
    pub fn can_hold(&self, range: DpaRange) -> bool {
        let is_whole =
            |region: &Region| region.block_size.divides(range.start.0) && region.block_size.divides(range.len_bytes);
        self.region_of(range).is_some_and(is_whole)
    }
}

/// Appends the next regions; how many there are in all, and the tail.
fn read_page(
    bus: &mut dyn Bus,
    mailbox: &Mailbox,
    raw: &mut Vec<DcRegion>,
) -> Result<(u8, DcConfigurationTail), ConfigurationError> {
    // A small payload area holds fewer than eight regions.
    let fit = mailbox.capacity::<(GetDcConfigurationOut, DcConfigurationTail), DcRegion>();
    let start = raw.len();
    let asked = usize::from(REGIONS_MAX).saturating_sub(start).min(fit);
    let request = GetDcConfigurationIn { region_count: asked as u8, start_region: start as u8 };
    let answer = mailbox.send(bus, Opcode::GET_DC_CONFIGURATION, request.as_bytes())?;
    let (head, rest) = answer.head::<GetDcConfigurationOut>()?;
    let (available, returned) = (head.available_regions, head.returned_regions);
    answer.at_most(asked, returned.into())?;
    if !(1..=REGIONS_MAX).contains(&available) || returned == 0 || start + usize::from(returned) > available.into() {
        return Err(ConfigurationError::Count { available, returned, start });
    }
    let (regions, rest) = answer.list::<DcRegion>(rest, returned.into())?;
    raw.extend_from_slice(regions);
    let (tail, _) = answer.list::<DcConfigurationTail>(rest, 1)?;
    Ok((available, tail.first().copied().unwrap_or_default()))
}

const _: () = assert!(size_of::<(GetDcConfigurationOut, DcConfigurationTail)>() == 24);

impl Region {
    /// Behind the last decoded address.
    pub fn end(&self) -> Option<Dpa> {
        self.base.checked_add(self.decode_len_bytes)
    }

    /// A region that begins at `below` or above, or the rule that it breaks.
    fn check(raw: &DcRegion, below: Option<Dpa>) -> Result<Self, &'static str> {
        let rule = |holds: bool, rule: &'static str| if holds { Ok(()) } else { Err(rule) };
        let block_size = BlockSize::new(raw.block_size_bytes.get())
            .map_err(|_| "the block size must be a power of two of at least 64 bytes")?;
        let decode_len_bytes = raw.decode_len_multiples.get().checked_mul(CAPACITY_MULTIPLE_BYTES);
        let decode_len_bytes = decode_len_bytes.ok_or("the decode length must fit into 64 bits")?;
        let (base, len_bytes) = (Dpa(raw.base_dpa.get()), raw.len_bytes.get());
        let dsmad_handle = u8::try_from(raw.dsmad_handle.get()).map_err(|_| "the DSMAD handle must fit into a byte")?;
        rule(below.is_some_and(|below| below <= base), "regions must not overlap and must rise")?;
        rule(base.0.is_multiple_of(CAPACITY_MULTIPLE_BYTES), "the base must be a multiple of 256 MiB")?;
        rule(block_size.divides(base.0), "the base must be a multiple of the block size")?;
        rule(len_bytes > 0 && len_bytes <= decode_len_bytes, "the length must be from 1 to the decode length")?;
        rule(block_size.divides(len_bytes), "the length must be a multiple of the block size")?;
        let region = Self { base, decode_len_bytes, len_bytes, block_size, dsmad_handle };
        rule(region.end().is_some(), "the region must end inside the address space")?;
        Ok(region)
    }
}
