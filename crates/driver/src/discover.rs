//! Finding CXL memory devices: every bus below the roots, with numbers and memory windows for the bridges on the way.
//!
//! ```text
//! root 0Ch: 0C:00.0 bridge ─▶ takes bus 0Dh, opens [base, limit] ─▶ 0D:00.0 class 05 02 10: BARs inside, depth first
//! root n:   buses n+1 .. (next root)-1 are free for the bridges below it
//! ```
//!
//! Windows of bridges close to what was handed out below them, in MiB; the prefetchable window is closed, since register
//! blocks are not prefetchable. Deliberately absent: functions that are neither bridge nor CXL memory device (left
//! as they are), hot plug, IO space.

use alloc::vec::Vec;

use wire::Hpa;
use wire::config_space::{
    BRIDGE_WINDOW_GRANULE_BYTES, CLASS_CXL_MEMORY, COMMAND, Command, HEADER_TYPE, HEADER_TYPE_BRIDGE,
    HEADER_TYPE_ENDPOINT, HeaderType, MEMORY_BASE, MEMORY_LIMIT, PREFETCHABLE_BASE, PREFETCHABLE_BASE_UPPER,
    PREFETCHABLE_LIMIT, PREFETCHABLE_LIMIT_UPPER, PRIMARY_BUS, PROG_IF_CXL_MEMORY, REVISION_ID, SECONDARY_BUS,
    SUBORDINATE_BUS, VENDOR_ID, VENDOR_NONE,
};

use crate::bars::{BarError, Bars};
use crate::bus::{Bdf, Bus, Width};
use crate::platform_map::{HpaRange, PlatformMap};

const DEVICES: u8 = 32;
const FUNCTIONS: u8 = 8;
/// Non-prefetchable windows of bridges have addresses of 32 bits.
const BRIDGE_MEMORY_END: u64 = 1 << 32;

/// A CXL memory device with its BARs programmed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CxlFunction {
    /// Where it is.
    pub bdf: Bdf,
    /// Its base address registers.
    pub bars: Bars,
}

/// Why the walk ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoverError {
    /// There are more bridges than bus numbers.
    #[error("bridge {bridge} needs a bus number, but all up to {last_bus:#04x} are taken")]
    BusNumbers {
        /// The bridge.
        bridge: Bdf,
        /// The last number that may be taken below this root.
        last_bus: u8,
    },
    /// A function's BARs cannot be programmed.
    #[error(transparent)]
    Bar(#[from] BarError),
}

/// Walks all buses; devices come in the order in which they were found.
pub fn discover(bus: &mut dyn Bus, map: &PlatformMap<'_>) -> Result<Vec<CxlFunction>, DiscoverError> {
    let mut roots = map.root_buses.to_vec();
    roots.sort_unstable();
    roots.dedup();
    let mut walk = Walk { mmio: MmioAllocator::new(map.mmio()), taken_bus: 0, last_bus: 0, found: Vec::new() };
    for (root, next) in roots.iter().zip(roots.iter().skip(1).map(Some).chain([None])) {
        walk.taken_bus = *root;
        walk.last_bus = next.map_or(u8::MAX, |next| next - 1);
        walk.walk_bus(bus, *root)?;
    }
    Ok(walk.found)
}

struct Walk {
    mmio: MmioAllocator,
    /// The highest bus number in use.
    taken_bus: u8,
    /// The highest that may be used below this root.
    last_bus: u8,
    found: Vec<CxlFunction>,
}

impl Walk {
    fn walk_bus(&mut self, bus: &mut dyn Bus, number: u8) -> Result<(), DiscoverError> {
        for device in 0..DEVICES {
            for function in 0..FUNCTIONS {
                let at = Bdf { bus: number, device, function };
                let is_present = bus.config_read(at, VENDOR_ID, Width::Word) != u32::from(VENDOR_NONE);
                let header = HeaderType::from(bus.config_read(at, HEADER_TYPE, Width::Byte) as u8);
                if is_present {
                    self.function(bus, at, header)?;
                }
                // Functions after the first exist only beside it, and only if it says so.
                if function == 0 && !(is_present && header.multi_function()) {
                    break;
                }
            }
        }
        Ok(())
    }

    fn function(&mut self, bus: &mut dyn Bus, at: Bdf, header: HeaderType) -> Result<(), DiscoverError> {
        let class = bus.config_read(at, REVISION_ID, Width::Dword) >> 8;
        let cxl_memory = u32::from(CLASS_CXL_MEMORY) << 8 | u32::from(PROG_IF_CXL_MEMORY);
        match header.layout() {
            HEADER_TYPE_BRIDGE => self.bridge(bus, at),
            HEADER_TYPE_ENDPOINT if class == cxl_memory => {
                let bars = Bars::program(bus, at, &mut self.mmio)?;
                self.found.push(CxlFunction { bdf: at, bars });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn bridge(&mut self, bus: &mut dyn Bus, at: Bdf) -> Result<(), DiscoverError> {
        if self.taken_bus >= self.last_bus {
            return Err(DiscoverError::BusNumbers { bridge: at, last_bus: self.last_bus });
        }
        self.taken_bus += 1;
        let secondary = self.taken_bus;
        bus.config_write(at, PRIMARY_BUS, Width::Byte, at.bus.into());
        bus.config_write(at, SECONDARY_BUS, Width::Byte, secondary.into());
        // Open to all that may come below; what did come is known after the walk.
        bus.config_write(at, SUBORDINATE_BUS, Width::Byte, self.last_bus.into());
        let base = self.mmio.align(BRIDGE_WINDOW_GRANULE_BYTES);
        self.walk_bus(bus, secondary)?;
        bus.config_write(at, SUBORDINATE_BUS, Width::Byte, self.taken_bus.into());
        let end = self.mmio.align(BRIDGE_WINDOW_GRANULE_BYTES);
        open_window(bus, at, base, end);
        Ok(())
    }
}

/// Lets a bridge forward `[base, end)`, multiples of 1 MiB below 4 GiB, and nothing else.
fn open_window(bus: &mut dyn Bus, at: Bdf, base: u64, end: u64) {
    let edge = |address: u64| (address >> 16) as u32 & 0xfff0;
    // A base above its limit closes a window.
    let (base, limit) = if base < end { (edge(base), edge(end - 1)) } else { (0xfff0, 0) };
    bus.config_write(at, MEMORY_BASE, Width::Word, base);
    bus.config_write(at, MEMORY_LIMIT, Width::Word, limit);
    bus.config_write(at, PREFETCHABLE_BASE, Width::Word, 0xfff0);
    bus.config_write(at, PREFETCHABLE_LIMIT, Width::Word, 0);
    bus.config_write(at, PREFETCHABLE_BASE_UPPER, Width::Dword, u32::MAX);
    bus.config_write(at, PREFETCHABLE_LIMIT_UPPER, Width::Dword, 0);
    let command = Command::from(bus.config_read(at, COMMAND, Width::Word) as u16);
    let command = command.with_memory_space(true).with_bus_master(true);
    bus.config_write(at, COMMAND, Width::Word, u16::from(command).into());
}

/// Hands out addresses upwards.
pub(crate) struct MmioAllocator {
    next: u64,
    end: u64,
}

impl MmioAllocator {
    fn new(range: HpaRange) -> Self {
        let end = range.base.0.saturating_add(range.size_bytes).min(BRIDGE_MEMORY_END);
        Self { next: range.base.0.min(end), end }
    }

    /// Goes up to a multiple of `granule_bytes` (a power of two), but not past the end.
    fn align(&mut self, granule_bytes: u64) -> u64 {
        self.next = self.next.checked_next_multiple_of(granule_bytes).map_or(self.end, |next| next.min(self.end));
        self.next
    }

    /// A range of this size (a power of two), aligned to it.
    pub(crate) fn take(&mut self, size_bytes: u64) -> Option<HpaRange> {
        let base = self.next.checked_next_multiple_of(size_bytes)?;
        let next = base.checked_add(size_bytes).filter(|next| *next <= self.end)?;
        self.next = next;
        Some(HpaRange { base: Hpa(base), size_bytes })
    }

    /// What is left, in bytes.
    pub(crate) fn left_bytes(&self) -> u64 {
        self.end - self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_aligned_to_their_size_and_end_below_4_gib() {
        let mut mmio = MmioAllocator::new(HpaRange { base: Hpa(0xfffe_1000), size_bytes: u64::MAX });
        let taken = mmio.take(0x1_0000).map(|range| range.base);
        assert_eq!(taken, Some(Hpa(0xffff_0000)));
        assert_eq!(mmio.take(0x1000), None);
        assert_eq!(mmio.left_bytes(), 0);
        assert_eq!(mmio.align(1 << 20), 1 << 32);
        let mut huge = MmioAllocator::new(HpaRange { base: Hpa(0x1000), size_bytes: 0x1000 });
        assert_eq!(huge.take(1 << 63), None);
    }
}
