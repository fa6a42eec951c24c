//! How long a guest stands still while it goes from one VM of this process to another.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actors::{Loading, RestoreOptions, SaveForm};
use memory::HostMemory;

use crate::asked::scratch;
use crate::floors;
use crate::machine::{Lie, MIB, Places, Running, Shape, options, runtime};
use crate::report::Row;
use crate::sample::Sample;

const TARGET_MS: f64 = 10.0;
const RUNS: usize = 60;
const FEW_RUNS: usize = 8;
/// How often is looked whether the guest counts on.
const LOOK: Duration = Duration::from_micros(20);
const LET_GO_TIMEOUT: Duration = Duration::from_secs(10);

/// Of one hand-over, in milliseconds.
struct Pause {
    /// As the giver says: until it knew that the VM is the other's.
    said: f64,
    /// As the guest sees it: the longest time in which it did not count.
    seen: f64,
}

pub(crate) fn measure() -> Vec<Row> {
    let floor = floors::empty_vm() + floors::file(MIB / 2);
    let what = "an empty VM to its first exit + 512 KiB, synced";
    let (said, seen) = of_shape(Shape::SMALL, RUNS);
    let mut rows = said.rows("4 pause of a hand-over, as the giver says", "ms", Some(TARGET_MS), (floor, what));
    rows.extend(seen.rows("4 the same, as the guest sees it", "ms", Some(TARGET_MS), (floor, what)));
    let (_, seen) = of_shape(Shape { lie: Lie::Apart, ..Shape::SMALL }, FEW_RUNS);
    rows.extend(seen.rows("4 the same, a slot each", "ms", None, (floor, what)));
    rows
}

fn of_shape(shape: Shape, runs: usize) -> (Sample, Sample) {
    let dir = scratch();
    let running = Running::counting(shape, Places::volatile(dir.path()));
    running.save("first", SaveForm::Full);
    running.end();
    handed_over(shape, dir.path());
    let (mut said, mut seen) = (Sample::default(), Sample::default());
    for _ in 0..runs {
        let pause = handed_over(shape, dir.path());
        said.push(pause.said);
        seen.push(pause.seen);
    }
    (said, seen)
}

/// A guest whose memory is this process's own goes to another VM. Both keep a journal on disk.
fn handed_over(shape: Shape, dir: &Path) -> Pause {
    let journals = scratch();
    let restore = Some(RestoreOptions { snapshot: dir.join("snapshots/first"), loading: Loading::Eager });
    let runtime = runtime();
    let giving = options(shape, Places::kept(journals.path(), "from"), restore);
    let (vm, _) = runtime.block_on(actors::start(giving)).expect("a VM");
    let giver = Running { runtime, vm };
    let counted = giver.counted();
    let taking = options(shape, Places::kept(journals.path(), "to"), None);
    let (near, far) = UnixStream::pair().expect("a pair");

    let is_over = AtomicBool::new(false);
    let (said, seen, taker) = thread::scope(|scope| {
        let watch = scope.spawn(|| longest_stand(&counted, &is_over));
        let taken = giver.runtime.spawn(actors::take_over(taking, far));
        let given = giver.runtime.spawn({
            let vm = giver.vm.clone();
            async move { vm.hand_over(near).await }
        });
        let actors::TakenOver { vm, owner, .. } = giver.runtime.block_on(taken).expect("an end").expect("taken");
        let given = giver.runtime.block_on(given).expect("an end").expect("given");
        giver.runtime.block_on(giver.vm.let_go());
        drop(owner.wait_for_go(LET_GO_TIMEOUT));
        is_over.store(true, Ordering::Relaxed);
        (given.pause, watch.join().expect("an end"), Running { runtime: giver.runtime.clone(), vm })
    });
    drop(giver);
    taker.end();
    Pause { said: said.as_secs_f64() * 1e3, seen: seen.as_secs_f64() * 1e3 }
}

/// The longest time in which a number did not change. It is the guest's, and moves in nanoseconds while it runs.
fn longest_stand(counted: &HostMemory, is_over: &AtomicBool) -> Duration {
    let read = || {
        let mut bytes = [0; 8];
        counted.read(0, &mut bytes).expect("inside");
        u64::from_le_bytes(bytes)
    };
    let (mut last, mut since, mut longest) = (read(), Instant::now(), Duration::ZERO);
    // Until it has gone on where it went.
    while !is_over.load(Ordering::Relaxed) || longest.is_zero() || since.elapsed() > LOOK * 10 {
        let (now, number) = (Instant::now(), read());
        if number != last {
            longest = longest.max(now - since);
            (last, since) = (number, now);
        }
        thread::sleep(LOOK);
    }
    longest
}
