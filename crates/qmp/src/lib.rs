//! The control plane's protocol: QMP, as any QMP client speaks it.
//!
//! ```text
//!  socket ─▶ json ─▶ request ─▶ check ─▶ Service ─▶ the commands
//!                                 ▲         │
//!                              schema       ▼
//!  socket ◀──────── outgoing ◀── print ◀─ answers, events
//! ```
//!
//! [`Server`] listens and keeps the connections; whoever implements [`Service`] has the commands, as
//! [`VmService`] does. Input is hostile until it has
//! passed `check`: everything before that has a named limit and an answer when it is reached. What lasts longer than an answer
//! is a job ([`Jobs`]). Programs introspect the schema ([`introspect`]), people read it ([`doc`]), validators get it as JSON
//! Schema ([`json_schema`]). Deliberately absent: out-of-band execution.

#![forbid(unsafe_code)]

mod check;
mod commands;
mod connection;
pub mod doc;
mod error;
mod events;
mod introspect;
mod jobs;
pub mod json;
pub mod json_schema;
mod listen;
mod outgoing;
mod print;
mod request;
pub mod schema;
mod server;
mod service;
mod socket_file;
mod strict;
mod turns;

pub use check::{Checked, check};
pub use commands::{COMMANDS, DEVICE_MEMBERS, EVENTS, OBJECT_MEMBERS, VmService, notice_event, prealloc_event};
pub use connection::{BACKLOG_LIMIT_BYTES, HELD_OUTPUT_BYTES};
pub use error::{ErrorClass, QmpError};
pub use events::EventSender;
pub use introspect::introspect;
pub use jobs::{JOB_LIMIT, JobError, JobHandle, JobResult, JobType, Jobs};
pub use listen::{ListenError, ListenSpec, ListenSpecError};
pub use outgoing::OUTPUT_LIMIT_BYTES;
pub use request::{Refused, Request};
pub use server::{CLIENT_LIMIT, Listeners, SHUTDOWN_LIMIT_MS, Server};
pub use service::Service;
pub use socket_file::SocketFile;
