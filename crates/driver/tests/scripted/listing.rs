//! Reading the list of accepted extents.

use driver::extent_list::ExtentListError;
use driver::{MailboxError, Policy};
use wire::{Opcode, RawExtent, ReturnCode};

use crate::exchange::{Exchange, MIB, extent, extent_list, ok, range, refused};
use crate::probing::probed;

fn extents(count: u64) -> Vec<RawExtent> {
    (0..count).map(|n| extent(2 * n * MIB, 2 * MIB, n as u8)).collect()
}

fn start(n: u32) -> (u16, Vec<u8>) {
    (0x4801, [6_u32.to_le_bytes(), n.to_le_bytes()].concat())
}

fn error(script: impl IntoIterator<Item = Exchange>) -> ExtentListError {
    let (mut machine, mut host) = probed(Policy::Accept);
    machine.expect(script);
    let error = host.refresh(&mut machine).expect_err("a list that cannot be");
    machine.sent();
    assert!(host.extents().is_empty(), "the list before stays");
    error
}

#[test]
fn a_list_is_read_in_pages_of_the_payload() {
    let (mut machine, mut host) = probed(Policy::Accept);
    let all = extents(8);
    machine.expect([extent_list(8, 3, &all[..6]), extent_list(8, 3, &all[6..7]), extent_list(8, 3, &all[7..])]);
    host.refresh(&mut machine).expect("a list");
    assert_eq!(machine.sent(), [start(0), start(6), start(7)]);
    let ranges: Vec<_> = host.extents().iter().map(|extent| extent.range()).collect();
    let expected: Vec<_> = (0..8).map(|n| range(2 * n * MIB, 2 * MIB)).collect();
    assert_eq!(ranges, expected);
}

#[test]
fn a_list_that_changes_is_read_again_from_the_start() {
    let (mut machine, mut host) = probed(Policy::Accept);
    let all = extents(8);
    machine.expect([
        extent_list(8, 3, &all[..6]),
        // Another generation, then another total, then a list that has become shorter than what was read.
        extent_list(8, 4, &all[6..]),
        extent_list(8, 4, &all[..6]),
        extent_list(7, 4, &all[6..7]),
        extent_list(7, 5, &all[..6]),
        refused(Opcode::GET_DC_EXTENT_LIST, ReturnCode::InvalidInput),
        extent_list(2, 6, &all[..2]),
    ]);
    host.refresh(&mut machine).expect("a list");
    assert_eq!(machine.sent(), [0, 6, 0, 6, 0, 6, 0].map(start));
    assert_eq!(host.extents().len(), 2);
}

#[test]
fn a_list_that_always_changes_is_given_up() {
    let all = extents(8);
    let pages = |n: u32| [extent_list(8, 2 * n, &all[..6]), extent_list(8, 2 * n + 1, &all[6..])];
    assert_eq!(error((0..10).flat_map(pages)), ExtentListError::KeepsChanging);
}

#[test]
fn counts_are_held_against_bytes_and_totals() {
    let two = extents(2);
    let none = error([extent_list(2, 0, &[])]);
    assert_eq!(none, ExtentListError::Page { start: 0, returned: 0, total: 2 });
    let past = error([extent_list(1, 0, &two)]);
    assert_eq!(past, ExtentListError::Page { start: 0, returned: 2, total: 1 });
    let long = error([extent_list(513, 0, &two)]);
    assert_eq!(long, ExtentListError::TooLong { total: 513, supported: 512 });
    let mut short = extent_list(3, 0, &two);
    short.answer[0] = 3;
    let short = error([short]);
    let expected =
        MailboxError::AnswerTooShort { opcode: Opcode::GET_DC_EXTENT_LIST, len_bytes: 96, needed_bytes: 136 };
    assert_eq!(short, ExtentListError::Mailbox(expected));
    let mut many = extent_list(7, 0, &two);
    many.answer[0] = 7;
    let expected = MailboxError::AnswerTooMany { opcode: Opcode::GET_DC_EXTENT_LIST, returned: 7, asked: 6 };
    assert_eq!(error([many]), ExtentListError::Mailbox(expected));
    let byte = error([ok(Opcode::GET_DC_EXTENT_LIST, &[0])]);
    assert!(matches!(byte, ExtentListError::Mailbox(MailboxError::AnswerTooShort { needed_bytes: 16, .. })));
}

#[test]
fn extents_that_cannot_be_are_refused() {
    for bad in [
        extent(0, 0, 1),
        extent(MIB, 2 * MIB, 1),
        extent(0, MIB, 1),
        extent(1022 * MIB, 4 * MIB, 1),
        extent(u64::MAX - MIB, 2 * MIB, 1),
        extent(2 * MIB, u64::MAX, 1),
    ] {
        let error = error([extent_list(1, 0, &[bad])]);
        assert!(matches!(error, ExtentListError::Outside { .. }), "{bad:?}: {error}");
    }
    let overlap = error([extent_list(2, 0, &[extent(2 * MIB, 4 * MIB, 1), extent(0, 4 * MIB, 2)])]);
    assert_eq!(overlap, ExtentListError::Overlap { range: range(0, 4 * MIB), other: range(2 * MIB, 4 * MIB) });
}
