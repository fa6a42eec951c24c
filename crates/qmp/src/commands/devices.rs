//! Commands by which devices come and go: `device_add`, `device_del`.

use actors::Vm;
use device::backends::Source;
use device::config::{DeviceRequest, is_id};
use device::extents::Removal;
use serde_json::{Value, json};

use super::arguments::{Arguments, flag, number, required_text, text};
use super::nothing;
use super::path::{device_by_path, device_path};
use crate::error::{ErrorClass, QmpError};
use crate::events::EventSender;
use crate::schema::{Argument, CommandSchema, EMPTY, EnumSchema, EventSchema, Kind, optional, required};

static DRIVER: EnumSchema = EnumSchema {
    name: "DeviceDriver",
    doc: "Types of devices.",
    values: &[("cxl-type3", "A CXL Type 3 device with dynamic capacity.")],
};

/// What a device is made of: the arguments of `device_add`, and the same in a configuration file.
pub const DEVICE_MEMBERS: &[Argument] = &[
    required("driver", Kind::Enum(&DRIVER), "Its type."),
    required("id", Kind::Str, "Its id, unique in the VM: a letter, then letters, digits, `-`, `.` and `_`."),
    optional("bus", Kind::Str, "The root port that it is behind. Default: the first free one."),
    optional("sn", Kind::U64, "PCI Express device serial number. Default: 0."),
    optional("num-dc-regions", Kind::U8, "Dynamic capacity regions, 1 to 8 (CXL r4.0 8.2.10.9.9.1). Default: 1."),
    optional(
        "dc-regions-total-size",
        Kind::Size,
        "Dynamic capacity in bytes over all regions, which are of equal size, each a multiple of 256 MiB. Memory comes \
         with tagged backends. Default: none; this or `volatile-dc-memdev` must be given.",
    ),
    optional(
        "volatile-dc-memdev",
        Kind::Str,
        "Id of the one backend behind all dynamic capacity, of which extents are pieces; a tag is then a label. Excludes \
         `dc-regions-total-size`. Default: none.",
    ),
    optional(
        "volatile-memdev",
        Kind::Str,
        "Id of the backend of static volatile memory, in front of the dynamic capacity. Default: none.",
    ),
    optional(
        "dc-block-size",
        Kind::Size,
        "Bytes of a block, a power of two from 64 bytes to 256 MiB: extents begin and end at multiples of it. \
         Default: 2 MiB.",
    ),
    optional(
        "mailbox-payload",
        Kind::Size,
        "Bytes of the mailbox payload area, a power of two from 256 bytes to 1 MiB (CXL r4.0 8.2.8.4.3). Default: 32 KiB.",
    ),
    optional(
        "unique-tags",
        Kind::Bool,
        "Refuse to add a tag that is offered or accepted already, on a device with `volatile-dc-memdev`; where backends come \
         by tag that is so anyway. Default: false.",
    ),
];

pub(super) const DEVICE_ADD: CommandSchema = CommandSchema {
    name: "device_add",
    doc: "Plugs a device into a root port. The guest sees it from then on; the driver in the guest looks for devices anew. \
          Its memdevs are its own until it is unplugged.",
    arguments: DEVICE_MEMBERS,
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const DEVICE_DEL: CommandSchema = CommandSchema {
    name: "device_del",
    doc: "Unplugs a device: DEVICE_DELETED. Refused while the host has extents of it, offers wait for an answer or decoders \
          are committed; unless it is forced: then offers are withdrawn (CXL_DYNAMIC_CAPACITY_REJECTED, reason unplug), \
          extents are taken away (CXL_DYNAMIC_CAPACITY_RELEASED), and all its backends are free.",
    arguments: &[
        required("id", Kind::Str, "Its id or QOM path."),
        optional("force", Kind::Bool, "Unplug it although it is in use. QEMU has no such argument. Default: false."),
    ],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const DEVICE_DELETED: EventSchema = EventSchema {
    name: "DEVICE_DELETED",
    doc: "A device was unplugged.",
    data: &[required("device", Kind::Str, "Its id."), required("path", Kind::Str, "Its QOM path.")],
    features: &[],
};

pub(super) async fn device_add(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    let id = required_text(arguments, "id")?;
    if !is_id(id) {
        let message = "Parameter 'id' expects an identifier: a letter, then letters, digits, '-', '.' and '_'";
        return Err(QmpError::generic(message));
    }
    vm.device_add(device_request(id, arguments), Source::Request).await?;
    Ok(nothing())
}

fn device_request(id: &str, arguments: &Arguments) -> DeviceRequest {
    let optional_number = |name: &str| arguments.get(name).and_then(Value::as_u64);
    let optional_text = |name: &str| text(arguments, name).map(str::to_owned);
    DeviceRequest {
        id: id.into(),
        serial: number(arguments, "sn"),
        num_dc_regions: optional_number("num-dc-regions"),
        dc_regions_total_size_bytes: optional_number("dc-regions-total-size"),
        dc_block_size_bytes: optional_number("dc-block-size"),
        mailbox_payload_bytes: optional_number("mailbox-payload"),
        volatile_dc_memdev: optional_text("volatile-dc-memdev"),
        volatile_memdev: optional_text("volatile-memdev"),
        unique_tags: arguments.get("unique-tags").and_then(Value::as_bool),
        bus: optional_text("bus"),
    }
}

pub(super) async fn device_del(vm: &Vm, arguments: &Arguments, events: &EventSender) -> Result<Value, QmpError> {
    let path = required_text(arguments, "id")?;
    let not_found = || QmpError::new(ErrorClass::DeviceNotFound, format!("Device '{path}' not found"));
    // The id and not the port: by the time that it is asked for its device, the port may have the next one.
    let (_, device) = device_by_path(vm, path).map_err(|_| not_found())?;
    let removal = if flag(arguments, "force") { Removal::Forced } else { Removal::Requested };
    vm.device_del(&device.id, removal).await?;
    events.send(DEVICE_DELETED.name, json!({"device": device.id, "path": device_path(&device.id)}));
    Ok(nothing())
}
