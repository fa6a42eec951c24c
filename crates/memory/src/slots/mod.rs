//! Slots of a hypervisor, which let a guest's processor reach memory without an exit.
//!
//! ```text
//!  guest address ──slot──▶ HostMemory + offset      no slot: the access comes back as an exit
//!                  │
//!                  └ kept alive by the table from fill() until clear() has returned
//! ```
//!
//! RAM, register pages, payload areas and pieces of the window are slots of one table, named by their first address. A
//! slot is an optimisation of what answers an exit, so that one that cannot be filled is no harm; one that cannot be
//! cleared shows memory that the guest must not see any more: everybody is told ([`Slots::connect_alarm`]), and its
//! memory is never given back.
//!
//! The table is locked while the hypervisor works. It waits, at most, for processors that run guest code; a processor's
//! thread that answers an exit runs none, so it may wait for the table, and change it, without a deadlock. Deliberately
//! absent: what is shown where, and why.

mod error;
#[cfg(feature = "fake-hypervisor")]
mod fake;
mod hypervisor;
mod table;
mod tracking;

pub use error::{SlotError, StuckSlot};
#[cfg(feature = "fake-hypervisor")]
pub use fake::FakeHypervisor;
pub use hypervisor::{Hypervisor, SlotAccess, SlotLog, SlotRegion};
pub use table::{SlotCounts, SlotRequest, Slots};
