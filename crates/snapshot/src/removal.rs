//! Removing a directory: only of files that snapshots have.
//!
//! ```text
//!  entries ─┬─ manifest.json, parts, runs, ID.contents, each a regular file ─▶ unlinked one by one ─▶ rmdir
//!           └─ anything else ─▶ refused with its name, and nothing has changed
//! ```
//!
//! Whatever lay below a directory of snapshots was once removed with all that was in it, by its name alone: a directory of
//! somebody's documents, too. Nothing here goes into a directory within. Deliberately absent: asking whether the files are
//! whole; one that is damaged must go, too.

use std::io;

use rustix::fs::FileType;

use crate::dir::Dir;
use crate::error::SnapshotError;
use crate::manifest::{FILE, PARTS_FILE, RUNS_FILE};
use crate::name::ContentsId;

/// Whether a directory has nothing but files of a snapshot, whole or not.
pub(crate) fn check(dir: &Dir) -> Result<(), SnapshotError> {
    files(dir).map(drop)
}

/// Removes a directory in that of all snapshots, which is open and locked. Refused, it is as it was.
pub(crate) fn remove(store: &Dir, name: &str, dir: &Dir) -> Result<(), SnapshotError> {
    let files = files(dir)?;
    let removed = files.iter().try_for_each(|file| dir.remove_file(file)).and_then(|()| store.remove_empty_in(name));
    removed.map_err(failed(dir))
}

fn files(dir: &Dir) -> Result<Vec<String>, SnapshotError> {
    let entries = dir.entries().map_err(failed(dir))?;
    let foreign = entries.iter().find_map(|(name, kind)| Some((name, strangeness(name, *kind)?)));
    match foreign {
        Some((entry, what)) => Err(SnapshotError::Foreign { dir: dir.path().to_owned(), entry: entry.clone(), what }),
        None => Ok(entries.into_iter().map(|(name, _)| name).collect()),
    }
}

/// Why something is none of a snapshot's.
fn strangeness(name: &str, kind: FileType) -> Option<&'static str> {
    let is_contents = || name.strip_suffix(".contents").is_some_and(|id| id.parse::<ContentsId>().is_ok());
    let is_known = [FILE, PARTS_FILE, RUNS_FILE].contains(&name) || is_contents();
    match kind {
        FileType::RegularFile if is_known => None,
        FileType::RegularFile => Some("no file that a snapshot has"),
        FileType::Directory => Some("a directory"),
        FileType::Symlink => Some("a symbolic link"),
        _ => Some("no regular file"),
    }
}

fn failed(dir: &Dir) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
    let dir = dir.path().to_owned();
    move |source| SnapshotError::Removal { dir, source }
}
