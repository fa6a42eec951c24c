//! Notices as QMP events: capacity changed hands.

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
    ],
};

const PATH: Argument = required("path", Kind::Str, "QOM path of the device.");
const QOM_PATH: Argument = required("qom-path", Kind::Str, "The same as `path`.");
const HOST_ID: Argument = required("host-id", Kind::U16, "The head (CXL r4.0 7.6.7.6.5).");
const REGION: Argument = required("region", Kind::U8, "The region, 0 to 7.");
const TAG: Argument = optional("tag", Kind::Str, "The tag as a UUID; absent where the extents are untagged.");
const EXTENTS: Argument =
    required("extents", Kind::List(&EXTENT_KIND), "The extents, relative to the region as in requests.");
const RECORD: Argument = required("record", Kind::U64, "The journal record that says so.");
const FORCED: Argument =
    required("forced", Kind::Bool, "Whether the operator took them away; else the host gave them back.");
const REASON: Argument = required("reason", Kind::Enum(&REJECT_REASON), "Why.");

const COMMON: &[Argument] = &[PATH, QOM_PATH, HOST_ID, REGION, TAG, EXTENTS, RECORD];

const fn event(name: &'static str, doc: &'static str, data: &'static [Argument]) -> EventSchema {
    EventSchema { name, doc, data, features: &[UNSTABLE] }
}

pub(super) const OFFERED: EventSchema =
    event("CXL_DYNAMIC_CAPACITY_OFFERED", "Capacity is offered to the host. Experimental.", COMMON);
pub(super) const ACCEPTED: EventSchema = event(
    "CXL_DYNAMIC_CAPACITY_ACCEPTED",
    "The host accepted these extents; what it left out of the offer is withdrawn. Experimental.",
    COMMON,
);
pub(super) const REJECTED: EventSchema = event(
    "CXL_DYNAMIC_CAPACITY_REJECTED",
    "An offer ended without an accepted byte. Experimental.",
    &[PATH, QOM_PATH, HOST_ID, REGION, TAG, EXTENTS, RECORD, REASON],
);
pub(super) const RELEASE_REQUESTED: EventSchema =
    event("CXL_DYNAMIC_CAPACITY_RELEASE_REQUESTED", "The host was asked to give extents back. Experimental.", COMMON);
pub(super) const RELEASED: EventSchema = event(
    "CXL_DYNAMIC_CAPACITY_RELEASED",
    "The host has these extents no more. Experimental.",
    &[PATH, QOM_PATH, HOST_ID, REGION, TAG, EXTENTS, RECORD, FORCED],
);

/// Extents as requests and events name them.
pub(super) fn extents_json(extents: &[RegionRange]) -> Value {
    extents.iter().map(|extent| json!({"offset": extent.offset, "len": extent.len_bytes})).collect()
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
            data["forced"] = (cause == ReleaseCause::Forced).into();
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
    }
}
