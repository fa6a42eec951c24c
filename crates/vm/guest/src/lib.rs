//! What the host and the guest image agree on: where things are in guest memory, and what the words in them mean.
//!
//! ```text
//!  0010_0000  BootPage       host ─▶ guest: platform, policy, clock, attention
//!  0010_1000  StatusPage     guest ─▶ host: how vCPU 0 fares
//!  0010_2000  descriptor tables
//!  0020_0000  the image, at most 2 MiB
//!  0040_0000  one block of 512 KiB for each vCPU: VcpuPage, JobPage, job data, task state, ring 0 stack, ring 3 stack
//!  then       page tables, heap, and whatever is free
//! ```
//!
//! All numbers are little-endian words of 64 bits. The guest is not trusted: the host checks what it reads here.
//! Deliberately absent: what jobs do (the image) and who asks for them (`vm`).
#![no_std]
#![forbid(unsafe_code)]

mod abi;
mod boot_page;
mod job_page;
mod pattern;
pub mod place;
mod status_page;
mod vcpu_page;

pub use abi::ABI;
pub use boot_page::{BOOT_MAGIC, BUSY_TAGS_MAX, BootPage, ROOT_BUSES_MAX};
pub use job_page::{JobKind, JobPage, NO_ANSWER, NONE_WRONG, WATCHED_VALUES_MAX};
pub use pattern::{pattern_byte, pattern_word};
pub use status_page::{StatusPage, StatusState};
pub use vcpu_page::{TEXT_LEN_BYTES_MAX, Text, VcpuPage};
