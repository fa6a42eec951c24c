//! Host memory, and the one lookup that answers every access of a guest to the CXL window.
//!
//! ```text
//!  guest address ──decoder──▶ DPA ──piece──▶ HostMemory + offset
//!                  └──────── Window ───────┘
//! ```
//!
//! The only mmap in the house. Deliberately absent: tags, extents and their rules; why a piece is mapped is decided
//! elsewhere.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod host_memory;
mod window;

pub use host_memory::{HostMemory, HostMemoryError, HostMemorySpec, MemoryKind, OutOfRange, Prealloc, Sharing};
pub use window::{Mapping, Piece, Window, WindowCounters, WindowError};
