//! A host that does what the Dynamic Capacity series for Linux does, rule by rule.

use driver::{Extent, Handled, Host, HostSet, OfferError, Policy};
use wire::DcEventKind::{Add, ForcedRelease, Release};
use wire::{DcEventRecord, DcRegion, EVENT_FLAG_OVERFLOW, Opcode, RawExtent, ReturnCode};
use zerocopy::little_endian::{U16, U64};

use crate::draining::{MORE, block, held, holding};
use crate::exchange::{MIB, clear, cleared, extent, ok, record, records, refused, region, update};
use crate::machine::Machine;
use crate::probing::{probed, probed_with};

const ADD: Opcode = Opcode::ADD_DC_RESPONSE;
const RELEASE: Opcode = Opcode::RELEASE_DC;

/// The records of one closed chain.
fn chain(extents: &[RawExtent]) -> Vec<DcEventRecord> {
    let last = extents.len();
    let flags = |n: u16| if usize::from(n) < last { MORE } else { 0 };
    (1..).zip(extents).map(|(n, extent)| record(n, Add, flags(n), *extent)).collect()
}

/// Shows a chain to a host, and gives the one answer that it sends. A payload of 256 bytes holds one record.
fn offer(machine: &mut Machine, host: &mut Host, extents: &[RawExtent]) -> Vec<u8> {
    for record in chain(extents) {
        machine.expect([records(&[record])]);
        machine.expect((record.flags == 0).then_some(ok(ADD, &[])));
        machine.expect([cleared()]);
    }
    machine.expect([records(&[])]);
    host.on_interrupt(machine).expect("an answer");
    let mut answers = machine.sent().into_iter().filter(|(opcode, _)| *opcode == 0x4802);
    let (_, answer) = answers.next().expect("an answer");
    assert_eq!(answers.next(), None, "one answer for each chain");
    answer
}

/// What is sent for one record that asks for capacity, if the device takes every release.
fn ask(machine: &mut Machine, host: &mut Host, asked: RawExtent, releases: usize) -> (Vec<Vec<u8>>, Vec<Handled>) {
    machine.expect([records(&[record(1, Release, 0, asked)])]);
    machine.expect((0..releases).map(|_| ok(RELEASE, &[])));
    machine.expect([cleared(), records(&[])]);
    let handled = host.on_interrupt(machine).expect("a clear log");
    let sent = machine.sent().into_iter().filter(|(opcode, _)| *opcode == 0x4803).map(|(_, payload)| payload);
    (sent.collect(), handled)
}

fn extent_of_block(n: u64, tag: u8) -> RawExtent {
    extent(block(n).0, 2 * MIB, tag)
}

fn nothing() -> Vec<u8> {
    update(&[], 0)
}

#[test]
fn a_chain_is_answered_before_its_last_record_is_cleared() {
    let (mut machine, mut host) = probed(Policy::Linux);
    let [first, last] = chain(&[extent_of_block(5, 9), extent_of_block(1, 9)])[..] else { panic!("two") };
    machine.expect([records(&[first]), cleared(), records(&[last]), ok(ADD, &[]), cleared(), records(&[])]);
    host.on_interrupt(&mut machine).expect("an answer");
    let expected = [
        (0x0100, vec![4]),
        (0x0101, clear(&[1])),
        (0x0100, vec![4]),
        (0x4802, update(&[block(5), block(1)], 0)),
        (0x0101, clear(&[2])),
        (0x0100, vec![4]),
    ];
    assert_eq!(machine.sent(), expected);
}

#[test]
fn without_a_region_every_offer_is_refused() {
    let (mut machine, mut host) = probed(Policy::Linux);
    host.destroy_region(&mut machine).expect("a decoder");
    assert_eq!(offer(&mut machine, &mut host, &[extent_of_block(0, 1), extent_of_block(1, 0)]), nothing());
    assert!(host.extents().is_empty());
    host.create_region(&mut machine).expect("a region");
    assert_eq!(offer(&mut machine, &mut host, &[extent_of_block(0, 1)]), update(&[block(0)], 0));
}

#[test]
fn starts_and_lengths_are_multiples_of_2_mib_whatever_the_block_size() {
    let blocks_of_1_mib = DcRegion { block_size_bytes: U64::new(MIB), ..region(0, 1024 * MIB) };
    for (start, len_bytes) in [(MIB, 2 * MIB), (2 * MIB, MIB), (2 * MIB, 3 * MIB), (MIB, MIB)] {
        let (mut machine, mut host) = probed_with(Policy::Linux, &[blocks_of_1_mib]);
        assert_eq!(offer(&mut machine, &mut host, &[extent(start, len_bytes, 1)]), nothing());
        // The device may offer it; another host takes it.
        host.set_policy(Policy::Accept);
        assert_eq!(offer(&mut machine, &mut host, &[extent(start, len_bytes, 1)]), update(&[(start, len_bytes)], 0));
    }
}

#[test]
fn only_region_0_becomes_a_partition() {
    let (mut machine, mut host) = probed_with(Policy::Linux, &[region(0, 256 * MIB), region(256 * MIB, 256 * MIB)]);
    let offered = [extent(254 * MIB, 2 * MIB, 1), extent(256 * MIB, 2 * MIB, 2), extent(254 * MIB, 4 * MIB, 3)];
    assert_eq!(offer(&mut machine, &mut host, &offered), update(&[(254 * MIB, 2 * MIB)], 0));
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    let (mut machine, mut host) = probed(Policy::Linux);
    let last = u64::MAX - (2 * MIB - 1);
    for (start, len_bytes) in [(0, 0), (last, 2 * MIB), (2 * MIB, last), (1024 * MIB, 2 * MIB)] {
        assert_eq!(offer(&mut machine, &mut host, &[extent(start, len_bytes, 1)]), nothing());
    }
}

#[test]
fn a_tag_that_lives_here_is_refused_until_it_is_gone() {
    let (mut machine, mut host) = holding(Policy::Linux, &[(5, 2)]);
    assert_eq!(offer(&mut machine, &mut host, &[extent_of_block(6, 2)]), nothing());
    assert_eq!(offer(&mut machine, &mut host, &[extent_of_block(5, 2)]), nothing(), "the same extent too");
    ask(&mut machine, &mut host, extent_of_block(5, 2), 1);
    assert_eq!(offer(&mut machine, &mut host, &[extent_of_block(6, 2)]), update(&[block(6)], 0));
}

/// The two hosts of this machine take turns at one scripted device.
#[test]
fn a_tag_that_lives_on_another_device_is_refused() {
    for is_first in [true, false] {
        let (_, other) = holding(Policy::Linux, &[(5, 2)]);
        let (mut machine, host) = probed(Policy::Linux);
        let mut hosts = HostSet::new(if is_first { vec![host, other] } else { vec![other, host] });
        let has_tag = records(&[record(1, Add, 0, extent_of_block(7, 2))]);
        let is_free = records(&[record(2, Add, 0, extent_of_block(8, 3))]);
        let exchanges = [has_tag, ok(ADD, &[]), cleared(), is_free, ok(ADD, &[]), cleared(), records(&[])];
        machine.expect((!is_first).then_some(records(&[])));
        machine.expect(exchanges);
        machine.expect(is_first.then_some(records(&[])));
        hosts.on_interrupt(&mut machine).expect("answers");
        let answers: Vec<_> = machine.sent().into_iter().filter(|(opcode, _)| *opcode == 0x4802).collect();
        assert_eq!(answers, [(0x4802, nothing()), (0x4802, update(&[block(8)], 0))]);
    }
}

#[test]
fn a_chain_has_100_records_at_most() {
    for (count, is_accepted) in [(100, true), (101, false), (150, false)] {
        let (mut machine, mut host) = probed(Policy::Linux);
        let offered: Vec<_> = (0..count).map(|n| extent_of_block(n, 1)).collect();
        for record in chain(&offered) {
            machine.expect([records(&[record])]);
            // An answer has ten ranges at most here.
            let answers = if record.flags != 0 {
                0
            } else if is_accepted {
                10
            } else {
                1
            };
            machine.expect((0..answers).map(|_| ok(ADD, &[])));
            machine.expect([cleared()]);
        }
        machine.expect([records(&[])]);
        host.on_interrupt(&mut machine).expect("an answer");
        assert_eq!(host.extents().len(), if is_accepted { 100 } else { 0 }, "{count} records");
    }
}

#[test]
fn a_tag_that_breaks_a_rule_is_left_out_and_the_others_are_listed_by_group() {
    let (mut machine, mut host) = probed(Policy::Linux);
    let sequenced = RawExtent { shared_sequence: U16::new(1), ..extent_of_block(6, 4) };
    let offered = [
        extent_of_block(9, 1),
        extent_of_block(3, 0),
        extent_of_block(4, 2),
        extent_of_block(8, 1),
        // One member of tag 2 is misaligned, one of tag 4 has a sequence where nothing is shared.
        extent(MIB, 2 * MIB, 2),
        extent_of_block(5, 4),
        sequenced,
        extent_of_block(2, 0),
    ];
    let expected = [block(9), block(8), block(3), block(2)];
    assert_eq!(offer(&mut machine, &mut host, &offered), update(&expected, 0));
    assert_eq!(held(&host).iter().map(|(_, _, tag)| *tag).collect::<Vec<_>>(), [1, 1, 0, 0]);
}

#[test]
fn what_overlaps_is_refused() {
    let (mut machine, mut host) = holding(Policy::Linux, &[(5, 2), (8, 0)]);
    for bad in [
        vec![extent(8 * MIB, 4 * MIB, 1)],
        vec![extent(10 * MIB, 4 * MIB, 0)],
        vec![extent(16 * MIB, 4 * MIB, 0)],
        vec![extent(0, 4 * MIB, 1), extent(2 * MIB, 2 * MIB, 1)],
    ] {
        assert_eq!(offer(&mut machine, &mut host, &bad), nothing(), "{bad:?}");
    }
    let twice = [extent(0, 4 * MIB, 1), extent(2 * MIB, 4 * MIB, 3)];
    assert_eq!(offer(&mut machine, &mut host, &twice), update(&[(0, 4 * MIB)], 0));
}

#[test]
fn what_the_host_has_untagged_is_accepted_once_more_and_counted_once() {
    let (mut machine, mut host) = probed(Policy::Linux);
    assert_eq!(offer(&mut machine, &mut host, &[extent(8 * MIB, 4 * MIB, 0)]), update(&[(8 * MIB, 4 * MIB)], 0));
    assert_eq!(offer(&mut machine, &mut host, &[extent_of_block(5, 0)]), update(&[block(5)], 0));
    assert_eq!(held(&host), [(8 * MIB, 4 * MIB, 0)]);
}

#[test]
fn a_chain_that_stalls_for_20_seconds_is_refused() {
    let (mut machine, mut host) = probed(Policy::Linux);
    for (now_ms, n) in [(0, 1), (15_000, 2)] {
        machine.now_ms = now_ms;
        machine.expect([records(&[record(1, Add, MORE, extent_of_block(n, 1))]), cleared(), records(&[])]);
        host.on_interrupt(&mut machine).expect("a clear log");
    }
    machine.device.set_event_status(0);
    machine.sent();
    assert_eq!(host.wakes_at_ms(), Some(35_000), "the last record counts");
    machine.now_ms = 34_999;
    assert_eq!(host.on_interrupt(&mut machine), Ok(vec![]));
    machine.now_ms = 35_000;
    machine.expect([ok(ADD, &[])]);
    let handled = host.on_interrupt(&mut machine).expect("an answer");
    assert_eq!(machine.sent(), [(0x4802, nothing())]);
    assert!(matches!(&handled[0], Handled::Offered { offer } if offer.fault == Some(OfferError::TimedOut)));
    assert_eq!((host.wakes_at_ms(), host.extents().len()), (None, 0));
}

#[test]
fn a_tag_leaves_as_a_whole_with_one_command_for_each_extent() {
    let (mut machine, mut host) = holding(Policy::Linux, &[(5, 2), (6, 3), (1, 2)]);
    machine.expect([records(&[record(1, Release, 0, extent(2 * MIB, MIB, 2))])]);
    machine.expect([ok(RELEASE, &[]), ok(RELEASE, &[]), cleared(), records(&[])]);
    host.on_interrupt(&mut machine).expect("a release");
    let expected = [
        (0x0100, vec![4]),
        (0x4803, update(&[block(5)], 0)),
        (0x4803, update(&[block(1)], 0)),
        (0x0101, clear(&[1])),
        (0x0100, vec![4]),
    ];
    assert_eq!(machine.sent(), expected);
    assert_eq!(held(&host), [(12 * MIB, 2 * MIB, 3)]);
}

#[test]
fn an_untagged_extent_leaves_as_a_whole_when_a_part_is_named() {
    let (mut machine, mut host) = holding(Policy::Linux, &[(5, 0), (6, 0)]);
    let (sent, _) = ask(&mut machine, &mut host, extent(11 * MIB, MIB, 0), 1);
    assert_eq!((sent, held(&host)), (vec![update(&[block(5)], 0)], vec![(12 * MIB, 2 * MIB, 0)]));
}

#[test]
fn what_the_host_does_not_have_is_given_back_at_once() {
    let (mut machine, mut host) = holding(Policy::Linux, &[(5, 2)]);
    // Nothing there; there, but of another tag; more than one extent.
    for unknown in [extent_of_block(7, 2), extent(10 * MIB, MIB, 3), extent(10 * MIB, 4 * MIB, 2)] {
        let mut host = host.clone();
        let (sent, _) = ask(&mut machine, &mut host, unknown, 1);
        assert_eq!(sent, [update(&[(unknown.start_dpa.get(), unknown.len_bytes.get())], 0)]);
    }
    host.destroy_region(&mut machine).expect("a decoder");
    host.mark_busy(wire::Tag::from_bytes([2; 16]));
    let (sent, _) = ask(&mut machine, &mut host, extent_of_block(5, 2), 1);
    assert_eq!(sent, [update(&[block(5)], 0)], "without a region the host knows of nothing");
}

#[test]
fn busy_memory_is_kept_in_silence_until_the_device_asks_again() {
    let (mut machine, mut host) = holding(Policy::Linux, &[(5, 2), (6, 2), (7, 3)]);
    let tag = wire::Tag::from_bytes([2; 16]);
    host.mark_busy(tag);
    let (sent, handled) = ask(&mut machine, &mut host, extent_of_block(5, 2), 0);
    let asked = Extent::from(&extent_of_block(5, 2));
    assert!(sent.is_empty());
    assert_eq!(handled.last(), Some(&Handled::Busy { asked: vec![asked] }));
    let (sent, _) = ask(&mut machine, &mut host, extent_of_block(7, 3), 1);
    assert_eq!(sent, [update(&[block(7)], 0)], "the other tag is free");
    host.mark_idle(tag);
    machine.device.set_event_status(0);
    assert_eq!(host.on_interrupt(&mut machine), Ok(vec![]), "the request is forgotten");
    assert_eq!((host.release_requests().count(), host.wakes_at_ms(), host.extents().len()), (0, None, 2));
    machine.device.set_event_status(1 << 4);
    let (sent, _) = ask(&mut machine, &mut host, extent_of_block(6, 2), 2);
    assert_eq!(sent, [update(&[block(5)], 0), update(&[block(6)], 0)]);
    assert!(host.extents().is_empty());
}

#[test]
fn records_of_one_read_are_done_with_one_after_the_other() {
    use crate::draining::probed_with_large_payload;
    let (mut machine, mut host) = probed_with_large_payload(Policy::Linux);
    machine.expect([records(&[record(1, Add, 0, extent_of_block(5, 2))]), ok(ADD, &[]), cleared(), records(&[])]);
    host.on_interrupt(&mut machine).expect("an answer");
    machine.sent();
    // The tag leaves, comes back elsewhere, and leaves again, while another offer is open; a second record for what has
    // left does no harm.
    let together = [
        record(1, Add, MORE, extent_of_block(8, 4)),
        record(2, Release, MORE, extent_of_block(5, 2)),
        record(3, Release, 0, extent_of_block(5, 2)),
        record(4, Add, 0, extent_of_block(9, 4)),
        record(5, Add, 0, extent_of_block(6, 2)),
        record(6, Release, 0, extent_of_block(6, 2)),
    ];
    let no = refused(RELEASE, ReturnCode::InvalidPhysicalAddress);
    machine.expect([records(&together), ok(RELEASE, &[]), no, ok(ADD, &[]), ok(ADD, &[]), ok(RELEASE, &[])]);
    machine.expect([cleared(), records(&[])]);
    host.on_interrupt(&mut machine).expect("answers");
    let expected = [
        (0x4803, update(&[block(5)], 0)),
        (0x4803, update(&[block(5)], 0)),
        (0x4802, update(&[block(8), block(9)], 0)),
        (0x4802, update(&[block(6)], 0)),
        (0x4803, update(&[block(6)], 0)),
    ];
    assert_eq!(machine.sent()[1..6], expected);
    assert_eq!(held(&host), [(16 * MIB, 2 * MIB, 4), (18 * MIB, 2 * MIB, 4)]);
}

#[test]
fn a_forced_release_is_logged_and_the_tag_stays_taken() {
    let (mut machine, mut host) = holding(Policy::Linux, &[(5, 2)]);
    machine.expect([records(&[record(1, ForcedRelease, 0, extent_of_block(5, 2))]), cleared(), records(&[])]);
    let handled = host.on_interrupt(&mut machine).expect("a clear log");
    assert!(matches!(handled[..], [Handled::ForcedRelease { .. }]));
    assert_eq!(held(&host), [(10 * MIB, 2 * MIB, 2)]);
    machine.sent();
    assert_eq!(offer(&mut machine, &mut host, &[extent_of_block(6, 2)]), nothing());
}

#[test]
fn an_overflow_is_logged_and_no_list_is_read() {
    let (mut machine, mut host) = holding(Policy::Linux, &[(5, 2)]);
    let mut first = records(&[record(1, Add, MORE, extent_of_block(0, 1))]);
    first.answer[0] = EVENT_FLAG_OVERFLOW;
    first.answer[2] = 3;
    machine.expect([first, cleared(), records(&[])]);
    let handled = host.on_interrupt(&mut machine).expect("a clear log");
    assert_eq!(handled, [Handled::RecordsLost { count: 3 }]);
    machine.sent();
    assert_eq!(offer(&mut machine, &mut host, &[extent_of_block(1, 1)]), update(&[block(0), block(1)], 0));
}

#[test]
fn a_refused_answer_is_not_followed_by_another() {
    let (mut machine, mut host) = probed(Policy::Linux);
    let dead = refused(ADD, ReturnCode::InvalidPhysicalAddress);
    machine.expect([records(&[record(1, Add, 0, extent_of_block(0, 1))]), dead, cleared(), records(&[])]);
    let handled = host.on_interrupt(&mut machine).expect("an answer");
    assert!(matches!(&handled[1], Handled::AnswerRefused { .. }));
    assert!(host.extents().is_empty());
}
