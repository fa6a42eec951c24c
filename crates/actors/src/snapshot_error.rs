//! Why a VM is not captured, not saved or not restored.

use std::path::PathBuf;

use journal::OpenError;
use platform::{LoadError, SaveError};
use snapshot::{NameError, SnapshotError as StoreError};
use thiserror::Error;
use vm::MachineError;

use crate::fatal::Stopped;
use crate::quiet::QuietError;
use crate::start_error::StartError;

/// Why a VM is not captured or not restored.
#[derive(Debug, Error)]
pub enum SnapshotError {
    /// The VM does not become quiet.
    #[error(transparent)]
    Quiet(#[from] QuietError),
    /// There is nobody left to answer.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// A journal cannot begin with it.
    #[error(transparent)]
    Journal(Box<OpenError>),
    /// It cannot be read or written.
    #[error(transparent)]
    Store(Box<StoreError>),
    /// Whoever wanted it saved does not any more.
    #[error("it is not wanted any more: nothing is saved")]
    Unwanted,
    /// There is no place for snapshots.
    #[error(
        "this VM has no place for snapshots: start it with --snapshots DIR, or with a journal, in whose directory they are then"
    )]
    NoStore,
    /// A load that was cut short cannot be ended.
    #[error(
        "files of backends were about to get their bytes from the snapshot {} when the program was cut short, and cannot: {reason}; \
         put it back, or remove {} to go on with files of which a part has them", snapshot.display(), mark.display()
    )]
    Refill {
        /// Its directory.
        snapshot: PathBuf,
        /// What says so.
        mark: PathBuf,
        /// Why.
        reason: String,
    },
    /// Something cannot be noted beside a journal.
    #[error("it cannot be noted in {} what is about to be done: {source}", dir.display())]
    Mark {
        /// The journal's directory.
        dir: PathBuf,
        /// What the host said.
        source: std::io::Error,
    },
    /// A name is none.
    #[error("'{name}' is no name of a snapshot: {error}")]
    Name {
        /// What was given.
        name: String,
        /// Why.
        error: NameError,
    },
    /// It is to be begun with, and there is a journal to go on with.
    #[error("there is a journal in {} already: leave the snapshot out to resume that, or give another --journal", dir.display())]
    JournalThere {
        /// The journal's directory.
        dir: PathBuf,
    },
    /// A backend whose bytes were to stay where they are is none that has them elsewhere.
    #[error("the bytes of backend '{id}' cannot stay where they are: {reason}")]
    ByReference {
        /// The backend.
        id: String,
        /// Why.
        reason: &'static str,
    },
    /// The directory does not hold snapshots.
    #[error("{} names no snapshot: it is the directory of one, in the directory of all of them", path.display())]
    NoName {
        /// What was given.
        path: PathBuf,
    },
    /// A part is not there.
    #[error("its part '{name}' is missing")]
    Missing {
        /// Which.
        name: &'static str,
    },
    /// A part cannot be read.
    #[error("its part '{name}': {reason}")]
    Part {
        /// Which.
        name: String,
        /// Why.
        reason: String,
    },
    /// A device has no registers.
    #[error("the device in root port {port} has no registers in it")]
    NoRegisters {
        /// Its port.
        port: u8,
    },
    /// Registers have no device.
    #[error("it has registers of a device in root port {port}, where its state has none")]
    NoDevice {
        /// The port.
        port: u8,
    },
    /// Registers are not saved.
    #[error("registers: {0}")]
    Save(#[from] SaveError),
    /// Registers are not taken.
    #[error("registers: {0}")]
    Load(Box<LoadError>),
    /// Processors are not saved, or not taken.
    #[error("processors: {0}")]
    Machine(Box<MachineError>),
    /// It runs on something else.
    #[error("it was saved with {saved} and this run has {asked}: give {option}")]
    Accel {
        /// What ran it.
        saved: String,
        /// What is to run it.
        asked: String,
        /// What to give.
        option: String,
    },
    /// A memory is not there, or too many are.
    #[error("the memory '{id}': {reason}")]
    Memory {
        /// Which.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// A life cannot begin.
    #[error(transparent)]
    Start(Box<StartError>),
}

/// What is long stands in a box, so that a result is short.
macro_rules! boxed {
    ($($error:ty => $variant:ident,)*) => {
        $(impl From<$error> for SnapshotError {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })*
    };
}

boxed! {
    StoreError => Store,
    LoadError => Load,
    MachineError => Machine,
    OpenError => Journal,
    StartError => Start,
}
