//! Bytes of anonymous memory and of memfds.

use device::backends::{BackendKind, Population, Reservation, Sharing};
use memory::{HostMemory, HostMemoryError, HostMemorySpec, OutOfRange};

use crate::{create, memfd, of_kind};

#[test]
fn every_kind_begins_with_zeroes_and_keeps_what_is_written() {
    for kind in [BackendKind::Ram, memfd()] {
        for sharing in [Sharing::Private, Sharing::Shared] {
            for population in [Population::OnDemand, Population::Preallocated] {
                // Not a whole number of pages.
                let spec = HostMemorySpec { population, ..of_kind(kind.clone(), 0x5008, sharing) };
                let memory = create(&spec).unwrap();
                assert_eq!(memory.len_bytes(), 0x5008);
                let mut bytes = [1; 100];
                memory.read(0x4f00, &mut bytes).unwrap();
                assert_eq!(bytes, [0; 100]);
                memory.write(0x4ffb, b"bytes").unwrap();
                memory.read(0x4ffb, &mut bytes[..5]).unwrap();
                assert_eq!(&bytes[..5], b"bytes");
                assert!(memory.write(0x5008, b"b").is_err());
            }
        }
    }
}

#[test]
fn a_large_memory_costs_nothing_until_it_is_touched() {
    let memory = HostMemory::anonymous(1 << 40).unwrap();
    memory.write_u64((1 << 40) - 8, 7).unwrap();
    assert_eq!(memory.read_u64((1 << 40) - 8), Ok(7));
}

#[test]
fn widths_agree_with_bytes_at_every_alignment() {
    let memory = HostMemory::anonymous(0x1000).unwrap();
    for offset in 0..16 {
        memory.write_u64(offset, 0x0807_0605_0403_0201).unwrap();
        assert_eq!(memory.read_u64(offset), Ok(0x0807_0605_0403_0201));
        assert_eq!(memory.read_u32(offset + 1), Ok(0x0504_0302));
        assert_eq!(memory.read_u16(offset + 3), Ok(0x0504));
        assert_eq!(memory.read_u8(offset + 7), Ok(8));
        memory.write_u16(offset + 2, 0xbbaa).unwrap();
        let mut bytes = [0; 7];
        memory.read(offset, &mut bytes).unwrap();
        assert_eq!(bytes, [1, 2, 0xaa, 0xbb, 5, 6, 7]);
    }
}

#[test]
fn what_is_outside_is_an_error() {
    let memory = HostMemory::anonymous(0x1000).unwrap();
    let error = OutOfRange { offset_bytes: 0xff9, len_bytes: 8, size_bytes: 0x1000 };
    assert_eq!(memory.read_u64(0xff9), Err(error));
    assert_eq!(error.to_string(), "8 bytes at offset 0xff9 are not inside 0x1000 bytes of host memory");
    for offset in [0x1000, u64::MAX, u64::MAX - 3, 1 << 63] {
        for len in [1, 2, 3, 4, 8, 100] {
            assert!(memory.read(offset, &mut vec![0; len]).is_err());
            assert!(memory.write(offset, &vec![0; len]).is_err());
        }
    }
    assert_eq!(memory.read(0x1000, &mut []), Ok(()));
}

#[test]
fn what_cannot_be_mapped_is_an_error() {
    assert!(matches!(HostMemory::anonymous(0), Err(HostMemoryError::Empty)));
    assert!(matches!(HostMemory::anonymous(u64::MAX), Err(HostMemoryError::TooLarge { .. })));
    assert!(matches!(HostMemory::anonymous(i64::MAX as u64), Err(HostMemoryError::Map { .. })));
    assert!(create(&of_kind(memfd(), i64::MAX as u64, Sharing::Shared)).is_err());
}

/// The host's own words for it: `VmFlags` has `nr` where nothing is set aside, and `ac` where something is.
#[test]
fn reserve_decides_whether_the_host_sets_memory_aside() {
    for (reservation, flag) in [(Reservation::Reserved, "ac"), (Reservation::Unreserved, "nr")] {
        // Of a memfd, because the host joins anonymous mappings that lie side by side; of a length that no other has.
        let size_bytes = if flag == "ac" { 0x123_4000 } else { 0x123_5000 };
        let spec = HostMemorySpec { reservation, ..of_kind(memfd(), size_bytes, Sharing::Private) };
        let memory = create(&spec).unwrap();
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let size = format!("Size: {:>18} kB", memory.len_bytes() >> 10);
        let after = smaps.split_once(&size).map_or_else(|| panic!("{size} in {smaps}"), |(_, after)| after);
        let flags = after.lines().find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
        assert!(flags.split(' ').any(|given| given == flag), "{flag}: {flags}");
    }
}
