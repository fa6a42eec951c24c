//! One journal supersedes another in its directory: the older one is kept, and the newer one begins at a state.
//!
//! ```text
//! prepare   DIR/next/000001.part/…   made beside the journal that runs              undone by the next start
//! write     the state at which it begins, in there                                  undone
//! commit    DIR/next/000001.part ─▶ DIR/next/000001                                 from here on completed by the next start
//! move      DIR/sealed ─▶ DIR/past/000001/sealed       DIR/live ─▶ DIR/past/000001/live
//! take      DIR/next/000001/sealed ─▶ DIR/sealed       DIR/next/000001/live ─▶ DIR/live
//! clear     DIR/next is removed
//! ```
//!
//! Each step is synced before the next; of one that renames two halves either may be done, and which are is seen in the
//! directory itself. Who only reads finds every half of either journal where it is ([`Directory`]) and changes nothing.
//! Deliberately absent: removing what is past (`dcd` never does), and a way back.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    ancestor,
    beginning::Beginning,
    directory::{Directory, Half, Past, failed, next_dir, sync_dir},
    form::{Base, Keyframe},
    handle::{Journal, Options, base_of},
    record::{Genesis, Parent},
    recover::OpenError,
    store::StoreError,
};

/// Who only reads holds the newest database while he copies it.
const HELD_TRIES: u32 = 200;
const HELD_PAUSE: Duration = Duration::from_millis(5);

/// A journal that will supersede the one in its directory: what can be made while that one is still written to.
#[derive(Debug)]
pub struct Succession {
    dir: PathBuf,
    past: Past,
    beginning: Beginning,
}

/// What is done to a directory, one after the other, once the successor is whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Commit,
    MakePast,
    Move(Half),
    Take(Half),
    Clear,
}

/// Asked before each step; an error stops there.
type Before<'a> = dyn FnMut(Step) -> Result<(), StoreError> + 'a;

/// Supersedes the journal in `dir`, which nobody may have open, by one that begins at a state; what it was until then is
/// moved to `DIR/past/NNNNNN`, which is a journal's directory like any other. The genesis names that as its parent, or, where it
/// begins behind the state itself, the one that has the records up to there; and `change`: what was done, as in "restored from
/// snapshot before-upgrade".
///
/// # Errors
/// If there is no journal, another has it open, the state is none at which a journal can begin, or the disk fails. The
/// directory then holds the old journal or the new one, whole, and whoever opens it finds which.
pub fn supersede(
    dir: &Path,
    genesis: Genesis,
    base: Keyframe,
    change: &str,
    options: Options,
) -> Result<Journal, OpenError> {
    Succession::prepare(dir)?.begin(genesis, base_of(base)?, change, options)
}

impl Succession {
    /// Makes what will supersede the journal in `dir`, beside it.
    ///
    /// # Errors
    /// If there is no journal, or the disk fails.
    pub fn prepare(dir: &Path) -> Result<Succession, OpenError> {
        finish(dir)?;
        if Directory::new(dir).generations()?.is_empty() {
            return Err(OpenError::Missing { place: dir.display().to_string() });
        }
        let past = Past::following(dir)?;
        let beginning = Beginning::prepare(&past.successor(dir).with_extension("part"))?;
        Ok(Succession { dir: dir.to_owned(), past, beginning })
    }

    /// Where what was until then will be, seen from the directory.
    pub fn past(&self) -> String {
        self.past.name()
    }

    /// Supersedes the journal, which nobody may have open any more, as [`supersede`] says. Options are those of
    /// [`Journal::begin`].
    ///
    /// # Errors
    /// As those of [`supersede`].
    pub fn begin(self, genesis: Genesis, base: Base, change: &str, options: Options) -> Result<Journal, OpenError> {
        self.begin_by(genesis, base, change, options, &mut |_| Ok(()))
    }

    fn begin_by(
        self,
        genesis: Genesis,
        base: Base,
        change: &str,
        options: Options,
        before: &mut Before<'_>,
    ) -> Result<Journal, OpenError> {
        let Succession { dir, past, beginning } = self;
        let dir = dir.as_path();
        // Nobody goes on with the old one while it is moved, nor with the new one before it is in its place.
        let (_switching, _old) = (lock(dir)?, hold_newest(dir)?);
        let shared = base.keyframe().seq;
        let parent = Parent { journal: ancestor::with_records(dir, past, shared), shared, change: change.to_owned() };
        let genesis = Genesis { parent: Some(parent), ..genesis };
        let begun = beginning.write(&genesis.to_bytes(), base, options.record_version)?;
        before(Step::Commit)?;
        commit(dir, past)?;
        complete(dir, past, before)?;
        begun.moved_to(dir).start(options)
    }
}

/// Completes what was committed in a journal's directory, and removes what was not: before it is written to.
pub(crate) fn finish(dir: &Path) -> Result<(), OpenError> {
    if !next_dir(dir).exists() {
        return Ok(());
    }
    let _switching = lock(dir)?;
    match Past::of(dir)? {
        Some(past) => {
            tracing::warn!(dir = %dir.display(), "the journal here is superseded, which was cut short: it goes to {}", past.name());
            complete(dir, past, &mut |_| Ok(()))?;
        }
        None => clear(dir)?,
    }
    Ok(())
}

/// From here on the successor is the journal of this directory.
fn commit(dir: &Path, past: Past) -> Result<(), StoreError> {
    let successor = past.successor(dir);
    rename(&successor.with_extension("part"), &successor)?;
    // What it is in was synced with what is in it.
    sync_dir(&next_dir(dir))
}

/// Does what has not been done yet.
fn complete(dir: &Path, past: Past, before: &mut Before<'_>) -> Result<(), StoreError> {
    let (place, successor) = (past.place(dir), past.successor(dir));
    before(Step::MakePast)?;
    make_past(dir, past)?;
    for half in [Half::Sealed, Half::Live] {
        if !past.has(dir, half) {
            before(Step::Move(half))?;
            rename(&dir.join(half.name()), &place.join(half.name()))?;
        }
    }
    [&place, dir].into_iter().try_for_each(sync_dir)?;
    for half in [Half::Sealed, Half::Live] {
        if successor.join(half.name()).exists() {
            before(Step::Take(half))?;
            rename(&successor.join(half.name()), &dir.join(half.name()))?;
        }
    }
    [dir, &successor].into_iter().try_for_each(sync_dir)?;
    before(Step::Clear)?;
    clear(dir)
}

/// Makes the place for the old journal, which has both halves from now on: one that is missing there is not yet moved.
fn make_past(dir: &Path, past: Past) -> Result<(), StoreError> {
    let place = past.place(dir);
    fs::create_dir_all(&place).map_err(failed("make", &place))?;
    if !past.has(dir, Half::Sealed) {
        let sealed = dir.join(Half::Sealed.name());
        fs::create_dir_all(&sealed).map_err(failed("make", &sealed))?;
    }
    place.ancestors().take(3).try_for_each(sync_dir)
}

fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(failed("rename", from))
}

/// Removes where the successor was. Not synced: what comes back of it is cleared again.
fn clear(dir: &Path) -> Result<(), StoreError> {
    let next = next_dir(dir);
    fs::remove_dir_all(&next).map_err(failed("remove", &next))
}

/// Waits until nobody else switches journals in a directory. It is free when the file is closed.
fn lock(dir: &Path) -> Result<File, StoreError> {
    let file = File::open(dir).map_err(failed("open", dir))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| failed("lock", dir)(error.into()))?;
    Ok(file)
}

/// Holds the database that a journal was written to, wherever it is moved to.
fn hold_newest(dir: &Path) -> Result<File, OpenError> {
    let directory = Directory::new(dir);
    let newest = directory.generations()?.pop();
    let newest = newest.ok_or_else(|| OpenError::Missing { place: dir.display().to_string() })?;
    let path = directory.generation(newest).join("db");
    let file = File::open(&path).map_err(failed("open", &path))?;
    for _ in 0..HELD_TRIES {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => thread::sleep(HELD_PAUSE),
            Err(error) => return Err(failed("lock", &path)(error.into()).into()),
        }
    }
    Err(OpenError::Held { dir: dir.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use device::config::VmConfig;
    use device::vm::Vm;
    use device::{Seq, VmTime};

    use super::*;
    use crate::{Archive, Opening, Recovered, read, remains};

    const RECORDS: u64 = 30;

    fn config() -> VmConfig {
        let (windows_bytes, root_ports) = (vec![1 << 32], vec!["rp0".into()]);
        VmConfig { memory_bytes: 1 << 30, window_base: wire::Hpa(0x1_1000_0000), windows_bytes, root_ports }
    }

    fn genesis() -> Genesis {
        Genesis { config: config(), build: "test".into(), parent: None }
    }

    fn base(seq: u64) -> Keyframe {
        Keyframe { seq: Seq(seq), time: VmTime(seq), vm: Vm::new(config()) }
    }

    fn append(journal: Journal, records: u64) {
        for _ in 0..records {
            journal.append(|stamp| (stamp.seq.0.to_le_bytes().repeat(20), ())).expect("open");
        }
        journal.close().expect("closes");
    }

    /// A journal of some records, sealed or not.
    fn older(dir: &Path, is_sealed: bool) -> Recovered {
        append(Journal::create(dir, &genesis().to_bytes(), Options::default()).expect("new"), RECORDS);
        let recovered = read(dir).expect("whole");
        if is_sealed {
            let file = Directory::new(dir).sealed_path(Seq(0), Seq(RECORDS));
            Directory::new(dir).make_sealed().expect("made");
            crate::portable::write_file(&file, &recovered, &crate::portable::About::default()).expect("sealed");
        }
        recovered
    }

    /// Supersedes up to a step, and says whether it was stopped there.
    fn switch(dir: &Path, stop_before: usize) -> ControlFlow<(), Journal> {
        let mut steps = 0;
        let begun = Succession::prepare(dir).expect("prepared").begin_by(
            genesis(),
            base_of(base(20)).expect("lawful"),
            "a test",
            Options::default(),
            &mut |step| {
                steps += 1;
                let stopped = std::io::Error::other(format!("stopped before {step:?}"));
                if steps > stop_before { Err(failed("go on in", dir)(stopped)) } else { Ok(()) }
            },
        );
        match begun {
            Ok(journal) => ControlFlow::Continue(journal),
            Err(error) => {
                assert!(error.to_string().contains("stopped before"), "{error}");
                ControlFlow::Break(())
            }
        }
    }

    fn parent(dir: &Path) -> Option<Parent> {
        Genesis::of(Opening::of(dir).expect("opens").recovered()).expect("a genesis").parent
    }

    /// Nothing that the switch needs is left, and nothing else is there.
    fn assert_clear(dir: &Path) {
        let names = fs::read_dir(dir).expect("listable").map(|entry| entry.expect("listable").file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().expect("text")).collect();
        names.sort();
        assert!(names.iter().all(|name| ["live", "past", "sealed"].contains(&name.as_str())), "{names:?}");
    }

    fn tree(dir: &Path) -> Vec<std::path::PathBuf> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir).expect("listable") {
            let path = entry.expect("listable").path();
            if path.is_dir() {
                paths.extend(tree(&path));
            }
            paths.push(path);
        }
        paths.sort();
        paths
    }

    /// Stopped before any step, either journal is whole for who reads and for who goes on, and it is always the same one.
    #[test]
    fn stopped_anywhere_it_is_undone_or_completed() {
        for is_sealed in [false, true] {
            let mut is_done = false;
            for stop_before in 0..12 {
                let place = tempfile::tempdir().expect("a directory");
                let dir = place.path().join("run");
                let old = older(&dir, is_sealed);
                let flow = switch(&dir, stop_before);
                is_done = flow.is_continue();
                if let ControlFlow::Continue(journal) = flow {
                    append(journal, 0);
                }
                let committed = stop_before > 0;
                let before = tree(&dir);
                check_reading(&dir, &old, committed);
                assert_eq!(tree(&dir), before, "reading has changed it");
                check_writing(&dir, &old, committed);
                if is_done {
                    assert_eq!(stop_before, 7, "commit, a place for the past, two moves, two takes, clearing");
                    break;
                }
            }
            assert!(is_done);
        }
    }

    fn check_reading(dir: &Path, old: &Recovered, committed: bool) {
        let (last, before) = if committed { (20, 20) } else { (RECORDS, 0) };
        let now = read(dir).expect("whole");
        assert_eq!((now.last, now.before()), (Seq(last), Seq(before)));
        let archive = Archive::of_directory(dir).expect("readable");
        assert_eq!((archive.last(), archive.before()), (Seq(last), Seq(before)));
        assert_eq!(remains::find(dir).expect("readable").prefix, Some(now));
        let past = dir.join("past/000001");
        if past.exists() {
            assert_eq!(read(&past).as_ref().expect("whole"), old);
            assert_eq!(remains::find(&past).expect("readable").prefix.as_ref(), Some(old));
        }
    }

    fn check_writing(dir: &Path, old: &Recovered, committed: bool) {
        append(Opening::of(dir).expect("opens").start(Options::default()).expect("starts"), 3);
        assert_clear(dir);
        let now = read(dir).expect("whole");
        if !committed {
            assert_eq!((now.last, parent(dir)), (Seq(RECORDS + 3), None));
            assert!(!dir.join("past").exists());
            return;
        }
        let change = "a test".to_owned();
        assert_eq!((now.last, now.before()), (Seq(23), Seq(20)));
        assert_eq!(parent(dir), Some(Parent { journal: "past/000001".into(), shared: Seq(20), change }));
        let past = dir.join("past/000001");
        assert_eq!(&read(&past).expect("whole"), old);
        // It is a journal like any other.
        append(Opening::of(&past).expect("opens").start(Options::default()).expect("starts"), 1);
        assert_eq!(read(&past).expect("whole").last, Seq(RECORDS + 1));
    }

    #[test]
    fn one_after_the_other_they_are_numbered_and_all_are_there() {
        let dir = tempfile::tempdir().expect("a directory");
        older(dir.path(), true);
        // The second goes back behind the begin of the first, and the last behind those of two.
        let states = [(20, 1), (10, 1), (15, 3), (20, 4), (12, 3)];
        for (n, (seq, holder)) in (1..).zip(states) {
            let options = Options::default();
            let journal = supersede(dir.path(), genesis(), base(seq), "a test", options).expect("superseded");
            assert_eq!((journal.last(), journal.clock().now()), (Seq(seq), VmTime(seq)));
            assert_eq!(parent(dir.path().join(format!("past/{n:06}")).as_path()).is_some(), n > 1);
            append(journal, 100 * n);
            assert_eq!(read(dir.path()).expect("whole").last, Seq(seq + 100 * n));
            let (journal, shared) = (format!("past/{holder:06}"), Seq(seq));
            assert_eq!(parent(dir.path()), Some(Parent { journal, shared, change: "a test".into() }));
            let has = read(&dir.path().join(format!("past/{holder:06}"))).expect("whole");
            assert!(has.before() < shared && has.last >= shared, "it has #{seq}");
            assert_clear(dir.path());
        }
        for (n, last) in [(1, RECORDS), (2, 120), (3, 210), (4, 315), (5, 420)] {
            assert_eq!(read(&dir.path().join(format!("past/{n:06}"))).expect("whole").last, Seq(last));
        }
        let stored = crate::stored_bytes(dir.path()).expect("listable");
        let live: u64 = tree(&dir.path().join("live"))
            .iter()
            .filter(|path| path.is_file())
            .map(|path| path.metadata().expect("there").len())
            .sum();
        assert!(stored >= live && stored < live + 4096, "{stored} bytes, {live} of them live");
    }

    #[test]
    fn who_holds_the_journal_keeps_it() {
        let dir = tempfile::tempdir().expect("a directory");
        older(dir.path(), false);
        let journal = Opening::of(dir.path()).expect("opens").start(Options::default()).expect("starts");
        let succession = Succession::prepare(dir.path()).expect("beside the journal that runs");
        let refused = succession.begin(genesis(), base_of(base(20)).expect("lawful"), "a test", Options::default());
        assert!(matches!(refused, Err(OpenError::Held { .. })), "{refused:?}");
        append(journal, 1);
        assert_eq!(read(dir.path()).expect("whole").last, Seq(RECORDS + 1));
        let empty = tempfile::tempdir().expect("a directory");
        let refused = supersede(empty.path(), genesis(), base(20), "a test", Options::default());
        assert!(matches!(refused, Err(OpenError::Missing { .. })), "{refused:?}");
        // A state at which none can begin changes nothing.
        let refused = supersede(dir.path(), genesis(), base(u64::MAX), "a test", Options::default());
        assert!(matches!(refused, Err(OpenError::Base { .. })), "{refused:?}");
        append(Opening::of(dir.path()).expect("opens").start(Options::default()).expect("starts"), 1);
        assert_clear(dir.path());
    }
}
