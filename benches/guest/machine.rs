//! A VM on KVM with one device, and its operator.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use actors::{Accel, GuestProgram, JournalPlace, MachineHandle, StartOptions, Vm, VmRequest};
use device::backends::{BackendKind, BackendSpec, Population, Reservation, Sharing, Source};
use device::config::{DeviceIndex, DeviceRequest, VmConfig};
use device::extents::{AddRequest, NoticeKind, RegionRange, ReleaseRequest, SelectionPolicy};
use journal::Durability;
use platform::AddressMap;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vm::{Job, JobAnswer};
use wire::{Hpa, Tag};

use crate::asked::scratch;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
const DEVICE: DeviceIndex = DeviceIndex(0);
const PATIENCE: Duration = Duration::from_secs(60);

/// What a bench wants of its VM.
pub(crate) struct Wanted {
    pub(crate) vcpus: u32,
    pub(crate) guest: GuestProgram,
    /// Bytes of a backend behind all of the device; `None`: memory comes by tag, 8 GiB at most.
    pub(crate) plain_bytes: Option<u64>,
}

pub(crate) struct Bench {
    pub(crate) runtime: Runtime,
    pub(crate) vm: Vm,
    notices: Receiver<NoticeKind>,
    /// Held so that the journal lives as long as the VM.
    _dir: TempDir,
}

impl Bench {
    /// Every answer is on disk before it leaves.
    pub(crate) fn start(wanted: Wanted) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
        let dir = scratch();
        let (told, notices) = channel();
        let request = vm_request(&wanted);
        let options = StartOptions {
            vm: Some(request.clone()),
            default_vm: request,
            journal: JournalPlace::Directory(dir.path().join("journal")),
            durability: Durability::Disk,
            journal_limit_bytes: None,
            journal_keep_bytes: None,
            objects: objects(&wanted),
            guest: wanted.guest,
            accel: Accel::Kvm { vcpus: wanted.vcpus },
            build: "bench".into(),
            listener: Arc::new(move |_, notice| told.send(notice.kind).unwrap_or_default()),
            snapshots: None,
            restore: None,
            keeper: None,
            backend_dir: None,
            progress: Arc::new(|_, _, _| ()),
        };
        let (vm, _) = runtime.block_on(actors::start(options)).expect("a VM");
        Self { runtime, vm, notices, _dir: dir }
    }

    pub(crate) fn machine(&self) -> MachineHandle {
        self.vm.machine().expect("a guest on KVM")
    }

    pub(crate) fn done(&self, vcpu: u32, job: Job) -> JobAnswer {
        let answer = self.machine().job(vcpu, job, PATIENCE);
        answer
            .unwrap_or_else(|error| panic!("{error}: {:?}", self.vm.fatal().borrow().as_ref().map(ToString::to_string)))
    }

    pub(crate) fn window(&self) -> Hpa {
        self.vm.window().base()
    }

    pub(crate) fn object_add(&self, id: &str, tag: Tag, size_bytes: u64) {
        let spec = BackendSpec { tag, tag_text: tag.to_string(), ..spec(size_bytes) };
        self.runtime.block_on(self.vm.object_add(id, spec, Source::Request)).expect("a backend");
    }

    pub(crate) fn add(&self, tag: Tag, extents: Vec<RegionRange>) {
        let policy = SelectionPolicy::Prescriptive;
        let request = AddRequest { host_id: 0, policy, region: 0, tag, extents };
        self.runtime.block_on(self.vm.add(DEVICE, request)).expect("an offer");
    }

    pub(crate) fn release(&self, tag: Tag) {
        let request = ReleaseRequest::by_tag(0, tag);
        self.runtime.block_on(self.vm.release(DEVICE, request)).expect("asked");
    }

    /// Waits until capacity has changed hands like this.
    pub(crate) fn wait_for(&self, is_it: impl Fn(&NoticeKind) -> bool) {
        while !is_it(&self.notices.recv_timeout(PATIENCE).expect("a notice")) {}
    }
}

pub(crate) fn tag(n: u64) -> Tag {
    Tag::parse(&format!("00000000-0000-4000-8000-{n:012x}")).expect("a tag")
}

fn spec(size_bytes: u64) -> BackendSpec {
    BackendSpec {
        kind: BackendKind::Ram,
        size_bytes,
        sharing: Sharing::Private,
        population: Population::OnDemand,
        reservation: Reservation::Unreserved,
        tag: Tag::NONE,
        tag_text: String::new(),
    }
}

fn objects(wanted: &Wanted) -> Vec<actors::Object> {
    let object = |size_bytes| actors::Object { id: "dc".into(), spec: spec(size_bytes) };
    wanted.plain_bytes.map(object).into_iter().collect()
}

fn vm_request(wanted: &Wanted) -> VmRequest {
    let device = DeviceRequest {
        id: "cxl-vmem0".into(),
        dc_regions_total_size_bytes: wanted.plain_bytes.is_none().then_some(8 * GIB),
        volatile_dc_memdev: wanted.plain_bytes.map(|_| "dc".into()),
        mailbox_payload_bytes: Some(1 << 20),
        ..DeviceRequest::default()
    };
    let window_base = AddressMap::new(GIB).fixed_window_base().expect("a base");
    let (windows_bytes, root_ports) = (vec![wanted.plain_bytes.unwrap_or(8 * GIB)], vec!["rp0".into()]);
    let config = VmConfig { memory_bytes: GIB, window_base, windows_bytes, root_ports };
    VmRequest { config, devices: vec![device] }
}
