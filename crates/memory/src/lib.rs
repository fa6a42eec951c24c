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
mod inherited;
mod slots;
mod window;

pub use host_memory::{
    BackendDir, DescriptorError, FileError, FileKind, FileRun, HostMemory, HostMemoryError, HostMemorySpec,
    MissingFile, OutOfRange, Pulled, RunError, Surroundings,
};
pub use inherited::{INHERITED_MAX, inherited};
#[cfg(feature = "fake-hypervisor")]
pub use slots::FakeHypervisor;
pub use slots::{Hypervisor, SlotAccess, SlotCounts, SlotError, SlotLog, SlotRegion, SlotRequest, Slots, StuckSlot};
pub use window::{
    Mapping, Piece, Refused, Route, TrapCount, TrapReason, Window, WindowCounters, WindowError, WindowSlots,
};
