//! What management programs ask when they connect: who runs here, and on what.
//!
//! A VM of this program has no name and no UUID, and vCPUs only where its guest is on KVM: else that is a driver inside the
//! process. The answers say so in the form in which QEMU says it. Deliberately absent: queries whose answer would be made up.

use actors::Vm;
use serde_json::{Value, json};

use super::path::vcpu_path;
use crate::schema::{CommandSchema, EnumSchema, Kind, StructSchema, optional, required};

static NAME_INFO: StructSchema = StructSchema {
    name: "NameInfo",
    doc: "The name of the VM.",
    members: &[optional("name", Kind::Str, "The name; absent where it has none.")],
};

static UUID_INFO: StructSchema = StructSchema {
    name: "UuidInfo",
    doc: "The UUID of the VM.",
    members: &[required("UUID", Kind::Str, "The UUID, hyphenated; nil where it has none.")],
};

static TARGET: EnumSchema = EnumSchema {
    name: "SysEmuTarget",
    doc: "An architecture.",
    values: &[("x86_64", "What the guest-physical address map is made for.")],
};

static TARGET_INFO: StructSchema = StructSchema {
    name: "TargetInfo",
    doc: "What is emulated.",
    members: &[required("arch", Kind::Enum(&TARGET), "The architecture of the guest.")],
};

static CPU_INFO: StructSchema = StructSchema {
    name: "CpuInfoFast",
    doc: "A vCPU.",
    members: &[
        required("cpu-index", Kind::Int, "Its number."),
        required("qom-path", Kind::Str, "Its place in the QOM tree."),
        required("thread-id", Kind::Int, "The host's id of its thread."),
        required("target", Kind::Enum(&TARGET), "Its architecture."),
    ],
};

static KVM_INFO: StructSchema = StructSchema {
    name: "KvmInfo",
    doc: "What of KVM there is.",
    members: &[
        required("enabled", Kind::Bool, "Whether the guest is on it."),
        required("present", Kind::Bool, "Whether this build knows it."),
    ],
};

pub(super) const QUERY_NAME: CommandSchema = CommandSchema {
    name: "query-name",
    doc: "Returns the name of the VM: it has none.",
    arguments: &[],
    returns: Kind::Object(&NAME_INFO),
    features: &[],
};
pub(super) const QUERY_UUID: CommandSchema = CommandSchema {
    name: "query-uuid",
    doc: "Returns the UUID of the VM: it has none, which is the nil UUID.",
    arguments: &[],
    returns: Kind::Object(&UUID_INFO),
    features: &[],
};
pub(super) const QUERY_TARGET: CommandSchema = CommandSchema {
    name: "query-target",
    doc: "Returns what is emulated.",
    arguments: &[],
    returns: Kind::Object(&TARGET_INFO),
    features: &[],
};
pub(super) const QUERY_KVM: CommandSchema = CommandSchema {
    name: "query-kvm",
    doc: "Returns whether the guest is on KVM.",
    arguments: &[],
    returns: Kind::Object(&KVM_INFO),
    features: &[],
};
pub(super) const QUERY_CPUS_FAST: CommandSchema = CommandSchema {
    name: "query-cpus-fast",
    doc: "Returns the vCPUs, and their threads for who gives these cores of their own. There are none where the guest is a \
          driver inside the process.",
    arguments: &[],
    returns: Kind::List(&Kind::Object(&CPU_INFO)),
    features: &[],
};

pub(super) fn query_name() -> Value {
    json!({})
}

pub(super) fn query_uuid() -> Value {
    json!({"UUID": "00000000-0000-0000-0000-000000000000"})
}

pub(super) fn query_target() -> Value {
    json!({"arch": "x86_64"})
}

pub(super) fn query_kvm(vm: &Vm) -> Value {
    json!({"enabled": vm.machine().is_some(), "present": true})
}

pub(super) fn query_cpus_fast(vm: &Vm) -> Value {
    let thread_ids = vm.machine().map_or_else(Vec::new, |machine| machine.thread_ids());
    let info = |(number, thread_id): (usize, u32)| json!({"cpu-index": number, "qom-path": vcpu_path(number), "thread-id": thread_id, "target": "x86_64"});
    thread_ids.into_iter().enumerate().map(info).collect()
}
