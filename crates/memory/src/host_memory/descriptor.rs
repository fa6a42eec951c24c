//! Memory as a file descriptor, which another process can be given, or this one later.
//!
//! ```text
//!  HostMemory ──share──▶ descriptor ┄┄ socket, or whoever keeps descriptors ┄┄▶ from_fd ──▶ HostMemory
//!           └───────────────── the same bytes, seen by both at once ───────────────────────┘
//! ```
//!
//! Only what is mapped as shared is the file's: memfds and files. Deliberately absent: how a descriptor travels.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use device::backends::{Reservation, Sharing};
use rustix::io::FdFlags;

use super::error::{DescriptorError, HostMemoryError};
use super::{Backing, HostMemory, HostMemorySpec, backend_dir};

impl HostMemory {
    /// A descriptor of the file that its bytes are in; `None` where they are this process's own. Not inherited by programs
    /// that this one starts.
    ///
    /// # Errors
    ///
    /// There are no descriptors left.
    pub fn share(&self) -> io::Result<Option<OwnedFd>> {
        match (&self.file, self.mapping.sharing()) {
            (Some(file), Sharing::Shared) => Ok(Some(rustix::io::fcntl_dupfd_cloexec(file, 0)?)),
            _ => Ok(None),
        }
    }

    /// The memory that a descriptor is of, as [`HostMemory::share`] gives them: its first `size_bytes`, with the bytes that
    /// are there. Paths, seals and population of the description do not matter: they were obeyed when it was made.
    ///
    /// # Errors
    ///
    /// [`HostMemoryError::Descriptor`] for what is no regular file or memfd, or too short, or for memory that is not
    /// shared; the file may not be mapped as it should be.
    pub fn from_fd(fd: OwnedFd, spec: &HostMemorySpec) -> Result<Self, HostMemoryError> {
        let size_bytes = spec.size_bytes;
        let len = super::len(size_bytes)?;
        if spec.sharing == Sharing::Private {
            return Err(DescriptorError::Private.into());
        }
        let file = File::from(fd);
        check(&file, size_bytes)?;
        // Its pages were reserved, or not, when it was made.
        let spec = HostMemorySpec { reservation: Reservation::Unreserved, ..spec.clone() };
        let mapping = super::map(&spec, len, Some(&file))?;
        Ok(Self::new(mapping, Backing { file: Some(file), created: None }, &spec.kind))
    }
}

fn check(file: &File, size_bytes: u64) -> Result<(), DescriptorError> {
    if let Some(kind) = backend_dir::other_kind(file)? {
        return Err(DescriptorError::NotRegular { kind });
    }
    let file_bytes = file.metadata()?.len();
    if file_bytes < size_bytes {
        return Err(DescriptorError::TooShort { file_bytes, size_bytes });
    }
    // One that came from elsewhere may not have it.
    rustix::io::fcntl_setfd(file, FdFlags::CLOEXEC).map_err(io::Error::from)?;
    Ok(())
}
