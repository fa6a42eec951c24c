//! Buses, bridges and BARs.

use driver::Bdf;
use driver::bars::BarError;
use driver::discover::{DiscoverError, discover};
use wire::Hpa;

use crate::machine::{Function, Machine, Place, map};

fn machine(functions: Vec<Function>) -> Machine {
    Machine { functions, ..Machine::new(8, []) }
}

#[test]
fn nested_bridges_get_numbers_and_windows_depth_first() {
    let mut machine = machine(vec![
        Function::bridge(Place::Root(0x0c), 0),
        Function::bridge(Place::Behind(0), 0),
        Function::memory_device(Place::Behind(1), 0),
        Function::bridge(Place::Root(0x0c), 1),
        Function::memory_device(Place::Behind(3), 0),
        Function::bridge(Place::Root(0x0c), 2),
    ]);
    let found = discover(&mut machine, &map()).expect("devices");
    let places: Vec<_> = found.iter().map(|function| function.bdf.to_string()).collect();
    assert_eq!(places, ["0e:00.0", "0f:00.0"]);
    let numbers = |index: usize| machine.functions[index].get(0x18, 4) & 0xff_ffff;
    assert_eq!([0, 1, 3, 5].map(numbers), [0x0e_0d0c, 0x0e_0e0d, 0x0f_0f0c, 0x10_100c]);
    let window = |index: usize| machine.functions[index].get(0x20, 4);
    assert_eq!([0, 1, 3].map(window), [0xc000_c000, 0xc000_c000, 0xc010_c010]);
    assert_eq!(window(5), 0x0000_fff0, "nothing is behind it");
    assert_eq!(machine.functions[0].get(0x24, 4), 0x0000_fff0, "the prefetchable window is closed");
    assert_eq!(machine.functions[0].get(4, 2), 6);
}

#[test]
fn bars_are_sized_placed_and_enabled() {
    let mut machine = Machine::new(8, []);
    let found = discover(&mut machine, &map()).expect("a device");
    let bases: Vec<_> = (0..6).map(|bar| found[0].bars.get(bar).map(|range| (range.base, range.size_bytes))).collect();
    let bar = |base, size_bytes| Some((Hpa(base), size_bytes));
    let expected = [bar(0xc000_0000, 0x1_0000), None, bar(0xc001_0000, 0x1_0000), None, bar(0xc002_0000, 0x1000), None];
    assert_eq!(bases, expected);
    let endpoint = machine.endpoint();
    assert_eq!([0, 2, 4].map(|bar| endpoint.bar(bar)), [Some(0xc000_0000), Some(0xc001_0000), Some(0xc002_0000)]);
    assert_eq!(endpoint.get(4, 2), 0x406, "memory space, bus master, no legacy interrupt");
}

#[test]
fn other_functions_are_left_alone() {
    let mut other = Function::memory_device(Place::Root(0x0c), 3);
    other.put(9, &[0, 0, 2]);
    let mut second = Function::memory_device(Place::Root(0x0c), 3);
    second.function = 5;
    other.put(0xe, &[0x80]);
    let mut machine = machine(vec![other, second]);
    let found = discover(&mut machine, &map()).expect("a device");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].bdf, Bdf { bus: 0x0c, device: 3, function: 5 });
    assert_eq!(machine.functions[0].bar(0), None);
}

#[test]
fn bus_numbers_end_before_the_next_root() {
    let mut map = map();
    map.root_buses = &[0x0d, 0x0c];
    let mut machine = machine(vec![Function::bridge(Place::Root(0x0c), 0)]);
    let error = discover(&mut machine, &map).expect_err("no bus between 0Ch and 0Dh");
    let bridge = Bdf { bus: 0x0c, device: 0, function: 0 };
    assert_eq!(error, DiscoverError::BusNumbers { bridge, last_bus: 0x0c });
}

#[test]
fn a_bar_that_cannot_be_is_refused() {
    let mut machine = Machine::new(8, []);
    machine.endpoint().bar_masks[0] = 0xfff7_0000;
    let error = discover(&mut machine, &map()).expect_err("a size with a hole");
    assert!(matches!(error, DiscoverError::Bar(BarError::Size { bar: 0, .. })), "{error}");
    let mut machine = Machine::new(8, []);
    machine.endpoint().bar_flags[0] = 2;
    let error = discover(&mut machine, &map()).expect_err("a kind below 1 MiB");
    assert!(matches!(error, DiscoverError::Bar(BarError::Kind { bar: 0, .. })), "{error}");
    let mut machine = Machine::new(8, []);
    let mut map = map();
    map.mmio_len_bytes = 0x1_0000;
    let error = discover(&mut machine, &map).expect_err("room for one of three");
    assert!(matches!(error, DiscoverError::Bar(BarError::NoRoom { bar: 2, left_bytes: 0, .. })), "{error}");
}
