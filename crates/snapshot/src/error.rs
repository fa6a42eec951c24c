//! Why a snapshot cannot be written, read or removed.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::digest::{Digest, SnapshotId};
use crate::name::NameError;

/// Why something with a snapshot did not happen.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The directory of all snapshots.
    #[error("directory of snapshots {}: cannot {doing} it: {source}", dir.display())]
    Store {
        /// The directory.
        dir: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// Another process holds the directory for longer than any step takes.
    #[error(
        "directory of snapshots {}: a process has held its lock for {waited_ms} ms; end that process (see 'fuser') or try again",
        dir.display()
    )]
    StoreLocked {
        /// The directory.
        dir: PathBuf,
        /// How long this one waited.
        waited_ms: u64,
    },
    /// There is none of that name.
    #[error("there is no snapshot '{snapshot}' in {}; list the snapshots for those that are there", dir.display())]
    NotThere {
        /// The name.
        snapshot: String,
        /// The directory of snapshots.
        dir: PathBuf,
    },
    /// There is one of that name.
    #[error("there is a snapshot '{snapshot}' in {} already; delete it or take another name", dir.display())]
    Exists {
        /// The name.
        snapshot: String,
        /// The directory of snapshots.
        dir: PathBuf,
    },
    /// Somebody writes one of that name.
    #[error("snapshot '{snapshot}' is being written; wait for that, or take another name")]
    BeingWritten {
        /// The name.
        snapshot: String,
    },
    /// Somebody removes it.
    #[error("snapshot '{snapshot}' is being removed; wait for that, or take another name")]
    BeingRemoved {
        /// The name.
        snapshot: String,
    },
    /// Somebody reads it, or writes a snapshot on top of it.
    #[error("snapshot '{snapshot}' is open, here or in another process; let go of it, and try again")]
    InUse {
        /// The name.
        snapshot: String,
    },
    /// Others are built on it.
    #[error(
        "snapshot '{snapshot}' cannot be deleted: it is the parent of {}; delete what is built on it first, or make it independent: {}",
        list(children),
        flatten_each(dir, children)
    )]
    HasChildren {
        /// The name.
        snapshot: String,
        /// The directory of snapshots.
        dir: PathBuf,
        /// Those whose parent it is.
        children: Vec<String>,
    },
    /// A directory that is to go is no snapshot's, or not only.
    #[error(
        "{} is not removed: '{}' in it is {what}, and is somebody's; move that away and try again",
        dir.display(), entry
    )]
    Foreign {
        /// The directory.
        dir: PathBuf,
        /// What in it is none of a snapshot's.
        entry: String,
        /// What it is instead.
        what: &'static str,
    },
    /// A directory cannot be removed.
    #[error("{}: cannot remove it: {source}", dir.display())]
    Removal {
        /// The directory.
        dir: PathBuf,
        /// What the host said.
        source: io::Error,
    },
    /// A file could not be written or read.
    #[error("snapshot '{snapshot}': cannot {doing} '{file}': {source}")]
    File {
        /// The snapshot.
        snapshot: String,
        /// The file in its directory, or where a directory is.
        file: String,
        /// What was tried.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error(
        "snapshot '{snapshot}': '{file}' is damaged: {damage}; get the directory back from a copy, or delete the snapshot"
    )]
    Damaged {
        /// The snapshot.
        snapshot: String,
        /// The file in its directory.
        file: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A file is of a format that this build does not know.
    #[error(
        "snapshot '{snapshot}': '{file}' is in format {found}, and this build reads format {known}: open it with the build that wrote it"
    )]
    Format {
        /// The snapshot.
        snapshot: String,
        /// The file in its directory.
        file: String,
        /// Its format.
        found: u32,
        /// The one that is known.
        known: u32,
    },
    /// The parent is not there or cannot be read.
    #[error("snapshot '{snapshot}' is built on '{parent}' ({wanted}), which cannot be used: {source}")]
    Parent {
        /// The snapshot.
        snapshot: String,
        /// Its parent's name.
        parent: String,
        /// Its parent's id.
        wanted: SnapshotId,
        /// What is wrong with the parent.
        source: Box<SnapshotError>,
    },
    /// Another snapshot stands under the parent's name.
    #[error(
        "snapshot '{snapshot}' is built on '{parent}' with id {wanted}, but the '{parent}' that is there has id {found}; get the right one back from a copy"
    )]
    OtherParent {
        /// The snapshot.
        snapshot: String,
        /// Its parent's name.
        parent: String,
        /// The id that the parent had.
        wanted: SnapshotId,
        /// The id of the one under its name.
        found: SnapshotId,
    },
    /// The parent lies in another directory of snapshots.
    #[error("snapshot '{snapshot}' cannot be built on '{parent}', which is not in {}; take a full one", dir.display())]
    ForeignParent {
        /// The snapshot.
        snapshot: String,
        /// Its parent's name.
        parent: String,
        /// The directory of snapshots.
        dir: PathBuf,
    },
    /// It was replaced by another while it was flattened.
    #[error("snapshot '{snapshot}' is another one by now: it was {was} and is {is}; look at it and try again")]
    Replaced {
        /// Its name.
        snapshot: String,
        /// The id that it had.
        was: SnapshotId,
        /// The id of the one under its name.
        is: SnapshotId,
    },
    /// Too many are built on each other.
    #[error("snapshot '{snapshot}' would be more than {max} in a chain; take a full one")]
    ChainTooLong {
        /// The snapshot.
        snapshot: String,
        /// How many a chain has at most.
        max: usize,
    },
    /// It has no such memory.
    #[error("snapshot '{snapshot}' has no memory '{id}'; it has {}", list(known))]
    NoMemory {
        /// The snapshot.
        snapshot: String,
        /// What was asked.
        id: String,
        /// What it has.
        known: Vec<String>,
    },
    /// Its bytes are not in the snapshot.
    #[error("snapshot '{snapshot}' has memory '{id}' by reference only: its bytes are in '{path}'; open that")]
    ByReference {
        /// The snapshot.
        snapshot: String,
        /// What was asked.
        id: String,
        /// Where the bytes are.
        path: String,
    },
    /// It has no such part.
    #[error("snapshot '{snapshot}' has no part '{part}'; it has {}", list(known))]
    NoPart {
        /// The snapshot.
        snapshot: String,
        /// What was asked.
        part: String,
        /// What it has.
        known: Vec<String>,
    },
    /// The memory is longer or shorter than the one in the snapshot.
    #[error(
        "snapshot '{snapshot}': memory '{id}' has {expected_bytes} bytes there, and {found_bytes} here; give one of the same length"
    )]
    Length {
        /// The snapshot.
        snapshot: String,
        /// The memory.
        id: String,
        /// Bytes of it in the snapshot.
        expected_bytes: u64,
        /// Bytes of the one that was given.
        found_bytes: u64,
    },
    /// A range that is not in the memory.
    #[error("snapshot '{snapshot}': bytes {start:#x} to {end:#x} are not inside memory '{id}' of {len_bytes:#x} bytes")]
    Range {
        /// The snapshot.
        snapshot: String,
        /// The memory.
        id: String,
        /// First byte.
        start: u64,
        /// Byte behind the last.
        end: u64,
        /// Bytes of the memory.
        len_bytes: u64,
    },
    /// The parent does not have what a memory is to be built on.
    #[error(
        "snapshot '{snapshot}': memory '{id}' of {len_bytes} bytes cannot be built on the parent's: {reason}; copy all of it"
    )]
    NoBase {
        /// The snapshot.
        snapshot: String,
        /// The memory.
        id: String,
        /// Its length.
        len_bytes: u64,
        /// What the parent has instead.
        reason: String,
    },
    /// Two of one name.
    #[error("snapshot '{snapshot}': there is {what} '{name}' already")]
    Twice {
        /// The snapshot.
        snapshot: String,
        /// A part, a memory, a fact.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A text that is no name.
    #[error("snapshot '{snapshot}': '{name}' is no name of {what}: {reason}")]
    Name {
        /// The snapshot.
        snapshot: String,
        /// A part, a memory, a fact.
        what: &'static str,
        /// The text.
        name: String,
        /// Why not.
        reason: NameError,
    },
    /// More than the format holds.
    #[error("snapshot '{snapshot}': {what}: {count} are more than the {max} that a snapshot holds")]
    TooMany {
        /// The snapshot.
        snapshot: String,
        /// What there is too much of, with its unit.
        what: String,
        /// How many.
        count: u64,
        /// How many there can be.
        max: u64,
    },
    /// The writers that were given back are not those that were handed out.
    #[error("snapshot '{snapshot}': the writer of memory '{id}' {reason}")]
    Writers {
        /// The snapshot.
        snapshot: String,
        /// The memory.
        id: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// It has another length than the manifest says.
    #[error("it has {found_bytes} bytes, and had {expected_bytes}")]
    Length {
        /// Its length.
        found_bytes: u64,
        /// Its length when it was written.
        expected_bytes: u64,
    },
    /// It is longer than such a file can be.
    #[error("it has more than {max_bytes} bytes")]
    TooLong {
        /// What such a file has at most.
        max_bytes: u64,
    },
    /// Its bytes are others.
    #[error("its digest is {found}, and was {expected}")]
    Digest {
        /// Of what is there.
        found: Digest,
        /// Of what was written.
        expected: Digest,
    },
    /// It is cut off.
    #[error("it ends inside what begins at byte {at}")]
    Cut {
        /// Where that begins.
        at: u64,
    },
    /// It does not begin as such a file does.
    #[error("it does not begin with '{magic}'")]
    Magic {
        /// What such a file begins with.
        magic: &'static str,
    },
    /// It does not end as a manifest does.
    #[error("it does not end with its digest: it was cut off, or changed by hand")]
    Unsigned,
    /// It is no JSON, or not of this shape.
    #[error("{0}")]
    Json(String),
    /// It says what cannot be.
    #[error("it says what cannot be: {0}")]
    Says(String),
    /// A part in it cannot be unpacked.
    #[error("'{name}' in it does not unpack to its {expected_bytes} bytes: {reason}")]
    Unpack {
        /// The part, or the memory whose runs they are.
        name: String,
        /// Its length.
        expected_bytes: u64,
        /// What came instead.
        reason: String,
    },
    /// The runs of a memory are not such.
    #[error("the runs of memory '{id}': {reason}")]
    Runs {
        /// The memory.
        id: String,
        /// What is wrong with them.
        reason: String,
    },
    /// Bytes where nothing was written.
    #[error("byte {offset_bytes:#x} is not 0, and belongs to nothing that was written")]
    Stray {
        /// Where.
        offset_bytes: u64,
    },
}

/// The commands after which none of these needs a parent.
fn flatten_each(dir: &Path, children: &[String]) -> String {
    // Who reads this may be elsewhere.
    let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    let flatten = |name: &String| format!("dcd snapshot flatten {}", dir.join(name).display());
    children.iter().map(flatten).collect::<Vec<_>>().join("; ")
}

fn list(names: &[String]) -> String {
    match names {
        [] => "none".into(),
        names => names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", "),
    }
}
