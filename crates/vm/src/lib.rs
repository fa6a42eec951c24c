//! Real processors for a guest: KVM, its vCPUs, and the freestanding guest image that runs on them.
//!
//! ```text
//!  Vm ─┬─ memory::Hypervisor ◀─ slots            exits ─▶ Exits        (platform)
//!      ├─ Interrupts ◀─ messages of devices      words, deaths ─▶ Observer
//!      └─ Machine ─┬─ vCPU threads: run, pause, save, load, kick, stop
//!                  └─ guest image in RAM: crates/driver in ring 3, jobs
//! ```
//!
//! [`probe`] says whether there is KVM and which. The image is built by this crate's build script from `guest/`, which
//! also holds what host and guest agree on. `unsafe` stands where KVM is told of this process' memory. Deliberately
//! absent: devices, the window, the journal.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod counters;
mod exits;
mod guest_memory;
mod image;
mod interrupts;
mod jobs;
mod machine;
mod saved;
mod vcpu;
mod vm;

pub use counters::ExitCounts;
pub use exits::Exits;
pub use guest::{pattern_byte, pattern_word};
pub use guest_memory::{GuestDriver, GuestPlatform, LayoutError};
pub use image::ImageError;
pub use interrupts::{Interrupts, Message, ROUTES_MAX};
pub use jobs::{
    AccessWidth, COPY_LEN_BYTES_MAX, Commanded, Counted, Job, JobAnswer, JobError, RunningJob, SweepAccess, Watched,
};
pub use machine::{GuestWord, Machine, MachineError, MachineRequest, Observer};
pub use saved::{MACHINE_STATE_VERSION, MachineState, SavedError};
pub use vcpu::{DeathReason, LoadError, MissingFeatures, Registers, VcpuDeath};
pub use vm::{Facts, Unavailable, Virtualization, Vm, probe};
