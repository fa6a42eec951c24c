//! How long a guest stands still for a snapshot, by what it writes meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use actors::SaveForm;
use vm::{Job, SweepAccess};
use wire::Hpa;

use crate::asked::scratch;
use crate::floors;
use crate::machine::{EXTENTS, GIB, Lie, MIB, PAGE_BYTES, PATIENCE, Places, Running, Shape};
use crate::report::Row;
use crate::sample::Sample;

/// What is wanted of a guest that dirties at most 10 MB/s.
const TARGET_MS: f64 = 2.0;
/// 24 pages in 10 ms are 9.8 MB/s.
const TURN: Duration = Duration::from_millis(10);
const TURN_PAGES: u64 = 24;
/// Of one chain: a full snapshot, and those on top of it.
const CHAIN: usize = 40;
/// Bytes that the sweeping guest is all over: the extents of one tag.
const SWEPT_BYTES: u64 = 32 * MIB;

pub(crate) fn measure() -> Vec<Row> {
    let paced = of_paced_guest(Shape::SMALL, 5);
    let tag_bytes = Shape::SMALL.bytes / 4;
    let lens_bytes = [GIB, tag_bytes, tag_bytes, tag_bytes, tag_bytes];
    let floor = floors::pause() + floors::logs(&lens_bytes) + floors::write_pages(TURN_PAGES);
    let what = "1 vCPU pause and save + logs + 24 pages to a file";
    let mut rows = paced.rows("1 pause, guest dirties 9.8 MB/s", "ms", Some(TARGET_MS), (floor, what));

    let apart = of_paced_guest(Shape { lie: Lie::Apart, ..Shape::SMALL }, 1);
    let mut lens_bytes = vec![3 * PAGE_BYTES; EXTENTS as usize];
    lens_bytes.push(GIB);
    let floor = floors::logs(&lens_bytes);
    rows.extend(apart.rows("1 the same, a slot each", "ms", None, (floor, "10,001 logs")));

    let floor = floors::write_pages(SWEPT_BYTES / PAGE_BYTES);
    let what = "1 guest sweeps 2,500 extents of 32 MiB";
    rows.extend(of_sweeping_guest().rows(what, "ms", None, (floor, "their pages to a file")));
    rows
}

fn of_paced_guest(shape: Shape, chains: usize) -> Sample {
    let dir = scratch();
    let running = Running::filled(shape, Places::kept(dir.path(), "journal"));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| dirty(&running, &is_over));
        let sample = (0..chains).flat_map(|_| chain(&running)).collect();
        is_over.store(true, Ordering::Relaxed);
        sample
    })
}

fn of_sweeping_guest() -> Sample {
    let dir = scratch();
    let running = Running::filled(Shape::SMALL, Places::kept(dir.path(), "journal"));
    let (hpa, len_bytes, access) = (running.window(), SWEPT_BYTES, SweepAccess::Write);
    let sweep = Job::Sweep { hpa, len_bytes, stride_bytes: 64, rounds: u64::MAX >> 32, access };
    running.machine().start_job(0, sweep).expect("a job");
    let sample = chain(&running).into_iter().collect();
    running.end();
    sample
}

/// Milliseconds of pause of each snapshot of a chain, which is deleted then.
fn chain(running: &Running) -> Vec<f64> {
    let names: Vec<_> = (0..CHAIN).map(|n| format!("s{n}")).collect();
    let form = |n| if n == 0 { SaveForm::Full } else { SaveForm::Incremental };
    let saved = names.iter().enumerate().map(|(n, name)| running.save(name, form(n)).pause.as_secs_f64() * 1e3);
    let saved = saved.collect();
    for name in names.iter().rev() {
        running.runtime.block_on(running.vm.delete_snapshot(name)).expect("deleted");
    }
    saved
}

/// Has the guest write some pages of its extents, in turn, at an even pace.
fn dirty(running: &Running, is_over: &AtomicBool) {
    let (machine, len_bytes) = (running.machine(), TURN_PAGES * PAGE_BYTES);
    let (begun, turns) = (Instant::now(), SWEPT_BYTES / len_bytes);
    for turn in 0.. {
        if is_over.load(Ordering::Relaxed) {
            return;
        }
        let hpa = Hpa(running.window().0 + turn % turns * len_bytes);
        let sweep = Job::Sweep { hpa, len_bytes, stride_bytes: PAGE_BYTES, rounds: 1, access: SweepAccess::Write };
        machine.job(0, sweep, PATIENCE).expect("written");
        thread::sleep((TURN * (turn as u32 + 1)).saturating_sub(begun.elapsed()));
    }
}
