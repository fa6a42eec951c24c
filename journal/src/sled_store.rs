//! The store on a real disk: a sled database, made as durable as it does not make itself.
//!
//! ```text
//! <dir>/live/<n>/conf    written and synced at creation
//! <dir>/live/<n>/db      sled's log; flush, then our own fdatasync, is what durable means
//! <dir>/live/<n>/snap.*  sled's index, rewritten by sled at opening
//! <dir>/live/<n>/blobs/  must stay empty: sled never syncs what it puts there
//! ```
//!
//! sled's `flush` alone ends in `sync_file_range`, which writes neither the file's size nor the drive's cache: after a power
//! cut acknowledged records are missing, or the database does not open. Absent on purpose: `flush_async` (from seven calls
//! in flight on it never returns), sled's own flushing by time, and its transactions.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    directory::{Directory, Generation},
    recover::OpenError,
    store::{Durability, Key, Scan, Store, StoreError, panic_message},
};

/// What sled may keep in memory; a journal is read once and then only written.
const CACHE_BYTES: u64 = 16 << 20;

/// Paths that are synced at a time when a journal is made.
const SYNCS_AT_ONCE: usize = 32;

const FIRST: Generation = Generation(1);

const RELEASE_TRIES: u32 = 200;
const RELEASE_PAUSE: Duration = Duration::from_millis(5);

/// Parts in a sled database, one generation of a journal. One thread uses it.
#[derive(Debug)]
pub struct SledStore {
    /// Always there until the store is dropped.
    db: Option<sled::Db>,
    /// Our own descriptor of its log, for `fdatasync`.
    log: File,
    /// The journal's directory, for messages.
    dir: PathBuf,
    /// The database's.
    database: PathBuf,
}

impl SledStore {
    /// Makes the first generation of a journal in `dir`, and `dir` with what is missing above it, and makes all of that
    /// durable.
    pub(crate) fn create(dir: &Path) -> Result<SledStore, OpenError> {
        let directory = Directory::new(dir);
        if !directory.generations()?.is_empty() || !directory.sealed_files()?.is_empty() {
            return Err(OpenError::Exists { place: dir.display().to_string() });
        }
        let database = directory.generation(FIRST);
        fs::create_dir_all(&database).map_err(|source| io_error("create", &database, source))?;
        let store = SledStore::open_database(dir, database.clone())?;
        let database = database.canonicalize().map_err(|source| io_error("find", &database, source))?;
        // Every directory up to the root: those that were made just now, here or by whoever called, look like the others.
        sync_database(&database, &database.ancestors().collect::<Vec<_>>())?;
        Ok(store)
    }

    /// Makes a later generation, which is there whole or not at all. It is opened once, under the name that is nobody's: sled
    /// works on the files that it has open.
    pub(crate) fn create_next(directory: &Directory, generation: Generation) -> Result<SledStore, OpenError> {
        let database = directory.generation(generation);
        let part = database.with_extension("part");
        let mut store = SledStore::open_database(directory.path(), part.clone())?;
        store.sync(Durability::Process)?;
        sync_database(&part, &[&part])?;
        fs::rename(&part, &database).map_err(|source| io_error("rename", &part, source))?;
        sync_path(&directory.live())?;
        store.database = database;
        Ok(store)
    }

    /// Opens a generation.
    pub(crate) fn open(directory: &Directory, generation: Generation) -> Result<SledStore, OpenError> {
        let database = directory.generation(generation);
        // sled would make a new database.
        if !database.join("db").is_file() {
            return Err(OpenError::Missing { place: directory.path().display().to_string() });
        }
        let store = SledStore::open_database(directory.path(), database.clone())?;
        // sled has replaced its index by a rename.
        sync_path(&database)?;
        Ok(store)
    }

    fn open_database(dir: &Path, database: PathBuf) -> Result<SledStore, OpenError> {
        let config = sled::Config::new().path(&database).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let db = match catch_unwind(AssertUnwindSafe(|| config.open())) {
            Ok(Ok(db)) => db,
            Ok(Err(error)) => return Err(refused(dir, error)),
            Err(panic) => {
                let message = format!("panic: {}", panic_message(&*panic));
                return Err(OpenError::Unopenable { dir: dir.to_owned(), message });
            }
        };
        let path = database.join("db");
        let log = File::open(&path).map_err(|source| io_error("open", &path, source))?;
        Ok(SledStore { db: Some(db), log, dir: dir.to_owned(), database })
    }

    /// Says that the journal, with this generation of it, was moved to `directory` while it is open. sled opens its files once
    /// and then works on what it has open; only blobs, of which there are none, it would look for by their names.
    pub(crate) fn moved_to(&mut self, directory: &Directory) {
        (self.dir, self.database) = (directory.path().to_owned(), directory.generation(FIRST));
    }

    /// Files that sled has made beside its log. Any is an error of ours: a value was too long, and a power cut would take it.
    pub fn blob_files(&self) -> Result<usize, StoreError> {
        let path = self.database.join("blobs");
        let files = fs::read_dir(&path).map_err(|source| io_error("list", &path, source))?;
        Ok(files.count())
    }

    /// Does something with the database. sled panics where it should refuse, so whatever it does is guarded.
    fn with<T>(&self, doing: &'static str, work: impl FnOnce(&sled::Db) -> sled::Result<T>) -> Result<T, StoreError> {
        let db = self.db.as_ref().ok_or_else(|| {
            let closed = io::Error::new(io::ErrorKind::NotConnected, "it is closed");
            io_error(doing, &self.dir, closed)
        })?;
        match catch_unwind(AssertUnwindSafe(|| work(db))) {
            Ok(result) => result.map_err(|source| StoreError::Sled { doing, path: self.dir.clone(), source }),
            Err(panic) => Err(StoreError::Panicked { doing, place: self.place(), message: panic_message(&*panic) }),
        }
    }
}

impl Store for SledStore {
    fn write(&mut self, parts: &[(Key, Vec<u8>)]) -> Result<(), StoreError> {
        self.with("write to", |db| {
            parts.iter().try_for_each(|(key, value)| db.insert(key.to_bytes(), value.as_slice()).map(|_| ()))
        })
    }

    fn remove(&mut self, keys: &[Key]) -> Result<(), StoreError> {
        self.with("remove from", |db| keys.iter().try_for_each(|key| db.remove(key.to_bytes()).map(|_| ())))
    }

    fn sync(&mut self, durability: Durability) -> Result<(), StoreError> {
        if durability == Durability::None {
            return Ok(());
        }
        self.with("flush", |db| db.flush().map(|_| ()))?;
        if durability == Durability::Disk {
            self.log.sync_data().map_err(|source| io_error("sync", &self.database.join("db"), source))?;
        }
        Ok(())
    }

    fn scan(&self) -> Scan<'_> {
        let mut entries = match self.with("read", |db| Ok(db.iter())) {
            Ok(entries) => entries,
            Err(error) => return Box::new(std::iter::once(Err(error))),
        };
        let mut broken = false;
        Box::new(std::iter::from_fn(move || {
            if broken {
                return None;
            }
            let part = self.with("read", |_| entries.next().transpose());
            broken = part.is_err();
            part.and_then(|entry| entry.map(|(key, value)| Ok((Key::from_bytes(&key)?, value.to_vec()))).transpose())
                .transpose()
        }))
    }

    fn place(&self) -> String {
        self.dir.display().to_string()
    }
}

impl Drop for SledStore {
    fn drop(&mut self) {
        let db = self.db.take();
        // sled syncs once more here and panics if it cannot; the keeper has said already what became durable.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(db))) {
            tracing::error!(dir = %self.dir.display(), "sled failed while closing: {}", panic_message(&*panic));
        }
        // sled's threads let go of the file a little later; whoever opens the directory next must not find it held.
        for _ in 0..RELEASE_TRIES {
            if flock(&self.log, FlockOperation::NonBlockingLockExclusive).is_ok() {
                return;
            }
            thread::sleep(RELEASE_PAUSE);
        }
        tracing::warn!(dir = %self.dir.display(), "sled still holds its lock after closing");
    }
}

/// Syncs the files of a new database, and directories.
fn sync_database(database: &Path, dirs: &[&Path]) -> Result<(), StoreError> {
    let files = ["conf", "db"].map(|name| database.join(name));
    let paths: Vec<&Path> = files.iter().map(PathBuf::as_path).chain(dirs.iter().copied()).collect();
    paths.chunks(SYNCS_AT_ONCE).try_for_each(sync_paths)
}

fn sync_path(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|source| io_error("sync", path, source))
}

/// Syncs all of them at once: what a file system is asked for together, it commits together. One after the other, ten
/// directories were most of the time from exec to the greeting.
fn sync_paths(paths: &[&Path]) -> Result<(), StoreError> {
    thread::scope(|scope| {
        let begun = paths.iter().map(|path| {
            let thread = thread::Builder::new().spawn_scoped(scope, || sync_path(path));
            thread.map_err(|source| io_error("sync", path, source))
        });
        let syncing = begun.collect::<Result<Vec<_>, _>>()?;
        for (path, synced) in paths.iter().zip(syncing) {
            match synced.join().unwrap_or_else(|panic| resume_unwind(panic)) {
                // A directory that may not be read is not one that was made for this journal.
                Err(StoreError::Io { source, .. })
                    if source.kind() == io::ErrorKind::PermissionDenied && path.is_dir() => {}
                synced => synced?,
            }
        }
        Ok(())
    })
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { doing, path: path.to_owned(), source }
}

fn refused(dir: &Path, error: sled::Error) -> OpenError {
    match error {
        // sled keeps of the lock's error its text alone; the version is pinned, and a test holds this to it.
        sled::Error::Io(source) if source.to_string().starts_with("could not acquire lock") => {
            OpenError::Held { dir: dir.to_owned() }
        }
        sled::Error::Io(source) => io_error("open", dir, source).into(),
        other => OpenError::Unopenable { dir: dir.to_owned(), message: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use device::Seq;

    use super::*;
    use crate::part;

    fn open(dir: &Path) -> Result<SledStore, OpenError> {
        SledStore::open(&Directory::new(dir), FIRST)
    }

    fn parts_of(store: &SledStore) -> Vec<(Key, Vec<u8>)> {
        store.scan().collect::<Result<_, _>>().expect("readable")
    }

    #[test]
    fn parts_survive_a_reopening_in_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = SledStore::create(dir.path()).expect("a new store");
        let parts = part::cut(Seq(1), &vec![7; 100_000]);
        store.write(&parts).expect("written");
        store.write(&part::cut(Seq(300), b"later")).expect("written");
        store.sync(Durability::Disk).expect("synced");
        drop(store);

        let mut store = open(dir.path()).expect("it is there");
        assert_eq!(parts_of(&store)[..parts.len()], parts);
        assert_eq!(parts_of(&store).len(), parts.len() + 1);
        store.remove(&[parts[0].0, parts[0].0]).expect("removing twice is no error");
        assert_eq!(parts_of(&store).len(), parts.len());
    }

    #[test]
    fn records_of_a_mebibyte_make_no_blob() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = SledStore::create(dir.path()).expect("a new store");
        for group in 0..8 {
            let noise: Vec<u8> = (0..1 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
            store.write(&part::cut(Seq(group), &noise)).expect("written");
            store.sync(Durability::Disk).expect("synced");
        }
        assert_eq!(store.blob_files().expect("listable"), 0);
        drop(store);
        let store = open(dir.path()).expect("it is there");
        assert_eq!(store.blob_files().expect("listable"), 0, "nor does opening");
    }

    #[test]
    fn it_is_held_while_open_and_free_after() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = SledStore::create(dir.path()).expect("a new store");
        for _ in 0..2 {
            let second = open(dir.path());
            assert!(matches!(second, Err(OpenError::Held { .. })), "{second:?}");
        }
        drop(first);
        for _ in 0..20 {
            let mut store = open(dir.path()).expect("free at once");
            store.write(&part::cut(Seq(1), &[3; 20_000])).expect("written");
        }
    }

    #[test]
    fn what_is_not_there_is_not_made() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(matches!(open(dir.path()), Err(OpenError::Missing { .. })));
        assert!(!dir.path().join("live").exists());
        drop(SledStore::create(dir.path()).expect("a new store"));
        assert!(matches!(SledStore::create(dir.path()), Err(OpenError::Exists { .. })));
    }

    #[test]
    fn a_ruined_database_is_an_error_that_names_the_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut store = SledStore::create(dir.path()).expect("a new store");
        for group in 0..200 {
            store.write(&part::cut(Seq(group), &[5; 3_000])).expect("written");
        }
        store.sync(Durability::Disk).expect("synced");
        drop(store);
        let log = dir.path().join("live/000001/db");
        let mut bytes = fs::read(&log).expect("readable");
        bytes[4_096..8_192].fill(0xEE);
        fs::write(&log, bytes).expect("writable");

        match open(dir.path()) {
            Err(error) => assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}"),
            // sled may open what it cannot read; the scan must say so or the parts must be fewer, which the frames show.
            Ok(store) => assert!(store.scan().any(|part| part.is_err()) || parts_of(&store).len() < 200),
        }
    }
}
