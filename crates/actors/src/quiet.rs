//! Quiet: a moment in which nothing of a VM is under way, so that all of it can be taken.
//!
//! ```text
//!  inputs wait ─▶ clock and guest stand still ─▶ drain until nothing moves any more ─▶ Quiet ─▶ all goes on
//!                                                └ actors have heard everything, every record is durable,
//!                                                  the outbox is empty, every doorbell is clear
//! ```
//!
//! Deliberately absent: what is done in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use device::Seq;
use device::vm::Vm as State;
use journal::JournalClosed;
use memory::HostMemory;
use thiserror::Error;
use tokio::sync::RwLockWriteGuard;
use tokio::task::spawn_blocking;

use crate::fatal::Stopped;
use crate::guest_vcpu::Guest;
use crate::parts::{Parts, read};
use crate::vm::{RequestError, RunState, Vm};

/// How long a VM may take to become quiet. Devices answer in milliseconds; the journal's disk may stall.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Why a VM does not become quiet.
#[derive(Debug, Error)]
pub enum QuietError {
    /// There is nobody left to answer.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// An actor does not answer.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Records cannot be made durable.
    #[error(transparent)]
    Journal(#[from] JournalClosed),
    /// Something stays under way.
    #[error(
        "after {seconds} s something is still under way (the last record is {last}): nothing was done, the VM goes on"
    )]
    Restless {
        /// How long it was waited for.
        seconds: u64,
        /// The last record.
        last: Seq,
    },
}

/// A quiet VM. When it is dropped, operators are heard again; the guest runs again after [`Quiet::go_on`].
pub(crate) struct Quiet<'a> {
    pub(crate) vm: &'a Vm,
    pub(crate) parts: Arc<Parts>,
    /// The last record.
    pub(crate) last: Seq,
    /// Since when it stands still.
    pub(crate) since: Instant,
    /// What the VM did before, and does again.
    pub(crate) was: RunState,
    _plugging: RwLockWriteGuard<'a, ()>,
    _inputs: RwLockWriteGuard<'a, ()>,
}

impl Vm {
    /// Waits until nothing of the VM is under way, and keeps it so. The state is that of all actors, after the last record.
    pub(crate) async fn quiet(&self) -> Result<(Quiet<'_>, State), QuietError> {
        let plugging = self.shared.plugging.write().await;
        let inputs = self.shared.inputs.write().await;
        let (parts, was) = (self.parts(), self.run_state());
        // The guest does not stand still for a disk where that can be waited for before.
        flush(&parts).await?;
        // Behind every `stop` and `cont` that is on its way to the guest.
        read(&parts.guest, |_: &Option<Guest>| ()).await?;
        let since = Instant::now();
        parts.journal.clock().pause();
        stand_still(&parts).await?;
        match drain(&parts).await {
            Ok((state, last)) => {
                Ok((Quiet { vm: self, parts, last, since, was, _plugging: plugging, _inputs: inputs }, state))
            }
            Err(error) => {
                go_on(&parts, was);
                Err(error)
            }
        }
    }
}

impl Quiet<'_> {
    /// Lets clock and guest run again, if they did.
    pub(crate) fn go_on(&self) {
        go_on(&self.parts, self.was);
    }

    /// The memory of every backend.
    pub(crate) async fn memories(&self) -> Result<BTreeMap<String, Arc<HostMemory>>, Stopped> {
        self.parts.memories().await
    }
}

fn go_on(parts: &Parts, was: RunState) {
    if was == RunState::Running {
        parts.journal.clock().resume();
        parts.slots.processor.run();
    }
}

/// Returns when the guest has left every access.
async fn stand_still(parts: &Parts) -> Result<(), Stopped> {
    let processor = parts.slots.processor.clone();
    let still = spawn_blocking(move || {
        processor.pause();
        processor.gate.wait_empty();
    });
    still.await.map_err(|_| Stopped)
}

/// Waits until a look at all actors has seen no new record, and nothing waits to leave.
async fn drain(parts: &Parts) -> Result<(State, Seq), QuietError> {
    let begun = Instant::now();
    loop {
        let last = parts.journal.last();
        let state = parts.state().await?;
        // Behind what extent managers told mailboxes.
        for device in state.devices.keys() {
            parts.read_of(*device, |actors| &actors.mailbox, |_: &device::mailbox::State| ()).await?;
        }
        flush(parts).await?;
        let is_settled = parts.slots.outbox.is_empty() && parts.platform().is_settled();
        if is_settled && parts.journal.last() == last {
            return Ok((state, last));
        }
        if begun.elapsed() > DRAIN_TIMEOUT {
            return Err(QuietError::Restless { seconds: DRAIN_TIMEOUT.as_secs(), last });
        }
        tokio::task::yield_now().await;
    }
}

/// Returns when every record so far is durable.
async fn flush(parts: &Parts) -> Result<(), QuietError> {
    let journal = parts.journal.clone();
    // Mostly it is: another thread would have to wake up to say so.
    if journal.durable() == journal.last() {
        return Ok(());
    }
    spawn_blocking(move || journal.flush()).await.map_err(|_| Stopped)??;
    Ok(())
}
