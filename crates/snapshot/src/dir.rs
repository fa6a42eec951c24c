//! An open directory, and the only ways into it: by single names, over no symbolic link, to regular files.
//!
//! ```text
//! Store ─ open_in(NAME) ─▶ Snapshot's ─ open_file(ID.contents) ─▶ regular file, or an error
//!   └── lock: one at a time renames    └── lock: shared by readers, exclusive for who writes or removes it
//! ```
//!
//! Locks are `flock`s of the directories themselves: they end with the process, and leave no file. Deliberately absent:
//! paths with more than one name in them.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// How often, and how far apart, a lock is tried that others hold only for moments.
const LOCK_TRIES: u32 = 1000;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// How often a lock is tried that a listing may hold, which it does only to see whether it can.
const LOOK_TRIES: u32 = 3;

/// How long [`Dir::lock_soon`] waits.
pub(crate) const LOCK_WAIT_MS: u64 = LOCK_TRIES as u64 * 10;

/// A directory that is open.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: File,
    path: PathBuf,
}

/// Whether a lock was had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Locked {
    Yes,
    No,
}

impl Dir {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let fd = rustix::fs::open(path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd: fd.into(), path: path.to_owned() })
    }

    /// For messages, and for what has no other way.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it once more: locks belong to what is open, and clones share them.
    pub(crate) fn again(&self) -> io::Result<Self> {
        let fd = rustix::fs::openat(&self.fd, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self { fd: fd.into(), path: self.path.clone() })
    }

    /// Opens a directory in this one.
    pub(crate) fn open_in(&self, name: &str) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, single(name)?, flags, Mode::empty()).map_err(self.told(name))?;
        Ok(Self { fd: fd.into(), path: self.path.join(name) })
    }

    /// Makes a directory in this one, for its owner alone: guests' memories hold secrets.
    pub(crate) fn make_in(&self, name: &str) -> io::Result<Self> {
        rustix::fs::mkdirat(&self.fd, single(name)?, Mode::RWXU)?;
        self.open_in(name)
    }

    /// Whether there is something of that name.
    pub(crate) fn has(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::statat(&self.fd, single(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Opens a regular file to read.
    pub(crate) fn open_file(&self, name: &str) -> io::Result<File> {
        // A FIFO under this name must not wait for its writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, single(name)?, flags, Mode::empty()).map_err(self.told(name))?;
        match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
            FileType::RegularFile => Ok(fd.into()),
            _ => Err(io::Error::other("it is no regular file")),
        }
    }

    /// Makes a file that is not there, to write and to read back.
    pub(crate) fn create_file(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, single(name)?, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    pub(crate) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, single(from)?, &self.fd, single(to)?)?)
    }

    /// Gives two directories in this one each other's name, in one step.
    pub(crate) fn exchange(&self, one: &str, other: &str) -> io::Result<()> {
        let flags = RenameFlags::EXCHANGE;
        Ok(rustix::fs::renameat_with(&self.fd, single(one)?, &self.fd, single(other)?, flags)?)
    }

    /// Removes a file.
    pub(crate) fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, single(name)?, AtFlags::empty())?)
    }

    /// Removes a directory in this one that has nothing in it.
    pub(crate) fn remove_empty_in(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, single(name)?, AtFlags::REMOVEDIR)?)
    }

    /// What is in it, by name. A name that is no text shows, and is none that this crate gives.
    pub(crate) fn entries(&self) -> io::Result<Vec<(String, FileType)>> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            let entry = entry?;
            let (name, mut kind) = (entry.file_name(), entry.file_type());
            if [&b"."[..], b".."].contains(&name.to_bytes()) {
                continue;
            }
            // Some file systems do not keep it beside the name.
            if kind == FileType::Unknown {
                let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
                kind = FileType::from_raw_mode(stat.st_mode);
            }
            entries.push((name.to_string_lossy().into_owned(), kind));
        }
        entries.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        Ok(entries)
    }

    /// Makes durable what was made, renamed or removed in it.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.fd.sync_all()
    }

    /// Which directory it is, whatever it is called.
    pub(crate) fn identity(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Takes the lock for one, unless anybody has it.
    pub(crate) fn try_lock(&self) -> io::Result<Locked> {
        self.flock(FlockOperation::NonBlockingLockExclusive)
    }

    /// Takes the lock for many, or makes the lock for one to that, unless another has it for one.
    pub(crate) fn try_share(&self) -> io::Result<Locked> {
        self.flock(FlockOperation::NonBlockingLockShared)
    }

    /// Takes the lock for one, and waits for those who hold it for a moment.
    pub(crate) fn lock_soon(&self) -> io::Result<Locked> {
        self.lock_within(LOCK_TRIES)
    }

    /// Takes the lock for one unless it is held for longer than a listing looks.
    pub(crate) fn lock_unless_held(&self) -> io::Result<Locked> {
        self.lock_within(LOOK_TRIES)
    }

    fn lock_within(&self, tries: u32) -> io::Result<Locked> {
        for _ in 0..tries {
            if self.try_lock()? == Locked::Yes {
                return Ok(Locked::Yes);
            }
            sleep(LOCK_PAUSE);
        }
        Ok(Locked::No)
    }

    /// Why something did not open. Of a symbolic link the host says that there are too many of them, or that it is no
    /// directory.
    fn told(&self, name: &str) -> impl FnOnce(Errno) -> io::Error {
        move |errno| {
            let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
            match stat.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
                Ok(FileType::Symlink) => io::Error::other("it is a symbolic link"),
                _ => errno.into(),
            }
        }
    }

    fn flock(&self, operation: FlockOperation) -> io::Result<Locked> {
        match rustix::fs::flock(&self.fd, operation) {
            Ok(()) => Ok(Locked::Yes),
            Err(Errno::WOULDBLOCK) => Ok(Locked::No),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Names come from this crate or were checked; a path among them would be a bug, and goes nowhere.
fn single(name: &str) -> io::Result<&str> {
    match name {
        "" | "." | ".." => Err(io::ErrorKind::InvalidInput.into()),
        name if name.contains('/') => Err(io::ErrorKind::InvalidInput.into()),
        name => Ok(name),
    }
}
