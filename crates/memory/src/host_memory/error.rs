//! Why host memory cannot be had.

use std::fmt;
use std::io;

use thiserror::Error;

/// Why memory could not be created.
#[derive(Debug, Error)]
pub enum HostMemoryError {
    /// Nothing to map.
    #[error("host memory of 0 bytes cannot be mapped")]
    Empty,
    /// More than the host can address.
    #[error("host memory of {size_bytes} bytes is more than this host can address")]
    TooLarge {
        /// What was asked.
        size_bytes: u64,
    },
    /// The memfd could not be made.
    #[error("memfd of {size_bytes} bytes: {source}")]
    Memfd {
        /// What was asked.
        size_bytes: u64,
        /// What the host said.
        source: io::Error,
    },
    /// There are no huge pages, or not enough.
    #[error(
        "{size_bytes} bytes in huge pages of {}: {source}; get pages with 'sysctl vm.nr_hugepages=N' (the default size) or N in /sys/kernel/mm/hugepages/hugepages-<KiB>kB/nr_hugepages, or give hugetlb=off",
        huge_page_size(*page_bytes)
    )]
    HugePages {
        /// What was asked.
        size_bytes: u64,
        /// Bytes of a page; `None` is the host's default.
        page_bytes: Option<u64>,
        /// What the host said.
        source: io::Error,
    },
    /// Not a whole number of huge pages.
    #[error("{size_bytes} bytes are no whole number of huge pages of {page_bytes} bytes: give a size that is")]
    NotWholePages {
        /// What was asked.
        size_bytes: u64,
        /// Bytes of a page.
        page_bytes: u64,
    },
    /// The file cannot be had.
    #[error(transparent)]
    File(#[from] FileError),
    /// The mapping failed.
    #[error("mapping {size_bytes} bytes of host memory: {source}{}", overcommit_hint(source))]
    Map {
        /// What was asked.
        size_bytes: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The host has not enough memory for all pages at once.
    #[error(
        "preallocating {size_bytes} bytes of host memory: the host has {available_bytes} left; give a smaller size or prealloc=off"
    )]
    NotEnough {
        /// What was asked.
        size_bytes: u64,
        /// What the host can give without ending a process for it.
        available_bytes: u64,
    },
    /// The file system has not enough room.
    #[error(
        "preallocating a file of {size_bytes} bytes: it needs {more_bytes} bytes more and its file system has {available_bytes} left; make room, or give a smaller size or prealloc=off"
    )]
    NoRoom {
        /// What was asked.
        size_bytes: u64,
        /// What the file does not have yet.
        more_bytes: u64,
        /// What the file system can give.
        available_bytes: u64,
    },
    /// The host gave some pages their memory and not all.
    #[error("preallocating {size_bytes} bytes of host memory: {source}; give a smaller size or prealloc=off")]
    Prealloc {
        /// What was asked.
        size_bytes: u64,
        /// What the host said.
        source: io::Error,
    },
    /// Memory that is a file or memfd itself has its bytes there, and not in other files.
    #[error("only anonymous memory can be laid over files: create this one, and write the bytes into it")]
    NotLazy,
    /// A stretch of a file cannot be a part of it.
    #[error("{len_bytes:#x} bytes of a file at offset {offset_bytes:#x} of host memory: {reason}")]
    Run {
        /// Where in the memory it begins, in bytes.
        offset_bytes: u64,
        /// Length in bytes.
        len_bytes: u64,
        /// What stands in the way.
        reason: RunError,
    },
    /// A descriptor is not of this memory.
    #[error("host memory by a file descriptor: {0}")]
    Descriptor(#[from] DescriptorError),
}

/// Why a stretch of a file cannot be a part of a memory.
#[derive(Debug, Error)]
pub enum RunError {
    /// No bytes, or not all of them inside the memory.
    #[error("they are not inside its {size_bytes:#x} bytes")]
    OutsideMemory {
        /// How long the memory is.
        size_bytes: u64,
    },
    /// Not whole pages.
    #[error(
        "from offset {file_offset_bytes:#x} of the file on, they do not begin in both, and end, at whole pages of {page_bytes} bytes"
    )]
    Unaligned {
        /// Where in the file it begins, in bytes.
        file_offset_bytes: u64,
        /// Bytes of a page.
        page_bytes: u64,
    },
    /// The file does not have them: a touch would be a signal.
    #[error("the file has {file_bytes:#x} bytes, and they are from offset {file_offset_bytes:#x} on: it was cut short")]
    OutsideFile {
        /// Where in the file it begins, in bytes.
        file_offset_bytes: u64,
        /// How long the file is.
        file_bytes: u64,
    },
    /// Two have the same bytes of the memory.
    #[error("the {len_bytes:#x} bytes at offset {offset_bytes:#x} share some of them")]
    Overlap {
        /// Where in the memory the other one begins, in bytes.
        offset_bytes: u64,
        /// Its length in bytes.
        len_bytes: u64,
    },
    /// What is open is no regular file.
    #[error("what is open is {kind} and not a regular file")]
    NotRegular {
        /// What it is.
        kind: FileKind,
    },
    /// The host does not map or read it.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// Why a descriptor is not of a memory.
#[derive(Debug, Error)]
pub enum DescriptorError {
    /// What is private is in no file.
    #[error("memory that is not shared (share=off) is in no file")]
    Private,
    /// What is open is no regular file.
    #[error("it is of {kind} and not of a regular file or memfd")]
    NotRegular {
        /// What it is.
        kind: FileKind,
    },
    /// The file is too short: a touch would be a signal.
    #[error("its file has {file_bytes} bytes, the memory has {size_bytes}")]
    TooShort {
        /// How long the file is.
        file_bytes: u64,
        /// How long the memory is.
        size_bytes: u64,
    },
    /// The host does not look at it.
    #[error(transparent)]
    Host(#[from] io::Error),
}

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory,
    /// A FIFO.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharacterDevice,
    /// A block device.
    BlockDevice,
    /// Something else.
    Other,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::Fifo => "a FIFO",
            Self::Socket => "a socket",
            Self::CharacterDevice => "a character device",
            Self::BlockDevice => "a block device",
            Self::Other => "something else",
        })
    }
}

/// Why a file cannot stand behind a memory. Paths are as they were given.
#[derive(Debug, Error)]
pub enum FileError {
    /// Nobody said where files may be.
    #[error("mem-path={path}: no directory is open to files of backends; start with --backend-dir DIR")]
    NoDirectory {
        /// The path.
        path: String,
    },
    /// The directory of all files cannot be opened.
    #[error("backend directory {dir}: {source}; name a directory that is there and can be searched")]
    Directory {
        /// The directory.
        dir: String,
        /// What the host said.
        source: io::Error,
    },
    /// The host cannot confine a path to a directory.
    #[error(
        "mem-path={path}: this host has no openat2, without which a path cannot be held below {dir}; it needs Linux 5.6"
    )]
    NoConfinement {
        /// The path.
        path: String,
        /// The directory.
        dir: String,
    },
    /// The path leaves the directory.
    #[error("mem-path={path} is not below {dir}: give a path relative to it")]
    Outside {
        /// The path.
        path: String,
        /// The directory.
        dir: String,
    },
    /// The path goes over a symbolic link.
    #[error("mem-path={path}: a part of it below {dir} is a symbolic link, and none is followed; name the file itself")]
    SymbolicLink {
        /// The path.
        path: String,
        /// The directory.
        dir: String,
    },
    /// The path names no regular file.
    #[error("mem-path={path} is {kind} and not a regular file")]
    NotRegular {
        /// The path.
        path: String,
        /// What it is.
        kind: FileKind,
    },
    /// The directory that the file should be in is not there.
    #[error("mem-path={path}: the directory that it is in is not there below {dir}; make it first")]
    NoParent {
        /// The path.
        path: String,
        /// The directory.
        dir: String,
    },
    /// A file to be read only is not there.
    #[error(
        "mem-path={path}: no such file below {dir}, and readonly=on makes none; make it first, or give readonly=off"
    )]
    NothingToRead {
        /// The path.
        path: String,
        /// The directory.
        dir: String,
    },
    /// A file that was there is not.
    #[error(
        "mem-path={path}: the file of {size_bytes} bytes that was below {dir} is gone; put it back, or name the --backend-dir that has it"
    )]
    Gone {
        /// The path.
        path: String,
        /// The directory.
        dir: String,
        /// How long it was.
        size_bytes: u64,
    },
    /// A file that was to be made is there.
    #[error(
        "mem-path={path} is there already below {dir}, and its bytes are somebody's; move it away, or give another --backend-dir"
    )]
    There {
        /// The path.
        path: String,
        /// The directory.
        dir: String,
    },
    /// A file that was long enough is not.
    #[error(
        "mem-path={path} has {file_bytes} bytes and had {size_bytes}: what was behind them is gone; put the file back, or go on with zeros there after 'truncate -s {size_bytes}'"
    )]
    Shrunk {
        /// The path.
        path: String,
        /// How long the file is.
        file_bytes: u64,
        /// How long it was at least.
        size_bytes: u64,
    },
    /// A file to be read only is too short.
    #[error(
        "mem-path={path} has {file_bytes} bytes, the backend has {size_bytes}, and readonly=on makes no file longer; give a size that it has"
    )]
    TooShort {
        /// The path.
        path: String,
        /// How long the file is.
        file_bytes: u64,
        /// What was asked.
        size_bytes: u64,
    },
    /// The file could not be made longer.
    #[error("mem-path={path}: making it {size_bytes} bytes long: {source}")]
    Extend {
        /// The path.
        path: String,
        /// What was asked.
        size_bytes: u64,
        /// What the host said.
        source: io::Error,
    },
    /// The host did not open it.
    #[error("mem-path={path}: {source}")]
    Open {
        /// The path.
        path: String,
        /// What the host said.
        source: io::Error,
    },
}

fn huge_page_size(page_bytes: Option<u64>) -> String {
    page_bytes.map_or_else(|| "the host's default size".into(), |bytes| format!("{bytes} bytes ({} KiB)", bytes >> 10))
}

fn overcommit_hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::OutOfMemory => "; give a smaller size, or reserve=off to set nothing aside",
        _ => "",
    }
}
