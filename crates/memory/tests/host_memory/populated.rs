//! Preallocation: complete, heard of, and an error where there is not enough.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

use device::backends::{BackendKind, FileAccess, Population, Sharing};
use memory::{HostMemory, HostMemoryError, HostMemorySpec, MissingFile, Surroundings};

use crate::{Place, file, memfd, of_kind};

const MIB: u64 = 1 << 20;

/// What was heard of a preallocation, in order.
fn heard(place: &Place, spec: &HostMemorySpec) -> (Result<HostMemory, HostMemoryError>, Vec<(u64, u64)>) {
    let heard = Mutex::new(Vec::new());
    let progress = |done, total| heard.lock().unwrap().push((done, total));
    let surroundings =
        Surroundings { backend_dir: Some(&place.dir), missing: MissingFile::Create, progress: &progress };
    let made = HostMemory::create(spec, surroundings);
    (made, heard.into_inner().unwrap())
}

#[test]
fn progress_never_falls_and_ends_with_everything() {
    let place = Place::new();
    // Three chunks of 64 MiB, the last one short.
    let size_bytes = 130 * MIB + 5;
    for kind in [BackendKind::Ram, memfd(), file("tm0", FileAccess::ReadWrite)] {
        let spec = of_kind(kind, size_bytes, Sharing::Shared);
        let spec = HostMemorySpec { population: Population::Preallocated, ..spec };
        let (made, heard) = heard(&place, &spec);
        made.unwrap();
        assert_eq!(heard.len(), 3, "{heard:?}");
        assert!(heard.is_sorted(), "{heard:?}");
        assert_eq!(heard.last(), Some(&(size_bytes, size_bytes)));
    }
    let (made, heard) = heard(&place, &of_kind(BackendKind::Ram, MIB, Sharing::Private));
    assert!(made.is_ok() && heard.is_empty(), "nothing is said where nothing is preallocated");
}

#[test]
fn preallocated_pages_are_there() {
    let place = Place::new();
    let spec = of_kind(file("tm0", FileAccess::ReadWrite), 8 * MIB, Sharing::Shared);
    let _memory = place.make(&HostMemorySpec { population: Population::Preallocated, ..spec }).unwrap();
    assert!(fs::metadata(place.path("tm0")).unwrap().blocks() * 512 >= 8 * MIB);

    // A length that no other mapping of this process has.
    let spec = of_kind(BackendKind::Ram, 0x987_6000, Sharing::Private);
    let memory = place.make(&HostMemorySpec { population: Population::Preallocated, ..spec }).unwrap();
    let smaps = fs::read_to_string("/proc/self/smaps").unwrap();
    let kib = memory.len_bytes() >> 10;
    let (_, after) = smaps.split_once(&format!("Size: {kib:>18} kB")).unwrap();
    let resident = after.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    assert_eq!(resident.trim(), format!("{kib} kB"));
}

#[test]
fn preallocation_keeps_the_bytes_of_a_file() {
    let place = Place::new();
    fs::write(place.path("tm0"), b"kept").unwrap();
    let spec = of_kind(file("tm0", FileAccess::ReadWrite), MIB, Sharing::Shared);
    place.make(&HostMemorySpec { population: Population::Preallocated, ..spec }).unwrap();
    assert_eq!(&fs::read(place.path("tm0")).unwrap()[..4], b"kept");
}

/// Once the host's answer to a memfd that it had no memory for was to end the process.
#[test]
fn what_the_host_does_not_have_is_an_error() {
    let place = Place::new();
    for kind in [BackendKind::Ram, memfd()] {
        for sharing in [Sharing::Private, Sharing::Shared] {
            let spec = of_kind(kind.clone(), 1 << 44, sharing);
            let (made, heard) = heard(&place, &HostMemorySpec { population: Population::Preallocated, ..spec });
            let said = made.unwrap_err();
            assert!(matches!(said, HostMemoryError::NotEnough { .. } | HostMemoryError::Map { .. }), "{said}");
            assert!(heard.is_empty());
        }
    }
}

/// Once it took everybody's room on the disk first, for minutes.
#[test]
fn a_file_system_without_the_room_is_an_error_and_the_new_file_goes() {
    let place = Place::new();
    // Sparse files of 4 TiB are fine on most file systems; their blocks are not there.
    let spec = of_kind(file("tm0", FileAccess::ReadWrite), 1 << 42, Sharing::Shared);
    let (made, heard) = heard(&place, &HostMemorySpec { population: Population::Preallocated, ..spec });
    let said = made.unwrap_err();
    assert!(matches!(said, HostMemoryError::NoRoom { .. } | HostMemoryError::File(_)), "{said}");
    assert!(said.to_string().contains("4398046511104 bytes") && heard.is_empty(), "{said}");
    assert!(!place.path("tm0").exists());
}
