//! A fold with a bug breaks every law of extents, and the near form of the law sees it where the whole one does.
//!
//! Facts are made true and then the state is spoiled where they touched it, as a wrong `evolve` would. Deliberately
//! absent: what facts alone can break (tests/device/breaking.rs).

use wire::{Dpa, Hpa, Tag};

use super::event_log::{ChainPlace, EventKind, LoggedEvent};
use super::fact::{AcceptedPiece, Fact, ReleaseCause, TaggedRange};
use super::offers::{Offer, Standing};
use super::{Extent, State};
use crate::config::{DeviceConfig, DeviceIndex, DeviceRequest, VmConfig};
use crate::laws::{Before, LAWS, Law, Watch};
use crate::operation::Fact as AnyFact;
use crate::range::DpaRange;
use crate::stamp::{Seq, Stamp, VmTime};
use crate::vm::{Device, Vm};

const MIB: u64 = 1 << 20;
const DEVICE: DeviceIndex = DeviceIndex(0);

fn tag(n: u8) -> Tag {
    Tag::from_bytes([n; 16])
}

/// The `n`-th place of 2 MiB.
fn range(n: u64) -> DpaRange {
    DpaRange { start: Dpa(n * 2 * MIB), len_bytes: 2 * MIB }
}

fn offered(n: u64) -> Fact {
    Fact::Offered { host_id: 0, region: 0, tag: tag(n as u8), backend: format!("tm{n}"), ranges: vec![range(n)] }
}

fn accepted(offer: u64, n: u64) -> Fact {
    let piece = AcceptedPiece { position: 0, range: range(n), offset_bytes: 0 };
    Fact::Accepted { offer: Seq(offer), region: 0, tag: tag(n as u8), pieces: vec![piece] }
}

fn ranges(n: u64) -> Vec<TaggedRange> {
    vec![TaggedRange { region: 0, tag: tag(n as u8), range: range(n) }]
}

fn released(n: u64) -> Fact {
    Fact::Released { ranges: ranges(n), cause: ReleaseCause::Host }
}

fn logged(handle: u16) -> Fact {
    let event = LoggedEvent {
        handle,
        kind: EventKind::Add,
        place: ChainPlace::Last,
        range: range(0),
        tag: tag(0),
        shared_sequence: 0,
        timestamp_ns: 0,
        available_extents: 0,
        available_tags: 0,
    };
    Fact::Logged { events: vec![event] }
}

/// A VM with a device, of which the facts are the first records, #1 on.
fn vm(facts: &[Fact]) -> Vm {
    let config = VmConfig {
        memory_bytes: 1 << 30,
        window_base: Hpa(1 << 32),
        windows_bytes: vec![1 << 32],
        root_ports: vec!["rp0".into()],
    };
    let size = Some(1 << 30);
    let request = DeviceRequest { id: "d".into(), dc_regions_total_size_bytes: size, ..DeviceRequest::default() };
    let mut vm = Vm::new(config);
    vm.devices.insert(DEVICE, Device::new(&DeviceConfig::lazy(&request).expect("a device")));
    for (fact, seq) in facts.iter().zip(1..) {
        vm.evolve(DEVICE, Stamp { seq: Seq(seq), time: VmTime(0) }, &AnyFact::Extents(fact.clone()));
    }
    vm
}

/// After `before`, a record of `fact` is made true and the state spoiled: the law is broken for both of its forms, and
/// without the spoiling for none.
fn breaks(name: &str, before: &[Fact], fact: Fact, spoil: impl Fn(&mut State)) {
    let law = Law::named(name).expect("a law");
    for is_spoiled in [false, true] {
        let mut vm = vm(before);
        let mut watch = Watch::of(&vm);
        let (seq, facts) = (Seq(before.len() as u64 + 1), [AnyFact::Extents(fact.clone())]);
        let remembered = Before::of(&vm, DEVICE, seq, &facts);
        vm.evolve(DEVICE, Stamp { seq, time: VmTime(0) }, &facts[0]);
        if is_spoiled {
            spoil(&mut vm.devices.get_mut(&DEVICE).expect("a device").extents);
        }
        let whole = law.check(&remembered, &vm);
        assert_eq!(whole.is_err(), is_spoiled, "{name}: {whole:?}");
        assert_eq!(watch.check([law], &remembered, &vm), whole, "{name}");
    }
}

fn spoil_extent(state: &mut State, n: u64, spoil: impl Fn(&mut Extent)) {
    spoil(state.accepted.by_dpa_mut(range(n).start));
}

#[test]
fn of_extents() {
    let held = [offered(1), offered(2), accepted(1, 1)];
    breaks("extents-disjoint", &held, accepted(2, 2), |state| {
        spoil_extent(state, 2, |extent| extent.range = DpaRange { start: Dpa(3 * MIB), len_bytes: 4 * MIB });
    });
    breaks("extents-disjoint", &held, accepted(2, 2), |state| {
        spoil_extent(state, 2, |extent| extent.range.len_bytes -= 1);
    });
    breaks("extents-disjoint", &held, offered(3), |state| {
        state.offers.push(Offer {
            id: Seq(9),
            region: 0,
            tag: tag(1),
            backend: "tm1".into(),
            extents: vec![DpaRange { start: Dpa(5 * MIB), len_bytes: 2 * MIB }],
            standing: Standing::Pending,
        });
    });
}

#[test]
fn of_what_is_counted() {
    let held = [offered(1), offered(2), accepted(1, 1)];
    let offer = Seq(2);
    breaks("capacity-adds-up", &held, accepted(2, 2), |state| {
        state.accepted.holding_mut(offer, |holding| holding.held_bytes -= 1);
    });
    breaks("capacity-adds-up", &held, accepted(2, 2), |state| {
        state.accepted.holding_mut(offer, |holding| holding.offered_bytes = 1);
    });
    breaks("capacity-adds-up", &held, accepted(2, 2), |state| spoil_extent(state, 2, |extent| extent.offer = Seq(77)));
    breaks("capacity-adds-up", &held, released(1), |state| {
        let offers: Vec<_> = state.accepted.holdings().map(|(id, _)| id).collect();
        assert!(offers.is_empty());
        let extent = Extent {
            range: range(1),
            region: 0,
            tag: tag(1),
            shared_sequence: 0,
            offer: Seq(1),
            position: 0,
            backend: "tm1".into(),
            offset_bytes: 0,
            accepted: Seq(3),
        };
        state.accepted.insert(extent, 2 * MIB);
        state.accepted.holding_mut(Seq(1), |holding| holding.held_bytes = 0);
    });
    breaks("counters-match", &held, accepted(2, 2), |state| {
        state.tag_uses.remove(&tag(2));
    });
    breaks("counters-match", &held, released(1), |state| {
        state.tag_uses.insert(tag(1), 1);
    });
    breaks("counters-match", &held, offered(3), |state| {
        state.tag_uses.entry(tag(3)).and_modify(|uses| *uses += 1);
    });
    breaks("counters-match", &held, offered(3), |state| {
        if let Some(offer) = state.offers.get_mut(Seq(4)) {
            offer.extents.push(range(5));
        }
        state.tag_uses.entry(tag(3)).and_modify(|uses| *uses += 1);
    });
}

#[test]
fn of_lists_and_orders() {
    let held = [offered(1), offered(2), accepted(1, 1)];
    breaks("list-complete", &held, accepted(2, 2), |state| state.accepted.unlist((Seq(2), 0, range(2).start)));
    breaks("list-complete", &held, accepted(2, 2), |state| {
        state.accepted.unlist((Seq(2), 0, range(2).start));
        state.accepted.list((Seq(2), 0, range(1).start));
        state.accepted.list((Seq(1), 1, range(1).start));
        state.accepted.unlist((Seq(1), 0, range(1).start));
    });
    breaks("generation-moves", &held, accepted(2, 2), |state| state.generation -= 1);
    breaks("generation-moves", &held, offered(3), |state| state.generation += 1);
    breaks("offers-in-order", &held, offered(3), |state| {
        let older = state.offers.remove(Seq(2)).expect("an offer");
        state.offers.push(older);
    });
}

#[test]
fn of_what_the_host_is_told() {
    let held = [offered(1), offered(2), accepted(1, 1), Fact::ReleaseRequested { ranges: ranges(1) }];
    breaks("requested-is-accepted", &held, released(1), |state| {
        state.requested.insert(range(1).start.0..range(1).end());
    });
    breaks("requested-is-accepted", &held, Fact::ReleaseRequested { ranges: ranges(1) }, |state| {
        state.requested.insert(range(1).start.0..range(3).end());
    });
    let log = [logged(1), logged(2)];
    breaks("log-whole-chains", &log, logged(3), |state| state.log.append(&[event_of(2)]));
    breaks("log-whole-chains", &log, logged(3), |state| {
        state.log.clear_all();
        state.log.append(&[event_of(0)]);
    });
    breaks("log-whole-chains", &log, logged(3), |state| {
        state.log.append(&[LoggedEvent { place: ChainPlace::More, ..event_of(4) }]);
    });
    let many: Vec<_> = (4..4200).map(event_of).collect();
    breaks("log-whole-chains", &log, logged(3), |state| state.log.append(&many));
}

fn event_of(handle: u16) -> LoggedEvent {
    match logged(handle) {
        Fact::Logged { events } => events[0],
        _ => unreachable!("it is logged"),
    }
}

/// No law of extents is left out.
#[test]
fn of_every_kind() {
    let text = include_str!("broken.rs");
    let of_others = ["backend", "tag-one", "mapped", "mappings", "offers-answered"];
    for law in LAWS.iter().filter(|law| !of_others.iter().any(|prefix| law.name.starts_with(prefix))) {
        assert!(text.contains(&format!("breaks(\"{}\"", law.name)), "{}", law.name);
    }
}
