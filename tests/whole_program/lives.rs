//! Hosts and their log. One that died between its answer and the clear of its records finds them in its next life, and
//! must not take an offer that was answered for one that waits.

use device::extents;
use device::operation::Input;
use wire::Opcode;

use crate::program::{MIB, TAG0, TAG1, add_arguments, release_arguments};
use crate::vm::{InProcess, Wanted, command, update};

/// Two offers, of which an earlier life of the host has answered the first one with `answer` and cleared nothing.
fn next_life(answer: &[(u64, u64)]) -> (InProcess, usize) {
    let mut vm = InProcess::start(Wanted::default());
    let earlier = vm.host();
    for (n, tag) in (0u64..).zip([TAG0, TAG1]) {
        vm.object_add(&format!("tm{n}"), tag, 2 * MIB);
        let add = add_arguments(tag, &[(n * 2 * MIB, 2 * MIB)]);
        vm.qmp("cxl-add-dynamic-capacity", add).expect("an offer");
    }
    command(&mut vm.bus, earlier.mailbox(), Opcode::ADD_DC_RESPONSE, &update(answer, 0)).expect("answered");
    let mut host = vm.host();
    host.on_interrupt(&mut vm.bus).expect("the log is drained");
    let held = host.extents().len();
    (vm, held)
}

/// Seen as: after a kill -9 of the emulator the in-process host answered an offer that it held already with an empty
/// response, which rejected the offer behind it.
#[test]
fn an_offer_that_was_accepted_before_is_not_answered_again() {
    let (vm, held) = next_life(&[(0, 2 * MIB)]);
    assert_eq!((vm.state(TAG0), vm.state(TAG1)), ("accepted".into(), "accepted".into()));
    assert_eq!(held, 2);
    vm.end();
}

#[test]
fn an_offer_that_was_rejected_before_does_not_reject_the_next() {
    let (vm, held) = next_life(&[]);
    assert_eq!((vm.state(TAG0), vm.state(TAG1)), ("rejected".into(), "accepted".into()));
    assert_eq!(held, 1);
    vm.end();
}

/// Each command takes a durable answer's time: what several operators ask back leaves together.
#[test]
fn what_several_requests_ask_for_leaves_with_one_command() {
    let mut vm = InProcess::start(Wanted::default());
    let mut host = vm.host();
    for (n, tag) in (0u64..).zip([TAG0, TAG1]) {
        vm.object_add(&format!("tm{n}"), tag, 4 * MIB);
        let add = add_arguments(tag, &[(n * 8 * MIB, 2 * MIB), (n * 8 * MIB + 4 * MIB, 2 * MIB)]);
        vm.qmp("cxl-add-dynamic-capacity", add).expect("an offer");
    }
    host.on_interrupt(&mut vm.bus).expect("answers");
    for tag in [TAG0, TAG1, TAG0] {
        vm.qmp("cxl-release-dynamic-capacity", release_arguments(tag)).expect("asked");
    }
    host.on_interrupt(&mut vm.bus).expect("answers");
    assert_eq!((vm.state(TAG0), vm.state(TAG1)), ("released".into(), "released".into()));
    assert!(host.extents().is_empty());
    let records = vm.end();
    let is_release =
        |input: &Input| matches!(input, Input::Extents(extents::Input::Command { opcode: Opcode::RELEASE_DC, .. }));
    assert_eq!(records.iter().filter(|record| is_release(&record.input)).count(), 1);
}
