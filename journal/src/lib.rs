//! The journal: a gapless, chained row of records that is on disk before anything that follows from them leaves the
//! process.
//!
//! ```text
//! append ─ lock ─ decide ─▶ gathered ─▶ keeper: frames ─▶ group ─▶ parts ─▶ store ─▶ sync ─▶ on_durable(#N)
//!          (no IO, no wait)             (one thread, everything that has gathered is one group)
//! open ── scan ─▶ parts ─▶ groups ─▶ frames ─▶ genesis, records #1..#N
//! ```
//!
//! Bodies are opaque down here: what a record means is decided above the frames. Absent on purpose: retries (a failed
//! write or sync is final), an asynchronous interface (the outbox waits, nobody else does), and removal of old records.
#![forbid(unsafe_code)]

pub mod clock;
pub mod codec;
pub mod form;
pub mod frame;
mod handle;
mod keeper;
pub mod memory_store;
pub mod part;
pub mod portable;
pub mod record;
pub mod recover;
mod restore;
pub mod sled_store;
pub mod store;

pub use clock::VmClock;
pub use handle::{CloseReason, Journal, JournalClosed, OnDurable, OnFailed, Options, read, salvage};
pub use recover::{Damage, DamageCause, OpenError, Recovered, Stored, Torn};
pub use restore::restore;
pub use store::{Durability, Key, Store, StoreError};
