//! What ends a VM before its time, and how everybody learns of it.

use std::sync::Arc;

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

/// Raised once.
#[derive(Clone)]
pub(crate) struct FatalFlag {
    reason: Arc<watch::Sender<Option<Fatal>>>,
    outbox: Outbox,
}

impl FatalFlag {
    pub(crate) fn new(outbox: Outbox) -> Self {
        Self { reason: Arc::new(watch::Sender::new(None)), outbox }
    }

    /// Stops the VM: from now on nothing leaves it.
    pub(crate) fn raise(&self, fatal: Fatal) -> Stopped {
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

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<Fatal>> {
        self.reason.subscribe()
    }
}
