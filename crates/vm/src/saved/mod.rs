//! The saved form of a machine: its processors, its clock, and what a host has to know of them before it loads them.
//!
//! ```text
//!  Machine ──save──▶ MachineState ──to_bytes──▶ version 1 │ bytes ──from_bytes──▶ MachineState ──load──▶ Machine
//! ```
//!
//! Registers are kept as the kernel's ABI has them. Whether their values can be is for KVM to say, at the load. A form never
//! changes: another one has a number and a module of its own. Deliberately absent: files, checksums, memory, devices.

mod codec;
mod v1;

use driver::HpaRange;

use crate::vcpu::VcpuState;
use crate::vm::Virtualization;

/// The version in which [`MachineState::to_bytes`] writes.
pub const MACHINE_STATE_VERSION: u16 = 1;

/// All of a machine but its memory and devices.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineState {
    /// What host and guest agreed on.
    pub(crate) guest_abi: u32,
    pub(crate) virtualization: Virtualization,
    pub(crate) tsc_khz: u64,
    pub(crate) clock_ns: u64,
    /// RAM that the guest does not use for itself.
    pub(crate) free_ram: HpaRange,
    pub(crate) vcpus: Vec<VcpuState>,
}

/// Bytes that are no saved machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// They are of a form that this build does not read.
    #[error(
        "the saved machine is of version {found} and this build reads version {known}: use the build that wrote it"
    )]
    Version {
        /// The version that was named.
        found: u16,
        /// The version that is known.
        known: u16,
    },
    /// They cannot be decoded.
    #[error("the saved machine does not decode: {reason}")]
    Undecodable {
        /// What is wrong.
        reason: String,
    },
    /// Something stands behind them.
    #[error("the saved machine has {len_bytes} bytes, of which only the first {used_bytes} belong to it")]
    Trailing {
        /// All bytes.
        len_bytes: usize,
        /// What it takes.
        used_bytes: usize,
    },
    /// There is more of something than a machine has.
    #[error("the saved machine has {count} {what}, and no machine has more than {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there are at most.
        most: usize,
    },
}

impl MachineState {
    /// How many processors it has, which is how many a machine has to have that takes it.
    pub fn vcpus(&self) -> u32 {
        self.vcpus.len() as u32
    }

    /// Ticks of its time stamp counter in a millisecond. A host with another number takes it all the same, and tells the
    /// guest.
    pub fn tsc_khz(&self) -> u64 {
        self.tsc_khz
    }

    /// Who ran its ring 0.
    pub fn virtualization(&self) -> Virtualization {
        self.virtualization
    }

    /// The bytes, in version [`MACHINE_STATE_VERSION`].
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&v1::Machine::of(self))
    }

    /// The state of exactly these bytes.
    ///
    /// # Errors
    ///
    /// They are of another version, or of no state that can be.
    pub fn from_bytes(version: u16, bytes: &[u8]) -> Result<Self, SavedError> {
        match version {
            MACHINE_STATE_VERSION => codec::decode::<v1::Machine>(bytes)?.thawed(),
            found => Err(SavedError::Version { found, known: MACHINE_STATE_VERSION }),
        }
    }
}
