//! Commands of dynamic capacity: QEMU's three, and the query that answers with everything.

use actors::Vm;
use device::config::DeviceConfig;
use device::extents::{
    AddRequest, RegionRange, ReleaseRequest, Removal, RemovalPolicy, Sanitize, SelectionPolicy, Standing,
    State as Extents, TagState, TagStatus,
};
use device::limits::{DC_EVENT_LOG_RECORDS_MAX, EXTENTS_MAX, TAGS_MAX};
use device::{DpaRange, Refusal};
use serde_json::{Value, json};
use wire::Tag;

use super::arguments::{Arguments, flag, required_text, small, tag, text};
use super::nothing;
use super::notices::{EXTENT_KIND, extents_json};
use super::path::{device_of, device_path};
use super::window_info::{WINDOW_INFO, window_info};
use crate::error::QmpError;
use crate::schema::{Argument, CommandSchema, EMPTY, EnumSchema, Kind, StructSchema, UNSTABLE, optional, required};

const PATH: Argument = optional(
    "path",
    Kind::Str,
    "QOM path of the device, full (`/machine/peripheral/cxl-vmem0`) or partial (`cxl-vmem0`). Exactly one of `path` and \
     `qom-path` must be given.",
);
const QOM_PATH: Argument =
    optional("qom-path", Kind::Str, "The same as `path`. Exactly one of `path` and `qom-path` must be given.");
const HOST_ID: Argument = required("host-id", Kind::U16, "Host ID (CXL r4.0 7.6.7.6.5). The device has one head: 0.");
const REGION: Argument = required("region", Kind::U8, "Region number, 0 to 7 (CXL r4.0 7.6.7.6.5).");
pub(super) const TAG_DOC: &str = "The tag: 16 bytes that the host finds in every extent (CXL r4.0 8.2.10.9.9.2) and by which it tells one allocation \
     from another. To the standard they are opaque. They are written as a hyphenated UUID because that is where they are \
     read: Linux shows and takes an extent's tag as `uuid`, so that what an operator gives here is, letter by letter, what \
     the guest looks for. A UUID is also unique without anybody who hands numbers out. Case does not matter; \"\", \"0\" \
     and the nil UUID mean untagged. Default: untagged.";

static SELECTION_POLICY: EnumSchema = EnumSchema {
    name: "CxlExtentSelectionPolicy",
    doc: "How the device chooses the blocks (CXL r4.0 7.6.7.6.5).",
    values: &[
        ("free", "Any blocks, in as many extents as it takes. Not supported: an error."),
        ("contiguous", "One extent anywhere. Not supported: an error."),
        ("prescriptive", "The given extents."),
        ("enable-shared-access", "The memory of a tag that another host has. Not supported: an error."),
    ],
};

static REMOVAL_POLICY: EnumSchema = EnumSchema {
    name: "CxlExtentRemovalPolicy",
    doc: "How the device finds what is to be released (CXL r4.0 7.6.7.6.6).",
    values: &[
        ("tag-based", "Everything that has the tag; `extents` are ignored."),
        ("prescriptive", "The given extents; a tag, where given, must be theirs."),
    ],
};

static STATE: EnumSchema = EnumSchema {
    name: "CxlDynamicCapacityState",
    doc: "How a tag stands, exactly.",
    values: &[
        ("unknown", "Never offered, or so long ago that it is forgotten."),
        ("offered", "Offered, not answered."),
        ("accepted", "The host holds all that was offered."),
        ("partly-accepted", "The host holds a part of what was offered."),
        ("rejected", "The host refused all of it, or a reset withdrew it."),
        ("release-requested", "The host was asked to give back what it still holds."),
        ("released", "The host gave back the last piece."),
        ("forced", "The last piece was taken away by force."),
        ("dead", "Withdrawn by force before the host answered."),
    ],
};

static STATUS_WORD: EnumSchema = EnumSchema {
    name: "CxlDynamicCapacityStatus",
    doc: "How a tag stands, in the words of QEMU's series.",
    values: &[
        ("Pending", "Offered, and the host still has to answer."),
        ("Committed", "The host holds all or a part of it."),
        ("Released", "The host does not hold it any more, or never took it."),
        ("NotFound", "Not known in this region."),
    ],
};

static EXTENT_STATUS: StructSchema = StructSchema {
    name: "ExtentStatus",
    doc: "How a tag stands.",
    members: &[
        required("status", Kind::Enum(&STATUS_WORD), "How it stands, roughly."),
        required("message", Kind::Str, "A sentence for people."),
        required("state", Kind::Enum(&STATE), "The same, exactly."),
        required("extents", EXTENTS_KIND, "What is offered or held of it, in the order of the add."),
    ],
};

const EXTENTS_KIND: Kind = Kind::List(&EXTENT_KIND);

pub(super) const ADD: CommandSchema = CommandSchema {
    name: "cxl-add-dynamic-capacity",
    doc: "Offers dynamic capacity to the host (CXL r4.0 7.6.7.6.5): one or more extents that are together as long as the \
          backend that the tag names; extent i is backed by its i-th piece. Returns when the offer is durable, which \
          CXL_DYNAMIC_CAPACITY_OFFERED tells, not when the host has answered: CXL_DYNAMIC_CAPACITY_ACCEPTED or \
          CXL_DYNAMIC_CAPACITY_REJECTED says that. A host answers when it likes, and may take a part. Experimental.",
    arguments: &[
        PATH,
        QOM_PATH,
        HOST_ID,
        required("selection-policy", Kind::Enum(&SELECTION_POLICY), "How the device chooses the blocks."),
        REGION,
        optional("tag", Kind::Str, TAG_DOC),
        required("extents", EXTENTS_KIND, "The extents, in the order in which the backend stands behind them."),
    ],
    returns: Kind::Object(&EMPTY),
    features: &[UNSTABLE],
};

pub(super) const RELEASE: CommandSchema = CommandSchema {
    name: "cxl-release-dynamic-capacity",
    doc: "Asks the host to give dynamic capacity back, or takes it away (CXL r4.0 7.6.7.6.6). Returns when the request is \
          durable, which CXL_DYNAMIC_CAPACITY_RELEASE_REQUESTED tells; CXL_DYNAMIC_CAPACITY_RELEASED says when the host \
          has it no more. A host may keep what it was asked for as long as it likes. Experimental.",
    arguments: &[
        PATH,
        QOM_PATH,
        HOST_ID,
        required("removal-policy", Kind::Enum(&REMOVAL_POLICY), "How the device finds what is to be released."),
        optional(
            "forced-removal",
            Kind::Bool,
            "Take it away at once, whatever the host is doing with it; an offer that was not answered becomes dead, which \
             CXL_DYNAMIC_CAPACITY_REJECTED tells. Default: false.",
        ),
        optional(
            "sanitize-on-release",
            Kind::Bool,
            "Clear the memory before any other use. Not supported: true is an error. Default: false.",
        ),
        REGION,
        optional("tag", Kind::Str, TAG_DOC),
        optional(
            "extents",
            EXTENTS_KIND,
            "The extents, where the policy is prescriptive; where it is tag-based they are ignored. Default: none.",
        ),
    ],
    returns: Kind::Object(&EMPTY),
    features: &[UNSTABLE],
};

pub(super) const STATUS: CommandSchema = CommandSchema {
    name: "cxl-release-dynamic-capacity-status",
    doc: "Returns how a tag stands (CXL r4.0 9.13.3): for orchestrators that were not connected when the events came. \
          Experimental.",
    arguments: &[
        PATH,
        QOM_PATH,
        HOST_ID,
        REGION,
        required("tag", Kind::Str, "The tag: a hyphenated UUID in any case (CXL r4.0 8.2.10.9.9.2); not nil."),
    ],
    returns: Kind::Object(&EXTENT_STATUS),
    features: &[UNSTABLE],
};

static REGION_INFO: StructSchema = StructSchema {
    name: "CxlDynamicCapacityRegionInfo",
    doc: "A region (CXL r4.0 8.2.10.9.9.1).",
    members: &[
        required("region", Kind::U8, "Its number, from 0."),
        required("base", Kind::U64, "Its first device-physical address."),
        required("size", Kind::Size, "Its length in bytes."),
        required("block-size", Kind::Size, "Its block size in bytes: extents begin and end at multiples of it."),
    ],
};

static OFFER_INFO: StructSchema = StructSchema {
    name: "CxlDynamicCapacityOfferInfo",
    doc: "An offer that the host has not answered.",
    members: &[
        required("record", Kind::U64, "The journal record that made it."),
        required("region", Kind::U8, "Its region."),
        optional("tag", Kind::Str, "Its tag."),
        required("backend", Kind::Str, "The backend that is reserved for it."),
        required("dead", Kind::Bool, "Whether it was withdrawn by force."),
        required("extents", EXTENTS_KIND, "Its extents."),
    ],
};

static ACCEPTED_INFO: StructSchema = StructSchema {
    name: "CxlDynamicCapacityExtentInfo",
    doc: "An accepted extent.",
    members: &[
        required("dpa", Kind::U64, "Its first device-physical address."),
        required("region", Kind::U8, "Its region."),
        required("offset", Kind::U64, "Its offset in the region in bytes."),
        required("len", Kind::U64, "Its length in bytes."),
        optional("tag", Kind::Str, "Its tag."),
        required(
            "shared-sequence",
            Kind::U16,
            "Its place among the extents of a tag in a sharable region, from 0; 0 in any other region.",
        ),
        required("backend", Kind::Str, "Its backend."),
        required("backend-offset", Kind::U64, "Where in the backend it begins, in bytes."),
        required(
            "hpa",
            Kind::List(&Kind::U64),
            "Guest-physical addresses at which the guest sees it; none without a committed decoder.",
        ),
        required("offered", Kind::U64, "The record that offered it."),
        required("accepted", Kind::U64, "The record that accepted it."),
        required("release-requested", Kind::Bool, "Whether the host was asked to give any of it back."),
    ],
};

static BACKEND_STATE: EnumSchema = EnumSchema {
    name: "CxlDynamicCapacityBackendState",
    doc: "Who holds a backend.",
    values: &[
        ("free", "Nobody: it can be offered and deleted."),
        ("reserved", "An offer that the host has not answered."),
        ("attached", "Extents that the host has accepted."),
        ("memdev", "A device, as its own memory."),
    ],
};

static BACKEND_INFO: StructSchema = StructSchema {
    name: "CxlDynamicCapacityBackendInfo",
    doc: "A backend.",
    members: &[
        required("id", Kind::Str, "Its id."),
        optional("tag", Kind::Str, "Its tag."),
        required("size", Kind::Size, "Its size in bytes."),
        required("state", Kind::Enum(&BACKEND_STATE), "Who holds it."),
        optional("holder", Kind::Str, "QOM path of the device that holds it."),
        optional("record", Kind::U64, "The journal record since which it is held."),
        required("bytes-lost", Kind::Bool, "Whether its bytes were lost between two runs."),
    ],
};

static COUNTERS: StructSchema = StructSchema {
    name: "CxlDynamicCapacityCounters",
    doc: "The counters of a device (CXL r4.0 8.2.10.9.9.1).",
    members: &[
        required("supported-extents", Kind::U32, "Extents that it can track."),
        required("available-extents", Kind::U32, "Extents that it can still track."),
        required("supported-tags", Kind::U32, "Tags that it can track."),
        required("available-tags", Kind::U32, "Tags that it can still track."),
        required("generation", Kind::U32, "Generation of the extent list (CXL r4.0 8.2.10.9.9.2)."),
        required("event-records", Kind::U32, "Records in the DC event log (CXL r4.0 8.2.10.2)."),
        required("event-records-supported", Kind::U32, "Records that the log holds."),
        required("event-records-dropped", Kind::U32, "Records dropped because the log was full, since the last clear."),
    ],
};

static JOURNAL_INFO: StructSchema = StructSchema {
    name: "JournalInfo",
    doc: "Where the journal stands.",
    members: &[
        required("last", Kind::U64, "The last record."),
        required("durable", Kind::U64, "The last record that is durable."),
    ],
};

static GUEST_INFO: StructSchema = StructSchema {
    name: "GuestInfo",
    doc: "The driver in the guest.",
    members: &[required("state", Kind::Str, "What it is doing, or what it failed at.")],
};

static CAPACITY_INFO: StructSchema = StructSchema {
    name: "CxlDynamicCapacityInfo",
    doc: "All about one device's dynamic capacity.",
    members: &[
        required("path", Kind::Str, "QOM path of the device."),
        required("qom-path", Kind::Str, "The same as `path`."),
        required("regions", Kind::List(&Kind::Object(&REGION_INFO)), "Its regions."),
        required("offers", Kind::List(&Kind::Object(&OFFER_INFO)), "In the order in which the host must answer."),
        required("extents", Kind::List(&Kind::Object(&ACCEPTED_INFO)), "In the order of 4801h."),
        required("backends", Kind::List(&Kind::Object(&BACKEND_INFO)), "Of the whole VM, by id."),
        required("counters", Kind::Object(&COUNTERS), "Its counters."),
        required("window", Kind::Object(&WINDOW_INFO), "The fixed window."),
        optional("guest", Kind::Object(&GUEST_INFO), "The driver in the guest, where there is one."),
        required("journal", Kind::Object(&JOURNAL_INFO), "Where the journal stands."),
    ],
};

pub(super) const QUERY: CommandSchema = CommandSchema {
    name: "query-cxl-dynamic-capacity",
    doc: "Returns all about one device's dynamic capacity (CXL r4.0 9.13.3): regions, offers, extents and where the guest \
          sees them, backends, counters, journal. Experimental.",
    arguments: &[
        optional(
            "path",
            Kind::Str,
            "QOM path of the device, full or partial; at most one of `path` and `qom-path` may be given. Default: the \
             device, where there is one only.",
        ),
        optional("qom-path", Kind::Str, "The same as `path`. Default: none."),
    ],
    returns: Kind::Object(&CAPACITY_INFO),
    features: &[UNSTABLE],
};

fn request_extents(arguments: &Arguments) -> Vec<RegionRange> {
    let number = |extent: &Value, name| extent.get(name).and_then(Value::as_u64).unwrap_or_default();
    let list = arguments.get("extents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|e| RegionRange { offset: number(e, "offset"), len_bytes: number(e, "len") }).collect()
}

pub(super) async fn add(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    let policy = match required_text(arguments, "selection-policy")? {
        "free" => SelectionPolicy::Free,
        "contiguous" => SelectionPolicy::Contiguous,
        "enable-shared-access" => SelectionPolicy::EnableSharedAccess,
        _ => SelectionPolicy::Prescriptive,
    };
    let request = AddRequest {
        host_id: small(arguments, "host-id")?,
        policy,
        region: small(arguments, "region")?,
        tag: tag(arguments)?,
        extents: request_extents(arguments),
    };
    vm.add(device_of(vm, arguments)?, request).await?;
    Ok(nothing())
}

pub(super) async fn release(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    let policy = match required_text(arguments, "removal-policy")? {
        "tag-based" => RemovalPolicy::TagBased,
        _ => RemovalPolicy::Prescriptive,
    };
    let request = ReleaseRequest {
        host_id: small(arguments, "host-id")?,
        policy,
        removal: if flag(arguments, "forced-removal") { Removal::Forced } else { Removal::Requested },
        sanitize: if flag(arguments, "sanitize-on-release") { Sanitize::OnRelease } else { Sanitize::Keep },
        region: small(arguments, "region")?,
        tag: tag(arguments)?,
        extents: request_extents(arguments),
    };
    vm.release(device_of(vm, arguments)?, request).await?;
    Ok(nothing())
}

pub(super) async fn status(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    let device = device_of(vm, arguments)?;
    let (host_id, region) = (small::<u16>(arguments, "host-id")?, small::<u8>(arguments, "region")?);
    let tag = tag(arguments)?;
    let config = vm.device_config(device).ok_or(actors::RequestError::Unplugged)?;
    check_place(&config, host_id, region)?;
    if tag.is_none() {
        return Err(QmpError::generic("Tag must be valid: a nil tag names no capacity"));
    }
    let status = vm.extents(device, move |state| state.tag_status_in(region, tag)).await?;
    Ok(status_json(&config, region, tag, &status))
}

fn check_place(config: &DeviceConfig, host_id: u16, region: u8) -> Result<(), QmpError> {
    let count = config.regions.len() as u8;
    let refusal = if host_id != 0 {
        Refusal::Host { host_id }
    } else if region >= count {
        Refusal::Region { region, count }
    } else {
        return Ok(());
    };
    Err(QmpError::generic(refusal.to_string()))
}

fn status_json(config: &DeviceConfig, region: u8, tag: Tag, status: &TagStatus) -> Value {
    let is_elsewhere = status.state != TagState::Unknown && status.region != region;
    let state = if is_elsewhere { TagState::Unknown } else { status.state };
    let word = match state {
        TagState::Unknown => "NotFound",
        TagState::Offered | TagState::Dead => "Pending",
        TagState::Accepted | TagState::PartlyAccepted | TagState::ReleaseRequested => "Committed",
        TagState::Rejected | TagState::Released | TagState::Forced => "Released",
    };
    let extents = if is_elsewhere { Vec::new() } else { relative(config, region, &status.extents) };
    let message = if is_elsewhere {
        format!("tag {tag} is in region {}, not in region {region}, {}", status.region, status.by)
    } else {
        sentence(state, tag, status, &extents)
    };
    json!({"status": word, "message": message, "state": state.name(), "extents": extents_json(&extents)})
}

fn sentence(state: TagState, tag: Tag, status: &TagStatus, extents: &[RegionRange]) -> String {
    let by = status.by;
    let bytes: u64 = extents.iter().map(|extent| extent.len_bytes).sum();
    let held = format!("{} extents, {bytes} bytes", extents.len());
    match state {
        TagState::Unknown => {
            format!("tag {tag} is not known: never offered, or ended so long ago that it is forgotten")
        }
        TagState::Offered => format!("tag {tag} is offered and not answered ({held}), {by}"),
        TagState::Accepted => format!("tag {tag} is accepted ({held}), {by}"),
        TagState::PartlyAccepted => format!("the host holds a part of tag {tag} ({held}), {by}"),
        TagState::ReleaseRequested => {
            format!("the host was asked to release tag {tag} and still holds {held}, accepted by {by}")
        }
        TagState::Rejected => format!("the offer of tag {tag} was rejected, {by}"),
        TagState::Released => format!("tag {tag} was released, {by}"),
        TagState::Forced => format!("tag {tag} was taken away by force, {by}"),
        TagState::Dead => format!("the offer of tag {tag} was withdrawn by force and the host has not answered, {by}"),
    }
}

fn relative(config: &DeviceConfig, region: u8, ranges: &[DpaRange]) -> Vec<RegionRange> {
    let base = config.regions.get(usize::from(region)).map_or(0, |region| region.base.0);
    let relative =
        |range: &DpaRange| RegionRange { offset: range.start.0.saturating_sub(base), len_bytes: range.len_bytes };
    ranges.iter().map(relative).collect()
}

pub(super) async fn query(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    // With one device there is no doubt which; with several it must be named.
    let is_named = text(arguments, "path").or(text(arguments, "qom-path")).is_some();
    let device = match vm.devices()[..] {
        [(only, _)] if !is_named => only,
        _ => device_of(vm, arguments)?,
    };
    let config = vm.device_config(device).ok_or(actors::RequestError::Unplugged)?;
    let windows = vm.windows(device, Clone::clone).await?;
    let hpa_of = move |range| windows.hpas_of(range).into_iter().map(|hpa| hpa.0).collect::<Vec<_>>();
    let path = device_path(&config.id);
    let mut info = vm
        .extents(device, {
            let config = config.clone();
            move |state| extents_info(&config, state, &hpa_of)
        })
        .await?;
    info["path"] = path.clone().into();
    info["qom-path"] = path.into();
    info["regions"] = regions_info(&config);
    info["backends"] = backends_info(vm).await?;
    info["window"] = window_info(vm);
    if let Some(guest) = vm.guest().await? {
        info["guest"] = json!({"state": guest.to_string()});
    }
    let (last, durable) = vm.journal_position();
    info["journal"] = json!({"last": last.0, "durable": durable.0});
    Ok(info)
}

fn regions_info(config: &DeviceConfig) -> Value {
    let region = |(index, region): (usize, &device::config::RegionConfig)| json!({"region": index, "base": region.base.0, "size": region.len_bytes, "block-size": region.block.bytes()});
    config.regions.iter().enumerate().map(region).collect()
}

fn extents_info(config: &DeviceConfig, state: &Extents, hpa_of: &dyn Fn(DpaRange) -> Vec<u64>) -> Value {
    let base = |region: u8| config.regions.get(usize::from(region)).map_or(0, |region| region.base.0);
    let with_tag = |mut info: Value, tag: Tag| {
        if !tag.is_none() {
            info["tag"] = tag.to_string().into();
        }
        info
    };
    let offers = state.offers().iter().map(|offer| {
        let info = json!({
            "record": offer.id.0,
            "region": offer.region,
            "backend": offer.backend,
            "dead": offer.standing != Standing::Pending,
            "extents": extents_json(&relative(config, offer.region, &offer.extents)),
        });
        with_tag(info, offer.tag)
    });
    let extents = state.accepted().listed().map(|extent| {
        let info = json!({
            "dpa": extent.range.start.0,
            "region": extent.region,
            "offset": extent.range.start.0 - base(extent.region),
            "len": extent.range.len_bytes,
            "shared-sequence": extent.shared_sequence,
            "backend": extent.backend,
            "backend-offset": extent.offset_bytes,
            "hpa": hpa_of(extent.range),
            "offered": extent.offer.0,
            "accepted": extent.accepted.0,
            "release-requested": state.is_requested(extent.range),
        });
        with_tag(info, extent.tag)
    });
    json!({
        "offers": offers.collect::<Value>(),
        "extents": extents.collect::<Value>(),
        "counters": {
            "supported-extents": EXTENTS_MAX,
            "available-extents": state.available_extents(),
            "supported-tags": TAGS_MAX,
            "available-tags": state.available_tags(),
            "generation": state.generation(),
            "event-records": state.log().len(),
            "event-records-supported": DC_EVENT_LOG_RECORDS_MAX,
            "event-records-dropped": state.log().overflow().map_or(0, |overflow| overflow.count),
        },
    })
}

async fn backends_info(vm: &Vm) -> Result<Value, QmpError> {
    use device::backends::{Contents, Holder};
    let devices = vm.devices();
    let backend = move |(id, backend): (&str, &device::backends::Backend)| {
        let mut info = json!({
            "id": id,
            "size": backend.spec.size_bytes,
            "bytes-lost": matches!(backend.contents, Contents::Lost { .. }),
        });
        if !backend.spec.tag.is_none() {
            info["tag"] = backend.spec.tag.to_string().into();
        }
        let (state, held) = match backend.holder {
            Holder::Free => ("free", None),
            Holder::Reserved { device, by } => ("reserved", Some((device, by))),
            Holder::Attached { device, by } => ("attached", Some((device, by))),
            Holder::Memdev { device, by } => ("memdev", Some((device, by))),
        };
        info["state"] = state.into();
        if let Some((device, by)) = held {
            let holder = devices.iter().find(|(index, _)| *index == device);
            info["holder"] = holder.map_or_else(String::new, |(_, device)| device_path(&device.id)).into();
            info["record"] = by.0.into();
        }
        info
    };
    Ok(vm.backends(move |state| state.iter().map(backend).collect()).await?)
}
