//! A host that accepts a part of every offer.

use driver::Policy;
use wire::DcEventKind::Add;
use wire::{Opcode, RawExtent};

use crate::draining::{MORE, block, held};
use crate::exchange::{MIB, cleared, extent, ok, record, records, update};
use crate::probing::probed;

const ADD: Opcode = Opcode::ADD_DC_RESPONSE;

/// What a host answers to one offer of these extents.
fn answer(extents: &[RawExtent]) -> (Vec<u8>, Vec<(u64, u64, u8)>) {
    let (mut machine, mut host) = probed(Policy::Subset);
    for (n, extent) in (1..).zip(extents) {
        let flags = if usize::from(n) < extents.len() { MORE } else { 0 };
        machine.expect([records(&[record(n, Add, flags, *extent)])]);
        machine.expect((flags == 0).then_some(ok(ADD, &[])));
        machine.expect([cleared()]);
    }
    machine.expect([records(&[])]);
    host.on_interrupt(&mut machine).expect("an answer");
    let mut answers = machine.sent().into_iter().filter(|(opcode, _)| *opcode == 0x4802);
    let (_, payload) = answers.next().expect("an answer");
    assert_eq!(answers.next(), None, "one answer for each offer");
    (payload, held(&host))
}

#[test]
fn every_other_extent_is_accepted() {
    let offered = [4, 1, 7, 2].map(|n| extent(block(n).0, 2 * MIB, 9));
    let expected = (update(&[block(4), block(7)], 0), vec![(8 * MIB, 2 * MIB, 9), (14 * MIB, 2 * MIB, 9)]);
    assert_eq!(answer(&offered), expected);
    assert_eq!(answer(&offered[..2]).0, update(&[block(4)], 0));
}

#[test]
fn of_a_single_extent_the_first_half_is_accepted_in_whole_blocks() {
    for (blocks, accepted) in [(1, 1), (2, 1), (3, 1), (4, 2), (7, 3)] {
        let offered = extent(4 * MIB, blocks * 2 * MIB, 3);
        let expected = (update(&[(4 * MIB, accepted * 2 * MIB)], 0), vec![(4 * MIB, accepted * 2 * MIB, 3)]);
        assert_eq!(answer(&[offered]), expected, "{blocks} blocks");
    }
}

#[test]
fn nothing_is_accepted_of_an_offer_that_breaks_a_rule() {
    let nothing = (update(&[], 0), vec![]);
    assert_eq!(answer(&[extent(1024 * MIB, 4 * MIB, 1)]), nothing);
    // The extent that breaks the rule is not one that would be accepted.
    assert_eq!(answer(&[extent(0, 2 * MIB, 1), extent(MIB, 2 * MIB, 1)]), nothing);
}
