//! A snapshot that can be read: itself, and the chain below it.
//!
//! ```text
//!  layers[0]  the one that was asked for ── holds the shared lock: it is not deleted meanwhile
//!  layers[1]  its parent: same directory of snapshots, by name, and its id must be the right one
//!  ...        not deleted either, as long as the one above is there
//! ```
//!
//! Opening reads manifests, runs and parts. Deliberately absent: the bytes of memories, which [`Snapshot::load`] reads.

use std::sync::Arc;

use crate::digest::SnapshotId;
use crate::dir::{Dir, Locked};
use crate::error::{Damage, SnapshotError};
use crate::layer::{Layer, failed_at, open_dir};
use crate::manifest::{Base, Contents, FILE, Link, Manifest, Memory, PARTS_FILE};
use crate::name::{ContentsId, SnapshotName};
use crate::packed::{Index, Kind, Part, PartInfo};

/// Snapshots that are built on each other, with the full one at the end.
pub const CHAIN_MAX: usize = 256;

/// An open snapshot. It cannot be deleted while it is open; clones are the same one.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub(crate) store: Arc<Dir>,
    /// Itself, its parent, and so on.
    pub(crate) layers: Arc<[Arc<Layer>]>,
    parts: Arc<Index>,
}

impl Snapshot {
    pub(crate) fn open(store: &Arc<Dir>, name: &SnapshotName) -> Result<Self, SnapshotError> {
        let dir = open_dir(store, name)?;
        if dir.try_share().map_err(failed_at(name, dir.path(), "lock"))? == Locked::No {
            return Err(SnapshotError::BeingRemoved { snapshot: name.to_string() });
        }
        let mut layers = vec![Arc::new(Layer::read(dir, name)?)];
        while let Some(Link { name: parent, id: wanted }) = layers.last().and_then(|last| last.manifest.parent.clone())
        {
            let child = layers.last().map_or(name, |last| last.name()).to_string();
            if layers.len() == CHAIN_MAX {
                return Err(SnapshotError::ChainTooLong { snapshot: name.to_string(), max: CHAIN_MAX });
            }
            let layer = open_dir(store, &parent).and_then(|dir| Layer::read(dir, &parent)).map_err(|source| {
                let (snapshot, parent) = (child.clone(), parent.to_string());
                SnapshotError::Parent { snapshot, parent, wanted, source: Box::new(source) }
            })?;
            let found = layer.manifest.id;
            if !layer.manifest.is_or_was(wanted) {
                let (snapshot, parent) = (child, parent.to_string());
                return Err(SnapshotError::OtherParent { snapshot, parent, wanted, found });
            }
            layers.push(Arc::new(layer));
        }
        Self::of(store, layers)
    }

    /// Puts a chain together, the newest first.
    pub(crate) fn of(store: &Arc<Dir>, layers: Vec<Arc<Layer>>) -> Result<Self, SnapshotError> {
        for pair in layers.windows(2) {
            check_bases(&pair[0], &pair[1])?;
        }
        let (_, parts) = layers[0].open_packed(Kind::Parts)?;
        Ok(Self { store: store.clone(), layers: layers.into(), parts: Arc::new(parts) })
    }

    pub(crate) fn top(&self) -> &Layer {
        &self.layers[0]
    }

    /// What it says of itself.
    pub fn manifest(&self) -> &Manifest {
        &self.top().manifest
    }

    /// Its name.
    pub fn name(&self) -> &SnapshotName {
        self.top().name()
    }

    /// Its id.
    pub fn id(&self) -> SnapshotId {
        self.manifest().id
    }

    /// What its writer says of it, in the writer's order.
    pub fn about(&self) -> &[(String, String)] {
        &self.manifest().about
    }

    /// Its memories, in the order in which they were begun.
    pub fn memories(&self) -> &[Memory] {
        &self.manifest().memories
    }

    /// Itself, its parent, and so on to the full one.
    pub fn chain(&self) -> impl Iterator<Item = &Manifest> {
        self.layers.iter().map(|layer| &layer.manifest)
    }

    /// Its parts, without their bytes.
    pub fn parts(&self) -> impl Iterator<Item = &PartInfo> {
        self.parts.infos()
    }

    /// The part of this name, checked.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NoPart`]; [`SnapshotError::Damaged`] or [`SnapshotError::File`] if its bytes changed since this was
    /// opened.
    pub fn part(&self, name: &str) -> Result<Part, SnapshotError> {
        let file = self.top().open_file(PARTS_FILE)?;
        let part = self.parts.part(&file, name).map_err(|why| self.top().unusable(PARTS_FILE, why))?;
        part.ok_or_else(|| SnapshotError::NoPart {
            snapshot: self.name().to_string(),
            part: name.to_owned(),
            known: self.parts().map(|info| info.name.clone()).collect(),
        })
    }

    /// A memory whose bytes are in the chain.
    pub(crate) fn copied(&self, id: &ContentsId) -> Result<&Memory, SnapshotError> {
        let (snapshot, asked) = (self.name().to_string(), id.to_string());
        match self.manifest().memory(id) {
            None => {
                let known = self.memories().iter().map(|memory| memory.id.to_string()).collect();
                Err(SnapshotError::NoMemory { snapshot, id: asked, known })
            }
            Some(Memory { contents: Contents::Reference { path }, .. }) => {
                Err(SnapshotError::ByReference { snapshot, id: asked, path: path.clone() })
            }
            Some(memory) => Ok(memory),
        }
    }
}

/// What a memory is built on must be in the parent: of a chain that this crate wrote it is.
fn check_bases(layer: &Layer, parent: &Layer) -> Result<(), SnapshotError> {
    for memory in &layer.manifest.memories {
        if memory.contents == Contents::Copied(Base::Parent)
            && let Err(reason) = base_in(&parent.manifest, &memory.id, memory.len_bytes)
        {
            let said = format!("memory '{}' is built on that of '{}': {reason}", memory.id, parent.name());
            return Err(layer.damaged(FILE, Damage::Says(said)));
        }
    }
    Ok(())
}

/// Whether a memory of this length can be built on that of a parent; else what is in the way.
pub(crate) fn base_in(parent: &Manifest, id: &ContentsId, len_bytes: u64) -> Result<(), String> {
    match parent.memory(id) {
        None => Err(format!("'{}' has no memory '{id}'", parent.name)),
        Some(Memory { contents: Contents::Reference { .. }, .. }) => {
            Err(format!("'{}' has it by reference only", parent.name))
        }
        Some(memory) if memory.len_bytes != len_bytes => {
            Err(format!("in '{}' it has {} bytes", parent.name, memory.len_bytes))
        }
        Some(_) => Ok(()),
    }
}
