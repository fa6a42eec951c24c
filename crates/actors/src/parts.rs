//! The parts of a running VM: its actors and what stands around them, for one life.
//!
//! ```text
//!  operators ──▶ ExtentManager ──▶ BackendRegistry ──▶ WindowMapper      asks, always in this order
//!  guest ──▶ Face ──▶ Mailbox ──▶ ExtentManager
//! ```
//!
//! A pulse or a snapshot that is loaded ends one life of a VM and begins its next one, with parts of its own. Deliberately
//! absent: restarts. An actor that dies stops the VM ([`crate::Fatal`]); the next process resumes it.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use device::backends;
use device::config::{DeviceConfig, DeviceIndex, VmConfig};
use device::{Seq, extents, mailbox, windows};
use journal::Journal;
use journal::record::Origin;
use kameo::actor::ActorRef;
use kameo::message::Message;
use memory::HostMemory;
use platform::{Face, Platform};
use replay::Followed;
use tokio::sync::oneshot;

use crate::backend_registry::{Memories, MemoryOf, Register};
use crate::bus::GuestBus;
use crate::extent_manager::{ExtentManager, Request};
use crate::fatal::{FatalFlag, Stopped};
use crate::guest_vcpu::GuestVcpu;
use crate::mailbox::Mailbox;
use crate::read::Read;
use crate::slots::Slots;
use crate::vm::RequestError;
use crate::window_mapper::WindowMapper;

/// How long an actor is waited for that ends.
pub(crate) const END_TIMEOUT: Duration = Duration::from_secs(60);

/// The actors of one device.
#[derive(Clone)]
pub(crate) struct DeviceActors {
    pub(crate) config: Arc<DeviceConfig>,
    pub(crate) mailbox: ActorRef<Mailbox>,
    pub(crate) extents: ActorRef<ExtentManager>,
    pub(crate) mapper: ActorRef<WindowMapper>,
    pub(crate) face: Arc<Face>,
}

/// The parts.
pub(crate) struct Parts {
    pub(crate) config: Arc<VmConfig>,
    pub(crate) journal: Journal,
    pub(crate) fatal: FatalFlag,
    /// What device actors are spawned into.
    pub(crate) slots: Slots,
    /// The state behind the journal, where there is one.
    pub(crate) followed: Option<Followed>,
    /// The devices that are plugged.
    pub(crate) devices: RwLock<BTreeMap<DeviceIndex, DeviceActors>>,
    pub(crate) guest: ActorRef<GuestVcpu>,
    pub(crate) bus: GuestBus,
}

impl Parts {
    pub(crate) fn actors(&self) -> RwLockReadGuard<'_, BTreeMap<DeviceIndex, DeviceActors>> {
        self.devices.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn device(&self, device: DeviceIndex) -> Option<DeviceActors> {
        self.actors().get(&device).cloned()
    }

    pub(crate) fn platform(&self) -> &Arc<Platform> {
        &self.slots.platform
    }

    /// An operator's request to a device.
    pub(crate) async fn request(&self, device: DeviceIndex, input: extents::Input) -> Result<Seq, RequestError> {
        let extents = self.device(device).ok_or(RequestError::Unplugged)?.extents;
        let (answer, answered) = oneshot::channel();
        tell(&extents, Request { input, answer }).map_err(|stopped| self.gone(stopped))?;
        Ok(answered.await.map_err(|_| self.gone(Stopped))??)
    }

    /// An input of the backend registry.
    pub(crate) async fn register(
        &self,
        origin: Origin,
        device: DeviceIndex,
        input: backends::Input,
        memory: Option<Result<Arc<HostMemory>, String>>,
    ) -> Result<Seq, RequestError> {
        let (answer, answered) = oneshot::channel();
        tell(&self.slots.registry, Register { origin, device, input, memory, answer })?;
        Ok(answered.await.map_err(|_| Stopped)??)
    }

    /// Asks one actor of a device. Without an answer either the VM has stopped or the device has left.
    pub(crate) async fn read_of<A, S, T>(
        &self,
        device: DeviceIndex,
        actor: impl FnOnce(&DeviceActors) -> &ActorRef<A>,
        question: impl FnOnce(&S) -> T + Send + 'static,
    ) -> Result<T, RequestError>
    where
        A: kameo::Actor + Message<Read<S, T>>,
        S: 'static,
        T: Send + 'static,
    {
        let actors = self.device(device).ok_or(RequestError::Unplugged)?;
        read(actor(&actors), question).await.map_err(|stopped| self.gone(stopped))
    }

    /// Asks the backend registry.
    pub(crate) async fn backends<T: Send + 'static>(
        &self,
        question: impl FnOnce(&backends::State) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        read(&self.slots.registry, question).await
    }

    /// The whole state, actor by actor. Exact where nothing is under way.
    pub(crate) async fn state(&self) -> Result<device::vm::Vm, RequestError> {
        let mut devices = BTreeMap::new();
        let plugged: Vec<_> =
            self.actors().iter().map(|(index, actors)| (*index, Arc::clone(&actors.config))).collect();
        for (index, config) in plugged {
            // At once: in a pause one of them to wake up is waited for, and not one after the other.
            let (mailbox, extents, windows) = tokio::try_join!(
                self.read_of(index, |actors| &actors.mailbox, mailbox::State::clone),
                self.read_of(index, |actors| &actors.extents, extents::State::clone),
                self.read_of(index, |actors| &actors.mapper, windows::State::clone),
            )?;
            let config = DeviceConfig::clone(&config);
            devices.insert(index, device::vm::Device { config, mailbox, extents, windows });
        }
        let backends = self.backends(Clone::clone).await?;
        Ok(device::vm::Vm { config: VmConfig::clone(&self.config), backends, devices })
    }

    pub(crate) async fn memory_of(&self, backend: &str) -> Result<Option<Arc<HostMemory>>, Stopped> {
        let (answer, answered) = oneshot::channel();
        tell(&self.slots.registry, MemoryOf { id: backend.into(), answer })?;
        answered.await.map_err(|_| Stopped)
    }

    /// The memory of every backend.
    pub(crate) async fn memories(&self) -> Result<BTreeMap<String, Arc<HostMemory>>, Stopped> {
        let (answer, answered) = oneshot::channel();
        tell(&self.slots.registry, Memories { answer })?;
        answered.await.map_err(|_| Stopped)
    }

    /// Ends the guest and the actors, each after what it has heard.
    pub(crate) async fn stop(&self) {
        // An actor that is gone already has nothing to finish.
        self.guest.stop_gracefully().await.ok();
        // To the end of its own stop, which waits for the processors: the mailbox of an actor closes before that, and a guest
        // that still ran once rang the doorbell of a Mailbox that was gone.
        self.guest.wait_for_shutdown_with_result(|_| ()).await;
        // They stay on the list: who looks at it in the middle of a pulse once saw a VM without devices.
        let devices: Vec<_> = self.actors().values().cloned().collect();
        for device in devices {
            device.stop().await;
        }
        self.slots.registry.stop_gracefully().await.ok();
        self.slots.registry.wait_for_shutdown().await;
    }

    /// Makes everything durable and gives the journal back.
    pub(crate) async fn close_journal(&self) {
        let journal = self.journal.clone();
        let closing = tokio::task::spawn_blocking(move || journal.close());
        // Closing panics only if the keeper did, which has raised the alarm.
        tokio::time::timeout(END_TIMEOUT, closing).await.ok();
        self.slots.outbox.close();
    }

    fn gone(&self, stopped: Stopped) -> RequestError {
        if self.fatal.is_raised() { stopped.into() } else { RequestError::Unplugged }
    }
}

impl DeviceActors {
    /// Ends them, each after what it has heard; one that is gone already has nothing to finish.
    pub(crate) async fn stop(self) {
        self.mailbox.stop_gracefully().await.ok();
        self.mailbox.wait_for_shutdown().await;
        self.extents.stop_gracefully().await.ok();
        self.extents.wait_for_shutdown().await;
        self.mapper.stop_gracefully().await.ok();
        self.mapper.wait_for_shutdown().await;
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

pub(crate) async fn read<A, S, T>(
    actor: &ActorRef<A>,
    question: impl FnOnce(&S) -> T + Send + 'static,
) -> Result<T, Stopped>
where
    A: kameo::Actor + Message<Read<S, T>>,
    S: 'static,
    T: Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    tell(actor, Read { question: Box::new(question), answer })?;
    answered.await.map_err(|_| Stopped)
}
