//! Starting a VM: from a configuration and a journal, new or with a past, to running actors.
//!
//! ```text
//!  journal ── fold ──▶ state ──┬─ make memory again ──▶ reconcile mappings ──▶ actors ──▶ RunStart is recorded
//!  (none: power-on state) ─────┘
//! ```
//!
//! A start that would not be the same VM is refused with the reason, and changes nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use device::backends::{self, BackendSpec, Source, Survival};
use device::config::{ConfigError, DeviceIndex, VmConfig};
use device::vm::Vm as State;
use device::{Refusal, Seq, VmTime};
use journal::record::{Genesis, Origin, RECORD_VERSION};
use journal::{Durability, Journal, OpenError, Options};
use kameo::actor::{ActorRef, PreparedActor};
use kameo::mailbox::unbounded;
use memory::{HostMemory, HostMemoryError, HostMemorySpec, MemoryKind, Prealloc, Window};
use platform::{DecoderStatus, Face, Platform};
use replay::FoldError;
use thiserror::Error;
use wire::registers::EventStatus;

use crate::backend_registry::BackendRegistry;
use crate::bus::GuestBus;
use crate::effect::NoticeListener;
use crate::extent_manager::ExtentManager;
use crate::fatal::{Fatal, FatalFlag, Stopped};
use crate::gate::Gate;
use crate::guest_vcpu::{GuestProgram, GuestVcpu};
use crate::mailbox::Mailbox;
use crate::outbox::Outbox;
use crate::recorder::Recorder;
use crate::resume::{check_config, check_objects, fold, make_again, missing_free};
use crate::sink::GuestSink;
use crate::vm::{DeviceActors, Parts, RequestError, RunState, Vm};
use crate::window_mapper::WindowMapper;

/// Where the journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalPlace {
    /// In this directory; opened if there is one, else created.
    Directory(PathBuf),
    /// Nowhere: nothing can be replayed or resumed.
    None,
}

/// A backend that the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub id: String,
    /// What it is asked to be.
    pub spec: BackendSpec,
}

/// What a VM is started with.
pub struct StartOptions {
    /// The VM; `None` takes what the journal was created with.
    pub config: Option<VmConfig>,
    /// What a new journal gets where `config` is `None`.
    pub default_config: VmConfig,
    /// Where the journal is.
    pub journal: JournalPlace,
    /// When a record counts as durable.
    pub durability: Durability,
    /// Bytes at which the journal stops the VM.
    pub journal_limit_bytes: Option<u64>,
    /// Backends of the command line.
    pub objects: Vec<Object>,
    /// What runs as the guest.
    pub guest: GuestProgram,
    /// Name and version of the program.
    pub build: String,
    /// Who hears of capacity that changes hands.
    pub listener: NoticeListener,
}

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// Records that were there before; 0 for a new journal.
    pub records: Seq,
    /// The record of this run.
    pub run: Seq,
    /// For each backend of the past whether its bytes survived.
    pub survivals: Vec<(String, Survival)>,
    /// Records of a group that was cut short and was never acknowledged.
    pub torn_from: Option<Seq>,
}

/// Why a VM cannot be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A record is not what its frame says.
    #[error("{seq}: {reason}; the records before it are intact: dcd replay shows them")]
    Unreadable {
        /// The record; `#0` is the genesis.
        seq: Seq,
        /// What is wrong.
        reason: String,
    },
    /// A record does not follow from those before it.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// The command line describes another VM.
    #[error(
        "the journal is of another VM: {what} is {journal} there and {asked} here; give the same options, none at all, or another --journal"
    )]
    OtherVm {
        /// What differs.
        what: String,
        /// As journaled.
        journal: String,
        /// As asked.
        asked: String,
    },
    /// A backend of the command line is in use and missing.
    #[error(
        "backend {id} ({by}) is missing: it was given by --object and {device} holds it ({holding}); give it again: --object memory-backend-ram,id={id},size={size_bytes},tag={tag}"
    )]
    BackendMissing {
        /// The backend.
        id: String,
        /// The record that made it.
        by: Seq,
        /// The device that holds it.
        device: String,
        /// How.
        holding: String,
        /// Its size in bytes.
        size_bytes: u64,
        /// Its tag.
        tag: String,
    },
    /// A backend of the command line is not what it was.
    #[error(
        "backend {id} ({by}) has changed: its {what} was {journal} and is {asked}; give what it was, or another id"
    )]
    BackendChanged {
        /// The backend.
        id: String,
        /// The record that made it.
        by: Seq,
        /// What changed.
        what: &'static str,
        /// As journaled.
        journal: String,
        /// As asked.
        asked: String,
    },
    /// Host memory cannot be had.
    #[error("backend {id}: {reason}")]
    BackendMemory {
        /// The backend.
        id: String,
        /// What the host said.
        reason: String,
    },
    /// Guest memory cannot be had.
    #[error("guest memory of {size_bytes} bytes: {error}")]
    GuestMemory {
        /// Its size.
        size_bytes: u64,
        /// What the host said.
        error: HostMemoryError,
    },
    /// An object of the command line is refused.
    #[error("--object {id}: {refusal}")]
    Object {
        /// The backend.
        id: String,
        /// Why.
        refusal: Refusal,
    },
    /// The state cannot be mapped.
    #[error(transparent)]
    Mapping(Refusal),
    /// The VM stopped while it was being started.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A journal and the state that its records make.
struct Opened {
    journal: Journal,
    state: State,
    last: Seq,
    torn_from: Option<Seq>,
}

/// Starts a VM. Its clock runs when it returns.
pub async fn start(options: StartOptions) -> Result<(Vm, Started), StartError> {
    let outbox = Outbox::default();
    let fatal = FatalFlag::new(outbox.clone());
    let opened = open(&options, &outbox, &fatal)?;
    check_objects(&opened.state, &options.objects)?;
    let memories = make_again(&opened.state).await?;
    let survivals: Vec<_> = memories.keys().map(|id| (id.clone(), Survival::Lost)).collect();
    let Opened { journal, state, last, torn_from } = opened;
    let vm = spawn(&options, journal, state, last, memories, outbox, fatal)?;
    let input = backends::Input::RunStart { build: options.build.clone(), survivals: survivals.clone() };
    let run = settle(&vm, Origin::Supervisor, input).await?;
    for object in missing_free(&vm, &options.objects).await? {
        settle(&vm, Origin::CommandLine, backends::Input::ObjectDel { id: object }).await?;
    }
    for object in &options.objects {
        add_object(&vm, object).await?;
    }
    vm.set_run_state(RunState::Running)?;
    Ok((vm, Started { records: last, run, survivals, torn_from }))
}

fn open(options: &StartOptions, outbox: &Outbox, fatal: &FatalFlag) -> Result<Opened, StartError> {
    let config = options.config.as_ref().unwrap_or(&options.default_config);
    config.check()?;
    let genesis = Genesis { config: config.clone(), build: options.build.clone() };
    let fresh = |journal| Opened { journal, state: State::new(config.clone()), last: Seq(0), torn_from: None };
    match &options.journal {
        JournalPlace::None => {
            let durability = Durability::None;
            Ok(fresh(Journal::volatile(Options { durability, ..journal_options(options, outbox, fatal, VmTime(0)) })))
        }
        JournalPlace::Directory(dir) => match journal::read(dir) {
            Err(OpenError::Missing { .. }) => {
                let journal_options = journal_options(options, outbox, fatal, VmTime(0));
                Ok(fresh(Journal::create(dir, &genesis.to_bytes(), journal_options)?))
            }
            Err(error) => Err(error.into()),
            // Read first, so that a refused start has changed nothing; then opened with the clock where it stood.
            Ok(recovered) => {
                let fold = fold(&recovered)?;
                check_config(options.config.as_ref(), fold.vm())?;
                let (last, time) = (fold.last(), fold.time());
                let (journal, again) = Journal::open(dir, journal_options(options, outbox, fatal, time))?;
                let torn_from = again.torn.map(|torn| torn.first);
                Ok(Opened { journal, state: fold.into_vm(), last, torn_from })
            }
        },
    }
}

fn journal_options(options: &StartOptions, outbox: &Outbox, fatal: &FatalFlag, clock: VmTime) -> Options {
    let (outbox, fatal) = (outbox.clone(), fatal.clone());
    Options {
        durability: options.durability,
        record_version: RECORD_VERSION,
        limit_bytes: options.journal_limit_bytes,
        clock,
        on_durable: Box::new(move |seq| outbox.durable(seq)),
        on_failed: Box::new(move |error, last_durable| {
            fatal.raise(Fatal::Journal { last_durable, reason: error.to_string() });
        }),
    }
}

async fn settle(vm: &Vm, origin: Origin, input: backends::Input) -> Result<Seq, StartError> {
    match vm.register(origin, input, None).await {
        Ok(seq) => Ok(seq),
        Err(RequestError::Stopped(stopped)) => Err(stopped.into()),
        Err(RequestError::Refused(refusal)) => Err(StartError::Object { id: String::new(), refusal }),
    }
}

async fn add_object(vm: &Vm, object: &Object) -> Result<(), StartError> {
    let id = object.id.clone();
    let is_there = vm.backends(move |state| state.get(&id).is_some_and(|b| b.source == Source::CommandLine)).await?;
    if is_there {
        return Ok(());
    }
    match vm.object_add(&object.id, object.spec.clone(), Source::CommandLine).await {
        Ok(_) => Ok(()),
        Err(RequestError::Refused(refusal)) => Err(StartError::Object { id: object.id.clone(), refusal }),
        Err(RequestError::Stopped(stopped)) => Err(stopped.into()),
    }
}

fn guest_memory(size_bytes: u64) -> Result<Arc<HostMemory>, StartError> {
    let spec = HostMemorySpec {
        kind: MemoryKind::Ram,
        size_bytes,
        share: memory::Sharing::Private,
        prealloc: Prealloc::OnTouch,
    };
    HostMemory::create(&spec).map(Arc::new).map_err(|error| StartError::GuestMemory { size_bytes, error })
}

fn spawn(
    options: &StartOptions,
    journal: Journal,
    state: State,
    last: Seq,
    memories: BTreeMap<String, Arc<HostMemory>>,
    outbox: Outbox,
    fatal: FatalFlag,
) -> Result<Vm, StartError> {
    let State { config, backends, devices } = state;
    let config = Arc::new(config);
    let recorder = Recorder::new(journal.clone(), fatal.clone());
    let window = Arc::new(Window::new(config.window_base, config.window_bytes));
    // What is durable at the start is everything: answers to reads before the first record do not wait.
    outbox.durable(last);
    let registry = PreparedActor::<BackendRegistry>::new(unbounded());
    let registry_ref = registry.actor_ref().clone();
    let mut actors = Vec::new();
    for (index, device) in (0u8..).map(DeviceIndex).zip(devices) {
        let world = World {
            index,
            config: &config,
            recorder: &recorder,
            outbox: &outbox,
            window: &window,
            registry: &registry_ref,
            listener: &options.listener,
            last,
        };
        actors.push(world.spawn_device(device, &memories)?);
    }
    registry.spawn(BackendRegistry {
        config: Arc::clone(&config),
        recorder,
        outbox: outbox.clone(),
        state: backends,
        memories,
        last_fact: last,
    });
    let faces: Vec<_> = actors.iter().map(|device| Arc::clone(&device.face)).collect();
    let ram = guest_memory(config.memory_bytes)?;
    let platform = Arc::new(Platform::new(ram, Arc::clone(&window), faces));
    let gate = Arc::new(Gate::new());
    for device in &actors {
        let gate = Arc::clone(&gate);
        device.face.connect_interrupts(Arc::new(move |_| gate.interrupt()));
    }
    // Held back until the start is complete.
    gate.pause();
    let bus = GuestBus::new(Arc::clone(&platform), gate);
    let guest = GuestVcpu::spawn_for(options.guest, &bus);
    let parts =
        Parts { config, journal, outbox, fatal, registry: registry_ref, devices: actors, guest, platform, window, bus };
    Ok(Vm { parts: Arc::new(parts) })
}

/// What the actors of one device are spawned into.
struct World<'a> {
    index: DeviceIndex,
    config: &'a Arc<VmConfig>,
    recorder: &'a Recorder,
    outbox: &'a Outbox,
    window: &'a Arc<Window>,
    registry: &'a ActorRef<BackendRegistry>,
    listener: &'a NoticeListener,
    last: Seq,
}

impl World<'_> {
    fn spawn_device(
        &self,
        state: device::vm::Device,
        memories: &BTreeMap<String, Arc<HostMemory>>,
    ) -> Result<DeviceActors, StartError> {
        let config = Arc::new(self.config.devices[usize::from(self.index.0)].clone());
        let (mailbox, mapper) =
            (PreparedActor::<Mailbox>::new(unbounded()), PreparedActor::<WindowMapper>::new(unbounded()));
        let extents = PreparedActor::<ExtentManager>::new(unbounded());
        let (mailbox_ref, mapper_ref) = (mailbox.actor_ref().clone(), mapper.actor_ref().clone());
        let sink =
            GuestSink { mailbox: mailbox_ref.clone(), mapper: mapper_ref.clone(), recorder: self.recorder.clone() };
        let face = face_of(&config, &state, sink);
        let (device, last) = (self.index, self.last);
        let (recorder, outbox) = (|| self.recorder.clone(), || self.outbox.clone());
        let windows = WindowMapper {
            device,
            recorder: recorder(),
            outbox: outbox(),
            face: Arc::clone(&face),
            window: Arc::clone(self.window),
            state: state.windows,
            last_fact: last,
        };
        windows.reconcile(memories).map_err(StartError::Mapping)?;
        mapper.spawn(windows);
        let extents_ref = extents.actor_ref().clone();
        extents.spawn(ExtentManager {
            device,
            config: Arc::clone(&config),
            recorder: recorder(),
            outbox: outbox(),
            face: Arc::clone(&face),
            listener: Arc::clone(self.listener),
            registry: self.registry.clone(),
            mapper: mapper_ref.clone(),
            mailbox: mailbox_ref.clone(),
            state: state.extents,
            last_fact: last,
        });
        mailbox.spawn(Mailbox {
            device,
            config,
            recorder: recorder(),
            outbox: outbox(),
            face: Arc::clone(&face),
            extents: extents_ref.clone(),
            state: state.mailbox,
            last_fact: last,
        });
        Ok(DeviceActors { mailbox: mailbox_ref, extents: extents_ref, mapper: mapper_ref, face })
    }
}

/// The registers as the state says they read; what was only staged is as at power-on.
fn face_of(config: &device::config::DeviceConfig, state: &device::vm::Device, sink: GuestSink) -> Arc<Face> {
    let face = Face::new(state.mailbox.config_space().clone(), config.mailbox_payload_log2, Arc::new(sink));
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
    Arc::new(face)
}
