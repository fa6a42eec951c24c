//! Turning MSI-X on: masked as a whole, every entry filled, then let go.
//!
//! Deliberately absent: MSI and legacy interrupts, masks of single entries, more entries than the message number of an
//! event log can name.

use wire::Hpa;
use wire::config_space::{
    BarOffset, CAPABILITY_MSIX, MSIX_CONTROL, MSIX_TABLE, MSIX_TABLE_ENTRY_LEN_BYTES, MsixControl,
};

use crate::bus::{Bdf, Bus, Width};
use crate::capabilities::capability;
use crate::discover::CxlFunction;

/// Entries that are used at most: a message number has four bits.
pub const ENTRIES_MAX: u16 = 16;

/// Why a function's interrupts cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MsixError {
    /// There is no MSI-X capability.
    #[error("{at} has no MSI-X capability, so it could not tell that it offers capacity")]
    Absent {
        /// The function.
        at: Bdf,
    },
    /// The table is outside the BAR that holds it.
    #[error(
        "the MSI-X table of {at} has {entries} entries at {offset_bytes:#x} in BAR {bar}, which does not reach there"
    )]
    TableOutsideBar {
        /// The function.
        at: Bdf,
        /// The BAR.
        bar: u8,
        /// Where the table is said to begin.
        offset_bytes: u32,
        /// How many entries it has.
        entries: u16,
    },
}

/// Fills the table and turns MSI-X on; the number of entries that can be named.
pub fn enable(bus: &mut dyn Bus, function: &CxlFunction) -> Result<u16, MsixError> {
    let at = function.bdf;
    let offset = capability(bus, at, CAPABILITY_MSIX).ok_or(MsixError::Absent { at })?;
    let control = MsixControl::from(bus.config_read(at, offset + MSIX_CONTROL, Width::Word) as u16);
    let entries = control.table_size_less_one() + 1;
    let table = BarOffset::from(bus.config_read(at, offset + MSIX_TABLE, Width::Dword));
    let (bar, offset_bytes) = (table.bir(), table.offset_bytes());
    let table_len_bytes = u64::from(entries) * MSIX_TABLE_ENTRY_LEN_BYTES as u64;
    let table = function.bars.get(bar).and_then(|bar| bar.part(offset_bytes.into(), table_len_bytes));
    let table = table.ok_or(MsixError::TableOutsideBar { at, bar, offset_bytes, entries })?;
    let masked = control.with_enable(true).with_function_mask(true);
    bus.config_write(at, offset + MSIX_CONTROL, Width::Word, u16::from(masked).into());
    let used = entries.min(ENTRIES_MAX);
    (0..used).for_each(|entry| fill(bus, at, table.base, entry));
    let open = masked.with_function_mask(false);
    bus.config_write(at, offset + MSIX_CONTROL, Width::Word, u16::from(open).into());
    Ok(used)
}

/// Entries are written a dword at a time, which every table takes.
fn fill(bus: &mut dyn Bus, at: Bdf, table: Hpa, entry: u16) {
    let message = bus.msix_message(at, entry);
    let base = table.0 + u64::from(entry) * MSIX_TABLE_ENTRY_LEN_BYTES as u64;
    let unmasked = 0;
    let dwords = [message.address as u32, (message.address >> 32) as u32, message.data, unmasked];
    for (index, dword) in (0..).zip(dwords) {
        bus.write32(Hpa(base + 4 * index), dword);
    }
}
