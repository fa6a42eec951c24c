//! Something that waits for the host to act, and since when.

/// An offer or a request in its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Waiting<T> {
    /// What waits.
    pub(crate) what: T,
    /// Since when, in milliseconds of the bus' clock.
    pub(crate) since_ms: u64,
}
