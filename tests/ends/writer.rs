//! The writer: a process that appends as fast as it can and notes what was acknowledged; and what must be there when it has
//! ended.
//!
//! It seals small generations and keeps little, so that an end meets those too.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use device::Seq;
use journal::{Durability, Follower, Journal, OpenError, Opening, Options, Recovered, Sealing, Stored, StoredKeyframe};
use rustix::process::{Pid, Signal, WaitOptions};

const WRITER_DIR: &str = "DCD_ENDS_WRITER_DIR";
const WRITER_ACKNOWLEDGED: &str = "DCD_ENDS_WRITER_ACKNOWLEDGED";
const DURABILITY: &str = "DCD_ENDS_DURABILITY";

const WRITER_THREADS: usize = 8;
const FIRST_RECORD_TIMEOUT: Duration = Duration::from_secs(30);
/// A few times a second at full speed.
const SEAL_BYTES: u64 = 512 << 10;
/// Bodies are regular and pack well.
const KEEP_BYTES: u64 = 64 << 10;

/// What the follower of these journals knows: the sequence, and a sum of the bodies up to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    seq: u64,
    sum: u64,
}

impl Sum {
    fn of(base: Option<&StoredKeyframe>) -> Sum {
        let Some(base) = base else { return Sum::default() };
        let number = |at: usize| u64::from_le_bytes(base.body[at..at + 8].try_into().expect("eight bytes"));
        Sum { seq: number(0), sum: number(8) }
    }

    fn add(&mut self, body: &[u8]) {
        self.seq += 1;
        let word = |bytes: &[u8]| bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        self.sum = body.chunks(8).fold(self.sum, |sum, bytes| (sum ^ word(bytes)).rotate_left(7));
    }

    fn up_to(seq: u64) -> Sum {
        (1..=seq).fold(Sum::default(), |mut sum, seq| {
            sum.add(&body(seq));
            sum
        })
    }
}

impl Follower for Sum {
    fn follow(&mut self, record: &Stored) -> Result<(), String> {
        self.add(&record.body);
        if record.seq == Seq(self.seq) { Ok(()) } else { Err(format!("{} was due", self.seq)) }
    }

    fn keyframe(&self) -> Result<(u16, Vec<u8>), String> {
        Ok((1, [self.seq.to_le_bytes(), self.sum.to_le_bytes()].concat()))
    }

    fn weight(&self) -> u64 {
        1
    }
}

fn sealing(base: Option<&StoredKeyframe>) -> Option<Sealing> {
    let on_unfit = Box::new(|seq, reason| panic!("{seq}: {reason}"));
    let (follower, keep_bytes) = (Box::new(Sum::of(base)), Some(KEEP_BYTES));
    Some(Sealing { follower, seal_bytes: SEAL_BYTES, keep_bytes, on_unfit })
}

/// What record `seq` holds: mostly about a hundred bytes, one in a thousand a mebibyte.
pub(crate) fn body(seq: u64) -> Vec<u8> {
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
        let opening = Opening::of(dir).expect("an intact journal");
        let sealing = sealing(opening.recovered().base.as_ref());
        opening.start(Options { sealing, ..options }).expect("an intact journal")
    } else {
        Journal::create(dir, b"genesis", Options { sealing: sealing(None), ..options }).expect("a new journal")
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

/// Opens the journal that an end left in a directory, compares it with what was acknowledged, and returns its last record:
/// `None` is not even a journal, and is removed.
pub(crate) fn verify(dir: &Path, acknowledged: Option<u64>) -> Option<u64> {
    let opening = match (Opening::of(dir), acknowledged) {
        (Ok(opening), _) => opening,
        (
            Err(error @ (OpenError::Missing { .. } | OpenError::Unfinished { .. } | OpenError::Unopenable { .. })),
            None,
        ) => {
            fs::remove_dir_all(dir).ok();
            eprintln!("  no journal yet ({error})");
            return None;
        }
        (Err(error), _) => panic!("records up to {acknowledged:?} were acknowledged: {error}"),
    };
    let (recovered, acknowledged) = (opening.recovered().clone(), acknowledged.unwrap_or(0));
    let last = recovered.last.0;
    assert!(last >= acknowledged, "records up to #{acknowledged} were acknowledged, up to #{last} are there");
    check(&recovered);
    let sealing = sealing(recovered.base.as_ref());
    let journal = opening.start(Options { sealing, ..Options::default() }).expect("starts");
    journal.append(|stamp| (body(stamp.seq.0), ())).expect("goes on");
    journal.close().expect("closes");
    let all = journal::read(dir).expect("whole behind what is kept");
    assert_eq!(all.last.0, last + 1);
    check(&all);
    let files = fs::read_dir(dir.join("sealed")).map_or(0, Iterator::count);
    let (before, torn) = (all.before(), recovered.torn);
    eprintln!("  #{acknowledged} acknowledged, #{last} there, torn: {torn:?}, {files} files, kept behind {before}");
    Some(last + 1)
}

fn check(recovered: &Recovered) {
    let before = recovered.before().0;
    assert_eq!(Sum::of(recovered.base.as_ref()), Sum::up_to(before), "the keyframe of #{before}");
    for (seq, stored) in (before + 1..).zip(&recovered.records) {
        assert!(stored.seq.0 == seq && stored.body == body(seq), "record #{seq} is another");
    }
}

/// A writer process. Dropping it kills it.
pub(crate) struct Writer {
    child: Child,
    notes: tempfile::NamedTempFile,
}

impl Writer {
    pub(crate) fn start(journal_dir: &Path) -> Writer {
        let notes = tempfile::NamedTempFile::new().expect("a file for acknowledgements");
        let child = Command::new(env::current_exe().expect("this test's binary"))
            .args(["--exact", "writer::writer_process", "--nocapture"])
            .env(WRITER_DIR, journal_dir)
            .env(WRITER_ACKNOWLEDGED, notes.path())
            .stdout(Stdio::null())
            .spawn()
            .expect("a writer");
        Writer { child, notes }
    }

    /// The last record acknowledged so far; `None` before the journal is there.
    pub(crate) fn acknowledged(&self) -> Option<u64> {
        let mut seq = [0; 8];
        self.notes.as_file().read_exact_at(&mut seq, 0).ok().map(|()| u64::from_le_bytes(seq))
    }

    pub(crate) fn wait_for_journal(&self) -> u64 {
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
    pub(crate) fn stop(&self) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, Signal::STOP).expect("a writer to stop");
        let status = rustix::process::waitpid(Some(pid), WaitOptions::UNTRACED).expect("a writer to wait for");
        assert!(status.is_some_and(|(_, status)| status.stopped()), "the writer ended by itself: {status:?}");
    }
}

impl Writer {
    /// Ends it with SIGKILL, and returns what it had acknowledged by then.
    pub(crate) fn kill(mut self) -> Option<u64> {
        self.child.kill().expect("a writer to kill");
        let status = self.child.wait().expect("a writer to wait for");
        assert_eq!(status.code(), None, "the writer ended by itself");
        self.acknowledged()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
