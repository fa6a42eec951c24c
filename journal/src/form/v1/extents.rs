//! What reaches the extent manager, and what it decides.

use device::{DpaRange, extents};

use crate::form::frozen::{Bytes, frozen};

frozen! {
    struct Range of DpaRange {
        start: u64,
        len_bytes: u64,
    }

    enum Input of extents::Input {
        Add(request: AddRequest),
        Release(request: ReleaseRequest),
        Command { opcode: u16, payload: Bytes },
        Reset,
        Unplug { removal: Removal, decoders: u32 },
    }

    struct AddRequest of extents::AddRequest {
        host_id: u16,
        policy: SelectionPolicy,
        region: u8,
        tag: [u8; 16],
        extents: Vec<RegionRange>,
    }

    enum SelectionPolicy of extents::SelectionPolicy {
        Free,
        Contiguous,
        Prescriptive,
        EnableSharedAccess,
    }

    struct ReleaseRequest of extents::ReleaseRequest {
        host_id: u16,
        policy: RemovalPolicy,
        removal: Removal,
        sanitize: Sanitize,
        region: u8,
        tag: [u8; 16],
        extents: Vec<RegionRange>,
    }

    enum RemovalPolicy of extents::RemovalPolicy {
        TagBased,
        Prescriptive,
    }

    enum Removal of extents::Removal {
        Requested,
        Forced,
    }

    enum Sanitize of extents::Sanitize {
        Keep,
        OnRelease,
    }

    struct RegionRange of extents::RegionRange {
        offset: u64,
        len_bytes: u64,
    }

    enum Fact of extents::Fact {
        Offered { host_id: u16, region: u8, tag: [u8; 16], backend: String, ranges: Vec<Range> },
        Logged { events: Vec<LoggedEvent> },
        LogOverflowed { events: u32, at_ns: u64 },
        EventsCleared { count: u32 },
        AllEventsCleared,
        ResponseChained { opcode: u16, ranges: Vec<Range> },
        ChainEnded,
        Accepted { offer: u64, region: u8, tag: [u8; 16], pieces: Vec<AcceptedPiece> },
        Rejected { offer: u64, region: u8, tag: [u8; 16], ranges: Vec<Range>, reason: RejectReason },
        Died { offer: u64, region: u8, tag: [u8; 16], ranges: Vec<Range> },
        DeadAnswered { offer: u64 },
        Retired { offer: u64 },
        ReleaseRequested { ranges: Vec<TaggedRange> },
        Released { ranges: Vec<TaggedRange>, cause: ReleaseCause },
        TimestampSet { host_ns: u64 },
        Reset,
    }

    struct AcceptedPiece of extents::AcceptedPiece {
        position: u32,
        range: Range,
        offset_bytes: u64,
    }

    struct TaggedRange of extents::TaggedRange {
        region: u8,
        tag: [u8; 16],
        range: Range,
    }

    enum RejectReason of extents::RejectReason {
        Host,
        Reset,
        Forced,
        Unplug,
    }

    enum ReleaseCause of extents::ReleaseCause {
        Host,
        Forced,
        Unplug,
    }

    struct LoggedEvent of extents::LoggedEvent {
        handle: u16,
        kind: EventKind,
        place: ChainPlace,
        range: Range,
        tag: [u8; 16],
        shared_sequence: u16,
        timestamp_ns: u64,
        available_extents: u32,
        available_tags: u32,
    }

    enum EventKind of extents::EventKind {
        Add,
        Release,
        ForcedRelease,
    }

    enum ChainPlace of extents::ChainPlace {
        More,
        Last,
    }
}
