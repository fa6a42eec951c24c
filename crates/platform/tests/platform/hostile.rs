//! Accesses that no driver makes: of every width at every offset, in every block.

use platform::BarIndex;
use wire::{Opcode, ReturnCode};

use crate::rig::{PAYLOAD, PAYLOAD_LEN, Rig, Told};

const WIDTHS: [usize; 8] = [1, 2, 3, 4, 5, 7, 8, 64];

fn offsets(bar: BarIndex) -> Vec<u64> {
    let ends = [0xfff0u64, 0x1_0000, u64::from(u32::MAX), u64::MAX - 70].into_iter().flat_map(|at| at..at + 16);
    let inside = match bar {
        BarIndex::Component => 0x0ff0..0x1400,
        BarIndex::Device => 0..PAYLOAD + PAYLOAD_LEN as u64 + 16,
        BarIndex::Msix => 0..0x1010,
    };
    inside.chain(ends).chain(u64::MAX - 16..=u64::MAX).collect()
}

#[test]
fn no_access_panics_and_the_device_stays_whole() {
    let rig = Rig::new();
    for bar in BarIndex::ALL {
        for pattern in [0xff, 0x00, 0xa5] {
            for offset in offsets(bar) {
                for width in WIDTHS {
                    rig.face.mmio_write(bar, offset, &vec![pattern; width]);
                    let mut bytes = vec![0; width];
                    rig.face.mmio_read(bar, offset, &mut bytes);
                    answer(&rig);
                }
            }
        }
    }
    rig.ring(0x4801, &[1]);
    let told = rig.told();
    assert!(matches!(told.last(), Some(Told::Doorbell(image)) if image.payload == [1]));
}

fn answer(rig: &Rig) {
    for told in rig.told() {
        match told {
            Told::Doorbell(_) => rig.face.complete(Opcode(0), ReturnCode::Unsupported, &[]),
            Told::Write(_) => {}
        }
    }
}

#[test]
fn while_a_command_is_under_way_no_write_changes_the_mailbox() {
    let rig = Rig::new();
    rig.ring(0x4801, b"command");
    rig.told();
    let block = || {
        let mut bytes = vec![0; PAYLOAD as usize + PAYLOAD_LEN];
        rig.face.mmio_read(BarIndex::Device, 0, &mut bytes);
        bytes
    };
    let before = block();
    for offset in offsets(BarIndex::Device) {
        for width in WIDTHS {
            rig.face.mmio_write(BarIndex::Device, offset, &vec![0x5a; width]);
        }
    }
    assert!(block() == before);
    assert_eq!(rig.told(), []);
}

#[test]
fn configuration_space_takes_every_access() {
    let rig = Rig::new();
    for offset in (0..0x200).chain(0xff0..0x1010).chain([u16::MAX]) {
        for width in [0, 1, 2, 3, 4, 5, 7, 8, 255] {
            for value in [0, u32::MAX, 0xa5a5_a5a5] {
                rig.face.config_write(offset, width, value);
                rig.face.config_read(offset, width);
            }
        }
    }
    assert_eq!(rig.face.config_read(0, 4), 0x0d93_8086);
    for told in rig.told() {
        assert!(matches!(told, Told::Write(platform::CommandedWrite::Config { width: 1 | 2 | 4, .. })));
    }
}
