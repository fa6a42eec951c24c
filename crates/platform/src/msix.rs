//! The MSI-X table and its pending bits (PCI Express base, 7.7.2).
//!
//! ```text
//! 000 sixteen entries: address (8), data (4), vector control (4)      800 pending bits (8)
//! ```
//!
//! An interrupt that is masked waits in its pending bit until the mask goes; one that comes while MSI-X is off is lost,
//! as there is no legacy interrupt. Deliberately absent: who receives a message.

use device::config_space::{MSIX_PENDING_OFFSET, MSIX_TABLE_OFFSET};
use device::mailbox::{MSIX_TABLE_BYTES, MSIX_VECTORS, power_on_msix};
use wire::config_space::{MSIX_TABLE_ENTRY_LEN_BYTES, MSIX_VECTOR_MASKED};

use crate::dwords;
use crate::face::CommandedWrite;
use crate::saved::{LoadError, same_as_state};

const TABLE: u64 = MSIX_TABLE_OFFSET as u64;
const TABLE_END: u64 = TABLE + MSIX_TABLE_BYTES as u64;
const PENDING: u64 = MSIX_PENDING_OFFSET as u64;
const PENDING_END: u64 = PENDING + 8;
const _: () = assert!(MSIX_VECTORS < 64 && TABLE_END <= PENDING);

/// One message-signalled interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixMessage {
    /// The vector that was raised.
    pub vector: u8,
    /// Where the message is written.
    pub address: u64,
    /// What is written.
    pub data: u32,
}

/// What the function's MSI-X control register lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MsixGate {
    /// MSI-X is off.
    Off,
    /// All vectors are masked.
    Masked,
    /// Each vector's own mask decides.
    Open,
}

/// The table and the pending bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Msix {
    table: [u8; MSIX_TABLE_BYTES],
    pending: u64,
}

impl Msix {
    /// Every vector masked, none pending.
    pub(crate) fn new() -> Self {
        let mut msix = Self { table: [0; MSIX_TABLE_BYTES], pending: 0 };
        msix.restore(&power_on_msix());
        msix
    }

    /// A table and pending bits that were saved; `None` where no host can have written them so.
    pub(crate) fn of(table: [u8; MSIX_TABLE_BYTES], pending: u64) -> Option<Self> {
        let msix = Self { table, pending };
        let is_written = |at: usize| msix.dword(at as u64) & !writable(at as u64) == 0;
        ((0..MSIX_TABLE_BYTES).step_by(4).all(is_written) && pending >> MSIX_VECTORS == 0).then_some(msix)
    }

    /// The table, and the pending bits.
    pub(crate) fn parts(&self) -> (&[u8; MSIX_TABLE_BYTES], u64) {
        let Self { table, pending } = self;
        (table, *pending)
    }

    /// Whether saved registers are those of the device's state, which these show. Pending bits are no part of it.
    pub(crate) fn check(&self, saved: &Self) -> Result<(), LoadError> {
        let Self { table, pending: _ } = saved;
        let differs = table.iter().zip(&self.table).position(|(saved, here)| saved != here);
        differs.map_or(Ok(()), |at| {
            let at = at as u64 & !3;
            same_as_state("MSI-X table", TABLE + at, saved.dword(at), self.dword(at))
        })
    }

    /// A table from before this process began. One of another length is not taken.
    pub(crate) fn restore(&mut self, table: &[u8]) {
        if table.len() == self.table.len() {
            self.table.copy_from_slice(table);
        }
    }

    pub(crate) fn read(&self, offset: u64, to: &mut [u8]) {
        dwords::read(offset, to, |offset| match offset {
            TABLE..TABLE_END => self.dword(offset - TABLE),
            PENDING..PENDING_END => dwords::half(self.pending, offset),
            _ => 0,
        });
    }

    /// Writes to the table; what has changed comes back as it reads now.
    pub(crate) fn write(&mut self, offset: u64, from: &[u8]) -> Option<CommandedWrite> {
        let mut changed = false;
        for write in dwords::write(offset, from).filter(|write| (TABLE..TABLE_END).contains(&write.offset)) {
            let at = write.offset - TABLE;
            let old = self.dword(at);
            let new = write.merge(old, writable(at));
            self.table[at as usize..at as usize + 4].copy_from_slice(&new.to_le_bytes());
            changed |= new != old;
        }
        changed.then(|| {
            let mut value = [0; 8];
            self.read(offset, &mut value[..from.len()]);
            let value = u64::from_le_bytes(value);
            CommandedWrite::Msix { offset: (offset - TABLE) as u32, width: from.len() as u8, value }
        })
    }

    /// Raises a vector: its message, if it may leave now. There is none for a vector that the function does not have.
    pub(crate) fn raise(&mut self, vector: u8, gate: MsixGate) -> Option<MsixMessage> {
        let known = usize::from(vector) < MSIX_VECTORS;
        match gate {
            _ if !known => None,
            MsixGate::Off => None,
            MsixGate::Open if !self.is_masked(vector) => Some(self.message(vector)),
            MsixGate::Open | MsixGate::Masked => {
                self.pending |= 1 << vector;
                None
            }
        }
    }

    /// The messages of pending vectors that no mask holds any more.
    pub(crate) fn release(&mut self, gate: MsixGate) -> Vec<MsixMessage> {
        if gate != MsixGate::Open || self.pending == 0 {
            return Vec::new();
        }
        let vectors = (0..MSIX_VECTORS as u8).filter(|vector| self.pending >> vector & 1 != 0);
        let released: Vec<u8> = vectors.filter(|vector| !self.is_masked(*vector)).collect();
        released.iter().for_each(|vector| self.pending &= !(1 << vector));
        released.into_iter().map(|vector| self.message(vector)).collect()
    }

    fn is_masked(&self, vector: u8) -> bool {
        self.dword(entry(vector) + 12) & MSIX_VECTOR_MASKED != 0
    }

    fn message(&self, vector: u8) -> MsixMessage {
        let at = entry(vector);
        let address = u64::from(self.dword(at + 4)) << 32 | u64::from(self.dword(at));
        MsixMessage { vector, address, data: self.dword(at + 8) }
    }

    /// The dword at a multiple of 4 inside the table.
    fn dword(&self, at: u64) -> u32 {
        let bytes = self.table.get(at as usize..at as usize + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes)
    }
}

fn entry(vector: u8) -> u64 {
    u64::from(vector) * MSIX_TABLE_ENTRY_LEN_BYTES as u64
}

/// Messages go to dword addresses, and of vector control only the mask is there.
fn writable(at: u64) -> u32 {
    match at % MSIX_TABLE_ENTRY_LEN_BYTES as u64 {
        0 => !0b11,
        12 => MSIX_VECTOR_MASKED,
        _ => u32::MAX,
    }
}
