//! Events: offers, requests, what is sent before what, and logs that cannot be trusted.

use driver::event_log;
use driver::{DrainError, Handled, Host, OfferAnswer, OfferError, Policy, RespondError};
use wire::DcEventKind::{Add, ForcedRelease, RegionConfigurationUpdated, Release, Released};
use wire::{EVENT_FLAG_OVERFLOW, Opcode, ReturnCode};

use zerocopy::little_endian::U16;

use crate::exchange::{MIB, clear, cleared, extent, extent_list, ok, range, record, records, refused, update};
use crate::machine::Machine;
use crate::probing::probed;

pub(crate) const MORE: u8 = 1;
const ADD: Opcode = Opcode::ADD_DC_RESPONSE;
const RELEASE: Opcode = Opcode::RELEASE_DC;

pub(crate) fn block(n: u64) -> (u64, u64) {
    (2 * n * MIB, 2 * MIB)
}

pub(crate) fn held(host: &Host) -> Vec<(u64, u64, u8)> {
    host.extents().iter().map(|extent| (extent.dpa.0, extent.len_bytes, extent.tag.bytes()[0])).collect()
}

/// A probed host that has accepted these blocks, each with its tag, as offers of their own.
pub(crate) fn holding(policy: Policy, blocks: &[(u64, u8)]) -> (Machine, Host) {
    let (mut machine, mut host) = probed(Policy::Accept);
    for (n, tag) in blocks {
        let (start, len_bytes) = block(*n);
        let offer = record(1, Add, 0, extent(start, len_bytes, *tag));
        machine.expect([records(&[offer]), ok(ADD, &[]), cleared(), records(&[])]);
        host.on_interrupt(&mut machine).expect("an answer");
    }
    machine.sent();
    host.set_policy(policy);
    (machine, host)
}

#[test]
fn nothing_is_read_while_the_event_status_is_clear() {
    let (mut machine, mut host) = probed(Policy::Accept);
    machine.device.set_event_status(0xf);
    assert_eq!(host.on_interrupt(&mut machine), Ok(vec![]));
    assert!(machine.sent().is_empty());
}

#[test]
fn a_chain_over_two_reads_is_answered_once_and_before_its_last_clear() {
    let (mut machine, mut host) = probed(Policy::Accept);
    let part = |handle, flags, n| {
        let (start, len_bytes) = block(n);
        record(handle, Add, flags, extent(start, len_bytes, 9))
    };
    machine.expect([
        records(&[part(7, MORE, 5)]),
        cleared(),
        records(&[part(8, 0, 1)]),
        ok(ADD, &[]),
        cleared(),
        records(&[]),
    ]);
    let handled = host.on_interrupt(&mut machine).expect("an answer");
    let expected = [
        (0x0100, vec![4]),
        (0x0101, clear(&[7])),
        (0x0100, vec![4]),
        (0x4802, update(&[block(5), block(1)], 0)),
        (0x0101, clear(&[8])),
        (0x0100, vec![4]),
    ];
    assert_eq!(machine.sent(), expected);
    assert_eq!(held(&host), [(10 * MIB, 2 * MIB, 9), (2 * MIB, 2 * MIB, 9)], "in the order of the log");
    assert!(
        matches!(&handled[..], [Handled::Offered { .. }, Handled::Answered { accepted, .. }] if accepted.len() == 2)
    );
}

#[test]
fn a_long_answer_is_chained() {
    let (mut machine, mut host) = probed(Policy::Accept);
    // A payload of 256 bytes holds one record and ten ranges.
    let count = 11;
    for n in 0..count {
        let (start, len_bytes) = block(n);
        let flags = if n + 1 < count { MORE } else { 0 };
        machine.expect([records(&[record(n as u16 + 1, Add, flags, extent(start, len_bytes, 1))])]);
        machine.expect((n + 1 == count).then_some([ok(ADD, &[]), ok(ADD, &[])]).into_iter().flatten());
        machine.expect([cleared()]);
    }
    machine.expect([records(&[])]);
    host.on_interrupt(&mut machine).expect("an answer");
    let ranges: Vec<_> = (0..count).map(block).collect();
    let answers: Vec<_> = machine.sent().into_iter().filter(|(opcode, _)| *opcode == 0x4802).collect();
    assert_eq!(answers, [(0x4802, update(&ranges[..10], MORE)), (0x4802, update(&ranges[10..], 0))]);
    assert_eq!(host.extents().len(), 11);
}

#[test]
fn a_long_clear_is_cut_to_the_payload_and_to_its_count() {
    let handles: Vec<_> = (1..=300).map(U16::new).collect();
    // 125 handles fit behind the head; a large area holds more, but the count is one byte.
    for ((mut machine, host), fit) in [(probed(Policy::Accept), 125), (probed_with_large_payload(Policy::Accept), 255)]
    {
        let parts: Vec<_> = handles.chunks(fit).collect();
        machine.expect(parts.iter().map(|_| cleared()));
        event_log::clear(&mut machine, host.mailbox(), &handles).expect("cleared");
        let numbers = |part: &[U16]| part.iter().map(|handle| handle.get()).collect::<Vec<_>>();
        let expected: Vec<_> = parts.iter().map(|part| (0x0101, clear(&numbers(part)))).collect();
        assert_eq!(machine.sent(), expected);
    }
}

#[test]
fn two_offers_in_one_read_get_two_answers_in_order() {
    let (mut machine, mut host) = probed_with_large_payload(Policy::Reject);
    let offers = [record(1, Add, 0, extent(0, 2 * MIB, 1)), record(2, Add, 0, extent(2 * MIB, 2 * MIB, 2))];
    machine.expect([records(&offers), ok(ADD, &[]), ok(ADD, &[]), cleared(), records(&[])]);
    host.on_interrupt(&mut machine).expect("answers");
    let empty = || (0x4802, update(&[], 0));
    assert_eq!(machine.sent()[1..4], [empty(), empty(), (0x0101, clear(&[1, 2]))]);
    assert!(host.extents().is_empty());
}

/// As `probed`, with a payload area of 4 KiB.
pub(crate) fn probed_with_large_payload(policy: Policy) -> (Machine, Host) {
    use crate::exchange::{cel, configuration, identity, region, supported_logs};
    let log = cel(&[0x4800, 0x4801, 0x4802, 0x4803].map(Opcode));
    let script = [
        supported_logs(log.len() as u32),
        ok(Opcode::GET_LOG, &log),
        ok(Opcode::SET_TIMESTAMP, &[]),
        identity(),
        configuration(1, &[region(0, 1024 * MIB)]),
        ok(Opcode::GET_EVENT_INTERRUPT_POLICY, &[0; 5]),
        ok(Opcode::SET_EVENT_INTERRUPT_POLICY, &[]),
        ok(Opcode::GET_EVENT_INTERRUPT_POLICY, &[0, 0, 0, 0, 1]),
        extent_list(0, 0, &[]),
    ];
    let mut machine = Machine::new(12, script);
    let host = Host::probe(&mut machine, &crate::machine::map(), policy).expect("a device");
    machine.sent();
    machine.device.set_event_status(1 << 4);
    (machine, host)
}

#[test]
fn a_held_offer_waits_for_the_program() {
    let (mut machine, mut host) = probed(Policy::Hold);
    let offer = record(1, Add, 0, extent(0, 8 * MIB, 3));
    machine.expect([records(&[offer]), cleared(), records(&[])]);
    let handled = host.on_interrupt(&mut machine).expect("a clear log");
    assert!(matches!(handled[..], [Handled::Offered { .. }]));
    assert_eq!(host.offers().count(), 1);
    machine.sent();
    let outside = OfferAnswer::Ranges(vec![range(6 * MIB, 4 * MIB)]);
    let error = host.respond(&mut machine, &outside).expect_err("not offered");
    assert_eq!(error, RespondError::Offer(OfferError::NotOffered { range: range(6 * MIB, 4 * MIB) }));
    machine.expect([ok(ADD, &[])]);
    let part = OfferAnswer::Ranges(vec![range(4 * MIB, 2 * MIB)]);
    host.respond(&mut machine, &part).expect("an answer");
    assert_eq!(machine.sent(), [(0x4802, update(&[(4 * MIB, 2 * MIB)], 0))]);
    assert_eq!(held(&host), [(4 * MIB, 2 * MIB, 3)]);
    assert_eq!(host.respond(&mut machine, &OfferAnswer::All), Err(RespondError::NoOffer));
}

#[test]
fn a_refused_answer_is_followed_by_the_empty_one() {
    let (mut machine, mut host) = probed(Policy::Accept);
    let offer = record(1, Add, 0, extent(0, 2 * MIB, 3));
    let dead = refused(ADD, ReturnCode::InvalidPhysicalAddress);
    machine.expect([records(&[offer]), dead, ok(ADD, &[]), cleared(), records(&[])]);
    let handled = host.on_interrupt(&mut machine).expect("an answer");
    let code = ReturnCode::InvalidPhysicalAddress;
    assert!(matches!(&handled[1], Handled::AnswerRefused { code: refused, .. } if *refused == code));
    assert_eq!(machine.sent()[2], (0x4802, update(&[], 0)));
    assert!(host.extents().is_empty());
}

#[test]
fn an_offer_that_breaks_a_rule_gets_the_empty_answer() {
    for bad in [
        vec![record(1, Add, 0, extent(1024 * MIB, 2 * MIB, 1))],
        vec![record(1, Add, 0, extent(0, u64::MAX, 1))],
        vec![record(1, Add, 0, extent(MIB, 2 * MIB, 1))],
        vec![record(1, Add, 0, extent(10 * MIB, 2 * MIB, 1))],
        vec![record(1, Add, MORE, extent(0, 4 * MIB, 1)), record(2, Add, 0, extent(2 * MIB, 2 * MIB, 1))],
    ] {
        let (mut machine, mut host) = holding(Policy::Accept, &[(5, 2)]);
        for (n, record) in bad.iter().enumerate() {
            machine.expect([records(&[*record])]);
            machine.expect((n + 1 == bad.len()).then_some(ok(ADD, &[])));
            machine.expect([cleared()]);
        }
        machine.expect([records(&[])]);
        host.on_interrupt(&mut machine).expect("an answer");
        let answers: Vec<_> = machine.sent().into_iter().filter(|(opcode, _)| *opcode == 0x4802).collect();
        assert_eq!(answers, [(0x4802, update(&[], 0))], "{bad:?}");
        assert_eq!(host.extents().len(), 1);
    }
}

#[test]
fn another_kind_breaks_an_open_offer() {
    let (mut machine, mut host) = holding(Policy::Accept, &[(5, 2)]);
    machine.expect([
        records(&[record(1, Add, MORE, extent(0, 2 * MIB, 1))]),
        cleared(),
        records(&[record(2, Release, 0, extent(10 * MIB, 2 * MIB, 2))]),
        ok(ADD, &[]),
        ok(RELEASE, &[]),
        cleared(),
        records(&[]),
    ]);
    let handled = host.on_interrupt(&mut machine).expect("an answer");
    assert!(matches!(&handled[0], Handled::Offered { offer } if offer.fault == Some(OfferError::Unfinished)));
    assert_eq!(machine.sent()[3], (0x4802, update(&[], 0)));
    assert!(host.extents().is_empty());
}

#[test]
fn a_tag_leaves_as_a_whole_before_its_record_is_cleared() {
    let (mut machine, mut host) = holding(Policy::Accept, &[(5, 2), (6, 0), (1, 2)]);
    let asked = record(4, Release, 0, extent(2 * MIB, 2 * MIB, 2));
    machine.expect([records(&[asked]), ok(RELEASE, &[]), cleared(), records(&[])]);
    host.on_interrupt(&mut machine).expect("an answer");
    let expected =
        [(0x0100, vec![4]), (0x4803, update(&[block(5), block(1)], 0)), (0x0101, clear(&[4])), (0x0100, vec![4])];
    assert_eq!(machine.sent(), expected);
    assert_eq!(held(&host), [(12 * MIB, 2 * MIB, 0)]);
}

#[test]
fn a_release_of_what_the_host_does_not_have_is_sent_as_it_was_named() {
    let (mut machine, mut host) = probed(Policy::Reject);
    let asked = record(4, Release, 0, extent(2 * MIB, 2 * MIB, 2));
    let no = refused(RELEASE, ReturnCode::InvalidPhysicalAddress);
    machine.expect([records(&[asked]), no, cleared(), records(&[])]);
    let handled = host.on_interrupt(&mut machine).expect("an answer");
    assert!(matches!(handled[1], Handled::ReleaseRefused { .. }));
    assert_eq!(machine.sent()[1], (0x4803, update(&[block(1)], 0)));
}

#[test]
fn a_held_release_leaves_when_the_program_says_so() {
    let (mut machine, mut host) = holding(Policy::Hold, &[(5, 2)]);
    machine.expect([records(&[record(4, Release, 0, extent(10 * MIB, 2 * MIB, 2))]), cleared(), records(&[])]);
    host.on_interrupt(&mut machine).expect("a clear log");
    assert_eq!((host.release_requests().count(), host.extents().len()), (1, 1));
    machine.expect([ok(RELEASE, &[])]);
    let handled = host.release_requested(&mut machine).expect("a release");
    assert_eq!(handled, Some(Handled::Released { ranges: vec![range(10 * MIB, 2 * MIB)] }));
    assert_eq!(host.release_requested(&mut machine), Ok(None));
    assert!(host.extents().is_empty());
}

#[test]
fn a_part_can_be_given_back_unasked() {
    let (mut machine, mut host) = holding(Policy::Accept, &[(0, 0), (1, 0)]);
    machine.expect([ok(RELEASE, &[])]);
    host.release(&mut machine, &[range(2 * MIB, 2 * MIB)]).expect("a release");
    assert_eq!(held(&host), [(0, 2 * MIB, 0)]);
    machine.sent();
    host.release(&mut machine, &[]).expect("nothing to do");
    assert!(machine.sent().is_empty(), "an empty release is not legal");
}

#[test]
fn what_was_taken_away_is_gone_without_an_answer() {
    let (mut machine, mut host) = holding(Policy::Accept, &[(5, 2), (6, 3)]);
    let forced = record(4, ForcedRelease, 0, extent(10 * MIB, 2 * MIB, 2));
    machine.expect([records(&[forced]), cleared(), records(&[])]);
    let handled = host.on_interrupt(&mut machine).expect("a clear log");
    assert!(matches!(handled[..], [Handled::ForcedRelease { .. }]));
    assert_eq!(held(&host), [(12 * MIB, 2 * MIB, 3)]);
}

#[test]
fn records_for_others_are_cleared() {
    let (mut machine, mut host) = probed(Policy::Accept);
    let updated = record(1, RegionConfigurationUpdated, 0, extent(0, 0, 0));
    let released = record(2, Released, 0, extent(0, 0, 0));
    let mut foreign = record(3, Add, 0, extent(0, 2 * MIB, 0));
    foreign.header.uuid = [1; 16];
    for record in [updated, released, foreign] {
        machine.expect([records(&[record]), cleared()]);
    }
    machine.expect([records(&[])]);
    let handled = host.on_interrupt(&mut machine).expect("a clear log");
    assert!(matches!(
        handled[..],
        [Handled::RegionConfigurationUpdated { region: 0 }, Handled::Ignored { .. }, Handled::Ignored { .. }]
    ));
}

#[test]
fn after_an_overflow_the_list_is_read_anew() {
    let (mut machine, mut host) = holding(Policy::Accept, &[(5, 2)]);
    let mut first = records(&[record(1, Add, MORE, extent(0, 2 * MIB, 1))]);
    first.answer[0] = EVENT_FLAG_OVERFLOW;
    first.answer[2] = 3;
    machine.expect([
        first,
        cleared(),
        records(&[]),
        // The end of the offer is lost; the host answers for what it saw.
        ok(ADD, &[]),
        extent_list(1, 9, &[extent(20 * MIB, 2 * MIB, 7)]),
    ]);
    let handled = host.on_interrupt(&mut machine).expect("a list");
    assert_eq!(handled.last(), Some(&Handled::RecordsLost { count: 3 }));
    assert_eq!(held(&host), [(20 * MIB, 2 * MIB, 7)]);
    assert_eq!(machine.sent()[3], (0x4802, update(&[], 0)));
}

#[test]
fn a_failed_clear_is_repeated_and_nothing_is_answered_twice() {
    let (mut machine, mut host) = probed(Policy::Accept);
    let offer = record(1, Add, 0, extent(0, 2 * MIB, 1));
    let no = refused(Opcode::CLEAR_EVENT_RECORDS, ReturnCode::InternalError);
    machine.expect([records(&[offer]), ok(ADD, &[]), no]);
    let error = host.on_interrupt(&mut machine).expect_err("a clear that fails");
    assert!(matches!(error, DrainError::Mailbox(_)));
    machine.sent();
    machine.expect([cleared(), records(&[])]);
    let handled = host.on_interrupt(&mut machine).expect("a clear log");
    assert_eq!(machine.sent()[0], (0x0101, clear(&[1])));
    assert!(matches!(handled[..], [Handled::Offered { .. }, Handled::Answered { .. }]), "reported late, not never");
}

#[test]
fn a_record_count_beyond_the_bytes_is_refused() {
    let (mut machine, mut host) = probed(Policy::Accept);
    let mut lie = records(&[record(1, Add, 0, extent(0, 2 * MIB, 1))]);
    lie.answer[0x14] = 0xff;
    lie.answer[0x15] = 0xff;
    machine.expect([lie]);
    let error = host.on_interrupt(&mut machine).expect_err("65535 records in 160 bytes");
    assert_eq!(error.to_string(), "0100h (Get Event Records) was answered with 160 bytes where 8388512 are needed");
}

#[test]
fn a_log_that_is_filled_as_fast_as_it_is_read_is_given_up() {
    let (mut machine, mut host) = probed(Policy::Accept);
    let record = record(1, Released, 0, extent(0, 0, 0));
    machine.expect((0..0x1_0000).flat_map(|_| [records(&[record]), cleared()]));
    machine.device.script.pop_back();
    assert_eq!(host.drain(&mut machine), Err(DrainError::NeverEmpty { reads: 0x1_0000 }));
}
