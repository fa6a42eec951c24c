//! Keyframes: after any traffic a keyframe gives back the very state, and what follows is the same from either. A body
//! that was tampered with is refused, or is a state with which a device can live.

use device::backends::{self, BackendKind, BackendSpec, Population, Reservation, Sharing, Source, Survival};
use device::config::{DeviceConfig, DeviceIndex, DeviceRequest, VmConfig};
use device::extents::{
    self, AcceptedPiece, AddRequest, RegionRange, ReleaseRequest, Removal, RemovalPolicy, Sanitize, SelectionPolicy,
};
use device::limits::{BACKENDS_MAX, EXTENTS_MAX};
use device::operation::{Answers, Decision, Fact, HostOutcome, Input, decide};
use device::vm::Vm;
use device::windows::{self, DecoderFields, Piece};
use device::{DpaRange, Seq, Stamp, VmTime, mailbox};
use journal::codec::CodecError;
use journal::form::{Base, KEYFRAME_VERSION, Keyframe};
use proptest::prelude::*;
use wire::{Dpa, Hpa, Opcode, Tag};

const BLOCK: u64 = 2 << 20;
const GIB: u64 = 1 << 30;
const MULTIPLE: u64 = 256 << 20;

/// A VM in one thread.
#[derive(Clone)]
struct Run {
    vm: Vm,
    last: Seq,
}

/// One thing that somebody does. Places and lengths are small numbers of blocks, so that they meet.
#[derive(Clone, Debug)]
enum Step {
    ObjectAdd { n: u8, blocks: u64 },
    ObjectDel { n: u8 },
    Retag { n: u8, to: u8 },
    Plug { port: u8 },
    Unplug { port: u8, removal: Removal },
    RunStart { lost: u8 },
    Add { port: u8, region: u8, n: u8, extents: Vec<(u64, u64)> },
    Release { port: u8, n: u8, removal: Removal },
    ReleaseRange { port: u8, range: (u64, u64), removal: Removal },
    Answer { port: u8, take: usize, is_more: bool },
    GiveBack { port: u8, ranges: Vec<(u64, u64)>, is_more: bool },
    Clear { port: u8, count: u8 },
    SetTimestamp { port: u8, host_ns: u64 },
    Policy { port: u8, modes: [u8; 5] },
    ConfigWrite { port: u8, offset: u16, value: u32 },
    MsixWrite { port: u8, offset: u32, value: u64 },
    Control { port: u8, value: u32 },
    Commit { port: u8, decoder: u8, fields: DecoderFields },
    Uncommit { port: u8, decoder: u8 },
    HdmControl { port: u8, value: u32 },
    Reset { port: u8 },
}

fn removal() -> impl Strategy<Value = Removal> {
    prop_oneof![2 => Just(Removal::Requested), 1 => Just(Removal::Forced)]
}

fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    prop::collection::vec((0u64..24, 1u64..5), 0..4)
}

fn fields() -> impl Strategy<Value = DecoderFields> {
    (0u64..4, 0u64..4, 0u64..2, 0u32..0x30).prop_map(|(base, size, skip, control)| DecoderFields {
        base: Hpa(4 * GIB + base * MULTIPLE),
        size_bytes: size * MULTIPLE,
        skip_bytes: skip * MULTIPLE,
        control,
    })
}

fn by_operator() -> impl Strategy<Value = Step> {
    let (port, n) = (|| 0u8..2, || 0u8..6);
    prop_oneof![
        8 => (n(), 1u64..9).prop_map(|(n, blocks)| Step::ObjectAdd { n, blocks }),
        1 => n().prop_map(|n| Step::ObjectDel { n }),
        1 => (n(), n()).prop_map(|(n, to)| Step::Retag { n, to }),
        1 => port().prop_map(|port| Step::Plug { port }),
        1 => (port(), removal()).prop_map(|(port, removal)| Step::Unplug { port, removal }),
        1 => n().prop_map(|lost| Step::RunStart { lost }),
        12 => (port(), 0u8..2, n(), ranges())
            .prop_map(|(port, region, n, extents)| Step::Add { port, region, n, extents }),
        3 => (port(), n(), removal()).prop_map(|(port, n, removal)| Step::Release { port, n, removal }),
        3 => (port(), (0u64..24, 1u64..5), removal())
            .prop_map(|(port, range, removal)| Step::ReleaseRange { port, range, removal }),
    ]
}

fn by_host() -> impl Strategy<Value = Step> {
    let port = || 0u8..2;
    prop_oneof![
        10 => (port(), 0usize..4, prop::bool::weighted(0.1))
            .prop_map(|(port, take, is_more)| Step::Answer { port, take, is_more }),
        3 => (port(), ranges(), prop::bool::weighted(0.2))
            .prop_map(|(port, ranges, is_more)| Step::GiveBack { port, ranges, is_more }),
        2 => (port(), 0u8..3).prop_map(|(port, count)| Step::Clear { port, count }),
        1 => (port(), any::<u64>()).prop_map(|(port, host_ns)| Step::SetTimestamp { port, host_ns }),
        1 => (port(), [0u8..3, 0u8..3, 0u8..3, 0u8..3, 0u8..2])
            .prop_map(|(port, modes)| Step::Policy { port, modes }),
        1 => (port(), 0u16..0x70, any::<u32>())
            .prop_map(|(port, dword, value)| Step::ConfigWrite { port, offset: dword * 4, value }),
        1 => (port(), 0u32..34, any::<u64>())
            .prop_map(|(port, place, value)| Step::MsixWrite { port, offset: place * 8, value }),
        1 => (port(), 0u32..8).prop_map(|(port, value)| Step::Control { port, value }),
        3 => (port(), 0u8..4, fields()).prop_map(|(port, decoder, fields)| Step::Commit { port, decoder, fields }),
        1 => (port(), 0u8..4).prop_map(|(port, decoder)| Step::Uncommit { port, decoder }),
        1 => (port(), 0u32..4).prop_map(|(port, value)| Step::HdmControl { port, value }),
        1 => port().prop_map(|port| Step::Reset { port }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![by_operator(), by_host()]
}

fn tag(n: u8) -> Tag {
    let mut bytes = [0xa5; 16];
    bytes[0] = n;
    if n == 5 { Tag::NONE } else { Tag::from_bytes(bytes) }
}

/// The payload of 4802h and 4803h.
fn update(ranges: &[(u64, u64)], is_more: bool) -> Vec<u8> {
    let mut payload = (ranges.len() as u32).to_le_bytes().to_vec();
    payload.extend([u8::from(is_more), 0, 0, 0]);
    for (start, len) in ranges {
        payload.extend(start.to_le_bytes());
        payload.extend(len.to_le_bytes());
        payload.extend([0; 8]);
    }
    payload
}

fn spec(tag: Tag, size_bytes: u64) -> BackendSpec {
    BackendSpec {
        kind: BackendKind::Ram,
        size_bytes,
        sharing: Sharing::Shared,
        population: Population::OnDemand,
        reservation: Reservation::Reserved,
        tag,
        tag_text: tag.to_string(),
    }
}

fn region_ranges(ranges: &[(u64, u64)]) -> Vec<RegionRange> {
    ranges.iter().map(|(start, blocks)| RegionRange { offset: start * BLOCK, len_bytes: blocks * BLOCK }).collect()
}

fn command(opcode: Opcode, payload: Vec<u8>) -> Input {
    Input::Extents(extents::Input::Command { opcode, payload })
}

impl Run {
    /// A device by tag in the first port, one with memory of its own in the second.
    fn new() -> Self {
        let config = VmConfig {
            memory_bytes: GIB,
            window_base: Hpa(0x1_1000_0000),
            windows_bytes: vec![8 * GIB],
            root_ports: vec!["rp0".into(), "rp1".into()],
        };
        let mut run = Self { vm: Vm::new(config), last: Seq(0) };
        for (id, size_bytes) in [("dc", 2 * MULTIPLE), ("fixed", MULTIPLE)] {
            let input = backends::Input::ObjectAdd {
                id: id.into(),
                spec: spec(Tag::NONE, size_bytes),
                source: Source::CommandLine,
            };
            run.take_input(0, &Input::Backends(input));
        }
        run.take(&Step::Plug { port: 0 });
        run.take(&Step::Plug { port: 1 });
        assert_eq!(run.vm.devices.len(), 2);
        run
    }

    fn device_config(port: u8) -> DeviceConfig {
        let id = format!("cxl-vmem{port}");
        let request =
            DeviceRequest { id, num_dc_regions: Some(2), dc_block_size_bytes: Some(64), ..DeviceRequest::default() };
        let request = match port {
            0 => DeviceRequest { dc_regions_total_size_bytes: Some(2 * MULTIPLE), ..request },
            _ => DeviceRequest {
                volatile_dc_memdev: Some("dc".into()),
                volatile_memdev: Some("fixed".into()),
                ..request
            },
        };
        let size_of = |id: &str| Some(if id == "dc" { 2 * MULTIPLE } else { MULTIPLE });
        DeviceConfig::new(&request, &size_of).expect("a device")
    }

    fn take(&mut self, step: &Step) -> Option<(Answers, Decision)> {
        let (port, input) = self.input(step);
        self.take_input(port, &input)
    }

    /// Decides and folds; `None` where there is no such device. What is not admitted is not folded: after tampering a
    /// decision need not fit.
    fn take_input(&mut self, port: u8, input: &Input) -> Option<(Answers, Decision)> {
        let seq = Seq(self.last.0.wrapping_add(1));
        let (stamp, device) = (Stamp { seq, time: VmTime(seq.0.wrapping_mul(1000)) }, DeviceIndex(port));
        let (answers, decision) = decide(&self.vm, device, stamp, input, &[HostOutcome::Done])?;
        for fact in &decision.facts {
            if self.vm.admit(device, fact).is_err() {
                break;
            }
            self.vm.evolve(device, stamp, fact);
        }
        self.last = seq;
        Some((answers, decision))
    }

    fn input(&self, step: &Step) -> (u8, Input) {
        match step {
            Step::ObjectAdd { .. } | Step::ObjectDel { .. } | Step::Retag { .. } | Step::RunStart { .. } => {
                (0, Input::Backends(self.registry_input(step)))
            }
            Step::Plug { port } => {
                let (config, source) = (Self::device_config(*port), Source::CommandLine);
                (*port, Input::Backends(backends::Input::DeviceAdd { config, source }))
            }
            step => self.device_input(step),
        }
    }

    fn registry_input(&self, step: &Step) -> backends::Input {
        match *step {
            Step::ObjectAdd { n, blocks } => {
                let (id, spec) = (format!("tm{n}"), spec(tag(n), blocks * BLOCK));
                backends::Input::ObjectAdd { id, spec, source: Source::Request }
            }
            Step::ObjectDel { n } => backends::Input::ObjectDel { id: format!("tm{n}") },
            Step::Retag { n, to } => {
                backends::Input::Retag { id: format!("tm{n}"), tag: tag(to), tag_text: tag(to).to_string() }
            }
            _ => {
                let survivals = self.vm.backends.iter().zip(0u8..).map(|((id, _), place)| {
                    let lost = matches!(*step, Step::RunStart { lost } if lost == place);
                    (id.to_owned(), if lost { Survival::Lost } else { Survival::Kept })
                });
                backends::Input::RunStart { build: "test".into(), survivals: survivals.collect() }
            }
        }
    }

    fn device_input(&self, step: &Step) -> (u8, Input) {
        let state = |port: &u8| self.vm.devices.get(&DeviceIndex(*port));
        match step {
            Step::Unplug { port, removal } => {
                let decoders = state(port).map_or(0, |device| device.windows.committed());
                (*port, Input::Extents(extents::Input::Unplug { removal: *removal, decoders }))
            }
            Step::Answer { port, take, is_more } => {
                let head = state(port).and_then(|device| device.extents.offers().head());
                let ranges = head.into_iter().flat_map(|offer| &offer.extents).take(*take);
                let ranges: Vec<_> = ranges.map(|range: &DpaRange| (range.start.0, range.len_bytes)).collect();
                (*port, command(Opcode::ADD_DC_RESPONSE, update(&ranges, *is_more)))
            }
            Step::GiveBack { port, ranges, is_more } => {
                let base = state(port).map_or(0, |device| device.config.static_len_bytes());
                let ranges: Vec<_> =
                    ranges.iter().map(|(start, blocks)| (base + start * BLOCK, blocks * BLOCK)).collect();
                (*port, command(Opcode::RELEASE_DC, update(&ranges, *is_more)))
            }
            Step::Clear { port, count } => {
                let log = state(port).into_iter().flat_map(|device| device.extents.log().iter());
                let mut payload = vec![4, 0, *count, 0, 0, 0];
                log.take(usize::from(*count)).for_each(|event| payload.extend(event.handle.to_le_bytes()));
                (*port, command(Opcode::CLEAR_EVENT_RECORDS, payload))
            }
            Step::SetTimestamp { port, host_ns } => {
                (*port, command(Opcode::SET_TIMESTAMP, host_ns.to_le_bytes().to_vec()))
            }
            step => plain_input(step),
        }
    }

    fn keyframe(&self) -> Keyframe {
        Keyframe { seq: self.last, time: VmTime(self.last.0 * 1000), vm: self.vm.clone() }
    }
}

/// Of a step that looks at no state.
fn plain_input(step: &Step) -> (u8, Input) {
    match *step {
        Step::Add { port, region, n, ref extents } => {
            let (policy, extents) = (SelectionPolicy::Prescriptive, region_ranges(extents));
            let request = AddRequest { host_id: 0, policy, region, tag: tag(n), extents };
            (port, Input::Extents(extents::Input::Add(request)))
        }
        Step::Release { port, n, removal } => {
            let request = ReleaseRequest { removal, ..ReleaseRequest::by_tag(0, tag(n)) };
            (port, Input::Extents(extents::Input::Release(request)))
        }
        Step::ReleaseRange { port, range, removal } => {
            let (policy, sanitize, extents) = (RemovalPolicy::Prescriptive, Sanitize::Keep, region_ranges(&[range]));
            let request = ReleaseRequest { host_id: 0, policy, removal, sanitize, region: 0, tag: Tag::NONE, extents };
            (port, Input::Extents(extents::Input::Release(request)))
        }
        Step::Policy { port, modes } => {
            let (opcode, payload) = (Opcode::SET_EVENT_INTERRUPT_POLICY, modes.to_vec());
            (port, Input::Mailbox(mailbox::Input::Doorbell { opcode, declared_len_bytes: 5, payload }))
        }
        Step::ConfigWrite { port, offset, value } => {
            (port, Input::Mailbox(mailbox::Input::ConfigWrite { offset, width: 4, value }))
        }
        Step::MsixWrite { port, offset, value } => {
            (port, Input::Mailbox(mailbox::Input::MsixWrite { offset, width: 8, value }))
        }
        Step::Control { port, value } => (port, Input::Mailbox(mailbox::Input::MailboxControl { value })),
        Step::Commit { port, decoder, fields } => {
            (port, Input::Windows(windows::Input::DecoderCommit { decoder, fields }))
        }
        Step::Uncommit { port, decoder } => (port, Input::Windows(windows::Input::DecoderUncommit { decoder })),
        Step::HdmControl { port, value } => (port, Input::Windows(windows::Input::HdmGlobalControl { value })),
        Step::Reset { port } => (port, Input::Extents(extents::Input::Reset)),
        ref step => panic!("{step:?} looks at the state"),
    }
}

fn restored(body: &[u8]) -> Keyframe {
    Keyframe::from_stored(KEYFRAME_VERSION, body).expect("a keyframe")
}

/// A state with something in every place where a state can have something.
fn full() -> Run {
    let mut run = Run::new();
    let both = |step: fn(u8) -> Step| [step(0), step(1)];
    let offers = [(1u8, vec![(0, 2), (4, 1)]), (2, vec![(8, 3)]), (3, vec![(12, 2)]), (4, vec![(16, 2)])];
    for (n, extents) in offers {
        let blocks = extents.iter().map(|(_, blocks)| blocks).sum();
        run.take(&Step::ObjectAdd { n, blocks });
        run.take(&Step::Add { port: 0, region: 0, n, extents: extents.clone() });
        run.take(&Step::Add { port: 1, region: 1, n: 5, extents });
    }
    let hosts = [
        both(|port| Step::Answer { port, take: 2, is_more: false }),
        both(|port| Step::Answer { port, take: 1, is_more: false }),
        both(|port| Step::SetTimestamp { port, host_ns: 77 }),
        both(|port| Step::Policy { port, modes: [0, 1, 2, 0, 1] }),
        both(|port| Step::ConfigWrite { port, offset: 0x10, value: 0xfeb0_0000 }),
        both(|port| Step::MsixWrite { port, offset: 8, value: 0x1234 }),
        both(|port| Step::Control { port, value: 2 }),
        both(|port| {
            let fields = DecoderFields { base: Hpa(4 * GIB), size_bytes: MULTIPLE, skip_bytes: 0, control: 0 };
            Step::Commit { port, decoder: 0, fields }
        }),
        both(|port| {
            let fields = DecoderFields { base: Hpa(4 * GIB), size_bytes: MULTIPLE, skip_bytes: 0, control: 0xf };
            Step::Commit { port, decoder: 1, fields }
        }),
        both(|port| Step::HdmControl { port, value: 2 }),
        both(|port| Step::GiveBack { port, ranges: vec![(4, 1)], is_more: false }),
        both(|port| Step::ReleaseRange { port, range: (0, 1), removal: Removal::Requested }),
    ];
    hosts.iter().flatten().for_each(|step| drop(run.take(step)));
    run.take(&Step::Release { port: 0, n: 3, removal: Removal::Forced });
    run.take(&Step::Answer { port: 0, take: 1, is_more: true });
    run
}

#[test]
fn a_full_state_comes_back() {
    let run = full();
    let device = &run.vm.devices[&DeviceIndex(0)];
    assert!(!device.extents.offers().is_empty() && !device.extents.accepted().is_empty());
    assert!(device.extents.requested().next().is_some() && device.windows.committed() == 1);
    let keyframe = run.keyframe();
    assert_eq!(restored(&keyframe.to_bytes()), keyframe);
}

#[test]
fn another_form_is_refused_before_its_body_is_read() {
    let refused = Keyframe::from_stored(KEYFRAME_VERSION + 1, &[]).expect_err("another form");
    assert!(matches!(refused, CodecError::Form { found: 2, known: 1 }), "{refused}");
}

#[test]
fn a_keyframe_of_a_broken_law_is_refused_by_the_name_of_the_law() {
    let mut keyframe = full().keyframe();
    for device in keyframe.vm.devices.values_mut() {
        let parts = device::windows::Parts { pieces: Vec::new(), ..device.windows.parts() };
        device.windows = windows::State::from_parts(&device.config, parts).expect("parts");
    }
    let refused = Keyframe::from_stored(KEYFRAME_VERSION, &keyframe.to_bytes()).expect_err("a broken law");
    assert!(refused.to_string().contains("mapped-is-accepted"), "{refused}");
}

/// A device that holds all the extents that it can, of as many offers as there are backends to a half. Nothing of this may
/// be quadratic: it would take minutes.
#[test]
fn the_largest_device_comes_back() {
    let mut run = Run::new();
    let offers = BACKENDS_MAX as u64 / 2;
    for n in 0..offers {
        let seq = Seq(run.last.0 + 1);
        let (id, unit_bytes) = (format!("tm{n}"), 2 * MULTIPLE / EXTENTS_MAX as u64);
        let mut bytes = [0x5a; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        let (tag, device) = (Tag::from_bytes(bytes), DeviceIndex(0));
        let count = EXTENTS_MAX as u64 / offers;
        let ranges = (0..count).map(|i| DpaRange { start: Dpa((n * count + i) * unit_bytes), len_bytes: unit_bytes });
        let ranges: Vec<_> = ranges.collect();
        let (spec, source) = (spec(tag, count * unit_bytes), Source::Request);
        let offered =
            extents::Fact::Offered { host_id: 0, region: 0, tag, backend: id.clone(), ranges: ranges.clone() };
        let offsets = (0..).step_by(unit_bytes as usize);
        let pieces = (0..).zip(&ranges).zip(offsets);
        let pieces =
            pieces.map(|((position, range), offset_bytes)| AcceptedPiece { position, range: *range, offset_bytes });
        let pieces: Vec<_> = pieces.collect();
        let backed = pieces.iter().map(|piece| Piece {
            range: piece.range,
            backend: id.clone(),
            offset_bytes: piece.offset_bytes,
        });
        let facts = [
            Fact::Backends(backends::Fact::Added { id: id.clone(), spec, source }),
            Fact::Backends(backends::Fact::Reserved { id: id.clone(), device }),
            Fact::Extents(offered),
            Fact::Windows(windows::Fact::Mapped { pieces: backed.collect() }),
            Fact::Backends(backends::Fact::Attached { id, device }),
            Fact::Extents(extents::Fact::Accepted { offer: seq, region: 0, tag, pieces }),
        ];
        facts.iter().for_each(|fact| run.vm.evolve(device, Stamp { seq, time: VmTime(seq.0) }, fact));
        run.last = seq;
    }
    assert_eq!(run.vm.devices[&DeviceIndex(0)].extents.available_extents(), 0);
    let keyframe = run.keyframe();
    assert_eq!(restored(&keyframe.to_bytes()), keyframe);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Body to body, and on from there.
    #[test]
    fn the_state_comes_back_and_goes_on_as_it_would_have(
        before in prop::collection::vec(step(), 0..80),
        behind in prop::collection::vec(step(), 0..30),
    ) {
        let mut run = Run::new();
        before.iter().for_each(|step| drop(run.take(step)));
        let keyframe = run.keyframe();
        let body = keyframe.to_bytes();
        let again = restored(&body);
        prop_assert_eq!(&again, &keyframe);
        prop_assert_eq!(again.to_bytes(), body);
        // The same state after another record is what would be written there.
        let later = Keyframe { seq: Seq(keyframe.seq.0 + 7), time: VmTime(keyframe.time.0 + 9), ..keyframe.clone() };
        let moved = Base::of(keyframe).expect("lawful").moved_to(later.seq, later.time);
        prop_assert_eq!(moved, Base::of(later).expect("lawful"));
        let mut resumed = Run { vm: again.vm, last: again.seq };
        for step in &behind {
            prop_assert_eq!(resumed.take(step), run.take(step));
            prop_assert_eq!(&resumed.vm, &run.vm);
        }
    }

    /// Whoever tampers with a body gets an error, or a state that goes on without a panic.
    #[test]
    fn tampering_never_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in prop::option::weighted(0.1, any::<prop::sample::Index>()),
        behind in prop::collection::vec(step(), 0..30),
    ) {
        let mut body = full().keyframe().to_bytes();
        for (place, byte) in &edits {
            let place = place.index(body.len());
            body[place] = *byte;
        }
        if let Some(cut) = cut {
            body.truncate(cut.index(body.len()));
        }
        if let Ok(keyframe) = Keyframe::from_stored(KEYFRAME_VERSION, &body) {
            let mut run = Run { vm: keyframe.vm, last: keyframe.seq };
            behind.iter().for_each(|step| drop(run.take(step)));
        }
    }
}
