//! What surrounds the devices: the guest-physical address map, the PCI root and its ports, and each device's registers.
//!
//! ```text
//!  guest ──read, write, config──▶ Platform ─┬─ RAM
//!                                           ├─ CXL window ──▶ memory::Window
//!                                           ├─ host bridge (00:00.0), ECAM, CXL host registers, root ports (bus 0Ch)
//!                                           └─ Face of each device ──CommandSink──▶ its actors
//! ```
//!
//! Start with [`Platform`] for the guest's side, with [`Face`] for the actors' side, and with [`qtest`] for a driver
//! that is another program. What a guest has programmed is kept as [`FaceState`] and [`PlatformState`]. Deliberately absent:
//! ACPI tables, a virtual machine monitor, and every decision about what a command or a register write means.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod address_map;
mod bridges;
mod bus;
mod component_block;
mod config_access;
mod device_block;
mod dwords;
mod face;
mod hdm_decoder;
mod host_bridge_block;
mod msix;
mod pci;
mod port_dvsecs;
mod publications;
pub mod qtest;
mod register_page;
mod register_slots;
mod saved;

pub use address_map::{AddressMap, CXL_HOST_REGISTERS_LEN_BYTES, ECAM_BASE, ECAM_LEN_BYTES, MMIO_BASE, MMIO_LEN_BYTES};
pub use bus::{AttachError, HOST_BRIDGE_BUS, Platform, PlatformParts, PlugError, ROOT_PORT_BUS, Settled};
pub use component_block::DecoderStatus;
pub use device_block::MailboxCommandImage;
pub use face::{BarIndex, CommandSink, CommandedWrite, Face, InterruptLine};
pub use msix::MsixMessage;
pub use publications::{Epoch, PublicationListener, Publications};
pub use saved::{
    CommittedDecoder, FACE_STATE_VERSION, FaceState, LoadError, PLATFORM_STATE_VERSION, PlatformState, SaveError,
    SavedError,
};
