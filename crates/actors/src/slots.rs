//! Slots: what a device needs around it to live, and how its actors are spawned into a root port.
//!
//! ```text
//!  state ──▶ Face, WindowMapper ──▶ ExtentManager ──▶ Mailbox ──▶ platform: the guest sees it
//! ```
//!
//! A device of a resumed journal and one that is plugged into a running VM come to life here alike. Deliberately absent:
//! the record that plugs a device, which comes before.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::config::{DeviceConfig, DeviceIndex};
use device::{Refusal, Seq};
use kameo::actor::{ActorRef, PreparedActor};
use kameo::mailbox::unbounded;
use memory::{HostMemory, HostMemoryError, Window};
use platform::{DecoderStatus, Face, FaceState, Platform};
use wire::registers::EventStatus;

use crate::backend_registry::BackendRegistry;
use crate::effect::NoticeListener;
use crate::extent_manager::ExtentManager;
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::parts::DeviceActors;
use crate::processor::Processor;
use crate::recorder::Recorder;
use crate::sink::GuestSink;
use crate::snapshot_error::SnapshotError;
use crate::start_error::StartError;
use crate::window_mapper::WindowMapper;

/// What the actors of devices are spawned into.
pub(crate) struct Slots {
    pub(crate) recorder: Recorder,
    pub(crate) outbox: Outbox,
    pub(crate) registry: ActorRef<BackendRegistry>,
    pub(crate) listener: NoticeListener,
    pub(crate) platform: Arc<Platform>,
    pub(crate) window: Arc<Window>,
    pub(crate) processor: Processor,
}

impl Slots {
    /// Spawns the actors of a device and shows it to the guest. `last` is the record of its last fact.
    pub(crate) fn plug(
        &self,
        index: DeviceIndex,
        state: device::vm::Device,
        memories: &BTreeMap<String, Arc<HostMemory>>,
        last: Seq,
    ) -> Result<DeviceActors, Refusal> {
        let device = self.spawn(index, state, memories, last)?;
        self.show(index, &device.face)?;
        self.processor.plugged();
        Ok(device)
    }

    /// Spawns the actors of a device that the guest knows, with the registers as it saw them last: it hears nothing of it.
    pub(crate) fn plug_again(
        &self,
        index: DeviceIndex,
        state: device::vm::Device,
        memories: &BTreeMap<String, Arc<HostMemory>>,
        last: Seq,
        registers: &FaceState,
    ) -> Result<DeviceActors, StartError> {
        let device = self.spawn(index, state, memories, last).map_err(StartError::Mapping)?;
        device.face.load(registers).map_err(SnapshotError::from)?;
        self.show(index, &device.face).map_err(StartError::Mapping)?;
        Ok(device)
    }

    /// Puts a device's registers into its port. Its interrupts go to the guest's processors, and to RAM for a guest that
    /// polls there.
    fn show(&self, index: DeviceIndex, face: &Arc<Face>) -> Result<(), Refusal> {
        // The platform holds the face: it must not be held by it.
        let (interrupt, lands_in) = (self.processor.interrupts(), Arc::downgrade(&self.platform));
        face.connect_interrupts(Arc::new(move |message| {
            if let Some(platform) = lands_in.upgrade() {
                platform.deliver(message);
            }
            interrupt(message);
        }));
        let shown = self.platform.plug(index.0, Arc::clone(face));
        shown.map_err(|error| Refusal::Plug { port: index.0, reason: error.to_string() })
    }

    /// Takes a device from the guest; accesses under way have ended when this returns.
    pub(crate) fn unplug(&self, index: DeviceIndex) {
        self.platform.unplug(index.0);
        self.processor.plugged();
    }

    fn spawn(
        &self,
        device: DeviceIndex,
        state: device::vm::Device,
        memories: &BTreeMap<String, Arc<HostMemory>>,
        last: Seq,
    ) -> Result<DeviceActors, Refusal> {
        let config = Arc::new(state.config.clone());
        let recorder = self.recorder.of_device();
        let mailbox = PreparedActor::<Mailbox>::new(unbounded());
        let extents = PreparedActor::<ExtentManager>::new(unbounded());
        let mapper = PreparedActor::<WindowMapper>::new(unbounded());
        let sink = GuestSink {
            mailbox: mailbox.actor_ref().clone(),
            mapper: mapper.actor_ref().clone(),
            recorder: recorder.clone(),
        };
        let unable = |error: HostMemoryError| Refusal::Plug { port: device.0, reason: error.to_string() };
        let face = face_of(&config, &state, sink).map_err(unable)?;
        let actors = DeviceActors {
            config: Arc::clone(&config),
            mailbox: mailbox.actor_ref().clone(),
            extents: extents.actor_ref().clone(),
            mapper: mapper.actor_ref().clone(),
            face: Arc::clone(&face),
        };
        let windows = WindowMapper {
            device,
            recorder: recorder.clone(),
            outbox: self.outbox.clone(),
            face: Arc::clone(&face),
            window: Arc::clone(&self.window),
            processor: self.processor.clone(),
            state: state.windows,
            last_fact: last,
        };
        windows.reconcile(memories)?;
        mapper.spawn(windows);
        extents.spawn(ExtentManager {
            device,
            config: Arc::clone(&config),
            recorder: recorder.clone(),
            outbox: self.outbox.clone(),
            face: Arc::clone(&face),
            listener: Arc::clone(&self.listener),
            registry: self.registry.clone(),
            mapper: actors.mapper.clone(),
            mailbox: actors.mailbox.clone(),
            state: state.extents,
            last_fact: last,
        });
        mailbox.spawn(Mailbox {
            device,
            config,
            recorder,
            outbox: self.outbox.clone(),
            face,
            extents: actors.extents.clone(),
            state: state.mailbox,
            last_fact: last,
        });
        Ok(actors)
    }
}

/// The registers as the state says they read; what was only staged is as at power-on.
fn face_of(config: &DeviceConfig, state: &device::vm::Device, sink: GuestSink) -> Result<Arc<Face>, HostMemoryError> {
    let face = Face::new(state.mailbox.config_space().clone(), config.mailbox_payload_log2, Arc::new(sink))?;
    face.restore_interrupts(state.mailbox.msix(), state.mailbox.control());
    let status = EventStatus::new().with_dynamic_capacity(!state.extents.log().is_empty());
    face.set_event_status(u64::from(status));
    face.restore_hdm_control(state.windows.hdm_control());
    for (index, decoder) in (0u8..).zip(state.windows.decoders()) {
        if let device::windows::Decoder::Committed { fields, .. } = decoder {
            face.restore_decoder(index, fields.base, fields.size_bytes, fields.skip_bytes, fields.control);
            face.set_decoder(index, DecoderStatus::Committed);
        }
    }
    Ok(Arc::new(face))
}
