//! Finishing a draft: from pages in files to a snapshot that a power cut leaves whole.
//!
//! ```text
//!  contents: sync, read back, digest ─▶ runs ─▶ parts ─▶ manifest ─▶ sync the directory ─▶ rename ─▶ sync the one above
//!  └────────────── each file synced; until here it is NAME.part, and no snapshot ────────┘└─ it is one, or it is not ┘
//! ```
//!
//! Deliberately absent: repair. What is not finished is removed, now or by [`crate::Store::sweep`].

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::contents::Layered;
use crate::digest::{Digest, SnapshotId};
use crate::draft::Draft;
use crate::error::SnapshotError;
use crate::layer::{Layer, failed, failed_at, open_dir, read_manifest};
use crate::manifest::{self, Contents, FileEntry, Link, MANIFEST_MAX_BYTES, Manifest, PARTS_FILE, RUNS_FILE};
use crate::packed::{self, Kind, Part, Unpacked};
use crate::runs::{RUNS_MAX, RUNS_MAX_BYTES, RUNS_VERSION, Runs};
use crate::snapshot::Snapshot;
use crate::store::StoreLock;
use crate::writer::ContentsWriter;

/// How far finishing is; each is told before it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Bytes of a memory were copied out of a chain that is flattened, and are read there once more.
    Copy {
        /// Bytes that are.
        done_bytes: u64,
        /// Bytes of that memory.
        total_bytes: u64,
    },
    /// Bytes of memories are brought to the disk and digested.
    Contents {
        /// Bytes that are.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// The runs are written.
    Runs,
    /// The parts are packed and written.
    Parts,
    /// The manifest is written.
    Manifest,
    /// Bytes of the chain that is flattened are checked.
    Chain {
        /// Bytes that are.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
    },
    /// The directory gets its name.
    Name,
    /// The name is brought to the disk: there is a snapshot now. The store is locked while this is told.
    Sync,
}

impl Draft {
    /// Makes it a snapshot, from the writers of all of its memories. It takes as long as the disk does, which `progress` hears.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Writers`] if the writers are not those that it handed out; [`SnapshotError::File`] with what the host
    /// said; [`SnapshotError::Exists`] if another of this name came meanwhile; what is wrong with the parent. There is no
    /// snapshot then, but where only the last sync failed: then there is one that a power cut may take.
    pub fn finish(
        mut self,
        writers: Vec<ContentsWriter>,
        progress: &mut dyn FnMut(Step),
    ) -> Result<Snapshot, SnapshotError> {
        self.write(writers, progress)?;
        progress(Step::Name);
        self.give_name(progress)
    }

    /// Brings all of it to the disk, and says what the files of its memories are.
    pub(crate) fn write(
        &mut self,
        writers: Vec<ContentsWriter>,
        progress: &mut dyn FnMut(Step),
    ) -> Result<Vec<FileEntry>, SnapshotError> {
        let writers = self.in_order(writers)?;
        let copied = self.memories.iter_mut().filter(|memory| matches!(memory.contents, Contents::Copied(_)));
        // One that was cloned is built on nothing any more.
        copied.zip(&writers).for_each(|(memory, writer)| memory.contents = writer.memory.contents.clone());
        let runs = writers.iter().map(|writer| self.runs(writer)).collect::<Result<Vec<_>, _>>()?;
        let contents = self.finish_contents(&writers, &runs, progress)?;
        progress(Step::Runs);
        let of_runs = writers.iter().zip(&runs).map(|(writer, runs)| {
            let part = Part { version: RUNS_VERSION, bytes: runs.encode() };
            Unpacked { name: writer.memory.id.to_string(), part }
        });
        let runs = self.write_packed(Kind::Runs, &of_runs.collect::<Vec<_>>())?;
        progress(Step::Parts);
        let parts = std::mem::take(&mut self.parts);
        let parts = self.write_packed(Kind::Parts, &parts)?;
        progress(Step::Manifest);
        let files = [parts, runs].into_iter().chain(contents.iter().cloned()).collect();
        self.write_manifest(files)?;
        Ok(contents)
    }

    /// The writers in the order of their memories.
    fn in_order(&self, writers: Vec<ContentsWriter>) -> Result<Vec<ContentsWriter>, SnapshotError> {
        let wrong =
            |id: &str, reason| SnapshotError::Writers { snapshot: self.name.to_string(), id: id.to_owned(), reason };
        let mut ordered = Vec::new();
        let mut left = writers;
        for memory in self.memories.iter().filter(|memory| matches!(memory.contents, Contents::Copied(_))) {
            let own = |writer: &ContentsWriter| writer.memory.id == memory.id && self.handed_out(writer);
            let index = left.iter().position(own).ok_or_else(|| wrong(memory.id.as_str(), "was not given back"))?;
            ordered.push(left.swap_remove(index));
        }
        match left.first() {
            Some(other) => Err(wrong(other.memory.id.as_str(), "belongs to another draft")),
            None => Ok(ordered),
        }
    }

    pub(crate) fn handed_out(&self, writer: &ContentsWriter) -> bool {
        std::sync::Arc::ptr_eq(&self.name, &writer.snapshot)
    }

    fn runs(&self, writer: &ContentsWriter) -> Result<Runs, SnapshotError> {
        let (id, runs) = (&writer.memory.id, Runs::of(&writer.runs));
        self.check_count(&format!("runs of pages in memory '{id}'"), runs.count(), RUNS_MAX)?;
        self.check_count(&format!("bytes of runs of memory '{id}'"), runs.encode().len() as u64, RUNS_MAX_BYTES)?;
        Ok(runs)
    }

    fn finish_contents(
        &self,
        writers: &[ContentsWriter],
        runs: &[Runs],
        progress: &mut dyn FnMut(Step),
    ) -> Result<Vec<FileEntry>, SnapshotError> {
        let bytes_of = |(writer, runs): (&ContentsWriter, &Runs)| runs.data_bytes(writer.memory.len_bytes);
        let total_bytes = writers.iter().zip(runs).map(bytes_of).sum();
        let mut done_bytes = 0;
        progress(Step::Contents { done_bytes, total_bytes });
        let mut entries = Vec::new();
        for (writer, runs) in writers.iter().zip(runs) {
            let (name, len_bytes) = (writer.memory.id.file_name(), writer.memory.len_bytes);
            writer.file.sync_all().map_err(failed(&self.name, &name, "sync"))?;
            let layered = Layered { file: &writer.file, runs, len_bytes };
            let digest = layered.read(|_, piece| {
                done_bytes += piece.len() as u64;
                progress(Step::Contents { done_bytes, total_bytes });
                Ok(())
            });
            let digest = digest.map_err(failed(&self.name, &name, "read back"))?;
            entries.push(FileEntry { name, len_bytes, digest });
        }
        Ok(entries)
    }

    fn write_packed(&self, kind: Kind, unpacked: &[Unpacked]) -> Result<FileEntry, SnapshotError> {
        let name = match kind {
            Kind::Parts => PARTS_FILE,
            Kind::Runs => RUNS_FILE,
        };
        let pieces = packed::encode(kind, unpacked).map_err(failed(&self.name, name, "pack"))?;
        self.write_file(name, &pieces)?;
        let mut hasher = blake3::Hasher::new();
        for piece in &pieces {
            hasher.update(piece);
        }
        let len_bytes = pieces.iter().map(|piece| piece.len() as u64).sum();
        Ok(FileEntry { name: name.to_owned(), len_bytes, digest: hasher.finalize().into() })
    }

    fn write_manifest(&mut self, files: Vec<FileEntry>) -> Result<(), SnapshotError> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let manifest = Manifest {
            name: self.name.as_ref().clone(),
            id: SnapshotId(Digest([0; Digest::LEN_BYTES])),
            parent: self.parent.as_ref().map(|parent| Link { name: parent.name().clone(), id: parent.id() }),
            created_ms: self.created_ms.unwrap_or(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)),
            about: std::mem::take(&mut self.about),
            memories: std::mem::take(&mut self.memories),
            files,
        };
        let (_, bytes) = manifest.seal();
        self.check_count("bytes of the manifest", bytes.len() as u64, MANIFEST_MAX_BYTES)?;
        self.write_file(manifest::FILE, &[bytes])?;
        let dir = self.half.dir(&self.name)?;
        dir.sync().map_err(failed_at(&self.name, dir.path(), "sync"))
    }

    fn write_file(&self, file: &str, pieces: &[Vec<u8>]) -> Result<(), SnapshotError> {
        let mut created = self.half.dir(&self.name)?.create_file(file).map_err(failed(&self.name, file, "create"))?;
        let written = pieces.iter().try_for_each(|piece| created.write_all(piece));
        written.map_err(failed(&self.name, file, "write"))?;
        created.sync_all().map_err(failed(&self.name, file, "sync"))
    }

    fn give_name(self, progress: &mut dyn FnMut(Step)) -> Result<Snapshot, SnapshotError> {
        let Self { name, mut half, parent, .. } = self;
        let lock = StoreLock::take(&half.store)?;
        if let Some(parent) = &parent {
            check_parent(&name, parent)?;
        }
        let path = half.store.path().join(name.as_str());
        if half.store.has(name.as_str()).map_err(failed_at(&name, &path, "look for"))? {
            return Err(SnapshotError::Exists { snapshot: name.to_string(), dir: half.store.path().to_owned() });
        }
        half.share(&name)?;
        half.store.rename(&half.name, name.as_str()).map_err(failed_at(&name, &path, "make"))?;
        let dir = half.dir.take();
        progress(Step::Sync);
        half.store.sync().map_err(failed_at(&name, half.store.path(), "sync"))?;
        drop(lock);
        let dir = dir.map_or_else(|| open_dir(&half.store, &name), Ok)?;
        let mut layers = vec![std::sync::Arc::new(Layer::read(dir, &name)?)];
        layers.extend(parent.iter().flat_map(|parent| parent.layers.iter().cloned()));
        tracing::info!(snapshot = %name, layers = layers.len(), "wrote a snapshot");
        Snapshot::of(&half.store, layers)
    }
}

/// The parent is held open, so no process of this house deletes it; but people move directories.
fn check_parent(name: &crate::SnapshotName, parent: &Snapshot) -> Result<(), SnapshotError> {
    let dir = open_dir(&parent.store, parent.name());
    let wanted = parent.id();
    let found = dir.and_then(|dir| read_manifest(&dir, parent.name())).map_err(|source| {
        let (snapshot, parent) = (name.to_string(), parent.name().to_string());
        SnapshotError::Parent { snapshot, parent, wanted, source: Box::new(source) }
    })?;
    if found.id == wanted {
        return Ok(());
    }
    let (snapshot, parent) = (name.to_string(), parent.name().to_string());
    Err(SnapshotError::OtherParent { snapshot, parent, wanted, found: found.id })
}
