//! A simulated host, fabric manager, operator, disk and clock around the pure state machines: a seed is a run.
//!
//! ```text
//!  seed ─▶ dice ─▶ who comes next, and when ─▶ input ─▶ plan, decide, evolve ─▶ laws ─▶ record ─▶ gathered ─▶ disk
//!                    ▲                                                                              │
//!                    └────────────── replies leave once their record is on disk ◀─── write, sync ◀──┘
//!                                    a crash leaves what was synced and any prefix of the rest: fold, start again
//! ```
//!
//! One thread, one clock that jumps from event to event, no order that differs from run to run: the same seed gives the
//! same journal, byte for byte. Start with [`simulate`]. Deliberately absent: memory, slots and registers that only show
//! state (they are not in the journal), and the actors, whose only decision is who waits for whom.
#![forbid(unsafe_code)]

mod coverage;
mod crash;
mod devices;
mod dice;
mod failure;
mod host;
mod keeper;
mod misfortune;
mod mix;
mod operator;
mod run;
mod world;

pub use coverage::Coverage;
pub use crash::CrashPoints;
pub use failure::{Failure, Wrong};
pub use run::{Options, Outcome, Tally, simulate};
