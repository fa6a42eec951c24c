//! The number of what host and guest agree on.

/// Rises whenever a place, a page, a job or the meaning of a word changes. A guest that was saved with another number has the
/// image and the pages of that one in its memory, and does not go on here.
pub const ABI: u32 = 1;

/// A word that says what something is, and of which ABI: six letters and two digits.
pub(crate) const fn magic(name: [u8; 6]) -> u64 {
    let [a, b, c, d, e, f] = name;
    u64::from_le_bytes([a, b, c, d, e, f, b'0' + (ABI / 10 % 10) as u8, b'0' + (ABI % 10) as u8])
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;
    use crate::place::*;
    use crate::{BootPage, JobKind, JobPage, StatusPage, StatusState, Text, VcpuPage};

    /// Where a number here changes, [`ABI`] rises.
    #[test]
    fn abi_1_is_of_these_places_and_words() {
        assert_eq!(ABI, 1);
        assert_eq!(
            [BOOT_PAGE, STATUS_PAGE, GDT, IDT, IMAGE, IMAGE_END],
            [0x10_0000, 0x10_1000, 0x10_2000, 0x10_3000, 0x20_0000, 0x40_0000]
        );
        assert_eq!(
            [VCPU_BLOCKS, VCPU_BLOCK_LEN_BYTES, VCPU_PAGE, JOB_PAGE, JOB_DATA, JOB_DATA_LEN_BYTES],
            [0x40_0000, 0x8_0000, 0, 0x1000, 0x2000, 0x4000]
        );
        assert_eq!([TASK_STATE, RING0_STACK_END, RING3_STACK_LEN_BYTES], [0x8000, 0x1_0000, 0x7_0000]);
        assert_eq!([RING3_STACKS_SEEN_AT, RING3_STACK_STRIDE_BYTES], [0x7f80_0000_0000, 0x20_0000]);
        assert_eq!([VECTOR_TIMER, VECTOR_KICK, VECTOR_DEVICES, VECTOR_SPURIOUS], [0x20, 0x21, 0x30, 0xff]);
        assert_eq!([PORT_DONE, PORT_STATUS, PORT_FAULT, PORT_PANIC], [0xe0, 0xe1, 0xe2, 0xe3]);
        assert_eq!(
            (IMAGE_MAGIC, crate::BOOT_MAGIC),
            (u64::from_le_bytes(*b"dcdimg01"), u64::from_le_bytes(*b"dcdbot01"))
        );
        let boot = [
            offset_of!(BootPage, magic),
            offset_of!(BootPage, attention),
            offset_of!(BootPage, clock_sequence),
            offset_of!(BootPage, wall_ms),
            offset_of!(BootPage, owed),
            offset_of!(BootPage, vcpus),
            offset_of!(BootPage, tsc_khz),
            offset_of!(BootPage, heap_base),
            offset_of!(BootPage, heap_len_bytes),
            offset_of!(BootPage, policy),
            offset_of!(BootPage, ecam_base),
            offset_of!(BootPage, mmio_base),
            offset_of!(BootPage, mmio_len_bytes),
            offset_of!(BootPage, window_base),
            offset_of!(BootPage, window_len_bytes),
            offset_of!(BootPage, root_bus_count),
            offset_of!(BootPage, root_buses),
            offset_of!(BootPage, busy_tag_count),
            offset_of!(BootPage, busy_tags),
        ];
        assert_eq!(boot, [0, 8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104, 112, 120, 128, 160, 168]);
        let job = [
            offset_of!(JobPage, asked),
            offset_of!(JobPage, done),
            offset_of!(JobPage, stop),
            offset_of!(JobPage, kind),
            offset_of!(JobPage, arguments),
            offset_of!(JobPage, results),
        ];
        assert_eq!(job, [0, 8, 16, 24, 32, 96]);
        let status =
            [offset_of!(StatusPage, state), offset_of!(StatusPage, extents), offset_of!(StatusPage, attention)];
        assert_eq!((status, offset_of!(StatusPage, text)), ([0, 8, 16], 24));
        let vcpu = [offset_of!(VcpuPage, interrupts), offset_of!(VcpuPage, device_interrupts)];
        assert_eq!((vcpu, offset_of!(VcpuPage, panic), offset_of!(Text, bytes)), ([0, 8], 16, 8));
        assert_eq!((StatusState::Booting as u64, StatusState::Warning as u64), (1, 4));
        assert_eq!((JobKind::Read as u64, JobKind::SweepRead as u64, JobKind::Command as u64), (1, 9, 13));
    }
}
