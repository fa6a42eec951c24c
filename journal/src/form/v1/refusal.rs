//! Why a request was refused, kept as it was said: replay compares it with what is decided today.

use crate::form::frozen::frozen;

use super::extents::Range;

frozen! {
    enum Refusal of device::Refusal {
        Host { host_id: u16 },
        Region { region: u8, count: u8 },
        SelectionPolicy,
        Sanitize,
        NoExtents,
        ZeroLength { index: u32, offset: u64 },
        Alignment { index: u32, offset: u64, len_bytes: u64, block_bytes: u64 },
        BeyondRegion { index: u32, offset: u64, len_bytes: u64, region: u8, region_bytes: u64 },
        Overlap { first: Range, second: Range },
        AlreadyAccepted { asked: Range, accepted: Range, by: u64 },
        AlreadyOffered { asked: Range, offered: Range, by: u64 },
        EventLogFull { records: u32, room: u32, capacity: u32 },
        ExtentTracking { asked: u32, available: u32, capacity: u32 },
        TagTracking { capacity: u32 },
        TagNeeded,
        ReleaseTagNeeded,
        NoBackend { tag: [u8; 16] },
        TagHeld { tag: [u8; 16], backend: String, device: String, holding: String, by: u64 },
        BackendSize { backend: String, backend_bytes: u64, len_bytes: u64 },
        TagUnknown { tag: [u8; 16] },
        TagInOtherRegion { tag: [u8; 16], region: u8, actual: u8, by: u64 },
        TagRejected { tag: [u8; 16], by: u64 },
        TagDead { tag: [u8; 16], by: u64 },
        StillOffered { range: Range, by: u64 },
        NotAccepted { range: Range },
        OtherTag { tag: [u8; 16], range: Range, actual: [u8; 16], by: u64 },
        DuplicateBackend { id: String, by: u64 },
        DuplicateTag { tag: [u8; 16], backend: String, by: u64 },
        NoSuchBackend { id: String },
        TagInUse { id: String, tag: [u8; 16], device: String, holding: String, by: u64 },
        DuplicateDevice { id: String, by: u64 },
        NoSuchPort { id: String, port: u8, count: u32 },
        PortTaken { id: String, port: String, device: String, by: u64 },
        MemdevInUse { id: String, backend: String, device: String, holding: String, by: u64 },
        DeviceInUse { id: String, extents: u32, offers: u32, decoders: u32 },
        TagLive { tag: [u8; 16], by: u64 },
        Plug { port: u8, reason: String },
        BackendInUse { id: String, device: String, holding: String, by: u64 },
        TooManyBackends { count: u32 },
        HostMemory { id: String, reason: String },
        Mapping { range: Range, reason: String },
    }
}
