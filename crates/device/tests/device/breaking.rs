//! Facts that no device decides break every law, and the near form of a law sees it where the whole one does.
//!
//! Facts are changed between decision and fold: left out, doubled, given other numbers, or joined by others. What is not
//! admitted falls away, as it would in a journal. From then on whatever the device decides on such a state goes on being
//! compared, law by law, until each is broken.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use device::config::DeviceIndex;
use device::extents::{ChainPlace, LoggedEvent};
use device::laws::LAWS;
use device::operation::Fact;
use device::vm::Vm;
use device::windows::{DecoderFields, Piece};
use device::{DpaRange, Seq, backends, extents, windows};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use wire::{Dpa, Hpa};

use crate::laws::{Step, step, take};
use crate::rig::{GIB, MIB, Rig, tag};

/// What is done to the facts of one record.
#[derive(Clone, Debug)]
enum Harm {
    Leave { at: usize },
    Double { at: usize },
    Change { at: usize, n: u8, blocks: u64 },
    Join { at: usize, kind: u8, n: u8, blocks: u64 },
}

fn harm() -> impl Strategy<Value = Option<Harm>> {
    let at = 0usize..6;
    prop_oneof![
        6 => Just(None),
        1 => at.clone().prop_map(|at| Some(Harm::Leave { at })),
        1 => at.clone().prop_map(|at| Some(Harm::Double { at })),
        3 => (at.clone(), 0u8..6, 0u64..6).prop_map(|(at, n, blocks)| Some(Harm::Change { at, n, blocks })),
        3 => (at, 0u8..16, 0u8..6, 0u64..24).prop_map(|(at, kind, n, blocks)| Some(Harm::Join { at, kind, n, blocks })),
    ]
}

fn apply(harm: &Harm, vm: &Vm, device: DeviceIndex, facts: &mut Vec<Fact>) {
    let place = |at: usize, len: usize| at.checked_rem(len);
    match *harm {
        Harm::Leave { at } => {
            place(at, facts.len()).map(|at| facts.remove(at));
        }
        Harm::Double { at } => {
            if let Some(at) = place(at, facts.len()) {
                facts.insert(at, facts[at].clone());
            }
        }
        Harm::Change { at, n, blocks } => {
            if let Some(at) = place(at, facts.len()) {
                change(&mut facts[at], n, blocks);
            }
        }
        Harm::Join { at, kind, n, blocks } => {
            let at = at % (facts.len() + 1);
            facts.insert(at, foreign(vm, device, kind, n, blocks));
        }
    }
}

fn shift(range: &mut DpaRange, blocks: u64) {
    // Odd ones are not even whole blocks.
    let step_bytes = if blocks % 2 == 1 { MIB } else { 2 * MIB };
    match blocks % 3 {
        0 => range.start = Dpa(range.start.0 + blocks * step_bytes),
        1 => range.len_bytes += blocks * step_bytes,
        _ => range.len_bytes = (range.len_bytes / 2).max(1),
    }
}

fn change(fact: &mut Fact, n: u8, blocks: u64) {
    let id = || format!("tm{n}");
    match fact {
        Fact::Extents(extents::Fact::Offered { tag: of, backend, ranges, .. }) => match blocks % 3 {
            0 => *of = tag(n),
            1 => *backend = id(),
            _ => ranges.iter_mut().for_each(|range| shift(range, blocks)),
        },
        Fact::Extents(extents::Fact::Accepted { pieces, .. }) => match blocks % 3 {
            0 => pieces.iter_mut().for_each(|piece| piece.offset_bytes += blocks * MIB),
            1 => pieces.iter_mut().for_each(|piece| shift(&mut piece.range, blocks)),
            _ => drop(pieces.pop()),
        },
        Fact::Extents(extents::Fact::Released { ranges, .. } | extents::Fact::ReleaseRequested { ranges }) => {
            match blocks % 4 {
                0 | 1 => ranges.iter_mut().for_each(|range| range.tag = tag(n)),
                2 => ranges.iter_mut().for_each(|range| shift(&mut range.range, blocks)),
                _ => drop(ranges.pop()),
            }
        }
        Fact::Extents(extents::Fact::Logged { events }) => match blocks % 3 {
            0 => events.iter_mut().for_each(|event| event.place = ChainPlace::More),
            1 => events.iter_mut().for_each(|event| event.handle = u16::from(n) + 1),
            _ => drop(events.pop()),
        },
        Fact::Extents(extents::Fact::Rejected { offer, .. } | extents::Fact::Retired { offer }) => {
            *offer = Seq(offer.0 + blocks);
        }
        Fact::Windows(windows::Fact::Mapped { pieces }) => match blocks % 4 {
            0 => pieces.iter_mut().for_each(|piece| piece.offset_bytes += (blocks + 1) * 2 * MIB),
            1 => pieces.iter_mut().for_each(|piece| piece.backend = id()),
            2 => pieces.iter_mut().for_each(|piece| shift(&mut piece.range, blocks)),
            _ => drop(pieces.pop()),
        },
        Fact::Windows(windows::Fact::Unmapped { ranges }) => match blocks % 2 {
            0 => ranges.iter_mut().for_each(|range| shift(range, blocks)),
            _ => drop(ranges.pop()),
        },
        Fact::Backends(backends::Fact::Added { spec, .. }) => match blocks % 2 {
            0 => spec.size_bytes /= 2,
            _ => spec.tag = tag(n),
        },
        Fact::Backends(backends::Fact::Reserved { id: of, device } | backends::Fact::Attached { id: of, device }) => {
            match blocks % 2 {
                0 => *of = id(),
                _ => device.0 ^= 1,
            }
        }
        Fact::Backends(backends::Fact::Freed { id: of } | backends::Fact::Removed { id: of }) => *of = id(),
        _ => {}
    }
}

/// A fact that nobody asked for.
fn foreign(vm: &Vm, index: DeviceIndex, kind: u8, n: u8, blocks: u64) -> Fact {
    let id = format!("tm{n}");
    let range = DpaRange { start: Dpa(blocks * 2 * MIB), len_bytes: (u64::from(n) + 1) * MIB };
    let offers = vm.devices.get(&index).into_iter().flat_map(|device| device.extents.offers().iter());
    let offer = offers.map(|offer| offer.id).nth(usize::from(n)).unwrap_or_default();
    let tagged = extents::TaggedRange { region: 0, tag: tag(n), range };
    match kind {
        0 => Fact::Backends(backends::Fact::Freed { id }),
        1 => Fact::Backends(backends::Fact::Removed { id }),
        2 => Fact::Backends(backends::Fact::Reserved { id, device: index }),
        3 => Fact::Backends(backends::Fact::Attached { id, device: index }),
        4 => Fact::Backends(backends::Fact::Retagged {
            id,
            tag: tag(blocks as u8 % 6),
            tag_text: tag(blocks as u8 % 6).to_string(),
        }),
        5 => Fact::Windows(windows::Fact::Mapped { pieces: vec![Piece { range, backend: id, offset_bytes: 0 }] }),
        6 => Fact::Windows(windows::Fact::Unmapped { ranges: vec![range] }),
        // The second of them shows the same addresses once more.
        7 => Fact::Windows(windows::Fact::DecoderCommitted {
            decoder: n,
            fields: DecoderFields {
                base: Hpa(8 * GIB + blocks % 2 * 4 * MIB),
                size_bytes: GIB,
                skip_bytes: 0,
                control: 0,
            },
            dpa: Dpa(0),
        }),
        8 => Fact::Windows(windows::Fact::DecoderUncommitted { decoder: n }),
        9 => Fact::Extents(extents::Fact::Retired { offer }),
        10 => Fact::Extents(extents::Fact::Released { ranges: vec![tagged], cause: extents::ReleaseCause::Host }),
        11 => Fact::Extents(extents::Fact::ReleaseRequested { ranges: vec![tagged] }),
        12 => Fact::Extents(extents::Fact::Logged { events: vec![event(range, n, blocks)] }),
        13 => {
            let (reason, ranges) = (extents::RejectReason::Host, vec![range]);
            Fact::Extents(extents::Fact::Rejected { offer, region: 0, tag: tag(n), ranges, reason })
        }
        14 => {
            let offered =
                extents::Fact::Offered { host_id: 0, region: 0, tag: tag(n), backend: id, ranges: vec![range] };
            Fact::Extents(offered)
        }
        _ => {
            let piece = extents::AcceptedPiece { position: 0, range, offset_bytes: 0 };
            Fact::Extents(extents::Fact::Accepted { offer, region: 0, tag: tag(n), pieces: vec![piece] })
        }
    }
}

fn event(range: DpaRange, n: u8, blocks: u64) -> LoggedEvent {
    LoggedEvent {
        handle: blocks as u16 + 1,
        kind: extents::EventKind::Add,
        place: if n.is_multiple_of(2) { ChainPlace::Last } else { ChainPlace::More },
        range,
        tag: tag(n),
        shared_sequence: 0,
        timestamp_ns: 0,
        available_extents: 0,
        available_tags: 0,
    }
}

/// Takes the steps, each record with its harm, until the device itself is at its wits' end. Gives the laws that were
/// broken.
fn harmed(steps: &[(Step, Option<Harm>)]) -> (Rig, BTreeSet<&'static str>) {
    let mut rig = Rig::new(2);
    let next: Rc<RefCell<Option<Harm>>> = Rc::default();
    let harms = Rc::clone(&next);
    rig.harm = Some(Box::new(move |vm, device, facts| {
        // One of a step's records, and of those that change nothing the next.
        if let Some(harm) = harms.borrow_mut().take() {
            apply(&harm, vm, device, facts);
        }
    }));
    for (step, harm) in steps {
        next.replace(harm.clone());
        // A device whose state no decision made may stop at one of its assertions.
        if catch_unwind(AssertUnwindSafe(|| take(&mut rig, step))).is_err() {
            break;
        }
    }
    let kept: BTreeSet<_> = rig.watches.iter().map(|(law, _)| law.name).collect();
    let broken = LAWS.iter().map(|law| law.name).filter(|name| !kept.contains(name)).collect();
    (rig, broken)
}

/// The laws that admitted facts hardly break, because the fold of facts keeps them whatever they say: a fold with a bug
/// breaks them in `extents::broken`.
const KEPT_BY_THE_FOLD: [&str; 4] = ["capacity-adds-up", "list-complete", "generation-moves", "requested-is-accepted"];

/// Runs so many cases; gives the laws that were broken in any.
fn broken_by(cases: u32, rng: Option<TestRng>) -> BTreeSet<&'static str> {
    let seen = RefCell::new(BTreeSet::new());
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = match rng {
        Some(rng) => TestRunner::new_with_rng(config, rng),
        None => TestRunner::new(config),
    };
    let agreed = runner.run(&prop::collection::vec((step(), harm()), 1..60), |steps| {
        let (rig, broken) = harmed(&steps);
        prop_assert!(rig.disagreements.is_empty(), "{:?}", rig.disagreements);
        seen.borrow_mut().extend(broken);
        Ok(())
    });
    agreed.unwrap_or_else(|error| panic!("{error}"));
    seen.into_inner()
}

/// Always the same cases, which break every law, and then others every time.
#[test]
fn both_forms_of_every_law_see_it_broken() {
    // This thread panics on purpose, others do not.
    let (hook, own) = (Arc::new(std::panic::take_hook()), std::thread::current().id());
    let others = Arc::clone(&hook);
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() != own {
            others(info);
        }
    }));
    let seen = catch_unwind(|| {
        let seen = broken_by(1_500, Some(TestRng::deterministic_rng(RngAlgorithm::ChaCha)));
        broken_by(500, None);
        seen
    });
    std::panic::set_hook(Box::new(move |info| hook(info)));
    let seen = seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let is_missed = |name: &&str| !seen.contains(name) && !KEPT_BY_THE_FOLD.contains(name);
    assert_eq!(LAWS.iter().map(|law| law.name).find(is_missed), None);
}

/// Else the near forms would agree with the whole ones because they ask them.
#[test]
fn the_whole_law_is_asked_at_a_plug_and_not_in_between() {
    let mut rig = Rig::new(2);
    let plugs: Vec<_> = rig.watches.iter().map(|(_, watch)| watch.doubts()).collect();
    for n in 0..4 {
        rig.accepted(n, u64::from(n) * 64 * MIB, 4 * MIB);
    }
    rig.release(tag(0));
    rig.give_back(&[(0, 2 * MIB)]);
    rig.give_back(&[(2 * MIB, 2 * MIB)]);
    rig.object_del("tm0");
    rig.force(tag(1));
    rig.clear_events();
    rig.object_add("tm7", tag(7), 2 * MIB);
    rig.object_add("tm8", tag(8), 2 * MIB);
    rig.add(tag(7), &[(GIB / 2, 2 * MIB)]);
    rig.add(tag(8), &[(GIB / 4, 2 * MIB)]);
    rig.force(tag(7));
    // Dead, which the host learns, and the next one in its place.
    rig.respond(&[(GIB / 2, 2 * MIB)]);
    rig.respond(&[(GIB / 4, 2 * MIB)]);
    rig.clear_events();
    rig.list();
    let now: Vec<_> = rig.watches.iter().map(|(_, watch)| watch.doubts()).collect();
    assert_eq!(now, plugs);
}
