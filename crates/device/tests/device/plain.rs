//! A plain device: one backend behind all of its dynamic capacity, tags as labels, and static memory below the regions.

use device::backends::Holder;
use device::config::{DeviceConfig, DeviceIndex, DeviceRequest};
use device::extents::{Notice, NoticeKind, Removal, RemovalPolicy, TagState};
use device::operation::{Fact, Input, Reply};
use device::windows::{self, DecoderFields};
use device::{Refusal, Seq};
use wire::{Dpa, Hpa, Opcode, ReturnCode, Tag};

use crate::rig::{GIB, MIB, Rig, refusal, tag};

const BLOCK: u64 = 2 * MIB;
const STATIC: u64 = 256 * MIB;

/// A request for a plain device of two regions over the backend `dc`, 1 GiB each.
pub(crate) fn plain_request() -> DeviceRequest {
    DeviceRequest {
        id: "cxl-vmem0".into(),
        num_dc_regions: Some(2),
        volatile_dc_memdev: Some("dc".into()),
        mailbox_payload_bytes: Some(2048),
        ..DeviceRequest::default()
    }
}

/// The device that a request describes, of the backends that there are.
pub(crate) fn configured(rig: &Rig, request: &DeviceRequest) -> DeviceConfig {
    let size_of = |id: &str| rig.vm.backends.get(id).map(|backend| backend.spec.size_bytes);
    DeviceConfig::new(request, &size_of).expect("a device")
}

/// A VM with the backends `dc` of 2 GiB and `fixed` of 256 MiB, and this device in its first port.
fn plugged(edit: impl FnOnce(&mut DeviceRequest)) -> Rig {
    let mut rig = Rig::without_devices();
    rig.object_add("dc", Tag::NONE, 2 * GIB);
    rig.object_add("fixed", Tag::NONE, STATIC);
    let mut request = plain_request();
    edit(&mut request);
    let config = configured(&rig, &request);
    assert_eq!(rig.plug(0, config), Reply::Done);
    rig
}

fn reusable() -> Rig {
    plugged(|_| ())
}

/// With static memory in front.
fn behind_static() -> Rig {
    plugged(|request| request.volatile_memdev = Some("fixed".into()))
}

/// Offered and accepted whole.
fn accepted(rig: &mut Rig, region: u8, tag: Tag, extents: &[(u64, u64)]) {
    assert_eq!(rig.add_on(0, region, tag, extents), Reply::Done);
    let base = rig.device(0).config.regions[usize::from(region)].base.0;
    let answer: Vec<_> = extents.iter().map(|(offset, len)| (base + offset, *len)).collect();
    assert_eq!(rig.respond(&answer), ReturnCode::Success);
    rig.clear_events();
}

/// DPA, length and place in the backend of what is accepted, by address.
fn places(rig: &Rig) -> Vec<(u64, u64, u64)> {
    let extents = rig.device(0).extents.accepted().iter();
    extents.map(|extent| (extent.range.start.0, extent.range.len_bytes, extent.offset_bytes)).collect()
}

fn prescriptive(rig: &mut Rig, removal: Removal, tag: Tag, offset: u64, len_bytes: u64) -> Reply {
    rig.release_with(|request| {
        (request.policy, request.removal, request.tag) = (RemovalPolicy::Prescriptive, removal, tag);
        request.extents = vec![device::extents::RegionRange { offset, len_bytes }];
    })
}

fn commit(rig: &mut Rig, decoder: u8, base: Hpa, size_bytes: u64, skip_bytes: u64) {
    let fields = DecoderFields { base, size_bytes, skip_bytes, control: 0 };
    rig.decide_on(0, &Input::Windows(windows::Input::DecoderCommit { decoder, fields }), &[]);
}

fn notices(rig: &Rig) -> Vec<Notice> {
    let of = |fact: &Fact| match fact {
        Fact::Extents(fact) => Notice::of(&rig.device(0).config, Seq(rig.seq), fact),
        _ => Vec::new(),
    };
    rig.facts.iter().flat_map(of).collect()
}

#[test]
fn capacity_is_added_with_and_without_a_tag_and_needs_no_size_of_a_backend() {
    let mut rig = reusable();
    accepted(&mut rig, 0, tag(1), &[(0, BLOCK)]);
    accepted(&mut rig, 0, Tag::NONE, &[(8 * BLOCK, 3 * BLOCK), (4 * BLOCK, BLOCK)]);
    accepted(&mut rig, 1, tag(2), &[(GIB - BLOCK, BLOCK)]);
    let listed = [
        (0, BLOCK, tag(1)),
        (8 * BLOCK, 3 * BLOCK, Tag::NONE),
        (4 * BLOCK, BLOCK, Tag::NONE),
        (2 * GIB - BLOCK, BLOCK, tag(2)),
    ];
    assert_eq!(rig.list(), listed);
    assert_eq!(rig.device(0).extents.tag_uses().len(), 2, "no tag is not one tag more");
    let by = Seq(3);
    assert_eq!(rig.vm.backends.get("dc").unwrap().holder, Holder::Memdev { device: DeviceIndex(0), by });
}

#[test]
fn an_extent_is_the_piece_of_the_backend_at_its_address_whatever_the_order_of_the_add() {
    let mut rig = behind_static();
    let extents = [(6 * BLOCK, BLOCK), (0, 2 * BLOCK), (3 * BLOCK, BLOCK)];
    accepted(&mut rig, 1, tag(1), &extents);
    let base = STATIC + GIB;
    assert_eq!(rig.device(0).config.regions[1].base, Dpa(base));
    let expected = [
        (base, 2 * BLOCK, GIB),
        (base + 3 * BLOCK, BLOCK, GIB + 3 * BLOCK),
        (base + 6 * BLOCK, BLOCK, GIB + 6 * BLOCK),
    ];
    assert_eq!(places(&rig), expected);
    let listed: Vec<_> = rig.list().into_iter().map(|(dpa, len, _)| (dpa - base, len)).collect();
    assert_eq!(listed, extents, "in the order of the add");
}

#[test]
fn a_part_that_is_accepted_is_the_piece_at_its_own_address() {
    let mut rig = behind_static();
    rig.add(tag(1), &[(0, 4 * BLOCK), (8 * BLOCK, 4 * BLOCK)]);
    assert_eq!(rig.respond(&[(STATIC + 9 * BLOCK, BLOCK), (STATIC + 11 * BLOCK, BLOCK)]), ReturnCode::Success);
    assert_eq!(
        places(&rig),
        [(STATIC + 9 * BLOCK, BLOCK, 9 * BLOCK), (STATIC + 11 * BLOCK, BLOCK, 11 * BLOCK)],
        "and not the place in the add"
    );
    assert_eq!(rig.state(tag(1)), TagState::PartlyAccepted);
    assert_eq!(rig.add(Tag::NONE, &[(10 * BLOCK, BLOCK)]), Reply::Done, "what was left out is free again");
}

#[test]
fn a_reusable_tag_labels_several_adds() {
    let mut rig = reusable();
    accepted(&mut rig, 0, tag(1), &[(0, BLOCK)]);
    accepted(&mut rig, 0, tag(1), &[(4 * BLOCK, BLOCK)]);
    assert_eq!(rig.add(tag(1), &[(8 * BLOCK, BLOCK)]), Reply::Done);
    let overlap = refusal(rig.add(tag(1), &[(4 * BLOCK, BLOCK)]));
    assert!(matches!(overlap, Refusal::AlreadyAccepted { .. }), "a label does not make room: {overlap}");
    assert_eq!(rig.device(0).extents.tag_uses()[&tag(1)], 3);
    assert_eq!(rig.list().len(), 2);
}

#[test]
fn a_unique_tag_in_use_is_refused_with_the_record_that_uses_it() {
    let mut rig = plugged(|request| request.unique_tags = Some(true));
    rig.add(tag(1), &[(0, BLOCK)]);
    let offered = rig.seq;
    let live = Refusal::TagLive { tag: tag(1), by: Seq(offered) };
    assert_eq!(refusal(rig.add(tag(1), &[(4 * BLOCK, BLOCK)])), live, "offered");
    rig.respond(&[(0, BLOCK)]);
    let refused = refusal(rig.add_on(0, 1, tag(1), &[(4 * BLOCK, BLOCK)]));
    assert_eq!(refused, live, "accepted, and in another region");
    let sentence = format!(
        "tag {} is in use, #{offered}, and the device has unique-tags=on: release it first, or give another tag",
        tag(1)
    );
    assert_eq!(refused.to_string(), sentence);
    assert_eq!(rig.add(Tag::NONE, &[(4 * BLOCK, BLOCK)]), Reply::Done, "no tag is in nobody's way");
    assert_eq!(rig.respond(&[]), ReturnCode::Success);
    rig.release(tag(1));
    assert!(matches!(refusal(rig.add(tag(1), &[(4 * BLOCK, BLOCK)])), Refusal::TagLive { .. }), "asked back is held");
    assert_eq!(rig.give_back(&[(0, BLOCK)]), ReturnCode::Success);
    assert_eq!(rig.add(tag(1), &[(4 * BLOCK, BLOCK)]), Reply::Done);
}

#[test]
fn a_release_by_tag_asks_for_all_offers_with_the_label_in_its_region_and_for_no_other() {
    let mut rig = reusable();
    accepted(&mut rig, 0, tag(1), &[(0, BLOCK)]);
    accepted(&mut rig, 0, tag(2), &[(4 * BLOCK, BLOCK)]);
    accepted(&mut rig, 1, tag(1), &[(0, BLOCK)]);
    accepted(&mut rig, 0, tag(1), &[(8 * BLOCK, BLOCK)]);
    rig.add(tag(1), &[(12 * BLOCK, BLOCK)]);
    rig.clear_events();
    assert_eq!(rig.release(tag(1)), Reply::Done, "the offer is not asked for: the host has not answered it");
    assert_eq!(rig.events(), [(1, 1, 0, BLOCK, tag(1)), (1, 0, 8 * BLOCK, BLOCK, tag(1))]);
    assert_eq!(rig.release_with(|request| (request.tag, request.region) = (tag(1), 1)), Reply::Done);
    assert_eq!(rig.events().last(), Some(&(1, 0, GIB, BLOCK, tag(1))));
    assert!(matches!(refusal(rig.release(Tag::NONE)), Refusal::ReleaseTagNeeded), "no tag is no label");
    let nobody = rig.release_with(|request| (request.tag, request.region) = (tag(2), 1));
    assert!(matches!(refusal(nobody), Refusal::TagInOtherRegion { actual: 0, .. }));
}

#[test]
fn a_prescriptive_release_takes_untagged_capacity_and_checks_a_label() {
    let mut rig = reusable();
    accepted(&mut rig, 0, Tag::NONE, &[(0, 4 * BLOCK)]);
    accepted(&mut rig, 0, tag(1), &[(4 * BLOCK, 4 * BLOCK)]);
    assert!(matches!(
        refusal(prescriptive(&mut rig, Removal::Requested, tag(1), 0, BLOCK)),
        Refusal::OtherTag { actual: Tag::NONE, .. }
    ));
    assert_eq!(prescriptive(&mut rig, Removal::Requested, Tag::NONE, 3 * BLOCK, 2 * BLOCK), Reply::Done);
    let events = [(1, 1, 3 * BLOCK, BLOCK, Tag::NONE), (1, 0, 4 * BLOCK, BLOCK, tag(1))];
    assert_eq!(rig.events(), events, "each with its own tag");
    assert_eq!(rig.give_back(&[(3 * BLOCK, 2 * BLOCK)]), ReturnCode::Success);
    assert_eq!(places(&rig), [(0, 3 * BLOCK, 0), (5 * BLOCK, 3 * BLOCK, 5 * BLOCK)]);
    assert_eq!(rig.state(tag(1)), TagState::PartlyAccepted);
    assert!(matches!(rig.vm.backends.get("dc").unwrap().holder, Holder::Memdev { .. }), "the backend stays its own");
}

#[test]
fn force_by_tag_takes_what_is_held_and_withdraws_what_is_offered() {
    let mut rig = reusable();
    accepted(&mut rig, 0, tag(1), &[(0, BLOCK)]);
    rig.add(tag(1), &[(4 * BLOCK, BLOCK)]);
    rig.add(tag(2), &[(8 * BLOCK, BLOCK)]);
    rig.clear_events();
    assert_eq!(rig.force(tag(1)), Reply::Done);
    assert_eq!(rig.events(), [(2, 0, 0, BLOCK, tag(1))]);
    assert_eq!((rig.list().len(), rig.state(tag(1))), (0, TagState::Forced));
    assert_eq!(rig.respond(&[(4 * BLOCK, BLOCK)]), ReturnCode::InvalidPhysicalAddress, "dead");
    assert_eq!(rig.respond(&[(8 * BLOCK, BLOCK)]), ReturnCode::Success, "the other label's is not");
    assert_eq!(rig.add(tag(1), &[(4 * BLOCK, BLOCK)]), Reply::Done);
}

#[test]
fn reset_withdraws_offers_and_keeps_what_is_accepted() {
    let mut rig = behind_static();
    accepted(&mut rig, 0, tag(1), &[(0, BLOCK)]);
    rig.add(Tag::NONE, &[(4 * BLOCK, BLOCK)]);
    rig.add(tag(1), &[(8 * BLOCK, BLOCK)]);
    rig.reset();
    assert_eq!(rig.list(), [(STATIC, BLOCK, tag(1))]);
    assert_eq!(rig.state(tag(1)), TagState::Accepted);
    assert!(rig.device(0).extents.offers().is_empty());
    assert_eq!(rig.add(Tag::NONE, &[(4 * BLOCK, BLOCK)]), Reply::Done);
}

#[test]
fn a_label_of_several_offers_is_offered_then_accepted_then_asked_back() {
    let mut rig = reusable();
    rig.add(tag(1), &[(0, BLOCK)]);
    rig.add(tag(1), &[(4 * BLOCK, 2 * BLOCK)]);
    assert_eq!(rig.respond(&[(0, BLOCK)]), ReturnCode::Success);
    let offered = rig.device(0).extents.tag_status(tag(1));
    assert_eq!((offered.state, offered.extents.len()), (TagState::Offered, 1), "the newest one speaks");
    assert_eq!(rig.respond(&[(4 * BLOCK, BLOCK)]), ReturnCode::Success);
    let partly = rig.device(0).extents.tag_status(tag(1));
    assert_eq!((partly.state, partly.extents.len()), (TagState::PartlyAccepted, 2));
    assert_eq!(rig.give_back(&[(4 * BLOCK, BLOCK)]), ReturnCode::Success);
    assert_eq!(rig.state(tag(1)), TagState::Accepted, "what is held of it is held whole");
    rig.release(tag(1));
    assert_eq!(rig.state(tag(1)), TagState::ReleaseRequested);
    assert_eq!(rig.give_back(&[(0, BLOCK)]), ReturnCode::Success);
    assert_eq!(rig.state(tag(1)), TagState::Released);
}

/// Seen as: of two offers with one label the newer was withdrawn by force, and the status of the label was `dead`
/// although the host could still accept the older.
#[test]
fn a_dead_offer_does_not_hide_an_older_one_with_its_label() {
    let mut rig = reusable();
    rig.add(tag(1), &[(0, BLOCK)]);
    rig.add(tag(1), &[(4 * BLOCK, BLOCK)]);
    assert_eq!(prescriptive(&mut rig, Removal::Forced, tag(1), 4 * BLOCK, BLOCK), Reply::Done);
    let status = rig.device(0).extents.tag_status(tag(1));
    assert_eq!((status.state, status.extents.first().map(|range| range.start)), (TagState::Offered, Some(Dpa(0))));
    assert_eq!(rig.respond(&[(0, BLOCK)]), ReturnCode::Success);
    assert_eq!(rig.state(tag(1)), TagState::Accepted);
}

/// As above where the older offer ends after the newer has died: what ended last speaks.
#[test]
fn a_label_whose_offers_ended_differently_says_how_the_last_one_did() {
    let mut rig = reusable();
    rig.add(tag(1), &[(0, BLOCK)]);
    rig.add(tag(1), &[(4 * BLOCK, BLOCK)]);
    prescriptive(&mut rig, Removal::Forced, tag(1), 4 * BLOCK, BLOCK);
    assert_eq!(rig.respond(&[]), ReturnCode::Success);
    assert_eq!(rig.state(tag(1)), TagState::Rejected);
    assert_eq!(rig.respond(&[]), ReturnCode::Success, "the dead one is closed");
    assert_eq!(rig.state(tag(1)), TagState::Rejected);
    assert!(rig.device(0).extents.tag_uses().is_empty());
}

#[test]
fn notices_count_offsets_from_the_region_behind_static_memory() {
    let mut rig = behind_static();
    rig.add_on(0, 1, tag(1), &[(4 * BLOCK, BLOCK)]);
    let offered = notices(&rig);
    assert_eq!((offered.len(), offered[0].kind, offered[0].extents[0].offset), (1, NoticeKind::Offered, 4 * BLOCK));
    rig.respond(&[(STATIC + GIB + 4 * BLOCK, BLOCK)]);
    let accepted = notices(&rig);
    assert_eq!(
        (accepted[0].kind, accepted[0].region, accepted[0].extents[0].offset),
        (NoticeKind::Accepted, 1, 4 * BLOCK)
    );
}

#[test]
fn static_memory_is_in_identify_and_in_the_first_range_of_the_dvsec() {
    let mut rig = behind_static();
    let identity = rig.command(Opcode::IDENTIFY_MEMORY_DEVICE, vec![]).payload;
    let word = |at: usize| u64::from_le_bytes(identity[at..at + 8].try_into().unwrap());
    assert_eq!((word(0x10), word(0x18), word(0x20)), (1, 1, 0), "total, volatile, persistent in 256 MiB");
    let space = rig.device(0).mailbox.config_space().clone();
    let dvsec = (0x100..0x1000).step_by(4).find(|at| {
        // Vendor 1e98h, DVSEC id 0: the CXL device's.
        space.read(at + 4, 2) == 0x1e98 && space.read(at + 8, 2) == 0 && space.read(*at, 2) == 0x23
    });
    let dvsec = dvsec.expect("a DVSEC");
    assert_eq!(space.read(dvsec + 0x18, 4), 0, "size high");
    let low = space.read(dvsec + 0x1c, 4);
    assert_eq!((low & 3, low >> 28), (3, 1), "valid, active, 256 MiB");
    assert_eq!(space.read(dvsec + 0x2c, 4) >> 28, 0, "there is no second range");
    let none = reusable().command(Opcode::IDENTIFY_MEMORY_DEVICE, vec![]).payload;
    assert_eq!(none[0x10..0x28], [0; 24], "dynamic capacity is not counted");
}

#[test]
fn static_memory_is_there_from_power_on_and_after_a_reset_through_a_decoder() {
    let mut rig = behind_static();
    let base = Hpa(0x1_1000_0000);
    assert_eq!(rig.device(0).windows.mappings(), [], "no decoder shows it");
    for _ in 0..2 {
        commit(&mut rig, 0, base, STATIC + GIB, 0);
        let mappings = rig.device(0).windows.mappings();
        assert_eq!(mappings.len(), 1);
        let shown = &mappings[0];
        assert_eq!((shown.hpa, shown.range.len_bytes, shown.backend.as_str()), (base, STATIC, "fixed"));
        rig.reset();
        assert_eq!(rig.device(0).windows.mappings(), []);
    }
    commit(&mut rig, 0, base, STATIC + GIB, 0);
    accepted(&mut rig, 0, tag(1), &[(0, BLOCK)]);
    let shown: Vec<_> = rig.device(0).windows.mappings();
    assert_eq!((shown[1].hpa, shown[1].backend.as_str(), shown[1].offset_bytes), (Hpa(base.0 + STATIC), "dc", 0));
}

#[test]
fn static_memory_is_no_dynamic_capacity() {
    let mut rig = behind_static();
    assert_eq!(rig.give_back(&[(0, BLOCK)]), ReturnCode::InvalidPhysicalAddress);
    rig.add(Tag::NONE, &[(0, BLOCK)]);
    assert_eq!(rig.respond(&[(0, BLOCK)]), ReturnCode::InvalidPhysicalAddress);
    assert_eq!(rig.respond(&[(STATIC, BLOCK)]), ReturnCode::Success);
    let configuration = rig.command(Opcode::GET_DC_CONFIGURATION, vec![8, 0]).payload;
    let word = |at: usize| u64::from_le_bytes(configuration[at..at + 8].try_into().unwrap());
    assert_eq!((word(8), word(8 + 40)), (STATIC, STATIC + GIB), "the regions' bases");
    let beyond = refusal(rig.add_on(0, 1, Tag::NONE, &[(GIB, BLOCK)]));
    assert!(matches!(beyond, Refusal::BeyondRegion { .. }));
}

#[test]
fn a_lazy_device_may_have_static_memory() {
    let mut rig = plugged(|request| {
        (request.volatile_dc_memdev, request.volatile_memdev) = (None, Some("fixed".into()));
        request.dc_regions_total_size_bytes = Some(2 * GIB);
    });
    rig.object_add("tm1", tag(1), 4 * BLOCK);
    rig.add(tag(1), &[(8 * BLOCK, 2 * BLOCK), (0, 2 * BLOCK)]);
    assert_eq!(rig.respond(&[(STATIC, 2 * BLOCK), (STATIC + 8 * BLOCK, 2 * BLOCK)]), ReturnCode::Success);
    let expected = [(STATIC, 2 * BLOCK, 2 * BLOCK), (STATIC + 8 * BLOCK, 2 * BLOCK, 0)];
    assert_eq!(places(&rig), expected, "the backend in the order of the add");
}
