//! A running VM: its actors, and what others may ask of it.
//!
//! ```text
//!  operators ──▶ ExtentManager ──▶ BackendRegistry ──▶ WindowMapper      asks, always in this order
//!  guest ──▶ Face ──▶ Mailbox ──▶ ExtentManager
//! ```
//!
//! Deliberately absent: restarts. An actor that dies stops the VM ([`crate::Fatal`]); the next process resumes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use device::backends::{self, BackendSpec, Source};
use device::config::{ConfigError, DeviceConfig, DeviceIndex, VmConfig};
use device::extents::{self, AddRequest, ReleaseRequest};
use device::{Refusal, Seq, VmTime, mailbox, windows};
use journal::record::Origin;
use journal::{Journal, TailError};
use kameo::actor::ActorRef;
use kameo::message::Message;
use memory::{HostMemory, MissingFile, SlotCounts, Window};
use platform::{Face, Platform};
use replay::{Behind, Fold, Followed};
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use vm::Machine;
use wire::Tag;

use crate::backend_registry::{MemoryOf, Register};
use crate::bus::GuestBus;
use crate::extent_manager::{ExtentManager, Request};
use crate::fatal::{Fatal, FatalFlag, Stopped};
use crate::guest_vcpu::{Guest, GuestVcpu, Run};
use crate::host_memory::Maker;
use crate::instruction_bus::InstructionBus;
use crate::kvm_guest::KvmGuest;
use crate::mailbox::{Mailbox, Reset};
use crate::read::Read;
use crate::slots::Slots;
use crate::window_mapper::WindowMapper;

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The device or the registry refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The request describes no device.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The device was unplugged.
    #[error("the device was unplugged")]
    Unplugged,
    /// There is nobody left to answer.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a running VM's journal cannot be looked at.
#[derive(Debug, Error)]
pub enum LookError {
    /// There is no journal.
    #[error("this VM keeps no journal, so nothing can be asked of it: start it with --journal DIR")]
    Unkept,
    /// The state behind the journal has stopped.
    #[error(transparent)]
    Behind(#[from] Behind),
    /// The records cannot be had.
    #[error(transparent)]
    Tail(#[from] TailError),
    /// There is nobody left to answer.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The actors of one device.
#[derive(Clone)]
pub(crate) struct DeviceActors {
    pub(crate) config: Arc<DeviceConfig>,
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
    pub(crate) fatal: FatalFlag,
    /// What device actors are spawned into.
    pub(crate) slots: Slots,
    /// The state behind the journal, where there is one.
    pub(crate) followed: Option<Followed>,
    /// The devices that are plugged.
    pub(crate) devices: RwLock<BTreeMap<DeviceIndex, DeviceActors>>,
    /// Held over a plug or an unplug, of which there is one at a time.
    pub(crate) plugging: tokio::sync::RwLock<()>,
    pub(crate) guest: ActorRef<GuestVcpu>,
    pub(crate) bus: GuestBus,
    pub(crate) maker: Maker,
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

    /// The devices that are plugged, by root port.
    pub fn devices(&self) -> Vec<(DeviceIndex, Arc<DeviceConfig>)> {
        self.actors().iter().map(|(index, device)| (*index, Arc::clone(&device.config))).collect()
    }

    /// No device comes or goes while this is held: for who names a device and then works on its port. Not to be held over a
    /// reset, a plug or an unplug, which wait for it.
    pub async fn hold_devices(&self) -> impl Drop + use<'_> {
        self.parts.plugging.read().await
    }

    /// One device's configuration.
    pub fn device_config(&self, device: DeviceIndex) -> Option<Arc<DeviceConfig>> {
        self.actors().get(&device).map(|device| Arc::clone(&device.config))
    }

    pub(crate) fn actors(&self) -> RwLockReadGuard<'_, BTreeMap<DeviceIndex, DeviceActors>> {
        self.parts.devices.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// `cxl-add-dynamic-capacity`: the record that offered.
    pub async fn add(&self, device: DeviceIndex, request: AddRequest) -> Result<Seq, RequestError> {
        self.request(device, extents::Input::Add(request)).await
    }

    /// `cxl-release-dynamic-capacity`: the record that asked back or took away.
    pub async fn release(&self, device: DeviceIndex, request: ReleaseRequest) -> Result<Seq, RequestError> {
        self.request(device, extents::Input::Release(request)).await
    }

    pub(crate) async fn request(&self, device: DeviceIndex, input: extents::Input) -> Result<Seq, RequestError> {
        let extents = self.device(device).ok_or(RequestError::Unplugged)?.extents;
        let (answer, answered) = oneshot::channel();
        tell(&extents, Request { input, answer }).map_err(|stopped| self.gone(stopped))?;
        Ok(answered.await.map_err(|_| self.gone(Stopped))??)
    }

    /// `object-add`: makes the memory on a thread of its own, then registers it. Where that is refused, a file that was
    /// made for it goes.
    pub async fn object_add(&self, id: &str, spec: BackendSpec, source: Source) -> Result<Seq, RequestError> {
        let memory = self.parts.maker.make(id, &spec, MissingFile::Create).await;
        let made = memory.as_ref().ok().cloned();
        let origin = match source {
            Source::CommandLine => Origin::CommandLine,
            Source::Request => Origin::Operator,
        };
        let input = backends::Input::ObjectAdd { id: id.into(), spec, source };
        let registered = self.register(origin, DeviceIndex(0), input, Some(memory)).await;
        if let (Err(RequestError::Refused(_)), Some(made)) = (&registered, made) {
            // It fails only where the runtime ends, and everything with it.
            tokio::task::spawn_blocking(move || made.abandon()).await.ok();
        }
        registered
    }

    /// `qom-set` of the tag of a backend that nobody holds.
    pub async fn retag(&self, id: &str, tag: Tag, tag_text: &str) -> Result<Seq, RequestError> {
        let input = backends::Input::Retag { id: id.into(), tag, tag_text: tag_text.into() };
        self.register(Origin::Operator, DeviceIndex(0), input, None).await
    }

    /// `object-del`: done when the memory is given back and, with `discard-data`, its bytes are out of the file.
    pub async fn object_del(&self, id: &str) -> Result<Seq, RequestError> {
        self.register(Origin::Operator, DeviceIndex(0), backends::Input::ObjectDel { id: id.into() }, None).await
    }

    pub(crate) async fn register(
        &self,
        origin: Origin,
        device: DeviceIndex,
        input: backends::Input,
        memory: Option<Result<Arc<HostMemory>, String>>,
    ) -> Result<Seq, RequestError> {
        let (answer, answered) = oneshot::channel();
        tell(&self.parts.slots.registry, Register { origin, device, input, memory, answer })?;
        Ok(answered.await.map_err(|_| Stopped)??)
    }

    /// Conventional reset of every device, then of the guest: the last record.
    pub async fn system_reset(&self) -> Result<Seq, Stopped> {
        // The guest's boot ends first and its next begins last, so that no write of either falls into the reset.
        self.parts.slots.processor.reset_begins();
        let done = self.reset_devices().await;
        self.platform().reset();
        self.parts.slots.processor.reset_ends();
        done
    }

    async fn reset_devices(&self) -> Result<Seq, Stopped> {
        let mut last = self.parts.journal.last();
        // A device that leaves meanwhile needs no reset, and one that comes is at power-on.
        let _plugging = self.parts.plugging.write().await;
        let mailboxes: Vec<_> = self.actors().values().map(|device| device.mailbox.clone()).collect();
        for mailbox in mailboxes {
            let (answer, answered) = oneshot::channel();
            tell(&mailbox, Reset { origin: Origin::Operator, answer })?;
            last = answered.await.map_err(|_| Stopped)?;
        }
        Ok(last)
    }

    /// Asks the extent manager of a device.
    pub async fn extents<T: Send + 'static>(
        &self,
        device: DeviceIndex,
        question: impl FnOnce(&extents::State) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        self.read_of(device, |actors| &actors.extents, question).await
    }

    /// Asks the window mapper of a device.
    pub async fn windows<T: Send + 'static>(
        &self,
        device: DeviceIndex,
        question: impl FnOnce(&windows::State) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        self.read_of(device, |actors| &actors.mapper, question).await
    }

    /// Asks the mailbox of a device.
    pub async fn mailbox<T: Send + 'static>(
        &self,
        device: DeviceIndex,
        question: impl FnOnce(&mailbox::State) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        self.read_of(device, |actors| &actors.mailbox, question).await
    }

    /// Asks one actor of a device. Without an answer either the VM has stopped or the device has left.
    async fn read_of<A, S, T>(
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

    fn gone(&self, stopped: Stopped) -> RequestError {
        if self.parts.fatal.is_raised() { stopped.into() } else { RequestError::Unplugged }
    }

    /// Asks the backend registry.
    pub async fn backends<T: Send + 'static>(
        &self,
        question: impl FnOnce(&backends::State) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        read(&self.parts.slots.registry, question).await
    }

    /// The whole state, actor by actor. Exact where nothing is under way.
    pub async fn state(&self) -> Result<device::vm::Vm, RequestError> {
        let mut devices = BTreeMap::new();
        for (index, config) in self.devices() {
            let device = device::vm::Device {
                config: DeviceConfig::clone(&config),
                mailbox: self.mailbox(index, Clone::clone).await?,
                extents: self.extents(index, Clone::clone).await?,
                windows: self.windows(index, Clone::clone).await?,
            };
            devices.insert(index, device);
        }
        let backends = self.backends(Clone::clone).await?;
        Ok(device::vm::Vm { config: self.config().clone(), backends, devices })
    }

    /// The memory behind a backend, for an operator who looks at its bytes.
    pub async fn memory_of(&self, backend: &str) -> Result<Option<Arc<HostMemory>>, Stopped> {
        let (answer, answered) = oneshot::channel();
        tell(&self.parts.slots.registry, MemoryOf { id: backend.into(), answer })?;
        answered.await.map_err(|_| Stopped)
    }

    /// A bus on which a program in this process is the guest, for the boot under way: the demo, a test.
    pub fn bus(&self) -> GuestBus {
        self.parts.bus.rebooted()
    }

    /// A bus whose every access is an instruction of the guest: for a VM whose guest is on KVM.
    pub fn instruction_bus(&self) -> Option<InstructionBus> {
        Some(InstructionBus::new(self.bus(), Arc::clone(self.parts.slots.processor.kvm.as_ref()?)))
    }

    /// The guest's machine, where the guest is on KVM.
    pub fn machine(&self) -> Option<&Machine> {
        self.parts.slots.processor.kvm.as_deref().map(KvmGuest::machine)
    }

    /// How many slots the guest's processors reach memory through, where the guest is on KVM.
    pub fn slot_counts(&self) -> Option<SlotCounts> {
        self.parts.slots.processor.kvm.as_deref().map(|kvm| kvm.slots().counts())
    }

    /// What the guest sees around the device.
    pub fn platform(&self) -> &Arc<Platform> {
        &self.parts.slots.platform
    }

    /// The lookup that answers accesses to the CXL window.
    pub fn window(&self) -> &Arc<Window> {
        &self.parts.slots.window
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

    /// The VM clock for a driver that moves it. From its first call on, the clock stands still but for its calls, and
    /// `stop` and `cont` pause and run the guest only.
    pub fn clock(&self) -> impl platform::qtest::Clock + use<> {
        ClockByHand(self.parts.journal.clone())
    }

    /// How the guest's driver fares; `None` where there is none.
    pub async fn guest(&self) -> Result<Option<Guest>, Stopped> {
        read(&self.parts.guest, Option::<Guest>::clone).await
    }

    /// Raised when the VM stops before its time.
    pub fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.parts.fatal.subscribe()
    }

    /// Looks at the state after the last durable record, or a later one. Nothing that runs is stopped for it.
    ///
    /// # Errors
    /// If the VM keeps no journal, or the state behind it has stopped.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Fold) -> T + Send + 'static,
    ) -> Result<T, LookError> {
        let followed = self.parts.followed.clone().ok_or(LookError::Unkept)?;
        let durable = self.parts.journal.durable();
        let looked = tokio::task::spawn_blocking(move || followed.look(durable, look));
        Ok(looked.await.map_err(|_| LookError::Stopped(Stopped))??)
    }

    /// Writes every durable record that is in no sealed file of the journal into one at `path`, and returns the last.
    ///
    /// # Errors
    /// If the VM keeps no journal, or the file cannot be written.
    pub async fn write_journal_tail(&self, path: PathBuf) -> Result<Seq, LookError> {
        if self.parts.followed.is_none() {
            return Err(LookError::Unkept);
        }
        let journal = self.parts.journal.clone();
        let written = tokio::task::spawn_blocking(move || journal.write_tail(&path));
        Ok(written.await.map_err(|_| LookError::Stopped(Stopped))??)
    }

    /// Stops the guest and the actors, makes everything durable and gives the journal back.
    pub async fn shutdown(self) {
        let parts = &self.parts;
        // An actor that is gone already has nothing to finish.
        parts.guest.stop_gracefully().await.ok();
        parts.guest.wait_for_shutdown().await;
        let devices = std::mem::take(&mut *parts.devices.write().unwrap_or_else(PoisonError::into_inner));
        for device in devices.into_values() {
            device.stop().await;
        }
        parts.slots.registry.stop_gracefully().await.ok();
        parts.slots.registry.wait_for_shutdown().await;
        let journal = parts.journal.clone();
        let closing = tokio::task::spawn_blocking(move || journal.close());
        // Closing panics only if the keeper did, which has raised the alarm.
        tokio::time::timeout(Duration::from_secs(60), closing).await.ok();
        parts.slots.outbox.close();
    }

    fn device(&self, device: DeviceIndex) -> Option<DeviceActors> {
        self.actors().get(&device).cloned()
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

/// The clock that stamps records, moved from outside.
struct ClockByHand(Journal);

impl platform::qtest::Clock for ClockByHand {
    fn step(&self, by_ns: u64) -> u64 {
        self.0.clock().drive_by_hand();
        self.0.clock().step(Duration::from_nanos(by_ns)).0
    }

    fn advance_to(&self, to_ns: u64) -> u64 {
        self.0.clock().drive_by_hand();
        self.0.clock().advance_to(VmTime(to_ns)).0
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
