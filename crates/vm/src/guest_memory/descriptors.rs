//! Segment and interrupt descriptors, and the task state segments with their maps of ports (SDM volume 3, 3.4.5, 7.11, 8.7).
//!
//! ```text
//!  08h ring 0 code   10h ring 0 data   28h ring 3 data   30h ring 3 code      256 interrupt gates, ring 0, interrupts off
//! ```
//!
//! The task register is loaded by the host, so its segment needs no descriptor. Deliberately absent: interrupt stacks.

use guest::place::{self, GDT, IDT, vcpu_block};
use memory::{HostMemory, OutOfRange};

use crate::image::Image;

/// Selector of ring 0's code.
pub(crate) const KERNEL_CODE: u16 = 0x08;
/// Selector of ring 3's data and stack, with its privilege.
pub(crate) const USER_DATA: u16 = 0x2b;
/// Selector of ring 3's code, with its privilege.
pub(crate) const USER_CODE: u16 = 0x33;

const SEGMENTS: [u64; 7] = [
    0,
    0x00af_9b00_0000_ffff, // ring 0 code, 64 bits
    0x00cf_9300_0000_ffff, // ring 0 data
    0,
    0,
    0x00cf_f300_0000_ffff, // ring 3 data
    0x00af_fb00_0000_ffff, // ring 3 code, 64 bits
];
/// Last byte of the segment descriptors.
pub(crate) const GDT_LIMIT: u16 = SEGMENTS.len() as u16 * 8 - 1;
/// Last byte of the interrupt descriptors.
pub(crate) const IDT_LIMIT: u16 = 256 * 16 - 1;

/// Present, an interrupt gate of 64 bits that only hardware may call.
const GATE: u64 = 0x8e00;

/// In a task state segment: the stack for ring 0, the offset of the map of ports, the map.
const RING0_STACK: u64 = 4;
const PORT_MAP_OFFSET: u64 = 0x66;
const PORT_MAP: u16 = 0x68;
const PORT_MAP_LEN: u16 = 8192;
/// Last byte of a task state segment: the map ends with a byte of ones.
pub(crate) const TASK_STATE_LIMIT: u16 = PORT_MAP + PORT_MAP_LEN;

/// Writes the descriptors that all vCPUs share.
pub(super) fn write(ram: &HostMemory, image: &Image) -> Result<(), OutOfRange> {
    (0..).zip(SEGMENTS).try_for_each(|(index, segment)| ram.write_u64(GDT + 8 * index, segment))?;
    (0..=255).try_for_each(|vector| {
        let [low, high] = gate(image.stub(vector));
        let at = IDT + 16 * u64::from(vector);
        ram.write_u64(at, low)?;
        ram.write_u64(at + 8, high)
    })
}

/// Writes a vCPU's task state segment: every port is open.
pub(super) fn write_task_state(ram: &HostMemory, vcpu: u32) -> Result<(), OutOfRange> {
    let at = vcpu_block(vcpu) + place::TASK_STATE;
    ram.write_u64(at + RING0_STACK, vcpu_block(vcpu) + place::RING0_STACK_END)?;
    ram.write_u16(at + PORT_MAP_OFFSET, PORT_MAP)?;
    ram.write_u8(at + u64::from(TASK_STATE_LIMIT), 0xff)
}

fn gate(handler: u64) -> [u64; 2] {
    let low = handler & 0xffff | u64::from(KERNEL_CODE) << 16 | GATE << 32 | (handler >> 16 & 0xffff) << 48;
    [low, handler >> 32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_has_its_handler_in_three_pieces() {
        assert_eq!(gate(0x1234_5678_9abc_def0), [0x9abc_8e00_0008_def0, 0x1234_5678]);
    }

    #[test]
    fn selectors_name_the_segments() {
        let privilege = |selector: u16| SEGMENTS[usize::from(selector / 8)] >> 45 & 3;
        assert_eq!((privilege(KERNEL_CODE), privilege(USER_CODE), privilege(USER_DATA)), (0, 3, 3));
    }
}
