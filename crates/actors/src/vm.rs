//! A running VM: its actors, and what others may ask of it.
//!
//! ```text
//!  operators ──▶ ExtentManager ──▶ BackendRegistry ──▶ WindowMapper      asks, always in this order
//!  guest ──▶ Face ──▶ Mailbox ──▶ ExtentManager
//! ```
//!
//! Deliberately absent: restarts. An actor that dies stops the VM ([`crate::Fatal`]); the next process resumes it.

use std::sync::Arc;
use std::time::Duration;

use device::backends::{self, BackendSpec, Source};
use device::config::{DeviceConfig, DeviceIndex, VmConfig};
use device::extents::{self, AddRequest, ReleaseRequest};
use device::{Refusal, Seq, mailbox, windows};
use journal::Journal;
use journal::record::Origin;
use kameo::actor::ActorRef;
use kameo::message::Message;
use memory::{HostMemory, Window};
use platform::{Face, Platform};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use crate::backend_registry::{BackendRegistry, MemoryOf, Register};
use crate::bus::GuestBus;
use crate::extent_manager::{ExtentManager, Request};
use crate::fatal::{Fatal, FatalFlag, Stopped};
use crate::guest_vcpu::{Guest, GuestVcpu, Run};
use crate::host_memory::make;
use crate::mailbox::{Mailbox, Reset};
use crate::outbox::Outbox;
use crate::read::Read;
use crate::window_mapper::WindowMapper;

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The device or the registry refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is nobody left to answer.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The actors of one device.
#[derive(Clone)]
pub(crate) struct DeviceActors {
    pub(crate) mailbox: ActorRef<Mailbox>,
    pub(crate) extents: ActorRef<ExtentManager>,
    pub(crate) mapper: ActorRef<WindowMapper>,
    pub(crate) face: Arc<Face>,
}

/// A running VM. Clones are handles to the same one.
#[derive(Clone)]
pub struct Vm {
    pub(crate) parts: Arc<Parts>,
}

pub(crate) struct Parts {
    pub(crate) config: Arc<VmConfig>,
    pub(crate) journal: Journal,
    pub(crate) outbox: Outbox,
    pub(crate) fatal: FatalFlag,
    pub(crate) registry: ActorRef<BackendRegistry>,
    pub(crate) devices: Vec<DeviceActors>,
    pub(crate) guest: ActorRef<GuestVcpu>,
    pub(crate) platform: Arc<Platform>,
    pub(crate) window: Arc<Window>,
    pub(crate) bus: GuestBus,
}

/// Whether the VM clock runs and the guest with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Both run.
    Running,
    /// Both stand still; requests are served.
    Paused,
}

impl Vm {
    /// What the VM was started as.
    pub fn config(&self) -> &VmConfig {
        &self.parts.config
    }

    /// One device's configuration.
    pub fn device_config(&self, device: DeviceIndex) -> Option<&DeviceConfig> {
        self.parts.config.devices.get(usize::from(device.0))
    }

    /// `cxl-add-dynamic-capacity`: the record that offered.
    pub async fn add(&self, device: DeviceIndex, request: AddRequest) -> Result<Seq, RequestError> {
        self.request(device, extents::Input::Add(request)).await
    }

    /// `cxl-release-dynamic-capacity`: the record that asked back or took away.
    pub async fn release(&self, device: DeviceIndex, request: ReleaseRequest) -> Result<Seq, RequestError> {
        self.request(device, extents::Input::Release(request)).await
    }

    async fn request(&self, device: DeviceIndex, input: extents::Input) -> Result<Seq, RequestError> {
        let (answer, answered) = oneshot::channel();
        tell(&self.device(device)?.extents, Request { input, answer })?;
        Ok(answered.await.map_err(|_| Stopped)??)
    }

    /// `object-add`: makes the memory on a thread of its own, then registers it.
    pub async fn object_add(&self, id: &str, spec: BackendSpec, source: Source) -> Result<Seq, RequestError> {
        let memory = make(&spec).await;
        let origin = match source {
            Source::CommandLine => Origin::CommandLine,
            Source::Request => Origin::Operator,
        };
        let input = backends::Input::ObjectAdd { id: id.into(), spec, source };
        self.register(origin, input, Some(memory)).await
    }

    /// `object-del`
    pub async fn object_del(&self, id: &str) -> Result<Seq, RequestError> {
        self.register(Origin::Operator, backends::Input::ObjectDel { id: id.into() }, None).await
    }

    pub(crate) async fn register(
        &self,
        origin: Origin,
        input: backends::Input,
        memory: Option<Result<Arc<HostMemory>, String>>,
    ) -> Result<Seq, RequestError> {
        let (answer, answered) = oneshot::channel();
        tell(&self.parts.registry, Register { origin, input, memory, answer })?;
        Ok(answered.await.map_err(|_| Stopped)??)
    }

    /// Conventional reset of every device, then of the guest: the last record.
    pub async fn system_reset(&self) -> Result<Seq, Stopped> {
        // The guest's boot ends first and its next begins last, so that no write of either falls into the reset.
        self.parts.bus.gate().reset_begins();
        let done = self.reset_devices().await;
        self.parts.platform.reset();
        self.parts.bus.gate().reset_ends();
        done
    }

    async fn reset_devices(&self) -> Result<Seq, Stopped> {
        let mut last = self.parts.journal.last();
        for device in &self.parts.devices {
            let (answer, answered) = oneshot::channel();
            tell(&device.mailbox, Reset { origin: Origin::Operator, answer })?;
            last = answered.await.map_err(|_| Stopped)?;
        }
        Ok(last)
    }

    /// Asks the extent manager of a device.
    pub async fn extents<T: Send + 'static>(
        &self,
        device: DeviceIndex,
        question: impl FnOnce(&extents::State) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        read(&self.device(device)?.extents, question).await
    }

    /// Asks the window mapper of a device.
    pub async fn windows<T: Send + 'static>(
        &self,
        device: DeviceIndex,
        question: impl FnOnce(&windows::State) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        read(&self.device(device)?.mapper, question).await
    }

    /// Asks the mailbox of a device.
    pub async fn mailbox<T: Send + 'static>(
        &self,
        device: DeviceIndex,
        question: impl FnOnce(&mailbox::State) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        read(&self.device(device)?.mailbox, question).await
    }

    /// Asks the backend registry.
    pub async fn backends<T: Send + 'static>(
        &self,
        question: impl FnOnce(&backends::State) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        read(&self.parts.registry, question).await
    }

    /// The whole state, actor by actor. Exact where nothing is under way.
    pub async fn state(&self) -> Result<device::vm::Vm, Stopped> {
        let mut devices = Vec::new();
        for index in (0u8..).take(self.parts.devices.len()).map(DeviceIndex) {
            devices.push(device::vm::Device {
                mailbox: self.mailbox(index, Clone::clone).await?,
                extents: self.extents(index, Clone::clone).await?,
                windows: self.windows(index, Clone::clone).await?,
            });
        }
        let backends = self.backends(Clone::clone).await?;
        Ok(device::vm::Vm { config: self.config().clone(), backends, devices })
    }

    /// The memory behind a backend, for an operator who looks at its bytes.
    pub async fn memory_of(&self, backend: &str) -> Result<Option<Arc<HostMemory>>, Stopped> {
        let (answer, answered) = oneshot::channel();
        tell(&self.parts.registry, MemoryOf { id: backend.into(), answer })?;
        answered.await.map_err(|_| Stopped)
    }

    /// A bus on which a program in this process is the guest, for the boot under way: the demo, a test.
    pub fn bus(&self) -> GuestBus {
        self.parts.bus.rebooted()
    }

    /// What the guest sees around the device.
    pub fn platform(&self) -> &Arc<Platform> {
        &self.parts.platform
    }

    /// The lookup that answers accesses to the CXL window.
    pub fn window(&self) -> &Arc<Window> {
        &self.parts.window
    }

    /// The journal's last record and the last durable one.
    pub fn journal_position(&self) -> (Seq, Seq) {
        (self.parts.journal.last(), self.parts.journal.durable())
    }

    /// `stop` and `cont`: the VM clock and the guest.
    pub fn set_run_state(&self, to: RunState) -> Result<(), Stopped> {
        let clock = self.parts.journal.clock();
        match to {
            RunState::Running => clock.resume(),
            RunState::Paused => drop(clock.pause()),
        }
        tell(&self.parts.guest, Run(to))
    }

    /// Whether clock and guest run.
    pub fn run_state(&self) -> RunState {
        if self.parts.journal.clock().is_running() { RunState::Running } else { RunState::Paused }
    }

    /// How the in-process guest fares; `None` where there is none.
    pub async fn guest(&self) -> Result<Option<Guest>, Stopped> {
        read(&self.parts.guest, Option::<Guest>::clone).await
    }

    /// Raised when the VM stops before its time.
    pub fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.parts.fatal.subscribe()
    }

    /// Stops the guest and the actors, makes everything durable and gives the journal back.
    pub async fn shutdown(self) {
        let parts = &self.parts;
        // An actor that is gone already has nothing to finish.
        parts.guest.stop_gracefully().await.ok();
        parts.guest.wait_for_shutdown().await;
        for device in &parts.devices {
            device.mailbox.stop_gracefully().await.ok();
            device.mailbox.wait_for_shutdown().await;
            device.extents.stop_gracefully().await.ok();
            device.extents.wait_for_shutdown().await;
            device.mapper.stop_gracefully().await.ok();
            device.mapper.wait_for_shutdown().await;
        }
        parts.registry.stop_gracefully().await.ok();
        parts.registry.wait_for_shutdown().await;
        let journal = parts.journal.clone();
        let closing = tokio::task::spawn_blocking(move || journal.close());
        // Closing panics only if the keeper did, which has raised the alarm.
        tokio::time::timeout(Duration::from_secs(60), closing).await.ok();
        parts.outbox.close();
    }

    fn device(&self, device: DeviceIndex) -> Result<&DeviceActors, Stopped> {
        self.parts.devices.get(usize::from(device.0)).ok_or(Stopped)
    }
}

/// Tells without waiting: the mailboxes are unbounded, so that a tell fails only where the actor is gone.
pub(crate) fn tell<A, M>(actor: &ActorRef<A>, message: M) -> Result<(), Stopped>
where
    A: kameo::Actor + Message<M>,
    M: Send + 'static,
{
    actor.tell(message).try_send().map_err(|_| Stopped)
}

async fn read<A, S, T>(actor: &ActorRef<A>, question: impl FnOnce(&S) -> T + Send + 'static) -> Result<T, Stopped>
where
    A: kameo::Actor + Message<Read<S, T>>,
    S: 'static,
    T: Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    tell(actor, Read { question: Box::new(question), answer })?;
    answered.await.map_err(|_| Stopped)
}
