//! The pure state machines of a Dynamic Capacity Device, one module per actor.
#![forbid(unsafe_code)]

mod stamp;

pub use stamp::{Seq, Stamp, VmTime};
