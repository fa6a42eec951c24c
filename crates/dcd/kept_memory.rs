//! Memory that the service manager keeps for backends, as the VM asks for it.
//!
//! ```text
//!  start        what was kept, by backend ─▶ its memory again        the rest is let go
//!  object-add   memfd ─▶ kept          object-del ─▶ let go
//! ```
//!
//! A manager that does not answer costs the bytes at the next start, not the VM: it is a warning. Deliberately absent: the
//! manager's protocol.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use actors::MemoryKeeper;

use crate::fd_store::FdStore;
use crate::service_manager::ServiceManager;

/// What the service manager keeps.
pub(crate) struct KeptMemory {
    store: FdStore,
    /// What it gave this process and nobody has asked for.
    given: Mutex<BTreeMap<String, OwnedFd>>,
}

impl KeptMemory {
    /// Of the manager that started this process. To be called once, before anything else is opened.
    pub(crate) fn of_environment() -> anyhow::Result<Self> {
        let (store, given) = FdStore::of_environment()?;
        Ok(Self { store, given: Mutex::new(given) })
    }

    /// The manager.
    pub(crate) fn manager(&self) -> &ServiceManager {
        self.store.manager()
    }
}

impl MemoryKeeper for KeptMemory {
    fn take(&self, backend: &str) -> Option<OwnedFd> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(backend)
    }

    fn keep(&self, backend: &str, memory: BorrowedFd<'_>) {
        if let Err(error) = self.store.keep(backend, memory) {
            tracing::warn!("backend {backend}: the service manager does not keep its bytes: {error}");
        }
    }

    fn forget(&self, backend: &str) {
        if let Err(error) = self.store.forget(backend) {
            tracing::warn!("backend {backend}: the service manager goes on keeping its bytes: {error}");
        }
    }
    fn forget_rest(&self) {
        let rest = std::mem::take(&mut *self.given.lock().unwrap_or_else(PoisonError::into_inner));
        rest.keys().for_each(|backend| self.forget(backend));
    }
}
