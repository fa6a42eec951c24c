//! Component registers: the HDM decoders and their commit protocol.

use platform::{BarIndex, CommandedWrite, DecoderStatus};
use wire::Hpa;

use crate::rig::{Rig, Told};

const COMPONENT: BarIndex = BarIndex::Component;
const HDM: u64 = 0x1110;
const COMMIT: u32 = 1 << 9;
const COMMITTED: u32 = 1 << 10;
const ERROR: u32 = 1 << 11;
const HOST_ONLY: u32 = 1 << 12;
const LOCK: u32 = 1 << 8;

const BASE: u64 = 0x1_1000_0000;

fn decoder(index: u64) -> u64 {
    HDM + 0x10 + 0x20 * index
}

/// Programs a decoder as Linux does: each field as two dwords, high first, then the control register.
fn program(rig: &Rig, index: u64, base: u64, size: u64, skip: u64, control: u32) {
    let at = decoder(index);
    for (offset, value) in [(0x04, base >> 32), (0x00, base), (0x0c, size >> 32), (0x08, size)] {
        rig.write(COMPONENT, at + offset, value as u32);
    }
    rig.write(COMPONENT, at + 0x18, (skip >> 32) as u32);
    rig.write(COMPONENT, at + 0x14, skip as u32);
    rig.write(COMPONENT, at + 0x10, control);
}

fn control(rig: &Rig, index: u64) -> u32 {
    rig.read(COMPONENT, decoder(index) + 0x10)
}

#[test]
fn the_array_leads_to_the_capabilities() {
    let rig = Rig::new();
    assert_eq!(rig.read(COMPONENT, 0x1000), 0x0211_0001);
    let entries = [rig.read(COMPONENT, 0x1004), rig.read(COMPONENT, 0x1008)];
    assert_eq!(entries.map(|entry| (entry & 0xffff, entry >> 20)), [(2, 0x80), (5, 0x110)]);
    let capability = wire::component::HdmCapability::from(rig.read(COMPONENT, HDM));
    assert_eq!(capability.decoder_count(), Some(10));
    assert!(capability.interleave_11_8() && capability.interleave_14_12());
    assert!(capability.ways_3_6_12() && capability.ways_16());
}

#[test]
fn low_bits_of_fields_read_as_zero() {
    let rig = Rig::new();
    program(&rig, 9, u64::MAX, u64::MAX, u64::MAX, 0);
    for offset in [0, 8, 0x14] {
        assert_eq!(rig.read_u64(COMPONENT, decoder(9) + offset), 0xffff_ffff_f000_0000);
    }
    assert_eq!(rig.told(), []);
}

#[test]
fn a_commit_is_told_with_its_fields_and_shows_how_it_went() {
    let rig = Rig::new();
    program(&rig, 1, BASE, 1 << 30, 1 << 29, COMMIT | HOST_ONLY | 0x12);
    let control_1 = COMMIT | HOST_ONLY | 0x12;
    let told = CommandedWrite::DecoderCommit {
        decoder: 1,
        base: Hpa(BASE),
        size_bytes: 1 << 30,
        skip_bytes: 1 << 29,
        control: control_1,
    };
    assert_eq!(rig.told(), [Told::Write(told)]);
    assert_eq!(control(&rig, 1), control_1);
    rig.face.set_decoder(1, DecoderStatus::Committed);
    assert_eq!(control(&rig, 1), control_1 | COMMITTED);
    rig.face.set_decoder(1, DecoderStatus::Error);
    assert_eq!(control(&rig, 1), control_1 | ERROR);
    rig.face.set_decoder(200, DecoderStatus::Committed);
}

#[test]
fn a_committed_decoder_stands_still_until_it_is_uncommitted() {
    let rig = Rig::new();
    program(&rig, 0, BASE, 1 << 30, 0, COMMIT);
    rig.face.set_decoder(0, DecoderStatus::Committed);
    rig.told();
    program(&rig, 0, 0, 0, 1 << 28, COMMIT | 0xff);
    assert_eq!(rig.told(), []);
    assert_eq!(rig.read_u64(COMPONENT, decoder(0)), BASE);
    assert_eq!(control(&rig, 0), COMMIT | COMMITTED);
    // Linux clears the bit and zeroes the fields at once, without a look at committed.
    rig.write(COMPONENT, decoder(0) + 0x10, 0);
    rig.write_u64(COMPONENT, decoder(0), 0);
    let told = rig.told();
    assert_eq!(told, [Told::Write(CommandedWrite::DecoderUncommit { decoder: 0, control: COMMITTED })]);
    assert_eq!(rig.read_u64(COMPONENT, decoder(0)), 0);
    rig.face.set_decoder(0, DecoderStatus::Uncommitted);
    assert_eq!(control(&rig, 0), 0);
}

#[test]
fn a_late_word_on_an_old_commit_does_not_show_as_a_new_one() {
    let rig = Rig::new();
    program(&rig, 0, BASE, 1 << 30, 0, COMMIT);
    rig.write(COMPONENT, decoder(0) + 0x10, 0);
    rig.face.set_decoder(0, DecoderStatus::Committed);
    assert_eq!(control(&rig, 0), 0);
    rig.write(COMPONENT, decoder(0) + 0x10, COMMIT);
    rig.face.set_decoder(0, DecoderStatus::Uncommitted);
    assert_eq!(control(&rig, 0), COMMIT);
    rig.face.set_decoder(0, DecoderStatus::Committed);
    assert_eq!(control(&rig, 0), COMMIT | COMMITTED);
    assert_eq!(rig.told().len(), 3);
}

#[test]
fn a_failed_commit_can_be_tried_again() {
    let rig = Rig::new();
    program(&rig, 0, BASE, 1 << 30, 0, COMMIT);
    rig.face.set_decoder(0, DecoderStatus::Error);
    rig.write(COMPONENT, decoder(0) + 0x10, 0);
    assert_eq!(control(&rig, 0), 0);
    rig.write(COMPONENT, decoder(0) + 0x10, COMMIT);
    assert_eq!(control(&rig, 0), COMMIT);
    assert_eq!(rig.told().len(), 3);
}

#[test]
fn lock_on_commit_holds_until_reset() {
    let rig = Rig::new();
    program(&rig, 0, BASE, 1 << 30, 0, COMMIT | LOCK);
    rig.face.set_decoder(0, DecoderStatus::Committed);
    rig.told();
    rig.write(COMPONENT, decoder(0) + 0x10, 0);
    assert_eq!(control(&rig, 0), COMMIT | LOCK | COMMITTED);
    assert_eq!(rig.told(), []);
    rig.face.reset(device::config_space::ConfigSpace::new(7, 10));
    assert_eq!(control(&rig, 0), 0);
    assert_eq!(rig.read_u64(COMPONENT, decoder(0)), 0);
}

#[test]
fn global_control_is_commanded_when_it_changes() {
    let rig = Rig::new();
    rig.write(COMPONENT, HDM + 4, u32::MAX);
    rig.write(COMPONENT, HDM + 4, 2);
    assert_eq!(rig.told(), [Told::Write(CommandedWrite::HdmGlobalControl(2))]);
    assert_eq!(rig.read(COMPONENT, HDM + 4), 2);
}

#[test]
fn a_restored_decoder_reads_as_it_was_committed() {
    let rig = Rig::new();
    rig.face.restore_hdm_control(2);
    rig.face.restore_decoder(2, Hpa(BASE), 1 << 30, 1 << 28, HOST_ONLY);
    rig.face.restore_decoder(99, Hpa(0), 0, 0, 0);
    rig.face.set_decoder(2, DecoderStatus::Committed);
    assert_eq!(control(&rig, 2), COMMIT | COMMITTED | HOST_ONLY);
    assert_eq!(rig.read_u64(COMPONENT, decoder(2)), BASE);
    assert_eq!(rig.read_u64(COMPONENT, decoder(2) + 0x14), 1 << 28);
    assert_eq!(rig.read(COMPONENT, HDM + 4), 2);
    assert_eq!(rig.told(), []);
}
