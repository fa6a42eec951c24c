//! Huge pages, where the host has some, and what is said where it has none.

use std::fs;

use device::backends::{BackendKind, HugePages, Population, Seal, Sharing};
use memory::HostMemorySpec;

use crate::{create, of_kind};

fn huge(size_bytes: u64, page_bytes: Option<u64>) -> HostMemorySpec {
    let kind = BackendKind::Memfd { seal: Seal::Sealed, huge_pages: Some(HugePages { page_bytes }) };
    of_kind(kind, size_bytes, Sharing::Shared)
}

/// Page sizes of the host in bytes, each with how many pages are free.
fn pools() -> Vec<(u64, u64)> {
    let Ok(entries) = fs::read_dir("/sys/kernel/mm/hugepages") else { return Vec::new() };
    let pool = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let free = fs::read_to_string(entry.path().join("free_hugepages")).ok()?.trim().parse().ok()?;
        Some((kib << 10, free))
    };
    entries.filter_map(Result::ok).filter_map(pool).collect()
}

#[test]
fn memory_of_huge_pages_is_memory() {
    let free: Vec<_> = pools().into_iter().filter(|(_, free)| *free > 0).collect();
    if free.is_empty() {
        println!("left out: this host has no free huge page ({:?} as bytes and free pages)", pools());
    }
    for (page_bytes, _) in free {
        for population in [Population::OnDemand, Population::Preallocated] {
            let memory = create(&HostMemorySpec { population, ..huge(page_bytes, Some(page_bytes)) }).unwrap();
            memory.write(page_bytes - 4, b"last").unwrap();
            assert_eq!(memory.read_u8(page_bytes - 4), Ok(b'l'));
            let said = create(&huge(page_bytes + 4096, Some(page_bytes))).unwrap_err().to_string();
            assert!(said.contains("no whole number of huge pages"), "{said}");
        }
    }
}

#[test]
fn pages_that_are_not_free_are_refused_with_where_to_get_them() {
    for (page_bytes, free) in pools() {
        let size_bytes = (free + 1000) * page_bytes;
        let said = create(&huge(size_bytes, Some(page_bytes))).unwrap_err().to_string();
        let named = format!("{size_bytes} bytes in huge pages of {page_bytes} bytes");
        assert!(said.contains(&named) && said.contains("nr_hugepages"), "{said}");
    }
    if pools().is_empty() {
        let said = create(&huge(2 << 20, None)).unwrap_err().to_string();
        assert!(said.contains("huge pages of the host's default size") && said.contains("nr_hugepages"), "{said}");
    }
}
