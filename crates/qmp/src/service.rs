//! What stands behind a server: the commands.
//!
//! ```text
//! connection ── request, arguments checked ──▶ Service::call ──▶ answer
//!                                                   └──▶ EventSender
//! ```
//!
//! Deliberately absent: `qmp_capabilities`, which every connection answers by itself.

use std::future::Future;

use serde_json::{Map, Value};

use crate::error::QmpError;
use crate::events::EventSender;
use crate::schema::CommandSchema;

/// Answers requests. One service serves all connections at once.
pub trait Service: Send + Sync + 'static {
    /// The object `version` of the greeting, of the form `{"qemu": {"major": …, "minor": …, "micro": …}, "package": …}`.
    fn greeting(&self) -> Value;

    /// Every command there is.
    fn commands(&self) -> &'static [CommandSchema];

    /// Executes `command`, one of [`Service::commands`], with arguments that fit its schema.
    ///
    /// Requests of one connection come one after the other, those of different connections at the same time. A call that has
    /// begun is never abandoned because its client left, only if the server is shut down and its time is over. Events sent
    /// before the future is ready reach the client before the answer.
    fn call(
        &self,
        command: &'static CommandSchema,
        arguments: Map<String, Value>,
        events: &EventSender,
    ) -> impl Future<Output = Result<Value, QmpError>> + Send;
}
