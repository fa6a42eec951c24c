//! From a snapshot to the first exit of its guest, in a process that is warm.
//!
//! The guest stores into a page between any two exits, and the page is looked at from outside: who has asked for the restore
//! may have to wait for a processor until its guest has been running for milliseconds.

use std::fs;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use actors::SaveForm;
use tempfile::{NamedTempFile, TempDir};

use crate::asked::scratch;
use crate::floors;
use crate::machine::{
    EXTENTS, GIB, Lie, MIB, PAGE_BYTES, PATIENCE, Places, Running, Shape, lazily, options, page, runtime,
};
use crate::report::Row;
use crate::sample::Sample;

const TARGET_MS: f64 = 5.0;
/// How much longer it may take with 8 GiB than with 128 MiB.
const RATIO_MAX: f64 = 1.5;
const RUNS: usize = 60;
const FEW_RUNS: usize = 12;
/// What the snapshot is called.
const FIRST: &str = "first";
/// How often is looked whether the guest has stored.
const LOOK: Duration = Duration::from_micros(20);

/// Whether the restored VM keeps a journal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    No,
    OnDisk,
}

pub(crate) fn measure() -> Vec<Row> {
    let shape = Shape::SMALL;
    let source = Source::new(shape);
    let floor = floors::empty_vm() + floors::slots(&slots_of(shape)) + floors::map(shape.bytes);
    let what = "an empty VM to its first exit + slots + a map";
    let volatile = source.restored(shape, Kept::No, RUNS);
    let mut rows = volatile.rows("2 lazy restore to the first exit, no journal", "ms", Some(TARGET_MS), (floor, what));
    let (floor, what) = (floor + 4.0 * floors::file(MIB / 2), "the same + 4 files of 512 KiB, synced");
    let kept = source.restored(shape, Kept::OnDisk, RUNS);
    rows.extend(kept.rows("2 the same, with a journal on disk", "ms", None, (floor, what)));

    let shape = Shape { lie: Lie::Apart, ..shape };
    let source = Source::new(shape);
    let floor = floors::slots(&slots_of(shape));
    let apart = source.restored(shape, Kept::No, FEW_RUNS);
    rows.extend(apart.rows("2 the same, no journal, a slot each", "ms", None, (floor, "10,001 slots")));
    rows
}

/// What more bytes of backends take.
pub(crate) fn by_bytes() -> Vec<Row> {
    let small = Shape::SMALL;
    let large = Shape { bytes: large_bytes(), ..small };
    let mut sources = Vec::new();
    for shape in [small, large] {
        sources.push(Source::new(shape));
    }
    let (mut of_small, mut of_large) = (Sample::default(), Sample::default());
    // In turn, so that neither has the quieter machine.
    for _ in 0..FEW_RUNS {
        of_small.push(sources[0].restored_once(small, Kept::No));
        of_large.push(sources[1].restored_once(large, Kept::No));
    }
    let floor = |shape: Shape| floors::empty_vm() + floors::slots(&slots_of(shape)) + floors::map(shape.bytes);
    let floors = [floor(small), floor(large)];
    let what = "an empty VM to its first exit + slots + a map";
    let mut rows = of_small.rows(&format!("3 lazy restore, {}", small.name()), "ms", None, (floors[0], what));
    rows.extend(of_large.rows(&format!("3 lazy restore, {}", large.name()), "ms", None, (floors[1], what)));
    let ratio = of_large.percentile(50) / of_small.percentile(50);
    let row = Row::new("3 the one in times of the other", ratio, "").target(RATIO_MAX);
    rows.push(row.floor(floors[1].middle / floors[0].middle, "the same of the floors"));
    rows
}

/// 8 GiB that are all data, if memory and disk have room for them twice; else 2 GiB.
fn large_bytes() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let available_kib = available.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0);
    let disk = rustix::fs::statvfs(env!("CARGO_TARGET_TMPDIR")).expect("a file system");
    let has_room = available_kib >> 20 >= 12 && disk.f_bavail * disk.f_frsize >= 12 * GIB;
    if !has_room {
        println!("3: there is no room for 8 GiB of data: 2 GiB are measured");
    }
    if has_room { 8 * GIB } else { 2 * GIB }
}

/// The slots of RAM and extents.
fn slots_of(shape: Shape) -> Vec<u64> {
    let mut lens_bytes = match shape.lie {
        Lie::Together => vec![shape.bytes / 4; 4],
        Lie::Apart => vec![3 * PAGE_BYTES; EXTENTS as usize],
    };
    lens_bytes.push(GIB);
    lens_bytes
}

/// A snapshot of a guest that does nothing but come back.
struct Source {
    dir: TempDir,
    /// Into which the guest stores between any two exits.
    page: NamedTempFile,
}

impl Source {
    fn new(shape: Shape) -> Self {
        let (dir, page) = (scratch(), page());
        let running = Running::coming_back(shape, Places::volatile(dir.path()), page.path());
        running.save_but_seen(FIRST, SaveForm::Full);
        running.end();
        Self { dir, page }
    }

    fn restored(&self, shape: Shape, kept: Kept, runs: usize) -> Sample {
        self.restored_once(shape, kept);
        (0..runs).map(|_| self.restored_once(shape, kept)).collect()
    }

    /// Milliseconds until the restored guest has come back for the first time, or will within a microsecond.
    fn restored_once(&self, shape: Shape, kept: Kept) -> f64 {
        let journals = scratch();
        let places = match kept {
            Kept::No => Places::volatile(self.dir.path()),
            Kept::OnDisk => Places::kept(journals.path(), "journal"),
        };
        let options = options(shape, places, lazily(&self.dir.path().join("snapshots").join(FIRST)));
        let runtime = runtime();
        self.page.as_file().write_all_at(&[0; 8], 0).expect("a page");
        let (running, took) = thread::scope(|scope| {
            let begun = Instant::now();
            let seen = scope.spawn(|| self.first_store());
            let (vm, _) = runtime.block_on(actors::start(options)).expect("a VM");
            let took = seen.join().expect("an end") - begun;
            (Running { runtime, vm }, took)
        });
        running.end();
        wait_for_checks();
        took.as_secs_f64() * 1e3
    }

    /// When the guest has stored into the page, which was zeros.
    fn first_store(&self) -> Instant {
        let begun = Instant::now();
        let mut word = [0; 8];
        loop {
            self.page.as_file().read_exact_at(&mut word, 0).expect("a page");
            let now = Instant::now();
            if word != [0; 8] {
                return now;
            }
            assert!(now - begun < PATIENCE, "the guest does not go on");
            thread::sleep(LOOK);
        }
    }
}

/// Bytes that were mapped are checked beside the guest; the next restore is not to share the machine with that.
fn wait_for_checks() {
    let is_check = |task: fs::DirEntry| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim() == "snapshot-check")
    };
    while fs::read_dir("/proc/self/task").expect("threads").filter_map(Result::ok).any(is_check) {
        thread::sleep(Duration::from_millis(5));
    }
}
