//! What the machine takes by itself, in milliseconds; medians.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Instant;

use driver::HpaRange;
use memory::{FileRun, HostMemory, HostMemorySpec, MissingFile, SlotAccess, SlotRequest, Slots, Surroundings};
use vm::{Exits, GuestPlatform, GuestWord, Job, Machine, MachineRequest, Observer, SweepAccess, VcpuDeath};
use wire::Hpa;

use crate::machine::{MIB, PAGE_BYTES, wait_for_exits};
use crate::report::{median, median_us};
use crate::scratch;

const RAM_LEN_BYTES: u64 = 256 * MIB;
const REGISTERS: HpaRange = HpaRange { base: Hpa(0xc000_0000), size_bytes: 4 << 20 };
const WINDOW: HpaRange = HpaRange { base: Hpa(0x1_0000_0000), size_bytes: 16 << 30 };
const RUNS: usize = 30;

fn median_ms(runs: usize, work: impl FnMut()) -> f64 {
    median_us(runs, work) / 1e3
}

/// A machine that does nothing but come back.
struct Bare {
    // First, so that no processor runs when the rest goes.
    machine: Machine,
    slots: Slots,
}

struct Nobody;

impl Exits for Nobody {
    fn mmio_read(&self, _: Hpa, to: &mut [u8]) {
        to.fill(0);
    }
    fn mmio_write(&self, _: Hpa, _: &[u8]) {}
    fn port_read(&self, _: u16, to: &mut [u8]) {
        to.fill(0);
    }
    fn port_write(&self, _: u16, _: &[u8]) {}
}

impl Observer for Nobody {
    fn guest_said(&self, _: GuestWord) {}
    fn vcpu_died(&self, death: VcpuDeath) {
        panic!("{death}");
    }
}

impl Bare {
    fn new(ram: &Arc<HostMemory>) -> Self {
        let vm = Arc::new(vm::Vm::create().expect("KVM"));
        let slots = Slots::new(Arc::clone(&vm) as _);
        fill(&slots, Hpa(0), ram, RAM_LEN_BYTES);
        let request = MachineRequest {
            ram: Arc::clone(ram),
            low_ram_len_bytes: RAM_LEN_BYTES,
            reach: vec![HpaRange { base: Hpa(0), size_bytes: RAM_LEN_BYTES }, REGISTERS, WINDOW],
            vcpus: 1,
            platform: GuestPlatform { root_buses: Vec::new(), mmio: REGISTERS, window: WINDOW, ecam_base: None },
            driver: None,
            exits: Arc::new(Nobody),
            observer: Arc::new(Nobody),
        };
        let machine = Machine::new(vm, request).expect("a machine");
        machine.boot(0).expect("a boot");
        Self { machine, slots }
    }

    fn exit_for_ever(&self) {
        let (hpa, access) = (REGISTERS.base, SweepAccess::Read);
        let sweep = Job::Sweep { hpa, len_bytes: 8, stride_bytes: 8, rounds: u64::MAX >> 8, access };
        self.machine.start_job(0, sweep).expect("a job");
    }
}

fn fill(slots: &Slots, hpa: Hpa, memory: &Arc<HostMemory>, len_bytes: u64) {
    let request =
        SlotRequest { hpa, len_bytes, memory: Arc::clone(memory), offset_bytes: 0, access: SlotAccess::ReadWrite };
    slots.fill(request).expect("a slot");
}

fn memory(len_bytes: u64) -> Arc<HostMemory> {
    Arc::new(HostMemory::anonymous(len_bytes).expect("memory"))
}

/// An empty VM with one processor: made, booted, until it has come back once. Its memory is there.
pub(crate) fn empty_vm() -> f64 {
    let samples = (0..RUNS).map(|_| {
        let ram = memory(RAM_LEN_BYTES);
        let begun = Instant::now();
        let bare = Bare::new(&ram);
        bare.exit_for_ever();
        bare.machine.run();
        wait_for_exits(&bare.machine, 1);
        begun.elapsed().as_secs_f64() * 1e3
    });
    median(samples.collect())
}

/// A processor that comes back all the time stands still, and is saved, and runs again.
pub(crate) fn pause() -> f64 {
    let bare = Bare::new(&memory(RAM_LEN_BYTES));
    bare.exit_for_ever();
    bare.machine.run();
    wait_for_exits(&bare.machine, 1);
    median_ms(10 * RUNS, || {
        bare.machine.pause();
        bare.machine.save().expect("a state");
        bare.machine.run();
    })
}

/// Slots of these lengths are filled in a VM that has none.
pub(crate) fn slots(lens_bytes: &[u64]) -> f64 {
    let (ram, longest) = (memory(RAM_LEN_BYTES), lens_bytes.iter().copied().max().unwrap_or(PAGE_BYTES));
    let shown = memory(longest);
    let samples = (0..5).map(|_| {
        let bare = Bare::new(&ram);
        median_ms(1, || {
            let mut hpa = WINDOW.base;
            for len_bytes in lens_bytes {
                fill(&bare.slots, hpa, &shown, *len_bytes);
                hpa = Hpa(hpa.0 + len_bytes + PAGE_BYTES);
            }
        })
    });
    median(samples.collect())
}

/// The logs of slots of these lengths are taken, of which nothing was written.
pub(crate) fn logs(lens_bytes: &[u64]) -> f64 {
    let bare = Bare::new(&memory(RAM_LEN_BYTES));
    let shown = memory(lens_bytes.iter().copied().max().unwrap_or(PAGE_BYTES));
    let mut hpa = WINDOW.base;
    for len_bytes in lens_bytes {
        fill(&bare.slots, hpa, &shown, *len_bytes);
        hpa = Hpa(hpa.0 + len_bytes + PAGE_BYTES);
    }
    bare.slots.track().expect("logs");
    median_ms(RUNS, || bare.slots.collect_dirty().expect("logs"))
}

/// So many pages are written into a file, each at its place.
pub(crate) fn write_pages(pages: u64) -> f64 {
    let dir = scratch();
    let file = File::create(dir.path().join("floor")).expect("a file");
    let page = [7; PAGE_BYTES as usize];
    median_ms(RUNS, || {
        (0..pages).for_each(|n| file.write_all_at(&page, n * 64 * PAGE_BYTES).expect("written"));
    })
}

/// A file of so many bytes is written and brought to the disk.
pub(crate) fn file(len_bytes: u64) -> f64 {
    let dir = scratch();
    let bytes = vec![7; len_bytes as usize];
    let mut number = 0;
    median_ms(RUNS, || {
        number += 1;
        let mut file = File::create(dir.path().join(format!("floor{number}"))).expect("a file");
        file.write_all(&bytes).expect("written");
        file.sync_all().expect("synced");
    })
}

/// A file of so many bytes, of which none is data, is mapped, and one of its pages touched.
pub(crate) fn map(len_bytes: u64) -> f64 {
    let dir = scratch();
    let file = File::create_new(dir.path().join("floor")).expect("a file");
    file.set_len(len_bytes).expect("extended");
    let path = dir.path().join("floor");
    let surroundings = Surroundings { backend_dir: None, missing: MissingFile::Refuse, progress: &|_, _| () };
    median_ms(RUNS, || {
        let file = Arc::new(File::open(&path).expect("a file"));
        let run = FileRun { offset_bytes: 0, len_bytes, file, file_offset_bytes: 0 };
        let memory = HostMemory::over(&HostMemorySpec::anonymous(len_bytes), surroundings, &[run]).expect("mapped");
        memory.read(len_bytes / 2, &mut [0; 8]).expect("inside");
    })
}
