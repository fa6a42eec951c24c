//! MSI-X: the table, masks, pending bits, and the messages that leave.

use platform::{BarIndex, CommandedWrite, MsixMessage};
use wire::{Opcode, ReturnCode};

use crate::rig::{CONTROL, Rig, Told};

const MSIX: BarIndex = BarIndex::Msix;
const MSIX_CONTROL: u16 = 0xc2;

fn message(vector: u8) -> MsixMessage {
    MsixMessage { vector, address: 0xfee0_0000, data: 0x40 + u32::from(vector) }
}

/// Programs a vector and unmasks it.
fn program(rig: &Rig, vector: u8) {
    let at = u64::from(vector) * 16;
    rig.write_u64(MSIX, at, message(vector).address);
    rig.write_u64(MSIX, at + 8, u64::from(message(vector).data));
}

fn enabled() -> Rig {
    let rig = Rig::new();
    (0..16).for_each(|vector| program(&rig, vector));
    rig.face.config_write(MSIX_CONTROL, 2, 0x8000);
    rig.told();
    rig
}

#[test]
fn an_open_vector_leaves_at_once() {
    let rig = enabled();
    rig.face.raise(5);
    rig.face.raise(15);
    rig.face.raise(16);
    rig.face.raise(255);
    assert_eq!(rig.messages(), [message(5), message(15)]);
    assert_eq!(rig.read_u64(MSIX, 0x800), 0);
}

#[test]
fn a_masked_vector_waits_in_its_pending_bit() {
    let rig = enabled();
    rig.write(MSIX, 5 * 16 + 12, 1);
    rig.face.raise(5);
    rig.face.raise(5);
    assert_eq!(rig.read_u64(MSIX, 0x800), 1 << 5);
    rig.write_u64(MSIX, 0x800, 0);
    assert_eq!(rig.messages(), []);
    rig.write(MSIX, 5 * 16 + 12, 0);
    assert_eq!(rig.messages(), [message(5)]);
    assert_eq!(rig.read_u64(MSIX, 0x800), 0);
}

#[test]
fn a_masked_function_holds_all_vectors() {
    let rig = enabled();
    rig.face.config_write(MSIX_CONTROL, 2, 0xc000);
    rig.face.raise(1);
    rig.face.raise(2);
    rig.write(MSIX, 2 * 16 + 12, 1);
    rig.face.config_write(MSIX_CONTROL, 2, 0x8000);
    assert_eq!(rig.messages(), [message(1)]);
    rig.write(MSIX, 2 * 16 + 12, 0);
    assert_eq!(rig.messages(), [message(2)]);
}

#[test]
fn without_msix_nothing_leaves() {
    let rig = Rig::new();
    program(&rig, 0);
    rig.face.raise(0);
    rig.face.config_write(MSIX_CONTROL, 2, 0x8000);
    assert_eq!(rig.messages(), []);
}

#[test]
fn changes_of_the_table_are_told_as_they_read() {
    let rig = Rig::new();
    rig.write_u64(MSIX, 0x18, 0xffff_ffff_0000_0041);
    let told = CommandedWrite::Msix { offset: 0x18, width: 8, value: 0x1_0000_0041 };
    assert_eq!(rig.told(), [Told::Write(told)]);
    rig.write_u64(MSIX, 0x18, 0x1_0000_0041);
    rig.face.mmio_write(MSIX, 0x1c, &[0; 3]);
    rig.write(MSIX, 0x100, 7);
    assert_eq!(rig.told(), []);
    rig.write(MSIX, 0x10, 0xfee0_0003);
    let told = CommandedWrite::Msix { offset: 0x10, width: 4, value: 0xfee0_0000 };
    assert_eq!(rig.told(), [Told::Write(told)]);
}

#[test]
fn what_is_told_makes_the_same_table() {
    let rig = enabled();
    let other = Rig::new();
    let mut table = device::mailbox::power_on_msix();
    (0..16).for_each(|vector| program(&other, vector));
    for told in other.told() {
        let Told::Write(CommandedWrite::Msix { offset, width, value }) = told else { panic!("{told:?}") };
        device::mailbox::write_msix(&mut table, offset, width, value);
    }
    let mut shown = vec![0; table.len()];
    rig.face.mmio_read(MSIX, 0, &mut shown);
    assert_eq!(shown, table);
    let restored = Rig::new();
    restored.face.restore_interrupts(&table, 0);
    restored.face.config_write(MSIX_CONTROL, 2, 0x8000);
    restored.face.raise(9);
    assert_eq!(restored.messages(), [message(9)]);
}

#[test]
fn a_completion_interrupts_if_the_host_asked() {
    let rig = enabled();
    rig.ring(0x4800, &[]);
    rig.face.complete(Opcode(0x4800), ReturnCode::Success, &[]);
    assert_eq!(rig.messages(), []);
    rig.write(BarIndex::Device, CONTROL, 2);
    rig.ring(0x4800, &[]);
    rig.face.complete(Opcode(0x4800), ReturnCode::Success, &[]);
    rig.face.complete(Opcode(0x4800), ReturnCode::Success, &[]);
    assert_eq!(rig.messages(), [message(0)]);
}

#[test]
fn configuration_writes_are_told_when_they_change_something() {
    let rig = Rig::new();
    rig.face.config_write(0x04, 2, 6);
    rig.face.config_write(0x04, 2, 6);
    rig.face.config_write(0x00, 4, 6);
    let told = CommandedWrite::Config { offset: 4, width: 2, value: 6 };
    assert_eq!(rig.told(), [Told::Write(told)]);
    assert_eq!(rig.face.config_read(0x04, 2), 6);
}
