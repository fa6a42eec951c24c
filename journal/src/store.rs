//! Where parts are kept: the one seam between the journal and a disk, small because tests put a faulty disk there.
//!
//! ```text
//! write(parts) ─▶ in the store, perhaps only in its memory ─▶ sync(Process) ─▶ with the kernel ─▶ sync(Disk) ─▶ on disk
//! ```
//!
//! Parts are written in the order of their keys, and the writes between two syncs may reach the disk in part only, as a
//! prefix. Absent on purpose: reading one part (a journal is read whole), transactions (a group is whole once its last
//! part is there), and any knowledge of what a part holds.

use std::{io, path::PathBuf};

use device::Seq;

use crate::frame::FrameError;

/// When a record counts as durable, so that what follows from it may leave the process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// On disk: survives a power cut.
    #[default]
    Disk,
    /// With the kernel: survives the process (also `kill -9`), not a power cut.
    Process,
    /// At once: the keeper writes it later, in the background.
    None,
}

/// The place of one part: ordered by the group, then by the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Sequence of the first record in the part's group.
    pub first: Seq,
    /// Number of the part in its group, from 0.
    pub part: u32,
}

impl Key {
    /// Bytes of a stored key.
    pub const LEN_BYTES: usize = 12;

    /// The stored form: sequence u64, part u32, both big-endian so that stores which order bytes order parts.
    pub fn to_bytes(self) -> [u8; Self::LEN_BYTES] {
        let mut bytes = [0; Self::LEN_BYTES];
        bytes[..8].copy_from_slice(&self.first.0.to_be_bytes());
        bytes[8..].copy_from_slice(&self.part.to_be_bytes());
        bytes
    }

    /// The key that these bytes are, unless they are of another length.
    pub fn from_bytes(bytes: &[u8]) -> Result<Key, StoreError> {
        let (Some((first, part)), Self::LEN_BYTES) = (bytes.split_first_chunk(), bytes.len()) else {
            return Err(StoreError::ForeignKey { len_bytes: bytes.len() });
        };
        let part = part.first_chunk().copied().unwrap_or_default();
        Ok(Key { first: Seq(u64::from_be_bytes(*first)), part: u32::from_be_bytes(part) })
    }
}

/// Parts in the order of their keys, or what stopped the reading of them.
pub type Scan<'a> = Box<dyn Iterator<Item = Result<(Key, Vec<u8>), StoreError>> + 'a>;

/// A place that keeps parts. Any error is final for the journal that uses it.
pub trait Store: Send {
    /// Takes in parts, ascending by key; they need not be durable yet.
    fn write(&mut self, parts: &[(Key, Vec<u8>)]) -> Result<(), StoreError>;

    /// Takes parts out; those that are not there are no error.
    fn remove(&mut self, keys: &[Key]) -> Result<(), StoreError>;

    /// Returns when everything written and removed so far is as durable as asked.
    fn sync(&mut self, durability: Durability) -> Result<(), StoreError>;

    /// Every part, ascending by key.
    fn scan(&self) -> Scan<'_>;

    /// What this store is, for messages: a directory or a name.
    fn place(&self) -> String;
}

/// What a store may fail with.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("could not {doing} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system refused something about a file that is not a live journal's.
    #[error("could not {doing} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// sled refused.
    #[error("sled could not {doing} {}: {source}; nothing after the last durable record is kept: look at the disk, then start again", path.display())]
    Sled {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The database's directory.
        path: PathBuf,
        /// What sled said.
        source: sled::Error,
    },
    /// Code below the store panicked.
    #[error("{place} failed while it should {doing}: panic: {message}; keep a copy of it, then start again")]
    Panicked {
        /// What was being done, as a verb.
        doing: &'static str,
        /// The store, as [`Store::place`] names it.
        place: String,
        /// The panic's message.
        message: String,
    },
    /// The store holds an entry that no journal wrote.
    #[error(
        "a key of {len_bytes} bytes is no journal's, whose keys have {}: is this the right directory?",
        Key::LEN_BYTES
    )]
    ForeignKey {
        /// The key's length.
        len_bytes: usize,
    },
    /// A record does not fit into a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A faulty disk in a test did as it was told.
    #[error("the {nth}. {call} fails, as the test asked")]
    Injected {
        /// Which call failed, from 1.
        nth: u64,
        /// `write` or `sync`.
        call: &'static str,
    },
}

/// The message that a panic carried.
pub(crate) fn panic_message(panic: &(dyn core::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_order_as_their_bytes_do() {
        let keys = [(0, 0), (0, 300), (1, 0), (255, 1), (256, 0), (u64::MAX, u32::MAX)];
        let keys = keys.map(|(first, part)| Key { first: Seq(first), part });
        for pair in keys.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
        }
        for key in keys {
            assert_eq!(Key::from_bytes(&key.to_bytes()).expect("its own bytes"), key);
        }
    }

    #[test]
    fn keys_of_another_length_are_refused() {
        for len in [0, 7, 8, 11, 13] {
            assert!(
                matches!(Key::from_bytes(&vec![0; len]), Err(StoreError::ForeignKey { len_bytes }) if len_bytes == len)
            );
        }
    }
}
