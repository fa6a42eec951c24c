//! Records that belong together, collected until the one that closes them, however many reads of the log that takes.
//!
//! ```text
//! Add + More, Add + More, Add ─▶ one closed chain        Add + More, Release ─▶ a broken chain, then a closed one
//! ```

use alloc::vec::Vec;

use wire::{DC_EVENT_FLAG_MORE, DcEventKind, DcEventRecord, RawExtent};

/// Extents that a chain has at most. Linux takes 100; a device that never closes a chain must not fill the host.
pub(crate) const CHAIN_EXTENTS_MAX: usize = 0x1_0000;

/// What records of a chain say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainKind {
    /// Capacity is offered.
    Add,
    /// Capacity is asked back.
    Release,
}

impl ChainKind {
    pub(crate) fn of(kind: DcEventKind) -> Option<Self> {
        match kind {
            DcEventKind::Add => Some(Self::Add),
            DcEventKind::Release => Some(Self::Release),
            _ => None,
        }
    }
}

/// How a chain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChainEnd {
    /// With a record without More.
    Closed,
    /// Without one: a record of another kind came, or records were lost.
    Broken,
    /// It had more extents than a chain may have.
    TooLong,
    /// It stayed open for too long.
    TimedOut,
}

/// A chain that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) kind: ChainKind,
    pub(crate) extents: Vec<RawExtent>,
    pub(crate) end: ChainEnd,
}

/// The chain that is still open, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenChain(Option<Open>);

#[derive(Clone, Debug)]
struct Open {
    kind: ChainKind,
    extents: Vec<RawExtent>,
    /// When its last record came.
    last_ms: u64,
}

impl Chain {
    /// A record by itself, whether more follow or not.
    pub(crate) fn of_one(kind: ChainKind, record: &DcEventRecord) -> Self {
        Self { kind, extents: [record.extent].into(), end: ChainEnd::Closed }
    }
}

impl OpenChain {
    /// Adds a record; what ends with it, at most the chain before and the record's own.
    pub(crate) fn add(&mut self, kind: ChainKind, record: &DcEventRecord, now_ms: u64) -> [Option<Chain>; 2] {
        let broken = match &self.0 {
            Some(open) if open.kind != kind => self.end(ChainEnd::Broken),
            _ => None,
        };
        let open = self.0.get_or_insert_with(|| Open { kind, extents: Vec::new(), last_ms: now_ms });
        open.extents.push(record.extent);
        open.last_ms = now_ms;
        let ended = if record.flags & DC_EVENT_FLAG_MORE == 0 {
            self.end(ChainEnd::Closed)
        } else if open.extents.len() >= CHAIN_EXTENTS_MAX {
            self.end(ChainEnd::TooLong)
        } else {
            None
        };
        [broken, ended]
    }

    /// Ends the open chain, if there is one.
    pub(crate) fn end(&mut self, end: ChainEnd) -> Option<Chain> {
        self.0.take().map(|Open { kind, extents, .. }| Chain { kind, extents, end })
    }

    /// When the last record of the open chain came, in milliseconds.
    pub(crate) fn last_ms(&self) -> Option<u64> {
        self.0.as_ref().map(|open| open.last_ms)
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::little_endian::U64;

    use super::*;

    fn record(start_dpa: u64, flags: u8) -> DcEventRecord {
        let extent = RawExtent { start_dpa: U64::new(start_dpa), ..RawExtent::default() };
        DcEventRecord { flags, extent, ..DcEventRecord::default() }
    }

    fn starts(chain: &Chain) -> Vec<u64> {
        chain.extents.iter().map(|extent| extent.start_dpa.get()).collect()
    }

    #[test]
    fn a_chain_ends_with_the_record_without_more() {
        let mut open = OpenChain::default();
        assert_eq!(open.add(ChainKind::Add, &record(1, DC_EVENT_FLAG_MORE), 0), [None, None]);
        let [None, Some(chain)] = open.add(ChainKind::Add, &record(2, 0), 0) else { panic!("one chain") };
        assert_eq!((chain.kind, chain.end, starts(&chain)), (ChainKind::Add, ChainEnd::Closed, [1, 2].into()));
    }

    #[test]
    fn another_kind_breaks_a_chain() {
        let mut open = OpenChain::default();
        assert_eq!(open.add(ChainKind::Add, &record(1, DC_EVENT_FLAG_MORE), 0), [None, None]);
        let [Some(broken), Some(closed)] = open.add(ChainKind::Release, &record(2, 0), 0) else { panic!("two chains") };
        assert_eq!((broken.kind, broken.end, starts(&broken)), (ChainKind::Add, ChainEnd::Broken, [1].into()));
        assert_eq!((closed.kind, closed.end, starts(&closed)), (ChainKind::Release, ChainEnd::Closed, [2].into()));
    }

    #[test]
    fn a_chain_that_is_never_closed_is_cut() {
        let mut open = OpenChain::default();
        for start in 1..CHAIN_EXTENTS_MAX as u64 {
            assert_eq!(open.add(ChainKind::Add, &record(start, DC_EVENT_FLAG_MORE), 0), [None, None]);
        }
        let [None, Some(chain)] = open.add(ChainKind::Add, &record(0, DC_EVENT_FLAG_MORE), 0) else { panic!("cut") };
        assert_eq!((chain.end, chain.extents.len()), (ChainEnd::TooLong, CHAIN_EXTENTS_MAX));
    }
}
