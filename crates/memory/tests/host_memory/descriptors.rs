//! Memory by descriptor: the same bytes, and nothing else is taken for one.

use std::fs::File;
use std::os::fd::OwnedFd;

use device::backends::{BackendKind, FileAccess, HugePages, Seal, Sharing};
use memory::{DescriptorError, HostMemory, HostMemoryError, HostMemorySpec};

use crate::{PAGE, Place, create, file, memfd, of_kind, one};

const SIZE: u64 = 3 * PAGE + 8;

fn refused(fd: impl Into<OwnedFd>, spec: &HostMemorySpec) -> HostMemoryError {
    HostMemory::from_fd(fd.into(), spec).unwrap_err()
}

#[test]
fn a_descriptor_is_the_same_memory_and_gives_another_one() {
    let place = Place::new();
    let unsealed = BackendKind::Memfd { seal: Seal::Unsealed, huge_pages: None::<HugePages> };
    for kind in [memfd(), unsealed, file("tm0", FileAccess::ReadWrite)] {
        let spec = of_kind(kind, SIZE, Sharing::Shared);
        let first = place.make(&spec).unwrap();
        first.write(PAGE, b"first").unwrap();
        let fd = first.share().unwrap().expect("it is shared");
        let flags = rustix::io::fcntl_getfd(&fd).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::empty()).unwrap();
        let second = HostMemory::from_fd(fd, &spec).unwrap();
        assert_eq!((second.len_bytes(), second.is_tracked()), (SIZE, false));
        second.write(2 * PAGE, b"second").unwrap();
        drop(first);
        let again = second.share().unwrap().expect("it still is");
        let third = HostMemory::from_fd(again, &spec).unwrap();
        drop(second);
        let mut bytes = [0; 6];
        third.read(2 * PAGE, &mut bytes).unwrap();
        assert_eq!(&bytes, b"second");
        third.read(PAGE, &mut bytes[..5]).unwrap();
        assert_eq!(&bytes[..5], b"first");
        assert!(third.data_ranges().unwrap() == one(PAGE..3 * PAGE));
        assert!(third.write(SIZE, &[1]).is_err());
    }
}

#[test]
fn what_is_this_process_own_has_none() {
    let place = Place::new();
    for kind in [BackendKind::Ram, memfd(), file("tm0", FileAccess::ReadWrite)] {
        assert!(place.make(&of_kind(kind, SIZE, Sharing::Private)).unwrap().share().unwrap().is_none());
    }
    assert!(create(&of_kind(BackendKind::Ram, SIZE, Sharing::Shared)).unwrap().share().unwrap().is_none());
}

#[test]
fn a_file_that_is_only_read_stays_so() {
    let place = Place::new();
    std::fs::write(place.path("tm0"), vec![1; SIZE as usize]).unwrap();
    let spec = of_kind(file("tm0", FileAccess::ReadOnly), SIZE, Sharing::Shared);
    let fd = place.make(&spec).unwrap().share().unwrap().unwrap();
    // Its descriptor is for reading.
    let written = of_kind(file("tm0", FileAccess::ReadWrite), SIZE, Sharing::Shared);
    let error = refused(fd.try_clone().unwrap(), &written);
    assert!(matches!(error, HostMemoryError::Map { size_bytes: SIZE, .. }), "{error}");
    let memory = HostMemory::from_fd(fd, &spec).unwrap();
    memory.write(0, &[2; 8]).unwrap();
    assert_eq!(memory.read_u64(0), Ok(0x0101_0101_0101_0101));
}

#[test]
fn what_is_no_memory_is_refused() {
    let place = Place::new();
    let spec = of_kind(memfd(), SIZE, Sharing::Shared);
    let short = create(&of_kind(memfd(), SIZE - 1, Sharing::Shared)).unwrap().share().unwrap().unwrap();
    let said = refused(short.try_clone().unwrap(), &spec);
    assert_eq!(said.to_string(), "host memory by a file descriptor: its file has 12295 bytes, the memory has 12296");
    let said = refused(short, &of_kind(memfd(), SIZE - 1, Sharing::Private));
    assert!(matches!(said, HostMemoryError::Descriptor(DescriptorError::Private)), "{said}");
    for (path, what) in [("/dev/zero", "a character device"), ("/", "a directory")] {
        let said = refused(File::open(path).unwrap(), &spec).to_string();
        assert!(said.contains(&format!("of {what} and not of a regular file")), "{said}");
    }
    let (reader, _writer) = std::io::pipe().unwrap();
    assert!(refused(reader, &spec).to_string().contains("a FIFO"));
    let path = rustix::fs::open(place.outside().join("secret"), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
    let said = refused(path.unwrap(), &of_kind(memfd(), 100, Sharing::Shared));
    assert!(matches!(said, HostMemoryError::Map { size_bytes: 100, .. }), "{said}");
    let empty = create(&spec).unwrap().share().unwrap().unwrap();
    assert!(matches!(refused(empty, &of_kind(memfd(), 0, Sharing::Shared)), HostMemoryError::Empty));
}
