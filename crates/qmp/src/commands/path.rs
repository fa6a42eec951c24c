//! The QOM tree and how paths name places in it.
//!
//! ```text
//!  /
//!  ├── machine
//!  │   ├── peripheral
//!  │   │   └── cxl-vmem0      a Type 3 device
//!  │   └── unattached         of a guest on KVM
//!  │       └── device[0]      a vCPU
//!  └── objects
//!      └── tm0                a backend
//! ```
//!
//! A path is full (`/machine/peripheral/cxl-vmem0`) or partial: the end of one (`cxl-vmem0`, `peripheral/cxl-vmem0`),
//! which must be the end of only one.

use std::sync::Arc;

use actors::Vm;
use device::config::{DeviceConfig, DeviceIndex};

use super::arguments::{Arguments, text};
use crate::error::{ErrorClass, QmpError};

/// Where the tree keeps what nobody has plugged.
const UNATTACHED: &str = "/machine/unattached";

/// A place in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A container: its children are found by their paths.
    Container(String),
    /// A device.
    Device(DeviceIndex, String),
    /// A backend.
    Backend(String),
    /// A vCPU.
    Vcpu,
}

/// The full path of a device.
pub(super) fn device_path(id: &str) -> String {
    format!("/machine/peripheral/{id}")
}

/// The full path of a vCPU.
pub(super) fn vcpu_path(number: usize) -> String {
    format!("{UNATTACHED}/device[{number}]")
}

/// All places with their full paths.
async fn tree(vm: &Vm) -> Result<Vec<(String, Node)>, QmpError> {
    let container = |path: &str| (path.to_owned(), Node::Container(path.to_owned()));
    let mut places = ["/", "/machine", "/machine/peripheral", "/objects"].map(container).to_vec();
    for (index, device) in vm.devices() {
        places.push((device_path(&device.id), Node::Device(index, device.id.clone())));
    }
    if let Some(machine) = vm.machine() {
        places.push(container(UNATTACHED));
        places.extend((0..machine.vcpus() as usize).map(|number| (vcpu_path(number), Node::Vcpu)));
    }
    let backends: Vec<_> = vm.backends(|state| state.iter().map(|(id, _)| id.to_owned()).collect()).await?;
    places.extend(backends.into_iter().map(|id| (format!("/objects/{id}"), Node::Backend(id))));
    Ok(places)
}

/// The place that a path names.
pub(super) async fn resolve(vm: &Vm, path: &str) -> Result<Node, QmpError> {
    let not_found = || QmpError::new(ErrorClass::DeviceNotFound, format!("Device '{path}' not found"));
    let places = tree(vm).await?;
    let mut named = places.iter().filter(|(full, _)| names(path, full));
    match (named.next(), named.next()) {
        (Some((_, node)), None) => Ok(node.clone()),
        (Some(_), Some(_)) => Err(QmpError::generic(format!("Path '{path}' is ambiguous"))),
        _ => Err(not_found()),
    }
}

/// The names of the children of a container, with their types.
pub(super) async fn children(vm: &Vm, container: &str) -> Result<Vec<(String, Node)>, QmpError> {
    let prefix = if container == "/" { "/".to_owned() } else { format!("{container}/") };
    let is_child = |full: &str| full != "/" && full.strip_prefix(&prefix).is_some_and(|rest| !rest.contains('/'));
    let places = tree(vm).await?.into_iter().filter(|(full, _)| is_child(full));
    Ok(places.map(|(full, node)| (full[prefix.len()..].to_owned(), node)).collect())
}

fn names(path: &str, full: &str) -> bool {
    let path = if path.len() > 1 { path.strip_suffix('/').unwrap_or(path) } else { path };
    if path.starts_with('/') {
        return path == full;
    }
    !path.is_empty() && full.strip_suffix(path).is_some_and(|before| before.ends_with('/'))
}

/// The device that `path` or its alias `qom-path` names: exactly one of them must be there.
pub(super) fn device_of(vm: &Vm, arguments: &Arguments) -> Result<DeviceIndex, QmpError> {
    let path = match (text(arguments, "path"), text(arguments, "qom-path")) {
        (Some(path), None) | (None, Some(path)) => path,
        (None, None) => return Err(QmpError::generic("Parameter 'path' is missing (or its alias 'qom-path')")),
        (Some(_), Some(_)) => {
            return Err(QmpError::generic("Parameters 'path' and 'qom-path' are the same thing: give exactly one"));
        }
    };
    device_by_path(vm, path).map(|(index, _)| index)
}

/// The device that a full or partial path names.
pub(super) fn device_by_path(vm: &Vm, path: &str) -> Result<(DeviceIndex, Arc<DeviceConfig>), QmpError> {
    let devices = vm.devices();
    let named = devices.iter().find(|(_, device)| names(path, &device_path(&device.id)));
    named.cloned().ok_or_else(|| {
        let ids: Vec<_> = devices.iter().map(|(_, device)| device.id.as_str()).collect();
        QmpError::generic(format!(
            "Unable to resolve CXL type 3 device: '{path}' names none (there is {})",
            ids.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn partial_paths_are_ends_of_full_ones() {
        let full = "/machine/peripheral/cxl-vmem0";
        for path in [
            full,
            "cxl-vmem0",
            "peripheral/cxl-vmem0",
            "machine/peripheral/cxl-vmem0",
            "/machine/peripheral/cxl-vmem0/",
        ] {
            assert!(names(path, full), "{path}");
        }
        for path in ["", "vmem0", "/cxl-vmem0", "/peripheral/cxl-vmem0", "cxl-vmem", "peripheral"] {
            assert!(!names(path, full), "{path}");
        }
    }
}
