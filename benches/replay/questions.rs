//! Questions to a million records that are in memory.

use std::hint::black_box;

use device::Seq;
use device::extents;
use device::laws::Law;
use device::operation::Fact;
use journal::record::{Genesis, Record};
use replay::{Fold, History, PathValue, Question, recheck, replay, shrink};

use crate::report::{Row, median, timed_us};

/// Each is done so often, and the median told.
const RUNS: usize = 3;

/// A million records in a second.
const FOLD_MS: f64 = 1_000.0;
/// 300,000 records in a second.
const CHECK_MS: f64 = 3_333.0;
const JUMP_MS: f64 = 10.0;
const ANSWER_MS: f64 = 1_000.0;
const SHRINK_MS: f64 = 60_000.0;

/// What every row is held against.
struct Floors {
    /// Reading every fact of every record.
    walk: f64,
    fold: f64,
    /// A copy of the last state.
    clone: f64,
}

pub(crate) fn folds(genesis: &Genesis, records: &[Record]) -> Vec<Row> {
    let floors = floors(genesis, records);
    let again = ms(|| {
        let mut fold = Fold::new(genesis).expect("a VM");
        for record in records {
            recheck(fold.vm(), record).expect("the same decision");
            fold.apply(record).expect("it fits");
        }
    });
    let check = ms(|| {
        let replay = replay(replay::Fold::new(genesis).expect("a VM"), records, &mut |_| ()).expect("a VM");
        assert!(replay.finding().is_none() && replay.equal == records.len() as u64);
    });
    vec![
        Row::new("2 fold", floors.fold, "ms").target(FOLD_MS).floor(floors.walk, "reading every fact"),
        Row::new("2 fold and decide again", again, "ms").floor(floors.fold, "the fold"),
        Row::new("2 check: fold, laws, decide again", check, "ms").target(CHECK_MS).floor(floors.fold, "the fold"),
    ]
}

fn floors(genesis: &Genesis, records: &[Record]) -> Floors {
    let walk = ms(|| {
        let facts = records.iter().flat_map(|record| &record.facts);
        black_box(facts.filter(|fact| matches!(black_box(fact), Fact::Extents(_))).count());
    });
    let mut last = None;
    let fold = ms(|| last = Some(folded(genesis, records)));
    let last = last.expect("a state");
    Floors { walk, fold, clone: ms(|| drop(black_box(last.clone()))) }
}

fn folded(genesis: &Genesis, records: &[Record]) -> Fold {
    let mut fold = Fold::new(genesis).expect("a VM");
    records.iter().for_each(|record| fold.apply(record).expect("it fits"));
    fold
}

/// Jumps, `why` and `bisect`.
pub(crate) fn positions(genesis: &Genesis, records: &[Record]) -> Vec<Row> {
    let floors = floors(genesis, records);
    let last = Seq(records.len() as u64);
    let new = || History::new(genesis.clone(), records.to_vec()).expect("a VM");
    let mut history = new();
    let first = timed_us(|| drop(history.at(last).expect("a position"))) / 1e3;
    let mut worst = 0f64;
    for n in 0..64 {
        let at = Seq(n * 2_654_435_761 % last.0);
        worst = worst.max(timed_us(|| drop(black_box(history.at(at).expect("a position")))) / 1e3);
    }
    let mut rows = vec![
        Row::new("3 the first jump to the end makes the keyframes", first, "ms").floor(floors.fold, "the fold"),
        Row::new("3 the slowest of 64 jumps after it", worst, "ms")
            .target(JUMP_MS)
            .floor(floors.clone, "a copy of a state"),
    ];
    for path in [
        "runs",
        "backends.tm32.holder.state",
        "devices.cxl-vmem0.extents.accepted[0x80000000].tag",
        "devices.cxl-vmem0.extents.generation",
        "devices.cxl-vmem0.windows",
    ] {
        let parsed = path.parse().expect("a path");
        // Of one that nobody has asked anything, and that has no keyframes.
        let asked = new();
        let took = timed_us(|| drop(asked.why(&parsed, last).expect("it was written"))) / 1e3;
        rows.push(Row::new(format!("4 why {path}"), took, "ms").target(ANSWER_MS).floor(floors.fold, "the fold"));
    }
    for law in ["backend-one-owner", "mapped-is-accepted", "log-whole-chains"] {
        let named = Law::named(law).expect("a law");
        let took = ms(|| assert_eq!(history.first_broken(named), Ok(None)));
        rows.push(
            Row::new(format!("5 bisect --law {law}, which holds"), took, "ms")
                .target(ANSWER_MS)
                .floor(floors.fold, "the fold"),
        );
    }
    for wanted in ["devices.cxl-vmem0.extents.generation=7777777", "backends.tm7777777.holder.state=attached"] {
        let parsed: PathValue = wanted.parse().expect("a path and a value");
        let took = ms(|| assert_eq!(history.first_value(&parsed), Ok(None)));
        rows.push(
            Row::new(format!("5 bisect --path {wanted}"), took, "ms").target(ANSWER_MS).floor(floors.fold, "the fold"),
        );
    }
    rows
}

/// What shows itself at the end of the journal.
pub(crate) fn shrinks(genesis: &Genesis, records: &[Record]) -> Vec<Row> {
    let fold = floors(genesis, records).fold;
    let is_accepted = |fact: &Fact| matches!(fact, Fact::Extents(extents::Fact::Accepted { .. }));
    let at = records.iter().rposition(|record| record.facts.iter().any(is_accepted)).expect("an answer");
    let tag = records[at].facts.iter().find_map(|fact| match fact {
        Fact::Extents(extents::Fact::Accepted { tag, .. }) => Some(*tag),
        _ => None,
    });
    let wanted = format!("devices.cxl-vmem0.extents.tags[{}].state=accepted", tag.expect("a tag"));
    let mut other = records[..=at].to_vec();
    other[at].facts.pop();
    let cases = [
        (
            "6 shrink --path of the last tag",
            records.to_vec(),
            Question::Path(wanted.parse().expect("a path and a value")),
        ),
        ("6 shrink --diverges in the last answer", other, Question::Diverges),
    ];
    let row = |(what, records, question): (&str, Vec<Record>, Question)| {
        let history = History::new(genesis.clone(), records).expect("a VM");
        let mut shrunk = None;
        let took = timed_us(|| shrunk = shrink(&history, &question, &mut |_, _| ()).ok()) / 1e3;
        let shrunk = shrunk.expect("few inputs");
        let what = format!("{what}: {} inputs, {} runs", shrunk.records.len(), shrunk.runs);
        Row::new(what, took, "ms").target(SHRINK_MS).floor(fold, "the fold")
    };
    cases.into_iter().map(row).collect()
}

fn ms(mut work: impl FnMut()) -> f64 {
    median((0..RUNS).map(|_| timed_us(&mut work) / 1e3).collect())
}
