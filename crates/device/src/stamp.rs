//! Where and when a decision stands: its sequence in the journal and the VM clock.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The position of a record in the journal, counted from 1. 0 stands before every record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A time of the VM clock in nanoseconds: it never goes back, stops with the VM and continues after a resume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct VmTime(pub u64);

/// Position and time of one decision; the journal gives both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// Position in the journal.
    pub seq: Seq,
    /// VM clock at the decision.
    pub time: VmTime,
}
