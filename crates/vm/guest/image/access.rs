//! Loads, stores and port accesses of an exact width: the compiler neither merges, splits nor leaves out any.

use core::arch::asm;

/// A width of a load or store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wide {
    Byte,
    Word,
    Dword,
    Qword,
}

impl Wide {
    pub(crate) fn from_bytes(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }

    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }
}

/// One load. An address that is not mapped is a fault, which the host hears of.
pub(crate) fn load(address: u64, wide: Wide) -> u64 {
    let value: u64;
    match wide {
        // SAFETY: in this program every address is one that the host names: registers, windows and memory that no Rust
        // value lives in. A host that names others ends this guest, and nothing else.
        Wide::Byte => unsafe {
            asm!("movzx {to:e}, byte ptr [{at}]", at = in(reg) address, to = out(reg) value, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Wide::Word => unsafe {
            asm!("movzx {to:e}, word ptr [{at}]", at = in(reg) address, to = out(reg) value, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Wide::Dword => unsafe {
            asm!("mov {to:e}, dword ptr [{at}]", at = in(reg) address, to = out(reg) value, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Wide::Qword => unsafe {
            asm!("mov {to}, qword ptr [{at}]", at = in(reg) address, to = out(reg) value, options(nostack, preserves_flags));
        },
    }
    value
}

/// One store of the lowest bytes of `value`.
pub(crate) fn store(address: u64, wide: Wide, value: u64) {
    match wide {
        // SAFETY: as for `load`.
        Wide::Byte => unsafe {
            asm!("mov byte ptr [{at}], {from}", at = in(reg) address, from = in(reg_byte) value as u8, options(nostack, preserves_flags));
        },
        // SAFETY: as for `load`.
        Wide::Word => unsafe {
            asm!("mov word ptr [{at}], {from:x}", at = in(reg) address, from = in(reg) value, options(nostack, preserves_flags));
        },
        // SAFETY: as for `load`.
        Wide::Dword => unsafe {
            asm!("mov dword ptr [{at}], {from:e}", at = in(reg) address, from = in(reg) value, options(nostack, preserves_flags));
        },
        // SAFETY: as for `load`.
        Wide::Qword => unsafe {
            asm!("mov qword ptr [{at}], {from}", at = in(reg) address, from = in(reg) value, options(nostack, preserves_flags));
        },
    }
}

/// One `in` of 1, 2 or 4 bytes.
pub(crate) fn port_in(port: u16, wide: Wide) -> u64 {
    let value: u32;
    match wide {
        // SAFETY: a port access changes no memory of this program.
        Wide::Byte => unsafe {
            asm!("in al, dx", "movzx eax, al", in("dx") port, out("eax") value, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Wide::Word => unsafe {
            asm!("in ax, dx", "movzx eax, ax", in("dx") port, out("eax") value, options(nostack, preserves_flags));
        },
        // SAFETY: as above.
        Wide::Dword | Wide::Qword => unsafe {
            asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags));
        },
    }
    u64::from(value)
}

/// One `out` of the lowest 1, 2 or 4 bytes of `value`.
pub(crate) fn port_out(port: u16, wide: Wide, value: u64) {
    match wide {
        // SAFETY: a port access changes no memory of this program.
        Wide::Byte => unsafe {
            asm!("out dx, al", in("dx") port, in("al") value as u8, options(nostack, preserves_flags))
        },
        // SAFETY: as above.
        Wide::Word => unsafe {
            asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nostack, preserves_flags))
        },
        // SAFETY: as above.
        Wide::Dword | Wide::Qword => unsafe {
            asm!("out dx, eax", in("dx") port, in("eax") value as u32, options(nostack, preserves_flags));
        },
    }
}

/// Tells the host something by a port of its own.
pub(crate) fn tell(port: u16) {
    port_out(port, Wide::Byte, 0);
}

/// The time stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: reads a counter, which ring 3 may.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Cuts `[address, address + len)` into accesses of at most 8 bytes, each aligned to its width: (offset, width).
pub(crate) fn pieces(address: u64, len: u64) -> impl Iterator<Item = (u64, Wide)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        let left = len.checked_sub(done).filter(|left| *left > 0)?;
        let at = address.wrapping_add(done);
        let (wide, bytes) = match () {
            () if left >= 8 && at.is_multiple_of(8) => (Wide::Qword, 8),
            () if left >= 4 && at.is_multiple_of(4) => (Wide::Dword, 4),
            () if left >= 2 && at.is_multiple_of(2) => (Wide::Word, 2),
            () => (Wide::Byte, 1),
        };
        let offset = done;
        done += bytes;
        Some((offset, wide))
    })
}
