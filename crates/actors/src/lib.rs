//! The actors of a VM: thin shells around the pure state machines, an outbox, and what starts and stops them.
//!
//! ```text
//!  Mailbox ──▶ ExtentManager ──▶ BackendRegistry ──▶ WindowMapper      asks
//!     ▲  └────────────┬──────────────────────────────────┘
//!   Face          Recorder ──▶ journal ──▶ Outbox ──▶ registers, interrupts, answers, notices
//! ```
//!
//! Start with [`start`] and [`Vm`]; the one path of an operation is `ExtentManager::operate`. Deliberately absent: QMP,
//! and every decision; those are in the device.
#![forbid(unsafe_code)]

mod ahead;
mod backend_registry;
mod birth;
mod bus;
mod captured;
mod effect;
mod extent_manager;
mod fatal;
mod gate;
mod guest_side;
mod guest_vcpu;
mod hand_over;
mod heir;
mod held;
mod host_memory;
mod instruction_bus;
mod kvm_guest;
mod mailbox;
mod mark;
mod open;
mod outbox;
mod parts;
mod plug;
mod processor;
mod pulse;
mod quiet;
mod read;
mod recorder;
mod refill;
mod restore;
mod resume;
mod save;
mod sink;
mod slots;
mod snapshot_error;
mod snapshots;
mod start;
mod start_error;
mod take_over;
mod vm;
mod window_mapper;

pub use bus::GuestBus;
pub use effect::NoticeListener;
pub use fatal::{Fatal, Stopped};
pub use guest_vcpu::{Guest, GuestProgram};
pub use hand_over::{HandOverError, HandedOver};
pub use heir::NotTheVm;
pub use host_memory::{MemoryKeeper, PreallocListener};
pub use instruction_bus::InstructionBus;
pub use kvm_guest::KvmError;
pub use quiet::QuietError;
pub use restore::{Loading, RestoreOptions};
pub use snapshot::SnapshotName;
pub use snapshot_error::SnapshotError;
pub use snapshots::{
    ListedSnapshot, ListedState, Loaded, SaveForm, SaveProgress, SaveRequest, SaveWish, Saved, SnapshotFacts,
};
pub use start::{Accel, GuestReturn, JournalPlace, Object, Restored, StartOptions, Started, VmRequest, start};
pub use start_error::StartError;
pub use take_over::{TakenOver, take_over};
pub use vm::{LookError, MachineHandle, RequestError, RunState, Vm};
