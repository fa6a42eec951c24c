//! The journal: a gapless, chained row of records that is on disk before anything that follows from them leaves the
//! process.
//!
//! ```text
//! append ─ lock ─ decide ─▶ gathered ─▶ keeper: frames ─▶ group ─▶ parts ─▶ store ─▶ sync ─▶ on_durable(#N)
//!          (no IO, no wait)             (one thread, everything that has gathered is one group)
//!                                                            └─▶ follower: keyframes, sealed files
//! open ── newest keyframe ─▶ sealed frames ─▶ parts ─▶ groups ─▶ frames ─▶ records up to #N
//! ```
//!
//! A journal begins with its genesis, or at a state that another one has made.
//!
//! Bodies are opaque to all of this; [`form`] says what stands in them. Absent on purpose: retries (a failed write or sync is
//! final), and an asynchronous interface (the outbox waits, nobody else does).
#![forbid(unsafe_code)]

mod ancestor;
mod archive;
mod beginning;
pub mod clock;
pub mod codec;
mod copied;
mod directory;
mod follower;
pub mod form;
pub mod frame;
mod handle;
mod held;
mod keeper;
mod keyframe;
pub mod memory_store;
mod opening;
pub mod part;
pub mod portable;
pub mod record;
pub mod recover;
pub mod remains;
mod restore;
pub mod sled_store;
pub mod store;
mod succession;
mod whole;

pub use archive::{Archive, Visit};
pub use beginning::Beginning;
pub use clock::VmClock;
pub use directory::{SealedFile, sealed_files, stored_bytes};
pub use follower::{Follower, Sealing, TailError};
pub use handle::{CloseReason, Journal, JournalClosed, OnDurable, OnFailed, Options};
pub use keyframe::StoredKeyframe;
pub use opening::Opening;
pub use recover::{Damage, DamageCause, OpenError, Recovered, Stored, Torn};
pub use restore::{restore, restore_sealed};
pub use store::{Durability, Key, Store, StoreError};
pub use succession::{Succession, supersede};
pub use whole::{read, read_open, salvage};
