//! One stretch of host memory that a guest sees as its own.
//!
//! ```text
//!                  ┌─ ram ───────────────┐
//!  HostMemorySpec ─┼─ memfd ── seals ────┼─▶ Mapping ── prealloc ──▶ HostMemory ──read, write──▶ bytes
//!                  └─ file ── BackendDir ┘      ▲                           │
//!                    files over ram, descriptors ┘                           └──▶ which pages changed (when tracked)
//! ```
//!
//! Guests change the bytes at any time, so accesses are volatile, and a naturally aligned access of 1, 2, 4 or 8 bytes
//! is one load or store. Unless it is preallocated, a page costs memory when it is first touched. Deliberately absent:
//! host addresses but for [`crate::Slots`], and files that somebody else makes shorter while they are mapped: the host
//! ends a process for that.

mod access;
mod backend_dir;
mod data_ranges;
mod descriptor;
mod dirty;
mod error;
mod lazy;
mod mapping;
mod memfd;
mod prealloc;

use std::fs::File;
use std::io;

use device::backends::{BackendKind, Discard, FileAccess, Population, Reservation, Sharing};
use rustix::fs::FallocateFlags;

pub use access::OutOfRange;
pub use backend_dir::BackendDir;
pub use error::{DescriptorError, FileError, FileKind, HostMemoryError, RunError};
pub use lazy::{FileRun, Pulled};

use backend_dir::{CreatedFile, FileRequest};
use dirty::DirtyPages;
use lazy::Lazy;
use mapping::{Mapping, MappingRequest, Protection, page_bytes};
use prealloc::Filling;

/// What memory to create: a backend without its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMemorySpec {
    /// What stands behind it.
    pub kind: BackendKind,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Who sees writes.
    pub sharing: Sharing,
    /// When pages get their memory.
    pub population: Population,
    /// Whether the host sets memory aside for it.
    pub reservation: Reservation,
}

impl HostMemorySpec {
    /// What [`HostMemory::anonymous`] creates.
    pub fn anonymous(size_bytes: u64) -> Self {
        Self {
            kind: BackendKind::Ram,
            size_bytes,
            sharing: Sharing::Private,
            population: Population::OnDemand,
            reservation: Reservation::Unreserved,
        }
    }
}

/// Whether a file that is not there, or too short, is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingFile {
    /// It is, of zeros, with mode 0600.
    Create,
    /// It is not: it was there and long enough, and its bytes are wanted.
    Refuse,
    /// It is, as [`MissingFile::Create`] says, and one that is there is somebody's: it is not touched.
    Anew,
}

/// What memory is made of besides its description.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// Where files may be.
    pub backend_dir: Option<&'a BackendDir>,
    /// Whether a file that is not there, or too short, is made.
    pub missing: MissingFile,
    /// Hears how far preallocation is: bytes done, bytes in all; never fewer than before, and at the end all of them.
    /// Called from several threads, one at a time.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
}

/// A stretch of memory that is cleared by hand is looked at in such pieces.
const CLEARED_AT_ONCE_BYTES: usize = 64 << 10;

/// A mapped stretch of host memory.
#[derive(Debug)]
pub struct HostMemory {
    mapping: Mapping,
    /// The file that is mapped; memory without one is anonymous.
    file: Option<File>,
    discard: Discard,
    created: Option<CreatedFile>,
    lazy: Lazy,
    dirty: DirtyPages,
}

/// What is mapped, and what is known of it.
struct Backing {
    file: Option<File>,
    created: Option<CreatedFile>,
}

impl HostMemory {
    /// Anonymous memory of zeros, for which nothing is set aside.
    ///
    /// # Errors
    ///
    /// As [`HostMemory::create`].
    pub fn anonymous(size_bytes: u64) -> Result<Self, HostMemoryError> {
        let spec = HostMemorySpec::anonymous(size_bytes);
        Self::create(&spec, Surroundings { backend_dir: None, missing: MissingFile::Refuse, progress: &|_, _| () })
    }

    /// Maps what `spec` asks for. A file that this call made is gone again where it fails.
    ///
    /// # Errors
    ///
    /// What cannot be had and why; see [`HostMemoryError`].
    pub fn create(spec: &HostMemorySpec, surroundings: Surroundings<'_>) -> Result<Self, HostMemoryError> {
        let len = len(spec.size_bytes)?;
        let backing = Backing::open(spec, surroundings)?;
        let made = map(spec, len, backing.file.as_ref())
            .and_then(|mapping| preallocate(spec, &mapping, &backing, surroundings.progress).map(|()| mapping));
        match made {
            Ok(mapping) => Ok(Self::new(mapping, backing, &spec.kind)),
            Err(error) => {
                backing.created.iter().for_each(CreatedFile::remove);
                Err(error)
            }
        }
    }

    fn new(mapping: Mapping, backing: Backing, kind: &BackendKind) -> Self {
        let Backing { file, created } = backing;
        let (lazy, dirty) = Default::default();
        Self { mapping, file, discard: discard(kind), created, lazy, dirty }
    }

    /// Length in bytes.
    pub fn len_bytes(&self) -> u64 {
        self.mapping.region().size() as u64
    }

    /// Its first address in this process, at a page's begin. It stays mapped there until this is dropped.
    pub(crate) fn host_address(&self) -> usize {
        self.mapping.region().as_ptr().expose_provenance()
    }

    /// Takes back the making of this memory: a file that it made goes. One that was there stays as it is.
    pub fn abandon(&self) {
        self.created.iter().for_each(CreatedFile::remove);
    }

    /// Makes all of its bytes zeros, with as little memory as the host needs for that.
    ///
    /// # Errors
    ///
    /// What the host said of its file.
    pub fn clear(&self) -> io::Result<()> {
        let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let shared = self.file.as_ref().filter(|_| self.mapping.sharing() == Sharing::Shared && self.takes_writes());
        if shared.is_some_and(|file| rustix::fs::fallocate(file, holes, 0, self.len_bytes()).is_ok()) {
            self.mark_dirty(0, self.len_bytes());
            return Ok(());
        }
        let zeros = vec![0; CLEARED_AT_ONCE_BYTES];
        let mut there = vec![0; CLEARED_AT_ONCE_BYTES];
        for range in self.data_ranges()? {
            for at in range.clone().step_by(CLEARED_AT_ONCE_BYTES) {
                let len = CLEARED_AT_ONCE_BYTES.min((range.end - at) as usize);
                // Inside the memory, so that neither can be out of range.
                self.read(at, &mut there[..len]).map_err(io::Error::other)?;
                if there[..len] != zeros[..len] {
                    self.write(at, &zeros[..len]).map_err(io::Error::other)?;
                }
            }
        }
        Ok(())
    }

    /// Does what its backend's end asks for: with `discard-data`, its bytes leave the file, which keeps its length.
    ///
    /// # Errors
    ///
    /// What the host said; a file system may have no holes.
    pub fn discard(&self) -> io::Result<()> {
        match (&self.file, self.discard) {
            (Some(file), Discard::Discard) => {
                let holes = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(file, holes, 0, self.len_bytes())?;
                self.mark_dirty(0, self.len_bytes());
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Backing {
    fn open(spec: &HostMemorySpec, surroundings: Surroundings<'_>) -> Result<Self, HostMemoryError> {
        match &spec.kind {
            BackendKind::Ram => Ok(Self { file: None, created: None }),
            BackendKind::Memfd { seal, huge_pages } => {
                let file = memfd::create(spec.size_bytes, *seal, *huge_pages)?;
                Ok(Self { file: Some(file), created: None })
            }
            BackendKind::File { path, access, .. } => {
                let dir = surroundings.backend_dir.ok_or_else(|| FileError::NoDirectory { path: path.clone() })?;
                let request =
                    FileRequest { path, size_bytes: spec.size_bytes, access: *access, missing: surroundings.missing };
                Ok(dir.open_file(&request)?)
            }
        }
    }
}

/// The size as this host counts addresses.
fn len(size_bytes: u64) -> Result<usize, HostMemoryError> {
    if size_bytes == 0 {
        return Err(HostMemoryError::Empty);
    }
    let len = usize::try_from(size_bytes).ok().filter(|len| isize::try_from(*len).is_ok());
    len.ok_or(HostMemoryError::TooLarge { size_bytes })
}

fn discard(kind: &BackendKind) -> Discard {
    match kind {
        BackendKind::File { discard, .. } => *discard,
        BackendKind::Ram | BackendKind::Memfd { .. } => Discard::Keep,
    }
}

fn protection(spec: &HostMemorySpec) -> Protection {
    match (&spec.kind, spec.sharing) {
        (BackendKind::File { access: FileAccess::ReadOnly, .. }, Sharing::Shared) => Protection::ReadOnly,
        _ => Protection::ReadWrite,
    }
}

fn map(spec: &HostMemorySpec, len: usize, file: Option<&File>) -> Result<Mapping, HostMemoryError> {
    let size_bytes = spec.size_bytes;
    let page_bytes = page_bytes(file).map_err(|source| HostMemoryError::Map { size_bytes, source })?;
    let is_huge = page_bytes > rustix::param::page_size();
    if is_huge && !len.is_multiple_of(page_bytes) {
        return Err(HostMemoryError::NotWholePages { size_bytes, page_bytes: page_bytes as u64 });
    }
    // A huge page that is not there when it is touched is a signal: they are always set aside.
    let reservation = if is_huge { Reservation::Reserved } else { spec.reservation };
    let align_bytes = match spec.kind {
        BackendKind::File { align_bytes, .. } => align_bytes.unwrap_or_default(),
        BackendKind::Ram | BackendKind::Memfd { .. } => 0,
    };
    // Anonymous memory has nobody to be shared with. Were it mapped as if, the host would keep its bytes in a file that
    // nobody can ask where it has holes, and the page map would not tell of those that were swapped out.
    let request = MappingRequest {
        len,
        page_bytes,
        align_bytes,
        sharing: if file.is_some() { spec.sharing } else { Sharing::Private },
        protection: protection(spec),
        reservation,
    };
    Mapping::new(&request, file).map_err(|source| {
        if is_huge {
            HostMemoryError::HugePages { size_bytes, page_bytes: Some(page_bytes as u64), source }
        } else {
            HostMemoryError::Map { size_bytes, source }
        }
    })
}

fn preallocate(
    spec: &HostMemorySpec,
    mapping: &Mapping,
    backing: &Backing,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(), HostMemoryError> {
    if spec.population == Population::OnDemand {
        return Ok(());
    }
    let size_bytes = spec.size_bytes;
    let is_written = !matches!(spec.kind, BackendKind::File { access: FileAccess::ReadOnly, .. });
    let file = backing.file.as_ref().filter(|_| is_written);
    // Huge pages were set aside when they were mapped.
    if mapping.page_bytes() == rustix::param::page_size() {
        prealloc::check_room(size_bytes, spec.sharing, backing.file.as_ref())?;
    }
    Filling::new(mapping, file, progress).run().map_err(|source| HostMemoryError::Prealloc { size_bytes, source })
}
