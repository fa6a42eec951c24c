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

mod backend_registry;
mod bus;
mod effect;
mod extent_manager;
mod fatal;
mod gate;
mod guest_vcpu;
mod host_memory;
mod instruction_bus;
mod kvm_guest;
mod mailbox;
mod outbox;
mod plug;
mod processor;
mod read;
mod recorder;
mod resume;
mod sink;
mod slots;
mod start;
mod vm;
mod window_mapper;

pub use bus::GuestBus;
pub use effect::NoticeListener;
pub use fatal::{Fatal, Stopped};
pub use guest_vcpu::{Guest, GuestProgram};
pub use host_memory::PreallocListener;
pub use instruction_bus::InstructionBus;
pub use kvm_guest::KvmError;
pub use start::{Accel, JournalPlace, Object, StartError, StartOptions, Started, VmRequest, start};
pub use vm::{LookError, RequestError, RunState, Vm};
