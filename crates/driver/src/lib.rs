//! What a host's driver does with a Dynamic Capacity Device: find it, set it up, answer its offers, give capacity back.
//!
//! ```text
//!  PlatformMap ─▶ discover ─▶ bars ─▶ blocks ─▶ media ─▶ msix ─▶ mailbox ─▶ memdev ─▶ interrupt_policy
//!                                                                          decoder ─▶ extent_list  Host::probe
//!  interrupt ─▶ event_log ─▶ chain ─▶ policy ─▶ update (4802h, 4803h) ─▶ clear                      Host::on_interrupt
//! ```
//!
//! Start with [`Host`], or with [`HostSet`] for a machine with several devices; everything reaches the hardware through a
//! [`Bus`], so that the same code runs inside a process and as a freestanding guest. Whatever a device says is checked before
//! it is believed: counts against the bytes that came, addresses against the regions, loops against a bound. What a host does
//! by itself is its [`Policy`]. Deliberately absent: interleaving, CDAT and sharing, static capacity, and event logs other than
//! Dynamic Capacity.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing))]

extern crate alloc;

pub mod bars;
pub mod blocks;
mod bus;
mod capabilities;
mod chain;
pub mod decoder;
pub mod discover;
mod drain;
pub mod event_log;
pub mod extent_list;
mod extents;
mod host;
mod host_set;
pub mod interrupt_policy;
pub mod mailbox;
pub mod media;
pub mod memdev;
pub mod msix;
mod offer;
mod platform_map;
mod policy;
mod poll;
pub mod regions;
mod respond;
pub mod update;
mod waiting;

pub use bus::{Bdf, Bus, MsixMessage, Width};
pub use drain::{DrainError, Handled};
pub use extents::{DpaRange, Extent, HeldExtent};
pub use host::{CreatedRegion, Host, ProbeError, Probed, RegionError};
pub use host_set::{Failures, HostSet, NoHost};
pub use mailbox::{Mailbox, MailboxError};
pub use memdev::MemoryDevice;
pub use offer::{Age, Offer, OfferAnswer, OfferError};
pub use platform_map::{HpaRange, PlatformMap};
pub use policy::{LATE_MS, Policy, UnknownPolicy};
pub use respond::RespondError;
