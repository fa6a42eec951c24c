//! `dcd run`: the long-running program.

use std::path::PathBuf;
use std::sync::Arc;

use actors::{Fatal, GuestProgram, JournalPlace, Object, StartOptions, Started, Vm};
use anyhow::{Context, bail};
use clap::ValueEnum;
use device::backends::Survival;
use device::config::{DeviceConfig, DeviceRequest, VmConfig};
use device::extents::Notice;
use driver::Policy;
use journal::Durability;
use platform::AddressMap;
use qmp::{EventSender, ListenSpec, Server, VmService};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{BUILD, options, place, print_line, size};

/// Run a device until SIGTERM or QMP `quit`; a second run on the same journal resumes it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  dcd run\n  dcd run --device cxl-type3,id=cxl-vmem0,num-dc-regions=1,dc-regions-total-size=4G \\\n          \
                        --object memory-backend-ram,id=tm0,size=1G,share=on,tag=5be13bce-ae34-4a77-b6c3-16df975fcf1a \\\n          \
                        --qmp unix:/tmp/dcd.sock --journal /var/lib/dcd/journal"
)]
pub(crate) struct Run {
    /// Guest memory in bytes (K, M, G: powers of 1024). Default: 1G.
    #[arg(long, value_parser = options::size, value_name = "SIZE")]
    memory: Option<u64>,
    /// The CXL fixed memory window: size=BYTES. Default: one that fits the devices.
    #[arg(long, value_parser = options::window, value_name = "size=SIZE")]
    window: Option<u64>,
    /// A device; may be repeated. Default: cxl-vmem0 with one region of 4G.
    ///
    /// cxl-type3,id=ID,dc-regions-total-size=SIZE, then perhaps num-dc-regions=N, sn=N, dc-block-size=SIZE,
    /// mailbox-payload=SIZE, bus=NAME.
    #[arg(long, value_parser = options::device, value_name = "cxl-type3,id=ID,...")]
    device: Vec<DeviceRequest>,
    /// A backend; may be repeated.
    ///
    /// memory-backend-ram,id=ID,size=SIZE, then perhaps tag=UUID, share=on or off, prealloc=on or off.
    #[arg(long, value_parser = options::object, value_name = "memory-backend-ram,id=ID,...")]
    object: Vec<Object>,
    /// Where QMP clients connect: unix:PATH or tcp:HOST:PORT, then perhaps ,server=on,wait=off. May be repeated.
    #[arg(long, value_name = "ADDRESS")]
    qmp: Vec<String>,
    /// The journal's directory, or none. Default: dcd/journal in the XDG state directory.
    #[arg(long, value_name = "DIR|none")]
    journal: Option<PathBuf>,
    /// When an answer may leave: its record on disk, with the operating system, or at once.
    #[arg(long, value_enum, default_value = "disk")]
    durability: DurabilityArgument,
    /// Bytes of journal at which the VM stops (a warning comes at 90 %).
    #[arg(long, value_parser = options::size, value_name = "SIZE")]
    journal_limit: Option<u64>,
    /// What runs the guest: soft is a guest inside this process; auto takes the best that works.
    #[arg(long, value_enum, default_value = "auto")]
    accel: Accel,
    /// The guest: driver[,policy=accept|reject|hold], or none.
    #[arg(long, default_value = "driver", value_parser = guest)]
    guest: GuestProgram,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum DurabilityArgument {
    /// On disk: nothing that was answered is lost, whatever ends.
    Disk,
    /// With the operating system: a killed process loses nothing, a power cut may.
    Process,
    /// At once: whatever ends may take what was answered.
    None,
}

/// What runs the guest.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Accel {
    /// The best that works here.
    Auto,
    /// A guest inside this process.
    Soft,
}

impl Accel {
    /// One line that says what was taken and why.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Self::Auto => "accel: soft (the in-process guest; this build has no other)",
            Self::Soft => "accel: soft (the in-process guest, as asked)",
        }
    }
}

fn guest(text: &str) -> Result<GuestProgram, String> {
    match text {
        "none" => Ok(GuestProgram::None),
        "driver" | "driver,policy=accept" => Ok(GuestProgram::Driver(Policy::Accept)),
        "driver,policy=reject" => Ok(GuestProgram::Driver(Policy::Reject)),
        "driver,policy=hold" => Ok(GuestProgram::Driver(Policy::Hold)),
        _ => Err(format!("'{text}' is no guest: driver[,policy=accept|reject|hold] or none")),
    }
}

impl Run {
    /// Runs until it is told to end.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(self.serve())
    }

    async fn serve(self) -> anyhow::Result<()> {
        let (events, listens) = (EventSender::new(), self.listens()?);
        let journal = self.journal_place()?;
        let listener = {
            let events = events.clone();
            Arc::new(move |device: &DeviceConfig, notice: &Notice| {
                let (name, data) = qmp::notice_event(device, notice);
                events.send(name, data);
            })
        };
        let options = StartOptions {
            config: self.config()?,
            default_config: config_of(None, None, &[])?,
            journal: journal.clone(),
            durability: match self.durability {
                DurabilityArgument::Disk => Durability::Disk,
                DurabilityArgument::Process => Durability::Process,
                DurabilityArgument::None => Durability::None,
            },
            journal_limit_bytes: self.journal_limit,
            objects: self.object.clone(),
            guest: self.guest,
            build: BUILD.into(),
            listener,
        };
        // Before anybody can be told that it is ready: a signal from then on is a request to end, not a death.
        let mut signals = Signals::new()?;
        let (vm, started) = actors::start(options).await?;
        let service = Arc::new(VmService::new(vm.clone()));
        let server = Server::start(listens, Arc::clone(&service), events).await?;
        self.announce(&vm, &started, &journal, server.addresses())?;
        let ended = wait_for_end(&vm, &service, &mut signals).await;
        server.shutdown().await;
        vm.shutdown().await;
        match (ended, journal) {
            (None, _) => Ok(()),
            (Some(fatal), JournalPlace::Directory(dir)) => {
                bail!("{fatal}\nreplay with: dcd replay {}", dir.display())
            }
            (Some(fatal), JournalPlace::None) => bail!("{fatal}"),
        }
    }

    fn config(&self) -> anyhow::Result<Option<VmConfig>> {
        let is_default = self.memory.is_none() && self.window.is_none() && self.device.is_empty();
        if is_default { Ok(None) } else { config_of(self.memory, self.window, &self.device).map(Some) }
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

    fn announce(&self, vm: &Vm, started: &Started, journal: &JournalPlace, addresses: &[String]) -> anyhow::Result<()> {
        for device in &vm.config().devices {
            let total_bytes = device.regions.iter().map(|region| region.len_bytes).sum();
            let regions = device.regions.len();
            print_line(&format!(
                "{}: {regions} DC regions, {} in all, no memory of its own",
                device.id,
                size::people(total_bytes)
            ))?;
        }
        let window = vm.window();
        print_line(&format!("window: {} at {}", size::people(window.size_bytes()), window.base()))?;
        print_line(self.accel.describe())?;
        match journal {
            JournalPlace::None => print_line("journal: none (nothing can be replayed or resumed)")?,
            JournalPlace::Directory(dir) if started.records.0 == 0 => {
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
            print_line(&format!(
                "journal: a group from {first} on was cut short; it was never acknowledged and is gone"
            ))?;
        }
        addresses.iter().try_for_each(|address| print_line(&format!("qmp: {address}")))?;
        print_line("ready")
    }
}

/// A VM of these parts, with defaults for those that are not given.
pub(crate) fn config_of(
    memory: Option<u64>,
    window: Option<u64>,
    devices: &[DeviceRequest],
) -> anyhow::Result<VmConfig> {
    let default = [DeviceRequest {
        id: "cxl-vmem0".into(),
        dc_regions_total_size_bytes: Some(4 << 30),
        ..DeviceRequest::default()
    }];
    let requests = if devices.is_empty() { &default[..] } else { devices };
    let devices = requests.iter().map(DeviceConfig::lazy).collect::<Result<Vec<_>, _>>()?;
    let memory_bytes = memory.unwrap_or(1 << 30);
    let window_base = AddressMap::new(memory_bytes).fixed_window_base();
    let window_base = window_base.with_context(|| format!("--memory {memory_bytes} leaves no room for a window"))?;
    let window_bytes = window.unwrap_or_else(|| devices.iter().map(DeviceConfig::dpa_end).sum());
    let config = VmConfig { memory_bytes, window_base, window_bytes, devices };
    config.check()?;
    Ok(config)
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
