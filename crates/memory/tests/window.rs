//! What a guest sees through a window while pieces and decoders come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use device::config::DeviceIndex;
use device::decode::{DecodedRange, Granularity, Ways};
use memory::{HostMemory, OutOfRange, Piece, Route, Window, WindowCounters, WindowError};
use proptest::prelude::*;
use wire::{Dpa, Hpa};

const BASE: Hpa = Hpa(0x1_1000_0000);
const MIB: u64 = 1 << 20;
const D0: DeviceIndex = DeviceIndex(0);
const D1: DeviceIndex = DeviceIndex(1);

fn memory(size_bytes: u64) -> Arc<HostMemory> {
    Arc::new(HostMemory::anonymous(size_bytes).unwrap())
}

fn decoder(offset: u64, size_bytes: u64, dpa: u64) -> DecodedRange {
    let hpa = Hpa(BASE.0 + offset);
    DecodedRange { hpa, size_bytes, dpa: Dpa(dpa), ways: Ways::ONE, granularity: Granularity::MIN }
}

fn piece(dpa: u64, len_bytes: u64, memory: &Arc<HostMemory>, offset_bytes: u64) -> Piece {
    Piece { dpa: Dpa(dpa), len_bytes, memory: Arc::clone(memory), offset_bytes }
}

fn read<const N: usize>(window: &Window, offset: u64) -> [u8; N] {
    let mut bytes = [0x55; N];
    window.read(Hpa(BASE.0 + offset), &mut bytes);
    bytes
}

/// A window of 1 GiB whose first 512 MiB decode to DPA 0 of device 0.
fn window() -> Window {
    let window = Window::new(BASE, 1024 * MIB);
    window.set_decoders(D0, vec![decoder(0, 512 * MIB, 0)]).unwrap();
    window
}

#[test]
fn where_nothing_is_reads_are_ones_and_writes_vanish() {
    let window = window();
    window.write(BASE, &[0; 64]);
    assert_eq!(read(&window, 0), [0xff; 64]);
    assert_eq!(read(&window, 600 * MIB), [0xff; 8]);
    assert_eq!(window.counters(), WindowCounters { hits: 0, misses: 3 });
    assert!(window.mappings().is_empty());
}

#[test]
fn the_second_extent_of_a_backend_shows_its_own_bytes() {
    let window = window();
    let memory = memory(4 * MIB);
    window.map(D0, piece(0, 2 * MIB, &memory, 0)).unwrap();
    window.map(D0, piece(8 * MIB, 2 * MIB, &memory, 2 * MIB)).unwrap();
    window.write(Hpa(BASE.0 + 8 * MIB), b"second");
    window.write(BASE, b"first!");
    let mut bytes = [0; 6];
    memory.read(2 * MIB, &mut bytes).unwrap();
    assert_eq!(&bytes, b"second");
    assert_eq!(&read(&window, 8 * MIB), b"second");
    assert_eq!(&read(&window, 0), b"first!");
    let mappings: Vec<_> = window.mappings().iter().map(|m| (m.hpa.0 - BASE.0, m.len_bytes, m.offset_bytes)).collect();
    assert_eq!(mappings, [(0, 2 * MIB, 0), (8 * MIB, 2 * MIB, 2 * MIB)]);
}

#[test]
fn a_partial_unmap_keeps_the_neighbours() {
    let window = window();
    let memory = memory(6 * MIB);
    memory.write(2 * MIB - 1, &[1, 2]).unwrap();
    memory.write(4 * MIB - 1, &[3, 4]).unwrap();
    window.map(D0, piece(16 * MIB, 6 * MIB, &memory, 0)).unwrap();
    let removed = window.unmap(D0, Dpa(18 * MIB), 2 * MIB).unwrap();
    assert_eq!((removed.len(), removed[0].dpa, removed[0].len_bytes), (1, Dpa(18 * MIB), 2 * MIB));
    assert_eq!(removed[0].offset_bytes, 2 * MIB);
    drop(removed);
    assert_eq!(read(&window, 18 * MIB - 1), [1, 0xff]);
    assert_eq!(read(&window, 20 * MIB - 1), [0xff, 4]);
    assert_eq!(window.mappings().len(), 2);
    assert_eq!(window.mappings()[1].offset_bytes, 4 * MIB);
    let error = window.unmap(D0, Dpa(16 * MIB), 6 * MIB).map(drop);
    assert_eq!(error, Err(WindowError::NotMapped { device: D0, dpa: Dpa(18 * MIB) }));
    assert_eq!(window.mappings().len(), 2);
    window.map(D0, piece(18 * MIB, 2 * MIB, &memory, 2 * MIB)).unwrap();
    assert_eq!(read(&window, 18 * MIB - 1), [1, 2]);
    window.unmap(D0, Dpa(16 * MIB), 6 * MIB).unwrap();
    assert!(window.mappings().is_empty());
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn what_overlaps_is_refused_and_changes_nothing() {
    let window = window();
    let memory = memory(4 * MIB);
    window.map(D0, piece(2 * MIB, 2 * MIB, &memory, 0)).unwrap();
    for (dpa, len_bytes) in [(0, 3 * MIB), (3 * MIB, MIB), (2 * MIB, 2 * MIB), (4 * MIB - 1, 2), (0, 4 * MIB)] {
        let error = window.map(D0, piece(dpa, len_bytes, &memory, 0)).unwrap_err();
        assert!(matches!(error, WindowError::Overlap { mapped: Dpa(0x20_0000), .. }), "{error}");
    }
    let outside = window.map(D0, piece(8 * MIB, 4 * MIB, &memory, 1)).unwrap_err();
    assert!(matches!(outside, WindowError::OutsideMemory { .. }));
    for (dpa, len_bytes) in [(0, 0), (u64::MAX, 1), (u64::MAX - 10, 4096)] {
        assert!(matches!(window.map(D0, piece(dpa, len_bytes, &memory, 0)), Err(WindowError::NoRange { .. })));
        assert!(window.unmap(D0, Dpa(dpa), len_bytes).is_err());
    }
    assert_eq!(window.mappings().len(), 1);
    assert_eq!(Arc::strong_count(&memory), 2);
}

#[test]
fn two_decoders_with_a_skip_show_two_parts() {
    let window = window();
    let memory = memory(4 * MIB);
    window.set_decoders(D0, vec![decoder(0, 256 * MIB, 0), decoder(256 * MIB, 256 * MIB, 1024 * MIB)]).unwrap();
    window.map(D0, piece(255 * MIB, 2 * MIB, &memory, 0)).unwrap();
    window.map(D0, piece(1024 * MIB, 2 * MIB, &memory, 2 * MIB)).unwrap();
    memory.write(MIB - 2, &[1, 2, 3, 4]).unwrap();
    memory.write(2 * MIB, &[5, 6]).unwrap();
    assert_eq!(read(&window, 256 * MIB - 2), [1, 2, 5, 6]);
    let lens: Vec<_> = window.mappings().iter().map(|m| (m.dpa.0 / MIB, m.len_bytes / MIB)).collect();
    assert_eq!(lens, [(255, 1), (1024, 2)]);
}

#[test]
fn devices_have_address_spaces_of_their_own() {
    let window = window();
    let (first, second) = (memory(2 * MIB), memory(2 * MIB));
    window.set_decoders(D1, vec![decoder(512 * MIB, 256 * MIB, 0)]).unwrap();
    window.map(D0, piece(0, 2 * MIB, &first, 0)).unwrap();
    window.map(D1, piece(0, 2 * MIB, &second, 0)).unwrap();
    window.write(BASE, b"one");
    window.write(Hpa(BASE.0 + 512 * MIB), b"two");
    window.unmap(D0, Dpa(0), 2 * MIB).unwrap();
    assert_eq!(read(&window, 0), [0xff; 3]);
    assert_eq!(&read(&window, 512 * MIB), b"two");
}

#[test]
fn an_address_that_two_devices_decode_is_the_lower_ones() {
    let window = window();
    let (first, second) = (memory(2 * MIB), memory(512 * MIB));
    first.write_u8(0, 1).unwrap();
    second.write_u8(0, 2).unwrap();
    second.write_u8(512 * MIB - 1, 3).unwrap();
    window.set_decoders(D1, vec![decoder(0, 513 * MIB, 0)]).unwrap();
    window.map(D0, piece(0, 2 * MIB, &first, 0)).unwrap();
    window.map(D1, piece(0, 512 * MIB, &second, 0)).unwrap();
    assert_eq!(read(&window, 0), [1]);
    assert_eq!(read(&window, 512 * MIB - 1), [0xff, 0xff]);
    assert!(window.mappings().is_empty());
    window.set_decoders(D0, Vec::new()).unwrap();
    assert_eq!(read(&window, 0), [2]);
    assert_eq!(read(&window, 512 * MIB - 1), [3, 0xff]);
    assert_eq!(window.mappings().len(), 1);
}

#[test]
fn an_interleaved_decoder_reaches_every_byte() {
    let window = Window::new(BASE, 1024 * MIB);
    let memory = memory(MIB);
    for code in (0..16).filter(|code| Ways::from_code(*code).is_some()) {
        let ways = Ways::from_code(code).unwrap();
        let size_bytes = MIB * u64::from(ways.count());
        window.set_decoders(D0, vec![DecodedRange { ways, size_bytes, ..decoder(0, 0, 0) }]).unwrap();
        window.map(D0, piece(0, MIB, &memory, 0)).unwrap();
        let pattern: Vec<u8> = (0..size_bytes).map(|at| (at / 256 / u64::from(ways.count())) as u8).collect();
        window.write(BASE, &pattern);
        for at in [0, 255, 256, 4096, MIB - 1] {
            assert_eq!(memory.read_u8(at), Ok((at / 256) as u8));
        }
        let mut back = vec![0; pattern.len()];
        window.read(BASE, &mut back);
        assert!(back == pattern, "{} ways", ways.count());
        assert_eq!(window.mappings().len(), usize::from(ways.count() == 1));
        window.unmap(D0, Dpa(0), MIB).unwrap();
    }
}

fn route(offset: u64, size_bytes: u64, targets: &[DeviceIndex]) -> Route {
    Route::new(Hpa(BASE.0 + offset), size_bytes, Granularity::MIN, targets.to_vec()).unwrap()
}

#[test]
fn a_route_chooses_who_answers() {
    let window = Window::new(BASE, 1024 * MIB);
    let memories = [memory(256 * MIB), memory(256 * MIB)];
    for (device, memory) in [D0, D1].into_iter().zip(&memories) {
        memory.write_u8(0, 10 + device.0).unwrap();
        window.set_decoders(device, vec![decoder(0, 256 * MIB, 0)]).unwrap();
        window.map(device, piece(0, 256 * MIB, memory, 0)).unwrap();
    }
    assert_eq!(read(&window, 0), [10]);
    assert!(window.mappings().is_empty());
    window.set_routes(vec![route(0, 256 * MIB, &[D1])]).unwrap();
    assert_eq!(read(&window, 0), [11]);
    window.set_routes(vec![route(0, 256 * MIB, &[DeviceIndex(9)])]).unwrap();
    assert_eq!(read(&window, 0), [0xff]);
    // Before and behind a route everything is as without one.
    memories[0].write(MIB - 1, &[1, 2]).unwrap();
    memories[1].write(MIB - 1, &[3, 4]).unwrap();
    window.set_routes(vec![route(MIB, MIB, &[D1])]).unwrap();
    assert_eq!(read(&window, MIB - 1), [1, 4]);
    // A mapping is what one device shows alone.
    window.set_decoders(D0, Vec::new()).unwrap();
    assert!(window.mappings().is_empty(), "the decoder reaches beyond the route");
    window.set_routes(vec![route(0, 512 * MIB, &[D1])]).unwrap();
    assert_eq!(window.mappings().len(), 1);
    window.set_routes(vec![route(0, 512 * MIB, &[D0])]).unwrap();
    assert!(window.mappings().is_empty());
    assert_eq!(Route::new(BASE, 0, Granularity::MIN, vec![D0]), None);
    assert_eq!(Route::new(Hpa(u64::MAX), 2, Granularity::MIN, vec![D0]), None);
    assert_eq!(Route::new(BASE, 2, Granularity::MIN, Vec::new()), None);
}

proptest! {
    /// Bytes of an interleave set against its definition: granule n is on device n modulo the ways.
    #[test]
    fn an_interleave_set_is_spread_granule_by_granule(
        code in prop::sample::select(vec![0u8, 1, 2, 3, 8, 9]),
        granularity in 0u8..7,
        permutation in Just((0..8).collect::<Vec<u8>>()).prop_shuffle(),
        accesses in prop::collection::vec((0u64..MIB, 1usize..40_000, any::<u8>()), 1..12),
    ) {
        let ways = Ways::from_code(code).unwrap();
        let granularity = Granularity::from_code(granularity).unwrap();
        let targets: Vec<_> = permutation.into_iter().take(usize::from(ways.count())).map(DeviceIndex).collect();
        let (window, size_bytes) = (Window::new(BASE, 1024 * MIB), MIB * u64::from(ways.count()));
        let memories: Vec<_> = targets.iter().map(|_| memory(MIB)).collect();
        for (device, memory) in targets.iter().zip(&memories) {
            window.set_decoders(*device, vec![DecodedRange { ways, granularity, size_bytes, ..decoder(0, 0, 0) }]).unwrap();
            window.map(*device, piece(0, MIB, memory, 0)).unwrap();
        }
        window.set_routes(vec![Route::new(BASE, size_bytes, granularity, targets).unwrap()]).unwrap();
        let mut model = vec![0u8; size_bytes as usize];
        for (at, len, first) in accesses {
            let at = (at * u64::from(ways.count())) as usize;
            let bytes: Vec<u8> = (0..len.min(model.len() - at)).map(|byte| first.wrapping_add(byte as u8)).collect();
            window.write(Hpa(BASE.0 + at as u64), &bytes);
            model[at..at + bytes.len()].copy_from_slice(&bytes);
        }
        let mut back = vec![0; model.len()];
        window.read(BASE, &mut back);
        prop_assert!(back == model);
        let granule = granularity.bytes() as usize;
        for (index, expected) in model.chunks(granule).enumerate() {
            let (way, stripe) = (index % memories.len(), index / memories.len());
            let mut there = vec![0; expected.len()];
            memories[way].read((stripe * granule) as u64, &mut there).unwrap();
            prop_assert!(there == expected, "granule {}", index);
        }
    }
}

#[test]
fn an_access_across_the_ends_of_the_window_is_split() {
    let window = Window::new(BASE, 2 * MIB);
    let memory = memory(2 * MIB);
    window.set_decoders(D0, vec![decoder(0, 4 * MIB, 0)]).unwrap();
    window.map(D0, piece(0, 2 * MIB, &memory, 0)).unwrap();
    let mut bytes = [0x55; 8];
    window.read(Hpa(BASE.0 - 4), &mut bytes);
    assert_eq!(bytes, [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(read(&window, 2 * MIB - 4), [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    window.write(Hpa(BASE.0 + 2 * MIB - 2), &[1, 2, 3, 4]);
    assert_eq!(memory.read_u16(2 * MIB - 2), Ok(0x0201));
    for hpa in [Hpa(0), Hpa(u64::MAX), Hpa(u64::MAX - 3)] {
        window.read(hpa, &mut bytes);
        assert_eq!(bytes, [0xff; 8]);
        window.write(hpa, &bytes);
    }
    let top = Window::new(Hpa(u64::MAX - 4095), u64::MAX);
    top.set_decoders(D0, vec![DecodedRange { hpa: Hpa(u64::MAX - 4095), ..decoder(0, u64::MAX, 0) }]).unwrap();
    top.map(D0, piece(0, 2 * MIB, &memory, 0)).unwrap();
    top.read(Hpa(u64::MAX - 3), &mut bytes);
    assert_eq!(top.mappings().len(), 1);
}

#[test]
fn a_hundred_thousand_pieces_come_and_go() {
    let window = Window::new(BASE, 1 << 40);
    window.set_decoders(D0, vec![decoder(0, 1 << 40, 0)]).unwrap();
    let memory = memory(100_000 * 4096);
    for index in 0..100_000 {
        window.map(D0, piece(index * 8192, 4096, &memory, index * 4096)).unwrap();
    }
    window.write(Hpa(BASE.0 + 99_999 * 8192), &[9]);
    assert_eq!(memory.read_u8(99_999 * 4096), Ok(9));
    assert_eq!(window.mappings().len(), 100_000);
    for index in 0..100_000 {
        window.unmap(D0, Dpa(index * 8192), 4096).unwrap();
    }
    assert!(window.mappings().is_empty());
}

#[test]
fn no_stale_byte_is_seen_after_unmap_returned() {
    let window = window();
    let memory = memory(2 * MIB);
    memory.write(0, &[0xaa; 4096]).unwrap();
    // Odd while the piece is unmapped for certain.
    let phase = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            while !stop.load(Ordering::Acquire) {
                let before = phase.load(Ordering::Acquire);
                let bytes: [u8; 4096] = read(&window, 0);
                assert!(bytes.iter().all(|byte| *byte == bytes[0]), "an access saw two states");
                assert_ne!(bytes[0], 0x11, "an access saw what the host did after the unmap");
                if before % 2 == 1 && phase.load(Ordering::Acquire) == before {
                    assert_eq!(bytes[0], 0xff);
                }
            }
        });
        for _ in 0..2_000 {
            window.map(D0, piece(0, 2 * MIB, &memory, 0)).unwrap();
            std::thread::yield_now();
            window.unmap(D0, Dpa(0), 2 * MIB).unwrap();
            phase.fetch_add(1, Ordering::Release);
            // The memory is the host's again: what it does with it must not be seen by the guest.
            memory.write(0, &[0x11; 4096]).unwrap();
            assert_eq!(read(&window, 0), [0xff]);
            memory.write(0, &[0xaa; 4096]).unwrap();
            phase.fetch_add(1, Ordering::Release);
        }
        stop.store(true, Ordering::Release);
        assert!(reader.join().is_ok());
    });
}

#[test]
fn errors_say_where() {
    let error = WindowError::Overlap { device: D1, dpa: Dpa(0x1000), mapped: Dpa(0), len_bytes: 0x2000 };
    assert_eq!(error.to_string(), "DPA 0x1000 of device 1 is mapped already, by the 0x2000 bytes from 0x0 on");
    let error = OutOfRange { offset_bytes: 1, len_bytes: 2, size_bytes: 2 };
    assert!(error.to_string().contains("offset 0x1"));
}
