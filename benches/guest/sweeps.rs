//! Loads and stores of a guest: over an extent, over its ordinary RAM, and over an extent that has no slot.

use actors::GuestProgram;
use device::extents::RegionRange;
use driver::{Host, Policy};
use vm::{Job, JobAnswer, SweepAccess};
use wire::Hpa;

use crate::bare::us;
use crate::machine::{Bench, MIB, Wanted, tag};
use crate::report::{Row, median};

const LEN_BYTES: u64 = 256 * MIB;
const LINE_BYTES: u64 = 64;
const TRAPPED_LEN_BYTES: u64 = 64 << 10;
/// 95 % of the speed of RAM, as time in per cent.
const AGAINST_RAM_MAX: f64 = 100.0 / 0.95;
/// How much cheaper an access is that is no exit.
const CHEAPER_MIN: f64 = 500.0;

pub(crate) fn measure() -> Vec<Row> {
    let bench = Bench::start(Wanted { vcpus: 1, guest: GuestProgram::None, plain_bytes: None });
    let mut bus = bench.vm.bus();
    let mut host = Host::probe(&mut bus, &bench.vm.bus().platform_map(), Policy::Accept).expect("a device");
    bench.object_add("tm0", tag(0), LEN_BYTES);
    bench.add(tag(0), vec![RegionRange { offset: 0, len_bytes: LEN_BYTES }]);
    host.on_interrupt(&mut bus).expect("accepted");
    let (extent, ram) = (bench.window(), Hpa(bench.machine().free_ram().base.0.next_multiple_of(2 * MIB)));
    assert!(bench.machine().free_ram().size_bytes > LEN_BYTES + 2 * MIB);
    let mut rows = Vec::new();
    // Stores first: pages that were only loaded are all the same page of zeros.
    for (name, access) in [("store", SweepAccess::Write), ("load", SweepAccess::Read)] {
        let (of_extent, of_ram) = alternately(&bench, [extent, ram], access);
        rows.push(
            Row::new(format!("5 {name} to an extent, a line each"), of_extent, "ns")
                .floor(of_ram, "the same of ordinary RAM"),
        );
        let against_ram = 100.0 * of_extent / of_ram;
        rows.push(
            Row::new(format!("5 {name} to an extent, of its time in RAM"), against_ram, "%").target(AGAINST_RAM_MAX),
        );
    }
    let mapped = sweep(&bench, extent, TRAPPED_LEN_BYTES, 100, SweepAccess::Read);
    bench.vm.window().detach().expect("no slots");
    let trapped = sweep(&bench, extent, TRAPPED_LEN_BYTES, 1, SweepAccess::Read);
    rows.push(Row::new("5 load of an extent without a slot: an exit", trapped, "ns"));
    rows.push(Row::new("5 load of an extent with one", mapped, "ns").target(trapped / CHEAPER_MIN));
    rows
}

/// Medians of rounds over one and the other, in turn, so that neither has the quieter machine.
fn alternately(bench: &Bench, places: [Hpa; 2], access: SweepAccess) -> (f64, f64) {
    let mut samples = [Vec::new(), Vec::new()];
    for round in 0..12 {
        for (sample, hpa) in samples.iter_mut().zip(places) {
            let took = sweep(bench, hpa, LEN_BYTES, 1, access);
            // The first rounds touch the pages.
            if round > 1 {
                sample.push(took);
            }
        }
    }
    let [first, second] = samples.map(median);
    (first, second)
}

/// Nanoseconds an access, by the guest's clock.
fn sweep(bench: &Bench, hpa: Hpa, len_bytes: u64, rounds: u64, access: SweepAccess) -> f64 {
    let job = Job::Sweep { hpa, len_bytes, stride_bytes: LINE_BYTES, rounds, access };
    match bench.done(0, job) {
        JobAnswer::Ticks(ticks) => us(&bench.machine(), ticks) * 1e3 * LINE_BYTES as f64 / (len_bytes * rounds) as f64,
        other => panic!("{other:?}"),
    }
}
