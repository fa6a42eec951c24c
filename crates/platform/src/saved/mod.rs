//! Saved forms: what a guest has programmed beside the devices' own state, as bytes that a later build reads.
//!
//! ```text
//!  Face ──save──▶ FaceState ──to_bytes──▶ version 1 │ bytes ──from_bytes──▶ FaceState ──load──▶ Face
//!  Platform ────▶ PlatformState                                             PlatformState ────▶ Platform
//! ```
//!
//! A state that came from bytes is one that a guest can have made; whether it fits is for the load to say. A form never
//! changes: another one has a number and a module of its own. Deliberately absent: files, checksums, and configuration
//! space of devices, all of which is their state.

mod codec;
mod v1;

use std::fmt;

use wire::Hpa;

use crate::component_block::ComponentBlock;
use crate::config_access::ConfigAddress;
use crate::device_block::DeviceRegisters;
use crate::host_bridge_block::HostBridgeBlock;
use crate::msix::Msix;
use crate::pci::{HostBridge, RootPort};

/// The version in which [`FaceState::to_bytes`] writes.
pub const FACE_STATE_VERSION: u16 = 1;
/// The version in which [`PlatformState::to_bytes`] writes.
pub const PLATFORM_STATE_VERSION: u16 = 1;

/// One device's registers while nothing was asked of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaceState {
    pub(crate) device: DeviceRegisters,
    pub(crate) component: ComponentBlock,
    pub(crate) msix: Msix,
}

/// Everything above the devices: host bridges, root ports, and the address register of configuration accesses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformState {
    pub(crate) config_address: ConfigAddress,
    pub(crate) host: HostBridge,
    pub(crate) host_registers: HostBridgeBlock,
    pub(crate) ports: Vec<RootPort>,
}

/// Bytes that are no saved state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SavedError {
    /// They are of a form that this build does not read.
    #[error(
        "the saved {what} are of version {found} and this build reads version {known}: use the build that wrote them"
    )]
    Version {
        /// Registers of what.
        what: &'static str,
        /// The version that was named.
        found: u16,
        /// The version that is known.
        known: u16,
    },
    /// They cannot be decoded.
    #[error("the saved {what} do not decode: {reason}")]
    Undecodable {
        /// Registers of what.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Something stands behind them.
    #[error("the saved {what} have {len_bytes} bytes, of which only the first {used_bytes} belong to them")]
    Trailing {
        /// Registers of what.
        what: &'static str,
        /// All bytes.
        len_bytes: usize,
        /// What they take.
        used_bytes: usize,
    },
    /// No guest can have left registers so.
    #[error("the saved {what} cannot be: {part}: {reason}")]
    Impossible {
        /// Registers of what.
        what: &'static str,
        /// Which of them.
        part: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a device's registers are not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SaveError {
    /// The mailbox waits for an answer.
    #[error("a mailbox command is under way: let it complete first")]
    CommandUnderWay,
    /// A decoder waits for an answer.
    #[error("decoder {decoder} waits for its commit, or the end of it, to be answered")]
    DecoderUnanswered {
        /// Which.
        decoder: u8,
    },
    /// The device's actors were not told of everything.
    #[error("{untold} writes and interrupts were not yet told: let the processors stand still first")]
    Untold {
        /// How many.
        untold: usize,
    },
}

/// What a decoder decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommittedDecoder {
    /// Base in guest-physical addresses.
    pub base: Hpa,
    /// Size in bytes.
    pub size_bytes: u64,
    /// DPA skip in bytes.
    pub skip_bytes: u64,
    /// The control register.
    pub control: u32,
}

impl fmt::Display for CommittedDecoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, size_bytes, skip_bytes, control } = self;
        write!(f, "committed from {base} on, size {size_bytes:#x}, skip {skip_bytes:#x}, control {control:#x}")
    }
}

/// Why registers are not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The device has another payload area.
    #[error(
        "the registers were saved with a mailbox payload area of {saved_len_bytes} bytes, and the device has one of {len_bytes}: give it the same size"
    )]
    PayloadLen {
        /// When it was saved.
        saved_len_bytes: usize,
        /// The device's.
        len_bytes: usize,
    },
    /// A register that is part of the device's state has another value there.
    #[error(
        "the {register} at {offset:#x} was saved as {saved:#x}, and the device's state has {state:#x}: they are not of one moment"
    )]
    Register {
        /// Which.
        register: &'static str,
        /// Where in its block.
        offset: u64,
        /// As saved.
        saved: u64,
        /// As the device's state says.
        state: u64,
    },
    /// A decoder decodes something else.
    #[error(
        "decoder {decoder} was saved as {}, and the device's state has it as {}: they are not of one moment",
        decoded(saved),
        decoded(state)
    )]
    Decoder {
        /// Which.
        decoder: u8,
        /// As saved.
        saved: Option<CommittedDecoder>,
        /// As the device's state says.
        state: Option<CommittedDecoder>,
    },
    /// There are more or fewer root ports.
    #[error("the platform was saved with {saved} root ports, and this one has {ports}")]
    Ports {
        /// When it was saved.
        saved: usize,
        /// Here.
        ports: usize,
    },
    /// A device is not there.
    #[error("root port {port} was saved with a device, and has none here: plug it first")]
    Missing {
        /// Which port.
        port: u8,
    },
    /// A device is there that was not.
    #[error("root port {port} was saved without a device, and has one here: unplug it first")]
    Unknown {
        /// Which port.
        port: u8,
    },
}

fn decoded(decoder: &Option<CommittedDecoder>) -> String {
    decoder.map_or_else(|| "not committed".into(), |decoder| decoder.to_string())
}

/// A register that is part of the device's state has the value that it has there.
pub(crate) fn same_as_state<T: Into<u64>>(
    register: &'static str,
    offset: u64,
    saved: T,
    state: T,
) -> Result<(), LoadError> {
    let (saved, state) = (saved.into(), state.into());
    if saved == state { Ok(()) } else { Err(LoadError::Register { register, offset, saved, state }) }
}

impl FaceState {
    const WHAT: &str = "registers of a device";

    /// The bytes, in version [`FACE_STATE_VERSION`].
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&v1::Face::of(self))
    }

    /// The state of exactly these bytes.
    ///
    /// # Errors
    ///
    /// They are of another version, or of no state that can be.
    pub fn from_bytes(version: u16, bytes: &[u8]) -> Result<Self, SavedError> {
        match version {
            FACE_STATE_VERSION => codec::decode::<v1::Face>(Self::WHAT, bytes)?.thawed(Self::WHAT),
            found => Err(SavedError::Version { what: Self::WHAT, found, known: FACE_STATE_VERSION }),
        }
    }
}

impl PlatformState {
    const WHAT: &str = "registers of the platform";

    /// The bytes, in version [`PLATFORM_STATE_VERSION`].
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&v1::Platform::of(self))
    }

    /// The state of exactly these bytes.
    ///
    /// # Errors
    ///
    /// They are of another version, or of no state that can be.
    pub fn from_bytes(version: u16, bytes: &[u8]) -> Result<Self, SavedError> {
        match version {
            PLATFORM_STATE_VERSION => codec::decode::<v1::Platform>(Self::WHAT, bytes)?.thawed(Self::WHAT),
            found => Err(SavedError::Version { what: Self::WHAT, found, known: PLATFORM_STATE_VERSION }),
        }
    }
}
