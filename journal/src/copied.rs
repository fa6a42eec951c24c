//! A directory's databases for those who only read: a copy, so that what is read stays as it is.
//!
//! ```text
//! <dir>/live/<n>/* ─ shared lock ─ copied ─▶ a temporary directory ─▶ sled opens those
//! ```
//!
//! sled repairs what it opens. Where its log is damaged it takes the damage for the end and zeroes or cuts off what stands
//! behind: a `dcd replay` of a journal with one flipped bit removed all records behind it, which were intact and which
//! salvage would have found. Deliberately absent: writing; what is written to the copy ends with it.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use device::Seq;
use rustix::fs::{FlockOperation, flock};

use crate::{
    directory::{Directory, Generation, failed},
    recover::{OpenError, Recovered},
    remains,
    sled_store::SledStore,
};

/// Copies of a directory's databases, as long as this is.
#[derive(Debug)]
pub(crate) struct Copied {
    directory: Directory,
    _dir: tempfile::TempDir,
}

impl Copied {
    /// Copies the databases in a directory, which nobody may have open.
    pub(crate) fn of(original: &Directory, generations: &[Generation]) -> Result<Copied, OpenError> {
        let live = original.live();
        let dir = tempfile::tempdir().map_err(failed("copy", &live))?;
        let directory = Directory::new(dir.path());
        fs::create_dir(directory.live()).map_err(failed("copy", &live))?;
        // The newest first: who has the journal open holds that one.
        for generation in generations.iter().rev() {
            let from = original.generation(*generation);
            let _lock = lock(original.path(), &from.join("db"))?;
            copy_files(&from, &directory.generation(*generation)).map_err(failed("copy", &from))?;
        }
        Ok(Copied { directory, _dir: dir })
    }

    /// Opens a copy of a database. Its errors name what was copied.
    pub(crate) fn open(&self, original: &Directory, generation: Generation) -> Result<SledStore, OpenError> {
        SledStore::open(&self.directory, generation).map_err(|error| named(error, original.path()))
    }
}

fn lock(dir: &Path, database: &Path) -> Result<File, OpenError> {
    let log = match File::open(database) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::Missing { place: dir.display().to_string() });
        }
        log => log.map_err(failed("copy", database))?,
    };
    match flock(&log, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(log),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Held { dir: dir.to_owned() }),
        Err(error) => Err(failed("copy", database)(error.into()).into()),
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_files(&from, &to)?;
        } else {
            fs::copy(from, to)?;
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
