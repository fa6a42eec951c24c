//! A running VM, and what others may ask of it.
//!
//! ```text
//!  Vm ─▶ Parts of the life under way ─▶ actors
//!   └── inputs: whoever asks holds it; whoever needs everything quiet waits for all of them, and they for him
//! ```
//!
//! Deliberately absent: decisions, which are the actors'.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use device::backends::{self, BackendSpec, Source};
use device::config::{ConfigError, DeviceConfig, DeviceIndex, VmConfig};
use device::extents::{self, AddRequest, ReleaseRequest};
use device::{Refusal, Seq, VmTime, mailbox, windows};
use handover::GivenAway;
use journal::TailError;
use journal::record::Origin;
use memory::{HostMemory, MissingFile, SlotCounts, Window};
use platform::Platform;
use replay::{Behind, Fold};
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use vm::Machine;
use wire::Tag;

use crate::bus::GuestBus;
use crate::fatal::{Fatal, Raised, Stopped};
use crate::guest_vcpu::{Guest, Run};
use crate::hand_over::HandOvers;
use crate::instruction_bus::InstructionBus;
use crate::kvm_guest::KvmGuest;
use crate::mailbox::Reset;
use crate::parts::{END_TIMEOUT, Parts, read, tell};
use crate::save::Lineage;
use crate::start::StartOptions;

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

/// A running VM. Clones are handles to the same one.
#[derive(Clone)]
pub struct Vm {
    pub(crate) shared: Arc<Shared>,
}

/// What all handles share, over all lives of the VM.
pub(crate) struct Shared {
    /// The life under way.
    pub(crate) parts: RwLock<Arc<Parts>>,
    /// Held over a plug or an unplug, of which there is one at a time.
    pub(crate) plugging: tokio::sync::RwLock<()>,
    /// Held for reading by whoever asks the actors for something, and for writing by whoever needs them quiet. Locked after
    /// `plugging`, and never twice.
    pub(crate) inputs: tokio::sync::RwLock<()>,
    /// How it was started, and how its next life begins.
    pub(crate) options: StartOptions,
    /// Raised when the VM stops before its time.
    pub(crate) fatal: Raised,
    /// The other process, once it has the VM.
    pub(crate) given: Mutex<Option<GivenAway>>,
    pub(crate) hand_overs: HandOvers,
    /// What the next snapshot can be built on.
    pub(crate) lineage: tokio::sync::Mutex<Lineage>,
    /// What operators want of clock and guest. Who needs everything quiet lets both stand still without a word.
    run_state: Mutex<RunState>,
}

/// The guest's machine. It is kept as long as this is, whatever becomes of the VM.
pub struct MachineHandle(Arc<KvmGuest>);

impl Deref for MachineHandle {
    type Target = Machine;

    fn deref(&self) -> &Machine {
        self.0.machine()
    }
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
    /// A VM whose first life this is.
    pub(crate) fn new(parts: Parts, options: StartOptions, fatal: Raised) -> Self {
        let parts = RwLock::new(Arc::new(parts));
        let (plugging, inputs) = (tokio::sync::RwLock::default(), tokio::sync::RwLock::default());
        let (lineage, given, hand_overs) = (tokio::sync::Mutex::default(), Mutex::default(), HandOvers::default());
        let run_state = Mutex::new(RunState::Paused);
        Self {
            shared: Arc::new(Shared { parts, plugging, inputs, options, fatal, given, hand_overs, lineage, run_state }),
        }
    }

    /// The life under way.
    pub(crate) fn parts(&self) -> Arc<Parts> {
        Arc::clone(&self.shared.parts.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the VM was started as.
    pub fn config(&self) -> Arc<VmConfig> {
        Arc::clone(&self.parts().config)
    }

    /// The devices that are plugged, by root port.
    pub fn devices(&self) -> Vec<(DeviceIndex, Arc<DeviceConfig>)> {
        self.parts().actors().iter().map(|(index, device)| (*index, Arc::clone(&device.config))).collect()
    }

    /// No device comes or goes while this is held: for who names a device and then works on its port. Not to be held over a
    /// reset, a plug or an unplug, which wait for it.
    pub async fn hold_devices(&self) -> impl Drop + use<'_> {
        self.shared.plugging.read().await
    }

    /// One device's configuration.
    pub fn device_config(&self, device: DeviceIndex) -> Option<Arc<DeviceConfig>> {
        self.parts().actors().get(&device).map(|device| Arc::clone(&device.config))
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
        let _input = self.shared.inputs.read().await;
        self.parts().request(device, input).await
    }

    /// `object-add`: makes the memory on a thread of its own, then registers it. Where that is refused, a file that was
    /// made for it goes.
    pub async fn object_add(&self, id: &str, spec: BackendSpec, source: Source) -> Result<Seq, RequestError> {
        let memory = self.shared.options.maker().make(id, &spec, MissingFile::Create).await;
        let made = memory.as_ref().ok().cloned();
        let origin = match source {
            Source::CommandLine => Origin::CommandLine,
            Source::Request => Origin::Operator,
        };
        let input = backends::Input::ObjectAdd { id: id.into(), spec: spec.clone(), source };
        let registered = self.register(origin, DeviceIndex(0), input, Some(memory)).await;
        if let (Ok(_), Some(made)) = (&registered, &made) {
            let (maker, id, made) = (self.shared.options.maker(), id.to_owned(), Arc::clone(made));
            tokio::task::spawn_blocking(move || maker.keep(&id, &spec, &made)).await.ok();
        }
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
        let input = backends::Input::ObjectDel { id: id.into() };
        let deleted = self.register(Origin::Operator, DeviceIndex(0), input, None).await?;
        let (maker, id) = (self.shared.options.maker(), id.to_owned());
        tokio::task::spawn_blocking(move || maker.forget(&id)).await.ok();
        Ok(deleted)
    }

    pub(crate) async fn register(
        &self,
        origin: Origin,
        device: DeviceIndex,
        input: backends::Input,
        memory: Option<Result<Arc<HostMemory>, String>>,
    ) -> Result<Seq, RequestError> {
        let _input = self.shared.inputs.read().await;
        self.parts().register(origin, device, input, memory).await
    }

    /// Conventional reset of every device, then of the guest: the last record.
    pub async fn system_reset(&self) -> Result<Seq, Stopped> {
        // A device that leaves meanwhile needs no reset, and one that comes is at power-on.
        let _plugging = self.shared.plugging.write().await;
        let _input = self.shared.inputs.read().await;
        let parts = self.parts();
        // The guest's boot ends first and its next begins last, so that no write of either falls into the reset.
        parts.slots.processor.reset_begins();
        let done = reset_devices(&parts).await;
        parts.platform().reset();
        parts.slots.processor.reset_ends();
        done
    }

    /// Asks the extent manager of a device.
    pub async fn extents<T: Send + 'static>(
        &self,
        device: DeviceIndex,
        question: impl FnOnce(&extents::State) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let _input = self.shared.inputs.read().await;
        self.parts().read_of(device, |actors| &actors.extents, question).await
    }

    /// Asks the window mapper of a device.
    pub async fn windows<T: Send + 'static>(
        &self,
        device: DeviceIndex,
        question: impl FnOnce(&windows::State) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let _input = self.shared.inputs.read().await;
        self.parts().read_of(device, |actors| &actors.mapper, question).await
    }

    /// Asks the mailbox of a device.
    pub async fn mailbox<T: Send + 'static>(
        &self,
        device: DeviceIndex,
        question: impl FnOnce(&mailbox::State) -> T + Send + 'static,
    ) -> Result<T, RequestError> {
        let _input = self.shared.inputs.read().await;
        self.parts().read_of(device, |actors| &actors.mailbox, question).await
    }

    /// Asks the backend registry.
    pub async fn backends<T: Send + 'static>(
        &self,
        question: impl FnOnce(&backends::State) -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        let _input = self.shared.inputs.read().await;
        self.parts().backends(question).await
    }

    /// The whole state, actor by actor. Exact where nothing is under way.
    pub async fn state(&self) -> Result<device::vm::Vm, RequestError> {
        let _input = self.shared.inputs.read().await;
        self.parts().state().await
    }

    /// The memory behind a backend, for an operator who looks at its bytes.
    pub async fn memory_of(&self, backend: &str) -> Result<Option<Arc<HostMemory>>, Stopped> {
        let _input = self.shared.inputs.read().await;
        self.parts().memory_of(backend).await
    }

    /// A bus on which a program in this process is the guest, for the boot under way: the demo, a test.
    pub fn bus(&self) -> GuestBus {
        self.parts().bus.rebooted()
    }

    /// A bus whose every access is an instruction of the guest: for a VM whose guest is on KVM.
    pub fn instruction_bus(&self) -> Option<InstructionBus> {
        Some(InstructionBus::new(self.bus(), Arc::clone(self.parts().slots.processor.kvm.as_ref()?)))
    }

    /// The guest's machine, where the guest is on KVM.
    pub fn machine(&self) -> Option<MachineHandle> {
        self.parts().slots.processor.kvm.clone().map(MachineHandle)
    }

    /// How many slots the guest's processors reach memory through, where the guest is on KVM.
    pub fn slot_counts(&self) -> Option<SlotCounts> {
        self.parts().slots.processor.kvm.as_deref().map(|kvm| kvm.slots().counts())
    }

    /// What the guest sees around the device.
    pub fn platform(&self) -> Arc<Platform> {
        Arc::clone(self.parts().platform())
    }

    /// The lookup that answers accesses to the CXL window.
    pub fn window(&self) -> Arc<Window> {
        Arc::clone(&self.parts().slots.window)
    }

    /// The journal's last record and the last durable one.
    pub fn journal_position(&self) -> (Seq, Seq) {
        let parts = self.parts();
        (parts.journal.last(), parts.journal.durable())
    }

    /// `stop` and `cont`: the VM clock and the guest. Returns what they did before.
    pub async fn set_run_state(&self, to: RunState) -> Result<RunState, Stopped> {
        let _input = self.shared.inputs.read().await;
        let parts = self.parts();
        let before = std::mem::replace(&mut *self.wanted(), to);
        let clock = parts.journal.clock();
        match to {
            RunState::Running => clock.resume(),
            RunState::Paused => drop(clock.pause()),
        }
        tell(&parts.guest, Run(to)).map(|()| before)
    }

    /// Whether clock and guest run. In the pause of a snapshot or a pulse they do: nobody has stopped them. Clients once saw
    /// a VM in it that was paused, without a STOP.
    pub fn run_state(&self) -> RunState {
        *self.wanted()
    }

    fn wanted(&self) -> MutexGuard<'_, RunState> {
        self.shared.run_state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The machine for a driver that is another program, and is the guest. From its first move of the clock on, the clock
    /// stands still but for its moves, and `stop` and `cont` pause and run the guest only.
    pub fn qtest_machine(&self) -> impl platform::qtest::Machine + use<> {
        QtestMachine(self.clone())
    }

    /// How the guest's driver fares; `None` where there is none.
    pub async fn guest(&self) -> Result<Option<Guest>, Stopped> {
        let _input = self.shared.inputs.read().await;
        read(&self.parts().guest, Option::<Guest>::clone).await
    }

    /// Raised when the VM stops before its time.
    pub fn fatal(&self) -> watch::Receiver<Option<Fatal>> {
        self.shared.fatal.subscribe()
    }

    /// Looks at the state after the last durable record, or a later one. Nothing that runs is stopped for it.
    ///
    /// # Errors
    /// If the VM keeps no journal, or the state behind it has stopped.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Fold) -> T + Send + 'static,
    ) -> Result<T, LookError> {
        let parts = self.parts();
        let followed = parts.followed.clone().ok_or(LookError::Unkept)?;
        let durable = parts.journal.durable();
        let looked = tokio::task::spawn_blocking(move || followed.look(durable, look));
        Ok(looked.await.map_err(|_| LookError::Stopped(Stopped))??)
    }

    /// Writes every durable record that is in no sealed file of the journal into one at `path`, and returns the last.
    ///
    /// # Errors
    /// If the VM keeps no journal, or the file cannot be written.
    pub async fn write_journal_tail(&self, path: PathBuf) -> Result<Seq, LookError> {
        let parts = self.parts();
        if parts.followed.is_none() {
            return Err(LookError::Unkept);
        }
        let journal = parts.journal.clone();
        let written = tokio::task::spawn_blocking(move || journal.write_tail(&path));
        Ok(written.await.map_err(|_| LookError::Stopped(Stopped))??)
    }

    /// Stops the guest and the actors, makes everything durable and gives the journal back.
    pub async fn shutdown(self) {
        // A pulse or a load that is under way ends first. It once went on, and began a life that nobody stopped.
        let both = async { (self.shared.plugging.write().await, self.shared.inputs.write().await) };
        let _nothing_begins = tokio::time::timeout(END_TIMEOUT, both).await;
        let parts = self.parts();
        // Once, of thousands, it was waited for without end. What was answered is in the journal in either case.
        if tokio::time::timeout(END_TIMEOUT, parts.stop()).await.is_err() {
            tracing::warn!(
                "an actor does not end within {} s; the journal is closed without it",
                END_TIMEOUT.as_secs()
            );
        }
        parts.close_journal().await;
    }
}

async fn reset_devices(parts: &Parts) -> Result<Seq, Stopped> {
    let mut last = parts.journal.last();
    let mailboxes: Vec<_> = parts.actors().values().map(|device| device.mailbox.clone()).collect();
    for mailbox in mailboxes {
        let (answer, answered) = oneshot::channel();
        tell(&mailbox, Reset { origin: Origin::Operator, answer })?;
        last = answered.await.map_err(|_| Stopped)?;
    }
    Ok(last)
}

/// The machine of a driver outside: its accesses wait while everything has to be quiet.
struct QtestMachine(Vm);

/// The platform of the life under way, which goes on as long as this is held.
struct HeldPlatform<'a> {
    platform: Arc<Platform>,
    /// No reset falls into its access.
    _plugging: tokio::sync::RwLockReadGuard<'a, ()>,
    _input: tokio::sync::RwLockReadGuard<'a, ()>,
}

impl Deref for HeldPlatform<'_> {
    type Target = Platform;

    fn deref(&self) -> &Platform {
        &self.platform
    }
}

impl platform::qtest::Machine for QtestMachine {
    fn platform(&self) -> Box<dyn Deref<Target = Platform> + '_> {
        let plugging = self.0.shared.plugging.blocking_read();
        let input = self.0.shared.inputs.blocking_read();
        Box::new(HeldPlatform { platform: self.0.platform(), _plugging: plugging, _input: input })
    }

    fn step_clock(&self, by_ns: u64) -> u64 {
        let parts = self.0.parts();
        let clock = parts.journal.clock();
        clock.drive_by_hand();
        clock.step(Duration::from_nanos(by_ns)).0
    }

    fn advance_clock(&self, to_ns: u64) -> u64 {
        let parts = self.0.parts();
        let clock = parts.journal.clock();
        clock.drive_by_hand();
        clock.advance_to(VmTime(to_ns)).0
    }
}
