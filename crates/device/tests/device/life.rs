//! The life of capacity: offered, accepted, released, and every way in which that goes wrong.

use crate::rig::{GIB, MIB, Rig, refusal, tag, update};
use device::Refusal;
use device::extents::{Removal, RemovalPolicy, Sanitize, TagState};
use device::operation::Reply;
use wire::{Opcode, ReturnCode, Tag};

const HALF: u64 = 512 * MIB;

fn offered(extents: &[(u64, u64)]) -> Rig {
    let mut rig = Rig::new(2);
    let len_bytes = extents.iter().map(|extent| extent.1).sum();
    rig.object_add("tm1", tag(1), len_bytes);
    assert_eq!(rig.add(tag(1), extents), Reply::Done);
    rig
}

#[test]
fn an_offer_is_announced_as_one_chain_and_listed_when_accepted() {
    let mut rig = offered(&[(HALF, HALF / 2), (0, HALF / 2)]);
    let events = rig.events();
    assert_eq!(events, [(0, 1, HALF, HALF / 2, tag(1)), (0, 0, 0, HALF / 2, tag(1))]);
    assert_eq!(rig.list(), []);
    assert_eq!(rig.state(tag(1)), TagState::Offered);
    let generation = rig.generation();
    assert_eq!(rig.respond(&[(0, HALF / 2), (HALF, HALF / 2)]), ReturnCode::Success);
    assert_ne!(rig.generation(), generation);
    // The add's order, not the answer's and not the addresses'.
    assert_eq!(rig.list(), [(HALF, HALF / 2, tag(1)), (0, HALF / 2, tag(1))]);
    assert_eq!(rig.state(tag(1)), TagState::Accepted);
}

#[test]
fn split_extents_stay_in_their_place_in_the_list() {
    let mut rig = offered(&[(HALF, HALF), (0, HALF)]);
    rig.respond(&[(0, HALF), (HALF, HALF)]);
    assert_eq!(rig.give_back(&[(HALF + 64 * MIB, 64 * MIB)]), ReturnCode::Success);
    let after = HALF + 128 * MIB;
    assert_eq!(rig.list(), [(HALF, 64 * MIB, tag(1)), (after, HALF - 128 * MIB, tag(1)), (0, HALF, tag(1))]);
    assert_eq!(rig.state(tag(1)), TagState::PartlyAccepted);
}

#[test]
fn a_subset_and_halves_may_be_accepted_and_the_rest_stays_hidden() {
    let mut rig = offered(&[(0, HALF), (HALF, HALF)]);
    assert_eq!(rig.respond(&[(HALF, HALF / 2), (HALF + HALF / 2, HALF / 2)]), ReturnCode::Success);
    assert_eq!(rig.list().len(), 2);
    assert_eq!(rig.state(tag(1)), TagState::PartlyAccepted);
    assert!(matches!(refusal(rig.add(tag(1), &[(0, GIB)])), Refusal::AlreadyAccepted { .. }));
    assert!(matches!(refusal(rig.add_on(0, 1, tag(1), &[(0, GIB)])), Refusal::TagHeld { .. }));
    assert!(matches!(refusal(rig.object_del("tm1")), Refusal::BackendInUse { .. }));
    assert_eq!(rig.give_back(&[(HALF, HALF)]), ReturnCode::Success);
    assert_eq!(rig.state(tag(1)), TagState::Released);
    assert_eq!(rig.add_on(0, 1, tag(1), &[(0, GIB)]), Reply::Done);
}

#[test]
fn an_empty_answer_rejects_and_frees_the_backend() {
    let mut rig = offered(&[(0, GIB)]);
    assert_eq!(rig.respond(&[]), ReturnCode::Success);
    assert_eq!(rig.state(tag(1)), TagState::Rejected);
    assert!(matches!(refusal(rig.release(tag(1))), Refusal::TagRejected { .. }));
    assert_eq!(rig.object_del("tm1"), Reply::Done);
    assert_eq!(rig.respond(&[]), ReturnCode::Success, "with no offer there is nothing to reject");
}

#[test]
fn answers_are_checked_whole_before_anything_changes() {
    let mut rig = offered(&[(0, HALF), (HALF, HALF)]);
    let before = rig.vm.clone();
    for (ranges, code) in [
        (vec![(0, HALF), (GIB, HALF)], ReturnCode::InvalidPhysicalAddress),
        (vec![(0, HALF), (HALF, HALF + 2 * MIB)], ReturnCode::InvalidPhysicalAddress),
        (vec![(0, GIB)], ReturnCode::InvalidPhysicalAddress),
        (vec![(0, HALF), (HALF - 2 * MIB, 4 * MIB)], ReturnCode::InvalidExtentList),
        (vec![(0, MIB)], ReturnCode::InvalidExtentList),
        (vec![(MIB, 2 * MIB)], ReturnCode::InvalidExtentList),
        (vec![(0, 0)], ReturnCode::InvalidExtentList),
        (vec![(u64::MAX - MIB, 2 * MIB)], ReturnCode::InvalidPhysicalAddress),
        (vec![(4 * GIB, 2 * MIB)], ReturnCode::InvalidPhysicalAddress),
    ] {
        assert_eq!(rig.respond(&ranges), code, "{ranges:x?}");
        assert_eq!(rig.vm, before, "{ranges:x?}");
    }
    for (payload, what) in [
        (vec![], "nothing"),
        (update(&[(0, HALF)], 0)[..31].to_vec(), "a cut entry"),
        ([update(&[(0, HALF)], 0), vec![0; 24]].concat(), "an entry too many"),
        (vec![0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0], "a count of 2^32-1"),
    ] {
        let reply = rig.command(Opcode::ADD_DC_RESPONSE, payload);
        assert_eq!(reply.return_code, ReturnCode::InvalidPayloadLength, "{what}");
        assert_eq!(rig.vm, before, "{what}");
    }
}

#[test]
fn offers_are_answered_in_their_order() {
    let mut rig = offered(&[(0, HALF)]);
    rig.object_add("tm2", tag(2), HALF);
    rig.add(tag(2), &[(HALF, HALF)]);
    assert_eq!(rig.respond(&[(HALF, HALF)]), ReturnCode::InvalidInput, "the second group before the first");
    assert_eq!(rig.respond(&[(0, HALF)]), ReturnCode::Success);
    assert_eq!(rig.respond(&[(HALF, HALF)]), ReturnCode::Success);
    assert_eq!(rig.respond(&[(HALF, HALF)]), ReturnCode::InvalidPhysicalAddress, "accepted already");
}

#[test]
fn chained_answers_take_effect_with_the_last_message() {
    let mut rig = offered(&[(0, HALF), (HALF, HALF)]);
    let more = rig.command(Opcode::ADD_DC_RESPONSE, update(&[(0, HALF)], 1));
    assert_eq!(more.return_code, ReturnCode::Success);
    assert_eq!(rig.list(), [], "the chain is open");
    assert_eq!(rig.respond(&[(HALF, HALF)]), ReturnCode::Success);
    assert_eq!(rig.list().len(), 2);
    // A release may be chained as well, and an error ends the chain with nothing done.
    rig.command(Opcode::RELEASE_DC, update(&[(0, HALF)], 1));
    assert_eq!(rig.give_back(&[(0, 2 * MIB)]), ReturnCode::InvalidExtentList, "overlaps the message before");
    assert_eq!(rig.give_back(&[(0, HALF)]), ReturnCode::Success, "the broken chain left nothing behind");
    // An answer in between interrupts.
    rig.command(Opcode::RELEASE_DC, update(&[(HALF, 2 * MIB)], 1));
    assert_eq!(rig.respond(&[]), ReturnCode::Success);
    assert_eq!(rig.give_back(&[]), ReturnCode::InvalidInput, "the interrupted chain is gone");
}

#[test]
fn a_release_request_changes_nothing_until_the_host_answers() {
    let mut rig = Rig::new(2);
    rig.accepted(1, 0, GIB);
    let generation = rig.generation();
    assert_eq!(rig.release(tag(1)), Reply::Done);
    assert_eq!(rig.events(), [(1, 0, 0, GIB, tag(1))]);
    assert_eq!((rig.list().len(), rig.generation()), (1, generation));
    assert_eq!(rig.state(tag(1)), TagState::ReleaseRequested);
    assert_eq!(rig.give_back(&[(0, GIB)]), ReturnCode::Success);
    assert_eq!(rig.state(tag(1)), TagState::Released);
    let logged = rig.events().len();
    assert_eq!(rig.release(tag(1)), Reply::Done, "what was asked for has happened");
    assert_eq!(rig.events().len(), logged);
}

#[test]
fn a_repeated_request_logs_again_only_what_the_host_has_cleared() {
    let mut rig = offered(&[(0, HALF), (HALF, HALF)]);
    rig.respond(&[(0, HALF), (HALF, HALF)]);
    rig.clear_events();
    rig.release(tag(1));
    rig.release(tag(1));
    assert_eq!(rig.events().len(), 2, "still in the log");
    rig.clear_events();
    let before = rig.device(0).extents.tag_status(tag(1));
    rig.release(tag(1));
    assert_eq!(rig.events().len(), 2, "the host has cleared them and still holds the extents");
    assert_eq!(rig.device(0).extents.tag_status(tag(1)), before);
}

#[test]
fn releases_that_cannot_be_meant_are_errors() {
    let mut rig = Rig::new(2);
    rig.accepted(1, 0, HALF);
    rig.object_add("tm2", tag(2), HALF);
    rig.add(tag(2), &[(HALF, HALF)]);
    assert!(matches!(refusal(rig.release(tag(9))), Refusal::TagUnknown { .. }));
    assert!(matches!(refusal(rig.release(Tag::NONE)), Refusal::ReleaseTagNeeded));
    assert!(matches!(refusal(rig.release(tag(2))), Refusal::StillOffered { .. }));
    let elsewhere = rig.release_with(|request| (request.tag, request.region) = (tag(1), 1));
    assert!(matches!(refusal(elsewhere), Refusal::TagInOtherRegion { .. }));
    let other_head = rig.release_with(|request| (request.tag, request.host_id) = (tag(1), 99));
    assert!(matches!(refusal(other_head), Refusal::Host { host_id: 99 }));
    let sanitize = rig.release_with(|request| (request.tag, request.sanitize) = (tag(1), Sanitize::OnRelease));
    assert_eq!(refusal(sanitize), Refusal::Sanitize);
    let mut prescriptive = |tag: Tag, offset: u64, len_bytes: u64| {
        rig.release_with(|request| {
            request.policy = RemovalPolicy::Prescriptive;
            request.tag = tag;
            request.extents = vec![device::extents::RegionRange { offset, len_bytes }];
        })
    };
    assert!(matches!(refusal(prescriptive(tag(2), 0, HALF)), Refusal::OtherTag { .. }));
    assert!(matches!(refusal(prescriptive(Tag::NONE, HALF, HALF)), Refusal::StillOffered { .. }));
    assert!(matches!(refusal(prescriptive(Tag::NONE, 0, HALF - 1)), Refusal::Alignment { .. }));
    assert_eq!(prescriptive(Tag::NONE, 2 * MIB, 2 * MIB), Reply::Done);
    assert_eq!(rig.events().last(), Some(&(1, 0, 2 * MIB, 2 * MIB, tag(1))), "without a tag the extent's own");
}

#[test]
fn force_takes_accepted_capacity_at_once_and_announces_it() {
    let mut rig = Rig::new(2);
    rig.accepted(1, 0, GIB);
    assert_eq!(rig.force(tag(1)), Reply::Done);
    assert_eq!(rig.list(), []);
    assert_eq!(rig.events(), [(2, 0, 0, GIB, tag(1))]);
    assert_eq!(rig.state(tag(1)), TagState::Forced);
    assert_eq!(rig.give_back(&[(0, GIB)]), ReturnCode::InvalidPhysicalAddress, "it is not the host's any more");
    assert_eq!(rig.object_del("tm1"), Reply::Done);
}

#[test]
fn force_on_an_offer_makes_it_dead() {
    let mut rig = offered(&[(0, HALF)]);
    rig.object_add("tm2", tag(2), HALF);
    rig.add(tag(2), &[(HALF, HALF)]);
    let logged = rig.events();
    let available = rig.device(0).extents.available_extents();
    assert_eq!(rig.force(tag(1)), Reply::Done);
    assert_eq!(rig.state(tag(1)), TagState::Dead);
    assert_eq!(rig.events(), logged, "no new record, and the old ones stay");
    assert_eq!(rig.device(0).extents.available_extents(), available, "a dead offer counts until it is answered");
    assert!(matches!(refusal(rig.release(tag(1))), Refusal::TagDead { .. }));
    assert_eq!(rig.respond(&[(0, HALF)]), ReturnCode::InvalidPhysicalAddress);
    assert_eq!(rig.respond(&[]), ReturnCode::Success, "the empty answer closes the dead offer, not the next one");
    assert_eq!(rig.respond(&[(HALF, HALF)]), ReturnCode::Success);
}

#[test]
fn a_host_that_was_told_of_a_dead_offer_may_go_on_with_the_next() {
    let mut rig = offered(&[(0, HALF)]);
    rig.object_add("tm2", tag(2), HALF);
    rig.add(tag(2), &[(HALF, HALF)]);
    rig.force(tag(1));
    assert_eq!(rig.respond(&[(HALF, HALF)]), ReturnCode::InvalidInput, "not told yet: out of order");
    assert_eq!(rig.respond(&[(0, HALF)]), ReturnCode::InvalidPhysicalAddress);
    assert_eq!(rig.respond(&[(HALF, HALF)]), ReturnCode::Success);
    assert!(rig.device(0).extents.offers().is_empty());
}

#[test]
fn force_on_a_part_leaves_the_rest() {
    let mut rig = Rig::new(2);
    rig.accepted(1, 0, GIB);
    rig.release_with(|request| {
        request.policy = RemovalPolicy::Prescriptive;
        request.removal = Removal::Forced;
        request.extents = vec![device::extents::RegionRange { offset: HALF, len_bytes: 2 * MIB }];
    });
    assert_eq!(rig.list(), [(0, HALF, tag(1)), (HALF + 2 * MIB, HALF - 2 * MIB, tag(1))]);
    assert_eq!(rig.events(), [(2, 0, HALF, 2 * MIB, tag(1))]);
}

#[test]
fn the_host_may_give_back_more_than_asked_and_unasked() {
    let mut rig = Rig::new(2);
    rig.accepted(1, 0, HALF);
    rig.accepted(2, HALF, HALF);
    assert_eq!(rig.give_back(&[]), ReturnCode::InvalidInput);
    assert_eq!(rig.give_back(&[(0, HALF), (GIB, 2 * MIB)]), ReturnCode::InvalidPhysicalAddress);
    assert_eq!(rig.list().len(), 2, "all or nothing");
    assert_eq!(rig.give_back(&[(HALF / 2, HALF)]), ReturnCode::Success, "across two extents");
    assert_eq!(rig.list(), [(0, HALF / 2, tag(1)), (HALF + HALF / 2, HALF / 2, tag(2))]);
}

#[test]
fn reset_keeps_what_is_accepted_and_withdraws_what_is_offered() {
    let mut rig = Rig::new(2);
    rig.accepted(1, 0, HALF);
    rig.object_add("tm2", tag(2), HALF);
    rig.add(tag(2), &[(HALF, HALF)]);
    rig.command(Opcode::SET_TIMESTAMP, 5u64.to_le_bytes().to_vec());
    rig.command(Opcode::SET_EVENT_INTERRUPT_POLICY, vec![0, 0, 0, 0, 1]);
    rig.reset();
    assert_eq!(rig.events(), []);
    assert_eq!(rig.list(), [(0, HALF, tag(1))]);
    assert_eq!(rig.state(tag(2)), TagState::Rejected);
    assert_eq!(rig.object_del("tm2"), Reply::Done);
    assert_eq!(rig.command(Opcode::GET_TIMESTAMP, vec![]).payload, [0; 8]);
    let policy = rig.command(Opcode::GET_EVENT_INTERRUPT_POLICY, vec![]).payload;
    assert!(policy.iter().all(|setting| setting & 3 == 0), "{policy:?}");
}

#[test]
fn an_add_whose_chain_does_not_fit_the_log_is_refused_whole() {
    let mut rig = Rig::new(2);
    let extents: Vec<_> = (0..500).map(|n| (n * 2 * MIB, 2 * MIB)).collect();
    let mut refused = None;
    for n in 0..12u8 {
        rig.object_add(&format!("tm{n}"), tag(n), 1000 * MIB);
        let reply = rig.add(tag(n), &extents);
        if let Reply::Refused(refusal) = reply {
            refused = Some(refusal);
            break;
        }
        // The host answers and does not clear: the near-mainline kernel that never reads the log.
        assert_eq!(rig.respond(&[]), ReturnCode::Success);
    }
    assert_eq!(refused, Some(Refusal::EventLogFull { records: 500, room: 96, capacity: 4096 }));
    rig.clear_events();
    assert_eq!(rig.add(tag(8), &extents), Reply::Done);
}

#[test]
fn a_forced_chain_that_does_not_fit_is_dropped_whole_and_counted() {
    let mut rig = Rig::new(2);
    rig.object_add("tm1", tag(1), 100 * MIB);
    let extents: Vec<_> = (0..50).map(|n| (n * 2 * MIB, 2 * MIB)).collect();
    rig.add(tag(1), &extents);
    rig.respond(&extents);
    let filler: Vec<_> = (50..511).map(|n| (n * 2 * MIB, 2 * MIB)).collect();
    rig.object_add("tm2", tag(2), 922 * MIB);
    while rig.device(0).extents.log().room() >= filler.len() {
        rig.add(tag(2), &filler);
        rig.respond(&[]);
    }
    let fill: Vec<_> = filler[..rig.device(0).extents.log().room() - 10].to_vec();
    rig.object_add("tm3", tag(3), fill.len() as u64 * 2 * MIB);
    assert_eq!(rig.add(tag(3), &fill), Reply::Done);
    assert_eq!(rig.force(tag(1)), Reply::Done, "a forced removal does not wait for the log");
    assert_eq!(rig.list(), []);
    let answer = rig.command(Opcode::GET_EVENT_RECORDS, vec![4]).payload;
    assert_eq!(answer[0] & 1, 1, "overflow");
    assert_eq!(u16::from_le_bytes([answer[2], answer[3]]), 50);
    let clear_all = rig.command(Opcode::CLEAR_EVENT_RECORDS, vec![4, 1, 0, 0, 0, 0]);
    assert_eq!(clear_all.return_code, ReturnCode::Success);
    assert_eq!(rig.events(), []);
    let again = rig.command(Opcode::CLEAR_EVENT_RECORDS, vec![4, 1, 0, 0, 0, 0]);
    assert_eq!(again.return_code, ReturnCode::InvalidInput, "legal only after an overflow");
}

#[test]
fn handles_must_be_the_oldest_in_their_order() {
    let mut rig = offered(&[(0, HALF), (HALF, HALF)]);
    let clear = |rig: &mut Rig, handles: &[u16]| {
        let mut payload = vec![4, 0, handles.len() as u8, 0, 0, 0];
        handles.iter().for_each(|handle| payload.extend(handle.to_le_bytes()));
        rig.command(Opcode::CLEAR_EVENT_RECORDS, payload).return_code
    };
    for bad in [&[2][..], &[2, 1], &[0], &[1, 2, 3], &[7]] {
        assert_eq!(clear(&mut rig, bad), ReturnCode::InvalidHandle, "{bad:?}");
    }
    assert_eq!(rig.events().len(), 2);
    assert_eq!(clear(&mut rig, &[1]), ReturnCode::Success);
    assert_eq!(clear(&mut rig, &[2]), ReturnCode::Success);
    assert_eq!(rig.events(), []);
}

#[test]
fn a_tag_stands_for_one_backend_on_all_devices() {
    let mut rig = Rig::new(2);
    rig.object_add("tm1", tag(1), GIB);
    assert!(matches!(refusal(rig.object_add("tm9", tag(1), GIB)), Refusal::DuplicateTag { .. }));
    assert!(matches!(refusal(rig.object_add("tm1", tag(9), GIB)), Refusal::DuplicateBackend { .. }));
    assert_eq!(rig.add(tag(1), &[(0, GIB)]), Reply::Done);
    let on_the_other = refusal(rig.add_on(1, 0, tag(1), &[(0, GIB)]));
    assert_eq!(
        on_the_other.to_string(),
        format!("tag {} is held by cxl-vmem0, #6: backend tm1 is reserved; release it first", tag(1))
    );
}

#[test]
fn the_clock_runs_from_what_the_host_set() {
    let mut rig = Rig::new(1);
    assert_eq!(rig.command(Opcode::GET_TIMESTAMP, vec![]).payload, [0; 8]);
    rig.command(Opcode::SET_TIMESTAMP, 1_000_000u64.to_le_bytes().to_vec());
    let answer = rig.command(Opcode::GET_TIMESTAMP, vec![]).payload;
    assert_eq!(answer, 1_001_000u64.to_le_bytes(), "one record later, a microsecond of the rig's clock");
}
