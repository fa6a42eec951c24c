//! Plugging: devices come and go while the VM runs.
//!
//! ```text
//!  device_add   record ──▶ actors ──▶ the guest sees it
//!  device_del   ExtentManager: record (refused while in use, unless forced) ──▶ the guest sees it no more ──▶ actors end
//! ```
//!
//! A device's records end with the one that unplugs it: its recorder refuses what comes later. Deliberately absent: the
//! guest's consent. There is no attention button; who unplugs a device in use has to force it.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use device::backends::{self, Source};
use device::config::{DeviceConfig, DeviceIndex, DeviceRequest};
use device::extents::{self, Removal};
use device::vm::Device;
use device::{Refusal, Seq};
use journal::record::Origin;

use crate::fatal::Fatal;
use crate::vm::{RequestError, Vm};

impl Vm {
    /// `device_add`: checks the request against the backends and ports that there are, records the plug, and shows the
    /// device to the guest.
    ///
    /// # Errors
    ///
    /// Names what the request lacks, or what stands in the way with its record.
    pub async fn device_add(&self, request: DeviceRequest, source: Source) -> Result<Seq, RequestError> {
        let _plugging = self.shared.plugging.write().await;
        let sizes: BTreeMap<_, _> = self.backends(sizes).await?;
        let config = DeviceConfig::new(&request, &|id| sizes.get(id).copied())?;
        let taken: Vec<_> = self.parts().actors().keys().copied().collect();
        let port = self.config().port_for(&request, &|port| !taken.contains(&port))?;
        let origin = match source {
            Source::CommandLine => Origin::CommandLine,
            Source::Request => Origin::Operator,
        };
        let input = backends::Input::DeviceAdd { config: config.clone(), source };
        let seq = self.register(origin, port, input, None).await?;
        match self.bring_to_life(port, &config, seq).await {
            Ok(()) => Ok(seq),
            Err(refusal) => {
                // The record stands and the device does not: nothing but the next process can make it right.
                let reason = format!("device {}: {refusal}", config.id);
                Err(self.parts().fatal.raise(Fatal::Mapping { reason }).into())
            }
        }
    }

    async fn bring_to_life(&self, port: DeviceIndex, config: &DeviceConfig, seq: Seq) -> Result<(), Refusal> {
        let mut memories = BTreeMap::new();
        for (_, id) in config.memdevs() {
            if let Ok(Some(memory)) = self.memory_of(id).await {
                memories.insert(id.to_owned(), memory);
            }
        }
        let parts = self.parts();
        let device = parts.slots.plug(port, Device::new(config), &memories, seq)?;
        parts.devices.write().unwrap_or_else(PoisonError::into_inner).insert(port, device);
        Ok(())
    }

    /// `device_del`: unplugs the device with this id. One in use is refused unless the removal is forced; then everything
    /// that it offered and that the guest holds of it ends.
    ///
    /// # Errors
    ///
    /// Says what of the device is in use, or that it was unplugged before.
    pub async fn device_del(&self, id: &str, removal: Removal) -> Result<Seq, RequestError> {
        let _plugging = self.shared.plugging.write().await;
        // By its id, and only now: two clients that unplugged one device at once once took the next device in its port.
        let named = self.devices().into_iter().find(|(_, config)| config.id == id);
        let (device, _) = named.ok_or(RequestError::Unplugged)?;
        let decoders = self.windows(device, |windows| windows.committed()).await?;
        let seq = self.request(device, extents::Input::Unplug { removal, decoders }).await?;
        let parts = self.parts();
        parts.slots.unplug(device);
        let actors = parts.devices.write().unwrap_or_else(PoisonError::into_inner).remove(&device);
        if let Some(actors) = actors {
            actors.stop().await;
        }
        Ok(seq)
    }
}

fn sizes(state: &backends::State) -> BTreeMap<String, u64> {
    state.iter().map(|(id, backend)| (id.to_owned(), backend.spec.size_bytes)).collect()
}
