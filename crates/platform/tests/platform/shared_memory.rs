//! The device registers as memory that a guest reaches without an access here.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use device::config_space::ConfigSpace;
use memory::HostMemory;
use platform::{BarIndex, CommandSink, CommandedWrite, Face, MailboxCommandImage, MsixMessage};
use proptest::prelude::*;
use wire::{Opcode, ReturnCode};

use crate::rig::{COMMAND, CONTROL, PAYLOAD, Rig, STATUS, Told};

const DEVICE: BarIndex = BarIndex::Device;
const LOG2: u8 = 12;
const LEN: usize = 1 << LOG2;

fn all(memory: &HostMemory) -> Vec<u8> {
    let mut bytes = vec![0; memory.len_bytes() as usize];
    memory.read(0, &mut bytes).unwrap();
    bytes
}

fn registers(face: &Face) -> Vec<u8> {
    let mut bytes = vec![0x55; PAYLOAD as usize];
    face.mmio_read(DEVICE, 0, &mut bytes);
    bytes
}

#[derive(Clone, Debug)]
enum Act {
    Write(u64, Vec<u8>),
    Ring(u16, Vec<u8>),
    Complete(u16, Vec<u8>),
    EventStatus(u64),
    Restore(u32),
    Reset,
    Scribble(u64, u8),
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20);
    let near = prop_oneof![0xfd0..0x1010u64, 0x70..0xa0u64];
    prop_oneof![
        (near, prop::sample::select(vec![1usize, 2, 4, 8, 3]), any::<u64>()).prop_map(|(at, width, value)| Act::Write(
            at / width as u64 * width as u64,
            value.to_le_bytes()[..width].to_vec()
        )),
        (any::<u16>(), bytes()).prop_map(|(opcode, payload)| Act::Ring(opcode, payload)),
        (any::<u16>(), bytes()).prop_map(|(opcode, payload)| Act::Complete(opcode, payload)),
        any::<u64>().prop_map(Act::EventStatus),
        any::<u32>().prop_map(Act::Restore),
        Just(Act::Reset),
        (0..LEN as u64, any::<u8>()).prop_map(|(at, value)| Act::Scribble(at, value)),
    ]
}

proptest! {
    #[test]
    fn what_is_shown_is_what_an_access_gives(acts in prop::collection::vec(act(), 1..24)) {
        let rig = Rig::with_payload(7, LOG2);
        let (page, area) = (rig.face.register_page(), rig.face.payload_area());
        prop_assert_eq!(all(&page), registers(&rig.face), "at power-on");
        for act in acts {
            match act.clone() {
                Act::Write(at, bytes) => rig.face.mmio_write(DEVICE, at, &bytes),
                Act::Ring(opcode, payload) => rig.ring(opcode, &payload),
                Act::Complete(opcode, payload) => rig.face.complete(Opcode(opcode), ReturnCode::Success, &payload),
                Act::EventStatus(bits) => rig.face.set_event_status(bits),
                Act::Restore(control) => rig.face.restore_interrupts(&[], control),
                Act::Reset => rig.face.reset(ConfigSpace::new(7, LOG2)),
                Act::Scribble(at, value) => area.write_u8(at, value).unwrap(),
            }
            prop_assert_eq!(all(&page), registers(&rig.face), "after {:?}", act);
            let mut payload = vec![0; LEN];
            rig.face.mmio_read(DEVICE, PAYLOAD, &mut payload);
            prop_assert_eq!(all(&area), payload);
        }
    }
}

#[test]
fn a_command_is_what_was_there_at_the_doorbell_and_an_answer_its_own_bytes() {
    let rig = Rig::with_payload(7, LOG2);
    let area = rig.face.payload_area();
    area.write(0, b"as staged").unwrap();
    rig.write_u64(DEVICE, COMMAND, 9 << 16 | 0x4802);
    rig.write(DEVICE, CONTROL, 1);
    area.write(0, &[0xee; LEN]).unwrap();
    rig.face.mmio_write(DEVICE, PAYLOAD, b"refused");
    let told = rig.told();
    let image = MailboxCommandImage { opcode: Opcode(0x4802), declared_len_bytes: 9, payload: b"as staged".into() };
    assert_eq!(told, [Told::Doorbell(image)]);
    rig.face.complete(Opcode(0x4802), ReturnCode::Success, b"answer");
    let (bytes, expected) = (all(&area), [b"answer".to_vec(), vec![0xee; LEN - 6]].concat());
    assert_eq!(bytes, expected);
    area.write(0, &[1; LEN]).unwrap();
    rig.face.complete(Opcode(0x4802), ReturnCode::Success, b"there is no command");
    assert_eq!(all(&area), [1; LEN]);
    // The memory stays the same one: a slot shows it.
    rig.face.reset(ConfigSpace::new(7, LOG2));
    assert_eq!(all(&area), [0; LEN]);
    assert!(Arc::ptr_eq(&area, &rig.face.payload_area()));
}

/// A sink that looks at the page when it is told.
#[derive(Default)]
struct Witness {
    page: OnceLock<Arc<HostMemory>>,
    seen: Mutex<Vec<u32>>,
}

impl CommandSink for Witness {
    fn doorbell(&self, _: MailboxCommandImage) {
        self.seen.lock().unwrap().push(self.page.get().unwrap().read_u32(CONTROL).unwrap());
    }

    fn commanded(&self, _: CommandedWrite) {}
}

#[test]
fn the_doorbell_shows_before_anybody_is_told_and_the_answer_before_the_interrupt() {
    let witness = Arc::new(Witness::default());
    let face = Face::new(ConfigSpace::new(0, LOG2), LOG2, witness.clone()).unwrap();
    let page = face.register_page();
    witness.page.set(Arc::clone(&page)).unwrap();
    let (seen, shown) = (Arc::new(Mutex::new(Vec::new())), Arc::clone(&page));
    let line = Arc::clone(&seen);
    face.connect_interrupts(Arc::new(move |_: MsixMessage| {
        line.lock().unwrap().push((shown.read_u32(CONTROL).unwrap(), shown.read_u64(STATUS).unwrap() >> 32));
    }));
    face.config_write(0xc2, 2, 0x8000);
    face.mmio_write(BarIndex::Msix, 12 + 16 * u64::from(device::mailbox::MAILBOX_VECTOR), &[0; 4]);
    face.mmio_write(DEVICE, CONTROL, &[3, 0, 0, 0]);
    assert_eq!(page.read_u32(CONTROL), Ok(3));
    face.complete(Opcode(1), ReturnCode::InvalidInput, &[]);
    assert_eq!(*witness.seen.lock().unwrap(), [3]);
    assert_eq!(*seen.lock().unwrap(), [(2, ReturnCode::InvalidInput as u64)]);
}

/// Set when it goes, so that a thread that waits for it ends even where the test panics.
struct AtEnd<'a>(&'a AtomicBool);

impl Drop for AtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A guest that polls the page: when the doorbell is clear, length, opcode, status and payload are those of its command.
#[test]
fn a_guest_that_sees_the_doorbell_clear_sees_the_whole_answer() {
    let rig = Rig::with_payload(7, LOG2);
    let (page, area) = (rig.face.register_page(), rig.face.payload_area());
    let stop = AtomicBool::new(false);
    let len_of = |opcode: u16| LEN - usize::from(opcode % 64);
    thread::scope(|scope| {
        let end = AtEnd(&stop);
        let device = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for told in rig.told() {
                    let Told::Doorbell(image) = told else { continue };
                    let len = len_of(image.opcode.0);
                    rig.face.complete(image.opcode, ReturnCode::Success, &vec![image.opcode.0 as u8; len]);
                }
                thread::yield_now();
            }
        });
        for opcode in 0..3_000u16 {
            rig.write_u64(DEVICE, COMMAND, u64::from(opcode));
            rig.write(DEVICE, CONTROL, 1);
            while page.read_u64(CONTROL - 4).unwrap() >> 32 & 1 != 0 {
                std::hint::spin_loop();
            }
            std::sync::atomic::fence(Ordering::Acquire);
            let len = len_of(opcode);
            assert_eq!(page.read_u64(COMMAND), Ok((len as u64) << 16 | u64::from(opcode)));
            let mut payload = vec![0; len];
            area.read(0, &mut payload).unwrap();
            assert!(payload.iter().all(|byte| *byte == opcode as u8), "{opcode}");
        }
        drop(end);
        assert!(device.join().is_ok());
    });
}
