//! Why a VM cannot be started: what was asked, what stands in the way, and what to do.

use std::path::PathBuf;

use device::config::ConfigError;
use device::{Refusal, Seq};
use handover::{HandoverError, NotOurs};
use journal::{JournalClosed, OpenError};
use memory::HostMemoryError;
use replay::{FoldError, UnreadableError};
use thiserror::Error;

use crate::fatal::Stopped;
use crate::heir::NotTheVm;
use crate::kvm_guest::KvmError;
use crate::snapshot_error::SnapshotError;
use crate::vm::RequestError;

/// Why a VM cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A hand-over has left the VM to another journal.
    #[error(transparent)]
    NotTheVm(#[from] NotTheVm),
    /// A record or a keyframe is not what its frame says.
    #[error("{0}; the records before it are intact: dcd replay shows them")]
    Unreadable(#[from] UnreadableError),
    /// A record does not follow from those before it.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The command line describes another VM.
    #[error(
        "the journal is of another VM: {what} is {journal} there and {asked} here; give the same options, none at all, or another --journal"
    )]
    OtherVm {
        /// What differs.
        what: String,
        /// As journaled.
        journal: String,
        /// As asked.
        asked: String,
    },
    /// The command line describes another VM than the one that is to be taken over.
    #[error(
        "the running VM is not the one that the options describe: {what} is {running} there and {asked} here; give the same options \
         or none at all (beside others, one that is left out counts as its default)"
    )]
    OtherRunningVm {
        /// What differs.
        what: String,
        /// As it runs.
        running: String,
        /// As asked.
        asked: String,
    },
    /// What is taken over needs a journal of its own.
    #[error("there is a journal in {} already{state}: a VM that is taken over begins a new one, give --journal NEW", dir.display())]
    NoNewJournal {
        /// The journal's directory.
        dir: PathBuf,
        /// What is known of it.
        state: &'static str,
    },
    /// A backend of the command line is in use and missing.
    #[error(
        "backend {id} ({by}) is missing: it was given by --object and {device} holds it ({holding}); give it again: --object {option}"
    )]
    BackendMissing {
        /// The backend.
        id: String,
        /// The record that made it.
        by: Seq,
        /// The device that holds it.
        device: String,
        /// How.
        holding: String,
        /// The option that makes it again.
        option: String,
    },
    /// A backend of the command line is not what it was.
    #[error(
        "backend {id} ({by}) has changed: its {what} was {journal} and is {asked}; give what it was, or another id"
    )]
    BackendChanged {
        /// The backend.
        id: String,
        /// The record that made it.
        by: Seq,
        /// What changed.
        what: &'static str,
        /// As journaled.
        journal: String,
        /// As asked.
        asked: String,
    },
    /// Host memory cannot be had.
    #[error("backend {id}: {reason}")]
    BackendMemory {
        /// The backend.
        id: String,
        /// What the host said.
        reason: String,
    },
    /// There is no guest on KVM.
    #[error("there is no guest on KVM; --accel soft needs nothing of the host")]
    Kvm(#[from] KvmError),
    /// Guest memory cannot be had.
    #[error("guest memory of {size_bytes} bytes: {error}")]
    GuestMemory {
        /// Its size.
        size_bytes: u64,
        /// What the host said.
        error: HostMemoryError,
    },
    /// An object of the command line is refused.
    #[error("--object {id}: {error}")]
    Object {
        /// The backend.
        id: String,
        /// Why.
        error: Box<RequestError>,
    },
    /// A device of the command line is refused.
    #[error("--device {id}: {error}")]
    Device {
        /// The device.
        id: String,
        /// Why.
        error: Box<RequestError>,
    },
    /// What every start records is refused.
    #[error(transparent)]
    Request(Box<RequestError>),
    /// The state cannot be mapped.
    #[error(transparent)]
    Mapping(Refusal),
    /// A snapshot cannot be begun with.
    #[error("the snapshot: {0}")]
    Snapshot(Box<SnapshotError>),
    /// The journal takes nothing.
    #[error(transparent)]
    Journal(#[from] JournalClosed),
    /// A VM cannot be taken from another process.
    #[error("the hand-over: {0}")]
    HandOver(HandoverError),
    /// The other process has it back.
    #[error(transparent)]
    NotOurs(NotOurs),
    /// The VM stopped while it was being started.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

// Their texts are in that of the error itself: as its sources they were said twice.
impl From<SnapshotError> for StartError {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(Box::new(error))
    }
}

impl From<HandoverError> for StartError {
    fn from(error: HandoverError) -> Self {
        Self::HandOver(error)
    }
}
