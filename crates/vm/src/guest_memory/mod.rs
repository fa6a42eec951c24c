//! What is in guest memory before the first instruction: image, descriptors, page tables, and the pages of both sides.
//!
//! ```text
//!  guest::place … │ vCPU blocks │ page tables │ heap │ free
//! ```
//!
//! Everything is below 4 GiB in the first stretch of RAM, where an address is the offset into the memory. Page tables are
//! final: software KVM keeps shadows of them and does not see a host that changes them. Deliberately absent: firmware.

mod descriptors;
mod page_tables;

use std::sync::Arc;

use driver::{HpaRange, Policy};
use guest::place::{self, BOOT_PAGE, IMAGE, IMAGE_END, STATUS_PAGE, VCPUS_MAX, vcpu_block};
use guest::{BOOT_MAGIC, BUSY_TAGS_MAX, BootPage, ROOT_BUSES_MAX, StatusPage};
use memory::{HostMemory, OutOfRange};
use wire::{Hpa, Tag};
use zerocopy::{FromZeros, IntoBytes};

use crate::image::{Image, ImageError};

pub(crate) use descriptors::{GDT_LIMIT, IDT_LIMIT, KERNEL_CODE, TASK_STATE_LIMIT, USER_CODE, USER_DATA};
use page_tables::PageTables;

const PAGE_LEN_BYTES: u64 = 4096;
const HEAP_ALIGN_BYTES: u64 = 2 << 20;
const HEAP_LEN_BYTES_MIN: u64 = 8 << 20;
const HEAP_LEN_BYTES_MAX: u64 = 256 << 20;

/// What the guest's driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestDriver {
    /// How it answers.
    pub policy: Policy,
    /// Tags whose memory is busy whenever it is there, at most [`BUSY_TAGS_MAX`].
    pub busy: Vec<Tag>,
}

/// What firmware would tell the guest of the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestPlatform {
    /// Buses that are not below a bridge, at most 32.
    pub root_buses: Vec<u8>,
    /// Addresses for base address registers.
    pub mmio: HpaRange,
    /// The CXL fixed memory windows.
    pub window: HpaRange,
    /// Where the guest is to open configuration space by memory; `None`: by ports only, which reach 256 bytes.
    pub ecam_base: Option<Hpa>,
}

/// Why a guest cannot be laid out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The image is broken.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// There are no such numbers of vCPUs.
    #[error("a guest has 1 to {VCPUS_MAX} vCPUs, not {0}")]
    Vcpus(u32),
    /// RAM is too small.
    #[error(
        "a guest of {vcpus} vCPUs and such windows needs {needed_bytes:#x} bytes of RAM below 2 GiB, and there are {size_bytes:#x}: give more --memory"
    )]
    Ram {
        /// How many vCPUs there are.
        vcpus: u32,
        /// What they need.
        needed_bytes: u64,
        /// What there is.
        size_bytes: u64,
    },
    /// The guest is to reach what a processor of this host does not address.
    #[error("the guest is to reach {end}, but a processor of this host addresses {bits} bits")]
    Reach {
        /// The end of what it is to reach.
        end: Hpa,
        /// The bits of a physical address.
        bits: u32,
    },
    /// There are more root buses than the boot page holds.
    #[error("{0} root buses are more than {ROOT_BUSES_MAX}")]
    RootBuses(usize),
    /// There are more busy tags than the boot page holds.
    #[error("{0} busy tags are more than {BUSY_TAGS_MAX}")]
    BusyTags(usize),
}

/// What decides where things are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayoutRequest<'a> {
    pub(crate) vcpus: u32,
    pub(crate) low_ram_len_bytes: u64,
    pub(crate) reach: &'a [HpaRange],
    pub(crate) physical_bits: u32,
}

/// Where things are, and what they are.
#[derive(Debug)]
pub(crate) struct Layout {
    image: Image,
    vcpus: u32,
    tables: PageTables,
    heap: HpaRange,
    free: HpaRange,
}

/// What the boot page says beside what the layout knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BootWords<'a> {
    pub(crate) platform: &'a GuestPlatform,
    pub(crate) driver: Option<&'a GuestDriver>,
    pub(crate) tsc_khz: u64,
    pub(crate) wall_ms: u64,
}

impl Layout {
    /// Finds a place for everything.
    pub(crate) fn new(request: LayoutRequest<'_>) -> Result<Self, LayoutError> {
        let LayoutRequest { vcpus, low_ram_len_bytes, reach, physical_bits } = request;
        if vcpus == 0 || vcpus > VCPUS_MAX {
            return Err(LayoutError::Vcpus(vcpus));
        }
        let end = reach.iter().map(|range| range.base.0.saturating_add(range.size_bytes)).max().unwrap_or(0);
        // Further up the guest sees its stacks.
        if end > 1 << physical_bits.min(46) {
            return Err(LayoutError::Reach { end: Hpa(end), bits: physical_bits });
        }
        let tables_base = vcpu_block(vcpus);
        let tables = PageTables::new(Hpa(tables_base), reach, vcpus);
        let heap_base = (tables_base + tables.len_bytes()).next_multiple_of(HEAP_ALIGN_BYTES);
        let needed_bytes = heap_base + HEAP_LEN_BYTES_MIN;
        if low_ram_len_bytes < needed_bytes {
            return Err(LayoutError::Ram { vcpus, needed_bytes, size_bytes: low_ram_len_bytes });
        }
        let heap_len_bytes =
            (low_ram_len_bytes / 4).clamp(HEAP_LEN_BYTES_MIN, HEAP_LEN_BYTES_MAX).min(low_ram_len_bytes - heap_base);
        let free_base = heap_base + heap_len_bytes;
        Ok(Self {
            image: Image::embedded()?,
            vcpus,
            tables,
            heap: HpaRange { base: Hpa(heap_base), size_bytes: heap_len_bytes },
            free: HpaRange { base: Hpa(free_base), size_bytes: low_ram_len_bytes - free_base },
        })
    }

    /// RAM that the image leaves alone.
    pub(crate) fn free(&self) -> HpaRange {
        self.free
    }

    /// Where vCPUs begin.
    pub(crate) fn entry(&self) -> u64 {
        self.image.entry
    }

    /// The page table of all addresses.
    pub(crate) fn root_table(&self) -> u64 {
        self.tables.root().0
    }

    /// Writes everything, as it is before the first instruction.
    pub(crate) fn write(&self, ram: &HostMemory, words: BootWords<'_>) -> Result<(), OutOfRange> {
        zero(ram, BOOT_PAGE, IMAGE - BOOT_PAGE)?;
        zero(ram, IMAGE, IMAGE_END - IMAGE)?;
        for segment in &self.image.segments {
            ram.write(segment.address, segment.bytes)?;
        }
        descriptors::write(ram, &self.image)?;
        for vcpu in 0..self.vcpus {
            zero(ram, vcpu_block(vcpu), place::RING0_STACK_END)?;
            descriptors::write_task_state(ram, vcpu)?;
        }
        self.tables.write(ram)?;
        ram.write(STATUS_PAGE, StatusPage::new_zeroed().as_bytes())?;
        ram.write(BOOT_PAGE, self.boot_page(words).as_bytes())
    }

    fn boot_page(&self, words: BootWords<'_>) -> BootPage {
        let BootWords { platform, driver, tsc_khz, wall_ms } = words;
        let mut page = BootPage::new_zeroed();
        page.magic = BOOT_MAGIC;
        page.wall_ms = wall_ms;
        page.vcpus = self.vcpus.into();
        page.tsc_khz = tsc_khz;
        page.heap_base = self.heap.base.0;
        page.heap_len_bytes = self.heap.size_bytes;
        page.ecam_base = platform.ecam_base.map_or(0, |base| base.0);
        page.mmio_base = platform.mmio.base.0;
        page.mmio_len_bytes = platform.mmio.size_bytes;
        page.window_base = platform.window.base.0;
        page.window_len_bytes = platform.window.size_bytes;
        page.root_bus_count = platform.root_buses.len() as u64;
        page.root_buses.iter_mut().zip(&platform.root_buses).for_each(|(to, bus)| *to = *bus);
        if let Some(driver) = driver {
            page.policy = policy_number(driver.policy);
            page.busy_tag_count = driver.busy.len() as u64;
            page.busy_tags.iter_mut().zip(&driver.busy).for_each(|(to, tag)| *to = tag.bytes());
        }
        page
    }
}

/// Refuses what the boot page cannot hold.
pub(crate) fn check(platform: &GuestPlatform, driver: Option<&GuestDriver>) -> Result<(), LayoutError> {
    let (buses, tags) = (platform.root_buses.len(), driver.map_or(0, |driver| driver.busy.len()));
    if buses > ROOT_BUSES_MAX {
        return Err(LayoutError::RootBuses(buses));
    }
    if tags > BUSY_TAGS_MAX {
        return Err(LayoutError::BusyTags(tags));
    }
    Ok(())
}

fn policy_number(policy: Policy) -> u64 {
    Policy::ALL.iter().position(|known| *known == policy).map_or(0, |index| index as u64 + 1)
}

fn zero(ram: &HostMemory, at: u64, len: u64) -> Result<(), OutOfRange> {
    let zeros = [0; PAGE_LEN_BYTES as usize];
    (at..at + len).step_by(zeros.len()).try_for_each(|at| ram.write(at, &zeros))
}

/// Guest memory as both sides' pages see it.
#[derive(Clone, Debug)]
pub(crate) struct SharedPages {
    ram: Arc<HostMemory>,
}

impl SharedPages {
    /// The memory reaches as far as the layout needs.
    pub(crate) fn new(ram: Arc<HostMemory>) -> Self {
        Self { ram }
    }

    pub(crate) fn ram(&self) -> &HostMemory {
        &self.ram
    }

    /// A word of a page. All ones where the memory ends, which the layout has ruled out.
    pub(crate) fn word(&self, at: u64) -> u64 {
        self.ram.read_u64(at).unwrap_or(u64::MAX)
    }

    pub(crate) fn set_word(&self, at: u64, value: u64) {
        // As for `word`.
        let _ = self.ram.write_u64(at, value);
    }

    /// A whole page, or another struct of both sides.
    pub(crate) fn read<T: zerocopy::FromBytes + IntoBytes>(&self, at: u64) -> T {
        let mut page = T::new_zeroed();
        // As for `word`; then it stays zeros.
        let _ = self.ram.read(at, page.as_mut_bytes());
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn request(reach: &[HpaRange]) -> LayoutRequest<'_> {
        LayoutRequest { vcpus: 2, low_ram_len_bytes: 64 << 20, reach, physical_bits: 46 }
    }

    #[test]
    fn a_reach_of_one_tebibyte_fits_into_64_mib() {
        let reach = [HpaRange { base: Hpa(0), size_bytes: 1024 * GIB }];
        let layout = Layout::new(request(&reach)).expect("a layout");
        assert!(layout.free().size_bytes >= 16 << 20, "{:?}", layout.free());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let reach = [HpaRange { base: Hpa(0), size_bytes: 4 * GIB }];
        let small = LayoutRequest { low_ram_len_bytes: 8 << 20, ..request(&reach) };
        let error = Layout::new(small).unwrap_err().to_string();
        assert!(error.contains("2 vCPUs") && error.contains("0x800000"), "{error}");
        assert_eq!(Layout::new(LayoutRequest { vcpus: 65, ..request(&reach) }).unwrap_err(), LayoutError::Vcpus(65));
        let far = [HpaRange { base: Hpa(1 << 45), size_bytes: 1 << 46 }];
        assert!(matches!(Layout::new(request(&far)), Err(LayoutError::Reach { .. })));
    }
}
