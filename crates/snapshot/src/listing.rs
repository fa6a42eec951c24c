//! What lies in a directory of snapshots, whole or not.
//!
//! ```text
//!  NAME       manifest and files as they should be ─▶ Whole, else Damaged with the reason
//!  NAME.part  ─▶ Unfinished ┐ held by a process, or by none any more
//!  NAME.gone  ─▶ Leaving    ┘
//! ```
//!
//! A listing is never an error because of what is in it. Deliberately absent: reading runs, parts and bytes of memories.

use std::io;

use crate::dir::{Dir, Locked};
use crate::error::SnapshotError;
use crate::layer::{Layer, open_dir};
use crate::manifest::Manifest;
use crate::name::{HALF_GONE, HALF_MADE, SnapshotName};

/// Something in a directory of snapshots.
#[derive(Debug)]
pub enum Listed {
    /// A snapshot. Its parent need not be there.
    Whole {
        /// What it says of itself.
        manifest: Manifest,
        /// What its files take on the disk.
        disk_bytes: u64,
    },
    /// One that is being written, or was.
    Unfinished {
        /// The name that it was to have.
        name: String,
        /// Whether somebody writes it.
        holder: Holder,
    },
    /// One that is being removed, or was.
    Leaving {
        /// The name that it had.
        name: String,
        /// Whether somebody removes it.
        holder: Holder,
    },
    /// Something that is no snapshot, or no longer.
    Damaged {
        /// What it is called.
        name: String,
        /// Why it cannot be used.
        error: SnapshotError,
    },
}

/// Whether a process is about something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It is.
    Alive,
    /// It is not: [`crate::Store::sweep`] removes it.
    Dead,
}

impl Listed {
    /// The name of the snapshot that it is, was, or is to be.
    pub fn name(&self) -> &str {
        match self {
            Self::Whole { manifest, .. } => manifest.name.as_str(),
            Self::Unfinished { name, .. } | Self::Leaving { name, .. } | Self::Damaged { name, .. } => name,
        }
    }
}

/// What something of this name is; nothing if it is gone meanwhile, or hidden, as tools hide theirs.
pub(crate) fn look(store: &Dir, name: &str) -> Option<Listed> {
    if name.starts_with('.') {
        return None;
    }
    if let Some(stem) = name.strip_suffix(HALF_MADE) {
        return Some(Listed::Unfinished { name: stem.to_owned(), holder: holder(store, name)? });
    }
    if let Some(stem) = name.strip_suffix(HALF_GONE) {
        return Some(Listed::Leaving { name: stem.to_owned(), holder: holder(store, name)? });
    }
    match look_whole(store, name) {
        Ok((layer, disk_bytes)) => Some(Listed::Whole { manifest: layer.manifest, disk_bytes }),
        Err(SnapshotError::NotThere { .. }) => None,
        Err(error) => Some(Listed::Damaged { name: name.to_owned(), error }),
    }
}

fn look_whole(store: &Dir, name: &str) -> Result<(Layer, u64), SnapshotError> {
    let name: SnapshotName = name.parse().map_err(|reason| SnapshotError::Name {
        snapshot: name.to_owned(),
        what: "a snapshot",
        name: name.to_owned(),
        reason,
    })?;
    Layer::look(open_dir(store, &name)?, &name)
}

fn holder(store: &Dir, name: &str) -> Option<Holder> {
    match store.open_in(name).and_then(|dir| dir.try_share()) {
        Ok(Locked::Yes) => Some(Holder::Dead),
        Ok(Locked::No) => Some(Holder::Alive),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        // A file of such a name is nobody's either, but not ours to remove.
        Err(_) => Some(Holder::Dead),
    }
}
