//! What KVM and the disk take by themselves: a machine without a device.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use memory::{HostMemory, Slots};
use vm::{Job, JobAnswer, Machine, SweepAccess};
use vmm_sys_util::eventfd::EventFd;
use wire::Hpa;

use crate::alone::{Alone, RAM_LEN_BYTES, REGISTERS, WINDOW, create, fill, memory};
use crate::asked::scratch;
use crate::report::{Row, median, median_us, timed_us};

const EVENT: Hpa = Hpa(0xc010_0000);
/// Behind the window, where no guest looks.
const OTHERS: Hpa = Hpa(0x10_0000_0000);
const EXITS: u64 = 2_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Medians in microseconds.
pub(crate) struct Bare {
    /// A store that comes back as an exit which nobody cares for.
    pub(crate) exit: f64,
    /// A store that ends in the kernel, at an eventfd.
    event: f64,
    /// A job that does nothing: an interrupt to the guest, and an exit back.
    pub(crate) job: f64,
    /// One fdatasync of an appended record.
    pub(crate) fdatasync: f64,
    /// A slot of 2 MiB, 256 MiB and 4 GiB.
    pub(crate) slots: [(u64, f64); 3],
}

/// A machine that runs.
fn running(vm: &Arc<vm::Vm>) -> Alone {
    let alone = Alone::new(vm, &memory(RAM_LEN_BYTES));
    alone.machine.run();
    alone
}

impl Bare {
    pub(crate) fn measure() -> Self {
        let vm = create();
        let Alone { slots, machine } = running(&vm);
        let event = EventFd::new(0).expect("an eventfd");
        vm.register_store_event(EVENT, &event).expect("an event");
        Self {
            exit: stores(&machine, REGISTERS.base),
            event: stores(&machine, EVENT),
            job: job(&machine),
            fdatasync: fdatasync(),
            slots: [2 << 20, 256 << 20, 4 << 30].map(|len_bytes| (len_bytes, slot(&slots, len_bytes))),
        }
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        let slots = self
            .slots
            .iter()
            .map(|(len_bytes, took)| Row::new(format!("1 a slot of {} MiB is filled", len_bytes >> 20), *took, "us"));
        let rows = [
            Row::new("1 store with an exit", self.exit, "us"),
            Row::new("1 store with an ioeventfd", self.event, "us"),
            Row::new("1 job: interrupt, nothing, exit", self.job, "us").floor(self.exit, "1 exit"),
            Row::new("1 fdatasync", self.fdatasync, "us"),
        ];
        rows.into_iter().chain(slots).collect()
    }

    /// What filling a slot of this length takes.
    pub(crate) fn slot(&self, len_bytes: u64) -> f64 {
        self.slots.iter().find(|(len, _)| *len == len_bytes).map_or(0.0, |(_, took)| *took)
    }
}

/// What a slot costs beside others, by its length: filled, cleared, and cleared after the guest has been all over it.
pub(crate) fn slots_beside_others() -> Vec<Row> {
    let bare = running(&create());
    let mut rows = Vec::new();
    let small = memory(4096);
    let mut others = 0;
    for beside in [1, 100, 1_000, 8_000] {
        while others < beside {
            fill(&bare.slots, Hpa(OTHERS.0 + others * 8192), &small, 4096);
            others += 1;
        }
        for len_bytes in [2 << 20, 256 << 20, 1 << 30] {
            let memory = memory(len_bytes);
            let runs = if len_bytes > 2 << 20 { 5 } else { 50 };
            let samples: Vec<_> = (0..runs).map(|_| come_and_go(&bare, &memory)).collect();
            let of = |index: usize| median(samples.iter().map(|sample| sample[index]).collect());
            for (index, what) in ["filled", "cleared untouched", "cleared touched"].into_iter().enumerate() {
                let what = format!("6 slot of {} MiB beside {beside}: {what}", len_bytes >> 20);
                rows.push(Row::new(what, of(index), "us"));
            }
        }
    }
    rows
}

fn come_and_go(bare: &Alone, memory: &Arc<HostMemory>) -> [f64; 3] {
    let filled = timed_us(|| fill(&bare.slots, WINDOW.base, memory, memory.len_bytes()));
    let untouched = timed_us(|| bare.slots.clear(WINDOW.base).expect("cleared"));
    fill(&bare.slots, WINDOW.base, memory, memory.len_bytes());
    let (hpa, access) = (WINDOW.base, SweepAccess::Write);
    let sweep = Job::Sweep { hpa, len_bytes: memory.len_bytes(), stride_bytes: 4096, rounds: 1, access };
    bare.machine.job(0, sweep, PATIENCE).expect("touched");
    [filled, untouched, timed_us(|| bare.slots.clear(WINDOW.base).expect("cleared"))]
}

/// Stores at one address, by the guest's own clock.
fn stores(machine: &Machine, hpa: Hpa) -> f64 {
    let sweep = Job::Sweep { hpa, len_bytes: 8, stride_bytes: 8, rounds: EXITS, access: SweepAccess::Write };
    let samples = (0..5).map(|_| match machine.job(0, sweep.clone(), PATIENCE) {
        Ok(JobAnswer::Ticks(ticks)) => us(machine, ticks) / EXITS as f64,
        other => panic!("{other:?}"),
    });
    median(samples.collect())
}

fn job(machine: &Machine) -> f64 {
    let nothing = Job::Read { hpa: machine.free_ram().base, width: vm::AccessWidth::Qword };
    median_us(2_000, || {
        machine.job(0, nothing.clone(), PATIENCE).expect("an answer");
    })
}

fn slot(slots: &Slots, len_bytes: u64) -> f64 {
    let memory = memory(len_bytes);
    let samples = (0..50).map(|_| {
        let took = timed_us(|| fill(slots, WINDOW.base, &memory, len_bytes));
        slots.clear(WINDOW.base).expect("cleared");
        took
    });
    median(samples.collect())
}

fn fdatasync() -> f64 {
    let dir = scratch();
    let mut file = File::create(dir.path().join("floor")).expect("a file");
    median_us(500, || {
        file.write_all(&[7; 200]).expect("written");
        file.sync_data().expect("synced");
    })
}

/// Ticks of the guest's clock in microseconds.
pub(crate) fn us(machine: &Machine, ticks: u64) -> f64 {
    ticks as f64 * 1_000.0 / machine.tsc_khz() as f64
}
