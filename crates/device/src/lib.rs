//! The pure state machines of a Dynamic Capacity Device, one module per actor.
//!
//! ```text
//!  plan(&state, &input) ─▶ steps        decide(&state, stamp, plan, answers) ─▶ facts, reply
//!                                       evolve(&mut state, stamp, &fact)
//! ```
//!
//! Start with [`operation::decide`], the one path of every input, then [`extents::State`]. Deliberately absent: files,
//! clocks, threads, host addresses, JSON, KVM, and any order that differs from run to run.
#![forbid(unsafe_code)]

pub mod backends;
pub mod config;
pub mod config_space;
pub mod decode;
pub mod extents;
mod hex;
pub mod inspect;
pub mod laws;
pub mod limits;
pub mod mailbox;
pub mod operation;
mod range;
mod refusal;
mod shared;
mod stamp;
pub mod vm;
pub mod windows;

pub use range::{DpaRange, first_overlap};
pub use refusal::Refusal;
pub use stamp::{Seq, Stamp, VmTime};
