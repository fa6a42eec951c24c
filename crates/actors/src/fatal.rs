//! What ends a VM before its time, and how everybody learns of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::Seq;
use thiserror::Error;
use tokio::sync::watch;
use vm::VcpuDeath;

use crate::outbox::Outbox;

/// Why the VM stopped. The first reason stays.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fatal {
    /// Deciding panicked; the input and the message are the last record.
    #[error("{seq}: deciding panicked: {message}")]
    Panicked {
        /// The record.
        seq: Seq,
        /// The panic's message.
        message: String,
    },
    /// The journal takes no more.
    #[error("the journal failed after {last_durable}: {reason}")]
    Journal {
        /// The last durable record.
        last_durable: Seq,
        /// What the store said.
        reason: String,
    },
    /// A record does not follow from those before it: the next start could not fold it.
    #[error("{seq} does not follow from the records before it, which is a bug: {reason}")]
    Unfit {
        /// The record.
        seq: Seq,
        /// Why.
        reason: String,
    },
    /// An actor is gone without a record of why.
    #[error("the actor {actor} is gone")]
    ActorGone {
        /// Which.
        actor: &'static str,
    },
    /// What is mapped could not be made what the state says.
    #[error("what the guest sees cannot be made what the state says: {reason}")]
    Mapping {
        /// What stood in the way.
        reason: String,
    },
    /// The VM was torn down to be restored, and cannot be.
    #[error("after {last} the VM was torn down, and what was saved of it cannot be restored: {reason}")]
    Restore {
        /// The last record.
        last: Seq,
        /// Why.
        reason: String,
    },
    /// The VM runs on bytes that are not those that were saved.
    #[error("the guest was given bytes that are not those that were saved: {reason}")]
    Snapshot {
        /// What is wrong with them.
        reason: String,
    },
    /// Another process has the VM, as it was asked: no failure, but the end of it here.
    #[error("{holder}{}", doubt.as_ref().map(|doubt| format!("; it did not say so itself: {doubt}")).unwrap_or_default())]
    HandedOver {
        /// Who has it.
        holder: String,
        /// Why it is not known that it runs there.
        doubt: Option<String>,
    },
    /// A processor of the guest ended by itself.
    #[error("after {last}: {death}")]
    Vcpu {
        /// The last record.
        last: Seq,
        /// What became of the processor.
        death: VcpuDeath,
    },
}

/// The asker gets no answer because the VM has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the VM has stopped")]
pub struct Stopped;

/// Where the reason is seen, over all lives of a VM.
pub(crate) type Raised = Arc<watch::Sender<Option<Fatal>>>;

/// Raised once.
#[derive(Clone)]
pub(crate) struct FatalFlag {
    reason: Raised,
    outbox: Outbox,
    /// Whether the life that it is of is over; what becomes of its remains is of no interest.
    is_over: Arc<AtomicBool>,
}

impl FatalFlag {
    /// For one life of a VM, with an outbox of its own.
    pub(crate) fn new(reason: Raised, outbox: Outbox) -> Self {
        Self { reason, outbox, is_over: Arc::default() }
    }

    /// The life is over. Actors that have ended are missed by whoever holds a register of theirs; that is no alarm.
    pub(crate) fn life_is_over(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// Stops the VM: from now on nothing leaves it.
    pub(crate) fn raise(&self, fatal: Fatal) -> Stopped {
        if self.is_over.load(Ordering::SeqCst) {
            return Stopped;
        }
        self.outbox.close();
        self.reason.send_if_modified(|reason| {
            let is_first = reason.is_none();
            if is_first {
                tracing::error!("{fatal}");
                *reason = Some(fatal);
            }
            is_first
        });
        Stopped
    }

    pub(crate) fn is_raised(&self) -> bool {
        self.reason.borrow().is_some()
    }
}
