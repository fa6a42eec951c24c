//! Why a hand-over does not go on.

use std::fmt;
use std::io;

use crate::frame::Kind;

/// The process at the other end, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.pid)
    }
}

/// Why a hand-over does not go on.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The host's own words.
    #[error("{doing}: {source}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// What the host said.
        source: io::Error,
    },
    /// The other end is of another user.
    #[error("{peer} is of user {}, and only user {ours} and root may take part in this hand-over", peer.uid)]
    Stranger {
        /// Who it is.
        peer: Peer,
        /// The user of this process.
        ours: u32,
    },
    /// The other process has ended, or does not go on and does not say why.
    #[error("the other process ended the hand-over before {awaited}: it died, or its own words say why")]
    Closed {
        /// What was to come.
        awaited: Kind,
    },
    /// Time is up.
    #[error("{awaited} has not come within {timeout_ms} ms: the other process is stopped, or slow; allow more time")]
    Silent {
        /// What was to come.
        awaited: Kind,
        /// How long it was waited for.
        timeout_ms: u64,
    },
    /// Time is up, and what was being said is not heard.
    #[error("{saying} is not heard within {timeout_ms} ms: the other process is stopped, or slow; allow more time")]
    Deaf {
        /// What was being said.
        saying: Kind,
        /// How long that was tried.
        timeout_ms: u64,
    },
    /// Nobody has connected in time.
    #[error("nobody has connected to {path} within {timeout_ms} ms")]
    NobodyCame {
        /// Where.
        path: String,
        /// How long it was waited for.
        timeout_ms: u64,
    },
    /// What came is no message of a hand-over.
    #[error("what the other process says is no hand-over: there is something else at the other end of this socket")]
    Foreign,
    /// The other process speaks another version.
    #[error(
        "the other process speaks version {theirs} of the hand-over and this one version {ours}: use builds that speak the same"
    )]
    Version {
        /// What came.
        theirs: u16,
        /// What is spoken here.
        ours: u16,
    },
    /// A check of a message fails.
    #[error("the {what} of a message does not fit its CRC")]
    Damaged {
        /// Which part.
        what: &'static str,
    },
    /// A message of no known kind.
    #[error("a message of kind {number} is not known")]
    Unknown {
        /// The kind's number.
        number: u16,
    },
    /// A message at the wrong time.
    #[error("{got} came where {awaited} was to come")]
    Unexpected {
        /// What was to come.
        awaited: Kind,
        /// What came.
        got: Kind,
    },
    /// Past a limit.
    #[error("{of} has {len} {what}, and at most {max} are allowed")]
    TooMany {
        /// The message.
        of: Kind,
        /// What there are too many of.
        what: &'static str,
        /// How many there are.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// A message that says what cannot be.
    #[error("{of}: {reason}")]
    Malformed {
        /// The message.
        of: Kind,
        /// What is wrong with it.
        reason: String,
    },
    /// Descriptors that came are not those that were announced.
    #[error(
        "{of} announces {announced} file descriptors and {came} came: this process may have too many open files (ulimit -n)"
    )]
    Descriptors {
        /// The message.
        of: Kind,
        /// As it says.
        announced: usize,
        /// What came.
        came: usize,
    },
    /// The other process does not go on.
    #[error("the other process does not go on: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// The giver has resumed the guest.
    #[error("the other process has taken the VM back: {reason}")]
    TakenBack {
        /// Its words.
        reason: String,
    },
    /// The taker says that it has drawn the deed and has not.
    #[error("the other process says that it has taken the VM, and has not")]
    FalseTaken,
}

impl HandoverError {
    pub(crate) fn host(doing: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Host { doing, source: errno.into() }
    }
}
