//! Bus accesses to register blocks, cut into the dwords that registers are made of.
//!
//! ```text
//!  read   any width, any alignment      assembled from the dwords it touches
//!  write  1, 2, 4 or 8, aligned to it   one merge for each dword it touches; every other write changes nothing
//! ```
//!
//! The standard obliges hosts to aligned accesses no wider than the register; reads are more lenient here, because a
//! read changes nothing.

/// Writable part of one dword of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DwordWrite {
    /// Offset of the dword, a multiple of 4.
    pub(crate) offset: u64,
    /// The bytes written, in their lanes.
    value: u32,
    /// The lanes written.
    lanes: u32,
}

impl DwordWrite {
    /// What the register holds afterwards, if only the bits of `writable` can change.
    pub(crate) fn merge(self, old: u32, writable: u32) -> u32 {
        let mask = self.lanes & writable;
        old & !mask | self.value & mask
    }
}

/// Fills `to` with the registers' bytes from `offset` on.
pub(crate) fn read(offset: u64, to: &mut [u8], dword: impl Fn(u64) -> u32) {
    for (into, byte) in to.iter_mut().enumerate() {
        // No block reaches to the end of the address space, so what is behind it reads as what is at it: zero.
        let at = offset.saturating_add(into as u64);
        *byte = dword(at & !3).to_le_bytes()[(at & 3) as usize];
    }
}

/// The dwords of a write; none for a width or alignment that registers do not take.
pub(crate) fn write(offset: u64, from: &[u8]) -> impl Iterator<Item = DwordWrite> {
    let fits = matches!(from.len(), 1 | 2 | 4 | 8) && offset.is_multiple_of(from.len() as u64);
    let from = if fits { from } else { &[] };
    from.chunks(4).enumerate().map(move |(index, part)| {
        // At most 8 bytes from a multiple of 8 on: this cannot wrap.
        let at = offset + 4 * index as u64;
        let lane = (at & 3) as usize;
        let (mut value, mut lanes) = ([0; 4], [0; 4]);
        value[lane..lane + part.len()].copy_from_slice(part);
        lanes[lane..lane + part.len()].fill(0xff);
        DwordWrite { offset: at & !3, value: u32::from_le_bytes(value), lanes: u32::from_le_bytes(lanes) }
    })
}

/// One dword of a register of 64 bits: the low one at an even multiple of 4.
pub(crate) fn half(register: u64, offset: u64) -> u32 {
    (register >> (8 * (offset & 4))) as u32
}

/// A register of 64 bits after a write to one of its dwords.
pub(crate) fn merge_half(register: u64, write: DwordWrite, writable: u64) -> u64 {
    let shift = 8 * (write.offset & 4);
    let new = write.merge(half(register, write.offset), half(writable, write.offset));
    register & !(0xffff_ffff << shift) | u64::from(new) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_take_any_width_and_alignment() {
        let mut bytes = [0; 6];
        read(3, &mut bytes, |offset| if offset < 8 { 0x0403_0201 } else { 0 });
        assert_eq!(bytes, [4, 1, 2, 3, 4, 0]);
    }

    #[test]
    fn writes_take_what_a_bus_makes() {
        let merged = |offset, from: &[u8]| {
            let writes: Vec<_> = write(offset, from).map(|w| (w.offset, w.merge(0xaaaa_aaaa, u32::MAX))).collect();
            writes
        };
        assert_eq!(merged(6, &[1, 2]), [(4, 0x0201_aaaa)]);
        assert_eq!(merged(3, &[1]), [(0, 0x01aa_aaaa)]);
        assert_eq!(merged(8, &[1, 0, 0, 0, 2, 0, 0, 0]), [(8, 1), (12, 2)]);
        for (offset, len) in [(1, 2), (2, 4), (4, 8), (0, 3), (0, 5), (0, 6), (0, 7), (0, 16), (0, 0)] {
            assert_eq!(write(offset, &vec![0; len]).count(), 0);
        }
        assert_eq!(
            merge_half(0x1111_1111_2222_2222, write(12, &[0xff; 4]).next().unwrap(), u64::MAX),
            0xffff_ffff_2222_2222
        );
    }
}
