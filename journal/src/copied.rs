//! A directory's databases for those who only read: a copy, so that what is read stays as it is.
//!
//! ```text
//! <dir>/live/<n>/* ─ shared lock ─ copied ─▶ a temporary directory ─▶ sled opens those
//!                                     └─▶ print: what the newest was, to see later whether it still is that
//! ```
//!
//! sled repairs what it opens. Where its log is damaged it takes the damage for the end and zeroes or cuts off what stands
//! behind: a `dcd replay` of a journal with one flipped bit removed all records behind it, which were intact and which
//! salvage would have found. The copy is in memory where the host has a place for that: sled syncs what it opens, and a disk
//! would be waited for. Deliberately absent: writing; what is written to the copy ends with it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use device::Seq;
use rustix::fs::{FlockOperation, flock, statvfs};
use tempfile::TempDir;

use crate::{
    directory::{Directory, Generation, failed},
    recover::{OpenError, Recovered},
    remains,
    sled_store::SledStore,
    store::StoreError,
};

/// Where Linux keeps files in memory. In a container it may be small, or missing.
const IN_MEMORY: &str = "/dev/shm";

/// Longer ones are copied to a disk: several full generations, which is more than a run leaves.
const IN_MEMORY_MAX_BYTES: u64 = 64 << 20;

/// Copies of a directory's databases. Their names are there as long as this is.
#[derive(Debug)]
pub(crate) struct Copied {
    directory: Directory,
    newest: Print,
    _dir: TempDir,
}

/// What a database's log was: its length and its checksum, told from one to which something was written since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Print {
    len_bytes: u64,
    crc: u32,
}

impl Print {
    /// Of a generation.
    pub(crate) fn of(directory: &Directory, generation: Generation) -> Result<Print, StoreError> {
        let path = directory.generation(generation).join("db");
        let bytes = fs::read(&path).map_err(failed("read", &path))?;
        Ok(Print { len_bytes: bytes.len() as u64, crc: crc32fast::hash(&bytes) })
    }
}

impl Copied {
    /// Copies the databases in a directory, which nobody may have open. There must be one.
    pub(crate) fn of(original: &Directory, generations: &[Generation]) -> Result<Copied, OpenError> {
        // The newest first: who has the journal open holds that one.
        let locks = generations.iter().rev().map(|generation| lock(original, *generation, Hold::Share));
        let locks = locks.collect::<Result<Vec<_>, _>>()?;
        let lens = locks.iter().map(|log| log.metadata().map(|found| found.len()));
        let len_bytes = lens.sum::<io::Result<u64>>().map_err(failed("copy", &original.live()))?;
        let (directory, dir) = match in_memory(len_bytes).and_then(|dir| copy(original, generations, dir).ok()) {
            Some(copied) => copied,
            None => {
                let dir = tempfile::tempdir().map_err(failed("copy", &original.live()))?;
                copy(original, generations, dir)?
            }
        };
        let newest = generations.last().map(|newest| Print::of(&directory, *newest)).transpose()?;
        let newest = newest.ok_or_else(|| OpenError::Missing { place: original.path().display().to_string() })?;
        Ok(Copied { directory, newest, _dir: dir })
    }

    /// What the newest one was.
    pub(crate) fn newest(&self) -> Print {
        self.newest
    }

    /// Opens a copy of a database. Its errors name what was copied.
    pub(crate) fn open(&self, original: &Directory, generation: Generation) -> Result<SledStore, OpenError> {
        SledStore::open(&self.directory, generation).map_err(|error| named(error, original.path()))
    }
}

fn copy(original: &Directory, generations: &[Generation], dir: TempDir) -> Result<(Directory, TempDir), StoreError> {
    let live = original.live();
    let directory = Directory::new(dir.path());
    fs::create_dir(directory.live()).map_err(failed("copy", &live))?;
    for generation in generations {
        let from = original.generation(*generation);
        copy_files(&from, &directory.generation(*generation)).map_err(failed("copy", &from))?;
    }
    Ok((directory, dir))
}

/// A place in memory, where there is one that has room for twice as much: sled writes into what it opens.
fn in_memory(len_bytes: u64) -> Option<TempDir> {
    let place = statvfs(IN_MEMORY).ok()?;
    let has_room = place.f_bavail.saturating_mul(place.f_frsize) / 2 >= len_bytes;
    (has_room && len_bytes <= IN_MEMORY_MAX_BYTES).then(|| tempfile::tempdir_in(IN_MEMORY).ok()).flatten()
}

/// For whom a database is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// For all who read.
    Share,
    /// For who writes.
    Alone,
}

/// Holds a database, as sled does that has it open. It is free when the file, its log, is closed.
pub(crate) fn lock(directory: &Directory, generation: Generation, hold: Hold) -> Result<File, OpenError> {
    let path = directory.generation(generation).join("db");
    let log = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::Missing { place: directory.path().display().to_string() });
        }
        log => log.map_err(failed("open", &path))?,
    };
    let operation = match hold {
        Hold::Share => FlockOperation::NonBlockingLockShared,
        Hold::Alone => FlockOperation::NonBlockingLockExclusive,
    };
    match flock(&log, operation) {
        Ok(()) => Ok(log),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Held { dir: directory.path().to_owned() }),
        Err(error) => Err(failed("lock", &path)(error.into()).into()),
    }
}

/// Whether this is an index that sled was writing when its process was killed. sled would take it for the newest one, and refuse
/// the database: starts that were killed in their first moments made starts that were refused.
fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "generating")
}

/// Removes such indexes of a generation, which nobody may have open.
pub(crate) fn remove_unfinished(directory: &Directory, generation: Generation) -> Result<(), OpenError> {
    let _lock = lock(directory, generation, Hold::Alone)?;
    let database = directory.generation(generation);
    for entry in fs::read_dir(&database).map_err(failed("list", &database))? {
        let path = entry.map_err(failed("list", &database))?.path();
        if is_unfinished(&path) {
            fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_files(&from, &to)?;
        } else if !is_unfinished(&from) {
            // Not its mode, too: sled opens for writing what a reader of an archive may only read.
            io::copy(&mut File::open(from)?, &mut File::create_new(to)?)?;
        }
    }
    Ok(())
}

/// The error by the name of the directory that was copied, with what lies in it by the records' own frames.
fn named(error: OpenError, dir: &Path) -> OpenError {
    let OpenError::Unopenable { message, .. } = error else { return error };
    let intact = match remains::find(dir).map(|remains| remains.prefix) {
        Ok(Some(Recovered { last: Seq(0), .. })) => "by its own frame, only the genesis is intact".to_owned(),
        Ok(Some(prefix)) => format!("by the records' own frames, those up to {} are intact", prefix.last),
        Ok(None) => "by the records' own frames, none is intact".to_owned(),
        Err(error) => format!("and its raw bytes are no help: {error}"),
    };
    OpenError::Unopenable { dir: dir.to_owned(), message: format!("{message}; {intact}") }
}
