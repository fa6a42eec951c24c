//! A journal that was read, written again into a directory: frame for frame what it was.
//!
//! ```text
//! Recovered ─▶ frames, each in its own version ─▶ groups of some parts ─▶ store ─▶ one sync at the end
//! ```
//!
//! Deliberately absent: new times and sequences (an import is the same journal, its chain ends in the same link), and an
//! answer to anybody before the end: a directory that an import left half made has no whole journal and says so.

use std::path::Path;

use device::Seq;

use crate::{
    frame::{self, Chain},
    part::{self, PAYLOAD_LIMIT_BYTES},
    recover::{OpenError, Recovered},
    sled_store::SledStore,
    store::{Durability, Store, StoreError},
};

/// Frames are gathered to groups of about this many bytes.
const GROUP_LEN_BYTES: usize = 16 * PAYLOAD_LIMIT_BYTES;

/// Makes a journal in `dir` that holds exactly this, and returns the link of its last record.
///
/// # Errors
/// If there is a journal already, or the disk fails.
pub fn restore(dir: &Path, recovered: &Recovered) -> Result<Chain, OpenError> {
    restore_on(&mut SledStore::create(dir)?, recovered)
}

pub(crate) fn restore_on(store: &mut dyn Store, recovered: &Recovered) -> Result<Chain, OpenError> {
    let (mut group, mut first, mut chain) = (Vec::new(), Seq(0), Chain::default());
    for (seq, version, body) in recovered.bodies() {
        if group.is_empty() {
            first = seq;
        }
        chain = frame::encode(&mut group, chain, seq, version, body)?;
        if group.len() >= GROUP_LEN_BYTES {
            flush(store, first, &mut group)?;
        }
    }
    if !group.is_empty() {
        flush(store, first, &mut group)?;
    }
    store.sync(Durability::Disk)?;
    Ok(chain)
}

fn flush(store: &mut dyn Store, first: Seq, group: &mut Vec<u8>) -> Result<(), StoreError> {
    store.write(&part::cut(first, group))?;
    group.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory_store::MemoryDisk,
        recover::{Reading, Stored},
    };

    #[test]
    fn what_is_restored_is_what_was_read_versions_and_all() {
        let record = |seq, version, len| Stored { seq: Seq(seq), version, body: vec![seq as u8; len] };
        let records = vec![record(1, 0, 0), record(2, 1, 3 * GROUP_LEN_BYTES), record(3, 0, 90), record(4, 2, 7)];
        let recovered = Recovered {
            genesis: b"genesis".to_vec(),
            genesis_version: 1,
            base: None,
            records,
            last: Seq(4),
            torn: None,
        };
        let disk = MemoryDisk::default();
        let chain = restore_on(&mut *disk.store(), &recovered).expect("memory");
        let reading = Reading::of(&*disk.store());
        assert_eq!(reading.chain, chain);
        let (read, damage) = reading.into_recovered(|| "a test".to_owned()).expect("whole");
        assert!(damage.is_none());
        assert_eq!(read, recovered);
    }
}
