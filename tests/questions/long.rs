//! The same answers on a long recording, whichever way they are found.

use std::collections::BTreeMap;

use device::inspect::{self, Path};
use device::laws::LAWS;
use device::{Seq, VmTime};
use journal::record::Parent;
use replay::{Edit, End, Fold, History, Position, Step, diff, replay, whatif};

use crate::field::Field;

const CYCLES: u64 = 1_200;

fn history() -> History {
    let field = Field::with_cycles(CYCLES);
    assert!(field.records.len() > 10_000);
    History::new(field.genesis, field.records).expect("a VM")
}

/// Positions in no order, so that keyframes are made and used.
fn positions(last: u64) -> Vec<u64> {
    let mut dice = 0x5bd1_e995_u64;
    let mut roll = || {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) % (last + 1)
    };
    let mut positions: Vec<_> = (0..8).map(|_| roll()).collect();
    positions.extend([last, 0, 1, 5_999, 6_000, 6_001, last - 1]);
    positions
}

#[test]
fn every_position_is_what_a_fold_from_the_start_gives() {
    let mut history = history();
    let last = history.last().0;
    for at in positions(last) {
        let mut straight = Fold::new(history.genesis()).expect("a VM");
        for record in &history.records()[..at as usize] {
            straight.apply(record).expect("it fits");
        }
        assert_eq!(history.at(Seq(at)).expect("a position"), straight, "#{at}");
    }
    assert_eq!(
        history.at(Seq(last + 1)).expect_err("too far").to_string(),
        format!("there is no #{}: the journal ends with #{last}", last + 1)
    );
}

#[test]
fn why_names_the_last_record_that_changed_the_path() {
    let history = history();
    for text in [
        "runs",
        "plugs",
        "backends.tm16.holder",
        "backends.tm17.holder.state",
        "devices.cxl-vmem0.extents.accepted[0x80000000].tag",
        "devices.cxl-vmem0.extents.generation",
        "devices.cxl-vmem0.extents.offers",
        "devices.cxl-vmem0.windows",
        "devices.cxl-vmem0.windows.pieces[0x80000000]",
        "devices.cxl-vmem0.config.serial",
    ] {
        let path: Path = text.parse().expect("a path");
        for at in [history.last(), Seq(5_000)] {
            let (mut fold, mut expected) = (Fold::new(history.genesis()).expect("a VM"), Seq(0));
            let mut values = inspect::values(fold.vm(), &path).unwrap_or_default();
            for record in &history.records()[..at.0 as usize] {
                fold.apply(record).expect("it fits");
                let after = inspect::values(fold.vm(), &path).unwrap_or_default();
                if after != values {
                    (values, expected) = (after, record.stamp.seq);
                }
            }
            let written = history.why(&path, at).expect("it was written");
            assert_eq!(written.by, expected, "{text} at {at}");
            assert!(!written.changes.is_empty(), "{text} at {at}");
        }
    }
}

#[test]
fn times_and_laws_are_positions() {
    let history = history();
    let of = |text: &str| text.parse::<Position>().expect("a position").of(&history);
    assert_eq!(of("#312"), Ok(Seq(312)));
    assert_eq!(of("312us"), Ok(Seq(312)));
    assert_eq!(of("312.9us"), Ok(Seq(312)));
    assert_eq!(of("0"), Ok(Seq(0)));
    assert!(
        of("10ns")
            .expect_err("too early")
            .to_string()
            .contains("the first is at 1000ns; ask for that time or a later one, or for #1")
    );
    assert_eq!(of("1h"), Ok(history.last()));
    assert!(
        of("0.0009ms").expect_err("too early").to_string().contains("as early as 0.0009ms: the first is at 0.001ms")
    );
    assert!(of("law:counters-match").expect_err("it holds").to_string().contains("holds after each"));
    assert_eq!(history.at_time(VmTime(u64::MAX)), Ok(history.last()));
}

#[test]
fn every_law_holds_and_every_decision_is_made_again() {
    let history = history();
    let mut done = 0;
    let replay = replay(history.start().clone(), history.records(), &mut |records| done = records).expect("a VM");
    assert!(replay.finding().is_none() && replay.fault().is_none());
    assert_eq!((replay.equal, replay.records, done), (history.last().0, history.last().0, history.last().0));
    for law in LAWS {
        assert_eq!(history.first_broken(law), Ok(None), "{}", law.name);
    }
}

fn parent(shared: Seq) -> Parent {
    Parent { journal: "field".into(), shared, change: "a test".into() }
}

#[test]
fn what_reaches_the_device_unchanged_is_decided_unchanged() {
    let mut history = history();
    let input = history.record(Seq(500)).expect("a record").input.clone();
    let same = BTreeMap::from([(Seq(500), Edit::Replace(input))]);
    let fork = whatif(&mut history, &same, parent).expect("a fork");
    assert_eq!((fork.changes.len(), fork.end, fork.shared), (0, End::Done, Seq(499)));
    assert_eq!(fork.records, history.records());
}

#[test]
fn a_read_that_is_left_out_changes_nothing_but_the_numbers() {
    let mut history = history();
    let is_read = |record: &&journal::record::Record| record.facts.is_empty() && record.stamp.seq > Seq(600);
    let read = history.records().iter().find(is_read).expect("a read").stamp.seq;
    let fork = whatif(&mut history, &BTreeMap::from([(read, Edit::Drop)]), parent).expect("a fork");
    assert_eq!((fork.changes.len(), fork.later), (0, history.last().0 - read.0));
    assert_eq!(fork.records.len() as u64, history.last().0 - 1);
    let mut forked = History::new(fork.genesis, fork.records).expect("a VM");
    assert!(replay(forked.start().clone(), forked.records(), &mut |_| ()).expect("a VM").finding().is_none());
    let found = diff(&mut history, &mut forked, &"backends.tm16.tag".parse().expect("a path"), None).expect("a diff");
    assert_eq!(found.input.map(|input| input.seq), Some(read));
    assert!(found.changes.is_empty() && found.decision.is_none());
}

#[test]
fn a_backend_that_never_was_is_missed_where_it_was_used() {
    let mut history = history();
    let made = history.first_value(&"backends.tm16.created=absent".parse().expect("a path")).expect("it folds");
    assert_eq!(made, Some(Seq(0)));
    let made = history.first_value(&"backends.tm16.holder.state=free".parse().expect("a path")).expect("it folds");
    let made = made.expect("a record");
    let fork = whatif(&mut history, &BTreeMap::from([(made, Edit::Drop)]), parent).expect("a fork");
    let first = fork.changes.first().expect("a change");
    assert_eq!(first.was.stamp.seq, Seq(made.0 + 1));
    let (was, is) = (&first.was.reply, &first.is.as_ref().expect("a record").reply);
    assert!(format!("{was:?}").contains("Done") && format!("{is:?}").contains("NoBackend"), "{was:?} {is:?}");
    assert!(
        replay(replay::Fold::new(&fork.genesis).expect("a VM"), &fork.records, &mut |_| ())
            .expect("a VM")
            .finding()
            .is_none()
    );
    let steps: Vec<_> = fork.records.iter().map(Step::of).collect();
    assert_eq!(steps.len() as u64, history.last().0 - 1);
}
