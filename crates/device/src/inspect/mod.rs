//! The inspect view: the whole state as one tree of named values, for people and for programs.
//!
//! ```text
//!  config   runs   plugs
//!  backends.<id>          type, size-bytes, tag, holder.{state, device, by}, contents, …
//!  devices.<id>           port
//!    .config              serial, regions[n], …
//!    .mailbox             control, interrupt-policy, bars, config-space[0x…], msix[n]
//!    .extents             generation, offers[#N], accepted[0x…], tags[UUID], requested[0x…], log, chain, clock
//!    .windows             hdm-control, decoders[n], pieces[0x…], mappings[0x…]
//! ```
//!
//! Names stay from version to version; a tree is expanded only where it is asked. A part depends on the state of few
//! actors ([`writers`]), so that who looks for the record that wrote it need not look at all of them. Deliberately
//! absent: bytes of memory, and the indexes that only make the device fast.

mod backends;
mod config;
mod extents;
mod mailbox;
mod node;
mod path;
mod value;
mod windows;

use std::collections::BTreeMap;

use crate::backends::Fact as B;
use crate::config::DeviceIndex;
use crate::extents::Fact as E;
use crate::operation::{Actor, Fact};
use crate::vm::{Device, Vm};

pub use node::{Collection, Fields, Key, Node};
use node::{fields, items};
pub use path::{Path, PathError};
pub use value::Value;

/// The tree of a state.
pub fn tree(vm: &Vm) -> Node<'_> {
    fields!(
        "config" => config::vm(&vm.config),
        "runs" => Node::number(vm.backends.runs()),
        "plugs" => Node::number(vm.backends.plugs()),
        "backends" => backends::all(vm),
        "devices" => devices(vm),
    )
}

fn devices<'a>(vm: &'a Vm) -> Node<'a> {
    let node = |(index, state): (&DeviceIndex, &'a Device)| (state.config.id.clone(), device(index.0, state));
    items(
        move || vm.devices.iter().map(node).collect(),
        move |id| vm.devices.iter().find(|(_, state)| state.config.id == id).map(node),
    )
}

fn device(port: u8, device: &Device) -> Node<'_> {
    fields!(
        "port" => Node::number(port),
        "config" => config::device(&device.config),
        "mailbox" => mailbox::state(&device.mailbox),
        "extents" => self::extents::state(&device.extents),
        "windows" => windows::state(&device.windows),
    )
}

/// The actors whose facts can change what stands at a path. Facts of others leave it alone.
pub fn writers(path: &Path) -> &'static [Actor] {
    const ALL: &[Actor] = &[Actor::Mailbox, Actor::Extents, Actor::Backends, Actor::Windows];
    // A plug and an unplug, facts of the registry, make and end all that a device has.
    match path.beginning().words() {
        ["backends" | "runs" | "plugs" | "config", ..] | ["devices", _, "port" | "config", ..] => &[Actor::Backends],
        ["devices", _, "mailbox", ..] => &[Actor::Backends, Actor::Mailbox],
        ["devices", _, "extents", ..] => &[Actor::Backends, Actor::Extents],
        ["devices", _, "windows", ..] => &[Actor::Backends, Actor::Windows],
        _ => ALL,
    }
}

/// Whether a fact of a device's record can change what stands at a path: more exact than [`writers`], and never too narrow.
pub fn can_write(path: &Path, fact: &Fact) -> bool {
    if !writers(path).contains(&fact.actor()) {
        return false;
    }
    let is_plug = matches!(fact, Fact::Backends(B::DeviceAdded { .. } | B::DeviceRemoved));
    match (path.beginning().words(), fact) {
        (["runs", ..], fact) => matches!(fact, Fact::Backends(B::RunStarted { .. })),
        (["plugs" | "config", ..] | ["devices", _, "port" | "config", ..], _) => is_plug,
        (["backends", id, ..], Fact::Backends(fact)) => is_plug || names(fact, id),
        (["devices", ..], Fact::Backends(_)) => is_plug,
        (["devices", _, "extents", "generation" | "accepted", ..], Fact::Extents(fact)) => {
            matches!(fact, E::Accepted { .. } | E::Released { .. })
        }
        _ => true,
    }
}

/// Whether a fact of the registry is about a backend.
fn names(fact: &B, asked: &str) -> bool {
    match fact {
        B::Added { id, .. }
        | B::Retagged { id, .. }
        | B::Removed { id }
        | B::Reserved { id, .. }
        | B::Attached { id, .. }
        | B::Freed { id }
        | B::Dedicated { id, .. }
        | B::ContentsLost { id } => id == asked,
        B::DeviceAdded { .. } | B::DeviceRemoved | B::RunStarted { .. } => false,
    }
}

/// The value at a path; `None` where there is nothing, or more than a value. As [`values`], without saying why, and fast.
pub fn value(vm: &Vm, path: &Path) -> Option<Value> {
    match path.lead(tree(vm))? {
        Node::Leaf(value) => Some(value),
        Node::Fields(_) | Node::Items(_) => None,
    }
}

/// Whether there is anything at a path.
pub fn is_there(vm: &Vm, path: &Path) -> bool {
    path.lead(tree(vm)).is_some()
}

/// The values at and below a path, each with its own path, in the order of the tree.
///
/// # Errors
/// Where there is nothing at the path: how far it goes, and what is there instead.
pub fn values(vm: &Vm, path: &Path) -> Result<Vec<(String, Value)>, PathError> {
    let (mut place, node) = path.find(tree(vm))?;
    let mut values = Vec::new();
    node.walk(&mut place, &mut |path, value| values.push((path.to_owned(), value)));
    Ok(values)
}

/// One value that is not the same in two states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub path: String,
    /// What it was; `None` where there was nothing.
    pub before: Option<Value>,
    /// What it is; `None` where there is nothing any more.
    pub after: Option<Value>,
}

/// What differs at and below a path between two states.
pub fn changes(before: &Vm, after: &Vm, path: &Path) -> Vec<Change> {
    // Nothing at the path is no values.
    let of = |vm| if is_there(vm, path) { values(vm, path).unwrap_or_default() } else { Vec::new() };
    changes_of(of(before), of(after))
}

/// What differs between two lists of values.
pub fn changes_of(before: Vec<(String, Value)>, after: Vec<(String, Value)>) -> Vec<Change> {
    if before == after {
        return Vec::new();
    }
    let mut old: BTreeMap<_, _> = before.iter().map(|(path, value)| (path.as_str(), value)).collect();
    let mut changes = Vec::new();
    for (path, value) in &after {
        let before = old.remove(path.as_str());
        if before != Some(value) {
            changes.push(Change { path: path.clone(), before: before.cloned(), after: Some(value.clone()) });
        }
    }
    let gone = before.iter().filter(|(path, _)| old.contains_key(path.as_str()));
    changes.extend(gone.map(|(path, value)| Change { path: path.clone(), before: Some(value.clone()), after: None }));
    changes
}
