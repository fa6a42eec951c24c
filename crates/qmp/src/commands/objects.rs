//! Commands of host memory backends and of the QOM tree that shows them.

use actors::Vm;
use device::backends::{Backend, BackendKind, BackendSpec, Population, Sharing, Source};
use device::config::{DeviceConfig, is_id};
use serde_json::{Value, json};

use super::arguments::{Arguments, flag, number, required_text, tag, text};
use super::nothing;
use super::path::{Node, children, resolve};
use crate::error::QmpError;
use crate::schema::{CommandSchema, EMPTY, EnumSchema, Kind, StructSchema, optional, required};

static OBJECT_TYPE: EnumSchema = EnumSchema {
    name: "ObjectType",
    doc: "Types of objects that can be made.",
    values: &[("memory-backend-ram", "Anonymous host memory.")],
};

static HOST_MEM_POLICY: EnumSchema = EnumSchema {
    name: "HostMemPolicy",
    doc: "Host memory policy.",
    values: &[("default", "The policy of the process.")],
};

pub(super) const OBJECT_ADD: CommandSchema = CommandSchema {
    name: "object-add",
    doc: "Makes a host memory backend. The tag names it for all devices of the VM, for good: a second backend with the \
          same tag is refused.",
    arguments: &[
        required("qom-type", Kind::Enum(&OBJECT_TYPE), "Its type."),
        required("id", Kind::Str, "Its id: a letter, then letters, digits, '-', '.' and '_'."),
        required("size", Kind::Size, "Its size in bytes."),
        optional("share", Kind::Bool, "Whether other mappings of the memory see writes. Default: false."),
        optional("prealloc", Kind::Bool, "Take all of its memory at once. Default: false."),
        optional("tag", Kind::Str, "Its tag: a hyphenated UUID; \"\", \"0\" and nil mean none. Default: none."),
    ],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const OBJECT_DEL: CommandSchema = CommandSchema {
    name: "object-del",
    doc: "Deletes a backend that no device holds.",
    arguments: &[required("id", Kind::Str, "Its id.")],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

static OBJECT_PROPERTY_INFO: StructSchema = StructSchema {
    name: "ObjectPropertyInfo",
    doc: "A property.",
    members: &[
        required("name", Kind::Str, "Its name."),
        required("type", Kind::Str, "Its type; `child<…>` for a place below."),
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

pub(super) const QOM_LIST: CommandSchema = CommandSchema {
    name: "qom-list",
    doc: "Returns the properties of a place in the QOM tree.",
    arguments: &[required("path", Kind::Str, "Full or partial path.")],
    returns: Kind::List(&Kind::Object(&OBJECT_PROPERTY_INFO)),
    features: &[],
};

pub(super) const QOM_GET: CommandSchema = CommandSchema {
    name: "qom-get",
    doc: "Returns the value of a property.",
    arguments: &[required("path", Kind::Str, "Full or partial path."), required("property", Kind::Str, "Its name.")],
    returns: Kind::Any,
    features: &[],
};

pub(super) const QOM_LIST_GET: CommandSchema = CommandSchema {
    name: "qom-list-get",
    doc: "Returns the properties of several places with their values.",
    arguments: &[required("paths", Kind::List(&Kind::Str), "Full or partial paths.")],
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
        required("host-nodes", Kind::List(&Kind::U16), "Host nodes that it is bound to."),
        required("policy", Kind::Enum(&HOST_MEM_POLICY), "Its memory policy."),
    ],
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
    let spec = BackendSpec {
        kind: BackendKind::Ram,
        size_bytes: number(arguments, "size"),
        sharing: if flag(arguments, "share") { Sharing::Shared } else { Sharing::Private },
        population: if flag(arguments, "prealloc") { Population::Preallocated } else { Population::OnDemand },
        tag: tag(arguments)?,
        tag_text: text(arguments, "tag").unwrap_or_default().to_owned(),
    };
    vm.object_add(id, spec, Source::Request).await?;
    Ok(nothing())
}

pub(super) async fn object_del(vm: &Vm, arguments: &Arguments) -> Result<Value, QmpError> {
    vm.object_del(required_text(arguments, "id")?).await?;
    Ok(nothing())
}

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
                    Node::Container(_) => "child<container>",
                    Node::Device(..) => "child<cxl-type3>",
                    Node::Backend(_) => "child<memory-backend-ram>",
                };
                listed.push(Property { name, kind: kind.into(), value: None });
            }
            Ok(listed)
        }
        Node::Device(index, _) => Ok(vm.device_config(index).map(device_properties).unwrap_or_default()),
        Node::Backend(id) => {
            let listed = vm.backends(move |state| state.get(&id).map(backend_properties)).await?;
            listed.ok_or_else(|| QmpError::generic(format!("Device '{path}' not found")))
        }
    }
}

fn device_properties(config: &DeviceConfig) -> Vec<Property> {
    let total_bytes: u64 = config.regions.iter().map(|region| region.len_bytes).sum();
    let block_bytes = config.regions.first().map_or(0, |region| region.block.bytes());
    let unset = |name| property(name, "link<memory-backend>", "");
    vec![
        property("type", "string", "cxl-type3"),
        property("realized", "bool", true),
        property("hotpluggable", "bool", true),
        property("hotplugged", "bool", false),
        property("num-dc-regions", "uint8", config.regions.len()),
        property("dc-regions-total-size", "size", total_bytes),
        property("dc-block-size", "size", block_bytes),
        property("mailbox-payload", "size", config.mailbox_payload_bytes()),
        property("sn", "uint64", config.serial),
        unset("volatile-dc-memdev"),
        unset("volatile-memdev"),
        unset("persistent-memdev"),
        unset("lsa"),
    ]
}

fn backend_properties(backend: &Backend) -> Vec<Property> {
    let spec = &backend.spec;
    vec![
        property("type", "string", "memory-backend-ram"),
        property("size", "int", spec.size_bytes),
        property("share", "bool", spec.sharing == Sharing::Shared),
        property("tag", "string", spec.tag_text.clone()),
        property("prealloc", "bool", spec.population == Population::Preallocated),
        property("reserve", "bool", false),
        property("merge", "bool", false),
        property("dump", "bool", true),
        property("host-nodes", "int", json!([])),
        property("policy", "HostMemPolicy", "default"),
    ]
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
            "reserve": false,
            "host-nodes": [],
            "policy": "default",
        })
    };
    Ok(vm.backends(move |state| state.iter().map(memdev).collect()).await?)
}
