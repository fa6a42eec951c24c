//! The parts of a VM as they are asked for, and the VM that they make, with defaults for what is not given.

use actors::{Object, VmRequest};
use anyhow::Context;
use device::config::{DeviceConfig, DeviceRequest, VmConfig};
use platform::AddressMap;

/// Guest memory where nobody says how much, in bytes.
const MEMORY_BYTES: u64 = 1 << 30;

/// The parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct VmParts {
    /// Guest memory in bytes. Default: 1 GiB.
    pub(crate) memory_bytes: Option<u64>,
    /// Sizes of the fixed windows in bytes. Default: one that fits the devices.
    pub(crate) windows_bytes: Vec<u64>,
    /// Ids of the root ports. Default: one for each device, with the name that the device gives it.
    pub(crate) root_ports: Vec<String>,
    /// The devices. Default: one without memory.
    pub(crate) devices: Vec<DeviceRequest>,
    /// The backends, of which devices may be made.
    pub(crate) objects: Vec<Object>,
}

impl VmParts {
    /// Whether nothing is asked that describes a VM.
    pub(crate) fn is_default(&self) -> bool {
        self.memory_bytes.is_none()
            && self.windows_bytes.is_empty()
            && self.root_ports.is_empty()
            && self.devices.is_empty()
    }

    /// The VM.
    pub(crate) fn request(&self) -> anyhow::Result<VmRequest> {
        let devices = if self.devices.is_empty() { vec![default_device()] } else { self.devices.clone() };
        let configs = devices.iter().map(|device| DeviceConfig::new(device, &|id| self.size_of(id)));
        let configs = configs.collect::<Result<Vec<_>, _>>()?;
        let memory_bytes = self.memory_bytes.unwrap_or(MEMORY_BYTES);
        let window_base = AddressMap::new(memory_bytes).fixed_window_base();
        let window_base =
            window_base.with_context(|| format!("--memory {memory_bytes} leaves no room for a window"))?;
        let windows_bytes = if self.windows_bytes.is_empty() {
            vec![configs.iter().map(DeviceConfig::dpa_end).sum()]
        } else {
            self.windows_bytes.clone()
        };
        let root_ports = if self.root_ports.is_empty() { ports_of(&devices) } else { self.root_ports.clone() };
        let config = VmConfig { memory_bytes, window_base, windows_bytes, root_ports };
        config.check()?;
        devices.iter().try_for_each(|device| config.port_for(device, &|_| true).map(drop))?;
        Ok(VmRequest { config, devices })
    }

    fn size_of(&self, id: &str) -> Option<u64> {
        self.objects.iter().find(|object| object.id == id).map(|object| object.spec.size_bytes)
    }
}

fn default_device() -> DeviceRequest {
    DeviceRequest { id: "cxl-vmem0".into(), dc_regions_total_size_bytes: Some(4 << 30), ..DeviceRequest::default() }
}

/// A root port for each device, called as the device calls it.
fn ports_of(devices: &[DeviceRequest]) -> Vec<String> {
    let port = |(index, device): (usize, &DeviceRequest)| device.bus.clone().unwrap_or_else(|| format!("rp{index}"));
    devices.iter().enumerate().map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_of_nothing_has_one_device() {
        let vm = VmParts::default().request().unwrap();
        assert_eq!(vm.config.root_ports, ["rp0"]);
        assert_eq!(vm.config.windows_bytes, [4 << 30]);
        assert_eq!(vm.devices.len(), 1);
    }

    #[test]
    fn ports_are_named_by_devices_or_by_themselves() {
        let device = DeviceRequest { bus: Some("root_port13".into()), ..default_device() };
        let parts = VmParts { devices: vec![device], ..VmParts::default() };
        assert_eq!(parts.request().unwrap().config.root_ports, ["root_port13"]);
        let parts = VmParts { root_ports: vec!["rp1".into()], ..parts };
        assert!(parts.request().unwrap_err().to_string().contains("bus=root_port13"));
    }
}
