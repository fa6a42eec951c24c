//! The order of accesses of one command, and answers that must not be believed.

use driver::blocks::locate;
use driver::discover::discover;
use driver::{Mailbox, MailboxError};
use wire::{Opcode, ReturnCode};

use crate::device::{MAILBOX, OnDoorbell};
use crate::exchange::{Exchange, ok, refused};
use crate::machine::{Access, Machine, map};

const OPCODE: Opcode = Opcode::GET_TIMESTAMP;

fn open(payload_log2: u8, script: impl IntoIterator<Item = Exchange>) -> (Machine, Result<Mailbox, MailboxError>) {
    let mut machine = Machine::new(payload_log2, script);
    let found = discover(&mut machine, &map()).expect("a device");
    let blocks = locate(&mut machine, &found[0]).expect("its blocks");
    let mailbox = Mailbox::open(&mut machine, blocks.mailbox);
    machine.accesses.clear();
    (machine, mailbox)
}

#[test]
fn a_command_is_these_accesses_in_this_order() {
    let (mut machine, mailbox) = open(8, [ok(OPCODE, &[1, 2, 3])]);
    machine.device.on_doorbell = OnDoorbell::AnswerAfter(1);
    let answer = mailbox.expect("a mailbox").execute(&mut machine, OPCODE, &[0xaa; 5]);
    assert_eq!(answer, Ok(vec![1, 2, 3]));
    let read = |offset: usize, len| Access::Read { bar: 1, offset: MAILBOX + offset, len };
    let write = |offset: usize, bytes: &[u8]| Access::Write { bar: 1, offset: MAILBOX + offset, bytes: bytes.to_vec() };
    let expected = [
        read(0x04, 4),
        write(0x20, &[0xaa; 5]),
        write(0x08, &[0x00, 0x03, 0x05, 0, 0, 0, 0, 0]),
        write(0x04, &[1, 0, 0, 0]),
        read(0x04, 4),
        read(0x04, 4),
        read(0x10, 8),
        read(0x08, 8),
        read(0x20, 3),
    ];
    assert_eq!(machine.accesses, expected);
}

#[test]
fn a_doorbell_that_stays_set_ends_after_two_seconds() {
    let (mut machine, mailbox) = open(8, []);
    machine.device.on_doorbell = OnDoorbell::Ignore;
    let mailbox = mailbox.expect("a mailbox");
    let answer = mailbox.execute(&mut machine, OPCODE, &[]);
    assert_eq!(answer, Err(MailboxError::Timeout { opcode: OPCODE, timeout_ms: 2_000 }));
    assert_eq!(machine.now_ms, 2_000);
    assert_eq!(mailbox.execute(&mut machine, OPCODE, &[]), Err(MailboxError::Busy { opcode: OPCODE }));
    assert!(machine.sent().is_empty());
}

#[test]
fn a_refusal_and_an_unknown_code_are_told_apart() {
    let unknown = Exchange { code: 0x99, ..ok(OPCODE, &[]) };
    let (mut machine, mailbox) = open(8, [refused(OPCODE, ReturnCode::Busy), unknown]);
    let mailbox = mailbox.expect("a mailbox");
    let error = mailbox.execute(&mut machine, OPCODE, &[]).expect_err("a refusal");
    assert_eq!(error.refusal(), Some(ReturnCode::Busy));
    assert_eq!(error.to_string(), "0300h (Get Timestamp) was refused with 6h (busy)");
    let error = mailbox.execute(&mut machine, OPCODE, &[]).expect_err("an unknown code");
    assert_eq!(error, MailboxError::UnknownReturnCode { opcode: OPCODE, code: 0x99 });
}

#[test]
fn lengths_are_held_against_the_payload_area() {
    let long = Exchange { len_bytes: 257, ..ok(OPCODE, &[]) };
    let (mut machine, mailbox) = open(8, [long]);
    let mailbox = mailbox.expect("a mailbox");
    assert_eq!(mailbox.payload_len_bytes(), 256);
    let answer = mailbox.execute(&mut machine, OPCODE, &[]);
    let error = MailboxError::AnswerTooLong { opcode: OPCODE, len_bytes: 257, payload_size_bytes: 256 };
    assert_eq!(answer, Err(error));
    let answer = mailbox.execute(&mut machine, OPCODE, &[0; 257]);
    let error = MailboxError::RequestTooLong { opcode: OPCODE, len_bytes: 257, payload_size_bytes: 256 };
    assert_eq!(answer, Err(error));
}

#[test]
fn a_payload_area_that_cannot_be_is_refused() {
    // Smaller than the standard allows, and larger than the block that holds it.
    for payload_log2 in [7, 16, 31] {
        let (_, mailbox) = open(payload_log2, []);
        assert!(matches!(mailbox, Err(MailboxError::PayloadSize { .. })), "{payload_log2}: {mailbox:?}");
    }
}
