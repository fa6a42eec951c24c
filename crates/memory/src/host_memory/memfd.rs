//! Unnamed files in memory.

use std::fs::File;
use std::io;

use device::backends::{HugePages, Seal};
use rustix::fs::{MemfdFlags, SealFlags};

use super::error::HostMemoryError;

/// Where the size of a huge page stands in the flags (`MFD_HUGE_SHIFT` in linux/memfd.h), as its base-2 logarithm.
const HUGE_PAGE_SHIFT: u32 = 26;

/// A file of zeros of `size_bytes`.
pub(super) fn create(size_bytes: u64, seal: Seal, huge_pages: Option<HugePages>) -> Result<File, HostMemoryError> {
    let failed = |source: io::Error| match huge_pages {
        Some(HugePages { page_bytes }) => HostMemoryError::HugePages { size_bytes, page_bytes, source },
        None => HostMemoryError::Memfd { size_bytes, source },
    };
    let file = rustix::fs::memfd_create("dcd-memory", flags(seal, huge_pages)).map_err(|errno| failed(errno.into()))?;
    let file = File::from(file);
    if let (Some(_), Ok(page_bytes)) = (huge_pages, super::page_bytes(Some(&file)))
        && !size_bytes.is_multiple_of(page_bytes as u64)
    {
        return Err(HostMemoryError::NotWholePages { size_bytes, page_bytes: page_bytes as u64 });
    }
    file.set_len(size_bytes).map_err(failed)?;
    if seal == Seal::Sealed {
        let seals = SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).map_err(|errno| failed(errno.into()))?;
    }
    Ok(file)
}

fn flags(seal: Seal, huge_pages: Option<HugePages>) -> MemfdFlags {
    let mut flags = MemfdFlags::CLOEXEC;
    if seal == Seal::Sealed {
        flags |= MemfdFlags::ALLOW_SEALING;
    }
    if let Some(HugePages { page_bytes }) = huge_pages {
        flags |= MemfdFlags::HUGETLB;
        let log2 = page_bytes.filter(|bytes| *bytes > 0).map_or(0, u64::ilog2);
        flags |= MemfdFlags::from_bits_retain(log2 << HUGE_PAGE_SHIFT);
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_fixes_the_size_and_itself() {
        let file = create(0x3000, Seal::Sealed, None).unwrap();
        let seals = rustix::fs::fcntl_get_seals(&file).unwrap();
        assert_eq!(seals, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL);
        assert!(file.set_len(0x4000).is_err() && file.set_len(0).is_err());
        assert_eq!(file.metadata().unwrap().len(), 0x3000);
        let flags = rustix::io::fcntl_getfd(&file).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }

    #[test]
    fn without_a_seal_the_size_can_change() {
        let file = create(0x3000, Seal::Unsealed, None).unwrap();
        file.set_len(0x4000).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0x4000);
    }

    #[test]
    fn the_size_of_a_huge_page_is_in_the_flags() {
        let of = |page_bytes| flags(Seal::Unsealed, Some(HugePages { page_bytes })) - MemfdFlags::CLOEXEC;
        assert_eq!(of(None), MemfdFlags::HUGETLB);
        assert_eq!(of(Some(2 << 20)), MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB);
        assert_eq!(of(Some(1 << 30)), MemfdFlags::HUGETLB | MemfdFlags::HUGE_1GB);
    }

    #[test]
    fn a_page_size_that_the_host_does_not_have_is_named() {
        let said =
            create(1 << 40, Seal::Sealed, Some(HugePages { page_bytes: Some(1 << 38) })).unwrap_err().to_string();
        assert!(said.contains("huge pages of 274877906944 bytes") && said.contains("nr_hugepages"), "{said}");
    }
}
