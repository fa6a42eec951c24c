//! Reading the device's list of accepted extents with 4801h.
//!
//! ```text
//! count, start ─▶ returned, total, generation, extents ─▶ next start ... ─▶ total reached
//!                 total or generation not as before ─▶ from the start again, ten times at most
//! ```
//!
//! An extent that is outside the regions, or overlaps another, makes the whole list unusable: a host must not touch
//! what it cannot tell apart. Deliberately absent: taking a part of a list.

use alloc::vec::Vec;

use wire::{GetDcExtentListIn, GetDcExtentListOut, Opcode, RawExtent, ReturnCode};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U32;

use crate::bus::Bus;
use crate::extents::{DpaRange, Extent};
use crate::mailbox::{Mailbox, MailboxError};
use crate::regions::DcConfiguration;

/// How often a list is read from the start, as in Linux.
pub const ATTEMPTS: usize = 10;

/// Why a list cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtentListError {
    /// A command failed.
    #[error(transparent)]
    Mailbox(#[from] MailboxError),
    /// The list changed each time while it was read.
    #[error("the extent list changed while it was read, {ATTEMPTS} times in a row")]
    KeepsChanging,
    /// A page is empty, or goes past the total.
    #[error("the extent list has {total} extents, but from index {start} on {returned} were returned")]
    Page {
        /// From where it was asked.
        start: u32,
        /// What came.
        returned: u32,
        /// How many there are.
        total: u32,
    },
    /// The list is longer than the device can track.
    #[error("the extent list has {total} extents, but the device says it tracks {supported} at most")]
    TooLong {
        /// How many there are.
        total: u32,
        /// How many there can be.
        supported: u32,
    },
    /// An extent is not where capacity can be.
    #[error("the extent list names {range}, which is empty, misaligned, or outside every dynamic capacity region")]
    Outside {
        /// The extent.
        range: DpaRange,
    },
    /// Two extents overlap.
    #[error("the extent list names {range} and {other}, which overlap")]
    Overlap {
        /// One of them.
        range: DpaRange,
        /// The other.
        other: DpaRange,
    },
}

impl ExtentListError {
    fn is_refusal(&self, code: ReturnCode) -> bool {
        matches!(self, Self::Mailbox(error) if error.refusal() == Some(code))
    }
}

/// What a page said about the whole list.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Edition {
    total: u32,
    generation: u32,
}

/// Reads the whole list.
pub fn read(bus: &mut dyn Bus, mailbox: &Mailbox, dc: &DcConfiguration) -> Result<Vec<Extent>, ExtentListError> {
    for _ in 0..ATTEMPTS {
        if let Some(extents) = read_edition(bus, mailbox, dc)? {
            check(&extents, dc)?;
            return Ok(extents);
        }
    }
    Err(ExtentListError::KeepsChanging)
}

/// Reads from the start; `None` if the list changed on the way.
fn read_edition(
    bus: &mut dyn Bus,
    mailbox: &Mailbox,
    dc: &DcConfiguration,
) -> Result<Option<Vec<Extent>>, ExtentListError> {
    let supported = dc.supported_extents;
    let mut extents = Vec::new();
    let mut first = None;
    loop {
        let start = extents.len() as u32;
        let (edition, page) = match read_page(bus, mailbox, start) {
            // The list has become shorter than what was read of it.
            Err(error) if start > 0 && error.is_refusal(ReturnCode::InvalidInput) => return Ok(None),
            page => page?,
        };
        if *first.get_or_insert(edition) != edition {
            return Ok(None);
        }
        let total = edition.total;
        if total > supported {
            return Err(ExtentListError::TooLong { total, supported });
        }
        extents.extend(page);
        if extents.len() >= total as usize {
            return Ok(Some(extents));
        }
    }
}

fn read_page(bus: &mut dyn Bus, mailbox: &Mailbox, start: u32) -> Result<(Edition, Vec<Extent>), ExtentListError> {
    // As many as fit: Linux before version 11 of its series asked for more, and a device must cope, but need not.
    let asked = mailbox.capacity::<GetDcExtentListOut, RawExtent>();
    let request = GetDcExtentListIn { count: U32::new(asked as u32), start: U32::new(start) };
    let answer = mailbox.send(bus, Opcode::GET_DC_EXTENT_LIST, request.as_bytes())?;
    let (head, rest) = answer.head::<GetDcExtentListOut>()?;
    let (returned, total) = (head.returned.get(), head.total.get());
    answer.at_most(asked, returned as usize)?;
    let left = total.saturating_sub(start);
    if returned > left || (returned == 0 && left > 0) {
        return Err(ExtentListError::Page { start, returned, total });
    }
    let (page, _) = answer.list::<RawExtent>(rest, returned as usize)?;
    Ok((Edition { total, generation: head.generation.get() }, page.iter().map(Extent::from).collect()))
}

fn check(extents: &[Extent], dc: &DcConfiguration) -> Result<(), ExtentListError> {
    let mut ranges: Vec<DpaRange> = extents.iter().map(Extent::range).collect();
    if let Some(range) = ranges.iter().copied().find(|range| !dc.can_hold(*range)) {
        return Err(ExtentListError::Outside { range });
    }
    ranges.sort_unstable();
    for (range, other) in ranges.iter().zip(ranges.iter().skip(1)) {
        if range.overlaps(*other) {
            return Err(ExtentListError::Overlap { range: *range, other: *other });
        }
    }
    Ok(())
}
