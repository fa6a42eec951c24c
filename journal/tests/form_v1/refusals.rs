//! A record for every refusal.

use device::operation::Reply;
use device::{DpaRange, Refusal, Seq};
use journal::record::RecordedReply;
use wire::{Dpa, Tag};

use super::Sample;
use super::records::{refused_record, tag};

const FIRST: DpaRange = DpaRange { start: Dpa(0x1111_0000), len_bytes: 0x2222_0000 };
const SECOND: DpaRange = DpaRange { start: Dpa(0x3333_0000), len_bytes: 0x4444_0000 };
const BY: Seq = Seq(0x5566_7788);

pub(crate) fn samples() -> Vec<(String, Sample)> {
    let all =
        of_requests().into_iter().chain(of_capacity()).chain(of_releases()).chain(of_backends()).chain(of_devices());
    all.map(|(name, refusal)| {
        let reply = RecordedReply::Whole(Reply::Refused(refusal));
        (format!("refusal {name}"), Sample::Record(Box::new(refused_record(reply))))
    })
    .collect()
}

fn of_requests() -> Vec<(&'static str, Refusal)> {
    let (index, offset, len_bytes) = (1, 2, 3);
    vec![
        ("host", Refusal::Host { host_id: 0x0102 }),
        ("region", Refusal::Region { region: 9, count: 8 }),
        ("selection-policy", Refusal::SelectionPolicy),
        ("sanitize", Refusal::Sanitize),
        ("no-extents", Refusal::NoExtents),
        ("zero-length", Refusal::ZeroLength { index, offset }),
        ("alignment", Refusal::Alignment { index, offset, len_bytes, block_bytes: 4 }),
        ("beyond-region", Refusal::BeyondRegion { index, offset, len_bytes, region: 5, region_bytes: 6 }),
        ("overlap", Refusal::Overlap { first: FIRST, second: SECOND }),
        ("already-accepted", Refusal::AlreadyAccepted { asked: FIRST, accepted: SECOND, by: BY }),
        ("already-offered", Refusal::AlreadyOffered { asked: FIRST, offered: SECOND, by: BY }),
    ]
}

fn of_capacity() -> Vec<(&'static str, Refusal)> {
    let (backend, device, holding) = ("tm1".to_owned(), "cxl-vmem1".to_owned(), "attached".to_owned());
    vec![
        ("event-log-full", Refusal::EventLogFull { records: 1, room: 2, capacity: 3 }),
        ("extent-tracking", Refusal::ExtentTracking { asked: 1, available: 2, capacity: 3 }),
        ("tag-tracking", Refusal::TagTracking { capacity: 3 }),
        ("tag-needed", Refusal::TagNeeded),
        ("release-tag-needed", Refusal::ReleaseTagNeeded),
        ("no-backend", Refusal::NoBackend { tag: tag(1) }),
        ("tag-held", Refusal::TagHeld { tag: tag(1), backend: backend.clone(), device, holding, by: BY }),
        ("backend-size", Refusal::BackendSize { backend, backend_bytes: 0x1000, len_bytes: 0x2000 }),
    ]
}

fn of_releases() -> Vec<(&'static str, Refusal)> {
    vec![
        ("tag-unknown", Refusal::TagUnknown { tag: tag(1) }),
        ("tag-in-other-region", Refusal::TagInOtherRegion { tag: tag(1), region: 2, actual: 3, by: BY }),
        ("tag-rejected", Refusal::TagRejected { tag: tag(1), by: BY }),
        ("tag-dead", Refusal::TagDead { tag: tag(1), by: BY }),
        ("still-offered", Refusal::StillOffered { range: FIRST, by: BY }),
        ("not-accepted", Refusal::NotAccepted { range: FIRST }),
        ("other-tag", Refusal::OtherTag { tag: tag(1), range: FIRST, actual: Tag::NONE, by: BY }),
        ("tag-live", Refusal::TagLive { tag: tag(1), by: BY }),
        ("mapping", Refusal::Mapping { range: FIRST, reason: "no slot is left".into() }),
    ]
}

fn of_backends() -> Vec<(&'static str, Refusal)> {
    let (id, backend) = ("tm1".to_owned(), "tm2".to_owned());
    let (device, holding) = ("cxl-vmem1".to_owned(), "reserved".to_owned());
    let (held_by, held) = (device.clone(), holding.clone());
    vec![
        ("duplicate-backend", Refusal::DuplicateBackend { id: id.clone(), by: BY }),
        ("duplicate-tag", Refusal::DuplicateTag { tag: tag(1), backend, by: BY }),
        ("no-such-backend", Refusal::NoSuchBackend { id: id.clone() }),
        ("tag-in-use", Refusal::TagInUse { id: id.clone(), tag: tag(1), device, holding, by: BY }),
        ("backend-in-use", Refusal::BackendInUse { id: id.clone(), device: held_by, holding: held, by: BY }),
        ("too-many-backends", Refusal::TooManyBackends { count: 7 }),
        ("host-memory", Refusal::HostMemory { id, reason: "no memory".into() }),
    ]
}

fn of_devices() -> Vec<(&'static str, Refusal)> {
    let (id, device, backend) = ("cxl-vmem0".to_owned(), "cxl-vmem1".to_owned(), "fixed".to_owned());
    let in_port = Refusal::PortTaken { id: id.clone(), port: "rp0".into(), device: device.clone(), by: BY };
    vec![
        ("duplicate-device", Refusal::DuplicateDevice { id: id.clone(), by: BY }),
        ("no-such-port", Refusal::NoSuchPort { id: id.clone(), port: 4, count: 2 }),
        ("port-taken", in_port),
        (
            "memdev-in-use",
            Refusal::MemdevInUse { id: id.clone(), backend, device, holding: "its own memory".into(), by: BY },
        ),
        ("device-in-use", Refusal::DeviceInUse { id, extents: 1, offers: 2, decoders: 3 }),
        ("plug", Refusal::Plug { port: 4, reason: "no bus number is left".into() }),
    ]
}
