//! Programming an HDM decoder.

use driver::HpaRange;
use driver::blocks::locate;
use driver::decoder::{DecoderError, DecoderRange, HdmDecoders, Programmed};
use driver::discover::discover;
use wire::Hpa;

use crate::device::{HDM, OnCommit};
use crate::machine::{Access, Machine, WINDOW, map};

const RANGE: DecoderRange =
    DecoderRange { hpa: HpaRange { base: Hpa(WINDOW), size_bytes: 5 << 30 }, skip_bytes: 0x1000_0000 };
/// Decoder 0 and its control register in BAR 0.
const DECODER: usize = HDM + 0x10;
const CONTROL: usize = DECODER + 0x10;

fn decoders() -> (Machine, HdmDecoders) {
    let mut machine = Machine::new(8, []);
    let found = discover(&mut machine, &map()).expect("a device");
    let blocks = locate(&mut machine, &found[0]).expect("its blocks");
    let decoders = HdmDecoders::open(&mut machine, blocks.hdm.expect("decoders")).expect("decoders");
    machine.accesses.clear();
    (machine, decoders)
}

fn write(offset: usize, value: u32) -> Access {
    Access::Write { bar: 0, offset, bytes: value.to_le_bytes().to_vec() }
}

#[test]
fn fields_come_before_the_commit_high_before_low() {
    let (mut machine, decoders) = decoders();
    assert_eq!(decoders.count(), 4);
    assert_eq!(decoders.program(&mut machine, 0, RANGE), Ok(Programmed::Committed));
    let control = Access::Read { bar: 0, offset: CONTROL, len: 4 };
    let expected = [
        control.clone(),
        write(DECODER + 0x04, 1),
        write(DECODER, 0x1000_0000),
        write(DECODER + 0x0c, 1),
        write(DECODER + 0x08, 0x4000_0000),
        write(DECODER + 0x18, 0),
        write(DECODER + 0x14, 0x1000_0000),
        write(CONTROL, 0x1200),
        control,
    ];
    assert_eq!(machine.accesses, expected);
    assert_eq!(machine.device.dword(0, CONTROL), 0x1600);
}

#[test]
fn a_decoder_with_the_wanted_values_is_kept() {
    let (mut machine, decoders) = decoders();
    assert_eq!(decoders.program(&mut machine, 0, RANGE), Ok(Programmed::Committed));
    machine.accesses.clear();
    assert_eq!(decoders.program(&mut machine, 0, RANGE), Ok(Programmed::Kept));
    let is_read = |access: &Access| matches!(access, Access::Read { .. });
    assert!(machine.accesses.iter().all(is_read), "{:?}", machine.accesses);
}

#[test]
fn a_decoder_with_other_values_is_uncommitted_first() {
    let (mut machine, decoders) = decoders();
    let other = DecoderRange { skip_bytes: 0, ..RANGE };
    assert_eq!(decoders.program(&mut machine, 0, other), Ok(Programmed::Committed));
    machine.accesses.clear();
    assert_eq!(decoders.program(&mut machine, 0, RANGE), Ok(Programmed::Committed));
    let writes: Vec<_> = machine.accesses.iter().filter(|access| matches!(access, Access::Write { .. })).collect();
    assert_eq!(*writes[0], write(CONTROL, 0x1400));
    assert_eq!(writes.len(), 1 + 4 + 7);
    assert_eq!(decoders.read(&mut machine, 0).map(|(range, _)| range), Ok(RANGE));
}

#[test]
fn refusals_and_silence_are_told_apart() {
    let (mut machine, decoders) = decoders();
    machine.device.on_commit = OnCommit::Refuse;
    let error = decoders.program(&mut machine, 0, RANGE).expect_err("a refusal");
    assert_eq!(error, DecoderError::Refused { index: 0, base: Hpa(WINDOW), size_bytes: 5 << 30 });
    machine.device.on_commit = OnCommit::Ignore;
    let error = decoders.program(&mut machine, 0, RANGE).expect_err("silence");
    assert_eq!(error, DecoderError::Timeout { index: 0, control: 0x1200, timeout_ms: 20 });
    assert_eq!(machine.now_ms, 20);
    let error = decoders.program(&mut machine, 4, RANGE).expect_err("no such decoder");
    assert_eq!(error, DecoderError::NoSuchDecoder { index: 4, count: 4 });
    let odd = DecoderRange { skip_bytes: 0x1000, ..RANGE };
    assert!(matches!(decoders.program(&mut machine, 0, odd), Err(DecoderError::Granule { .. })));
}

#[test]
fn a_locked_decoder_is_left_alone() {
    let (mut machine, decoders) = decoders();
    assert_eq!(decoders.program(&mut machine, 0, RANGE), Ok(Programmed::Committed));
    machine.device.bars[0][CONTROL + 1] |= 1;
    let other = DecoderRange { skip_bytes: 0, ..RANGE };
    let error = decoders.program(&mut machine, 0, other).expect_err("a lock");
    assert_eq!(error, DecoderError::Locked { index: 0, base: Hpa(WINDOW), size_bytes: 5 << 30 });
}

#[test]
fn the_enable_is_set_once() {
    let (mut machine, decoders) = decoders();
    decoders.enable(&mut machine);
    decoders.enable(&mut machine);
    let writes: Vec<_> = machine.accesses.iter().filter(|access| matches!(access, Access::Write { .. })).collect();
    assert_eq!(writes, [&write(HDM + 4, 2)]);
}
