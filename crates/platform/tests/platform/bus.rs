//! The platform: enumeration, and accesses that are routed and split.

use std::sync::Arc;
use std::time::Duration;

use device::config::DeviceIndex;
use device::decode::{DecodedRange, Granularity, Ways};
use memory::{HostMemory, HostMemorySpec, MemoryKind, Piece, Prealloc, Sharing, Window};
use platform::{BarIndex, MMIO_BASE, Platform, ROOT_PORT_BUS};
use wire::{Dpa, Hpa};

use crate::rig::{Rig, Told};

const GIB: u64 = 1 << 30;

fn memory(size_bytes: u64) -> Arc<HostMemory> {
    let spec =
        HostMemorySpec { kind: MemoryKind::Ram, size_bytes, share: Sharing::Private, prealloc: Prealloc::OnTouch };
    Arc::new(HostMemory::create(&spec).unwrap())
}

fn platform(ram_bytes: u64, rigs: &[Rig]) -> Platform {
    let ram = memory(ram_bytes);
    let base = platform::AddressMap::new(ram_bytes).fixed_window_base().unwrap();
    let window = Arc::new(Window::new(base, 4 * GIB));
    Platform::new(ram, window, rigs.iter().map(|rig| Arc::clone(&rig.face)).collect())
}

/// Numbers the bus behind a port, opens its memory window of 1 MiB and puts the device's BARs there.
fn enumerate(platform: &Platform, port: u8) -> Hpa {
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

fn read(platform: &Platform, hpa: u64) -> u64 {
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
    assert_eq!(read(&platform, 5 * GIB - 4), 0xffff_ffff_0000_0000);
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
    window.set_decoders(DeviceIndex(0), vec![decoded]);
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
fn more_devices_than_root_ports_do_no_harm() {
    let rigs: Vec<_> = (0..40).map(Rig::with_serial).collect();
    let platform = platform(GIB, &rigs);
    assert_eq!(platform.config_read(ROOT_PORT_BUS, 31, 0, 0x0a, 2), 0x0604);
    assert_eq!(platform.config_read(ROOT_PORT_BUS, 32, 0, 0x0a, 2), 0xffff);
}
