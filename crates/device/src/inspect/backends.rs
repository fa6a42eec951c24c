//! Backends by their ids: what they were asked to be, and who holds them.

use crate::backends::{
    Backend, BackendKind, BackendSpec, BackendType, Contents, Holder, Population, Reservation, Sharing, Source,
};
use crate::vm::Vm;

use super::node::{Node, fields, items};

pub(super) fn all(vm: &Vm) -> Node<'_> {
    items(
        || vm.backends.iter().map(|(id, state)| (id.to_owned(), backend(vm, state))).collect(),
        |id| vm.backends.get(id).map(|state| (id.to_owned(), backend(vm, state))),
    )
}

fn backend<'a>(vm: &'a Vm, backend: &'a Backend) -> Node<'a> {
    let Backend { spec, source, created, holder, contents } = backend;
    fields!(
        "type" => Node::word(kind(spec).name()),
        "path" => Node::text(file(spec)),
        "size-bytes" => Node::number(spec.size_bytes),
        "share" => Node::word(if spec.sharing == Sharing::Shared { "on" } else { "off" }),
        "prealloc" => Node::word(if spec.population == Population::Preallocated { "on" } else { "off" }),
        "reserve" => Node::word(if spec.reservation == Reservation::Reserved { "on" } else { "off" }),
        "tag" => Node::tag(spec.tag),
        "source" => Node::word(if *source == Source::CommandLine { "command-line" } else { "request" }),
        "created" => Node::record(*created),
        "holder" => holding(vm, *holder),
        "contents" => bytes(*contents),
    )
}

fn kind(spec: &BackendSpec) -> BackendType {
    match spec.kind {
        BackendKind::Ram => BackendType::Ram,
        BackendKind::Memfd { .. } => BackendType::Memfd,
        BackendKind::File { .. } => BackendType::File,
    }
}

fn file(spec: &BackendSpec) -> &str {
    match &spec.kind {
        BackendKind::File { path, .. } => path,
        BackendKind::Ram | BackendKind::Memfd { .. } => "none",
    }
}

fn holding(vm: &Vm, holder: Holder) -> Node<'_> {
    let (state, device, by) = match holder {
        Holder::Free => return fields!("state" => Node::word("free")),
        Holder::Reserved { device, by } => ("reserved", device, by),
        Holder::Attached { device, by } => ("attached", device, by),
        Holder::Memdev { device, by } => ("memdev", device, by),
    };
    fields!(
        "state" => Node::word(state),
        "device" => Node::text(vm.device_id(device)),
        "by" => Node::record(by),
    )
}

fn bytes<'a>(contents: Contents) -> Node<'a> {
    match contents {
        Contents::Intact => fields!("state" => Node::word("intact")),
        Contents::Lost { by } => fields!("state" => Node::word("lost"), "by" => Node::record(by)),
    }
}
