//! Host memory as its users have it: every property obeyed, every path held below its directory.

mod bytes;
mod data_ranges;
mod descriptors;
mod dirty;
mod files;
mod huge_pages;
mod lazy;
mod paths;
mod populated;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use device::backends::{BackendKind, Discard, FileAccess, Population, Reservation, Seal, Sharing};
use memory::{BackendDir, HostMemory, HostMemoryError, HostMemorySpec, MissingFile, Surroundings};

const PAGE: u64 = 4096;

fn of_kind(kind: BackendKind, size_bytes: u64, sharing: Sharing) -> HostMemorySpec {
    let (population, reservation) = (Population::OnDemand, Reservation::Reserved);
    HostMemorySpec { kind, size_bytes, sharing, population, reservation }
}

fn memfd() -> BackendKind {
    BackendKind::Memfd { seal: Seal::Sealed, huge_pages: None }
}

fn file(path: &str, access: FileAccess) -> BackendKind {
    BackendKind::File { path: path.into(), access, discard: Discard::Keep, align_bytes: None }
}

fn create(spec: &HostMemorySpec) -> Result<HostMemory, HostMemoryError> {
    HostMemory::create(spec, Surroundings { backend_dir: None, missing: MissingFile::Create, progress: &|_, _| () })
}

/// All of it.
fn bytes(memory: &HostMemory) -> Vec<u8> {
    let mut bytes = vec![0x55; memory.len_bytes() as usize];
    memory.read(0, &mut bytes).unwrap();
    bytes
}

/// A list of one range.
fn one(range: Range<u64>) -> [Range<u64>; 1] {
    [range]
}

/// A backend directory with something beside it that nobody may reach.
struct Place {
    top: tempfile::TempDir,
    dir: BackendDir,
}

impl Place {
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir(top.path().join("dir")).unwrap();
        fs::write(top.path().join("secret"), [7; 100]).unwrap();
        let dir = BackendDir::open(&top.path().join("dir")).unwrap();
        Self { top, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.top.path().join("dir").join(name)
    }

    fn outside(&self) -> &Path {
        self.top.path()
    }

    fn make(&self, spec: &HostMemorySpec) -> Result<HostMemory, HostMemoryError> {
        self.make_missing(spec, MissingFile::Create)
    }

    fn make_missing(&self, spec: &HostMemorySpec, missing: MissingFile) -> Result<HostMemory, HostMemoryError> {
        HostMemory::create(spec, Surroundings { backend_dir: Some(&self.dir), missing, progress: &|_, _| () })
    }

    fn refused(&self, path: &str, access: FileAccess) -> String {
        self.make(&of_kind(file(path, access), PAGE, Sharing::Shared)).unwrap_err().to_string()
    }
}
