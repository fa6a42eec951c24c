//! Tells every client that something happened.
//!
//! ```text
//!            ┌──▶ Outgoing of client 1
//! send ──────┼──▶ Outgoing of client 2      printed once, copied to each, nobody waited for
//!            └──▶ Outgoing of client 3
//! ```
//!
//! Events reach every client that has negotiated, in the order in which they were sent. An event that is sent before the answer
//! to a request is ready comes before that answer. Deliberately absent: memory. A client that comes later does not hear what was
//! before; it queries.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::outgoing::Outgoing;
use crate::print;

/// A handle to all clients. Clones are handles to the same clients. Usable from any thread, with or without a tokio runtime.
#[derive(Clone, Default)]
pub struct EventSender {
    clients: Arc<Mutex<Vec<Arc<Outgoing>>>>,
}

impl EventSender {
    /// A handle that has no clients until a server is started with it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends the event `name` with the members of `data` (null: without data) to every client. Never blocks: a client for which
    /// too much waits already is dropped instead.
    pub fn send(&self, name: &'static str, data: Value) {
        // Printing is for nothing if nobody listens, and takes too long for the lock if somebody does.
        if self.clients().is_empty() {
            return;
        }
        // A host clock before 1970 is not worth a panic.
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut event = Vec::with_capacity(512);
        print::event(name, &data, since_epoch.as_secs(), since_epoch.subsec_micros(), &mut event);
        for client in self.clients().iter() {
            client.event(&event);
        }
    }

    /// From now on the client hears every event, until the guard is dropped.
    pub(crate) fn subscribe(&self, client: Arc<Outgoing>) -> Subscription {
        self.clients().push(Arc::clone(&client));
        Subscription { events: self.clone(), client }
    }

    fn clients(&self) -> MutexGuard<'_, Vec<Arc<Outgoing>>> {
        // A list that a panicking thread left behind is still a list.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps one client among those that hear events.
pub(crate) struct Subscription {
    events: EventSender,
    client: Arc<Outgoing>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.events.clients().retain(|client| !Arc::ptr_eq(client, &self.client));
    }
}
