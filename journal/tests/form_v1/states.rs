//! Keyframes: of a VM before its first record, and of one in which every place has something in it.

use std::collections::BTreeMap;

use device::backends::{self, Backend, BackendKind, BackendSpec, Contents, Holder, Plugged, Source};
use device::config::{DeviceConfig, DeviceIndex, TagRule};
use device::extents::{
    self, Chain, ChainPlace, Ended, EventKind, Extent, HostClock, Offer, Overflow, Standing, TagState, Told,
};
use device::vm::{Device, Vm};
use device::windows::{self, DECODERS, DecoderFields, DecoderParts, Piece};
use device::{DpaRange, Seq, VmTime, mailbox};
use journal::form::Keyframe;
use wire::{Dpa, Opcode, Tag};

use super::Sample;
use super::records::{decoder_fields, event, plain_config, spec, tag, tagged_config, vm_config};

const MIB: u64 = 1 << 20;

pub(crate) fn samples() -> Vec<(String, Sample)> {
    let empty = Keyframe { seq: Seq(0), time: VmTime(0), vm: Vm::new(vm_config()) };
    let full = Keyframe { seq: Seq(0x0102), time: VmTime(0x0304_0506), vm: full() };
    vec![("keyframe empty".into(), Sample::Keyframe(empty)), ("keyframe full".into(), Sample::Keyframe(full))]
}

fn full() -> Vm {
    let config = vm_config();
    let plugged = |config, by| Plugged { config, source: Source::CommandLine, by };
    let devices = BTreeMap::from([
        (DeviceIndex(0), plugged(tagged_config(), Seq(4))),
        (DeviceIndex(1), plugged(plain_config(TagRule::Unique), Seq(5))),
    ]);
    let parts = backends::Parts { backends: backends(), devices, plugs: 3, runs: 2 };
    let backends = backends::State::from_parts(&config, parts).expect("a registry");
    let devices = BTreeMap::from([(DeviceIndex(0), tagged()), (DeviceIndex(1), plain())]);
    Vm { config, backends, devices }
}

fn backends() -> BTreeMap<String, Backend> {
    let device = DeviceIndex(0);
    let owner = DeviceIndex(1);
    let backend = |size_bytes, tag, holder, contents| Backend {
        spec: BackendSpec { size_bytes, tag, ..spec(BackendKind::Ram) },
        source: Source::Request,
        created: Seq(3),
        holder,
        contents,
    };
    let memdev = Holder::Memdev { device: owner, by: Seq(5) };
    BTreeMap::from([
        ("dc".into(), backend(1024 * MIB, Tag::NONE, memdev, Contents::Intact)),
        ("fixed".into(), backend(256 * MIB, Tag::NONE, memdev, Contents::Lost { by: Seq(6) })),
        ("tm0".into(), backend(MIB, tag(5), Holder::Free, Contents::Intact)),
        ("tm1".into(), backend(6 * MIB, tag(1), Holder::Reserved { device, by: Seq(0x13) }, Contents::Intact)),
        ("tm2".into(), backend(8 * MIB, tag(2), Holder::Attached { device, by: Seq(0x0a) }, Contents::Intact)),
    ])
}

fn device(config: DeviceConfig, mailbox: mailbox::Parts, extents: extents::Parts, windows: windows::Parts) -> Device {
    Device {
        mailbox: mailbox::State::from_parts(&config, mailbox).expect("a mailbox"),
        extents: extents::State::from_parts(&config, extents).expect("extents"),
        windows: windows::State::from_parts(&config, windows).expect("windows"),
        config,
    }
}

fn tagged() -> Device {
    let mailbox = mailbox::Parts {
        // Memory space on, and the base of the first BAR.
        config_written: BTreeMap::from([(0x04, 0x0010_0002), (0x10, 0xfeb0_0004)]),
        control: 4,
        msix: (0..=255).collect(),
        policy: [0, 1, 2, 0, 1],
    };
    device(tagged_config(), mailbox, tagged_extents(), tagged_windows())
}

fn blocks(first: u64, count: u64) -> DpaRange {
    DpaRange { start: Dpa(first * 2 * MIB), len_bytes: count * 2 * MIB }
}

fn accepted() -> Vec<Extent> {
    let extent = |range, position, offset_bytes| Extent {
        range,
        region: 0,
        tag: tag(2),
        shared_sequence: 0x0304,
        offer: Seq(9),
        position,
        backend: "tm2".into(),
        offset_bytes,
        accepted: Seq(0x0a),
    };
    vec![extent(blocks(8, 2), 1, 4 * MIB), extent(blocks(12, 1), 0, 0)]
}

fn tagged_extents() -> extents::Parts {
    let offer = |id, backend: &str, tag, extents, standing| Offer {
        id: Seq(id),
        region: 0,
        tag,
        backend: backend.into(),
        extents,
        standing,
    };
    let dead = |by, told| Standing::Dead { by: Seq(by), told };
    let states = [
        TagState::Unknown,
        TagState::Offered,
        TagState::Accepted,
        TagState::PartlyAccepted,
        TagState::Rejected,
        TagState::ReleaseRequested,
        TagState::Released,
        TagState::Forced,
        TagState::Dead,
    ];
    let ended =
        (6u8..).zip(states).map(|(n, state)| (tag(n), Ended { state, region: 1, by: Seq(0x30 + u64::from(n)) }));
    extents::Parts {
        offers: vec![
            offer(0x11, "tm3", tag(3), vec![blocks(20, 1)], dead(0x21, Told::NotYet)),
            offer(0x12, "tm4", tag(4), vec![blocks(22, 1)], dead(0x22, Told::Refused)),
            offer(0x13, "tm1", tag(1), vec![blocks(28, 1), blocks(24, 2)], Standing::Pending),
        ],
        accepted: accepted(),
        offered_bytes: BTreeMap::from([(Seq(9), 8 * MIB)]),
        ended: ended.collect(),
        events: vec![
            event(0x0101, EventKind::Add, ChainPlace::More),
            event(0x0102, EventKind::Release, ChainPlace::Last),
        ],
        last_handle: 0x0102,
        overflow: Some(Overflow { count: 0x0506, first_ns: 0x0708, last_ns: 0x090a }),
        chain: Some(Chain { opcode: Opcode::RELEASE_DC, ranges: vec![blocks(8, 1)] }),
        generation: 0x0b0c,
        clock: Some(HostClock { host_ns: 0x0d0e, set_at: VmTime(0x0f10) }),
        requested: vec![blocks(8, 1), blocks(12, 1)],
    }
}

fn tagged_windows() -> windows::Parts {
    let pieces = accepted().into_iter().map(|extent| Piece {
        range: extent.range,
        backend: extent.backend,
        offset_bytes: extent.offset_bytes,
    });
    let none = DecoderFields { base: decoder_fields().base, size_bytes: 0, skip_bytes: 0x30, control: 0x0100 };
    let mut decoders = vec![DecoderParts::Idle; DECODERS];
    decoders[0] = DecoderParts::Committed { fields: decoder_fields(), dpa: Dpa(0) };
    decoders[1] = DecoderParts::Committed { fields: none, dpa: Dpa(0x1000_0030) };
    decoders[2] = DecoderParts::Failed;
    windows::Parts { decoders, hdm_control: 2, pieces: pieces.collect() }
}

/// As it is at power-on.
fn plain() -> Device {
    let config = plain_config(TagRule::Unique);
    let mailbox = mailbox::Parts {
        config_written: BTreeMap::new(),
        control: 0,
        msix: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0].repeat(16),
        policy: [0; 5],
    };
    let extents = extents::State::default().parts();
    let fixed = DpaRange { start: Dpa(0), len_bytes: config.static_len_bytes() };
    let pieces = vec![Piece { range: fixed, backend: "fixed".into(), offset_bytes: 0 }];
    let windows = windows::Parts { decoders: vec![DecoderParts::Idle; DECODERS], hdm_control: 0, pieces };
    let plain = device(config.clone(), mailbox, extents, windows);
    assert_eq!(plain, Device::new(&config));
    plain
}
