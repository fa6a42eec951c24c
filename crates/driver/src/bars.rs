//! Base address registers: sizing by writing ones, placing, and letting the function answer.
//!
//! ```text
//! command: memory space off ─▶ each BAR: write ones, read the mask, write the base ─▶ command: memory space, bus master
//! ```
//!
//! Deliberately absent: IO BARs (skipped; IO space stays off), expansion ROM, resizable BARs.

use wire::config_space::{BAR_0, BAR_COUNT, BAR_KIND_32_BIT, BAR_KIND_64_BIT, COMMAND, Command, MemoryBar};

use crate::bus::{Bdf, Bus, Width};
use crate::discover::MmioAllocator;
use crate::platform_map::HpaRange;

/// The memory ranges of a function, by the index of their base address register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bars([Option<HpaRange>; BAR_COUNT]);

/// Why a function's BARs cannot be programmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BarError {
    /// The register is of a kind that no memory BAR has.
    #[error("BAR {bar} of {at} reads {value:#x} after ones were written, which no memory BAR does")]
    Kind {
        /// The function.
        at: Bdf,
        /// The register's index.
        bar: u8,
        /// What it read.
        value: u32,
    },
    /// The size is no power of two.
    #[error("BAR {bar} of {at} asks for {size_bytes:#x} bytes, which is no power of two")]
    Size {
        /// The function.
        at: Bdf,
        /// The register's index.
        bar: u8,
        /// What it asks for.
        size_bytes: u64,
    },
    /// The platform's addresses for BARs are used up.
    #[error("BAR {bar} of {at} asks for {size_bytes:#x} aligned bytes, but of the MMIO range {left_bytes:#x} are left")]
    NoRoom {
        /// The function.
        at: Bdf,
        /// The register's index.
        bar: u8,
        /// What it asks for.
        size_bytes: u64,
        /// What is left before alignment.
        left_bytes: u64,
    },
}

/// What one register takes: its size and how many registers it spans.
struct Sized {
    size_bytes: u64,
    registers: u8,
}

impl Bars {
    /// The range behind a register, or `None` where it has none.
    pub fn get(&self, bar: u8) -> Option<HpaRange> {
        self.0.get(usize::from(bar)).copied().flatten()
    }

    pub(crate) fn program(bus: &mut dyn Bus, at: Bdf, mmio: &mut MmioAllocator) -> Result<Self, BarError> {
        let command = Command::from(bus.config_read(at, COMMAND, Width::Word) as u16);
        // While a BAR holds ones it must not answer.
        let off = command.with_memory_space(false).with_io_space(false);
        bus.config_write(at, COMMAND, Width::Word, u16::from(off).into());
        let mut bars = Self::default();
        let mut bar = 0;
        while let Some(slot) = bars.0.get_mut(usize::from(bar)) {
            let Some(sized) = size(bus, at, bar)? else {
                bar += 1;
                continue;
            };
            let size_bytes = sized.size_bytes;
            let range = mmio.take(size_bytes).ok_or_else(|| BarError::NoRoom {
                at,
                bar,
                size_bytes,
                left_bytes: mmio.left_bytes(),
            })?;
            place(bus, at, bar, &sized, range);
            *slot = Some(range);
            bar += sized.registers;
        }
        let on = off.with_memory_space(true).with_bus_master(true).with_interrupt_disable(true);
        bus.config_write(at, COMMAND, Width::Word, u16::from(on).into());
        Ok(bars)
    }
}

fn register(bar: u8) -> u16 {
    BAR_0 + 4 * u16::from(bar)
}

fn size(bus: &mut dyn Bus, at: Bdf, bar: u8) -> Result<Option<Sized>, BarError> {
    let low = write_ones(bus, at, bar);
    if low == 0 {
        return Ok(None);
    }
    let layout = MemoryBar::from(low);
    if layout.io_space() {
        bus.config_write(at, register(bar), Width::Dword, 0);
        return Ok(None);
    }
    let (high, registers) = match layout.kind() {
        BAR_KIND_32_BIT => (u32::MAX, 1),
        BAR_KIND_64_BIT if usize::from(bar) + 1 < BAR_COUNT => (write_ones(bus, at, bar + 1), 2),
        _ => return Err(BarError::Kind { at, bar, value: low }),
    };
    let mask = u64::from(high) << 32 | u64::from(low & !0xf);
    // The lowest address bit that can be written gives the size.
    let size_bytes = mask.wrapping_neg();
    if !size_bytes.is_power_of_two() {
        return Err(BarError::Size { at, bar, size_bytes });
    }
    Ok(Some(Sized { size_bytes, registers }))
}

fn write_ones(bus: &mut dyn Bus, at: Bdf, bar: u8) -> u32 {
    bus.config_write(at, register(bar), Width::Dword, u32::MAX);
    bus.config_read(at, register(bar), Width::Dword)
}

fn place(bus: &mut dyn Bus, at: Bdf, bar: u8, sized: &Sized, range: HpaRange) {
    bus.config_write(at, register(bar), Width::Dword, range.base.0 as u32);
    if sized.registers == 2 {
        bus.config_write(at, register(bar + 1), Width::Dword, (range.base.0 >> 32) as u32);
    }
}
