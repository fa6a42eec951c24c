//! Registers that are saved and go on in another device or platform.
//!
//! `saved_v1.hex` has the bytes of version 1, and never changes: a form that is written or read differently breaks snapshots
//! that are out in the world.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::config_space::{ConfigSpace, ConfigWrite};
use device::mailbox::{power_on_msix, write_msix};
use memory::{FakeHypervisor, HostMemory, Piece, Slots};
use platform::{
    BarIndex, CommandedWrite, DecoderStatus, FACE_STATE_VERSION, FaceState, LoadError, PLATFORM_STATE_VERSION,
    Platform, PlatformState, ROOT_PORT_BUS, SaveError, SavedError,
};
use proptest::prelude::*;
use wire::{Dpa, Hpa, Opcode, ReturnCode};

use crate::bus::{GIB, enumerate, memory, platform, read};
use crate::rig::{COMMAND, CONTROL, PAYLOAD, PAYLOAD_LEN, PAYLOAD_LOG2, Rig, STATUS, Told};

const FROZEN: &str = include_str!("saved_v1.hex");
const HDM: u64 = 0x1110;
const SERIAL: u64 = 7;

fn decoder(index: u64) -> u64 {
    HDM + 0x10 + 0x20 * index
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn frozen(name: &str) -> Vec<u8> {
    let bytes = FROZEN.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).expect("a line");
    let digits = |at: usize| u8::from_str_radix(&bytes[at..at + 2], 16).expect("two digits");
    (0..bytes.len()).step_by(2).map(digits).collect()
}

/// What a device's journal would say of it.
#[derive(Clone)]
struct Journaled {
    config: ConfigSpace,
    msix: Vec<u8>,
    control: u32,
    event_status: u64,
    hdm_control: u32,
    /// The told fields of committed decoders: base, size, skip, control.
    decoders: BTreeMap<u8, (Hpa, u64, u64, u32)>,
}

impl Journaled {
    fn new() -> Self {
        Self {
            config: ConfigSpace::new(SERIAL, PAYLOAD_LOG2),
            msix: power_on_msix(),
            control: 0,
            event_status: 0,
            hdm_control: 0,
            decoders: BTreeMap::new(),
        }
    }

    /// Hears what the device was told, and answers it: commits of decoders at odd places fail.
    fn answer(&mut self, rig: &Rig) {
        for told in rig.told() {
            match told {
                Told::Doorbell(image) => {
                    rig.face.complete(image.opcode, ReturnCode::Unsupported, &image.payload[image.payload.len() / 2..]);
                }
                Told::Write(CommandedWrite::Config { offset, width, value }) => {
                    assert_eq!(self.config.write(offset, width, value), ConfigWrite::Changed);
                }
                Told::Write(CommandedWrite::MailboxControl(value)) => self.control = value,
                Told::Write(CommandedWrite::Msix { offset, width, value }) => {
                    write_msix(&mut self.msix, offset, width, value);
                }
                Told::Write(CommandedWrite::HdmGlobalControl(value)) => self.hdm_control = value,
                Told::Write(CommandedWrite::DecoderCommit { decoder, base, size_bytes, skip_bytes, control }) => {
                    if base.0 & 0x1000_0000 == 0 {
                        self.decoders.insert(decoder, (base, size_bytes, skip_bytes, control));
                        rig.face.set_decoder(decoder, DecoderStatus::Committed);
                    } else {
                        rig.face.set_decoder(decoder, DecoderStatus::Error);
                    }
                }
                Told::Write(CommandedWrite::DecoderUncommit { decoder, .. }) => {
                    self.decoders.remove(&decoder);
                    rig.face.set_decoder(decoder, DecoderStatus::Uncommitted);
                }
            }
        }
    }

    /// A device of that state after a restart, as its actors make it.
    fn restarted(&self) -> Rig {
        let rig = Rig::with_config(self.config.clone());
        rig.face.restore_interrupts(&self.msix, self.control);
        rig.face.set_event_status(self.event_status);
        rig.face.restore_hdm_control(self.hdm_control);
        for (decoder, (base, size_bytes, skip_bytes, control)) in &self.decoders {
            rig.face.restore_decoder(*decoder, *base, *size_bytes, *skip_bytes, *control);
            rig.face.set_decoder(*decoder, DecoderStatus::Committed);
        }
        rig
    }
}

/// All bytes of all blocks, and configuration space.
fn all_of(rig: &Rig) -> Vec<Vec<u8>> {
    let lens = [0x2000, PAYLOAD as usize + PAYLOAD_LEN + 8, 0x1000];
    let blocks = BarIndex::ALL.into_iter().zip(lens).map(|(bar, len)| {
        let mut bytes = vec![0x55; len];
        rig.face.mmio_read(bar, 0, &mut bytes);
        bytes
    });
    let config = (0..0x1000).step_by(4).flat_map(|offset| rig.face.config_read(offset, 4).to_le_bytes());
    let mut page = vec![0; PAYLOAD as usize];
    rig.face.register_page().read(0, &mut page).unwrap();
    blocks.chain([config.collect(), page]).collect()
}

fn stored(state: &FaceState) -> FaceState {
    let stored = FaceState::from_bytes(FACE_STATE_VERSION, &state.to_bytes()).expect("a state");
    assert_eq!(&stored, state);
    stored
}

fn stored_platform(state: &PlatformState) -> PlatformState {
    let stored = PlatformState::from_bytes(PLATFORM_STATE_VERSION, &state.to_bytes()).expect("a state");
    assert_eq!(&stored, state);
    stored
}

/// One access of a guest, or one thing that a device does by itself.
#[derive(Clone, Debug)]
enum Act {
    Write(BarIndex, u64, Vec<u8>),
    Config(u16, u8, u32),
    Ring(u16, Vec<u8>),
    Decode(u64, u64, u64, u32),
    EventStatus(u64),
    Raise(u8),
    Scribble(u64, u8),
}

impl Act {
    fn happen(&self, rig: &Rig, journaled: &mut Journaled) {
        match self.clone() {
            Self::Write(bar, at, bytes) => rig.face.mmio_write(bar, at, &bytes),
            Self::Config(offset, width, value) => rig.face.config_write(offset, width, value),
            Self::Ring(opcode, payload) => rig.ring(opcode, &payload),
            Self::Decode(index, base, size, control) => {
                let at = decoder(index);
                rig.write_u64(BarIndex::Component, at, base);
                rig.write_u64(BarIndex::Component, at + 8, size);
                rig.write(BarIndex::Component, at + 0x14, base as u32);
                rig.write(BarIndex::Component, at + 0x10, control);
            }
            Self::EventStatus(bits) => {
                journaled.event_status = bits;
                rig.face.set_event_status(bits);
            }
            Self::Raise(vector) => rig.face.raise(vector),
            Self::Scribble(at, value) => rig.face.payload_area().write_u8(at, value).unwrap(),
        }
        journaled.answer(rig);
    }
}

fn act() -> impl Strategy<Value = Act> {
    let place = prop_oneof![
        (Just(BarIndex::Component), 0x1100..0x1280u64),
        (Just(BarIndex::Device), prop_oneof![0xfd0..0x1040u64, 0x70..0xa0u64]),
        (Just(BarIndex::Msix), prop_oneof![0..0x110u64, 0x7f8..0x810u64]),
    ];
    let width = || prop::sample::select(vec![1usize, 2, 4, 8]);
    let config = prop_oneof![0..0x40u16, 0xc0..0xcau16, 0x10c..0x148u16];
    prop_oneof![
        4 => (place, width(), any::<u64>()).prop_map(|((bar, at), width, value)| {
            Act::Write(bar, at / width as u64 * width as u64, value.to_le_bytes()[..width].to_vec())
        }),
        2 => (config, prop::sample::select(vec![1u8, 2, 4]), any::<u32>())
            .prop_map(|(at, width, value)| Act::Config(at / u16::from(width) * u16::from(width), width, value)),
        1 => Just(Act::Config(0xc2, 2, 0x8000)),
        1 => (any::<u16>(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(opcode, bytes)| Act::Ring(opcode, bytes)),
        2 => (0..10u64, any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(index, base, size, control)| {
            Act::Decode(index, base, size, control & 0x1fff | 0x200)
        }),
        1 => any::<u64>().prop_map(Act::EventStatus),
        2 => (0..18u8).prop_map(Act::Raise),
        1 => (0..PAYLOAD_LEN as u64, any::<u8>()).prop_map(|(at, value)| Act::Scribble(at, value)),
    ]
}

proptest! {
    /// It reads the same, tells nothing, and goes on the same.
    #[test]
    fn a_device_goes_on_as_it_was(
        before in prop::collection::vec(act(), 0..40), after in prop::collection::vec(act(), 0..12),
    ) {
        let (rig, mut journaled) = (Rig::with_serial(SERIAL), Journaled::new());
        before.iter().for_each(|act| act.happen(&rig, &mut journaled));
        let state = stored(&rig.face.save().expect("it is settled"));

        let second = journaled.restarted();
        for earlier in [&rig, &second] {
            earlier.messages();
        }
        second.told();
        second.face.payload_area().write(3, b"what was there before").unwrap();
        let seen = second.face.epoch();
        second.face.load(&state).expect("its state");
        prop_assert_eq!(all_of(&second), all_of(&rig));
        prop_assert_eq!((second.told(), second.messages()), (vec![], vec![]));
        prop_assert!(second.face.is_settled() && second.face.epoch() != seen);
        prop_assert_eq!(second.face.save(), Ok(state));

        for act in after {
            let mut other = journaled.clone();
            act.happen(&rig, &mut journaled);
            act.happen(&second, &mut other);
            prop_assert_eq!(all_of(&second), all_of(&rig), "after {:?}", act);
            prop_assert_eq!(second.messages(), rig.messages(), "after {:?}", act);
        }
    }

    #[test]
    fn no_bytes_panic(at in any::<prop::sample::Index>(), value in any::<u8>(), more in prop::collection::vec(any::<u8>(), 0..9)) {
        for name in ["face", "platform"] {
            let mut bytes = frozen(name);
            let at = at.index(bytes.len());
            bytes[at] = value;
            bytes.extend(&more);
            let whole = if name == "face" {
                FaceState::from_bytes(1, &bytes).map(|state| state.to_bytes())
            } else {
                PlatformState::from_bytes(1, &bytes).map(|state| state.to_bytes())
            };
            // What is taken is what was meant.
            if let Ok(again) = whole {
                prop_assert_eq!(again, bytes);
            }
        }
    }
}

/// A device in the middle of everything that a device can be in the middle of.
fn busy() -> (Rig, Journaled) {
    let (rig, mut journaled) = (Rig::with_serial(SERIAL), Journaled::new());
    let acts = [
        Act::Config(0x18, 4, 0xc001_0000),
        Act::Config(0x04, 2, 6),
        Act::Config(0xc2, 2, 0x8000),
        Act::Write(BarIndex::Msix, 0x50, 0xfee0_1000u64.to_le_bytes().to_vec()),
        Act::Write(BarIndex::Msix, 0x58, 0x0000_0001_0000_0044u64.to_le_bytes().to_vec()),
        Act::Raise(5),
        Act::Write(BarIndex::Device, CONTROL, vec![2, 0, 0, 0]),
        Act::Ring(0x4801, b"a command".to_vec()),
        Act::Write(BarIndex::Device, COMMAND, 0x0000_0000_0012_4802u64.to_le_bytes().to_vec()),
        Act::Write(BarIndex::Device, PAYLOAD + 2, b"staged".to_vec()),
        Act::EventStatus(0x10),
        Act::Write(BarIndex::Component, HDM + 4, vec![2, 0, 0, 0]),
        Act::Decode(0, 0x1_2000_0000, 0x4000_0000, 0x1200),
        Act::Decode(1, 0x1_7000_0000, 0x4000_0000, 0x200),
        Act::Write(BarIndex::Component, decoder(9), 0x9_9000_0000u64.to_le_bytes().to_vec()),
        Act::Write(BarIndex::Component, decoder(9) + 0x10, vec![0x21, 1, 0, 0]),
    ];
    acts.iter().for_each(|act| act.happen(&rig, &mut journaled));
    (rig, journaled)
}

#[test]
fn a_device_is_saved_as_it_always_was() {
    let (rig, journaled) = busy();
    let state = rig.face.save().expect("it is settled");
    assert_eq!(hex(&state.to_bytes()), hex(&frozen("face")), "it is written differently");
    let second = journaled.restarted();
    second.face.load(&FaceState::from_bytes(1, &frozen("face")).expect("a state")).expect("its state");
    assert_eq!(all_of(&second), all_of(&rig), "it is read differently");
    assert_eq!(second.read_u64(BarIndex::Device, COMMAND), 0x12_4802);
    assert_eq!(second.read_u64(BarIndex::Device, STATUS), 0x0003_0000_0000);
    assert_eq!(second.read_u64(BarIndex::Msix, 0x800), 1 << 5 | 1, "the completion waits too");
    assert_eq!(second.read(BarIndex::Component, decoder(1) + 0x10), 0xa00);
    // The interrupt that waited leaves when its mask goes.
    second.messages();
    second.write(BarIndex::Msix, 0x5c, 0);
    assert_eq!(second.messages().len(), 1);
}

#[test]
fn what_is_not_answered_is_not_saved() {
    let rig = Rig::new();
    rig.ring(0x4000, &[]);
    assert_eq!(rig.face.save(), Err(SaveError::CommandUnderWay));
    rig.face.complete(Opcode(0x4000), ReturnCode::Success, &[]);
    assert!(rig.face.save().is_ok());
    for (control, status) in [(0x200, DecoderStatus::Committed), (0, DecoderStatus::Uncommitted)] {
        rig.write(BarIndex::Component, decoder(3) + 0x10, control);
        assert_eq!(rig.face.save(), Err(SaveError::DecoderUnanswered { decoder: 3 }));
        rig.face.set_decoder(3, status);
        assert!(rig.face.save().is_ok());
    }
}

#[test]
fn what_is_of_another_moment_is_refused_and_changes_nothing() {
    let (rig, journaled) = busy();
    let state = rig.face.save().expect("it is settled");
    let refused = |spoil: &dyn Fn(&mut Journaled)| {
        let mut other = journaled.clone();
        spoil(&mut other);
        let second = other.restarted();
        let before = all_of(&second);
        let error = second.face.load(&state).unwrap_err();
        assert_eq!(all_of(&second), before);
        error.to_string()
    };
    assert_eq!(
        refused(&|other| other.control = 0),
        "the mailbox control register at 0xfe4 was saved as 0x2, and the device's state has 0x0: they are not of one moment"
    );
    assert!(refused(&|other| other.event_status = 0).starts_with("the event status register at 0x80"));
    assert!(refused(&|other| other.msix[0x59] = 1).starts_with("the MSI-X table at 0x58 was saved as 0x44,"));
    assert!(refused(&|other| other.hdm_control = 0).starts_with("the HDM decoder global control at 0x1114"));
    assert_eq!(
        refused(&|other| other.decoders.retain(|decoder, _| *decoder != 0)),
        "decoder 0 was saved as committed from 0x120000000 on, size 0x40000000, skip 0x20000000, control 0x1600, and the \
         device's state has it as not committed: they are not of one moment"
    );
    let more = (Hpa(0), 1 << 28, 0, 0x200);
    assert!(refused(&|other| other.decoders.extend([(1, more)])).starts_with("decoder 1 was saved as not committed,"));
    let base = |other: &mut Journaled| other.decoders.get_mut(&0).expect("it is committed").0 = Hpa(0x2_2000_0000);
    assert!(refused(&base).contains("has it as committed from 0x220000000 on"));

    let other = Rig::with_payload(SERIAL, PAYLOAD_LOG2 + 1);
    let expected = LoadError::PayloadLen { saved_len_bytes: PAYLOAD_LEN, len_bytes: 2 * PAYLOAD_LEN };
    assert_eq!(other.face.load(&state), Err(expected));
}

#[test]
fn bytes_that_are_no_state_are_refused() {
    let (face, platform) = (frozen("face"), frozen("platform"));
    let refused = SavedError::Version { what: "registers of a device", found: 2, known: 1 };
    assert_eq!(FaceState::from_bytes(2, &face), Err(refused));
    let refused = PlatformState::from_bytes(0, &platform).unwrap_err().to_string();
    assert_eq!(
        refused,
        "the saved registers of the platform are of version 0 and this build reads version 1: use the build that wrote them"
    );
    for len in 0..face.len() {
        assert!(FaceState::from_bytes(1, &face[..len]).is_err(), "{len}");
    }
    for len in 0..platform.len() {
        assert!(PlatformState::from_bytes(1, &platform[..len]).is_err(), "{len}");
    }
    let trailing = |bytes: &[u8]| [bytes, &[0]].concat();
    assert!(matches!(FaceState::from_bytes(1, &trailing(&face)), Err(SavedError::Trailing { .. })));
    assert!(matches!(PlatformState::from_bytes(1, &trailing(&platform)), Err(SavedError::Trailing { .. })));
    // A payload of 2^63 bytes, and a doorbell that rings.
    let mut lying = face.clone();
    lying[39] = 0x80;
    assert!(matches!(FaceState::from_bytes(1, &lying), Err(SavedError::Undecodable { .. })));
    let mut ringing = face.clone();
    ringing[8] |= 1;
    let refused = FaceState::from_bytes(1, &ringing).unwrap_err().to_string();
    assert!(refused.starts_with("the saved registers of a device cannot be: the mailbox: control 0x3, "), "{refused}");
}

/// A platform in the middle of what a guest does with it.
fn programmed(rigs: &[Rig]) -> Arc<Platform> {
    let platform = Arc::new(platform(GIB, rigs));
    for port in (0..).take(rigs.len()) {
        enumerate(&platform, port);
    }
    platform.config_write(0, 0, 0, 0x60, 4, 0xb000_0001);
    platform.port_write(0xcf8, 4, 0x800c_0010);
    platform.config_write(ROOT_PORT_BUS, 0, 0, 0x10, 4, 0xfe00_0000);
    platform.config_write(ROOT_PORT_BUS, 0, 0, 0x58, 4, 0xffff_0010);
    let decoders = 0x1_0000_1120;
    let staged = [(0x20, 0x9000_0000u64), (0x28, 0xf000_0000), (0x34, 0x0102_0304)];
    let committed = [(0, 0x1_1000_0000u64), (8, GIB / 2), (0x14, 0x0001), (0x10, 0x1210)];
    for (offset, value) in committed.into_iter().chain(staged) {
        platform.write(Hpa(decoders + offset), &(value as u32).to_le_bytes());
        if offset != 0x10 {
            platform.write(Hpa(decoders + offset + 4), &((value >> 32) as u32).to_le_bytes());
        }
    }
    platform
}

/// What a guest reads of all that is above the devices, and where their BARs answer.
fn all_above(platform: &Platform) -> (Vec<u32>, Vec<Vec<u8>>) {
    let mut config = Vec::new();
    for bus in [0, ROOT_PORT_BUS, ROOT_PORT_BUS + 1, ROOT_PORT_BUS + 2] {
        for device in 0..3 {
            config.extend((0..0x200).step_by(4).map(|offset| platform.config_read(bus, device, 0, offset, 4)));
        }
    }
    config.extend([0xcf8, 0xcfc].map(|port| platform.port_read(port, 4)));
    let ranges = [(0xb000_0000, 256), (0xb0c0_0000, 0x100), (0xc000_0000, 0x20_0000), (0xfe00_1000, 16)];
    let blocks = ranges.into_iter().chain([(0x1_0000_1000, 0x400), (0x1_1000_0000, 0x1000)]).map(|(at, len)| {
        let mut bytes = vec![0x55; len];
        platform.read(Hpa(at), &mut bytes);
        bytes
    });
    (config, blocks.collect())
}

/// Gives each device memory behind the window, which shows its number.
fn map(platform: &Platform, memories: &[Arc<HostMemory>]) {
    use device::config::DeviceIndex;
    use device::decode::{DecodedRange, Granularity, Ways};
    let window = platform.window();
    for (device, memory) in (0..).zip(memories) {
        let (ways, granularity) = (Ways::from_code(1).unwrap(), Granularity::MIN);
        let decoded = DecodedRange { hpa: window.base(), size_bytes: GIB / 2, dpa: Dpa(0), ways, granularity };
        window.set_decoders(DeviceIndex(device), vec![decoded]).unwrap();
        let piece = Piece { dpa: Dpa(0), len_bytes: GIB / 4, memory: Arc::clone(memory), offset_bytes: 0 };
        window.map(DeviceIndex(device), piece).unwrap();
    }
}

#[test]
fn a_platform_goes_on_as_it_was() {
    let rigs = [Rig::with_serial(1), Rig::with_serial(2)];
    let first = programmed(&rigs);
    let memories = [memory(GIB / 4), memory(GIB / 4)];
    map(&first, &memories);
    first.write(first.window().base(), &(0..1024u32).map(|at| (at / 256) as u8 + 1).collect::<Vec<_>>());
    assert_eq!(read(&first, first.window().base().0 + 0x100) as u8, 2, "the second device answers");
    let state = first.save();
    assert_eq!(hex(&state.to_bytes()), hex(&frozen("platform")), "it is written differently");

    // The devices come along.
    let second = Arc::new(platform(GIB, &rigs));
    let hypervisor = FakeHypervisor::new(32);
    second.attach(Arc::new(Slots::new(hypervisor.clone()))).unwrap();
    map(&second, &memories);
    let slots = hypervisor.regions().len();
    assert_ne!(all_above(&second), all_above(&first));
    second.load(&PlatformState::from_bytes(1, &frozen("platform")).expect("a state")).expect("its state");
    assert_eq!(all_above(&second), all_above(&first));
    assert_eq!(hypervisor.regions().len(), slots + 2, "register pages of both; their payloads are no whole page");
    assert_eq!(read(&second, second.window().base().0 + 0x100) as u8, 2);
    // Into one where the guest had gone on.
    second.reset();
    second.config_write(ROOT_PORT_BUS, 1, 0, 0x18, 4, 0x0e0e_0e0c);
    second.load(&state).expect("its state");
    assert_eq!(all_above(&second), all_above(&first));
    assert_eq!(second.save(), state);
}

#[test]
fn other_ports_or_devices_are_refused_and_change_nothing() {
    let rigs = [Rig::with_serial(1), Rig::with_serial(2)];
    let state = programmed(&rigs).save();
    let fresh = platform(GIB, &rigs);
    let before = all_above(&fresh);
    assert_eq!(programmed(&rigs[..1]).load(&state), Err(LoadError::Ports { saved: 2, ports: 1 }));
    let face = fresh.unplug(1).expect("it is there");
    assert_eq!(fresh.load(&state), Err(LoadError::Missing { port: 1 }));
    let empty = fresh.save();
    fresh.plug(1, face).expect("it is free");
    let error = fresh.load(&empty).unwrap_err();
    assert_eq!(error, LoadError::Unknown { port: 1 });
    assert_eq!(error.to_string(), "root port 1 was saved without a device, and has one here: unplug it first");
    // The slot's changes apart, which came of plugging.
    fresh.config_write(ROOT_PORT_BUS, 1, 0, 0x5a, 2, 0xffff);
    let (mut after, before) = (all_above(&fresh), before);
    after
        .0
        .iter_mut()
        .zip(&before.0)
        .filter(|(now, then)| **now ^ **then == 0x108 << 16)
        .for_each(|(now, then)| *now = *then);
    assert_eq!(after, before);
}

/// One access of a guest to what is above the devices.
#[derive(Clone, Debug)]
enum Above {
    Config(u8, u8, u16, u8, u32),
    Port(u16, u8, u32),
    Store(u64, Vec<u8>),
    Decode(u64, u64, u64, u32),
}

fn above() -> impl Strategy<Value = Above> {
    let place = prop_oneof![
        Just((0u8, 0u8, 0x60u16)),
        Just((0, 0, 0x64)),
        (0..2u8, 0..0x188u16).prop_map(|(port, at)| (ROOT_PORT_BUS, port, at)),
        (0..2u8, prop::sample::select(vec![0x04u16, 0x18, 0x19, 0x1a, 0x20, 0x22, 0x24, 0x28, 0x58, 0x5a, 0x5b]))
            .prop_map(|(port, at)| (ROOT_PORT_BUS, port, at)),
    ];
    let width = || prop::sample::select(vec![1u8, 2, 4]);
    prop_oneof![
        4 => (place, width(), any::<u32>()).prop_map(|((bus, device, at), width, value)| {
            Above::Config(bus, device, at / u16::from(width) * u16::from(width), width, value)
        }),
        1 => (prop::sample::select(vec![0xcf8u16, 0xcfc]), width(), any::<u32>())
            .prop_map(|(port, width, value)| Above::Port(port, width, value)),
        1 => (0x1_0000_1110..0x1_0000_1240u64, any::<u32>()).prop_map(|(at, value)| {
            Above::Store(at & !3, value.to_le_bytes().to_vec())
        }),
        2 => (0..8u64, 0..16u64, 0..3u64, any::<u32>()).prop_map(|(index, base, size, control)| {
            Above::Decode(index, 0x1_1000_0000 + (base << 28), size << 28, control & 0x1113 | 0x200)
        }),
    ]
}

impl Above {
    fn happen(&self, platform: &Platform) {
        match self.clone() {
            Self::Config(bus, device, offset, width, value) => {
                platform.config_write(bus, device, 0, offset, width, value)
            }
            Self::Port(port, width, value) => platform.port_write(port, width, value),
            Self::Store(at, bytes) => platform.write(Hpa(at), &bytes),
            Self::Decode(index, base, size, control) => {
                let at = 0x1_0000_1120 + 0x20 * index;
                for (offset, value) in [(0, base), (8, size), (0x14, 0x0001)] {
                    platform.write(Hpa(at + offset), &(value as u32).to_le_bytes());
                    platform.write(Hpa(at + offset + 4), &((value >> 32) as u32).to_le_bytes());
                }
                platform.write(Hpa(at + 0x10), &control.to_le_bytes());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn everything_above_the_devices_goes_on_as_it_was(
        before in prop::collection::vec(above(), 0..30), after in prop::collection::vec(above(), 0..6),
        enumerated in any::<bool>(),
    ) {
        let rigs = [Rig::with_serial(1), Rig::with_serial(2)];
        let first = if enumerated { programmed(&rigs) } else { Arc::new(platform(GIB, &rigs)) };
        let memories = [memory(GIB / 4), memory(GIB / 4)];
        map(&first, &memories);
        memories.iter().zip(1..).for_each(|(memory, number)| memory.write(0, &[number; 4096]).unwrap());
        before.iter().for_each(|act| act.happen(&first));
        let state = stored_platform(&first.save());
        let second = platform(GIB, &rigs);
        map(&second, &memories);
        second.load(&state).expect("its state");
        prop_assert_eq!(all_above(&second), all_above(&first));
        prop_assert_eq!(second.save(), state);
        for act in after {
            act.happen(&first);
            act.happen(&second);
            prop_assert_eq!(all_above(&second), all_above(&first), "after {:?}", act);
        }
    }
}
