//! The platform: enumeration, and accesses that are routed and split.

use std::sync::Arc;
use std::time::Duration;

use device::config::DeviceIndex;
use device::decode::{DecodedRange, Granularity, Ways};
use memory::{HostMemory, Piece, Window};
use platform::{BarIndex, MMIO_BASE, MsixMessage, Platform, PlatformParts, PlugError, ROOT_PORT_BUS, Settled};
use wire::{Dpa, Hpa};

use crate::rig::{Rig, Told};

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) fn memory(size_bytes: u64) -> Arc<HostMemory> {
    Arc::new(HostMemory::anonymous(size_bytes).unwrap())
}

/// A platform with a root port for each rig, which is in its slot.
pub(crate) fn platform(ram_bytes: u64, rigs: &[Rig]) -> Platform {
    let ram = memory(ram_bytes);
    let base = platform::AddressMap::new(ram_bytes).fixed_window_base().unwrap();
    let window = Arc::new(Window::new(base, 4 * GIB));
    let platform = Platform::new(PlatformParts { ram, window, root_ports: rigs.len() as u8 });
    for (port, rig) in (0..).zip(rigs.iter().take(32)) {
        platform.plug(port, Arc::clone(&rig.face)).unwrap();
    }
    platform
}

/// Numbers the bus behind a port, opens its memory window of 1 MiB and puts the device's BARs there.
pub(crate) fn enumerate(platform: &Platform, port: u8) -> Hpa {
    let bus = ROOT_PORT_BUS + 1 + port;
    let base = MMIO_BASE.0 as u32 + (u32::from(port) << 20);
    let window = base >> 16;
    platform.config_write(ROOT_PORT_BUS, port, 0, 0x18, 4, u32::from_le_bytes([ROOT_PORT_BUS, bus, bus, 0]));
    platform.config_write(ROOT_PORT_BUS, port, 0, 0x20, 4, window << 16 | window);
    platform.config_write(ROOT_PORT_BUS, port, 0, 0x04, 2, 6);
    for (bar, at) in [(0, base), (2, base + 0x1_0000), (4, base + 0x2_0000)] {
        platform.config_write(bus, 0, 0, 0x10 + 4 * bar, 4, at);
        platform.config_write(bus, 0, 0, 0x14 + 4 * bar, 4, 0);
    }
    platform.config_write(bus, 0, 0, 0x04, 2, 6);
    Hpa(u64::from(base))
}

pub(crate) fn read(platform: &Platform, hpa: u64) -> u64 {
    let mut bytes = [0x55; 8];
    platform.read(Hpa(hpa), &mut bytes);
    u64::from_le_bytes(bytes)
}

#[test]
fn functions_are_found_where_they_are() {
    let rigs = [Rig::with_serial(1), Rig::with_serial(2)];
    let platform = platform(GIB, &rigs);
    assert_eq!(platform.config_read(0, 0, 0, 0x0a, 2), 0x0600);
    assert_eq!(platform.config_read(ROOT_PORT_BUS, 0, 0, 0x0a, 2), 0x0604);
    assert_eq!(platform.config_read(ROOT_PORT_BUS, 1, 0, 0x0a, 2), 0x0604);
    for (bus, device, function) in [(0, 1, 0), (0, 0, 1), (ROOT_PORT_BUS, 2, 0), (ROOT_PORT_BUS, 0, 1), (0x0d, 0, 0)] {
        assert_eq!(platform.config_read(bus, device, function, 0, 4), u32::MAX);
        assert_eq!(platform.config_read(bus, device, function, 0, 2), 0xffff);
        platform.config_write(bus, device, function, 4, 2, 6);
    }
    for port in 0..2 {
        enumerate(&platform, port);
    }
    for (bus, serial) in [(0x0d, 1), (0x0e, 2)] {
        assert_eq!(platform.config_read(bus, 0, 0, 0, 4), 0x0d93_8086);
        assert_eq!(platform.config_read(bus, 0, 0, 0x104, 4), serial);
        assert_eq!(platform.config_read(bus, 1, 0, 0, 4), u32::MAX);
    }
    platform.reset();
    assert_eq!(platform.config_read(0x0d, 0, 0, 0, 4), u32::MAX);
}

#[test]
fn bars_answer_through_their_ports() {
    let rigs = [Rig::new(), Rig::new()];
    let platform = platform(GIB, &rigs);
    let first = enumerate(&platform, 0);
    let second = enumerate(&platform, 1);
    assert_eq!(rigs[1].face.bar(BarIndex::Device), Some((Hpa(second.0 + 0x1_0000), 0x1_0000)));
    assert_eq!(read(&platform, first.0 + 0x1_0088), 0x14);
    assert_eq!(read(&platform, second.0 + 0x1000) as u32, 0x0211_0001);
    rigs.iter().for_each(|rig| drop(rig.told()));
    platform.write(Hpa(second.0 + 0x1_0fe4), &[1, 0, 0, 0]);
    assert!(rigs[0].told().is_empty());
    assert!(matches!(rigs[1].told()[..], [Told::Doorbell(_)]));
    platform.config_write(ROOT_PORT_BUS, 1, 0, 0x20, 4, 0x0000_fff0);
    assert_eq!(read(&platform, second.0 + 0x1_0088), u64::MAX);
    platform.config_write(0x0d, 0, 0, 0x04, 2, 0);
    assert_eq!(read(&platform, first.0 + 0x1_0088), u64::MAX);
}

#[test]
fn an_access_that_straddles_claims_is_split() {
    let rigs = [Rig::new()];
    let platform = platform(3 * GIB, &rigs);
    let base = enumerate(&platform, 0).0;
    // From behind one BAR into nothing, and from one BAR into the next.
    assert_eq!(read(&platform, base + 0x2_0ffc), 0xffff_ffff_0000_0000);
    platform.write(Hpa(base + 0x1_fffc), &[0xff; 8]);
    assert_eq!(read(&platform, base + 0x1_fffc), 0xffff_fffc_0000_0000);
    assert_eq!(read(&platform, base - 4), 0xffff_ffff);
    // Out of low RAM, and into high RAM, which goes on where low RAM ends.
    platform.write(Hpa(2 * GIB - 2), &[1, 2, 3, 4]);
    assert_eq!(read(&platform, 2 * GIB - 2), 0xffff_ffff_ffff_0201);
    platform.write(Hpa(4 * GIB - 2), &[5, 6, 7, 8]);
    assert_eq!(read(&platform, 4 * GIB - 2), 0x0807_ffff);
    assert_eq!(platform.ram().read_u16(2 * GIB - 2), Ok(0x0201));
    assert_eq!(platform.ram().read_u16(2 * GIB), Ok(0x0807));
    // The host registers follow RAM.
    assert_eq!(read(&platform, 5 * GIB - 4), 0);
    assert_eq!(read(&platform, 5 * GIB + 0xfffc), 0xffff_ffff_0000_0000);
    // At the end of the address space.
    for hpa in [u64::MAX, u64::MAX - 3] {
        assert_eq!(read(&platform, hpa), u64::MAX);
        platform.write(Hpa(hpa), &[0; 8]);
    }
    let mut all = vec![0; 6 << 20];
    platform.read(Hpa(base - (1 << 20)), &mut all);
}

#[test]
fn the_window_shows_extents() {
    let rigs = [Rig::new()];
    let platform = platform(GIB, &rigs);
    let window = platform.window();
    assert_eq!(window.base(), Hpa(0x1_1000_0000));
    let decoded = DecodedRange {
        hpa: window.base(),
        size_bytes: GIB,
        dpa: Dpa(0),
        ways: Ways::ONE,
        granularity: Granularity::MIN,
    };
    window.set_decoders(DeviceIndex(0), vec![decoded]).unwrap();
    let extent = memory(2 << 20);
    let piece = Piece { dpa: Dpa(0), len_bytes: 2 << 20, memory: Arc::clone(&extent), offset_bytes: 0 };
    window.map(DeviceIndex(0), piece).unwrap();
    platform.write(Hpa(window.base().0 - 4), &[9; 8]);
    assert_eq!(extent.read_u64(0), Ok(0x0909_0909));
    assert_eq!(read(&platform, window.base().0 - 4), 0x0909_0909_ffff_ffff);
    assert_eq!(read(&platform, window.base().0 + 4 * GIB - 4), u64::MAX);
}

#[test]
fn every_device_wakes_who_waits_on_the_platform() {
    let rigs = [Rig::new(), Rig::new()];
    let platform = platform(GIB, &rigs);
    for rig in &rigs {
        let seen = platform.epoch();
        rig.face.raise(0);
        assert_ne!(platform.wait(seen, Duration::from_secs(10)), seen);
    }
}

#[test]
fn devices_come_and_go() {
    let rigs = [Rig::with_serial(1), Rig::with_serial(2)];
    let platform = platform(GIB, &rigs[..1]);
    let face = || Arc::clone(&rigs[1].face);
    assert_eq!(platform.plug(0, face()), Err(PlugError::Occupied { port: 0 }));
    assert_eq!(platform.plug(1, face()), Err(PlugError::NoPort { port: 1, root_ports: 1 }));
    let base = enumerate(&platform, 0);
    assert_eq!(read(&platform, base.0 + 0x1_0088), 0x14);
    assert_eq!(platform.config_read(ROOT_PORT_BUS, 0, 0, 0x5a, 2) & 0x40, 0x40);
    let gone = platform.unplug(0).expect("a device");
    assert!(Arc::ptr_eq(&gone, &rigs[0].face) && platform.unplug(0).is_none() && platform.unplug(9).is_none());
    assert!(platform.faces().is_empty());
    assert_eq!(platform.config_read(ROOT_PORT_BUS, 0, 0, 0x5a, 2) & 0x40, 0);
    assert_eq!(platform.config_read(0x0d, 0, 0, 0, 4), u32::MAX);
    assert_eq!(read(&platform, base.0 + 0x1_0088), u64::MAX);
    platform.plug(0, face()).unwrap();
    assert_eq!(platform.faces().len(), 1);
    // The port is programmed, the new device is not.
    assert_eq!(read(&platform, base.0 + 0x1_0088), u64::MAX);
    assert_eq!(platform.config_read(0x0d, 0, 0, 0x104, 4), 2);
    enumerate(&platform, 0);
    assert_eq!(read(&platform, base.0 + 0x1_0088), 0x14);
}

#[test]
fn accesses_and_plugging_do_not_wait_for_each_other() {
    let rigs = [Rig::new()];
    let platform = platform(GIB, &rigs);
    let base = enumerate(&platform, 0);
    std::thread::scope(|scope| {
        let guest = scope.spawn(|| {
            for _ in 0..20_000 {
                let value = read(&platform, base.0 + 0x1_0088);
                assert!(value == 0x14 || value == u64::MAX, "{value:#x}");
                platform.write(Hpa(base.0 + 0x1_1000), &[1; 64]);
            }
        });
        while !guest.is_finished() {
            let face = platform.unplug(0).expect("a device");
            platform.plug(0, face).unwrap();
        }
    });
    assert_eq!(read(&platform, base.0 + 0x1_0088), 0x14);
}

#[test]
fn configuration_space_is_reached_through_ports_and_by_memory() {
    let rigs = [Rig::with_serial(7)];
    let platform = platform(GIB, &rigs);
    let ecam = 0xb000_0000;
    assert_eq!(read(&platform, ecam), u64::MAX, "nothing there before it is on");
    platform.port_write(0xcf8, 4, 0x8000_0060);
    assert_eq!((platform.port_read(0xcf8, 4), platform.port_read(0xcfc, 4)), (0x8000_0060, 0xb000_0000));
    assert_eq!((platform.port_read(0xcff, 1), platform.port_read(0xcfe, 2)), (0xb0, 0xb000));
    platform.port_write(0xcfc, 1, 1);
    assert_eq!(read(&platform, ecam), 0x0000_0000_29c0_8086);
    platform.port_write(0xcf8, 2, 0);
    platform.port_write(0xcf8, 4, 0x60);
    assert_eq!(platform.port_read(0xcfc, 4), u32::MAX, "not enabled");
    for (port, width, ones) in [(0x80, 1, 0xff), (0xcf8, 1, 0xff), (0xcfa, 2, 0xffff), (0xffff, 4, u32::MAX)] {
        platform.port_write(port, width, 0);
        assert_eq!(platform.port_read(port, width), ones);
    }
    let port = ecam + (u64::from(ROOT_PORT_BUS) << 20);
    platform.write(Hpa(port + 0x18), &[ROOT_PORT_BUS, 0x0d, 0x0d]);
    assert_eq!(platform.config_read(0x0d, 0, 0, 0x104, 4), 7);
    let device = ecam + (0x0d << 20);
    assert_eq!(read(&platform, device + 0x104), 7);
    assert_eq!(read(&platform, device + 0xffc) >> 32, 0xffff_ffff, "no further functions");
    let mut odd = [0; 5];
    platform.read(Hpa(device + 1), &mut odd);
    assert_eq!(odd, [0x80, 0x93, 0x0d, 0, 0]);
    let mut all = vec![0; 2 << 20];
    platform.read(Hpa(port - (1 << 20) + 7), &mut all);
    platform.write(Hpa(device - 2), &[0xff; 0x1004]);
    platform.reset();
    assert_eq!(read(&platform, ecam), u64::MAX);
}

/// Where the host registers are with 1 GiB of RAM, and decoder 0 in them.
const HOST_DECODER: u64 = 0x1_0000_1120;

/// Programs decoder 0 of the host bridge and commits it; its control register.
fn commit_host_decoder(platform: &Platform, base: u64, size_bytes: u64, targets: u64, control: u32) -> u32 {
    for (offset, value) in [(0x10, 0), (0, base), (8, size_bytes), (0x14, targets)] {
        platform.write(Hpa(HOST_DECODER + offset), &(value as u32).to_le_bytes());
        platform.write(Hpa(HOST_DECODER + offset + 4), &((value >> 32) as u32).to_le_bytes());
    }
    platform.write(Hpa(HOST_DECODER + 0x10), &(control | 0x200).to_le_bytes());
    read(platform, HOST_DECODER + 0x10) as u32
}

#[test]
fn the_host_bridge_chooses_the_device() {
    let rigs = [Rig::new(), Rig::new()];
    let platform = platform(GIB, &rigs);
    let window = platform.window();
    let extents = [memory(GIB / 4), memory(GIB / 4)];
    for (device, extent) in [DeviceIndex(0), DeviceIndex(1)].into_iter().zip(&extents) {
        let ways = Ways::from_code(1).unwrap();
        let decoded =
            DecodedRange { hpa: window.base(), size_bytes: GIB / 2, dpa: Dpa(0), ways, granularity: Granularity::MIN };
        window.set_decoders(device, vec![decoded]).unwrap();
        let piece = Piece { dpa: Dpa(0), len_bytes: GIB / 4, memory: Arc::clone(extent), offset_bytes: 0 };
        window.map(device, piece).unwrap();
    }
    assert_eq!(commit_host_decoder(&platform, window.base().0, GIB / 2, 0x0001, 0x1010), 0x1610);
    let bytes: Vec<u8> = (0..1024u32).map(|at| (at / 256) as u8).collect();
    platform.write(window.base(), &bytes);
    let at = |extent: usize, offset| extents[extent].read_u8(offset).unwrap();
    assert_eq!([at(1, 0), at(0, 0), at(1, 256), at(0, 256)], [0, 1, 2, 3]);
    let mut back = vec![0; bytes.len()];
    platform.read(window.base(), &mut back);
    assert_eq!(back, bytes);
    platform.write(Hpa(HOST_DECODER + 0x10), &[0; 4]);
    assert_eq!(read(&platform, window.base().0 + 0x100) as u8, 1, "without a route the lower device answers");
    commit_host_decoder(&platform, window.base().0, GIB / 2, 0x0101, 0x10);
    assert_eq!(read(&platform, window.base().0 + 0x100) as u8, 0);
    platform.reset();
    assert_eq!(read(&platform, HOST_DECODER + 0x10), 0);
    assert_eq!(read(&platform, window.base().0 + 0x100) as u8, 1);
    assert_eq!(read(&platform, 0x1_0001_0000), u64::MAX, "behind the one host bridge");
}

#[test]
fn a_root_port_has_component_registers_of_its_own() {
    let rigs = [Rig::new()];
    let platform = platform(GIB, &rigs);
    enumerate(&platform, 0);
    platform.config_write(ROOT_PORT_BUS, 0, 0, 0x10, 4, u32::MAX);
    assert_eq!(platform.config_read(ROOT_PORT_BUS, 0, 0, 0x10, 4), 0xffff_0004);
    platform.config_write(ROOT_PORT_BUS, 0, 0, 0x10, 4, 0xfe00_0000);
    platform.write(Hpa(0xfe00_1000), &[0; 8]);
    assert_eq!(read(&platform, 0xfe00_1000), 0x0802_0002_0111_0001);
    assert_eq!(read(&platform, 0xfe00_fffc), 0xffff_ffff_0000_0000);
}

#[test]
fn bulk_writes_reach_registers_one_by_one() {
    let rigs = [Rig::new()];
    let platform = platform(GIB, &rigs);
    let mailbox = enumerate(&platform, 0).0 + 0x1_0fe0;
    let mut image = vec![0; 0x20];
    image[8..11].copy_from_slice(&[0x00, 0x40, 2]);
    image.extend((0..64).map(|byte| byte + 1));
    platform.write(Hpa(mailbox), &image);
    assert_eq!(read(&platform, mailbox + 8), 0, "an access that no register takes");
    platform.write_bulk(Hpa(mailbox), &image);
    assert_eq!(read(&platform, mailbox + 8), 0x0002_4000);
    assert_eq!(read(&platform, mailbox + 0x20 + 56) >> 56, 64);
    platform.write_bulk(Hpa(mailbox - 3), &[0; 1000]);
    assert_eq!(read(&platform, mailbox + 0x20), 0);
}

#[test]
fn messages_to_ram_land_there() {
    let platform = platform(GIB, &[]);
    let message = |address| MsixMessage { vector: 0, address, data: 0x1234_5678 };
    platform.deliver(message(0x1000));
    assert_eq!(platform.ram().read_u64(0x1000), Ok(0x1234_5678));
    for address in [0xfee0_0000, GIB, u64::MAX, GIB - 1] {
        platform.deliver(message(address));
    }
}

#[test]
fn it_settles_when_every_device_has_answered() {
    let rigs = [Rig::new(), Rig::new()];
    let platform = platform(GIB, &rigs);
    assert_eq!(platform.settle(Duration::ZERO), Settled::Yes);
    rigs[1].ring(0x4000, &[]);
    assert_eq!(platform.settle(Duration::from_millis(1)), Settled::TimedOut);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(5));
            rigs[1].face.complete(wire::Opcode(0x4000), wire::ReturnCode::Success, &[]);
        });
        assert_eq!(platform.settle(Duration::from_secs(10)), Settled::Yes);
    });
    let (decoder, statuses) =
        (0x1110 + 0x20, [platform::DecoderStatus::Committed, platform::DecoderStatus::Uncommitted]);
    for (control, status) in [0x200, 0].into_iter().zip(statuses) {
        rigs[0].write(BarIndex::Component, decoder, control);
        assert_eq!(platform.settle(Duration::ZERO), Settled::TimedOut);
        rigs[0].face.set_decoder(0, status);
        assert_eq!(platform.settle(Duration::ZERO), Settled::Yes);
    }
    rigs[0].ring(0x4000, &[]);
    platform.unplug(0);
    assert_eq!(platform.settle(Duration::ZERO), Settled::Yes);
}

#[test]
fn more_devices_than_root_ports_do_no_harm() {
    let rigs: Vec<_> = (0..40).map(Rig::with_serial).collect();
    let platform = platform(GIB, &rigs);
    assert_eq!(platform.config_read(ROOT_PORT_BUS, 31, 0, 0x0a, 2), 0x0604);
    assert_eq!(platform.config_read(ROOT_PORT_BUS, 32, 0, 0x0a, 2), 0xffff);
}
