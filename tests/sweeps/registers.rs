//! Every register over every width and alignment.
//!
//! The blocks are taken without actors, so that nothing moves but what is written: a command stays under way, a commit
//! stays unanswered. That a VM shows the same at power-on and after a reset is a test of its own.

use std::sync::Arc;

use device::config_space::ConfigSpace;
use driver::{Bus, Host, Policy};
use platform::{BarIndex, CommandSink, CommandedWrite, DecoderStatus, Face, MailboxCommandImage};
use wire::{Opcode, ReturnCode};

use crate::model::{Model, Widths};
use crate::vm::{Machine, PAYLOAD_LOG2, SERIAL};

const CONTROL: usize = 0x0fe4;
const COMMAND: usize = 0x0fe8;
const DECODER_0: usize = 0x1120;
const DECODER_CONTROL: usize = 0x10;
const COMMIT: u32 = 1 << 9;
const LOCK_ON_COMMIT: u32 = 1 << 8;
const DVSEC_LOCK: usize = 0x120;

/// Nobody hears what a register does by itself.
struct Silence;

impl CommandSink for Silence {
    fn doorbell(&self, _: MailboxCommandImage) {}

    fn commanded(&self, _: CommandedWrite) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Space {
    Config,
    Bar(BarIndex),
}

impl Space {
    const ALL: [Self; 4] =
        [Self::Config, Self::Bar(BarIndex::Component), Self::Bar(BarIndex::Device), Self::Bar(BarIndex::Msix)];

    fn power_on(self) -> Model {
        match self {
            Self::Config => Model::of("config", 0x1000, Widths::Configuration),
            Self::Bar(BarIndex::Component) => Model::of("component", 0x1_0000, Widths::Memory),
            Self::Bar(BarIndex::Device) => Model::of("device", 0x1_0000, Widths::Memory),
            Self::Bar(BarIndex::Msix) => Model::of("msix", 0x1000, Widths::Memory),
        }
    }

    fn widths(self) -> &'static [usize] {
        if self == Self::Config { &[1, 2, 4] } else { &[1, 2, 4, 8] }
    }

    fn read(self, face: &Face, offset: usize, len: usize) -> Vec<u8> {
        match self {
            Self::Config => face.config_read(offset as u16, len as u8).to_le_bytes()[..len].to_vec(),
            Self::Bar(bar) => {
                let mut bytes = vec![0xee; len];
                face.mmio_read(bar, offset as u64, &mut bytes);
                bytes
            }
        }
    }

    fn write(self, face: &Face, offset: usize, from: &[u8]) {
        match self {
            Self::Config => {
                let mut value = [0; 4];
                value[..from.len()].copy_from_slice(from);
                face.config_write(offset as u16, from.len() as u8, u32::from_le_bytes(value));
            }
            Self::Bar(bar) => face.mmio_write(bar, offset as u64, from),
        }
    }

    /// The whole space holds what the model says.
    fn expect(self, face: &Face, model: &Model, when: &str) {
        for offset in (0..model.len()).step_by(4) {
            let (read, expected) = (self.read(face, offset, 4), model.read(offset, 4));
            assert_eq!(read, expected, "{self:?} {offset:#x}, {when}");
        }
    }
}

fn face() -> Face {
    Face::new(ConfigSpace::new(SERIAL, PAYLOAD_LOG2), PAYLOAD_LOG2, Arc::new(Silence)).expect("memory")
}

/// Writes over every width and alignment of a space, and compares after each what lies around, at the end everything.
/// `values` gives what is written at an offset; bits that act are for the caller.
fn sweep_writes(space: Space, face: &Face, model: &mut Model, values: impl Fn(&Model, usize, usize) -> [Vec<u8>; 4]) {
    for (is_register, start, len) in model.runs() {
        // Where no register is, one width at every alignment reaches every byte; and all at both ends.
        for offset in start..start + len {
            let is_edge = offset < start + 16 || offset + 16 >= start + len;
            for width in space.widths().iter().filter(|width| is_register || is_edge || **width == 1) {
                let values = values(model, offset, *width);
                write_and_compare(space, face, model, offset, values);
            }
        }
    }
    space.expect(face, model, "after all writes");
}

/// The same for the registers of a space only.
fn sweep_registers(
    space: Space,
    face: &Face,
    model: &mut Model,
    values: impl Fn(&Model, usize, usize) -> [Vec<u8>; 4],
) {
    for (_, start, len) in model.runs().into_iter().filter(|(is_register, ..)| *is_register) {
        for offset in start..start + len {
            for width in space.widths() {
                let values = values(model, offset, *width);
                write_and_compare(space, face, model, offset, values);
            }
        }
    }
    space.expect(face, model, "after all writes");
}

fn write_and_compare(space: Space, face: &Face, model: &mut Model, offset: usize, values: [Vec<u8>; 4]) {
    for value in values {
        space.write(face, offset, &value);
        model.write(offset, &value);
        let around = offset.saturating_sub(8) & !3;
        for near in (around..(around + 24).min(model.len())).step_by(4) {
            let (read, expected) = (space.read(face, near, 4), model.read(near, 4));
            assert_eq!(read, expected, "{space:?} {near:#x} after {value:02x?} at {offset:#x}");
        }
    }
}

/// All ones, zeros, and two patterns, without the bits that act.
fn quiet(model: &Model, offset: usize, width: usize) -> [Vec<u8>; 4] {
    let acts = |at: usize| model.acts.get(at).copied().unwrap_or(0);
    [[0xff, 0xff], [0, 0], [0xa5, 0x5a], [0x3c, 0xc3]]
        .map(|pattern| (offset..offset + width).map(|at| pattern[at % 2] & !acts(at)).collect())
}

#[test]
fn reads_of_any_width_and_alignment_give_the_bytes_of_the_table() {
    let face = face();
    for space in Space::ALL {
        let model = space.power_on();
        for width in space.widths() {
            for offset in 0..model.len() {
                let (read, expected) = (space.read(&face, offset, *width), model.read(offset, *width));
                assert_eq!(read, expected, "{width} bytes at {space:?} {offset:#x}");
            }
        }
    }
}

#[test]
fn writes_of_any_width_and_alignment_change_the_writable_bits_only() {
    for space in Space::ALL {
        let (face, mut model) = (face(), space.power_on());
        sweep_writes(space, &face, &mut model, quiet);
        // No space reaches into another.
        for other in Space::ALL.into_iter().filter(|other| *other != space) {
            other.expect(&face, &other.power_on(), "when another was written");
        }
        face.reset(ConfigSpace::new(SERIAL, PAYLOAD_LOG2));
        space.expect(&face, &space.power_on(), "after a reset");
    }
}

#[test]
fn accesses_behind_the_end_find_nothing() {
    let face = face();
    for space in Space::ALL {
        let model = space.power_on();
        for offset in model.len() - 8..model.len() + 8 {
            for width in space.widths() {
                space.write(&face, offset, &vec![0xff; *width]);
            }
        }
        space.expect(&face, &model, "when something was written at its end");
    }
}

#[test]
fn while_a_command_is_under_way_the_device_registers_take_no_write() {
    let (face, space) = (face(), Space::Bar(BarIndex::Device));
    let mut model = space.power_on();
    for (offset, value) in [(COMMAND, 0x0008_0301_u64), (CONTROL & !7, 3 << 32)] {
        space.write(&face, offset, &value.to_le_bytes());
        model.write(offset, &value.to_le_bytes());
    }
    space.expect(&face, &model, "with the doorbell rung");
    model.freeze(0, model.len());
    sweep_writes(space, &face, &mut model, |_, offset, width| {
        [0xff, 0, 0xa5, 0x5a].map(|byte| vec![byte ^ offset as u8; width])
    });
    face.complete(Opcode(0x0301), ReturnCode::InvalidInput, &[]);
    let shown = [(CONTROL, 2), (COMMAND, 0x0301), (COMMAND + 8, 0), (COMMAND + 12, 2)];
    for (offset, value) in shown {
        assert_eq!(space.read(&face, offset, 4), u32::to_le_bytes(value), "{offset:#x}");
    }
}

#[test]
fn while_the_commit_bit_is_set_a_decoder_takes_no_write_but_the_one_that_clears_it() {
    for decoder in 0..10 {
        let (face, space) = (face(), Space::Bar(BarIndex::Component));
        let (mut model, start) = (space.power_on(), DECODER_0 + 0x20 * decoder);
        for (offset, value) in [(0x00, 0x1000_0000), (0x08, 0x2000_0000), (DECODER_CONTROL, COMMIT | 0x1000)] {
            space.write(&face, start + offset, &u32::to_le_bytes(value));
            model.write(start + offset, &u32::to_le_bytes(value));
        }
        model.freeze(start, 0x20);
        let commit_byte = start + DECODER_CONTROL + 1;
        let keep_commit = |model: &Model, offset: usize, width: usize| {
            quiet(model, offset, width).map(|mut value| {
                if let Some(byte) = commit_byte.checked_sub(offset).and_then(|at| value.get_mut(at)) {
                    *byte |= 2;
                }
                value
            })
        };
        sweep_registers(space, &face, &mut model, keep_commit);
        space.write(&face, start + DECODER_CONTROL, &u32::to_le_bytes(0x1000));
        assert_eq!(space.read(&face, start + DECODER_CONTROL, 4), u32::to_le_bytes(0x1000));
        space.write(&face, start, &u32::to_le_bytes(0xffff_ffff));
        assert_eq!(space.read(&face, start, 4), u32::to_le_bytes(0xf000_0000));
    }
}

#[test]
fn a_decoder_that_is_locked_takes_no_write_at_all() {
    let (face, space) = (face(), Space::Bar(BarIndex::Component));
    let mut model = space.power_on();
    let control = COMMIT | LOCK_ON_COMMIT;
    space.write(&face, DECODER_0 + DECODER_CONTROL, &control.to_le_bytes());
    face.set_decoder(0, DecoderStatus::Committed);
    model.write(DECODER_0 + DECODER_CONTROL, &control.to_le_bytes());
    model.bytes[DECODER_0 + DECODER_CONTROL + 1] |= 4;
    model.freeze(DECODER_0, 0x20);
    sweep_registers(space, &face, &mut model, quiet);
}

#[test]
fn the_dvsec_lock_holds_control_and_bases_until_a_reset() {
    let (face, space) = (face(), Space::Config);
    let mut model = space.power_on();
    space.write(&face, DVSEC_LOCK, &[1, 0]);
    model.write(DVSEC_LOCK, &[1, 0]);
    for (offset, len) in [(0x118, 2), (DVSEC_LOCK, 2), (0x12c, 8), (0x13c, 8)] {
        model.freeze(offset, len);
    }
    sweep_writes(space, &face, &mut model, |_, _, width| [0xff, 0, 0xa5, 0x5a].map(|byte| vec![byte; width]));
}

#[test]
fn a_vm_shows_the_table_at_power_on_and_after_a_reset() {
    let mut machine = Machine::start();
    let face = Arc::clone(&machine.vm.platform().faces()[0].1);
    for space in Space::ALL {
        space.expect(&face, &space.power_on(), "in a new VM");
    }
    let map = machine.bus.platform_map();
    let host = Host::probe(&mut machine.bus, &map, Policy::Accept).expect("a device");
    machine.accept_and_offer(host);
    machine.bus.config_write(driver::Bdf { bus: 0x0d, device: 0, function: 0 }, 0x120, driver::Width::Word, 1);
    for space in Space::ALL {
        let power_on = space.power_on();
        assert!((0..power_on.len()).any(|at| space.read(&face, at, 1) != power_on.read(at, 1)), "{space:?}");
    }
    machine.runtime.block_on(machine.vm.system_reset()).expect("a reset");
    for space in Space::ALL {
        space.expect(&face, &space.power_on(), "after a reset");
    }
    machine.end();
}
