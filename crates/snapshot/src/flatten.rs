//! Flattening: a snapshot of a chain gets all of its bytes itself, and needs none below it any more.
//!
//! ```text
//!  NAME.part: what shows of the chain, copied or its blocks shared ─▶ finished as any draft is
//!      ─▶ its digests are those of the same bytes of the chain, and every byte of the chain is what was written
//!      ─▶ NAME ⇄ NAME.part, in one step ─▶ NAME.part, which is the old one now, is removed
//! ```
//!
//! Another id follows from another manifest. Those that stand on the snapshot name its old one, so it says that, too. They are
//! locked with it while the names change, since who reads them reads it. Deliberately absent: flattening of several at once.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::digest::Digest;
use crate::dir::{Dir, Locked};
use crate::draft::Draft;
use crate::error::{Damage, SnapshotError};
use crate::finish::Step;
use crate::layer::{Layer, failed_at, open_dir, read_manifest};
use crate::manifest::{Base, Contents, FORMERLY, Manifest, Memory};
use crate::name::SnapshotName;
use crate::overlay::{Held, Shown, held, shown};
use crate::pages::{self, CHUNK_BYTES};
use crate::removal;
use crate::runs::Runs;
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreLock};
use crate::writer::ContentsWriter;

/// Who hears how far it is.
type Progress<'a> = &'a mut dyn FnMut(Step);

impl Store {
    /// Makes a snapshot independent of those below it: its memories have the same bytes as before, all of them in its own files,
    /// which share blocks with those that they are from where the file system can. What is built on it stays so. One that is
    /// independent stays as it is.
    ///
    /// # Errors
    ///
    /// What is wrong with the chain; [`SnapshotError::Foreign`] if there is anything of somebody's in its directory;
    /// [`SnapshotError::InUse`] if it or one that is built on it is open, or
    /// [`SnapshotError::BeingWritten`]; [`SnapshotError::Replaced`]; [`SnapshotError::File`] with what the host said. It is as
    /// it was then, but where only the last sync failed.
    pub fn flatten(&self, name: &SnapshotName, progress: Progress<'_>) -> Result<Snapshot, SnapshotError> {
        let chain = self.snapshot(name)?;
        if chain.manifest().parent.is_none() {
            return Ok(chain);
        }
        // It goes at the end, and nothing of somebody's with it.
        removal::check(&chain.top().dir)?;
        let mut draft = self.begin_again(name)?;
        draft.repeat(&chain)?;
        let (writers, expected) = draft.copy_of(&chain, progress)?;
        let written = draft.write(writers, progress)?;
        for (entry, expected) in written.iter().zip(expected) {
            if entry.digest != expected {
                let (snapshot, file) = (name.to_string(), entry.name.clone());
                let damage = Damage::Digest { found: entry.digest, expected };
                return Err(SnapshotError::Damaged { snapshot, file, damage });
            }
        }
        // Behind it, so that it was whole all the while.
        chain.verify(&mut |done_bytes, total_bytes| progress(Step::Chain { done_bytes, total_bytes }))?;
        progress(Step::Name);
        draft.take_place(self, chain, progress)
    }
}

impl Draft {
    /// Says all that a snapshot says.
    fn repeat(&mut self, snapshot: &Snapshot) -> Result<(), SnapshotError> {
        self.created_ms = Some(snapshot.manifest().created_ms);
        for (key, text) in snapshot.about().iter().filter(|(key, _)| key != FORMERLY) {
            self.say(key, text)?;
        }
        self.say(FORMERLY, &snapshot.id().to_string())?;
        let names: Vec<_> = snapshot.parts().map(|info| info.name.clone()).collect();
        names.iter().try_for_each(|name| {
            let part = snapshot.part(name)?;
            self.part(name, part.version, part.bytes)
        })
    }

    /// Takes in what shows of each memory, and says the digest that it has to have.
    fn copy_of(
        &mut self,
        chain: &Snapshot,
        progress: Progress<'_>,
    ) -> Result<(Vec<ContentsWriter>, Vec<Digest>), SnapshotError> {
        let (mut writers, mut digests) = (Vec::new(), Vec::new());
        for memory in chain.memories() {
            let Memory { id, len_bytes, contents } = memory;
            match contents {
                Contents::Reference { path } => self.reference(id, *len_bytes, path)?,
                Contents::Copied(_) => {
                    let held = held(chain, id);
                    let through = Through { memory, shown: shown(&held), held };
                    let mut writer = self.contents(id, *len_bytes, Base::Zeros)?;
                    through.copy(&mut writer)?;
                    digests.push(through.digest(&Runs::of(&writer.runs), progress)?);
                    writers.push(writer);
                }
            }
        }
        Ok((writers, digests))
    }

    /// Gives it the name of the snapshot that it is written for, which goes.
    fn take_place(self, store: &Store, old: Snapshot, progress: Progress<'_>) -> Result<Snapshot, SnapshotError> {
        let Self { name, mut half, .. } = self;
        let lock = StoreLock::take(&half.store)?;
        let was = old.manifest().clone();
        // It holds a lock for many, beside which there is none for one.
        drop(old);
        let old = hold(&half.store, &name)?;
        check_same(&was, &read_manifest(&old, &name)?)?;
        removal::check(&old)?;
        let above = store.all_on(&was)?;
        let above = above.iter().map(|name| hold(&half.store, name)).collect::<Result<Vec<_>, _>>()?;
        half.share(&name)?;
        half.store.exchange(&half.name, name.as_str()).map_err(failed_at(&name, old.path(), "exchange"))?;
        // From here on the old one is what goes with the draft.
        let dir = half.dir.replace(old);
        progress(Step::Sync);
        half.store.sync().map_err(failed_at(&name, half.store.path(), "sync"))?;
        drop((above, lock));
        let place = Arc::clone(&half.store);
        drop(half);
        let dir = dir.map_or_else(|| open_dir(&place, &name), Ok)?;
        tracing::info!(snapshot = %name, "flattened a snapshot");
        Snapshot::of(&place, vec![Arc::new(Layer::read(dir, &name)?)])
    }
}

/// Takes the lock for one of a snapshot.
fn hold(store: &Dir, name: &SnapshotName) -> Result<Dir, SnapshotError> {
    let dir = open_dir(store, name)?;
    match dir.lock_unless_held().map_err(failed_at(name, dir.path(), "lock"))? {
        Locked::Yes => Ok(dir),
        Locked::No => Err(SnapshotError::InUse { snapshot: name.to_string() }),
    }
}

/// Nobody in this house replaces one that is open; but people move directories.
fn check_same(was: &Manifest, is: &Manifest) -> Result<(), SnapshotError> {
    if was.id == is.id {
        return Ok(());
    }
    Err(SnapshotError::Replaced { snapshot: was.name.to_string(), was: was.id, is: is.id })
}

/// A memory through a chain.
struct Through<'a> {
    memory: &'a Memory,
    held: Vec<Held<'a>>,
    shown: Shown,
}

impl Through<'_> {
    fn copy(&self, writer: &mut ContentsWriter) -> Result<(), SnapshotError> {
        let file_name = self.memory.id.file_name();
        for (number, Held { layer, .. }) in self.held.iter().enumerate() {
            let file = layer.open_file(&file_name)?;
            for (pages, _) in self.shown.iter().filter(|(_, other)| **other == number) {
                writer.take_pages(&file, pages)?;
            }
        }
        Ok(())
    }

    /// The digest of a snapshot that has these pages of it as its own.
    fn digest(&self, runs: &Runs, progress: Progress<'_>) -> Result<Digest, SnapshotError> {
        let (file_name, len_bytes) = (self.memory.id.file_name(), self.memory.len_bytes);
        let files = self.held.iter().map(|held| held.layer.open_file(&file_name));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let (total_bytes, mut done_bytes) = (runs.data_bytes(len_bytes), 0);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&runs.encode());
        let mut buffer = vec![0; CHUNK_BYTES];
        for (pages, number) in self.shown.iter() {
            for chunk in pages::chunks(pages.clone()) {
                let bytes = pages::bytes(&chunk, len_bytes);
                let piece = &mut buffer[..(bytes.end - bytes.start) as usize];
                let read = files[*number].read_exact_at(piece, bytes.start);
                read.map_err(self.held[*number].layer.failed(&file_name, "read"))?;
                hasher.update(piece);
                done_bytes += piece.len() as u64;
                progress(Step::Copy { done_bytes, total_bytes });
            }
        }
        Ok(hasher.finalize().into())
    }
}
