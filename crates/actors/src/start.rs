//! Starting a VM: from a configuration and a journal, new or with a past, to running actors.
//!
//! ```text
//!  journal ── fold ──▶ state ──┬─ make memory again ──▶ reconcile mappings ──▶ actors ──▶ RunStart is recorded
//!  (none: power-on state) ─────┘
//! ```
//!
//! A start that would not be the same VM is refused with the reason, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use device::Seq;
use device::backends::{self, BackendSpec, Source as BackendSource, Survival};
use device::config::{DeviceIndex, DeviceRequest, VmConfig};
use device::vm::Vm as State;
use journal::record::{Origin, Parent};
use journal::{Durability, OpenError, Opening};
use memory::{BackendDir, HostMemory};
use snapshot::Snapshot;

use crate::birth::{self, Birth};
use crate::captured::Recalled;
use crate::effect::NoticeListener;
use crate::fatal::Raised;
use crate::guest_vcpu::GuestProgram;
use crate::host_memory::{Maker, MemoryKeeper, PreallocListener, survival};
use crate::kvm_guest::Ahead;
use crate::open::{self, Opened, open};
use crate::restore::{Loading, Memories, RestoreOptions, Source, Target, check_beside};
use crate::resume::{Again, check_named, check_objects, check_vm, make_again, missing_free};
use crate::snapshot_error::SnapshotError;
use crate::start_error::StartError;
use crate::take_over::forget;
use crate::vm::{RunState, Vm};

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
    /// Where snapshots are; `None` refuses them.
    pub snapshots: Option<PathBuf>,
    /// The snapshot to begin with; the journal must not be there then.
    pub restore: Option<RestoreOptions>,
    /// Where files of backends may be; `None` refuses them.
    pub backend_dir: Option<BackendDir>,
    /// Who keeps the memory of memfd backends over the end of the process.
    pub keeper: Option<Arc<dyn MemoryKeeper>>,
    /// Who hears how far a long preallocation is.
    pub progress: PreallocListener,
}

impl StartOptions {
    pub(crate) fn maker(&self) -> Maker {
        Maker {
            backend_dir: self.backend_dir.clone(),
            listener: Arc::clone(&self.progress),
            keeper: self.keeper.clone(),
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Soft => f.write_str("soft"),
            Self::Kvm { vcpus } => write!(f, "kvm, {vcpus} vCPU"),
        }
    }
}

impl Accel {
    /// What [`Accel`] says of itself.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("kvm, ") {
            Some(rest) => Some(Self::Kvm { vcpus: rest.strip_suffix(" vCPU")?.parse().ok()? }),
            None => (text == "soft").then_some(Self::Soft),
        }
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
    /// Where the VM is from, if it goes on from what was saved of it.
    pub restored: Option<Restored>,
}

/// A VM that goes on from what was saved of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What was done, for people.
    pub from: String,
    /// Whether its processors came back, or its guest begins anew.
    pub guest: GuestReturn,
}

/// What became of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestReturn {
    /// It goes on at its next instruction.
    WithProcessors,
    /// Its driver begins anew, of a guest inside the process.
    DriverAnew,
}

/// Starts a VM. Its clock runs when it returns.
pub async fn start(options: StartOptions) -> Result<(Vm, Started), StartError> {
    let raised = Raised::default();
    let Begun { birth, survivals, torn_from, restored, unchecked } = match &options.restore {
        None => resumed(&options, &raised).await?,
        Some(restore) => from_snapshot(&options, restore, &raised).await?,
    };
    let last = birth.last;
    let memories = Memories { ram: Arc::clone(&birth.ram), backends: birth.memories.clone() };
    let parts = match birth::begin(&options, &raised, birth) {
        Ok(parts) => parts,
        Err(error) => {
            if restored.is_some() {
                forget(&options.journal);
                memories.abandon().await;
            }
            return Err(error);
        }
    };
    drop(memories);
    let fatal = parts.fatal.clone();
    let vm = Vm::new(parts, options, raised);
    if restored.is_some() {
        // It was under way: it does not stand still for a disk, nor for bytes that it may never touch.
        vm.set_run_state(RunState::Running).await?;
    }
    let options = &vm.shared.options;
    let input = backends::Input::RunStart { build: options.build.clone(), survivals: survivals.clone() };
    let run = settle(&vm, Origin::Supervisor, input).await?;
    // What a snapshot has was saved with it, whether or not the command line names it.
    let missing = if restored.is_some() { Vec::new() } else { missing_free(&vm, &options.objects).await? };
    for object in missing {
        settle(&vm, Origin::CommandLine, backends::Input::ObjectDel { id: object }).await?;
    }
    for object in &options.objects {
        add_object(&vm, object).await?;
    }
    plug_devices(&vm, options).await?;
    options.maker().forget_rest();
    vm.set_run_state(RunState::Running).await?;
    vm.sweep_snapshots().await;
    if let Some(snapshot) = unchecked {
        check_beside(snapshot, fatal);
    }
    Ok((vm, Started { records: last, run, survivals, torn_from, restored }))
}

/// What a VM begins with.
struct Begun {
    birth: Birth,
    survivals: Vec<(String, Survival)>,
    torn_from: Option<Seq>,
    restored: Option<Restored>,
    /// The snapshot whose bytes the guest is given as they are.
    unchecked: Option<Snapshot>,
}

/// From its journal, or new.
async fn resumed(options: &StartOptions, raised: &Raised) -> Result<Begun, StartError> {
    let opened = open(options, raised)?;
    check_objects(&opened.state, &options.objects)?;
    let Again { memories, kept } = make_again(&opened.state, &options.objects, &options.maker()).await?;
    let survivals = survivals(&opened.state, &memories, &kept);
    let Opened { journal, followed, outbox, state, last, torn_from, refill } = opened;
    let ram = guest_memory(state.config.memory_bytes)?;
    let memories = Memories { ram, backends: memories };
    if let (Some(refill), JournalPlace::Directory(dir)) = (refill, &options.journal) {
        refill.again(dir, &memories).await?;
    }
    let Memories { ram, backends: memories } = memories;
    let birth = Birth { journal, followed, outbox, state, last, ram, memories, guest_side: None, ahead: None };
    Ok(Begun { birth, survivals, torn_from, restored: None, unchecked: None })
}

/// From a snapshot, with a journal that begins behind it. Where it is refused, nothing has changed.
async fn from_snapshot(options: &StartOptions, restore: &RestoreOptions, raised: &Raised) -> Result<Begun, StartError> {
    if let JournalPlace::Directory(dir) = &options.journal
        && !matches!(Opening::of(dir), Err(OpenError::Missing { .. } | OpenError::Unfinished { .. }))
    {
        return Err(SnapshotError::JournalThere { dir: dir.clone() }.into());
    }
    let ahead = Ahead::begin(options.accel);
    let source = Source::open(&restore.snapshot)?;
    source.check_accel(options.accel)?;
    let keyframe = source.keyframe();
    check_vm(options, &keyframe.vm)?;
    check_named(&keyframe.vm, &options.objects)?;
    let memories = source.memories(&options.maker(), restore.loading, Target::Elsewhere).await?;
    let parent = Parent {
        journal: restore.snapshot.display().to_string(),
        shared: keyframe.seq,
        change: format!("restored from snapshot {}", source.snapshot.name()),
    };
    let guest = match source.accel() {
        Accel::Kvm { .. } => GuestReturn::WithProcessors,
        Accel::Soft => GuestReturn::DriverAnew,
    };
    let (snapshot, Recalled { base, guest_side }) = source.into_parts();
    let opened = match open::begin(options, raised, base, parent) {
        Ok(opened) => opened,
        Err(error) => {
            memories.abandon().await;
            return Err(error);
        }
    };
    let Memories { ram, backends: memories } = memories;
    let survivals = memories.keys().map(|id| (id.clone(), Survival::Kept)).collect();
    let restored = Some(Restored { from: format!("restored from snapshot {}", snapshot.name()), guest });
    let unchecked = (restore.loading == Loading::Lazy).then_some(snapshot);
    let Opened { journal, followed, outbox, state, last, torn_from, refill: _ } = opened;
    let guest_side = Some(guest_side);
    let birth = Birth { journal, followed, outbox, state, last, ram, memories, guest_side, ahead };
    Ok(Begun { birth, survivals, torn_from, restored, unchecked })
}

fn survivals(
    state: &State,
    memories: &BTreeMap<String, Arc<HostMemory>>,
    kept: &BTreeSet<String>,
) -> Vec<(String, Survival)> {
    let again = state.backends.iter().filter(|(id, _)| memories.contains_key(*id));
    let fate = |id, spec| if kept.contains(id) { Survival::Kept } else { survival(spec) };
    again.map(|(id, backend)| (id.to_owned(), fate(id, &backend.spec))).collect()
}

pub(crate) async fn settle(vm: &Vm, origin: Origin, input: backends::Input) -> Result<Seq, StartError> {
    vm.register(origin, DeviceIndex(0), input, None).await.map_err(|error| StartError::Request(Box::new(error)))
}

async fn add_object(vm: &Vm, object: &Object) -> Result<(), StartError> {
    let id = object.id.clone();
    let is_there =
        vm.backends(move |state| state.get(&id).is_some_and(|b| b.source == BackendSource::CommandLine)).await?;
    if is_there {
        return Ok(());
    }
    let added = vm.object_add(&object.id, object.spec.clone(), BackendSource::CommandLine).await;
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
            let added = vm.device_add(request.clone(), BackendSource::CommandLine).await;
            added.map_err(|error| StartError::Device { id: request.id.clone(), error: Box::new(error) })?;
        }
    }
    Ok(())
}

/// Memory of zeros for a guest that boots.
fn guest_memory(size_bytes: u64) -> Result<Arc<HostMemory>, StartError> {
    HostMemory::anonymous(size_bytes).map(Arc::new).map_err(|error| StartError::GuestMemory { size_bytes, error })
}
