//! The devices that a run plugs: by tag, or plain with one backend behind all capacity, some with static memory.
//!
//! Deliberately absent: odd block sizes and regions, which are the device's own tests' matter.

use device::backends::{self, BackendKind, BackendSpec, Population, Reservation, Sharing, Source};
use device::config::{DeviceConfig, DeviceIndex, DeviceRequest};
use device::operation::{HostOutcome, Input};
use device::vm::Vm;
use journal::record::Origin;
use wire::Tag;

use crate::dice::Dice;
use crate::world::Heard;

/// Root ports of the simulated VM.
pub(crate) const PORTS: u8 = 3;

/// Regions of each device.
pub(crate) const REGIONS: u64 = 2;

/// Bytes of the blocks of every region.
pub(crate) const BLOCK_BYTES: u64 = 2 << 20;

/// Blocks of each region.
pub(crate) const REGION_BLOCKS: u64 = 8192;

const DYNAMIC_BYTES: u64 = REGIONS * REGION_BLOCKS * BLOCK_BYTES;

const STATIC_BYTES: u64 = 256 << 20;

/// Where dynamic capacity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dynamic {
    /// A tag names the backend.
    Tagged,
    /// One backend, and a tag is a label that several offers may have.
    Plain,
    /// One backend, and a label is on one offer at a time.
    PlainUnique,
}

/// The device of a port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind {
    dynamic: Dynamic,
    has_static: bool,
    mailbox_payload_bytes: u64,
}

impl Kind {
    pub(crate) fn draw(dice: &mut Dice) -> Self {
        let dynamic = [Dynamic::Tagged, Dynamic::Plain, Dynamic::PlainUnique][dice.weighed(&[4, 1, 1])];
        let mailbox_payload_bytes = dice.pick(&[256, 2 << 10, 2 << 10, 32 << 10]);
        Self { dynamic, has_static: dice.one_in(3), mailbox_payload_bytes }
    }

    /// What is plugged into a port; `None` if the request could not be, which a test rules out.
    pub(crate) fn config(&self, port: DeviceIndex) -> Option<DeviceConfig> {
        let is_tagged = self.dynamic == Dynamic::Tagged;
        let request = DeviceRequest {
            id: format!("cxl-vmem{}", port.0),
            serial: u64::from(port.0) + 1,
            num_dc_regions: Some(REGIONS),
            dc_regions_total_size_bytes: is_tagged.then_some(DYNAMIC_BYTES),
            mailbox_payload_bytes: Some(self.mailbox_payload_bytes),
            volatile_dc_memdev: (!is_tagged).then(|| dynamic_memdev(port)),
            volatile_memdev: self.has_static.then(|| static_memdev(port)),
            unique_tags: (self.dynamic == Dynamic::PlainUnique).then_some(true),
            ..DeviceRequest::default()
        };
        let size_of = |id: &str| {
            let sizes = [(dynamic_memdev(port), DYNAMIC_BYTES), (static_memdev(port), STATIC_BYTES)];
            sizes.into_iter().find(|(other, _)| other == id).map(|(_, size_bytes)| size_bytes)
        };
        DeviceConfig::new(&request, &size_of).ok()
    }

    /// A plug, and before it the backends of its own that are not there.
    pub(crate) fn plug(&self, port: DeviceIndex, source: Source, vm: &Vm) -> Vec<Heard> {
        let Some(config) = self.config(port) else { return Vec::new() };
        let origin = if source == Source::CommandLine { Origin::CommandLine } else { Origin::Operator };
        let missing = config.memdevs().filter(|(_, id)| vm.backends.get(id).is_none());
        let mut heard: Vec<_> = missing
            .map(|(property, id)| {
                let size_bytes = if property == "volatile-memdev" { STATIC_BYTES } else { DYNAMIC_BYTES };
                object_add(id.to_owned(), size_bytes, Tag::NONE, source, HostOutcome::Done)
            })
            .collect();
        heard.push(device_add(port, config, source));
        heard.iter_mut().for_each(|heard| heard.origin = origin);
        heard
    }
}

fn dynamic_memdev(port: DeviceIndex) -> String {
    format!("dc{}", port.0)
}

fn static_memdev(port: DeviceIndex) -> String {
    format!("ram{}", port.0)
}

/// The id of a backend that may be a device's own.
pub(crate) fn any_memdev(dice: &mut Dice) -> String {
    let port = DeviceIndex(dice.below(u64::from(PORTS)) as u8);
    if dice.one_in(2) { dynamic_memdev(port) } else { static_memdev(port) }
}

/// A device is plugged, or would be.
pub(crate) fn device_add(port: DeviceIndex, config: DeviceConfig, source: Source) -> Heard {
    let input = Input::Backends(backends::Input::DeviceAdd { config, source });
    Heard { device: port, origin: Origin::Operator, input, outcomes: Vec::new() }
}

/// A backend is made, or would be.
pub(crate) fn object_add(id: String, size_bytes: u64, tag: Tag, source: Source, outcome: HostOutcome) -> Heard {
    let spec = BackendSpec {
        kind: BackendKind::Ram,
        size_bytes,
        sharing: Sharing::Shared,
        population: Population::OnDemand,
        reservation: Reservation::Reserved,
        tag,
        tag_text: tag.to_string(),
    };
    let input = Input::Backends(backends::Input::ObjectAdd { id, spec, source });
    Heard { device: DeviceIndex(0), origin: Origin::Operator, input, outcomes: vec![outcome] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_device_can_be() {
        for dynamic in [Dynamic::Tagged, Dynamic::Plain, Dynamic::PlainUnique] {
            for has_static in [false, true] {
                let kind = Kind { dynamic, has_static, mailbox_payload_bytes: 256 };
                let config = kind.config(DeviceIndex(1)).expect("a device");
                assert_eq!(config.dynamic_len_bytes(), DYNAMIC_BYTES);
                assert_eq!(config.static_len_bytes() > 0, has_static);
            }
        }
    }
}
