//! The bytes of a memory that one snapshot holds, and the one digest of them.
//!
//! ```text
//! digest = blake3( runs as encoded ‖ bytes of every run of data, ascending )
//! ```
//!
//! One digest for all, because pages are overwritten while they are copied, and one for each page would be as much as a
//! hundredth of the memory. Deliberately absent: what other snapshots of the chain hold.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::digest::Digest;
use crate::error::Damage;
use crate::pages::{self, CHUNK_BYTES};
use crate::runs::Runs;

/// A memory's bytes in a snapshot: its file, which holds them at their own places, and what of it counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layered<'a> {
    pub(crate) file: &'a File,
    pub(crate) runs: &'a Runs,
    pub(crate) len_bytes: u64,
}

impl Layered<'_> {
    /// Reads all that it holds, shows `sink` each piece of it with its offset, and gives the digest.
    pub(crate) fn read(&self, mut sink: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<Digest> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.runs.encode());
        let mut buffer = vec![0; CHUNK_BYTES];
        for chunk in self.runs.data().flat_map(|data| pages::chunks(data.clone())) {
            let bytes = pages::bytes(&chunk, self.len_bytes);
            let piece = &mut buffer[..(bytes.end - bytes.start) as usize];
            self.file.read_exact_at(piece, bytes.start)?;
            hasher.update(piece);
            sink(bytes.start, piece)?;
        }
        Ok(hasher.finalize().into())
    }

    /// Looks for bytes where it holds none: there the file must be zeros, as holes are.
    pub(crate) fn check_holes(&self) -> io::Result<Option<Damage>> {
        let mut buffer = vec![0; CHUNK_BYTES];
        for data in pages::data_ranges(self.file, self.len_bytes)? {
            for chunk in pages::chunks(pages::touched(&data)) {
                if let Some(damage) = self.check_chunk(chunk, &mut buffer)? {
                    return Ok(Some(damage));
                }
            }
        }
        Ok(None)
    }

    fn check_chunk(&self, chunk: std::ops::Range<u64>, buffer: &mut [u8]) -> io::Result<Option<Damage>> {
        let bytes = pages::bytes(&chunk, self.len_bytes);
        let piece = &mut buffer[..(bytes.end - bytes.start) as usize];
        self.file.read_exact_at(piece, bytes.start)?;
        for (page, held) in chunk.zip(piece.chunks(pages::PAGE_BYTES as usize)) {
            if !pages::is_zero(held) && !self.runs.has_data_in(&(page..page + 1)) {
                let at = held.iter().position(|byte| *byte != 0).unwrap_or_default();
                return Ok(Some(Damage::Stray { offset_bytes: page * pages::PAGE_BYTES + at as u64 }));
            }
        }
        Ok(None)
    }
}
