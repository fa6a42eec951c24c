//! The hardware as a driver reaches it: configuration space, memory space, time, and patience.
//!
//! A driver's accesses have the widths that the registers ask for: [`Bus::read`] and [`Bus::write`] of 1, 2, 4 or 8 bytes
//! are single accesses, longer ones are copies whose pieces do not matter. Deliberately absent: interrupts; who gets one
//! calls [`Host::on_interrupt`](crate::Host::on_interrupt).

use core::fmt;

use wire::Hpa;

/// A function by its bus, device and function number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bdf {
    /// Bus, 0 to 255.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{:x}", self.bus, self.device, self.function)
    }
}

/// Width of a configuration access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// One byte.
    Byte,
    /// Two bytes.
    Word,
    /// Four bytes.
    Dword,
}

impl Width {
    /// The width in bytes.
    pub const fn bytes(self) -> u8 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
        }
    }
}

/// Where a message signalled interrupt is written, and what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixMessage {
    /// The address.
    pub address: u64,
    /// The data.
    pub data: u32,
}

/// Where x86 takes message signalled interrupts for the first processor.
const LOCAL_APIC_ADDRESS: u64 = 0xfee0_0000;
/// First x86 vector that is neither an exception nor a legacy interrupt.
const FIRST_FREE_VECTOR: u32 = 0x30;

/// The way to the hardware.
pub trait Bus {
    /// Reads configuration space; all ones where there is no function.
    fn config_read(&mut self, at: Bdf, offset: u16, width: Width) -> u32;

    /// Writes configuration space.
    fn config_write(&mut self, at: Bdf, offset: u16, width: Width, value: u32);

    /// Reads registers or memory: one access if `into` has 1, 2, 4 or 8 bytes.
    fn read(&mut self, hpa: Hpa, into: &mut [u8]);

    /// Writes registers or memory: one access if `from` has 1, 2, 4 or 8 bytes.
    fn write(&mut self, hpa: Hpa, from: &[u8]);

    /// Called in each turn of a loop that waits for the device. It may sleep until something happened, but returns after
    /// some milliseconds at the latest, so that the bounds of the loops hold.
    fn relax(&mut self);

    /// Milliseconds since 1970 where the bus knows, else since any moment; never less than before.
    fn now_ms(&mut self) -> u64;

    /// The message that entry `entry` of a function's MSI-X table is to send. Without another word: x86, first
    /// processor, a vector of its own for each entry of one function.
    fn msix_message(&mut self, at: Bdf, entry: u16) -> MsixMessage {
        let _ = at;
        MsixMessage { address: LOCAL_APIC_ADDRESS, data: FIRST_FREE_VECTOR + u32::from(entry) }
    }

    /// Reads a register of four bytes.
    fn read32(&mut self, hpa: Hpa) -> u32 {
        let mut bytes = [0; 4];
        self.read(hpa, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Reads a register of eight bytes.
    fn read64(&mut self, hpa: Hpa) -> u64 {
        let mut bytes = [0; 8];
        self.read(hpa, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Writes a register of four bytes.
    fn write32(&mut self, hpa: Hpa, value: u32) {
        self.write(hpa, &value.to_le_bytes());
    }

    /// Writes a register of eight bytes.
    fn write64(&mut self, hpa: Hpa, value: u64) {
        self.write(hpa, &value.to_le_bytes());
    }
}
