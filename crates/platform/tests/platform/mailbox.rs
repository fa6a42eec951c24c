//! The mailbox: a command from doorbell to answer.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use device::config_space::ConfigSpace;
use platform::{BarIndex, CommandSink, CommandedWrite, Face, MailboxCommandImage};
use wire::{Opcode, ReturnCode};

use crate::rig::{COMMAND, CONTROL, PAYLOAD, PAYLOAD_LEN, PAYLOAD_LOG2, Rig, STATUS, Told};

const DEVICE: BarIndex = BarIndex::Device;

#[test]
fn the_capabilities_lead_to_the_blocks() {
    let rig = Rig::new();
    assert_eq!(rig.read_u64(DEVICE, 0), 0x3_0101_0000);
    let headers: Vec<_> =
        [0x10, 0x20, 0x30].map(|at| (rig.read(DEVICE, at), rig.read(DEVICE, at + 4), rig.read(DEVICE, at + 8))).into();
    let expected = [(0x2_0001, 0x80, 8), (0x1_0002, 0xfe0, 0x20 + PAYLOAD_LEN as u32), (0x1_4000, 0x88, 8)];
    assert_eq!(headers, expected);
    assert_eq!(rig.read_u64(DEVICE, 0x88), 0x14, "media ready, mailbox ready");
    let capabilities = rig.read(DEVICE, 0xfe0);
    assert_eq!((capabilities & 0x1f, capabilities >> 5 & 3, capabilities >> 19), (u32::from(PAYLOAD_LOG2), 1, 1));
}

#[test]
fn a_command_goes_out_once_and_its_answer_comes_back() {
    let rig = Rig::new();
    rig.ring(0x4802, &[1, 2, 3]);
    assert_eq!(rig.read(DEVICE, CONTROL), 1);
    let image = MailboxCommandImage { opcode: Opcode(0x4802), declared_len_bytes: 3, payload: vec![1, 2, 3] };
    assert_eq!(rig.told(), [Told::Doorbell(image)]);
    rig.face.complete(Opcode(0x4802), ReturnCode::InvalidExtentList, &[9, 8, 7, 6, 5]);
    assert_eq!(rig.read(DEVICE, CONTROL), 0);
    assert_eq!(rig.read_u64(DEVICE, STATUS), 0x1e << 32);
    assert_eq!(rig.read_u64(DEVICE, COMMAND), 5 << 16 | 0x4802);
    let mut payload = [0; 6];
    rig.face.mmio_read(DEVICE, PAYLOAD, &mut payload);
    assert_eq!(payload, [9, 8, 7, 6, 5, 0]);
    assert!(rig.told().is_empty() && rig.messages().is_empty());
}

#[test]
fn while_a_command_is_under_way_the_mailbox_takes_no_writes() {
    let rig = Rig::new();
    rig.ring(0x0400, b"before");
    let Some(Told::Doorbell(image)) = rig.told().pop() else { panic!("no doorbell") };
    rig.ring(0x4803, b"behind");
    rig.write(DEVICE, CONTROL, 0);
    rig.write(DEVICE, CONTROL, 3);
    assert_eq!(rig.told(), []);
    assert_eq!(image.payload, b"before");
    assert_eq!(rig.read(DEVICE, CONTROL), 1);
    assert_eq!(rig.read_u64(DEVICE, COMMAND), 6 << 16 | 0x0400);
    let mut payload = [0; 6];
    rig.face.mmio_read(DEVICE, PAYLOAD, &mut payload);
    assert_eq!(&payload, b"before");
}

#[test]
fn a_payload_rewritten_after_the_answer_does_not_reach_the_image() {
    let rig = Rig::new();
    rig.ring(0x0400, b"before");
    let told = rig.told();
    rig.face.complete(Opcode(0x0400), ReturnCode::Success, &[]);
    rig.face.mmio_write(DEVICE, PAYLOAD, b"behind");
    let [Told::Doorbell(image)] = &told[..] else { panic!("no doorbell") };
    assert_eq!(image.payload, b"before");
}

#[test]
fn a_declared_length_beyond_the_area_is_told_and_the_payload_cut() {
    let rig = Rig::new();
    rig.write_u64(DEVICE, COMMAND, u64::MAX);
    assert_eq!(rig.read_u64(DEVICE, COMMAND), 0x1f_ffff_ffff);
    rig.write(DEVICE, CONTROL, 1);
    let [Told::Doorbell(image)] = &rig.told()[..] else { panic!("no doorbell") };
    assert_eq!((image.declared_len_bytes, image.payload.len(), image.opcode), (0x1f_ffff, PAYLOAD_LEN, Opcode(0xffff)));
    rig.face.complete(image.opcode, ReturnCode::Success, &vec![3; PAYLOAD_LEN + 1]);
    assert_eq!(rig.read_u64(DEVICE, COMMAND) >> 16, PAYLOAD_LEN as u64);
}

#[test]
fn the_payload_area_takes_every_width_and_alignment_and_ends() {
    let rig = Rig::new();
    for len in 1..=17 {
        for at in 0..16 {
            let bytes: Vec<u8> = (0..len).map(|byte| byte + at + 1).collect();
            rig.face.mmio_write(DEVICE, PAYLOAD + u64::from(at), &bytes);
            let mut back = vec![0; bytes.len()];
            rig.face.mmio_read(DEVICE, PAYLOAD + u64::from(at), &mut back);
            assert_eq!(back, bytes);
        }
    }
    let end = PAYLOAD + PAYLOAD_LEN as u64;
    rig.face.mmio_write(DEVICE, end - 2, &[1, 2, 3, 4]);
    let mut back = [0xee; 4];
    rig.face.mmio_read(DEVICE, end - 2, &mut back);
    assert_eq!(back, [1, 2, 0, 0]);
    rig.face.mmio_write(DEVICE, PAYLOAD - 4, &[0xff; 8]);
    assert_eq!(rig.read(DEVICE, PAYLOAD), u32::MAX);
    assert_eq!(rig.read(DEVICE, PAYLOAD - 4), 0, "no register takes a write that reaches into the payload");
}

#[test]
fn registers_take_the_widths_of_the_standard() {
    let rig = Rig::new();
    for (at, byte) in (COMMAND..).zip([0x02, 0x48, 0x10, 0x20]) {
        rig.face.mmio_write(DEVICE, at, &[byte]);
    }
    rig.face.mmio_write(DEVICE, COMMAND + 4, &[1, 0]);
    assert_eq!(rig.read_u64(DEVICE, COMMAND), 0x1_2010_4802);
    rig.face.mmio_write(DEVICE, COMMAND + 1, &[0; 2]);
    rig.face.mmio_write(DEVICE, COMMAND, &[0; 3]);
    assert_eq!(rig.read_u64(DEVICE, COMMAND), 0x1_2010_4802);
    let mut middle = [0; 3];
    rig.face.mmio_read(DEVICE, COMMAND + 1, &mut middle);
    assert_eq!(middle, [0x48, 0x10, 0x20]);
}

#[test]
fn the_interrupt_bit_is_commanded_and_remembered() {
    let rig = Rig::new();
    rig.write(DEVICE, CONTROL, 0xffff_fffe);
    assert_eq!(rig.told(), [Told::Write(CommandedWrite::MailboxControl(2))]);
    rig.write(DEVICE, CONTROL, 2);
    assert_eq!(rig.told(), []);
    rig.write(DEVICE, CONTROL, 1);
    let told = rig.told();
    assert_eq!(told[0], Told::Write(CommandedWrite::MailboxControl(0)));
    assert!(matches!(told[1], Told::Doorbell(_)));
}

#[test]
fn an_answer_without_a_command_is_dropped() {
    let rig = Rig::new();
    rig.face.complete(Opcode(0x4800), ReturnCode::Success, &[1]);
    assert_eq!(rig.read_u64(DEVICE, COMMAND), 0);
    rig.ring(0x4800, &[]);
    rig.face.reset(ConfigSpace::new(7, PAYLOAD_LOG2));
    rig.face.complete(Opcode(0x4800), ReturnCode::Success, &[1]);
    assert_eq!((rig.read_u64(DEVICE, COMMAND), rig.read(DEVICE, PAYLOAD), rig.read(DEVICE, CONTROL)), (0, 0, 0));
}

#[test]
fn event_status_is_published_and_read_only() {
    let rig = Rig::new();
    rig.face.set_event_status(0x10);
    rig.write_u64(DEVICE, 0x80, 0);
    assert_eq!(rig.read_u64(DEVICE, 0x80), 0x10);
}

#[test]
fn restored_control_has_no_command_under_way() {
    let rig = Rig::new();
    rig.face.restore_interrupts(&[1; 3], 3);
    assert_eq!(rig.read(DEVICE, CONTROL), 2);
    assert_eq!(rig.read(BarIndex::Msix, 0), 0, "a table of another length is not taken");
}

/// A sink that answers from within the tell.
#[derive(Default)]
struct Prompt {
    face: OnceLock<Weak<Face>>,
    commands: AtomicU32,
}

impl CommandSink for Prompt {
    fn doorbell(&self, command: MailboxCommandImage) {
        self.commands.fetch_add(1, Ordering::Relaxed);
        let face = self.face.get().and_then(Weak::upgrade).unwrap();
        face.complete(command.opcode, ReturnCode::Success, &command.payload);
    }

    fn commanded(&self, _: CommandedWrite) {}
}

fn ring_and_wait(face: &Face) -> Duration {
    let began = Instant::now();
    face.mmio_write(DEVICE, CONTROL, &[1, 0, 0, 0]);
    loop {
        let seen = face.epoch();
        let mut control = [0];
        face.mmio_read(DEVICE, CONTROL, &mut control);
        if control[0] & 1 == 0 {
            return began.elapsed();
        }
        face.wait(seen, Duration::from_secs(10));
    }
}

#[test]
fn a_sink_may_answer_from_within_the_tell() {
    let sink = Arc::new(Prompt::default());
    let face = Arc::new(Face::new(ConfigSpace::new(0, 8), 8, sink.clone()).unwrap());
    sink.face.set(Arc::downgrade(&face)).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..500).for_each(|_| assert!(ring_and_wait(&face) < Duration::from_secs(5))));
        }
    });
    assert!(sink.commands.load(Ordering::Relaxed) >= 500);
}

#[test]
fn no_wake_up_is_lost() {
    let rig = Rig::new();
    std::thread::scope(|scope| {
        let device = scope.spawn(|| {
            let mut answered = 0;
            while answered < 1_000 {
                for _ in rig.told() {
                    rig.face.complete(Opcode(0), ReturnCode::Success, &[]);
                    answered += 1;
                }
                std::thread::yield_now();
            }
        });
        for _ in 0..1_000 {
            assert!(ring_and_wait(&rig.face) < Duration::from_secs(5));
        }
        device.join().unwrap();
    });
    let seen = rig.face.epoch();
    assert_eq!(rig.face.wait(seen, Duration::from_millis(1)), seen);
    rig.face.raise(3);
    assert_ne!(rig.face.wait(seen, Duration::from_secs(10)), seen);
}
