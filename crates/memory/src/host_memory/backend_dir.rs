//! The directory below which files of backends are, and the one way into it.
//!
//! ```text
//!  mem-path ── relative ──┬─▶ probe (O_PATH) ─┬─ not there ─▶ create, 0600 ─┬─▶ long enough, or made so
//!            absolute ────┘                   └─ regular ────▶ open ────────┘
//! ```
//!
//! Paths come from clients. The host resolves them: below the directory, over no symbolic link, and what is no regular
//! file is named without being opened. Deliberately absent: locks. Who else maps the same file is for the operator.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use device::backends::FileAccess;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::{FileError, FileKind};
use super::{Backing, MissingFile};

/// How often a path is resolved again that changed meanwhile.
const TRIES_MAX: u32 = 16;

/// An open directory for files of backends. Clones are the same one.
#[derive(Clone, Debug)]
pub struct BackendDir(Arc<Open>);

#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    /// Its absolute paths: as it was named, and without symbolic links.
    paths: Vec<PathBuf>,
}

/// What file a memory wants.
pub(super) struct FileRequest<'a> {
    pub(super) path: &'a str,
    pub(super) size_bytes: u64,
    pub(super) access: FileAccess,
    pub(super) missing: MissingFile,
}

/// A file that was made for a memory and goes if the memory is not wanted.
#[derive(Debug)]
pub(super) struct CreatedFile {
    dir: BackendDir,
    path: PathBuf,
}

impl BackendDir {
    /// Opens a directory; what it is called later does not matter.
    ///
    /// # Errors
    ///
    /// [`FileError::Directory`] where it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let failed = |source: io::Error| FileError::Directory { dir: path.display().to_string(), source };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let named = std::path::absolute(path).map_err(failed)?;
        let real = path.canonicalize().map_err(failed)?;
        Ok(Self(Arc::new(Open { fd, paths: vec![named, real] })))
    }

    /// The file of a memory: there already or made, and long enough.
    pub(super) fn open_file(&self, request: &FileRequest<'_>) -> Result<Backing, FileError> {
        let path = self.below(request.path)?;
        let (file, created) = if self.is_there(request.path, path)? {
            if request.missing == MissingFile::Anew {
                return Err(FileError::There { path: request.path.to_owned(), dir: self.name() });
            }
            (self.open_regular(request, path)?, None)
        } else {
            (self.create(request, path)?, Some(CreatedFile { dir: self.clone(), path: path.to_owned() }))
        };
        match make_long_enough(&file, request) {
            Ok(()) => Ok(Backing { file: Some(file), created }),
            Err(error) => {
                created.iter().for_each(CreatedFile::remove);
                Err(error)
            }
        }
    }

    /// The path relative to the directory. Whether it stays below is for the host to say, which resolves it.
    fn below<'a>(&self, path: &'a str) -> Result<&'a Path, FileError> {
        let asked = Path::new(path);
        let below = if asked.is_absolute() {
            let below = self.0.paths.iter().find_map(|dir| asked.strip_prefix(dir).ok());
            below.ok_or_else(|| FileError::Outside { path: path.into(), dir: self.name() })?
        } else {
            asked
        };
        if below.as_os_str().is_empty() {
            return Err(FileError::NotRegular { path: path.into(), kind: FileKind::Directory });
        }
        Ok(below)
    }

    /// Whether a regular file is there. Nothing is opened: a FIFO would wait for its writer, a device might act.
    fn is_there(&self, asked: &str, path: &Path) -> Result<bool, FileError> {
        match self.resolve(path, OFlags::PATH, Mode::empty()) {
            Ok(fd) => check_regular(&fd, asked).map(|()| true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.error(asked, errno)),
        }
    }

    fn open_regular(&self, request: &FileRequest<'_>, path: &Path) -> Result<File, FileError> {
        let access = match request.access {
            FileAccess::ReadWrite => OFlags::RDWR,
            FileAccess::ReadOnly => OFlags::RDONLY,
        };
        // Another file may have come to this name since it was looked at: it must not block, and is looked at again.
        let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.resolve(path, flags, Mode::empty()).map_err(|errno| self.error(request.path, errno))?;
        check_regular(&fd, request.path)?;
        Ok(File::from(fd))
    }

    fn create(&self, request: &FileRequest<'_>, path: &Path) -> Result<File, FileError> {
        let (asked, dir) = (request.path.to_owned(), self.name());
        match (request.missing, request.access) {
            (MissingFile::Refuse, _) => {
                return Err(FileError::Gone { path: asked, dir, size_bytes: request.size_bytes });
            }
            (MissingFile::Create | MissingFile::Anew, FileAccess::ReadOnly) => {
                return Err(FileError::NothingToRead { path: asked, dir });
            }
            (MissingFile::Create | MissingFile::Anew, FileAccess::ReadWrite) => {}
        }
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.resolve(path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(File::from(fd)),
            Err(Errno::NOENT) => Err(FileError::NoParent { path: asked, dir }),
            Err(errno) => Err(self.error(request.path, errno)),
        }
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        let mut tries = 0;
        loop {
            tries += 1;
            match rustix::fs::openat2(&self.0.fd, path, flags | OFlags::CLOEXEC, mode, how) {
                // Somebody renamed a directory on the way, or a signal came.
                Err(Errno::AGAIN | Errno::INTR) if tries < TRIES_MAX => {}
                done => return done,
            }
        }
    }

    fn error(&self, asked: &str, errno: Errno) -> FileError {
        let (path, dir) = (asked.to_owned(), self.name());
        match errno {
            Errno::XDEV => FileError::Outside { path, dir },
            Errno::LOOP => FileError::SymbolicLink { path, dir },
            Errno::NOSYS => FileError::NoConfinement { path, dir },
            Errno::ISDIR => FileError::NotRegular { path, kind: FileKind::Directory },
            errno => FileError::Open { path, source: errno.into() },
        }
    }

    fn name(&self) -> String {
        self.0.paths.first().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

impl CreatedFile {
    /// Removes it. Where that fails an empty file stays: the reason why it is not wanted matters more.
    pub(super) fn remove(&self) {
        let name = self.path.file_name();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if let (Some(name), Ok(parent)) = (name, self.dir.resolve(parent, flags, Mode::empty())) {
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).ok();
        }
    }
}

fn check_regular(fd: &OwnedFd, asked: &str) -> Result<(), FileError> {
    let path = asked.to_owned();
    match other_kind(fd) {
        Ok(None) => Ok(()),
        Ok(Some(kind)) => Err(FileError::NotRegular { path, kind }),
        Err(source) => Err(FileError::Open { path, source }),
    }
}

/// What a descriptor is of, where it is no regular file.
pub(super) fn other_kind(fd: impl AsFd) -> io::Result<Option<FileKind>> {
    let stat = rustix::fs::fstat(fd)?;
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => None,
        FileType::Directory => Some(FileKind::Directory),
        FileType::Fifo => Some(FileKind::Fifo),
        FileType::Socket => Some(FileKind::Socket),
        FileType::CharacterDevice => Some(FileKind::CharacterDevice),
        FileType::BlockDevice => Some(FileKind::BlockDevice),
        _ => Some(FileKind::Other),
    })
}

/// Makes a file longer, never shorter.
fn make_long_enough(file: &File, request: &FileRequest<'_>) -> Result<(), FileError> {
    let (path, size_bytes) = (request.path.to_owned(), request.size_bytes);
    let metadata = file.metadata().map_err(|source| FileError::Open { path: path.clone(), source })?;
    let file_bytes = metadata.len();
    if file_bytes >= size_bytes {
        return Ok(());
    }
    match (request.missing, request.access) {
        // Made longer, it would be the file with all its bytes to the next who asks.
        (MissingFile::Refuse, _) => Err(FileError::Shrunk { path, file_bytes, size_bytes }),
        (_, FileAccess::ReadOnly) => Err(FileError::TooShort { path, file_bytes, size_bytes }),
        (_, FileAccess::ReadWrite) => {
            file.set_len(size_bytes).map_err(|source| FileError::Extend { path, size_bytes, source })
        }
    }
}
