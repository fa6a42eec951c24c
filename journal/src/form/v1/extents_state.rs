//! The state of an extent manager. Indexes and sums are not in it: they are made again.

use device::extents;

use crate::form::frozen::frozen;

use super::extents::{LoggedEvent, Range};

frozen! {
    struct State of extents::Parts {
        offers: Vec<Offer>,
        accepted: Vec<Extent>,
        offered_bytes: Vec<(u64, u64)>,
        ended: Vec<([u8; 16], Ended)>,
        events: Vec<LoggedEvent>,
        last_handle: u16,
        overflow: Option<Overflow>,
        chain: Option<Chain>,
        generation: u32,
        clock: Option<HostClock>,
        requested: Vec<Range>,
    }

    struct Offer of extents::Offer {
        id: u64,
        region: u8,
        tag: [u8; 16],
        backend: String,
        extents: Vec<Range>,
        standing: Standing,
    }

    enum Standing of extents::Standing {
        Pending,
        Dead { by: u64, told: Told },
    }

    enum Told of extents::Told {
        NotYet,
        Refused,
    }

    struct Extent of extents::Extent {
        range: Range,
        region: u8,
        tag: [u8; 16],
        shared_sequence: u16,
        offer: u64,
        position: u32,
        backend: String,
        offset_bytes: u64,
        accepted: u64,
    }

    struct Ended of extents::Ended {
        state: TagState,
        region: u8,
        by: u64,
    }

    enum TagState of extents::TagState {
        Unknown,
        Offered,
        Accepted,
        PartlyAccepted,
        Rejected,
        ReleaseRequested,
        Released,
        Forced,
        Dead,
    }

    struct Overflow of extents::Overflow {
        count: u16,
        first_ns: u64,
        last_ns: u64,
    }

    struct Chain of extents::Chain {
        opcode: u16,
        ranges: Vec<Range>,
    }

    struct HostClock of extents::HostClock {
        host_ns: u64,
        set_at: u64,
    }
}
