//! The bytes of the standard: what a host and a CXL Type 3 Dynamic Capacity Device put in front of each other.
//!
//! Layouts only: registers, configuration space, mailbox headers, payloads, event records and extents, each with the
//! section of CXL r4.0 that fixes it. Deliberately absent: state, decisions, allocation of meaning to a value; a value
//! that the standard does not know stays representable. `no_std`, so that a freestanding guest uses the same types.
#![no_std]

extern crate alloc;

mod address;
mod tag;

pub use address::{BlockSize, BlockSizeError, CAPACITY_MULTIPLE_BYTES, Dpa, Hpa};
pub use tag::{Tag, TagError};
