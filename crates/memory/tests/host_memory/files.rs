//! Files behind memory: each property, as another reader of the file sees it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use device::backends::{BackendKind, Discard, FileAccess, HugePages, Population, Seal, Sharing};
use memory::{HostMemorySpec, MissingFile};

use crate::{PAGE, Place, create, file, of_kind};

const SIZE: u64 = 3 * PAGE;

fn shared(access: FileAccess) -> HostMemorySpec {
    of_kind(file("tm0", access), SIZE, Sharing::Shared)
}

fn private(access: FileAccess) -> HostMemorySpec {
    of_kind(file("tm0", access), SIZE, Sharing::Private)
}

#[test]
fn a_file_that_is_not_there_is_made_for_its_owner_alone() {
    let place = Place::new();
    let _memory = place.make(&shared(FileAccess::ReadWrite)).unwrap();
    let metadata = fs::metadata(place.path("tm0")).unwrap();
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.len()), (0o600, SIZE));
    // Nothing of it is on the disk before it is touched.
    assert_eq!(metadata.blocks(), 0);
}

#[test]
fn what_is_shared_is_in_the_file_and_begins_the_next_memory() {
    let place = Place::new();
    place.make(&shared(FileAccess::ReadWrite)).unwrap().write(PAGE + 1, b"kept").unwrap();
    assert_eq!(&fs::read(place.path("tm0")).unwrap()[PAGE as usize + 1..][..4], b"kept");
    let again = place.make_missing(&shared(FileAccess::ReadWrite), MissingFile::Refuse).unwrap();
    let mut bytes = [0; 4];
    again.read(PAGE + 1, &mut bytes).unwrap();
    assert_eq!(&bytes, b"kept");
}

#[test]
fn what_is_private_never_reaches_the_file() {
    for access in [FileAccess::ReadWrite, FileAccess::ReadOnly] {
        let place = Place::new();
        fs::write(place.path("tm0"), vec![1; SIZE as usize]).unwrap();
        for population in [Population::OnDemand, Population::Preallocated] {
            let memory = place.make(&HostMemorySpec { population, ..private(access) }).unwrap();
            assert_eq!(memory.read_u8(5), Ok(1));
            memory.write(5, &[2; 100]).unwrap();
            assert_eq!(memory.read_u8(104), Ok(2));
            assert_eq!(fs::read(place.path("tm0")).unwrap(), vec![1; SIZE as usize]);
        }
    }
}

#[test]
fn writes_to_a_shared_file_that_is_only_read_vanish() {
    let place = Place::new();
    fs::write(place.path("tm0"), vec![1; SIZE as usize]).unwrap();
    for population in [Population::OnDemand, Population::Preallocated] {
        let memory = place.make(&HostMemorySpec { population, ..shared(FileAccess::ReadOnly) }).unwrap();
        for len in [1, 2, 3, 4, 8, 100] {
            memory.write(16, &vec![2; len]).unwrap();
            memory.write(17, &vec![2; len]).unwrap();
        }
        assert!(memory.write(SIZE, &[2]).is_err() && memory.write_u64(SIZE - 7, 2).is_err());
        assert_eq!(memory.read_u64(16), Ok(0x0101_0101_0101_0101));
    }
    assert_eq!(fs::read(place.path("tm0")).unwrap(), vec![1; SIZE as usize]);
}

#[test]
fn a_file_is_made_longer_and_never_shorter() {
    let place = Place::new();
    fs::write(place.path("tm0"), b"short").unwrap();
    let memory = place.make(&shared(FileAccess::ReadWrite)).unwrap();
    assert_eq!(fs::metadata(place.path("tm0")).unwrap().len(), SIZE);
    let mut bytes = [1; 6];
    memory.read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"short\0");
    drop(memory);

    fs::write(place.path("tm0"), vec![1; 9 * PAGE as usize]).unwrap();
    let memory = place.make(&shared(FileAccess::ReadWrite)).unwrap();
    assert_eq!(fs::metadata(place.path("tm0")).unwrap().len(), 9 * PAGE);
    assert!(memory.read_u8(SIZE).is_err());
}

#[test]
fn a_file_that_is_only_read_is_neither_made_nor_made_longer() {
    let place = Place::new();
    let said = place.make(&shared(FileAccess::ReadOnly)).unwrap_err().to_string();
    assert!(said.contains("mem-path=tm0: no such file") && said.contains("readonly=off"), "{said}");
    assert!(!place.path("tm0").exists());
    fs::write(place.path("tm0"), b"short").unwrap();
    let said = place.make(&private(FileAccess::ReadOnly)).unwrap_err().to_string();
    assert!(said.contains("has 5 bytes, the backend has 12288"), "{said}");
    assert_eq!(fs::read(place.path("tm0")).unwrap(), b"short");
}

#[test]
fn a_file_that_was_there_and_is_gone_is_not_made_again() {
    let place = Place::new();
    let said = place.make_missing(&shared(FileAccess::ReadWrite), MissingFile::Refuse).unwrap_err().to_string();
    assert!(said.contains("the file of 12288 bytes") && said.contains("is gone; put it back"), "{said}");
    assert!(!place.path("tm0").exists());
    fs::write(place.path("tm0"), b"short").unwrap();
    let said = place.make_missing(&shared(FileAccess::ReadWrite), MissingFile::Refuse).unwrap_err().to_string();
    assert!(said.contains("has 5 bytes and had 12288") && said.contains("truncate -s 12288"), "{said}");
    assert_eq!(fs::read(place.path("tm0")).unwrap(), b"short");
}

#[test]
fn discard_takes_the_bytes_out_and_leaves_what_is_behind_them() {
    for (discard, expected) in [(Discard::Keep, 1), (Discard::Discard, 0)] {
        let place = Place::new();
        fs::write(place.path("tm0"), vec![1; 4 * PAGE as usize]).unwrap();
        let kind = BackendKind::File { path: "tm0".into(), access: FileAccess::ReadWrite, discard, align_bytes: None };
        let memory = place.make(&of_kind(kind, SIZE, Sharing::Shared)).unwrap();
        memory.discard().unwrap();
        drop(memory);
        let bytes = fs::read(place.path("tm0")).unwrap();
        assert_eq!(bytes[..SIZE as usize], vec![expected; SIZE as usize]);
        assert_eq!(bytes[SIZE as usize..], vec![1; PAGE as usize], "its length and what is not the backend's stay");
    }
}

/// The end of a process is not the end of a backend.
#[test]
fn dropping_a_memory_discards_nothing() {
    let place = Place::new();
    let (access, discard) = (FileAccess::ReadWrite, Discard::Discard);
    let kind = BackendKind::File { path: "tm0".into(), access, discard, align_bytes: None };
    place.make(&of_kind(kind, SIZE, Sharing::Shared)).unwrap().write(0, b"kept").unwrap();
    assert_eq!(&fs::read(place.path("tm0")).unwrap()[..4], b"kept");
}

#[test]
fn a_mapping_begins_where_align_says_and_nothing_is_left_around_it() {
    let place = Place::new();
    for align_bytes in [PAGE, 2 << 20, 1 << 30] {
        let path = format!("align{align_bytes}");
        let (access, discard) = (FileAccess::ReadWrite, Discard::Keep);
        let kind = BackendKind::File { path: path.clone(), access, discard, align_bytes: Some(align_bytes) };
        let memory = place.make(&of_kind(kind, SIZE, Sharing::Shared)).unwrap();
        memory.write(SIZE - 4, b"last").unwrap();
        let line = mapping(&path).expect("a mapping");
        let (start, end) = line;
        assert!(start.is_multiple_of(align_bytes), "{start:#x} is no multiple of {align_bytes:#x}");
        assert_eq!(end - start, SIZE);
        drop(memory);
        assert_eq!(mapping(&path), None, "what was mapped is unmapped");
    }
    let access = FileAccess::ReadWrite;
    let kind = BackendKind::File { path: "x".into(), access, discard: Discard::Keep, align_bytes: Some(1 << 63) };
    assert!(place.make(&of_kind(kind, SIZE, Sharing::Shared)).is_err());
    assert!(!place.path("x").exists(), "a file that was made for nothing goes");
}

/// Where this process maps the file of this name.
fn mapping(name: &str) -> Option<(u64, u64)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let line = maps.lines().find(|line| line.ends_with(&format!("/{name}")))?;
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some((u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?))
}

#[test]
fn an_abandoned_memory_takes_its_file_with_it_only_where_it_made_it() {
    let place = Place::new();
    place.make(&shared(FileAccess::ReadWrite)).unwrap().abandon();
    assert!(!place.path("tm0").exists());
    fs::write(place.path("tm0"), b"mine").unwrap();
    place.make(&shared(FileAccess::ReadWrite)).unwrap().abandon();
    assert_eq!(&fs::read(place.path("tm0")).unwrap()[..4], b"mine");
}

#[test]
fn a_size_that_no_file_has_is_an_error_and_leaves_none() {
    let place = Place::new();
    for population in [Population::OnDemand, Population::Preallocated] {
        let spec = of_kind(file("tm0", FileAccess::ReadWrite), i64::MAX as u64, Sharing::Shared);
        assert!(place.make(&HostMemorySpec { population, ..spec }).is_err());
        assert!(!place.path("tm0").exists());
    }
}

#[test]
fn a_memfd_of_this_process_has_its_seals_and_its_size() {
    for (seal, size_bytes) in [(Seal::Sealed, 0x77_1000), (Seal::Unsealed, 0x77_2000)] {
        let kind = BackendKind::Memfd { seal, huge_pages: None::<HugePages> };
        let _memory = create(&of_kind(kind, size_bytes, Sharing::Shared)).unwrap();
        let fds = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
        let of_size = |path: &std::path::Path| fs::metadata(path).is_ok_and(|found| found.len() == size_bytes);
        let path = fds.map(|fd| fd.path()).find(|path| of_size(path)).expect("its descriptor");
        assert!(fs::read_link(&path).unwrap().to_string_lossy().contains("memfd:dcd-memory"));
        let shrunk = fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size_bytes - PAGE);
        assert_eq!(shrunk.is_err(), seal == Seal::Sealed);
    }
}
