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
use std::sync::{Arc, RwLock};

use device::backends::{self, BackendSpec, Source, Survival};
use device::config::{ConfigError, DeviceIndex, DeviceRequest, VmConfig};
use device::vm::Vm as State;
use device::{Refusal, Seq, VmTime};
use journal::record::{Genesis, Origin, RECORD_VERSION};
use journal::{Durability, Journal, OpenError, Opening, Options, Sealing};
use kameo::actor::PreparedActor;
use kameo::mailbox::unbounded;
use memory::{BackendDir, HostMemory, HostMemoryError, Window};
use platform::{Platform, PlatformParts};
use replay::{Fold, FoldError, Followed, UnreadableError};
use thiserror::Error;

use crate::backend_registry::BackendRegistry;
use crate::bus::GuestBus;
use crate::effect::NoticeListener;
use crate::fatal::{Fatal, FatalFlag, Stopped};
use crate::gate::Gate;
use crate::guest_vcpu::{GuestProgram, GuestVcpu};
use crate::host_memory::{Maker, PreallocListener, survival};
use crate::kvm_guest::{KvmError, KvmGuest, KvmParts};
use crate::outbox::Outbox;
use crate::processor::Processor;
use crate::recorder::Recorder;
use crate::resume::{check_objects, check_vm, fold, make_again, missing_free};
use crate::slots::Slots;
use crate::vm::{Parts, RequestError, RunState, Vm};

/// Where the journal is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JournalPlace {
    /// In this directory; opened if there is one, else created.
    Directory(PathBuf),
    /// Nowhere: nothing can be replayed or resumed.
    None,
}

/// What runs the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// A thread of this process.
    Soft,
    /// Processors of KVM.
    Kvm {
        /// How many.
        vcpus: u32,
    },
}

/// A backend that the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its id.
    pub id: String,
    /// What it is asked to be.
    pub spec: BackendSpec,
}

/// A VM as a command line describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmRequest {
    /// What is fixed for its life.
    pub config: VmConfig,
    /// The devices that it begins with.
    pub devices: Vec<DeviceRequest>,
}

/// What a VM is started with.
pub struct StartOptions {
    /// The VM; `None` takes what the journal was created with.
    pub vm: Option<VmRequest>,
    /// What a new journal gets where `vm` is `None`.
    pub default_vm: VmRequest,
    /// Where the journal is.
    pub journal: JournalPlace,
    /// When a record counts as durable.
    pub durability: Durability,
    /// Bytes at which the journal stops the VM.
    pub journal_limit_bytes: Option<u64>,
    /// Bytes that the journal's sealed files may take together; the oldest go first.
    pub journal_keep_bytes: Option<u64>,
    /// Backends of the command line.
    pub objects: Vec<Object>,
    /// What runs as the guest.
    pub guest: GuestProgram,
    /// What runs it.
    pub accel: Accel,
    /// Name and version of the program.
    pub build: String,
    /// Who hears of capacity that changes hands.
    pub listener: NoticeListener,
    /// Where files of backends may be; `None` refuses them.
    pub backend_dir: Option<BackendDir>,
    /// Who hears how far a long preallocation is.
    pub progress: PreallocListener,
}

impl StartOptions {
    fn maker(&self) -> Maker {
        Maker { backend_dir: self.backend_dir.clone(), listener: Arc::clone(&self.progress) }
    }
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
    /// A record or a keyframe is not what its frame says.
    #[error("{0}; the records before it are intact: dcd replay shows them")]
    Unreadable(#[from] UnreadableError),
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
        "backend {id} ({by}) is missing: it was given by --object and {device} holds it ({holding}); give it again: --object {option}"
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
        /// The option that makes it again.
        option: String,
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
    /// There is no guest on KVM.
    #[error("there is no guest on KVM; --accel soft needs nothing of the host")]
    Kvm(#[from] KvmError),
    /// Guest memory cannot be had.
    #[error("guest memory of {size_bytes} bytes: {error}")]
    GuestMemory {
        /// Its size.
        size_bytes: u64,
        /// What the host said.
        error: HostMemoryError,
    },
    /// An object of the command line is refused.
    #[error("--object {id}: {error}")]
    Object {
        /// The backend.
        id: String,
        /// Why.
        error: Box<RequestError>,
    },
    /// A device of the command line is refused.
    #[error("--device {id}: {error}")]
    Device {
        /// The device.
        id: String,
        /// Why.
        error: Box<RequestError>,
    },
    /// What every start records is refused.
    #[error(transparent)]
    Request(Box<RequestError>),
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
    followed: Option<Followed>,
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
    let memories = make_again(&opened.state, &options.objects, &options.maker()).await?;
    let survivals = survivals(&opened.state, &memories);
    let (last, torn_from) = (opened.last, opened.torn_from);
    let vm = spawn(&options, opened, memories, outbox, fatal)?;
    let input = backends::Input::RunStart { build: options.build.clone(), survivals: survivals.clone() };
    let run = settle(&vm, Origin::Supervisor, input).await?;
    for object in missing_free(&vm, &options.objects).await? {
        settle(&vm, Origin::CommandLine, backends::Input::ObjectDel { id: object }).await?;
    }
    for object in &options.objects {
        add_object(&vm, object).await?;
    }
    plug_devices(&vm, &options).await?;
    vm.set_run_state(RunState::Running)?;
    Ok((vm, Started { records: last, run, survivals, torn_from }))
}

fn survivals(state: &State, memories: &BTreeMap<String, Arc<HostMemory>>) -> Vec<(String, Survival)> {
    let again = state.backends.iter().filter(|(id, _)| memories.contains_key(*id));
    again.map(|(id, backend)| (id.to_owned(), survival(&backend.spec))).collect()
}

fn open(options: &StartOptions, outbox: &Outbox, fatal: &FatalFlag) -> Result<Opened, StartError> {
    let config = &options.vm.as_ref().unwrap_or(&options.default_vm).config;
    config.check()?;
    let genesis = Genesis { config: config.clone(), build: options.build.clone(), parent: None };
    let fresh = |journal, followed| Opened {
        journal,
        followed,
        state: State::new(config.clone()),
        last: Seq(0),
        torn_from: None,
    };
    match &options.journal {
        JournalPlace::None => {
            let durability = Durability::None;
            let journal_options = journal_options(options, outbox, fatal, VmTime(0));
            Ok(fresh(Journal::volatile(Seq(0), Options { durability, ..journal_options }), None))
        }
        JournalPlace::Directory(dir) => match Opening::of(dir) {
            Err(OpenError::Missing { .. }) => {
                let (followed, sealing) = sealing(options, fatal, Fold::new(&genesis)?);
                let journal_options = journal_options(options, outbox, fatal, VmTime(0));
                let journal = Journal::create(dir, &genesis.to_bytes(), Options { sealing, ..journal_options })?;
                Ok(fresh(journal, Some(followed)))
            }
            Err(error) => Err(error.into()),
            // Read first, so that a refused start has changed nothing; then opened with the clock where it stood.
            Ok(opening) => {
                let (base, fold) = fold(opening.recovered())?;
                check_vm(options, fold.vm())?;
                let (last, time) = (fold.last(), fold.time());
                let torn_from = opening.recovered().torn.map(|torn| torn.first);
                let (followed, sealing) = sealing(options, fatal, base);
                let journal_options = journal_options(options, outbox, fatal, time);
                let journal = opening.start(Options { sealing, ..journal_options })?;
                Ok(Opened { journal, followed: Some(followed), state: fold.into_vm(), last, torn_from })
            }
        },
    }
}

/// How the journal is followed, from a state on.
fn sealing(options: &StartOptions, fatal: &FatalFlag, base: Fold) -> (Followed, Option<Sealing>) {
    let (followed, follower) = Followed::new(base);
    let fatal = fatal.clone();
    let on_unfit = Box::new(move |seq, reason| {
        fatal.raise(Fatal::Unfit { seq, reason });
    });
    let keep_bytes = options.journal_keep_bytes;
    (followed, Some(Sealing { follower, seal_bytes: Sealing::SEAL_BYTES, keep_bytes, on_unfit }))
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
        sealing: None,
    }
}

async fn settle(vm: &Vm, origin: Origin, input: backends::Input) -> Result<Seq, StartError> {
    vm.register(origin, DeviceIndex(0), input, None).await.map_err(|error| StartError::Request(Box::new(error)))
}

async fn add_object(vm: &Vm, object: &Object) -> Result<(), StartError> {
    let id = object.id.clone();
    let is_there = vm.backends(move |state| state.get(&id).is_some_and(|b| b.source == Source::CommandLine)).await?;
    if is_there {
        return Ok(());
    }
    let added = vm.object_add(&object.id, object.spec.clone(), Source::CommandLine).await;
    added.map(drop).map_err(|error| StartError::Object { id: object.id.clone(), error: Box::new(error) })
}

/// Plugs the devices of the command line that are not there: all of them at the first start, and later those that were
/// unplugged. Without a command line the default ones, once.
async fn plug_devices(vm: &Vm, options: &StartOptions) -> Result<(), StartError> {
    let is_first = vm.backends(|state| state.plugs() == 0).await?;
    let default = is_first.then_some(&options.default_vm);
    let Some(VmRequest { devices, .. }) = options.vm.as_ref().or(default) else { return Ok(()) };
    for request in devices {
        if vm.devices().iter().all(|(_, device)| device.id != request.id) {
            let added = vm.device_add(request.clone(), Source::CommandLine).await;
            added.map_err(|error| StartError::Device { id: request.id.clone(), error: Box::new(error) })?;
        }
    }
    Ok(())
}

fn guest_memory(size_bytes: u64) -> Result<Arc<HostMemory>, StartError> {
    HostMemory::anonymous(size_bytes).map(Arc::new).map_err(|error| StartError::GuestMemory { size_bytes, error })
}

fn spawn(
    options: &StartOptions,
    opened: Opened,
    memories: BTreeMap<String, Arc<HostMemory>>,
    outbox: Outbox,
    fatal: FatalFlag,
) -> Result<Vm, StartError> {
    let Opened { journal, followed, state: State { config, backends, devices }, last, .. } = opened;
    let config = Arc::new(config);
    let recorder = Recorder::new(journal.clone(), fatal.clone());
    // What is durable at the start is everything: answers to reads before the first record do not wait.
    outbox.durable(last);
    let registry = PreparedActor::<BackendRegistry>::new(unbounded());
    let window = Arc::new(Window::new(config.window_base, config.window_bytes()));
    let (ram, root_ports) = (guest_memory(config.memory_bytes)?, config.root_ports.len() as u8);
    let platform = Arc::new(Platform::new(PlatformParts { ram, window: Arc::clone(&window), root_ports }));
    let gate = Arc::new(Gate::new());
    // Held back until the start is complete.
    gate.pause();
    let kvm = match options.accel {
        Accel::Soft => None,
        Accel::Kvm { vcpus } => Some(KvmGuest::new(KvmParts {
            platform: Arc::clone(&platform),
            vcpus,
            program: options.guest.clone(),
            fatal: fatal.clone(),
            journal: journal.clone(),
        })?),
    };
    let processor = Processor { gate: Arc::clone(&gate), kvm };
    let slots = Slots {
        recorder: recorder.clone(),
        outbox: outbox.clone(),
        registry: registry.actor_ref().clone(),
        listener: Arc::clone(&options.listener),
        platform: Arc::clone(&platform),
        window,
        processor: processor.clone(),
    };
    let mut actors = BTreeMap::new();
    for (index, device) in devices {
        let device = slots.plug(index, device, &memories, last).map_err(StartError::Mapping)?;
        actors.insert(index, device);
    }
    registry.spawn(BackendRegistry {
        config: Arc::clone(&config),
        recorder,
        outbox,
        state: backends,
        memories,
        last_fact: last,
    });
    let bus = GuestBus::new(platform, gate);
    let guest = GuestVcpu::spawn_for(options.guest.clone(), &bus, processor);
    let (devices, plugging) = (RwLock::new(actors), tokio::sync::RwLock::default());
    Ok(Vm {
        parts: Arc::new(Parts {
            config,
            journal,
            followed,
            fatal,
            slots,
            devices,
            plugging,
            guest,
            bus,
            maker: options.maker(),
        }),
    })
}
