//! A VM in this process: QMP on one side, the host's driver or bare registers on the other.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actors::{GuestBus, GuestProgram, JournalPlace, RunState, StartOptions, Vm};
use device::config::{DeviceConfig, DeviceRequest, VmConfig};
use device::laws;
use driver::{Host, Mailbox, Policy};
use journal::Durability;
use journal::record::{Genesis, Record};
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
    pub(crate) durability: Durability,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { devices: 1, regions: 1, guest: GuestProgram::None, durability: Durability::None }
    }
}

/// The VM, its commands and its guest's bus.
pub(crate) struct InProcess {
    pub(crate) runtime: Runtime,
    pub(crate) vm: Vm,
    pub(crate) service: Arc<VmService>,
    pub(crate) bus: GuestBus,
    dir: tempfile::TempDir,
}

pub(crate) fn config(wanted: &Wanted) -> VmConfig {
    let device = |n| DeviceRequest {
        id: format!("cxl-vmem{n}"),
        serial: 1 + n,
        num_dc_regions: Some(wanted.regions),
        dc_regions_total_size_bytes: Some(4 * GIB),
        dc_block_size_bytes: None,
        mailbox_payload_bytes: None,
    };
    let devices = (0..wanted.devices).map(|n| DeviceConfig::lazy(&device(n)).expect("a device")).collect();
    let window_base = AddressMap::new(GIB).fixed_window_base().expect("a base");
    VmConfig { memory_bytes: GIB, window_base, window_bytes: 8 * GIB, devices }
}

impl InProcess {
    pub(crate) fn start(wanted: Wanted) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
        let dir = tempfile::tempdir().expect("a directory");
        let config = config(&wanted);
        let options = StartOptions {
            config: Some(config.clone()),
            default_config: config,
            journal: JournalPlace::Directory(dir.path().join("journal")),
            durability: wanted.durability,
            journal_limit_bytes: None,
            objects: Vec::new(),
            guest: wanted.guest,
            build: "test".into(),
            listener: Arc::new(|_, _| ()),
        };
        let (vm, _) = runtime.block_on(actors::start(options)).expect("a VM");
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
        self.vm.set_run_state(RunState::Paused).expect("a VM");
        let mut before = None;
        while before != Some(self.vm.journal_position()) {
            before = Some(self.vm.journal_position());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends the VM and demands of its journal: it folds to the live state, the laws hold after every record, and this
    /// build decides every record as it was decided.
    pub(crate) fn end(self) -> Vec<Record> {
        self.settle();
        let live = self.runtime.block_on(self.vm.state()).expect("a state");
        laws::check(&live).expect("laws");
        drop((self.service, self.bus));
        self.runtime.block_on(self.vm.shutdown());
        let (genesis, records) = read(&self.dir.path().join("journal"));
        let replay = replay::replay(&genesis, records.clone()).expect("a VM");
        if let Some(finding) = replay.finding {
            panic!("{finding}");
        }
        assert_eq!(*replay.fold.vm(), live, "the facts fold to the live state");
        records
    }
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
