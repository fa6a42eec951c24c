//! One job at a time for a vCPU.
//!
//! ```text
//!  host: kind, arguments, stop = 0, then asked + 1, then a kick      guest: results, then done = asked, then PORT_DONE
//! ```

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Values that a watch counts one by one, at most.
pub const WATCHED_VALUES_MAX: usize = 4;
/// The answer of a command that got none.
pub const NO_ANSWER: u64 = u64::MAX;
/// The answer of a check that found everything right.
pub const NONE_WRONG: u64 = u64::MAX;

/// What is asked of a vCPU, and what came of it.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct JobPage {
    /// Number of the job that is asked for, from 1 on.
    pub asked: u64,
    /// Number of the last job that is done.
    pub done: u64,
    /// The number of a job that is to stop.
    pub stop: u64,
    /// A [`JobKind`].
    pub kind: u64,
    /// What the kind says.
    pub arguments: [u64; 8],
    /// What the kind says.
    pub results: [u64; 8],
}

/// What there is to ask for. `[arguments] -> [results]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum JobKind {
    /// One load: `[address, width] -> [value]`.
    Read = 1,
    /// One store: `[address, width, value]`.
    Write = 2,
    /// Copies to the job data: `[address, length]`.
    CopyOut = 3,
    /// Copies from the job data: `[address, length]`.
    CopyIn = 4,
    /// One `in`: `[port, width] -> [value]`.
    PortRead = 5,
    /// One `out`: `[port, width, value]`.
    PortWrite = 6,
    /// Stores the pattern: `[address, length, seed]`.
    Fill = 7,
    /// Compares with the pattern: `[address, length, seed] -> [first wrong offset or NONE_WRONG]`.
    Check = 8,
    /// Loads of 8 bytes: `[address, length, stride, rounds] -> [ticks, sum]`.
    SweepRead = 9,
    /// Stores of 8 bytes: `[address, length, stride, rounds] -> [ticks]`.
    SweepWrite = 10,
    /// Loads of 8 bytes until one is `until`, or it is stopped, after which it loads once more: `[address, until, how many
    /// values, values…] -> [loads, loads of no such value, the first of these, the last load, loads of each value…]`.
    Watch = 11,
    /// Stores of 8 bytes, each one more than the one before and loaded again, until it is stopped: `[address, first] ->
    /// [last, loads that differ, the first of these]`.
    Count = 12,
    /// A mailbox command, as the driver sends it: `[registers of the mailbox, their length, opcode, payload's address, its
    /// length] -> [return code or NO_ANSWER, length of the answer, ticks]`.
    Command = 13,
}

impl JobKind {
    /// All of them.
    const ALL: [Self; 13] = [
        Self::Read,
        Self::Write,
        Self::CopyOut,
        Self::CopyIn,
        Self::PortRead,
        Self::PortWrite,
        Self::Fill,
        Self::Check,
        Self::SweepRead,
        Self::SweepWrite,
        Self::Watch,
        Self::Count,
        Self::Command,
    ];

    /// The kind of a number.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u64 == number)
    }
}
