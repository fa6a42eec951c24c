//! The directory of all snapshots.
//!
//! ```text
//!            begin              finish                 delete              removed
//!  nothing ────────▶ NAME.part ────────▶ NAME ──────────────────▶ NAME.gone ──────▶ nothing
//!                       │ process dies                                │ process dies
//!                       └───────────────▶ sweep ◀─────────────────────┘
//! ```
//!
//! Every arrow is one rename under the directory's lock, which nobody holds for longer than that takes. Deliberately absent:
//! copying and merging of snapshots.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::dir::{Dir, LOCK_WAIT_MS, Locked};
use crate::draft::{Draft, Half};
use crate::error::SnapshotError;
use crate::layer::{failed, open_dir, read_manifest};
use crate::listing::{self, Listed};
use crate::name::{HALF_GONE, HALF_MADE, SnapshotName};
use crate::snapshot::{CHAIN_MAX, Snapshot};

/// A directory of snapshots. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Store {
    dir: Arc<Dir>,
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
        Ok(self.names()?.iter().filter_map(|name| listing::look(&self.dir, name)).collect())
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
    /// [`SnapshotError::ChainTooLong`], or what the host says.
    pub fn begin(&self, name: &SnapshotName, parent: Option<&Snapshot>) -> Result<Draft, SnapshotError> {
        if let Some(parent) = parent {
            self.check_parent(name, parent)?;
        }
        let _lock = StoreLock::take(&self.dir)?;
        if self.dir.has(name.as_str()).map_err(self.failed("read"))? {
            return Err(SnapshotError::Exists { snapshot: name.to_string(), dir: self.path().to_owned() });
        }
        let half_name = name.half_made();
        match self.claim(&half_name).map_err(failed(name, ".", "lock"))? {
            Claim::Nothing => {}
            Claim::Ours(_dir) => self.dir.remove_in(&half_name).map_err(failed(name, ".", "remove"))?,
            Claim::Others => return Err(SnapshotError::BeingWritten { snapshot: name.to_string() }),
        }
        let dir = self.dir.make_in(&half_name).map_err(failed(name, ".", "make"))?;
        // Only a listing holds it, and for a moment.
        dir.lock_soon().map_err(failed(name, ".", "lock"))?;
        let half = Half { store: self.dir.clone(), name: half_name, dir: Some(dir) };
        Ok(Draft::new(name, half, parent.cloned()))
    }

    /// Deletes a snapshot that nobody has open and on which none is built.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotThere`], [`SnapshotError::InUse`], [`SnapshotError::HasChildren`], or what the host says. If only
    /// the removal of its files fails it is no snapshot any more, and [`Store::sweep`] removes the rest.
    pub fn delete(&self, name: &SnapshotName) -> Result<(), SnapshotError> {
        let (gone_name, snapshot) = (name.half_gone(), || name.to_string());
        let lock = StoreLock::take(&self.dir)?;
        let dir = open_dir(&self.dir, name)?;
        if dir.try_lock().map_err(failed(name, ".", "lock"))? == Locked::No {
            return Err(SnapshotError::InUse { snapshot: snapshot() });
        }
        let children = self.children(name, &dir)?;
        if !children.is_empty() {
            return Err(SnapshotError::HasChildren { snapshot: snapshot(), children });
        }
        match self.claim(&gone_name).map_err(failed(name, ".", "lock"))? {
            Claim::Nothing => {}
            Claim::Ours(_dir) => self.dir.remove_in(&gone_name).map_err(failed(name, ".", "remove"))?,
            Claim::Others => return Err(SnapshotError::BeingRemoved { snapshot: snapshot() }),
        }
        self.dir.rename(name.as_str(), &gone_name).map_err(failed(name, ".", "rename"))?;
        self.dir.sync().map_err(self.failed("sync"))?;
        drop(lock);
        self.dir.remove_in(&gone_name).map_err(failed(name, ".", "remove"))?;
        tracing::info!(snapshot = %name, "deleted a snapshot");
        Ok(())
    }

    /// Removes what dead processes left half made and half gone, and says what it was called.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Store`] if something cannot be removed.
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
        for (name, _dir) in claimed {
            self.dir.remove_in(&name).map_err(self.failed("sweep"))?;
            tracing::info!(%name, "swept what was left of a snapshot");
            swept.push(name);
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

    /// The snapshots whose parent this is. One that stands on another of the same name is not: deleting does it no harm.
    fn children(&self, name: &SnapshotName, dir: &Dir) -> Result<Vec<String>, SnapshotError> {
        let id = read_manifest(dir, name).ok().map(|manifest| manifest.id);
        let mut children = Vec::new();
        for other in self.names()? {
            let Ok(other) = other.parse::<SnapshotName>() else { continue };
            // What cannot be read cannot be used, whatever it was built on.
            let manifest = open_dir(&self.dir, &other).and_then(|dir| read_manifest(&dir, &other));
            let Some(parent) = manifest.ok().and_then(|manifest| manifest.parent) else { continue };
            if parent.name == *name && id.is_none_or(|id| id == parent.id) {
                children.push(other.to_string());
            }
        }
        Ok(children)
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
