//! From an operator's add to the guest's first store, every step on disk before the next.

use actors::GuestProgram;
use device::extents::{NoticeKind, RegionRange};
use driver::Policy;
use vm::{AccessWidth, Job, JobAnswer};

use crate::bare::Bare;
use crate::machine::{Bench, Wanted, tag};
use crate::report::{Row, median, timed_us};

const RUNS: u64 = 60;
/// How much more than its floors it may take.
const OVER_FLOORS: f64 = 3.0;
/// Exits of the guest: to read the event, and to accept.
const EXITS: f64 = 4.0;
/// The offer and the answer wait for the disk; to read the event does not.
const SYNCS: f64 = 2.0;

pub(crate) fn measure(bare: &Bare) -> Vec<Row> {
    bare.slots.iter().map(|(len_bytes, _)| of_len(*len_bytes, bare)).collect()
}

fn of_len(len_bytes: u64, bare: &Bare) -> Row {
    let guest = GuestProgram::from(Policy::Accept);
    let bench = Bench::start(Wanted { vcpus: 2, guest, plain_bytes: None });
    bench.object_add("tm0", tag(0), len_bytes);
    while !matches!(bench.runtime.block_on(bench.vm.guest()), Ok(Some(actors::Guest::Serving { .. }))) {
        std::thread::yield_now();
    }
    let samples = (0..RUNS).map(|n| {
        let took = timed_us(|| {
            bench.add(tag(0), vec![RegionRange { offset: 0, len_bytes }]);
            bench.wait_for(|kind| *kind == NoticeKind::Accepted);
            let (hpa, width) = (bench.window(), AccessWidth::Qword);
            assert_eq!(bench.done(1, Job::Write { hpa, width, value: n }), JobAnswer::Done);
        });
        let (hpa, width) = (bench.window(), AccessWidth::Qword);
        assert_eq!(bench.done(1, Job::Read { hpa, width }), JobAnswer::Value(n));
        bench.release(tag(0));
        bench.wait_for(|kind| matches!(kind, NoticeKind::Released(_)));
        took
    });
    let floor = SYNCS * bare.fdatasync + EXITS * bare.exit + bare.job + bare.slot(len_bytes);
    Row::new(format!("4 add -> accept -> first store of {} MiB", len_bytes >> 20), median(samples.collect()), "us")
        .floor(floor, "2 fdatasync + 4 exits + 1 job + 1 slot")
        .target(OVER_FLOORS * floor)
}
