//! Power cuts: whatever the journal called durable is on the disk when the power is gone.
//!
//! ```text
//! writer process ─▶ ext4 ─▶ loop device ─▶ image       SIGSTOP at a random moment, read what was acknowledged,
//!       └─ acknowledged #N ─▶ a file elsewhere          copy the image, mount the copy (ext4 replays), open the journal
//! ```
//!
//! The copy has what reached the loop device and nothing that was only in the page cache of the ext4 above it. Absent on
//! purpose: a drive that loses its own cache (the copy has every write the drive took), and `kill -9`, which loses less.
//!
//! Needs root, a free loop device and mkfs.ext4, else it says so and passes, except under `CI=true` as root.
//! `DCD_POWER_CUTS=60` cuts more often; `DCD_POWER_CUT_DURABILITY=process` shows what is lost without a sync to disk.

use std::{
    env,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use journal::{CloseReason, Durability, Journal, OpenError, Options};
use rustix::process::{Pid, Signal, WaitOptions};

const WRITER_DIR: &str = "DCD_POWER_CUT_WRITER_DIR";
const WRITER_ACKNOWLEDGED: &str = "DCD_POWER_CUT_WRITER_ACKNOWLEDGED";
const DURABILITY: &str = "DCD_POWER_CUT_DURABILITY";
const CUTS: &str = "DCD_POWER_CUTS";

const IMAGE_LEN_BYTES: u64 = 2 << 30;
const SMALL_IMAGE_LEN_BYTES: u64 = 64 << 20;
const BALLAST_LEN_BYTES: usize = 8 << 20;
const WRITER_THREADS: usize = 8;
/// Slower writers leave the kernel time to write everything back, and the test would pass without a sync.
const RECORDS_PER_SECOND_MIN: f64 = 1_000.0;
const CUT_AFTER_MS_MAX: u64 = 1_200;
const EARLY_CUT_AFTER_MS_MAX: u64 = 15;
const FIRST_RECORD_TIMEOUT: Duration = Duration::from_secs(30);

/// What record `seq` holds: mostly about a hundred bytes, one in a thousand a mebibyte.
fn body(seq: u64) -> Vec<u8> {
    let len = if seq % 1_000 == 500 { 1 << 20 } else { 60 + seq % 80 };
    (0..len).map(|at| (seq.wrapping_mul(31).wrapping_add(at * 7) % 251) as u8).collect()
}

/// The writer process: appends at full speed and notes what is durable. A test by form only: it is what this binary runs
/// when it starts itself.
#[test]
fn writer_process() {
    let (Some(dir), Some(acknowledged)) = (env::var_os(WRITER_DIR), env::var_os(WRITER_ACKNOWLEDGED)) else {
        return;
    };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).expect("a writer that ends with its test");
    let durability = match env::var(DURABILITY).as_deref() {
        Ok("process") => Durability::Process,
        _ => Durability::Disk,
    };
    let notes = File::options().write(true).open(&acknowledged).expect("the file for acknowledgements");
    let note = move |seq: u64| notes.write_all_at(&seq.to_le_bytes(), 0).expect("a note");
    let first_note = File::options().write(true).open(&acknowledged).expect("the same file");
    let options = Options { durability, on_durable: Box::new(move |seq| note(seq.0)), ..Options::default() };
    let dir = Path::new(&dir);
    let journal = if dir.exists() {
        Journal::open(dir, options).expect("an intact journal").0
    } else {
        Journal::create(dir, b"genesis", options).expect("a new journal")
    };
    first_note.write_all_at(&journal.last().0.to_le_bytes(), 0).expect("a note");
    thread::scope(|scope| {
        for _ in 0..WRITER_THREADS {
            scope.spawn(|| {
                loop {
                    journal.append(|stamp| (body(stamp.seq.0), ())).expect("an open journal");
                    journal.flush().expect("a disk that works");
                }
            });
        }
    });
}

#[test]
fn what_is_durable_survives_power_cuts() {
    let root = rustix::process::geteuid().is_root();
    if let Err(missing) = Disk::format().map(drop) {
        assert!(!(root && env::var("CI").as_deref() == Ok("true")), "no power can be cut here: {missing}");
        eprintln!("skipped, no power can be cut here: {missing}");
        return;
    }
    let cuts = env::var(CUTS).ok().map_or(6, |cuts| cuts.parse().expect("a number of cuts"));
    let mut chance = Chance::new();
    let mut tally = Tally::default();
    let mut survivor = None;
    for cut in 0..cuts {
        // A new disk; what the last cut left; a new disk, cut while the journal is being made.
        let (disk, cut_after_ms, early) = match (cut % 3, survivor.take()) {
            (1, Some(disk)) => (disk, chance.below(CUT_AFTER_MS_MAX), false),
            (2, _) => (Disk::format().expect("a disk"), chance.below(EARLY_CUT_AFTER_MS_MAX), true),
            _ => (Disk::format().expect("a disk"), chance.below(CUT_AFTER_MS_MAX), false),
        };
        let (acknowledged, copy) = run_and_cut(disk, Duration::from_millis(cut_after_ms), early, &mut tally);
        eprintln!("cut {cut} after {cut_after_ms} ms: {}", verify(&copy, acknowledged));
        survivor = Some(copy);
    }
    let rate = tally.records as f64 / tally.time.as_secs_f64();
    eprintln!("{} records were acknowledged, {rate:.0}/s", tally.records);
    assert!(cuts < 2 || rate >= RECORDS_PER_SECOND_MIN, "{rate:.0} records/s are too few to find anything");
}

#[test]
fn a_full_disk_is_a_final_failure_that_loses_nothing_durable() {
    let disk = match Disk::format_sized(SMALL_IMAGE_LEN_BYTES) {
        Ok(disk) => disk,
        Err(missing) => return eprintln!("skipped, no disk can be filled here: {missing}"),
    };
    // Opening takes room too: sled begins a segment.
    let ballast = disk.mount_point().join("ballast");
    fs::write(&ballast, vec![0; BALLAST_LEN_BYTES]).expect("room for the ballast");
    let journal = Journal::create(&disk.journal_dir(), b"genesis", Options::default()).expect("a new journal");
    let failed = loop {
        let appended = journal.append(|stamp| (body(stamp.seq.0 * 500), ()));
        if let Err(failed) = appended.and_then(|_| journal.flush()) {
            break failed;
        }
    };
    assert!(matches!(failed.reason, CloseReason::Store(_)), "{failed}");
    assert_eq!(journal.durable(), failed.last_durable);
    drop(journal);

    fs::remove_file(&ballast).expect("the ballast");
    let kept = journal::read(&disk.journal_dir());
    let last = kept.as_ref().map(|kept| kept.last);
    eprintln!("{failed}; {last:?} is there");
    assert!(last.is_ok_and(|last| last >= failed.last_durable));
}

/// How fast writers were, early cuts apart.
#[derive(Default)]
struct Tally {
    records: u64,
    time: Duration,
}

/// Runs a writer on the disk, stops it, and returns what it had acknowledged (`None`: not even a journal) with the disk
/// as the power cut left it.
fn run_and_cut(disk: Disk, cut_after: Duration, early: bool, tally: &mut Tally) -> (Option<u64>, Disk) {
    let writer = Writer::start(&disk.journal_dir());
    let (began, before) = (Instant::now(), if early { None } else { Some(writer.wait_for_journal()) });
    let writing = Instant::now();
    thread::sleep(cut_after);
    writer.stop();
    let ran = if early { began.elapsed() } else { writing.elapsed() };
    let acknowledged = writer.acknowledged();
    if let (Some(before), Some(after)) = (before, acknowledged) {
        tally.records += after - before;
        tally.time += ran;
    }
    let copy = disk.copy();
    drop(writer);
    drop(disk);
    (acknowledged, copy.mount().expect("ext4 replays its journal"))
}

/// Opens the journal on a disk that was cut, and compares it with what was acknowledged.
fn verify(disk: &Disk, acknowledged: Option<u64>) -> String {
    let opened = Journal::open(&disk.journal_dir(), Options::default());
    let (journal, recovered) = match (opened, acknowledged) {
        (Ok(opened), _) => opened,
        (
            Err(error @ (OpenError::Missing { .. } | OpenError::Unfinished { .. } | OpenError::Unopenable { .. })),
            None,
        ) => {
            fs::remove_dir_all(disk.journal_dir()).ok();
            return format!("no journal yet ({error})");
        }
        (Err(error), _) => panic!("records up to {acknowledged:?} were acknowledged: {error}"),
    };
    let (last, acknowledged) = (recovered.last.0, acknowledged.unwrap_or(0));
    assert!(last >= acknowledged, "records up to #{acknowledged} were acknowledged, up to #{last} are there");
    for (seq, stored) in (1..).zip(&recovered.records) {
        assert!(stored.seq.0 == seq && stored.body == body(seq), "record #{seq} is another");
    }
    journal.close().expect("closes");
    format!("#{acknowledged} acknowledged, #{last} there, torn: {:?}", recovered.torn)
}

/// A writer process. Dropping it kills it.
struct Writer {
    child: Child,
    notes: tempfile::NamedTempFile,
}

impl Writer {
    fn start(journal_dir: &Path) -> Writer {
        let notes = tempfile::NamedTempFile::new().expect("a file for acknowledgements");
        let child = Command::new(env::current_exe().expect("this test's binary"))
            .args(["--exact", "writer_process", "--nocapture"])
            .env(WRITER_DIR, journal_dir)
            .env(WRITER_ACKNOWLEDGED, notes.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("a writer");
        Writer { child, notes }
    }

    /// The last record acknowledged so far; `None` before the journal is there.
    fn acknowledged(&self) -> Option<u64> {
        let mut seq = [0; 8];
        self.notes.as_file().read_exact_at(&mut seq, 0).ok().map(|()| u64::from_le_bytes(seq))
    }

    fn wait_for_journal(&self) -> u64 {
        let began = Instant::now();
        loop {
            match self.acknowledged() {
                Some(seq) => return seq,
                None => assert!(began.elapsed() < FIRST_RECORD_TIMEOUT, "the writer makes no journal"),
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Freezes all its threads; nothing more is acknowledged once this returns.
    fn stop(&self) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, Signal::STOP).expect("a writer to stop");
        let status = rustix::process::waitpid(Some(pid), WaitOptions::UNTRACED).expect("a writer to wait for");
        assert!(status.is_some_and(|(_, status)| status.stopped()), "the writer ended by itself: {status:?}");
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An ext4 in a file, mounted through a loop device. Dropping it unmounts it, which frees the device too.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn format() -> Result<Disk, String> {
        Disk::format_sized(IMAGE_LEN_BYTES)
    }

    fn format_sized(len_bytes: u64) -> Result<Disk, String> {
        let disk = Disk { folder: tempfile::tempdir().map_err(|error| format!("no temporary directory: {error}"))? };
        let image = File::create(disk.image()).and_then(|file| file.set_len(len_bytes));
        image.map_err(|error| format!("no image: {error}"))?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), disk.image().as_path()])?;
        disk.mount()
    }

    fn mount(self) -> Result<Disk, String> {
        fs::create_dir_all(self.mount_point()).map_err(|error| format!("no mount point: {error}"))?;
        run("mount", &["-o".as_ref(), "loop".as_ref(), &self.image(), &self.mount_point()])?;
        Ok(self)
    }

    /// What the disk has at this moment, which is one at which nothing is being written to it; not mounted yet.
    fn copy(&self) -> Disk {
        let copy = Disk { folder: tempfile::tempdir().expect("a directory") };
        loop {
            let before = self.written_so_far();
            run("cp", &["--sparse=always".as_ref(), &self.image(), &copy.image()]).expect("a copy");
            if self.written_so_far() == before {
                return copy;
            }
        }
    }

    /// Sectors written to the loop device and requests in flight, as the kernel counts them.
    fn written_so_far(&self) -> (String, String) {
        let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
        let point = self.mount_point();
        let device = mounts.lines().find_map(|line| {
            let (device, rest) = line.split_once(' ')?;
            (rest.split(' ').next() == point.to_str()).then(|| device.trim_start_matches("/dev/").to_owned())
        });
        let device = device.expect("a mounted disk");
        let statistics = fs::read_to_string(format!("/sys/block/{device}/stat")).expect("the device's statistics");
        let mut fields = statistics.split_whitespace().map(str::to_owned);
        let written = fields.nth(6).expect("sectors written");
        (written, fields.nth(1).expect("requests in flight"))
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount_point(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn journal_dir(&self) -> PathBuf {
        self.mount_point().join("journal")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let point = self.mount_point();
        if !point.exists() {
            return;
        }
        // Busy at once after a kill, at worst: a lazy one then goes when the last file is closed.
        if run("umount", &[&point]).is_err() {
            run("umount", &["--lazy".as_ref(), &point]).ok();
        }
    }
}

fn run(program: &str, arguments: &[&Path]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("no {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
}

/// Random enough for the moment of a cut.
struct Chance(u64);

impl Chance {
    fn new() -> Chance {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Chance(now.as_nanos() as u64 | 1)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}
