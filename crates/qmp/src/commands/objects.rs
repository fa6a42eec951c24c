//! Commands of host memory backends and of the QOM tree that shows them.

use actors::Vm;
use device::backends::{
    Backend, BackendKind, BackendRequest, BackendType, Discard, FileAccess, Population, Reservation, Seal, Sharing,
    Source,
};
use device::config::{DeviceConfig, DynamicMemory, TagRule, is_id};
use serde_json::{Value, json};
use wire::Tag;

use super::arguments::{Arguments, required_text, text};
use super::capacity::TAG_DOC;
use super::nothing;
use super::path::{Node, children, resolve};
use crate::error::QmpError;
use crate::schema::{Argument, CommandSchema, EMPTY, EnumSchema, Kind, StructSchema, UnionSchema, optional, required};

static OBJECT_TYPE: EnumSchema = EnumSchema {
    name: "ObjectType",
    doc: "Types of objects that can be made.",
    values: &[
        ("memory-backend-ram", "Anonymous host memory; its bytes end with the process."),
        ("memory-backend-memfd", "An unnamed file in memory, which another process can be given."),
        ("memory-backend-file", "A file below the directory that --backend-dir names."),
    ],
};

static MEMFD_PROPERTIES: StructSchema = StructSchema {
    name: "MemoryBackendMemfdProperties",
    doc: "What only a memfd has.",
    members: &[
        optional("hugetlb", Kind::Bool, "Make it of huge pages. Default: false."),
        optional(
            "hugetlbsize",
            Kind::Size,
            "Length of a huge page in bytes, a power of two; needs `hugetlb`. Default: the host's.",
        ),
        optional("seal", Kind::Bool, "Fix its size, so that who is given it cannot cut it short. Default: true."),
    ],
};

static FILE_PROPERTIES: StructSchema = StructSchema {
    name: "MemoryBackendFileProperties",
    doc: "What only a file has.",
    members: &[
        required("mem-path", Kind::Str, "Path of the file, below the directory that --backend-dir names."),
        optional("readonly", Kind::Bool, "Open the file for reading only: writes of the guest vanish. Default: false."),
        optional(
            "discard-data",
            Kind::Bool,
            "Take its bytes out of the file when the object is deleted; needs `share`. Default: false, they stay.",
        ),
        optional(
            "align",
            Kind::Size,
            "The mapping begins at a multiple of so many bytes, a power of two. Default: the host's page.",
        ),
    ],
};

static OBJECT_OPTIONS: UnionSchema = UnionSchema {
    name: "ObjectOptions",
    doc: "An object of some type.",
    tag: &OBJECT_TYPE,
    branches: &[("memory-backend-memfd", &MEMFD_PROPERTIES), ("memory-backend-file", &FILE_PROPERTIES)],
};

/// What an object is made of: the arguments of `object-add`, and the same in a configuration file.
pub const OBJECT_MEMBERS: &[Argument] = &[
    required("qom-type", Kind::Discriminator(&OBJECT_OPTIONS), "Its type."),
    required("id", Kind::Str, "Its id, unique in the VM: a letter, then letters, digits, `-`, `.` and `_`."),
    required("size", Kind::Size, "Its size in bytes."),
    optional(
        "share",
        Kind::Bool,
        "Whether other mappings of the memory see writes. Default: true for a memfd, else false.",
    ),
    optional("prealloc", Kind::Bool, "Take all of its memory at once. Default: false, page by page at the first use."),
    optional("reserve", Kind::Bool, "Set swap aside for it, as the host's overcommit policy says. Default: true."),
    optional("tag", Kind::Str, TAG_DOC),
];

static HOST_MEM_POLICY: EnumSchema = EnumSchema {
    name: "HostMemPolicy",
    doc: "Host memory policy.",
    values: &[("default", "The policy of the process.")],
};

pub(super) const OBJECT_ADD: CommandSchema = CommandSchema {
    name: "object-add",
    doc: "Makes a host memory backend; a preallocation that lasts tells of itself by X_MEMORY_BACKEND_PREALLOC. The tag names it for all devices of the VM, for good: a second backend with the \
          same tag is refused.",
    arguments: OBJECT_MEMBERS,
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const OBJECT_DEL: CommandSchema = CommandSchema {
    name: "object-del",
    doc: "Deletes a backend that no device holds: it is reserved while capacity on it is offered, and attached while the \
          host has any of it.",
    arguments: &[required("id", Kind::Str, "Its id.")],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

static OBJECT_PROPERTY_INFO: StructSchema = StructSchema {
    name: "ObjectPropertyInfo",
    doc: "A property.",
    members: &[
        required("name", Kind::Str, "Its name."),
        required("type", Kind::Str, "Its type; `child<TYPE>` for a place below."),
    ],
};

static OBJECT_PROPERTY_VALUE: StructSchema = StructSchema {
    name: "ObjectPropertyValue",
    doc: "A property with its value.",
    members: &[
        required("name", Kind::Str, "Its name."),
        required("type", Kind::Str, "Its type."),
        optional("value", Kind::Any, "Its value; absent for a place below."),
    ],
};

static OBJECT_PROPERTIES_VALUES: StructSchema = StructSchema {
    name: "ObjectPropertiesValues",
    doc: "The properties of one place.",
    members: &[required("properties", Kind::List(&Kind::Object(&OBJECT_PROPERTY_VALUE)), "Them.")],
};

const QOM_PATH_DOC: &str =
    "A place: its full path (`/objects/tm0`), or the end of one (`tm0`) that is the end of no other.";

pub(super) const QOM_LIST: CommandSchema = CommandSchema {
    name: "qom-list",
    doc: "Returns the properties of a place in the QOM tree, and the places below it.",
    arguments: &[required("path", Kind::Str, QOM_PATH_DOC)],
    returns: Kind::List(&Kind::Object(&OBJECT_PROPERTY_INFO)),
    features: &[],
};

pub(super) const QOM_GET: CommandSchema = CommandSchema {
    name: "qom-get",
    doc: "Returns the value of a property.",
    arguments: &[required("path", Kind::Str, QOM_PATH_DOC), required("property", Kind::Str, "Its name.")],
    returns: Kind::Any,
    features: &[],
};

pub(super) const QOM_LIST_GET: CommandSchema = CommandSchema {
    name: "qom-list-get",
    doc: "Returns the properties of several places with their values.",
    arguments: &[required("paths", Kind::List(&Kind::Str), "Places, each by its full path or the end of it.")],
    returns: Kind::List(&Kind::Object(&OBJECT_PROPERTIES_VALUES)),
    features: &[],
};

static MEMDEV: StructSchema = StructSchema {
    name: "Memdev",
    doc: "A host memory backend.",
    members: &[
        optional("id", Kind::Str, "Its id."),
        required("size", Kind::Size, "Its size in bytes."),
        required("merge", Kind::Bool, "Whether equal pages are merged."),
        required("dump", Kind::Bool, "Whether it is part of a core dump."),
        required("prealloc", Kind::Bool, "Whether all of its memory was taken at once."),
        required("share", Kind::Bool, "Whether other mappings see writes."),
        optional("reserve", Kind::Bool, "Whether swap is reserved for it."),
        required("host-nodes", Kind::List(&Kind::U16), "Host NUMA nodes that it is bound to: none."),
        required("policy", Kind::Enum(&HOST_MEM_POLICY), "Its memory policy."),
    ],
};

pub(super) const QOM_SET: CommandSchema = CommandSchema {
    name: "qom-set",
    doc: "Sets a property. The tag of a backend that no device holds can be set; everything else is fixed for good, because \
          what is journaled of an object must stay true.",
    arguments: &[
        required("path", Kind::Str, QOM_PATH_DOC),
        required("property", Kind::Str, "Its name."),
        required("value", Kind::Any, "Its value."),
    ],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const QUERY_MEMDEV: CommandSchema = CommandSchema {
    name: "query-memdev",
    doc: "Returns the host memory backends.",
    arguments: &[],
    returns: Kind::List(&Kind::Object(&MEMDEV)),
    features: &[],
};

pub(super) async fn object_add(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    let id = required_text(arguments, "id")?;
    if !is_id(id) {
        let message = "Parameter 'id' expects an identifier: a letter, then letters, digits, '-', '.' and '_'";
        return Err(QmpError::generic(message));
    }
    let name = required_text(arguments, "qom-type")?;
    let kind = BackendType::parse(name)
        .ok_or_else(|| QmpError::generic(format!("Parameter 'qom-type' does not accept value '{name}'")))?;
    let spec = backend_request(arguments).spec(kind).map_err(|error| QmpError::generic(error.to_string()))?;
    vm.object_add(id, spec, Source::Request).await?;
    Ok(nothing())
}

fn backend_request(arguments: &Arguments) -> BackendRequest {
    let flag = |name: &str| arguments.get(name).and_then(Value::as_bool);
    let number = |name: &str| arguments.get(name).and_then(Value::as_u64);
    let text = |name: &str| text(arguments, name).map(str::to_owned);
    BackendRequest {
        size_bytes: number("size"),
        share: flag("share"),
        prealloc: flag("prealloc"),
        reserve: flag("reserve"),
        tag: text("tag"),
        mem_path: text("mem-path"),
        readonly: flag("readonly"),
        discard_data: flag("discard-data"),
        align_bytes: number("align"),
        hugetlb: flag("hugetlb"),
        hugetlbsize_bytes: number("hugetlbsize"),
        seal: flag("seal"),
    }
}

pub(super) async fn object_del(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    vm.object_del(required_text(arguments, "id")?).await?;
    Ok(nothing())
}

/// The guest has the processor of the host, as far as KVM gives it.
const VCPU_TYPE: &str = "host-x86_64-cpu";

/// A property: name, type and, where it has one, value.
struct Property {
    name: String,
    kind: String,
    value: Option<Value>,
}

fn property(name: &str, kind: &str, value: impl Into<Value>) -> Property {
    Property { name: name.into(), kind: kind.into(), value: Some(value.into()) }
}

async fn properties(vm: &Vm, path: &str) -> Result<Vec<Property>, QmpError> {
    match resolve(vm, path).await? {
        Node::Container(container) => {
            let mut listed = vec![property("type", "string", "container")];
            for (name, node) in children(vm, &container).await? {
                let kind = match node {
                    Node::Container(_) => "child<container>".to_owned(),
                    Node::Device(..) => "child<cxl-type3>".to_owned(),
                    Node::Vcpu => format!("child<{VCPU_TYPE}>"),
                    Node::Backend(id) => format!("child<{}>", backend_type(vm, id).await?),
                };
                listed.push(Property { name, kind, value: None });
            }
            Ok(listed)
        }
        Node::Device(index, _) => {
            Ok(vm.device_config(index).map_or_else(Vec::new, |config| device_properties(&config)))
        }
        Node::Vcpu => Ok(vec![property("type", "string", VCPU_TYPE), property("realized", "bool", true)]),
        Node::Backend(id) => {
            let listed = vm.backends(move |state| state.get(&id).map(backend_properties)).await?;
            listed.ok_or_else(|| QmpError::generic(format!("Device '{path}' not found")))
        }
    }
}

async fn backend_type(vm: &Vm, id: String) -> Result<&'static str, QmpError> {
    let kind = vm.backends(move |state| state.get(&id).map(|backend| backend.spec.backend_type())).await?;
    Ok(kind.map_or("memory-backend", BackendType::name))
}

fn device_properties(config: &DeviceConfig) -> Vec<Property> {
    let block_bytes = config.regions.first().map_or(0, |region| region.block.bytes());
    let memdev = |name| {
        let path = config.memdevs().find(|(property, _)| *property == name).map(|(_, id)| format!("/objects/{id}"));
        property(name, "link<memory-backend>", path.unwrap_or_default())
    };
    let is_unique = matches!(config.dynamic_memory, DynamicMemory::Plain { tag_rule: TagRule::Unique, .. });
    vec![
        property("type", "string", "cxl-type3"),
        property("realized", "bool", true),
        property("hotpluggable", "bool", true),
        property("hotplugged", "bool", false),
        property("num-dc-regions", "uint8", config.regions.len()),
        property("dc-regions-total-size", "size", config.dynamic_len_bytes()),
        property("dc-block-size", "size", block_bytes),
        property("mailbox-payload", "size", config.mailbox_payload_bytes()),
        property("sn", "uint64", config.serial),
        property("unique-tags", "bool", is_unique),
        memdev("volatile-dc-memdev"),
        memdev("volatile-memdev"),
        memdev("persistent-memdev"),
        memdev("lsa"),
    ]
}

fn backend_properties(backend: &Backend) -> Vec<Property> {
    let spec = &backend.spec;
    let mut listed = vec![
        property("type", "string", spec.backend_type().name()),
        property("size", "int", spec.size_bytes),
        property("share", "bool", spec.sharing == Sharing::Shared),
        property("tag", "string", spec.tag_text.clone()),
        property("prealloc", "bool", spec.population == Population::Preallocated),
        property("reserve", "bool", spec.reservation == Reservation::Reserved),
        property("merge", "bool", false),
        property("dump", "bool", true),
        property("host-nodes", "int", json!([])),
        property("policy", "HostMemPolicy", "default"),
    ];
    listed.extend(kind_properties(&spec.kind));
    listed
}

fn kind_properties(kind: &BackendKind) -> Vec<Property> {
    match kind {
        BackendKind::Ram => Vec::new(),
        BackendKind::Memfd { seal, huge_pages } => vec![
            property("seal", "bool", *seal == Seal::Sealed),
            property("hugetlb", "bool", huge_pages.is_some()),
            property("hugetlbsize", "int", huge_pages.and_then(|pages| pages.page_bytes).unwrap_or_default()),
        ],
        BackendKind::File { path, access, discard, align_bytes } => vec![
            property("mem-path", "string", path.clone()),
            property("readonly", "bool", *access == FileAccess::ReadOnly),
            property("discard-data", "bool", *discard == Discard::Discard),
            property("align", "int", align_bytes.unwrap_or_default()),
        ],
    }
}

pub(super) async fn qom_list(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    let listed = properties(vm, required_text(arguments, "path")?).await?;
    Ok(listed.into_iter().map(|property| json!({"name": property.name, "type": property.kind})).collect())
}

pub(super) async fn qom_get(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    let (path, name) = (required_text(arguments, "path")?, required_text(arguments, "property")?);
    let found = properties(vm, path).await?.into_iter().find(|property| property.name == name);
    match found {
        Some(Property { value: Some(value), .. }) => Ok(value),
        Some(Property { name, .. }) => Ok(child_path(path, &name).into()),
        None => Err(QmpError::generic(format!("Property '{path}.{name}' not found"))),
    }
}

pub(super) async fn qom_set(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    let (path, name) = (required_text(arguments, "path")?, required_text(arguments, "property")?);
    let listed = properties(vm, path).await?;
    if listed.iter().all(|property| property.name != name) {
        return Err(QmpError::generic(format!("Property '{path}.{name}' not found")));
    }
    let (Node::Backend(id), "tag") = (resolve(vm, path).await?, name) else {
        let message = format!("Property '{path}.{name}' is fixed: delete the object and make it anew");
        return Err(QmpError::generic(message));
    };
    let wrong_type = || QmpError::generic("Invalid parameter type for 'value', expected: string");
    let text = arguments.get("value").and_then(Value::as_str).ok_or_else(wrong_type)?;
    let tag = Tag::parse(text).map_err(|error| QmpError::generic(format!("tag={text}: {error}")))?;
    vm.retag(&id, tag, text).await?;
    Ok(nothing())
}

fn child_path(path: &str, name: &str) -> String {
    format!("/{}/{name}", path.trim_matches('/')).replace("//", "/")
}

pub(super) async fn qom_list_get(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    let paths = arguments.get("paths").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut places = Vec::new();
    for path in paths.iter().filter_map(Value::as_str) {
        let listed = properties(vm, path).await?.into_iter().map(|property| {
            let mut info = json!({"name": property.name, "type": property.kind});
            if let Some(value) = property.value {
                info["value"] = value;
            }
            info
        });
        places.push(json!({"properties": listed.collect::<Value>()}));
    }
    Ok(places.into())
}

pub(super) async fn query_memdev(vm: &Vm) -> Result<Value, QmpError> {
    let memdev = |(id, backend): (&str, &Backend)| {
        json!({
            "id": id,
            "size": backend.spec.size_bytes,
            "merge": false,
            "dump": true,
            "prealloc": backend.spec.population == Population::Preallocated,
            "share": backend.spec.sharing == Sharing::Shared,
            "reserve": backend.spec.reservation == Reservation::Reserved,
            "host-nodes": [],
            "policy": "default",
        })
    };
    Ok(vm.backends(move |state| state.iter().map(memdev).collect()).await?)
}
