//! How vCPU 0 fares, in its own words.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::vcpu_page::Text;

/// How the driver fares.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct StatusPage {
    /// A [`StatusState`]; 0 where nothing was said yet.
    pub state: u64,
    /// Extents that it holds.
    pub extents: u64,
    /// The attention word of the round.
    pub attention: u64,
    /// Why it failed, or what it warns of.
    pub text: Text,
}

/// What vCPU 0 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum StatusState {
    /// It looks for its devices.
    Booting = 1,
    /// It serves events.
    Serving = 2,
    /// It gave up until attention is asked for.
    Failed = 3,
    /// It goes on, but something is wrong.
    Warning = 4,
}
