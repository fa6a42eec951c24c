//! Notices as QMP events: capacity changed hands, a preallocation goes on.

use device::config::DeviceConfig;
use device::extents::{Notice, NoticeKind, RegionRange, RejectReason, ReleaseCause};
use serde_json::{Value, json};

use super::path::device_path;
use crate::schema::{Argument, EnumSchema, EventSchema, Kind, StructSchema, UNSTABLE, optional, required};

pub(super) static EXTENT: StructSchema = StructSchema {
    name: "CxlDynamicCapacityExtent",
    doc: "An extent of dynamic capacity.",
    members: &[
        required("offset", Kind::U64, "Offset in bytes from the base of the region, a multiple of its block size."),
        required("len", Kind::U64, "Length in bytes, a multiple of the region's block size."),
    ],
};

pub(super) static EXTENT_KIND: Kind = Kind::Object(&EXTENT);

static REJECT_REASON: EnumSchema = EnumSchema {
    name: "CxlDynamicCapacityRejectReason",
    doc: "Why an offer ended without an accepted byte.",
    values: &[
        ("host", "The host's answer was empty."),
        ("reset", "A reset wiped the record that announced it."),
        ("forced", "The operator withdrew it by force."),
        ("unplug", "The device was unplugged."),
    ],
};

static RELEASE_REASON: EnumSchema = EnumSchema {
    name: "CxlDynamicCapacityReleaseReason",
    doc: "Why the host has extents no more.",
    values: &[
        ("host", "The host gave them back."),
        ("forced", "The operator took them away by force."),
        ("unplug", "The device was unplugged."),
    ],
};

const PATH: Argument = required("path", Kind::Str, "QOM path of the device.");
const QOM_PATH: Argument = required("qom-path", Kind::Str, "The same as `path`.");
const HOST_ID: Argument = required("host-id", Kind::U16, "The head (CXL r4.0 7.6.7.6.5).");
const REGION: Argument = required("region", Kind::U8, "The region, 0 to 7.");
const TAG: Argument = optional("tag", Kind::Str, "The tag as a UUID; absent where the extents are untagged.");
const EXTENTS: Argument =
    required("extents", Kind::List(&EXTENT_KIND), "The extents, relative to the region as in requests.");
const RECORD: Argument = required("record", Kind::U64, "The journal record that says so: `dcd journal show` has it.");
const REJECTED_FOR: Argument = required("reason", Kind::Enum(&REJECT_REASON), "Why.");
const RELEASED_FOR: Argument = required("reason", Kind::Enum(&RELEASE_REASON), "Why.");

const COMMON: &[Argument] = &[PATH, QOM_PATH, HOST_ID, REGION, TAG, EXTENTS, RECORD];

const fn event(name: &'static str, doc: &'static str, data: &'static [Argument]) -> EventSchema {
    EventSchema { name, doc, data, features: &[UNSTABLE] }
}

pub(super) const OFFERED: EventSchema =
    event("CXL_DYNAMIC_CAPACITY_OFFERED", "Capacity is offered to the host (CXL r4.0 9.13.3). Experimental.", COMMON);
pub(super) const ACCEPTED: EventSchema = event(
    "CXL_DYNAMIC_CAPACITY_ACCEPTED",
    "The host accepted these extents (CXL r4.0 8.2.10.9.9.3); what it left out of the offer is withdrawn. Experimental.",
    COMMON,
);
pub(super) const REJECTED: EventSchema = event(
    "CXL_DYNAMIC_CAPACITY_REJECTED",
    "An offer ended without an accepted byte (CXL r4.0 9.13.3). Experimental.",
    &[PATH, QOM_PATH, HOST_ID, REGION, TAG, EXTENTS, RECORD, REJECTED_FOR],
);
pub(super) const RELEASE_REQUESTED: EventSchema = event(
    "CXL_DYNAMIC_CAPACITY_RELEASE_REQUESTED",
    "The host was asked to give extents back (CXL r4.0 9.13.3). Experimental.",
    COMMON,
);
pub(super) const RELEASED: EventSchema = event(
    "CXL_DYNAMIC_CAPACITY_RELEASED",
    "The host has these extents no more (CXL r4.0 8.2.10.9.9.4). Experimental.",
    &[PATH, QOM_PATH, HOST_ID, REGION, TAG, EXTENTS, RECORD, RELEASED_FOR],
);

/// Not of dynamic capacity, and with a name that is this program's own.
pub(super) const PREALLOC: EventSchema = event(
    "X_MEMORY_BACKEND_PREALLOC",
    "How far the preallocation of a backend is that lasts; at most once a second, and at its end. Experimental.",
    &[
        required("id", Kind::Str, "The backend's id."),
        required("done-bytes", Kind::Size, "Bytes that have their memory."),
        required("total-bytes", Kind::Size, "Bytes in all."),
    ],
);

/// Extents as requests and events name them.
pub(super) fn extents_json(extents: &[RegionRange]) -> Value {
    extents.iter().map(|extent| json!({"offset": extent.offset, "len": extent.len_bytes})).collect()
}

/// The event of a preallocation under way: its name and data.
pub fn prealloc_event(id: &str, done_bytes: u64, total_bytes: u64) -> (&'static str, Value) {
    (PREALLOC.name, json!({"id": id, "done-bytes": done_bytes, "total-bytes": total_bytes}))
}

/// The event of a notice: its name and data.
pub fn notice_event(device: &DeviceConfig, notice: &Notice) -> (&'static str, Value) {
    let path = device_path(&device.id);
    let mut data = json!({
        "path": path,
        "qom-path": path,
        "host-id": notice.host_id,
        "region": notice.region,
        "extents": extents_json(&notice.extents),
        "record": notice.record.0,
    });
    if !notice.tag.is_none() {
        data["tag"] = notice.tag.to_string().into();
    }
    let schema = match notice.kind {
        NoticeKind::Offered => &OFFERED,
        NoticeKind::Accepted => &ACCEPTED,
        NoticeKind::ReleaseRequested => &RELEASE_REQUESTED,
        NoticeKind::Rejected(reason) => {
            data["reason"] = reason_name(reason).into();
            &REJECTED
        }
        NoticeKind::Released(cause) => {
            data["reason"] = cause_name(cause).into();
            &RELEASED
        }
    };
    (schema.name, data)
}

fn reason_name(reason: RejectReason) -> &'static str {
    match reason {
        RejectReason::Host => "host",
        RejectReason::Reset => "reset",
        RejectReason::Forced => "forced",
        RejectReason::Unplug => "unplug",
    }
}

fn cause_name(cause: ReleaseCause) -> &'static str {
    match cause {
        ReleaseCause::Host => "host",
        ReleaseCause::Forced => "forced",
        ReleaseCause::Unplug => "unplug",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_event_of_a_preallocation_is_as_its_schema_says() {
        let (name, data) = prealloc_event("tm0", 12 << 30, 64 << 30);
        assert_eq!(name, "X_MEMORY_BACKEND_PREALLOC");
        assert_eq!(data, json!({"id": "tm0", "done-bytes": 12884901888u64, "total-bytes": 68719476736u64}));
        let mut members: Vec<_> = PREALLOC.data.iter().map(|member| member.name).collect();
        members.sort_unstable();
        assert!(data.as_object().is_some_and(|data| data.keys().eq(members)));
    }
}
