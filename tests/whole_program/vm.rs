//! A VM in this process: QMP on one side, the host's driver or bare registers on the other.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actors::{
    Accel, GuestBus, GuestProgram, JournalPlace, Object, RestoreOptions, RunState, StartError, StartOptions, TakenOver,
    Vm, VmRequest,
};
use device::backends::{BackendRequest, BackendType};
use device::config::{DeviceRequest, VmConfig};
use device::laws;
use driver::{Host, Mailbox, Policy};
use handover::Owner;
use journal::Durability;
use journal::record::{Genesis, Record};
use memory::BackendDir;
use platform::AddressMap;
use qmp::{EventSender, Service, VmService, check};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::program::GIB;

/// What a test wants of its VM.
pub(crate) struct Wanted {
    pub(crate) devices: u64,
    pub(crate) regions: u64,
    pub(crate) guest: GuestProgram,
    pub(crate) accel: Accel,
    pub(crate) durability: Durability,
    /// What is behind the first device; the others are lazy.
    pub(crate) memory: DeviceMemory,
    /// Root ports without a device.
    pub(crate) free_ports: u64,
    pub(crate) mailbox_payload_bytes: Option<u64>,
    /// A snapshot to begin with.
    pub(crate) restore: Option<RestoreOptions>,
    /// The directory of snapshots, where it is not that of the journal.
    pub(crate) snapshots: Option<PathBuf>,
    /// Where files of backends are.
    pub(crate) backend_dir: Option<PathBuf>,
}

/// What is behind a device when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceMemory {
    /// Nothing: 4 GiB are added by tag.
    Lazy,
    /// The backend `dc` of 1 GiB behind all of its dynamic capacity.
    Plain,
    /// As [`DeviceMemory::Plain`], of so many bytes.
    PlainOf(u64),
    /// As [`DeviceMemory::Plain`], behind the backend `fixed` of [`FIXED_BYTES`] static memory.
    PlainBehindStatic,
}

/// Length of the backend `fixed`.
pub(crate) const FIXED_BYTES: u64 = 256 << 20;

impl Default for Wanted {
    fn default() -> Self {
        Self {
            devices: 1,
            regions: 1,
            guest: GuestProgram::None,
            accel: Accel::Soft,
            durability: Durability::None,
            memory: DeviceMemory::Lazy,
            free_ports: 0,
            mailbox_payload_bytes: None,
            restore: None,
            snapshots: None,
            backend_dir: None,
        }
    }
}

/// The VM, its commands and its guest's bus.
pub(crate) struct InProcess {
    pub(crate) runtime: Runtime,
    pub(crate) vm: Vm,
    pub(crate) service: Arc<VmService>,
    pub(crate) bus: GuestBus,
    pub(crate) dir: tempfile::TempDir,
}

pub(crate) fn vm_request(wanted: &Wanted) -> VmRequest {
    let device = |n| {
        let memory = if n == 0 { wanted.memory } else { DeviceMemory::Lazy };
        DeviceRequest {
            id: format!("cxl-vmem{n}"),
            serial: 1 + n,
            num_dc_regions: Some(wanted.regions),
            dc_regions_total_size_bytes: (memory == DeviceMemory::Lazy).then_some(4 * GIB),
            volatile_dc_memdev: (memory != DeviceMemory::Lazy).then(|| "dc".into()),
            volatile_memdev: (memory == DeviceMemory::PlainBehindStatic).then(|| "fixed".into()),
            mailbox_payload_bytes: wanted.mailbox_payload_bytes,
            ..DeviceRequest::default()
        }
    };
    let window_base = AddressMap::new(GIB).fixed_window_base().expect("a base");
    let root_ports = (0..wanted.devices + wanted.free_ports).map(|n| format!("rp{n}")).collect();
    let window_bytes = match wanted.memory {
        DeviceMemory::PlainOf(size_bytes) => size_bytes,
        _ => 8 * GIB,
    };
    let config = VmConfig { memory_bytes: GIB, window_base, windows_bytes: vec![window_bytes], root_ports };
    VmRequest { config, devices: (0..wanted.devices).map(device).collect() }
}

/// The backends of the command line.
fn objects(wanted: &Wanted) -> Vec<Object> {
    let sizes = match wanted.memory {
        DeviceMemory::Lazy => vec![],
        DeviceMemory::Plain => vec![("dc", GIB)],
        DeviceMemory::PlainOf(size_bytes) => vec![("dc", size_bytes)],
        DeviceMemory::PlainBehindStatic => vec![("dc", GIB), ("fixed", FIXED_BYTES)],
    };
    let object = |(id, size_bytes): &(&str, u64)| {
        let (size_bytes, reserve) = (Some(*size_bytes), Some(false));
        let request = BackendRequest { size_bytes, reserve, ..BackendRequest::default() };
        Object { id: (*id).into(), spec: request.spec(BackendType::Ram).expect("a backend") }
    };
    sizes.iter().map(object).collect()
}

/// What a VM of a test is started with, whose journal is in a directory.
fn options(wanted: Wanted, dir: &Path) -> StartOptions {
    let config = vm_request(&wanted);
    StartOptions {
        vm: Some(config.clone()),
        default_vm: config,
        journal: JournalPlace::Directory(dir.join("journal")),
        durability: wanted.durability,
        journal_limit_bytes: None,
        journal_keep_bytes: None,
        objects: objects(&wanted),
        guest: wanted.guest,
        accel: wanted.accel,
        build: "test".into(),
        listener: Arc::new(|_, _| ()),
        snapshots: wanted.snapshots,
        restore: wanted.restore,
        backend_dir: wanted.backend_dir.map(|dir| BackendDir::open(&dir).expect("a directory")),
        keeper: None,
        progress: Arc::new(|_, _, _| ()),
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio")
}

impl InProcess {
    pub(crate) fn start(wanted: Wanted) -> Self {
        Self::try_start(wanted).expect("a VM")
    }

    pub(crate) fn try_start(wanted: Wanted) -> Result<Self, Box<StartError>> {
        let (runtime, dir) = (runtime(), tempfile::tempdir().expect("a directory"));
        let (vm, _) = runtime.block_on(actors::start(options(wanted, dir.path()))).map_err(Box::new)?;
        Ok(Self::of(vm, runtime, dir))
    }

    /// Takes the VM of whoever is at the other end.
    pub(crate) fn take_over(wanted: Wanted, from: UnixStream) -> Result<(Self, Owner), Box<StartError>> {
        let (runtime, dir) = (runtime(), tempfile::tempdir().expect("a directory"));
        let taken = runtime.block_on(actors::take_over(options(wanted, dir.path()), from)).map_err(Box::new)?;
        let TakenOver { vm, owner, started: _, giver_journal: _ } = taken;
        Ok((Self::of(vm, runtime, dir), owner))
    }

    fn of(vm: Vm, runtime: Runtime, dir: tempfile::TempDir) -> Self {
        let (service, bus) = (Arc::new(VmService::new(vm.clone())), vm.bus());
        Self { runtime, vm, service, bus, dir }
    }

    /// The host's driver, bound to the first device.
    pub(crate) fn host(&mut self) -> Host {
        let map = self.bus.platform_map();
        Host::probe(&mut self.bus, &map, Policy::Accept).expect("a device")
    }

    /// Executes a QMP command as a client's would be.
    pub(crate) fn qmp(&self, command: &str, arguments: Value) -> Result<Value, String> {
        let schema = self.service.commands().iter().find(|schema| schema.name == command).expect("a command");
        let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
        check(schema, &arguments).map_err(|error| error.description)?;
        let nobody = EventSender::new();
        self.runtime.block_on(self.service.call(schema, arguments, &nobody)).map_err(|error| error.description)
    }

    pub(crate) fn object_add(&self, id: &str, tag: &str, size: u64) {
        let arguments = serde_json::json!({"qom-type": "memory-backend-ram", "id": id, "size": size, "tag": tag});
        self.qmp("object-add", arguments).expect("a backend");
    }

    pub(crate) fn state(&self, tag: &str) -> Value {
        let arguments = serde_json::json!({"path": "cxl-vmem0", "host-id": 0, "region": 0, "tag": tag});
        self.qmp("cxl-release-dynamic-capacity-status", arguments).expect("a status")["state"].take()
    }

    /// Bytes of a backend, as the operator sees them.
    pub(crate) fn backend_bytes(&self, id: &str, offset: u64, len: usize) -> Vec<u8> {
        let memory = self.runtime.block_on(self.vm.memory_of(id)).expect("a VM").expect("a backend");
        let mut bytes = vec![0; len];
        memory.read(offset, &mut bytes).expect("inside");
        bytes
    }

    /// Lets the guest park and what is under way end: the parts of the state are asked for one by one.
    fn settle(&self) {
        self.runtime.block_on(self.vm.set_run_state(RunState::Paused)).expect("a VM");
        let mut before = None;
        while before != Some(self.vm.journal_position()) {
            before = Some(self.vm.journal_position());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the VM and gives its records as they are.
    pub(crate) fn close(self) -> Vec<Record> {
        drop((self.service, self.bus));
        self.runtime.block_on(self.vm.shutdown());
        read(&self.dir.path().join("journal")).1
    }

    /// Ends the VM and demands of its journal: it folds to the live state, the laws hold after every record, and this
    /// build decides every record as it was decided.
    pub(crate) fn end(self) -> Vec<Record> {
        self.settle();
        let live = self.runtime.block_on(self.vm.state()).expect("a state");
        laws::check(&live).expect("laws");
        drop((self.service, self.bus));
        self.runtime.block_on(self.vm.shutdown());
        let (records, folded) = replayed(&self.dir.path().join("journal"));
        assert_eq!(folded, live, "the facts fold to the live state");
        records
    }
}

/// The records of a closed journal and the state that they make. This build decides every one of them as it was decided.
pub(crate) fn replayed(dir: &Path) -> (Vec<Record>, device::vm::Vm) {
    let recovered = journal::read(dir).expect("a journal");
    let start = replay::start_of(&Genesis::of(&recovered).expect("a genesis"), recovered.base.as_ref());
    let records = recovered.records.iter().map(|stored| Record::from_stored(stored).expect("a record"));
    let records: Vec<_> = records.collect();
    let replay = replay::replay(start.expect("a VM"), &records, &mut |_| ()).expect("a VM");
    if let Some(finding) = replay.finding() {
        panic!("{finding}");
    }
    let folded = replay.fold.vm().clone();
    (records, folded)
}

/// A closed journal.
pub(crate) fn read(dir: &Path) -> (Genesis, Vec<Record>) {
    let recovered = journal::read(dir).expect("a journal");
    let genesis = Genesis::of(&recovered).expect("a genesis");
    let records = recovered.records.iter().map(|stored| Record::from_stored(stored).expect("a record"));
    (genesis, records.collect())
}

/// The payload of 4802h and 4803h.
pub(crate) fn update(ranges: &[(u64, u64)], flags: u8) -> Vec<u8> {
    let mut payload = (ranges.len() as u32).to_le_bytes().to_vec();
    payload.extend([flags, 0, 0, 0]);
    for (start, len) in ranges {
        payload.extend(start.to_le_bytes());
        payload.extend(len.to_le_bytes());
        payload.extend([0; 8]);
    }
    payload
}

/// Sends a command and gives its payload, or the words of its refusal.
pub(crate) fn command(
    bus: &mut GuestBus,
    mailbox: &Mailbox,
    opcode: wire::Opcode,
    payload: &[u8],
) -> Result<Vec<u8>, String> {
    mailbox.execute(bus, opcode, payload).map_err(|error| error.to_string())
}
