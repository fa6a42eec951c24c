//! What surrounds the devices: the guest-physical address map, the PCI root and its ports, and each device's registers.
//!
//! ```text
//!  guest ──read, write, config──▶ Platform ─┬─ RAM
//!                                           ├─ CXL window ──▶ memory::Window
//!                                           ├─ root ports (bus 0Ch), host bridge (00:00.0)
//!                                           └─ Face of each device ──CommandSink──▶ its actors
//! ```
//!
//! Start with [`Platform`] for the guest's side and with [`Face`] for the actors' side. Deliberately absent: ACPI tables,
//! a virtual machine monitor, and every decision about what a command or a register write means.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod address_map;
mod bus;
mod component_block;
mod device_block;
mod dwords;
mod face;
mod msix;
mod pci;
mod publications;

pub use address_map::{AddressMap, CXL_HOST_REGISTERS_LEN_BYTES, MMIO_BASE, MMIO_LEN_BYTES};
pub use bus::{HOST_BRIDGE_BUS, Platform, ROOT_PORT_BUS};
pub use component_block::DecoderStatus;
pub use device_block::MailboxCommandImage;
pub use face::{BarIndex, CommandSink, CommandedWrite, Face, InterruptLine};
pub use msix::MsixMessage;
pub use pci::{HostBridge, RootPort};
pub use publications::{Epoch, Publications};
