//! Slots of a hypervisor, which let a guest's processor reach memory without an exit.

mod hypervisor;

pub use hypervisor::{Hypervisor, SlotAccess, SlotRegion};
