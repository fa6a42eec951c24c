//! Add -> accept -> first access, in one process and durable, beside its floors of the same run.

use std::fs::File;
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use actors::{Accel, GuestBus, GuestProgram, JournalPlace, StartOptions, Vm, VmRequest};
use criterion::{Criterion, criterion_group, criterion_main};
use device::backends::{BackendKind, BackendSpec, Population, Reservation, Sharing, Source};
use device::config::{DeviceIndex, DeviceRequest, VmConfig};
use device::extents::{AddRequest, RegionRange, ReleaseRequest, SelectionPolicy};
use driver::{Bus, Host, Policy};
use journal::Durability;
use platform::AddressMap;
use tokio::runtime::Runtime;
use wire::{Dpa, Tag};

const MIB: u64 = 1 << 20;
const DEVICE: DeviceIndex = DeviceIndex(0);

struct Bench {
    runtime: Runtime,
    vm: Vm,
    bus: GuestBus,
    /// Held so that the journal lives as long as the VM.
    _dir: tempfile::TempDir,
}

fn vm_request() -> VmRequest {
    let device = DeviceRequest {
        id: "cxl-vmem0".into(),
        dc_regions_total_size_bytes: Some(4096 * MIB),
        ..DeviceRequest::default()
    };
    let window_base = AddressMap::new(1 << 30).fixed_window_base().expect("a base");
    let (windows_bytes, root_ports) = (vec![8 << 30], vec!["rp0".into()]);
    let config = VmConfig { memory_bytes: 1 << 30, window_base, windows_bytes, root_ports };
    VmRequest { config, devices: vec![device] }
}

impl Bench {
    fn start(guest: GuestProgram) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("tokio");
        // Beside the target directory, so that it is the disk that is measured and not memory.
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        let options = StartOptions {
            vm: Some(vm_request()),
            default_vm: vm_request(),
            journal: JournalPlace::Directory(dir.path().join("journal")),
            durability: Durability::Disk,
            journal_limit_bytes: None,
            journal_keep_bytes: None,
            objects: Vec::new(),
            guest,
            accel: Accel::Soft,
            build: "bench".into(),
            listener: Arc::new(|_, _| ()),
            snapshots: None,
            restore: None,
            keeper: None,
            backend_dir: None,
            progress: Arc::new(|_, _, _| ()),
        };
        let (vm, _) = runtime.block_on(actors::start(options)).expect("a VM");
        let bus = vm.bus();
        Self { runtime, vm, bus, _dir: dir }
    }

    fn object_add(&self, n: u64, size_bytes: u64) {
        let spec = BackendSpec {
            kind: BackendKind::Ram,
            size_bytes,
            sharing: Sharing::Shared,
            population: Population::OnDemand,
            reservation: Reservation::Reserved,
            tag: tag(n),
            tag_text: tag(n).to_string(),
        };
        self.runtime.block_on(self.vm.object_add(&format!("tm{n}"), spec, Source::Request)).expect("a backend");
    }

    fn end(self) {
        self.runtime.block_on(self.vm.shutdown());
    }
}

fn tag(n: u64) -> Tag {
    let mut bytes = [0x40; 16];
    bytes[8..].copy_from_slice(&n.to_be_bytes());
    Tag::from_bytes(bytes)
}

fn add(n: u64, offset: u64, len_bytes: u64) -> AddRequest {
    let extents = vec![RegionRange { offset, len_bytes }];
    AddRequest { host_id: 0, policy: SelectionPolicy::Prescriptive, region: 0, tag: tag(n), extents }
}

fn release(n: u64) -> ReleaseRequest {
    ReleaseRequest::by_tag(0, tag(n))
}

/// Floors of this machine: one fdatasync of an appended record, one echo over a socket between two threads.
fn floors(criterion: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
    let mut file = File::create(dir.path().join("floor")).expect("a file");
    criterion.bench_function("floor: one fdatasync", |bencher| {
        bencher.iter(|| {
            file.write_all(&[7; 200]).expect("written");
            file.sync_data().expect("synced");
        });
    });
    let (mut near, mut far) = UnixStream::pair().expect("a pair");
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while far.read_exact(&mut byte).is_ok() {
            far.write_all(&byte).expect("echoed");
        }
    });
    criterion.bench_function("floor: one socket echo", |bencher| {
        bencher.iter(|| {
            near.write_all(&[1]).expect("written");
            near.read_exact(&mut [0]).expect("read");
        });
    });
    drop(near);
    echo.join().expect("an end");
}

/// The operator offers, the host's driver reads, accepts and writes its first bytes, all durable.
fn add_to_first_access(criterion: &mut Criterion) {
    let mut bench = Bench::start(GuestProgram::None);
    let map = bench.bus.platform_map();
    let mut host = Host::probe(&mut bench.bus, &map, Policy::Accept).expect("a device");
    bench.object_add(0, 256 * MIB);
    criterion.bench_function("add -> accept -> first access, 256 MiB, durable", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut taken = Duration::ZERO;
            for _ in 0..iterations {
                let start = Instant::now();
                bench.runtime.block_on(bench.vm.add(DEVICE, add(0, 0, 256 * MIB))).expect("an offer");
                host.on_interrupt(&mut bench.bus).expect("an answer");
                let hpa = host.hpa_of(Dpa(0)).expect("shown");
                bench.bus.write(hpa, &[1; 8]);
                let mut seen = [0; 8];
                bench.bus.read(hpa, &mut seen);
                taken += start.elapsed();
                assert_eq!(black_box(seen), [1; 8]);
                bench.runtime.block_on(bench.vm.release(DEVICE, release(0))).expect("asked");
                host.on_interrupt(&mut bench.bus).expect("an answer");
            }
            taken
        });
    });
    bench.end();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(3));
    targets = floors, add_to_first_access
}
criterion_main!(benches);
