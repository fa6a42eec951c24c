//! Verifying: every byte of a snapshot and of all below it.
//!
//! ```text
//!  each of the chain: manifest again ─ runs again ─ each part unpacked ─ each contents: digest, and zeros where it holds none
//! ```
//!
//! Deliberately absent: files that the manifest does not know; they are nobody's.

use std::sync::Arc;

use crate::contents::Layered;
use crate::error::{Damage, SnapshotError};
use crate::layer::{Layer, open_dir};
use crate::manifest::{Contents, FILE, PARTS_FILE};
use crate::packed::Kind;
use crate::snapshot::Snapshot;

impl Snapshot {
    /// Reads all of it from the disk again, and of every snapshot below it. `progress` hears bytes of memories that are done
    /// and bytes in all.
    ///
    /// # Errors
    ///
    /// The first that is wrong: [`SnapshotError::Damaged`] or [`SnapshotError::File`] name the snapshot and the file.
    pub fn verify(&self, progress: &mut dyn FnMut(u64, u64)) -> Result<(), SnapshotError> {
        let total = self.layers.iter().map(|layer| data_bytes(layer)).sum();
        let mut done = 0;
        let mut again = Vec::new();
        for layer in self.layers.iter() {
            let name = layer.name();
            let reread = Layer::read(open_dir(&self.store, name)?, name)?;
            if reread.manifest != layer.manifest {
                return Err(reread.damaged(FILE, Damage::Says("it was replaced while it was open".into())));
            }
            verify_layer(&reread, &mut |bytes| {
                done += bytes;
                progress(done, total);
            })?;
            again.push(Arc::new(reread));
        }
        Snapshot::of(&self.store, again).map(drop)
    }
}

fn data_bytes(layer: &Layer) -> u64 {
    let memories = layer.manifest.memories.iter();
    memories.filter_map(|memory| Some(layer.runs(&memory.id)?.data_bytes(memory.len_bytes))).sum()
}

fn verify_layer(layer: &Layer, done: &mut dyn FnMut(u64)) -> Result<(), SnapshotError> {
    let (file, index) = layer.open_packed(Kind::Parts)?;
    for info in index.infos() {
        index.part(&file, &info.name).map_err(|why| layer.unusable(PARTS_FILE, why))?;
    }
    for memory in &layer.manifest.memories {
        let (Contents::Copied(_), Some(runs)) = (&memory.contents, layer.runs(&memory.id)) else { continue };
        let file = layer.read_contents(memory, runs, |_, piece| {
            done(piece.len() as u64);
            Ok(())
        })?;
        let name = memory.id.file_name();
        let layered = Layered { file: &file, runs, len_bytes: memory.len_bytes };
        if let Some(damage) = layered.check_holes().map_err(layer.failed(&name, "read"))? {
            return Err(layer.damaged(&name, damage));
        }
    }
    Ok(())
}
