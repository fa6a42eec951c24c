//! The directory of all snapshots.
//!
//! ```text
//!            begin              finish                 delete              removed
//!  nothing ────────▶ NAME.part ────────▶ NAME ──────────────────▶ NAME.gone ──────▶ nothing
//!                       │ process dies                                │ process dies
//!                       └───────────────▶ sweep ◀─────────────────────┘
//!                  flatten
//!  NAME, NAME.part ◀──────▶ NAME.part, NAME       in one step; then NAME.part, the old one, is removed
//! ```
//!
//! Every arrow is one rename under the directory's lock, which nobody holds for longer than that takes. Deliberately absent:
//! copying of snapshots.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::dir::{Dir, LOCK_WAIT_MS, Locked};
use crate::draft::{Draft, Half};
use crate::error::SnapshotError;
use crate::layer::{failed_at, open_dir, read_manifest};
use crate::listing::{self, Listed};
use crate::manifest::Manifest;
use crate::name::{HALF_GONE, HALF_MADE, SnapshotName};
use crate::removal;
use crate::snapshot::{CHAIN_MAX, Snapshot};

/// A directory of snapshots. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Store {
    pub(crate) dir: Arc<Dir>,
}

/// The lock of a directory of snapshots, until this is dropped.
#[derive(Debug)]
pub(crate) struct StoreLock {
    _dir: Dir,
}

impl StoreLock {
    pub(crate) fn take(store: &Dir) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::Store { dir: store.path().to_owned(), doing: "lock", source };
        let dir = store.again().map_err(failed)?;
        match dir.lock_soon().map_err(failed)? {
            Locked::Yes => Ok(Self { _dir: dir }),
            Locked::No => Err(SnapshotError::StoreLocked { dir: store.path().to_owned(), waited_ms: LOCK_WAIT_MS }),
        }
    }
}

impl Store {
    /// Opens a directory that is there.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`] if it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, SnapshotError> {
        let opened = Dir::open(path);
        let failed = |source| SnapshotError::Store { dir: path.to_owned(), doing: "open", source };
        Ok(Self { dir: Arc::new(opened.map_err(failed)?) })
    }

    /// Opens a directory, and makes it where there is none; the one above must be there.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`] if it cannot be made or opened.
    pub fn create(path: &Path) -> Result<Self, SnapshotError> {
        let failed = |source| SnapshotError::Store { dir: path.to_owned(), doing: "make", source };
        match std::fs::create_dir(path) {
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.and_then(|()| sync_above(path)).map_err(failed)?,
        }
        Self::open(path)
    }

    /// Where it is, as it was named.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Everything in it by name: snapshots, and what is none.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`] if it cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, SnapshotError> {
        Ok(listing::with_chains(&self.dir, self.names()?.iter().filter_map(|name| listing::look(&self.dir, name))))
    }

    /// Opens a snapshot and all below it: reads and checks manifests, runs and parts.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotThere`], [`SnapshotError::BeingRemoved`]; [`SnapshotError::Damaged`], [`SnapshotError::Format`] and
    /// [`SnapshotError::File`] name the file; [`SnapshotError::Parent`] and [`SnapshotError::OtherParent`] say what of the
    /// chain is not there.
    pub fn snapshot(&self, name: &SnapshotName) -> Result<Snapshot, SnapshotError> {
        Snapshot::open(&self.dir, name)
    }

    /// Begins to write a snapshot: a full one, or one on top of `parent`, which cannot be deleted meanwhile.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Exists`], [`SnapshotError::BeingWritten`], [`SnapshotError::ForeignParent`],
    /// [`SnapshotError::ChainTooLong`], [`SnapshotError::Foreign`] if there is something of somebody's under the name that it
    /// has while it is written, or what the host says.
    pub fn begin(&self, name: &SnapshotName, parent: Option<&Snapshot>) -> Result<Draft, SnapshotError> {
        if let Some(parent) = parent {
            self.check_parent(name, parent)?;
        }
        let _lock = StoreLock::take(&self.dir)?;
        if self.dir.has(name.as_str()).map_err(self.failed("read"))? {
            return Err(SnapshotError::Exists { snapshot: name.to_string(), dir: self.path().to_owned() });
        }
        Ok(Draft::new(name, self.half(name)?, parent.cloned()))
    }

    /// Begins to write what will take the place of a snapshot: one that has all of its bytes itself.
    pub(crate) fn begin_again(&self, name: &SnapshotName) -> Result<Draft, SnapshotError> {
        let _lock = StoreLock::take(&self.dir)?;
        Ok(Draft::new(name, self.half(name)?, None))
    }

    /// Makes the directory of a draft. The store is locked.
    fn half(&self, name: &SnapshotName) -> Result<Half, SnapshotError> {
        let half_name = name.half_made();
        let path = self.path().join(&half_name);
        match self.claim(&half_name).map_err(failed_at(name, &path, "lock"))? {
            Claim::Nothing => {}
            Claim::Ours(dir) => removal::remove(&self.dir, &half_name, &dir)?,
            Claim::Others => return Err(SnapshotError::BeingWritten { snapshot: name.to_string() }),
        }
        let dir = self.dir.make_in(&half_name).map_err(failed_at(name, &path, "make"))?;
        // Only a listing holds it, and for a moment; a sweep would remove one that is not held.
        if dir.lock_soon().map_err(failed_at(name, &path, "lock"))? == Locked::No {
            return Err(SnapshotError::BeingWritten { snapshot: name.to_string() });
        }
        Ok(Half { store: self.dir.clone(), name: half_name, dir: Some(dir) })
    }

    /// Deletes a snapshot that nobody has open and on which none is built.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotThere`], [`SnapshotError::InUse`], [`SnapshotError::HasChildren`], [`SnapshotError::Foreign`] if
    /// there is anything in its directory that is none of a snapshot's, or what the host says. If only
    /// the removal of its files fails it is no snapshot any more, and [`Store::sweep`] removes the rest.
    pub fn delete(&self, name: &SnapshotName) -> Result<(), SnapshotError> {
        let (gone_name, snapshot) = (name.half_gone(), || name.to_string());
        let lock = StoreLock::take(&self.dir)?;
        let dir = open_dir(&self.dir, name)?;
        if dir.try_lock().map_err(failed_at(name, dir.path(), "lock"))? == Locked::No {
            return Err(SnapshotError::InUse { snapshot: snapshot() });
        }
        removal::check(&dir)?;
        let manifest = read_manifest(&dir, name).ok();
        let children = self.manifests()?.into_iter().filter(|other| is_on(other, name, manifest.as_ref()));
        let children: Vec<_> = children.map(|child| child.name.to_string()).collect();
        if !children.is_empty() {
            let (snapshot, dir) = (snapshot(), self.path().to_owned());
            return Err(SnapshotError::HasChildren { snapshot, dir, children });
        }
        match self.claim(&gone_name).map_err(failed_at(name, &self.path().join(&gone_name), "lock"))? {
            Claim::Nothing => {}
            Claim::Ours(left) => removal::remove(&self.dir, &gone_name, &left)?,
            Claim::Others => return Err(SnapshotError::BeingRemoved { snapshot: snapshot() }),
        }
        self.dir.rename(name.as_str(), &gone_name).map_err(failed_at(name, dir.path(), "rename"))?;
        self.dir.sync().map_err(self.failed("sync"))?;
        drop(lock);
        removal::remove(&self.dir, &gone_name, &dir)?;
        tracing::info!(snapshot = %name, "deleted a snapshot");
        Ok(())
    }

    /// Removes what dead processes left half made and half gone, and says what it was called. What has anything in it that is
    /// none of a snapshot's stays.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`] and [`SnapshotError::Removal`] if something cannot be removed.
    pub fn sweep(&self) -> Result<Vec<String>, SnapshotError> {
        let lock = StoreLock::take(&self.dir)?;
        let mut claimed = Vec::new();
        for name in self.names()? {
            let is_half = [HALF_MADE, HALF_GONE].iter().any(|suffix| name.ends_with(suffix));
            // What is no directory is not of this house.
            if is_half && let Ok(Claim::Ours(dir)) = self.claim(&name) {
                claimed.push((name, dir));
            }
        }
        // The locks of the directories are enough to remove them, which may take long.
        drop(lock);
        let mut swept = Vec::new();
        for (name, dir) in claimed {
            match removal::remove(&self.dir, &name, &dir) {
                Ok(()) => {
                    tracing::info!(%name, "swept what was left of a snapshot");
                    swept.push(name);
                }
                // It looks like one of this house, and is not: the others are swept all the same.
                Err(error @ SnapshotError::Foreign { .. }) => tracing::warn!("{error}"),
                Err(error) => return Err(error),
            }
        }
        Ok(swept)
    }

    fn check_parent(&self, name: &SnapshotName, parent: &Snapshot) -> Result<(), SnapshotError> {
        let identity = |dir: &Dir| dir.identity().map_err(self.failed("look at"));
        if identity(&self.dir)? != identity(&parent.store)? {
            let (snapshot, parent) = (name.to_string(), parent.name().to_string());
            return Err(SnapshotError::ForeignParent { snapshot, parent, dir: self.path().to_owned() });
        }
        if parent.layers.len() >= CHAIN_MAX {
            return Err(SnapshotError::ChainTooLong { snapshot: name.to_string(), max: CHAIN_MAX });
        }
        Ok(())
    }

    /// The snapshots that are built on this one, on those, and so on.
    pub(crate) fn all_on(&self, manifest: &Manifest) -> Result<Vec<SnapshotName>, SnapshotError> {
        let others = self.manifests()?;
        let mut found = vec![manifest];
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            for child in others.iter().filter(|other| is_on(other, &parent.name, Some(parent))) {
                // Of those that this crate wrote none is above itself.
                if found.iter().all(|known| known.name != child.name) {
                    found.push(child);
                }
            }
            next += 1;
        }
        Ok(found.iter().skip(1).map(|manifest| manifest.name.clone()).collect())
    }

    /// What of all that is here can be read. What cannot be cannot be used, whatever it was built on.
    fn manifests(&self) -> Result<Vec<Manifest>, SnapshotError> {
        let names = self.names()?;
        let names = names.iter().filter_map(|name| name.parse::<SnapshotName>().ok());
        Ok(names.filter_map(|name| read_manifest(&open_dir(&self.dir, &name).ok()?, &name).ok()).collect())
    }

    /// Takes the lock of something half made or half gone, if there is nobody who has it.
    fn claim(&self, name: &str) -> io::Result<Claim> {
        let dir = match self.dir.open_in(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Claim::Nothing),
            opened => opened?,
        };
        Ok(match dir.lock_unless_held()? {
            Locked::Yes => Claim::Ours(dir),
            Locked::No => Claim::Others,
        })
    }

    fn names(&self) -> Result<Vec<String>, SnapshotError> {
        let entries = std::fs::read_dir(self.path()).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let entries = entries.map_err(self.failed("list"))?;
        let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn failed(&self, doing: &'static str) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
        let dir = self.path().to_owned();
        move |source| SnapshotError::Store { dir, doing, source }
    }
}

/// Whether a snapshot is built on the one of this name, which has this manifest. One that stands on another of the same name is
/// not: deleting does it no harm.
fn is_on(other: &Manifest, name: &SnapshotName, manifest: Option<&Manifest>) -> bool {
    let parent = other.parent.as_ref().filter(|parent| parent.name == *name);
    parent.is_some_and(|parent| manifest.is_none_or(|manifest| manifest.is_or_was(parent.id)))
}

/// A snapshot is not durable in a directory that is not.
fn sync_above(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    Dir::open(above.unwrap_or(Path::new(".")))?.sync()
}

/// Who has the lock of something half made or half gone.
#[derive(Debug)]
enum Claim {
    /// There is no such thing.
    Nothing,
    /// This process, by what is open here.
    Ours(Dir),
    /// Another, or another place in this one.
    Others,
}
