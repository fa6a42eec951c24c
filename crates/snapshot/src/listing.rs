//! What lies in a directory of snapshots, whole or not.
//!
//! ```text
//!  NAME       manifest and files as they should be, and those of all below it ─▶ Whole, else Damaged with the reason
//!  NAME.part  ─▶ Unfinished ┐ held by a process, or by none any more
//!  NAME.gone  ─▶ Leaving    ┘
//! ```
//!
//! A listing is never an error because of what is in it. Deliberately absent: reading runs, parts and bytes of memories.

use std::collections::BTreeMap;
use std::io;

use crate::dir::{Dir, Locked};
use crate::error::SnapshotError;
use crate::layer::{Layer, open_dir};
use crate::manifest::{Link, Manifest};
use crate::name::{HALF_GONE, HALF_MADE, SnapshotName};
use crate::snapshot::CHAIN_MAX;

/// Something in a directory of snapshots.
#[derive(Debug)]
pub enum Listed {
    /// A snapshot, with all that it is built on.
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
    /// Something that is no snapshot, or no longer; or one that is built on what is not there, or is another one.
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
    /// It is not: [`crate::Store::sweep`] removes it, unless something of somebody's is in it.
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

/// Of what was looked at alone, what it is with all below it. One whose parent is gone was once called whole, and could not be
/// loaded.
pub(crate) fn with_chains(store: &Dir, listed: impl Iterator<Item = Listed>) -> Vec<Listed> {
    let mut listed: Vec<_> = listed.collect();
    let whole = listed.iter().filter_map(|one| match one {
        Listed::Whole { manifest, .. } => Some((&manifest.name, manifest)),
        _ => None,
    });
    let whole: BTreeMap<_, _> = whole.collect();
    let broken = |(at, one): (usize, &Listed)| match one {
        Listed::Whole { manifest, .. } => Some((at, chain_of(store, &whole, manifest).err()?)),
        _ => None,
    };
    let broken: Vec<_> = listed.iter().enumerate().filter_map(broken).collect();
    for (at, error) in broken {
        listed[at] = Listed::Damaged { name: listed[at].name().to_owned(), error };
    }
    listed
}

/// Whether all that it is built on is there, as [`crate::Store::snapshot`] would find it.
fn chain_of(store: &Dir, whole: &BTreeMap<&SnapshotName, &Manifest>, manifest: &Manifest) -> Result<(), SnapshotError> {
    let (mut child, mut length) = (manifest, 1);
    while let Some(Link { name, id: wanted }) = &child.parent {
        let (snapshot, parent, wanted) = (child.name.to_string(), name.to_string(), *wanted);
        if length == CHAIN_MAX {
            return Err(SnapshotError::ChainTooLong { snapshot: manifest.name.to_string(), max: CHAIN_MAX });
        }
        let Some(below) = whole.get(name) else {
            // It is read once more for what is wrong with it; by now it may be right.
            let Err(source) = look_whole(store, name.as_str()) else { return Ok(()) };
            return Err(SnapshotError::Parent { snapshot, parent, wanted, source: Box::new(source) });
        };
        if !below.is_or_was(wanted) {
            return Err(SnapshotError::OtherParent { snapshot, parent, wanted, found: below.id });
        }
        (child, length) = (below, length + 1);
    }
    Ok(())
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
