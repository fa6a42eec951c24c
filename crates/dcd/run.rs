//! `dcd run`: the long-running program.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actors::{
    Accel, Fatal, GuestProgram, GuestReturn, JournalPlace, Loading, MemoryKeeper, Object, PreallocListener,
    RestoreOptions, Restored, RunState, StartError, StartOptions, Started, TakenOver, Vm, VmRequest,
};
use anyhow::{Context, bail};
use clap::ValueEnum;
use device::backends::Survival;
use device::config::{DeviceConfig, DeviceRequest};
use device::extents::Notice;
use driver::Policy;
use journal::Durability;
use memory::BackendDir;
use qmp::{EventSender, ListenSpec, Server, VmService};
use rustix::process::{Resource, Rlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use wire::Tag;

use crate::accel::{AccelArgument, AccelChoice, OtherGuest};
use crate::config_file::ConfigFile;
use crate::inherited::{Inherited, Servers};
use crate::kept_memory::KeptMemory;
use crate::options::DeviceOption;
use crate::owner::Note;
use crate::qtest::Qtest;
use crate::takeover;
use crate::vm_parts::VmParts;
use crate::{BUILD, options, place, print_line, shell, size};

/// Run a device until SIGTERM or QMP `quit`; a second run on the same journal resumes it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dcd run\n  dcd run --device cxl-type3,id=cxl-vmem0,num-dc-regions=1,dc-regions-total-size=4G \\\n          \
                        --object memory-backend-ram,id=tm0,size=1G,share=on,tag=5be13bce-ae34-4a77-b6c3-16df975fcf1a \\\n          \
                        --qmp unix:/tmp/dcd.sock --journal /var/lib/dcd/journal\n  dcd run --qtest unix:/tmp/qtest.sock --qmp unix:/tmp/dcd.sock --journal none"
)]
pub(crate) struct Run {
    /// A TOML file that says the same as the options; `dcd schema config` describes it. An option goes before its key.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Guest memory in bytes (K, M, G: powers of 1024). Default: 1G.
    #[arg(long, value_parser = options::size, value_name = "SIZE")]
    memory: Option<u64>,
    /// A CXL fixed memory window: size=BYTES; may be repeated. Default: one that fits the devices.
    #[arg(long, value_parser = options::window, value_name = "size=SIZE")]
    window: Vec<u64>,
    /// A device; may be repeated. Default: cxl-vmem0 with one region of 4G.
    ///
    /// cxl-type3,id=ID, then dc-regions-total-size=SIZE for capacity that is added by tag, or volatile-dc-memdev=ID for
    /// one backend behind all of it (with unique-tags=on or off); and perhaps volatile-memdev=ID (static memory),
    /// num-dc-regions=N, sn=N, dc-block-size=SIZE, mailbox-payload=SIZE, bus=PORT.
    /// cxl-rp,id=PORT is a root port; where none is given, each device has one. pxb-cxl,bus_nr=12 is understood.
    #[arg(long, value_parser = options::device, value_name = "cxl-type3,id=ID,...")]
    device: Vec<DeviceOption>,
    /// A backend; may be repeated.
    ///
    /// memory-backend-ram, -memfd or -file with id=ID,size=SIZE, then perhaps tag=UUID and, each on or off, share,
    /// prealloc, reserve; of a memfd hugetlb, hugetlbsize=SIZE, seal; of a file mem-path=PATH, readonly, discard-data,
    /// align=SIZE.
    #[arg(long, value_parser = options::object, value_name = "memory-backend-ram,id=ID,...")]
    object: Vec<Object>,
    /// The directory that holds the files of all memory-backend-file; without it there can be none.
    #[arg(long, value_name = "DIR")]
    backend_dir: Option<PathBuf>,
    /// Where QMP clients connect: unix:PATH or tcp:HOST:PORT, then perhaps ,server=on,wait=off. May be repeated.
    #[arg(long, value_name = "ADDRESS")]
    qmp: Vec<String>,
    /// The journal's directory, or none. Default: dcd/journal in the XDG state directory.
    #[arg(long, value_name = "DIR|none")]
    journal: Option<PathBuf>,
    /// When an answer may leave: its record on disk (the default), with the operating system, or at once.
    #[arg(long, value_enum)]
    durability: Option<DurabilityArgument>,
    /// Bytes of journal at which the VM stops (a warning comes at 90 %).
    #[arg(long, value_parser = options::size, value_name = "SIZE")]
    journal_limit: Option<u64>,
    /// Disk that old records may take; beyond it the oldest go, and with them the questions to that time. Default: all stay.
    #[arg(long, value_parser = options::size, value_name = "SIZE")]
    keep: Option<u64>,
    /// Where snapshots are. Default: in the journal's directory.
    #[arg(long, value_name = "DIR")]
    snapshots: Option<PathBuf>,
    /// The directory of a snapshot to go on from, with a new journal: a guest on KVM goes on at its next instruction.
    #[arg(long, value_name = "DIR/NAME")]
    restore: Option<PathBuf>,
    /// With --restore: bytes of memory are read when the guest touches them, and checked beside it.
    #[arg(long, requires = "restore")]
    lazy: bool,
    /// Takes the VM of another dcd on this host, by the address of its control socket: its guest runs on in this process.
    ///
    /// The journal begins where that of the other process ends; the other process ends when this one has the VM.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["restore", "accel", "vcpus", "qtest", "guest"])]
    takeover: Option<String>,
    /// For tests: saves, tears down and restores the VM in place whenever so many records have come.
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u64).range(1..))]
    pulse: Option<u64>,
    /// What runs the guest: kvm, soft (a guest inside this process), or auto, the default: kvm where it works.
    #[arg(long, value_enum)]
    accel: Option<AccelArgument>,
    /// Processors of a guest on KVM. Default: 1.
    #[arg(long, value_name = "N", value_parser = options::vcpus)]
    vcpus: Option<u32>,
    /// Where a qtest driver is the guest: unix:PATH or tcp:HOST:PORT, then perhaps ,server=on,wait=off.
    ///
    /// Where something listens at PATH already, it is connected to, as QEMU does; otherwise PATH is listened at.
    #[arg(long, value_name = "ADDRESS")]
    qtest: Option<String>,
    /// The guest: driver[,policy=POLICY], or none. Default: driver, or none with --qtest.
    ///
    /// The policy is accept, reject, hold (nothing is answered), subset (a part of every offer is accepted), late (answers
    /// come 100 ms after the event) or linux (what Linux does). For linux: busy=UUID, may be repeated, is a tag whose
    /// memory is in use, so that a request to release it gets no answer.
    #[arg(long, value_name = "driver[,policy=POLICY]|none", value_parser = guest)]
    guest: Option<GuestProgram>,
}

/// How long another process may take to come with its VM.
const MEET_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to let go of its sockets.
const LET_GO_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is looked whether a pulse is due.
const PULSE_LOOK: Duration = Duration::from_millis(1);

/// When an answer may leave.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum DurabilityArgument {
    /// On disk: nothing that was answered is lost, whatever ends.
    Disk,
    /// With the operating system: a killed process loses nothing, a power cut may.
    Process,
    /// At once: whatever ends may take what was answered.
    None,
}

impl DurabilityArgument {
    fn durability(self) -> Durability {
        match self {
            Self::Disk => Durability::Disk,
            Self::Process => Durability::Process,
            Self::None => Durability::None,
        }
    }
}

pub(crate) fn guest(text: &str) -> Result<GuestProgram, String> {
    let (kind, pairs) = options::pairs(text)?;
    if kind != "driver" {
        let none = (text == "none").then_some(GuestProgram::None);
        return none.ok_or_else(|| format!("'{text}' is no guest: driver[,policy=POLICY][,busy=UUID...] or none"));
    }
    let (mut policy, mut busy) = (Policy::default(), Vec::new());
    for (key, value) in pairs {
        match key {
            "policy" => policy = value.parse().map_err(|error| format!("'{value}' is no policy: {error}"))?,
            "busy" => busy.push(Tag::parse(value).map_err(|error| format!("busy={value}: {error}"))?),
            _ => return Err(format!("'{key}' is no property of a driver: policy and busy are")),
        }
    }
    if !busy.is_empty() && policy != Policy::Linux {
        return Err(format!("policy={policy} does not look at busy memory: busy=UUID needs policy=linux"));
    }
    Ok(GuestProgram::Driver { policy, busy })
}

impl Run {
    /// Runs until it is told to end.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        Self::raise_descriptor_limit();
        // Before anything else is opened.
        let kept = Arc::new(KeptMemory::of_environment()?);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let file = self.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        runtime.block_on(self.behind(file).serve(&kept))
    }

    /// The options, and where there is none what the file says.
    fn behind(self, file: ConfigFile) -> Self {
        fn or<T>(option: Vec<T>, file: Vec<T>) -> Vec<T> {
            if option.is_empty() { file } else { option }
        }
        Self {
            config: self.config,
            memory: self.memory.or(file.memory),
            window: or(self.window, file.window),
            device: or(self.device, file.device),
            object: or(self.object, file.object),
            backend_dir: self.backend_dir.or(file.backend_dir),
            qmp: or(self.qmp, file.qmp),
            qtest: self.qtest.or(file.qtest),
            journal: self.journal.or(file.journal),
            durability: self.durability.or(file.durability),
            journal_limit: self.journal_limit.or(file.journal_limit),
            keep: self.keep.or(file.keep),
            snapshots: self.snapshots.or(file.snapshots),
            restore: self.restore,
            lazy: self.lazy,
            pulse: self.pulse,
            takeover: self.takeover,
            accel: self.accel.or(file.accel),
            vcpus: self.vcpus.or(file.vcpus),
            guest: self.guest.or(file.guest),
        }
    }

    /// Every memfd and file of a backend is a descriptor, a hand-over and a snapshot take one for each: as many as the host
    /// allows.
    fn raise_descriptor_limit() {
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        // Where it is refused there are as many as there were.
        rustix::process::setrlimit(Resource::Nofile, raised).ok();
    }

    async fn serve(self, kept: &Arc<KeptMemory>) -> anyhow::Result<()> {
        let (manager, keeper) = (kept.manager(), Arc::clone(kept) as Arc<dyn MemoryKeeper>);
        let (events, listens) = (EventSender::new(), self.listens()?);
        let journal = self.journal_place()?;
        if self.takeover.is_some() && self.qtest.is_some() {
            bail!("--takeover takes the guest that runs, and the configuration names a qtest driver: leave one out");
        }
        let qtest = self.qtest.as_deref().map(Qtest::open).transpose()?;
        // A driver outside is the guest.
        let (default_guest, other) = match &qtest {
            Some(_) => (GuestProgram::None, OtherGuest::Qtest),
            None => (GuestProgram::from(Policy::Accept), OtherGuest::None),
        };
        let restore = self.restore_options();
        if let (Some(restore), Some(_)) = (&restore, &self.guest)
            && matches!(restore.accel()?, Accel::Kvm { .. })
        {
            bail!("--restore: the snapshot's guest is on KVM and goes on as it is; leave --guest out");
        }
        let accel = self.choose_accel(restore.as_ref(), other)?;
        let listener = {
            let events = events.clone();
            Arc::new(move |device: &DeviceConfig, notice: &Notice| {
                let (name, data) = qmp::notice_event(device, notice);
                events.send(name, data);
            })
        };
        let options = StartOptions {
            vm: self.vm()?,
            default_vm: VmParts::default().request()?,
            journal: journal.clone(),
            durability: self.durability.map_or(Durability::Disk, DurabilityArgument::durability),
            journal_limit_bytes: self.journal_limit,
            journal_keep_bytes: self.keep,
            objects: self.object.clone(),
            guest: self.guest.clone().unwrap_or(default_guest),
            accel: accel.accel,
            build: BUILD.into(),
            listener,
            snapshots: self.snapshots.clone(),
            restore,
            keeper: Some(keeper),
            backend_dir: self.backend_dir.as_deref().map(BackendDir::open).transpose()?,
            progress: prealloc_listener(events.clone()),
        };
        // Before anybody can be told that it is ready: a signal from then on is a request to end, not a death.
        let mut signals = Signals::new()?;
        let Begun { vm, service, started, servers, before } = self.begin(options, listens, events).await?;
        let mut addresses: Vec<_> = servers.addresses.iter().map(|address| format!("qmp: {address}")).collect();
        addresses.extend(qtest.as_ref().map(|qtest| format!("qtest: {}", qtest.address)));
        let note = match &journal {
            JournalPlace::Directory(dir) => Some(Note::new(dir, &servers.addresses)),
            JournalPlace::None => None,
        };
        let _note = self.unless_taken(note.transpose())?;
        let _socket_file = qtest.map(|qtest| qtest.serve(&vm)).transpose()?;
        let accel = if self.takeover.is_some() { of_taken(&vm) } else { accel.line };
        self.unless_taken(
            announce(&vm, &started, &journal, &[accel].into_iter().chain(before).collect::<Vec<_>>(), &addresses)
                .map(Some),
        )?;
        let (pulses, no_more) = watch::channel(());
        if let Some(every) = self.pulse {
            tokio::spawn(pulse(vm.clone(), every, no_more));
        }
        manager.ready();
        let ended = wait_for_end(&vm, &service, &mut signals).await;
        // A hand-over that was under way may have given it.
        let ended = vm.end_hand_overs().await.or(ended);
        // One that is under way ends by itself, and the end of the VM waits for it. It was once cut off in the middle: a guest
        // that stood still and actors of which some had ended were left to whatever came next.
        drop(pulses);
        manager.stopping();
        servers.shutdown().await;
        if let Some(Fatal::HandedOver { .. }) = &ended {
            // Nothing of it is here any more.
            vm.let_go().await;
        } else {
            vm.shutdown().await;
        }
        match (ended, journal) {
            (None, _) => Ok(()),
            (Some(handed @ Fatal::HandedOver { .. }), _) => print_line(&format!("handed over: {handed}")),
            (Some(fatal), JournalPlace::Directory(dir)) => {
                bail!("{fatal}\nreplay with: dcd replay {}", shell::path(&dir))
            }
            (Some(fatal), JournalPlace::None) => bail!("{fatal}"),
        }
    }

    /// Starts the VM, or takes it from another process, which keeps its sockets until it hears that this one waits for them.
    async fn begin(
        &self,
        options: StartOptions,
        listens: Vec<ListenSpec>,
        events: EventSender,
    ) -> anyhow::Result<Begun> {
        let Some(address) = self.takeover.clone() else {
            let (vm, started) = actors::start(options).await?;
            let service = Arc::new(VmService::new(vm.clone()));
            let servers = Server::start(listens, Arc::clone(&service), events).await?.into();
            return Ok(Begun { vm, service, started, servers, before: None });
        };
        // All that can fail comes before this process has the VM: where it ended then, nobody would have it.
        let sockets = Inherited::listen(listens).await.context(NOT_TAKEN)?;
        let met = tokio::task::spawn_blocking(move || takeover::meet(&address, MEET_TIMEOUT)).await?;
        let met = met?;
        sockets.check(&met).context(NOT_TAKEN)?;
        let TakenOver { vm, started, owner, giver_journal } =
            actors::take_over(options, met).await.map_err(not_taken)?;
        let service = Arc::new(VmService::new(vm.clone()));
        // The other process lets go of its sockets; the guest does not wait for it.
        tokio::task::spawn_blocking(move || owner.wait_for_go(LET_GO_TIMEOUT)).await.ok();
        let servers = sockets.serve(&service, &events).await;
        let before = giver_journal.filter(|_| self.snapshots.is_none()).and_then(|dir| snapshots_before(&dir));
        Ok(Begun { vm, service, started, servers, before })
    }

    /// What fails beside a VM that was taken over must not end the process that has it: its guest would end with it.
    fn unless_taken<T>(&self, done: anyhow::Result<Option<T>>) -> anyhow::Result<Option<T>> {
        match done {
            Err(error) if self.takeover.is_some() => {
                tracing::warn!("the VM runs, but: {error:#}");
                Ok(None)
            }
            done => done,
        }
    }

    fn restore_options(&self) -> Option<RestoreOptions> {
        let loading = if self.lazy { Loading::Lazy } else { Loading::Eager };
        self.restore.clone().map(|snapshot| RestoreOptions { snapshot, loading })
    }

    /// What runs the guest: of one that is restored what ran it, unless something is asked for.
    fn choose_accel(&self, restore: Option<&RestoreOptions>, other: OtherGuest) -> anyhow::Result<AccelChoice> {
        let asked = self.accel.unwrap_or(AccelArgument::Auto);
        let saved = restore.filter(|_| asked == AccelArgument::Auto && self.vcpus.is_none());
        match saved.map(RestoreOptions::accel).transpose().context("--restore")? {
            Some(Accel::Kvm { vcpus }) => AccelArgument::Kvm.choose(Some(vcpus), other),
            Some(Accel::Soft) => AccelArgument::Soft.choose(None, other),
            None => asked.choose(self.vcpus, other),
        }
    }

    /// The VM that the options describe; `None` where they describe none.
    fn vm(&self) -> anyhow::Result<Option<VmRequest>> {
        let mut parts = VmParts {
            memory_bytes: self.memory,
            windows_bytes: self.window.clone(),
            objects: self.object.clone(),
            ..VmParts::default()
        };
        let is_bridge = |option: &&DeviceOption| **option == DeviceOption::HostBridge;
        if self.device.iter().filter(is_bridge).count() > 1 {
            bail!("--device pxb-cxl is given twice: there is one host bridge, bus_nr=12");
        }
        for option in &self.device {
            match option {
                DeviceOption::Type3(device) => parts.devices.push(DeviceRequest::clone(device)),
                DeviceOption::RootPort(id) => parts.root_ports.push(id.clone()),
                DeviceOption::HostBridge => {}
            }
        }
        if parts.is_default() { Ok(None) } else { parts.request().map(Some) }
    }

    fn journal_place(&self) -> anyhow::Result<JournalPlace> {
        let dir = match &self.journal {
            Some(none) if none.as_os_str() == "none" => return Ok(JournalPlace::None),
            Some(dir) => dir.clone(),
            None => place::journal()?,
        };
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            place::make_private_dir(parent)?;
        }
        Ok(JournalPlace::Directory(dir))
    }

    fn listens(&self) -> anyhow::Result<Vec<ListenSpec>> {
        let parse = |text: &str| ListenSpec::parse(text).with_context(|| format!("--qmp {text}"));
        if !self.qmp.is_empty() {
            return self.qmp.iter().map(|text| parse(text)).collect();
        }
        let socket = place::socket();
        if let Some(dir) = socket.parent() {
            place::make_private_dir(dir)?;
        }
        Ok(vec![parse(&format!("unix:{}", socket.display()))?])
    }
}

/// A VM that runs, and is served.
struct Begun {
    vm: Vm,
    service: Arc<VmService>,
    started: Started,
    servers: Servers,
    /// Of one that was taken over: where its snapshots are.
    before: Option<String>,
}

/// Says that nothing is lost.
const NOT_TAKEN: &str = "nothing was taken over, the VM goes on where it is";

fn not_taken(error: StartError) -> anyhow::Error {
    match error {
        // It was taken, and did not go on.
        error @ (StartError::Stopped(_) | StartError::Request(_)) => error.into(),
        error => anyhow::Error::from(error).context(NOT_TAKEN),
    }
}

/// Where the snapshots are that a VM had in another process, if there are any.
fn snapshots_before(journal: &Path) -> Option<String> {
    let dir = journal.join("snapshots");
    std::fs::read_dir(&dir).ok()?.next()?.ok()?;
    Some(format!("snapshots of before: {}, give --snapshots to go on with them", dir.display()))
}

/// What runs a guest that was taken over, in a line.
fn of_taken(vm: &Vm) -> String {
    match vm.machine() {
        Some(machine) => format!("accel: kvm, {} vCPU, as it was", machine.vcpus()),
        None => "accel: soft, as it was".into(),
    }
}

/// Pulses the VM whenever so many records have come, until it stops or there are to be no more.
async fn pulse(vm: Vm, every: u64, no_more: watch::Receiver<()>) {
    let is_over = || no_more.has_changed().is_err();
    let mut due = vm.journal_position().0.0 + every;
    loop {
        tokio::time::sleep(PULSE_LOOK).await;
        if is_over() {
            return;
        }
        if vm.journal_position().0.0 < due {
            continue;
        }
        // Where it cannot be restored, the VM has stopped, and says why.
        if let Err(error) = vm.pulse().await {
            // Of a VM that ends it would say that it has.
            if !is_over() {
                writeln!(std::io::stderr(), "--pulse: {error}").ok();
            }
            return;
        }
        due = vm.journal_position().0.0 + every;
    }
}

/// Says what runs, and how it came to be.
fn announce(
    vm: &Vm,
    started: &Started,
    journal: &JournalPlace,
    about: &[String],
    addresses: &[String],
) -> anyhow::Result<()> {
    for (_, device) in vm.devices() {
        print_line(&describe(&device))?;
    }
    for (base, size_bytes) in vm.config().windows() {
        print_line(&format!("window: {} at {base}", size::people(size_bytes)))?;
    }
    about.iter().try_for_each(|line| print_line(line))?;
    if let Some(Restored { from, guest }) = &started.restored {
        let guest = match (guest, vm.run_state()) {
            (_, RunState::Paused) => "the guest is paused, as it was",
            (GuestReturn::WithProcessors, RunState::Running) => "the guest goes on at its next instruction",
            (GuestReturn::DriverAnew, RunState::Running) => "the guest's driver begins anew",
        };
        print_line(&format!("{from}, after {}; {guest}", started.records))?;
    }
    match journal {
        JournalPlace::None => print_line("journal: none (nothing can be replayed or resumed)")?,
        JournalPlace::Directory(dir) if started.records.0 == 0 || started.restored.is_some() => {
            print_line(&format!("journal: {} (new)", dir.display()))?;
        }
        JournalPlace::Directory(dir) => {
            print_line(&format!(
                "journal: {}, resumed after {}; recovered from the journal, the guest boots anew",
                dir.display(),
                started.records
            ))?;
            for (id, survival) in &started.survivals {
                let fate = match survival {
                    Survival::Kept => "its bytes are kept",
                    Survival::Lost => "its bytes ended with the process that had them, it is all zeros",
                };
                print_line(&format!("backend {id}: {fate}, {}", started.run))?;
            }
        }
    }
    if let Some(first) = started.torn_from {
        print_line(&format!("journal: a group from {first} on was cut short; it was never acknowledged and is gone"))?;
    }
    addresses.iter().try_for_each(|address| print_line(address))?;
    print_line("ready")
}

/// Tells people and clients how far a preallocation is. At the start there is no client yet.
fn prealloc_listener(events: EventSender) -> PreallocListener {
    Arc::new(move |id: &str, done_bytes, total_bytes| {
        let (done, total) = (size::short(done_bytes), size::short(total_bytes));
        // Nobody who closed stderr wants to know.
        writeln!(std::io::stderr(), "backend {id}: {done} of {total} preallocated").ok();
        let (name, data) = qmp::prealloc_event(id, done_bytes, total_bytes);
        events.send(name, data);
    })
}

/// One line about a device.
fn describe(device: &DeviceConfig) -> String {
    let (regions, total) = (device.regions.len(), size::people(device.dynamic_len_bytes()));
    let memory: Vec<_> = device.memdevs().map(|(property, id)| format!("{property} {id}")).collect();
    let memory = if memory.is_empty() { "no memory of its own".to_owned() } else { memory.join(", ") };
    format!("{}: {regions} DC regions, {total} in all, {memory}", device.id)
}

/// The signals that end a run.
struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Returns when a signal, a client or the VM itself ends the run; with the reason where that is the VM.
async fn wait_for_end(vm: &Vm, service: &VmService, signals: &mut Signals) -> Option<Fatal> {
    let mut fatal = vm.fatal();
    tokio::select! {
        () = signals.any() => None,
        () = service.quit_requested() => None,
        fatal = fatal.wait_for(Option::is_some) => fatal.ok().and_then(|fatal| fatal.clone()),
    }
}
