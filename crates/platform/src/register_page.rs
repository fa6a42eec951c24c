//! The registers of the device block as memory: what a guest reads there is what an access would give.
//!
//! ```text
//!  registers ──show──▶ page ◀── guest, without an exit
//!             8 bytes, one store each; the word with the doorbell last
//! ```
//!
//! A guest that sees the doorbell clear sees the answer too: its payload, its status and its length were stored before.
//! Deliberately absent: stores by a guest; its slot is read-only, so that they are exits.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use device::config_space::PAYLOAD_OFFSET;
use memory::{HostMemory, HostMemoryError};

/// Bytes of a word.
const WORD: usize = size_of::<u64>();
const LEN: usize = PAYLOAD_OFFSET as usize;

/// The page in front of the payload area.
#[derive(Debug)]
pub(crate) struct RegisterPage {
    memory: Arc<HostMemory>,
}

impl RegisterPage {
    /// A page of zeros.
    pub(crate) fn new() -> Result<Self, HostMemoryError> {
        Ok(Self { memory: Arc::new(HostMemory::anonymous(PAYLOAD_OFFSET)?) })
    }

    pub(crate) fn memory(&self) -> &Arc<HostMemory> {
        &self.memory
    }

    /// Shows all registers; `read` fills bytes from an offset on.
    pub(crate) fn show_all(&self, read: impl Fn(u64, &mut [u8])) {
        let mut bytes = [0; LEN];
        read(0, &mut bytes);
        for (index, word) in bytes.chunks_exact(WORD).enumerate() {
            self.show((index * WORD) as u64, word.try_into().map_or(0, u64::from_le_bytes));
        }
    }

    /// Shows the word at `offset`, a multiple of 8.
    pub(crate) fn show(&self, offset: u64, word: u64) {
        // A word that shows it already is not stored again: the guest's processors keep it in their caches. Inside the
        // page, neither can be out of range.
        if self.memory.read_u64(offset) != Ok(word) {
            self.memory.write_u64(offset, word).ok();
        }
    }

    /// Shows a word after everything that was stored before, by whatever way.
    pub(crate) fn show_last(&self, offset: u64, word: u64) {
        fence(Ordering::Release);
        self.show(offset, word);
    }
}
