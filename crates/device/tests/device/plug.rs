//! Devices come and go: what refuses a plug and an unplug, what an unplug leaves behind, and tags that are set anew.

use device::backends::{self, Holder};
use device::config::{DeviceConfig, DeviceIndex, DeviceRequest};
use device::extents::{Notice, NoticeKind, RejectReason, ReleaseCause, Removal};
use device::operation::{Fact, Input, Reply};
use device::vm::Device;
use device::windows::{self, DecoderFields};
use device::{Refusal, Seq};
use proptest::prelude::*;
use wire::{Hpa, Opcode, ReturnCode, Tag};

use crate::laws::{Step, step, take};
use crate::plain::{configured, plain_request};
use crate::rig::{GIB, MIB, Rig, refusal, tag};

const BLOCK: u64 = 2 * MIB;

fn lazy(id: &str) -> DeviceConfig {
    DeviceConfig::lazy(&DeviceRequest {
        id: id.into(),
        dc_regions_total_size_bytes: Some(GIB),
        mailbox_payload_bytes: Some(2048),
        ..DeviceRequest::default()
    })
    .expect("a device")
}

/// A plain device in port 0 and a lazy one in port 1, with the backends of both.
fn mixed() -> Rig {
    let mut rig = Rig::without_devices();
    rig.object_add("dc", Tag::NONE, 2 * GIB);
    let config = configured(&rig, &plain_request());
    assert_eq!(rig.plug(0, config), Reply::Done);
    assert_eq!(rig.plug(1, lazy("cxl-vmem1")), Reply::Done);
    rig
}

fn holder(rig: &Rig, id: &str) -> Holder {
    rig.vm.backends.get(id).expect("a backend").holder
}

fn commit(rig: &mut Rig, device: u8, base: Hpa) {
    let fields = DecoderFields { base, size_bytes: GIB, skip_bytes: 0, control: 0 };
    rig.decide_on(device, &Input::Windows(windows::Input::DecoderCommit { decoder: 0, fields }), &[]);
}

fn retag(rig: &mut Rig, id: &str, to: Tag) -> Reply {
    let input = backends::Input::Retag { id: id.into(), tag: to, tag_text: to.to_string() };
    rig.decide_on(0, &Input::Backends(input), &[])
}

#[test]
fn a_plug_is_refused_with_what_is_in_its_way() {
    let mut rig = mixed();
    let by = Seq(2);
    assert_eq!(refusal(rig.plug(1, lazy("cxl-vmem0"))), Refusal::DuplicateDevice { id: "cxl-vmem0".into(), by });
    let (id, port, device) = ("d2".into(), "rp0".into(), "cxl-vmem0".into());
    assert_eq!(refusal(rig.plug(0, lazy("d2"))), Refusal::PortTaken { id, port, device, by });
    assert_eq!(refusal(rig.plug(2, lazy("d2"))), Refusal::NoSuchPort { id: "d2".into(), port: 2, count: 2 });
    assert_eq!(rig.vm.devices.len(), 2);
}

#[test]
fn a_memdev_must_be_there_be_free_and_have_the_size() {
    let mut rig = mixed();
    assert_eq!(rig.unplug(1, Removal::Requested), Reply::Done);
    let other = |edit: &dyn Fn(&mut DeviceRequest)| {
        let mut request = DeviceRequest { id: "d1".into(), ..plain_request() };
        edit(&mut request);
        request
    };
    let taken = configured(&rig, &other(&|_| ()));
    let (id, backend, device) = ("d1".to_owned(), "dc".to_owned(), "cxl-vmem0".to_owned());
    let holding = "its own memory".to_owned();
    let in_use = Refusal::MemdevInUse { id, backend, device, holding, by: Seq(2) };
    assert_eq!(refusal(rig.plug(1, taken)), in_use);
    // Configured with backends that have changed or gone since.
    rig.object_add("small", Tag::NONE, GIB);
    let gone = configured(&rig, &other(&|request| request.volatile_dc_memdev = Some("small".into())));
    rig.object_del("small");
    assert_eq!(refusal(rig.plug(1, gone.clone())), Refusal::NoSuchBackend { id: "small".into() });
    rig.object_add("small", Tag::NONE, 2 * GIB);
    assert!(matches!(refusal(rig.plug(1, gone.clone())), Refusal::BackendSize { len_bytes: GIB, .. }));
    rig.object_del("small");
    // A backend that is offered by tag on another device is not free either.
    rig.object_add("small", tag(1), GIB);
    assert_eq!(rig.plug(1, lazy("cxl-vmem1")), Reply::Done);
    assert_eq!(rig.add_on(1, 0, tag(1), &[(0, GIB)]), Reply::Done);
    rig.unplug(0, Removal::Requested);
    assert!(matches!(refusal(rig.plug(0, gone.clone())), Refusal::MemdevInUse { .. }));
    assert!(rig.vm.backends.iter().all(|(id, backend)| (id == "small") == (backend.holder != Holder::Free)));
    assert_eq!(rig.unplug(1, Removal::Forced), Reply::Done);
    assert_eq!(rig.plug(0, gone), Reply::Done);
}

#[test]
fn a_static_memdev_has_the_size_that_the_device_was_told() {
    let mut rig = Rig::without_devices();
    rig.object_add("dc", Tag::NONE, 2 * GIB);
    rig.object_add("fixed", Tag::NONE, 256 * MIB);
    let request = DeviceRequest { volatile_memdev: Some("fixed".into()), ..plain_request() };
    let config = configured(&rig, &request);
    rig.object_del("fixed");
    rig.object_add("fixed", Tag::NONE, 512 * MIB);
    let refused = refusal(rig.plug(0, config));
    assert!(matches!(refused, Refusal::BackendSize { backend_bytes, .. } if backend_bytes == 512 * MIB), "{refused}");
    assert!(rig.vm.devices.is_empty() && holder(&rig, "dc") == Holder::Free, "nothing of it happened");
}

#[test]
fn an_unplug_in_use_is_refused_with_its_numbers() {
    let mut rig = mixed();
    rig.add(Tag::NONE, &[(0, BLOCK), (4 * BLOCK, BLOCK)]);
    rig.respond(&[(0, BLOCK), (4 * BLOCK, BLOCK)]);
    rig.add(tag(1), &[(8 * BLOCK, BLOCK)]);
    commit(&mut rig, 0, Hpa(0x1_1000_0000));
    let before = rig.vm.clone();
    let refused = refusal(rig.unplug(0, Removal::Requested));
    let id = "cxl-vmem0".to_owned();
    assert_eq!(refused, Refusal::DeviceInUse { id, extents: 2, offers: 1, decoders: 1 });
    assert_eq!(rig.vm, before);
    // One by one each of them is enough.
    rig.respond(&[]);
    rig.give_back(&[(0, BLOCK), (4 * BLOCK, BLOCK)]);
    assert!(matches!(refusal(rig.unplug(0, Removal::Requested)), Refusal::DeviceInUse { decoders: 1, .. }));
    rig.decide_on(0, &Input::Windows(windows::Input::DecoderUncommit { decoder: 0 }), &[]);
    assert_eq!(rig.unplug(0, Removal::Requested), Reply::Done);
    assert_eq!(holder(&rig, "dc"), Holder::Free);
}

#[test]
fn a_dead_offer_keeps_its_device() {
    let mut rig = mixed();
    rig.add(tag(1), &[(0, BLOCK)]);
    rig.force(tag(1));
    let refused = refusal(rig.unplug(0, Removal::Requested));
    assert!(matches!(refused, Refusal::DeviceInUse { offers: 1, .. }), "the host may still answer it: {refused}");
    rig.respond(&[]);
    assert_eq!(rig.unplug(0, Removal::Requested), Reply::Done);
}

#[test]
fn a_forced_unplug_ends_offers_extents_and_decoders_and_frees_all_backends() {
    let mut rig = mixed();
    for n in 1..=4 {
        rig.object_add(&format!("tm{n}"), tag(n), BLOCK);
        let place = u64::from(n) * 4 * BLOCK;
        rig.add_on(1, 0, tag(n), &[(place, BLOCK)]);
    }
    let answer = crate::rig::update(&[(4 * BLOCK, BLOCK)], 0);
    assert_eq!(rig.command_on(1, Opcode::ADD_DC_RESPONSE, answer).return_code, ReturnCode::Success);
    // The second offer is dead: its backend is free already, and here offered by the other device's operator again.
    let forced = device::extents::ReleaseRequest {
        host_id: 0,
        policy: device::extents::RemovalPolicy::TagBased,
        removal: Removal::Forced,
        sanitize: device::extents::Sanitize::Keep,
        region: 0,
        tag: tag(2),
        extents: Vec::new(),
    };
    rig.decide_on(1, &Input::Extents(device::extents::Input::Release(forced)), &[]);
    commit(&mut rig, 1, Hpa(0x1_1000_0000));
    let config = rig.device(1).config.clone();
    assert_eq!(rig.unplug(1, Removal::Forced), Reply::Done);
    assert!(!rig.vm.devices.contains_key(&DeviceIndex(1)));
    assert!((1..=4).all(|n| holder(&rig, &format!("tm{n}")) == Holder::Free));
    let notices: Vec<_> = rig
        .facts
        .iter()
        .filter_map(|fact| if let Fact::Extents(fact) = fact { Some(fact) } else { None })
        .flat_map(|fact| Notice::of(&config, Seq(rig.seq), fact))
        .map(|notice| (notice.kind, notice.tag))
        .collect();
    let rejected = NoticeKind::Rejected(RejectReason::Unplug);
    let released = NoticeKind::Released(ReleaseCause::Unplug);
    assert_eq!(notices, [(rejected, tag(3)), (rejected, tag(4)), (released, tag(1))], "the dead one was told before");
    assert!(matches!(rig.facts.last(), Some(Fact::Backends(backends::Fact::DeviceRemoved))), "the device's last word");
    // The next device in the port begins at power-on.
    assert_eq!(rig.plug(1, lazy("cxl-vmem1")), Reply::Done);
    assert_eq!(*rig.device(1), Device::new(&lazy("cxl-vmem1")));
    assert_eq!(rig.add_on(1, 0, tag(1), &[(0, BLOCK)]), Reply::Done);
}

#[test]
fn a_backend_that_another_device_holds_outlives_the_unplug_of_the_one_that_lost_it() {
    let mut rig = mixed();
    rig.unplug(0, Removal::Requested);
    assert_eq!(rig.plug(0, lazy("cxl-vmem0")), Reply::Done);
    rig.object_add("tm1", tag(1), BLOCK);
    rig.add(tag(1), &[(0, BLOCK)]);
    rig.force(tag(1));
    // Device 0 has a dead offer on the backend, device 1 a live one.
    assert_eq!(rig.add_on(1, 0, tag(1), &[(0, BLOCK)]), Reply::Done);
    assert_eq!(rig.unplug(0, Removal::Forced), Reply::Done);
    assert!(matches!(holder(&rig, "tm1"), Holder::Reserved { device: DeviceIndex(1), .. }));
}

#[test]
fn a_memdev_cannot_be_deleted_retagged_or_offered_by_tag() {
    let mut rig = Rig::without_devices();
    rig.object_add("dc", tag(7), 2 * GIB);
    let config = configured(&rig, &plain_request());
    rig.plug(0, config);
    rig.plug(1, lazy("cxl-vmem1"));
    let refused = refusal(rig.object_del("dc")).to_string();
    assert_eq!(refused, "object 'dc' is in use, can not be deleted: cxl-vmem0 holds it (its own memory), #2");
    let refused = refusal(retag(&mut rig, "dc", tag(1))).to_string();
    let sentence = format!(
        "the tag {} of backend dc is in use: cxl-vmem0 holds the backend (its own memory), #2; release it first",
        tag(7)
    );
    assert_eq!(refused, sentence);
    assert!(matches!(refusal(rig.add_on(1, 0, tag(7), &[(0, GIB)])), Refusal::TagHeld { .. }));
    rig.unplug(0, Removal::Requested);
    assert_eq!(rig.object_del("dc"), Reply::Done);
}

#[test]
fn a_tag_is_set_anew_while_nobody_holds_the_backend() {
    let mut rig = mixed();
    rig.object_add("tm1", tag(1), BLOCK);
    rig.object_add("tm2", tag(2), BLOCK);
    assert_eq!(retag(&mut rig, "tm1", tag(3)), Reply::Done);
    assert_eq!(retag(&mut rig, "tm1", tag(3)), Reply::Done, "its own is no duplicate");
    assert!(matches!(refusal(rig.add_on(1, 0, tag(1), &[(0, BLOCK)])), Refusal::NoBackend { .. }));
    assert_eq!(
        refusal(retag(&mut rig, "tm2", tag(3))),
        Refusal::DuplicateTag { tag: tag(3), backend: "tm1".into(), by: Seq(4) }
    );
    assert_eq!(refusal(retag(&mut rig, "nobody", tag(4))), Refusal::NoSuchBackend { id: "nobody".into() });
    assert_eq!(rig.add_on(1, 0, tag(3), &[(0, BLOCK)]), Reply::Done);
    assert!(matches!(refusal(retag(&mut rig, "tm1", tag(4))), Refusal::TagInUse { .. }), "reserved");
    assert_eq!(
        rig.command_on(1, Opcode::ADD_DC_RESPONSE, crate::rig::update(&[(0, BLOCK)], 0)).return_code,
        ReturnCode::Success
    );
    let held = refusal(retag(&mut rig, "tm1", tag(3)));
    assert!(matches!(held, Refusal::TagInUse { .. }), "attached, not even to what it is: {held}");
    // Without a tag it is free for any other, and gets it back.
    assert_eq!(retag(&mut rig, "tm2", Tag::NONE), Reply::Done);
    assert_eq!(rig.object_add("tm5", tag(2), BLOCK), Reply::Done);
    assert!(matches!(refusal(retag(&mut rig, "tm2", tag(2))), Refusal::DuplicateTag { .. }));
    rig.object_del("tm5");
    assert_eq!(retag(&mut rig, "tm2", tag(2)), Reply::Done);
}

/// What operators and hosts do, and devices that come and go beneath it.
#[derive(Clone, Debug)]
enum Life {
    Step(Step),
    PlugPlain { port: u8, is_unique: bool, has_static: bool },
    PlugLazy { port: u8, id: u8 },
    Unplug { port: u8, removal: Removal },
    Retag { n: u8, to: u8 },
    Commit { port: u8, decoder: u8, window: u64, blocks: u64, skip: u64 },
    Uncommit { port: u8, decoder: u8 },
}

fn life() -> impl Strategy<Value = Life> {
    let removal = prop::sample::select(vec![Removal::Requested, Removal::Forced]);
    prop_oneof![
        16 => step().prop_map(Life::Step),
        1 => (0u8..3, any::<bool>(), any::<bool>())
            .prop_map(|(port, is_unique, has_static)| Life::PlugPlain { port, is_unique, has_static }),
        1 => (0u8..3, 0u8..2).prop_map(|(port, id)| Life::PlugLazy { port, id }),
        2 => (0u8..2, removal).prop_map(|(port, removal)| Life::Unplug { port, removal }),
        1 => (0u8..6, 0u8..7).prop_map(|(n, to)| Life::Retag { n, to }),
        2 => (0u8..2, 0u8..3, 0u64..16, 0u64..16, 0u64..4).prop_map(|(port, decoder, window, blocks, skip)| {
            Life::Commit { port, decoder, window, blocks, skip }
        }),
        1 => (0u8..2, 0u8..3).prop_map(|(port, decoder)| Life::Uncommit { port, decoder }),
    ]
}

fn live(rig: &mut Rig, life: &Life) {
    let is_there = |rig: &Rig, port: u8| rig.vm.devices.contains_key(&DeviceIndex(port));
    match life {
        Life::Step(step) if is_there(rig, 0) && is_there(rig, 1) => take(rig, step),
        // Its steps are of device 0, some of device 1.
        Life::Step(_) => {}
        Life::PlugPlain { port, is_unique, has_static } => {
            let volatile_memdev = has_static.then(|| "fixed".to_owned());
            let request = DeviceRequest { unique_tags: Some(*is_unique), volatile_memdev, ..plain_request() };
            let config = configured(rig, &request);
            rig.plug(*port, config);
        }
        Life::PlugLazy { port, id } => drop(rig.plug(*port, lazy(&format!("cxl-vmem{id}")))),
        Life::Unplug { port, removal } if is_there(rig, *port) => drop(rig.unplug(*port, *removal)),
        Life::Retag { n, to } => {
            let to = if *to == 6 { Tag::NONE } else { tag(*to) };
            retag(rig, &format!("tm{n}"), to);
        }
        Life::Commit { port, decoder, window, blocks, skip } if is_there(rig, *port) => {
            let (base, skip_bytes) = (Hpa(0x1_1000_0000 + window * 256 * MIB), skip * 128 * MIB);
            let fields = DecoderFields { base, size_bytes: blocks * 128 * MIB, skip_bytes, control: 0 };
            let input = windows::Input::DecoderCommit { decoder: *decoder, fields };
            rig.decide_on(*port, &Input::Windows(input), &[]);
        }
        Life::Uncommit { port, decoder } if is_there(rig, *port) => {
            rig.decide_on(*port, &Input::Windows(windows::Input::DecoderUncommit { decoder: *decoder }), &[]);
        }
        Life::Unplug { .. } | Life::Commit { .. } | Life::Uncommit { .. } => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn every_law_holds_while_devices_come_and_go(lives in prop::collection::vec(life(), 1..80)) {
        let mut rig = mixed();
        rig.object_add("fixed", Tag::NONE, 256 * MIB);
        for life in &lives {
            live(&mut rig, life);
        }
        // Whatever happened, force ends it, and then nobody holds anything.
        for port in 0..2 {
            if rig.vm.devices.contains_key(&DeviceIndex(port)) {
                prop_assert_eq!(rig.unplug(port, Removal::Forced), Reply::Done);
            }
        }
        let held: Vec<_> = rig.vm.backends.iter().filter(|(_, backend)| backend.holder != Holder::Free).collect();
        prop_assert!(held.is_empty(), "{:?}", held);
    }
}
