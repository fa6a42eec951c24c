//! The DC event log: what the host is told about offers and release requests, oldest first (CXL r4.0 8.2.10.2).
//!
//! Only the operator's requests fill it, and they are refused where their chain does not fit, so that the host never
//! sees half a chain. A forced removal cannot wait: a chain of its that does not fit is dropped as a whole and counted
//! as an overflow. Deliberately absent: the classic logs (informational to fatal), which the mailbox owns.

use std::collections::{BTreeSet, VecDeque};

use serde::Serialize;
use wire::Tag;

use crate::limits::DC_EVENT_LOG_RECORDS_MAX;
use crate::range::DpaRange;

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum EventKind {
    /// Capacity is offered.
    Add,
    /// Capacity is asked back.
    Release,
    /// Capacity was taken away.
    ForcedRelease,
}

/// Whether more records of the same chain follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChainPlace {
    /// The next record belongs to the same chain (More = 1).
    More,
    /// The chain ends here.
    Last,
}

/// One DC event record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LoggedEvent {
    /// Its handle, not 0, unique within the log.
    pub handle: u16,
    /// What it tells.
    pub kind: EventKind,
    /// Its place in the chain.
    pub place: ChainPlace,
    /// The extent.
    pub range: DpaRange,
    /// The extent's own tag.
    pub tag: Tag,
    /// The extent's place in a shared sequence; 0 in a region that is not sharable.
    pub shared_sequence: u16,
    /// The host's clock in nanoseconds, 0 before Set Timestamp.
    pub timestamp_ns: u64,
    /// Extents that the device could still track when the record was made.
    pub available_extents: u32,
    /// Tags that the device could still track when the record was made.
    pub available_tags: u32,
}

/// Records that were dropped since the last clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Overflow {
    /// How many; stays at its maximum.
    pub count: u16,
    /// When the first was dropped, as [`LoggedEvent::timestamp_ns`].
    pub first_ns: u64,
    /// When the last was dropped.
    pub last_ns: u64,
}

/// The log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct EventLog {
    pub(super) events: VecDeque<LoggedEvent>,
    pub(super) last_handle: u16,
    pub(super) overflow: Option<Overflow>,
}

impl EventLog {
    /// Whether there is nothing to read. The event status bit is the opposite.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Records in the log.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Records that still fit.
    pub fn room(&self) -> usize {
        DC_EVENT_LOG_RECORDS_MAX.saturating_sub(self.events.len())
    }

    /// The records, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &LoggedEvent> {
        self.events.iter()
    }

    /// What was dropped since the last clear.
    pub fn overflow(&self) -> Option<Overflow> {
        self.overflow
    }

    /// The handle of the `n`-th record to come, counted from 0. Handles run through 1..=FFFFh; the log is far shorter,
    /// so that two of its records never share one.
    pub fn handle_after(&self, n: usize) -> u16 {
        let steps = (n % 0xffff) as u32 + 1;
        ((u32::from(self.last_handle) + steps - 1) % 0xffff + 1) as u16
    }

    /// The ranges of the release requests that the host has not cleared yet.
    pub fn uncleared_releases(&self) -> BTreeSet<DpaRange> {
        self.events.iter().filter(|event| event.kind == EventKind::Release).map(|event| event.range).collect()
    }

    /// How many records `handles` names, if it names the oldest ones in their order.
    pub fn oldest(&self, handles: impl ExactSizeIterator<Item = u16>) -> Option<u32> {
        let count = handles.len();
        let named = self.events.iter().map(|event| Some(event.handle)).chain(std::iter::repeat(None));
        handles.zip(named).all(|(asked, held)| Some(asked) == held).then_some(count as u32)
    }

    pub(super) fn append(&mut self, events: &[LoggedEvent]) {
        self.events.extend(events);
        if let Some(last) = events.last() {
            self.last_handle = last.handle;
        }
    }

    pub(super) fn overflowed(&mut self, count: u32, at_ns: u64) {
        let overflow = self.overflow.get_or_insert(Overflow { count: 0, first_ns: at_ns, last_ns: at_ns });
        overflow.count = overflow.count.saturating_add(count.try_into().unwrap_or(u16::MAX));
        overflow.last_ns = at_ns;
    }

    pub(super) fn clear_oldest(&mut self, count: usize) {
        self.events.drain(..count.min(self.events.len()));
        self.overflow = None;
    }

    pub(super) fn clear_all(&mut self) {
        self.events.clear();
        self.overflow = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_skip_zero_when_they_wrap() {
        let log = EventLog { last_handle: 0xfffe, ..EventLog::default() };
        assert_eq!([log.handle_after(0), log.handle_after(1), log.handle_after(2)], [0xffff, 1, 2]);
        assert_eq!(EventLog::default().handle_after(0), 1);
    }
}
