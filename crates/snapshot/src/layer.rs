//! One snapshot of a chain: its directory, its manifest, and what it holds of each memory.
//!
//! ```text
//! directory ─▶ manifest.json ─ lengths and digests ─▶ every other file is there and as long as it was
//!                                                  └▶ runs: read, checked, decoded
//! ```
//!
//! Parts are only looked for where they are wanted. Deliberately absent: the bytes of memories; they are checked when they
//! are read.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::contents::Layered;
use crate::dir::Dir;
use crate::error::{Damage, SnapshotError};
use crate::manifest::{self, Contents, MANIFEST_MAX_BYTES, Manifest, Memory, PARTS_FILE, RUNS_FILE, Unreadable};
use crate::name::{ContentsId, SnapshotName};
use crate::packed::{self, Index, Kind, Unusable};
use crate::pages;
use crate::runs::{RUNS_VERSION, Runs};

/// A snapshot by itself.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) dir: Dir,
    pub(crate) manifest: Manifest,
    runs: BTreeMap<ContentsId, Runs>,
}

/// Opens the directory of a snapshot.
pub(crate) fn open_dir(store: &Dir, name: &SnapshotName) -> Result<Dir, SnapshotError> {
    store.open_in(name.as_str()).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => SnapshotError::NotThere { snapshot: name.to_string(), dir: store.path().to_owned() },
        _ => failed_at(name, &store.path().join(name.as_str()), "open")(source),
    })
}

/// Reads the manifest in the directory of a snapshot.
pub(crate) fn read_manifest(dir: &Dir, name: &SnapshotName) -> Result<Manifest, SnapshotError> {
    let file = manifest::FILE;
    let opened = dir.open_file(file).map_err(failed(name, file, "open"))?;
    let mut bytes = Vec::new();
    opened.take(MANIFEST_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed(name, file, "read"))?;
    if bytes.len() as u64 > MANIFEST_MAX_BYTES {
        return Err(damaged(name, file, Damage::TooLong { max_bytes: MANIFEST_MAX_BYTES }));
    }
    Manifest::parse(&bytes, name).map_err(|why| match why {
        Unreadable::Damaged(damage) => damaged(name, file, damage),
        Unreadable::Format { found } => format(name, file, found, manifest::FORMAT),
    })
}

impl Layer {
    /// Reads and checks all but the parts and the bytes of memories.
    pub(crate) fn read(dir: Dir, name: &SnapshotName) -> Result<Self, SnapshotError> {
        let (mut layer, _) = Self::look(dir, name)?;
        layer.runs = layer.read_runs()?;
        Ok(layer)
    }

    /// Reads the manifest and looks whether the files are there. Says what it all takes on the disk, in bytes.
    pub(crate) fn look(dir: Dir, name: &SnapshotName) -> Result<(Self, u64), SnapshotError> {
        let manifest = read_manifest(&dir, name)?;
        let layer = Self { dir, manifest, runs: BTreeMap::new() };
        let mut disk_bytes = 0u64;
        for entry in &layer.manifest.files {
            let metadata = layer.open_file(&entry.name)?.metadata().map_err(layer.failed(&entry.name, "look at"))?;
            disk_bytes = disk_bytes.saturating_add(metadata.blocks().saturating_mul(512));
        }
        Ok((layer, disk_bytes))
    }

    pub(crate) fn name(&self) -> &SnapshotName {
        &self.manifest.name
    }

    /// What it holds of a memory that is copied.
    pub(crate) fn runs(&self, id: &ContentsId) -> Option<&Runs> {
        self.runs.get(id)
    }

    /// Opens one of its files, which must be as long as it was.
    pub(crate) fn open_file(&self, file: &str) -> Result<File, SnapshotError> {
        let opened = self.dir.open_file(file).map_err(self.failed(file, "open"))?;
        let found_bytes = opened.metadata().map_err(self.failed(file, "look at"))?.len();
        match self.manifest.file(file) {
            Some(entry) if entry.len_bytes == found_bytes => Ok(opened),
            entry => {
                let expected_bytes = entry.map_or(0, |entry| entry.len_bytes);
                Err(self.damaged(file, Damage::Length { found_bytes, expected_bytes }))
            }
        }
    }

    /// Opens one of its packed files and checks all of its bytes.
    pub(crate) fn open_packed(&self, kind: Kind) -> Result<(File, Index), SnapshotError> {
        let file = match kind {
            Kind::Parts => PARTS_FILE,
            Kind::Runs => RUNS_FILE,
        };
        let opened = self.open_file(file)?;
        let len_bytes = opened.metadata().map_err(self.failed(file, "look at"))?.len();
        // What a newer build wrote is told from what is damaged, so the index comes before the digest.
        let index = Index::read(kind, &opened, len_bytes).map_err(|why| self.unusable(file, why));
        let found = packed::digest(&opened, len_bytes).map_err(self.failed(file, "read"))?;
        self.check_digest(file, found)?;
        Ok((opened, index?))
    }

    pub(crate) fn check_digest(&self, file: &str, found: crate::Digest) -> Result<(), SnapshotError> {
        match self.manifest.file(file) {
            Some(entry) if entry.digest != found => {
                Err(self.damaged(file, Damage::Digest { found, expected: entry.digest }))
            }
            _ => Ok(()),
        }
    }

    fn read_runs(&self) -> Result<BTreeMap<ContentsId, Runs>, SnapshotError> {
        let (file, index) = self.open_packed(Kind::Runs)?;
        let mut runs = BTreeMap::new();
        for Memory { id, len_bytes, contents } in &self.manifest.memories {
            if let Contents::Copied(_) = contents {
                let bad = |reason: String| self.damaged(RUNS_FILE, Damage::Runs { id: id.to_string(), reason });
                let part = index.part(&file, id.as_str()).map_err(|why| self.unusable(RUNS_FILE, why))?;
                let part = part.ok_or_else(|| bad("there are none".into()))?;
                if part.version != RUNS_VERSION {
                    return Err(format(self.name(), RUNS_FILE, part.version, RUNS_VERSION));
                }
                let decoded = Runs::decode(&part.bytes, pages::count(*len_bytes));
                runs.insert(id.clone(), decoded.map_err(bad)?);
            }
        }
        Ok(runs)
    }

    /// Reads all that it holds of a memory, and checks it; `sink` sees each piece with its offset.
    pub(crate) fn read_contents(
        &self,
        memory: &Memory,
        runs: &Runs,
        sink: impl FnMut(u64, &[u8]) -> io::Result<()>,
    ) -> Result<File, SnapshotError> {
        let name = memory.id.file_name();
        let file = self.open_file(&name)?;
        let layered = Layered { file: &file, runs, len_bytes: memory.len_bytes };
        let found = layered.read(sink).map_err(self.failed(&name, "read"))?;
        self.check_digest(&name, found)?;
        Ok(file)
    }

    pub(crate) fn failed(&self, file: &str, doing: &'static str) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
        failed(self.name(), file, doing)
    }

    pub(crate) fn damaged(&self, file: &str, damage: Damage) -> SnapshotError {
        damaged(self.name(), file, damage)
    }

    pub(crate) fn unusable(&self, file: &str, why: Unusable) -> SnapshotError {
        match why {
            Unusable::Io(source) => self.failed(file, "read")(source),
            Unusable::Damaged(damage) => self.damaged(file, damage),
            Unusable::Version { found } => format(self.name(), file, found.into(), packed::PACKED_VERSION.into()),
        }
    }
}

pub(crate) fn failed(
    name: &SnapshotName,
    file: &str,
    doing: &'static str,
) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
    let (snapshot, file) = (name.to_string(), file.to_owned());
    move |source| SnapshotError::File { snapshot, file, doing, source }
}

/// What fails with a directory, which is called by its path: `'.'` once stood there, which is anywhere.
pub(crate) fn failed_at(
    name: &SnapshotName,
    path: &Path,
    doing: &'static str,
) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
    failed(name, &path.display().to_string(), doing)
}

fn damaged(name: &SnapshotName, file: &str, damage: Damage) -> SnapshotError {
    SnapshotError::Damaged { snapshot: name.to_string(), file: file.to_owned(), damage }
}

fn format(name: &SnapshotName, file: &str, found: u32, known: u32) -> SnapshotError {
    SnapshotError::Format { snapshot: name.to_string(), file: file.to_owned(), found, known }
}
