//! A VM on KVM whose guest has accepted many extents, new, restored or taken over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use actors::{
    Accel, Guest, GuestProgram, JournalPlace, Loading, MachineHandle, RestoreOptions, SaveForm, SaveRequest, Saved,
    StartOptions, Vm, VmRequest,
};
use device::backends::{BackendKind, BackendSpec, Discard, FileAccess, Population, Reservation, Seal, Sharing, Source};
use device::config::{DeviceIndex, DeviceRequest, VmConfig};
use device::extents::{AddRequest, NoticeKind, RegionRange, SelectionPolicy};
use driver::Policy;
use journal::Durability;
use memory::{BackendDir, HostMemory};
use platform::AddressMap;
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;
use vm::{Job, Machine, SweepAccess};
use wire::{Hpa, Tag};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const EXTENTS: u64 = 10_000;
pub(crate) const PAGE_BYTES: u64 = 4096;
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// As many as one add can have, with room: each is a record of the DC event log.
const TAGS: u64 = 4;
/// Where a file is that is memory.
const PAGES: &str = "/dev/shm";
/// After so many more the guest is about nothing else.
const SOME_EXITS: u64 = 100;
/// The backend of the page in which a guest is seen from outside.
const SEEN: &str = "seen";
const DEVICE: DeviceIndex = DeviceIndex(0);
/// Regions and windows are of whole such pieces.
const PIECE_BYTES: u64 = 256 * MIB;

/// How the extents of a tag lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// One behind the other: they share a slot.
    Together,
    /// A block of nothing behind each: each has its own slot.
    Apart,
}

/// What the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Bytes of all backends together.
    pub(crate) bytes: u64,
    pub(crate) lie: Lie,
}

impl Shape {
    pub(crate) const SMALL: Self = Self { bytes: 128 * MIB, lie: Lie::Together };

    /// How it is called.
    pub(crate) fn name(self) -> String {
        let slots = match self.lie {
            Lie::Together => "",
            Lie::Apart => ", a slot each",
        };
        format!("{EXTENTS} extents of {} MiB{slots}", self.bytes / MIB)
    }

    /// Blocks of a page from the begin of one tag's extents to that of the next.
    fn stride_blocks(self) -> u64 {
        let gaps = if self.lie == Lie::Apart { EXTENTS / TAGS } else { 0 };
        self.bytes / TAGS / PAGE_BYTES + gaps
    }

    /// Behind the extents of the tags: where the page is in which a guest is seen. Nothing is behind it.
    fn seen_offset(self) -> u64 {
        TAGS * self.stride_blocks() * PAGE_BYTES
    }

    /// The region, which the window shows all of.
    fn region_bytes(self) -> u64 {
        (self.seen_offset() + PAGE_BYTES + 1).next_multiple_of(PIECE_BYTES)
    }

    fn extents(self, tag: u64) -> Vec<RegionRange> {
        let (blocks, count) = (self.bytes / TAGS / PAGE_BYTES, EXTENTS / TAGS);
        let gap = u64::from(self.lie == Lie::Apart);
        let range = |n: u64| {
            let (start, end) = (n * blocks / count, (n + 1) * blocks / count);
            let offset = (tag * self.stride_blocks() + start + n * gap) * PAGE_BYTES;
            RegionRange { offset, len_bytes: (end - start) * PAGE_BYTES }
        };
        (0..count).map(range).collect()
    }
}

/// A VM that runs.
pub(crate) struct Running {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) vm: Vm,
}

pub(crate) fn runtime() -> Arc<Runtime> {
    Arc::new(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio"))
}

/// Where a VM keeps what it keeps.
pub(crate) struct Places {
    pub(crate) journal: JournalPlace,
    pub(crate) snapshots: PathBuf,
}

impl Places {
    /// No journal.
    pub(crate) fn volatile(dir: &Path) -> Self {
        Self { journal: JournalPlace::None, snapshots: dir.join("snapshots") }
    }

    /// A journal, and every record on the disk.
    pub(crate) fn kept(dir: &Path, journal: &str) -> Self {
        Self { journal: JournalPlace::Directory(dir.join(journal)), snapshots: dir.join("snapshots") }
    }
}

pub(crate) fn options(shape: Shape, places: Places, restore: Option<RestoreOptions>) -> StartOptions {
    let request = vm_request(shape);
    StartOptions {
        vm: Some(request.clone()),
        default_vm: request,
        journal: places.journal,
        durability: Durability::Disk,
        journal_limit_bytes: None,
        journal_keep_bytes: None,
        objects: Vec::new(),
        guest: GuestProgram::from(Policy::Accept),
        accel: Accel::Kvm { vcpus: 1 },
        build: "bench".into(),
        listener: Arc::new(|_, _| ()),
        snapshots: Some(places.snapshots),
        restore,
        keeper: None,
        backend_dir: Some(BackendDir::open(Path::new(PAGES)).expect("memory as files")),
        progress: Arc::new(|_, _, _| ()),
    }
}

/// A restore that reads bytes when they are touched.
pub(crate) fn lazily(snapshot: &Path) -> Option<RestoreOptions> {
    Some(RestoreOptions { snapshot: snapshot.to_owned(), loading: Loading::Lazy })
}

impl Running {
    /// A VM whose guest has accepted all extents, and all of whose backends hold bytes.
    pub(crate) fn filled(shape: Shape, places: Places) -> Self {
        Self::begun(shape, places).0
    }

    /// The same, and the guest counts in a page that every process can be given.
    pub(crate) fn counting(shape: Shape, places: Places) -> Self {
        let (running, hpa) = Self::seen(shape, places, BackendKind::Memfd { seal: Seal::Unsealed, huge_pages: None });
        running.machine().start_job(0, Job::Count { hpa, first: 1 }).expect("a job");
        running
    }

    /// The same, and the guest does nothing but store into a page, a file, and come back from the next one, of which there is
    /// none.
    pub(crate) fn coming_back(shape: Shape, places: Places, page: &Path) -> Self {
        let path = page.display().to_string();
        let (access, discard) = (FileAccess::ReadWrite, Discard::Keep);
        let kind = BackendKind::File { path, access, discard, align_bytes: None };
        let (running, hpa) = Self::seen(shape, places, kind);
        let (stride_bytes, rounds, access) = (PAGE_BYTES, u64::MAX >> 8, SweepAccess::Write);
        let sweep = Job::Sweep { hpa, len_bytes: 2 * PAGE_BYTES, stride_bytes, rounds, access };
        let machine = running.machine();
        machine.start_job(0, sweep).expect("a job");
        wait_for_exits(&machine, machine.exit_counts()[0].accesses() + SOME_EXITS);
        running
    }

    /// A VM with one more page, and where its guest has that.
    fn seen(shape: Shape, places: Places, kind: BackendKind) -> (Self, Hpa) {
        let (running, notices) = Self::begun(shape, places);
        running.object_add(SEEN, TAGS, PAGE_BYTES, kind);
        let offset = shape.seen_offset();
        running.accept(TAGS, vec![RegionRange { offset, len_bytes: PAGE_BYTES }], &notices);
        let hpa = Hpa(running.window().0 + offset);
        (running, hpa)
    }

    fn begun(shape: Shape, places: Places) -> (Self, Receiver<NoticeKind>) {
        let runtime = runtime();
        let (told, notices) = channel();
        let options = StartOptions {
            listener: Arc::new(move |_, notice| told.send(notice.kind).unwrap_or_default()),
            ..options(shape, places, None)
        };
        let (vm, _) = runtime.block_on(actors::start(options)).expect("a VM");
        let running = Self { runtime, vm };
        running.wait_for_guest();
        for n in 0..TAGS {
            let id = format!("tm{n}");
            running.object_add(&id, n, shape.bytes / TAGS, BackendKind::Ram);
            fill(&running.memory_of(&id));
            running.accept(n, shape.extents(n), &notices);
        }
        (running, notices)
    }

    fn wait_for_guest(&self) {
        while !matches!(self.runtime.block_on(self.vm.guest()), Ok(Some(Guest::Serving { .. }))) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn object_add(&self, id: &str, n: u64, size_bytes: u64, kind: BackendKind) {
        let spec = BackendSpec {
            sharing: if kind == BackendKind::Ram { Sharing::Private } else { Sharing::Shared },
            kind,
            size_bytes,
            population: Population::OnDemand,
            reservation: Reservation::Unreserved,
            tag: tag(n),
            tag_text: tag(n).to_string(),
        };
        self.runtime.block_on(self.vm.object_add(id, spec, Source::Request)).expect("a backend");
    }

    fn accept(&self, n: u64, extents: Vec<RegionRange>, notices: &Receiver<NoticeKind>) {
        let policy = SelectionPolicy::Prescriptive;
        let request = AddRequest { host_id: 0, policy, region: 0, tag: tag(n), extents };
        self.runtime.block_on(self.vm.add(DEVICE, request)).expect("an offer");
        while notices.recv_timeout(PATIENCE).expect("a notice") != NoticeKind::Accepted {}
        // It clears the events behind its answer; the next ones need their room.
        let is_clear = || self.runtime.block_on(self.vm.extents(DEVICE, |state| state.log().is_empty()));
        while !is_clear().expect("an answer") {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn memory_of(&self, id: &str) -> Arc<HostMemory> {
        self.runtime.block_on(self.vm.memory_of(id)).expect("a VM").expect("a backend")
    }

    /// The page that the guest counts in, wherever it runs.
    pub(crate) fn counted(&self) -> Arc<HostMemory> {
        self.memory_of(SEEN)
    }

    pub(crate) fn machine(&self) -> MachineHandle {
        self.vm.machine().expect("a guest on KVM")
    }

    /// Where the guest sees the first extent.
    pub(crate) fn window(&self) -> Hpa {
        self.vm.window().base()
    }

    pub(crate) fn save(&self, name: &str, form: SaveForm) -> Saved {
        self.save_but(name, form, vec![])
    }

    /// Saves it but for the page in which the guest is seen, which stays where it is.
    pub(crate) fn save_but_seen(&self, name: &str, form: SaveForm) -> Saved {
        self.save_but(name, form, vec![SEEN.into()])
    }

    fn save_but(&self, name: &str, form: SaveForm, by_reference: Vec<String>) -> Saved {
        let request = SaveRequest { name: name.parse().expect("a name"), form, by_reference };
        self.runtime.block_on(self.vm.save_snapshot(request, Arc::new(|_, _| ()))).expect("saved")
    }

    pub(crate) fn end(self) {
        self.runtime.block_on(self.vm.shutdown());
    }
}

/// A page that others than the guest see, too, though they have not made its VM.
pub(crate) fn page() -> NamedTempFile {
    let page = NamedTempFile::new_in(PAGES).expect("a file");
    page.as_file().set_len(PAGE_BYTES).expect("a page");
    page
}

/// Leaves no page empty.
fn fill(memory: &HostMemory) {
    let bytes: Vec<u8> = (0..MIB).map(|at| (at % 251) as u8 | 1).collect();
    for at in (0..memory.len_bytes()).step_by(bytes.len()) {
        let len = MIB.min(memory.len_bytes() - at) as usize;
        memory.write(at, &bytes[..len]).expect("inside");
    }
}

/// Returns when the guest has come back so often since its machine was made.
pub(crate) fn wait_for_exits(machine: &Machine, exits: u64) {
    let begun = Instant::now();
    while machine.exit_counts()[0].accesses() < exits {
        assert!(begun.elapsed() < PATIENCE, "the guest does not come back");
        std::thread::yield_now();
    }
}

fn tag(n: u64) -> Tag {
    Tag::parse(&format!("00000000-0000-4000-8000-{n:012x}")).expect("a tag")
}

fn vm_request(shape: Shape) -> VmRequest {
    let device = DeviceRequest {
        id: "cxl-vmem0".into(),
        dc_regions_total_size_bytes: Some(shape.region_bytes()),
        dc_block_size_bytes: Some(PAGE_BYTES),
        ..DeviceRequest::default()
    };
    let window_base = AddressMap::new(GIB).fixed_window_base().expect("a base");
    let (windows_bytes, root_ports) = (vec![shape.region_bytes()], vec!["rp0".into()]);
    let config = VmConfig { memory_bytes: GIB, window_base, windows_bytes, root_ports };
    VmRequest { config, devices: vec![device] }
}
