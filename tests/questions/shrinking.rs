//! From many inputs to few.

use device::Seq;
use device::extents;
use device::operation::{Fact, Input};
use journal::record::{Record, RecordedReply};
use replay::{History, Question, ShrinkError, Shrunk, replay, shrink};

use wire::Opcode;

use crate::field::{Field, MIB, tag, update};

fn asked(field: Field, question: &Question) -> Result<Shrunk, ShrinkError> {
    let history = History::new(field.genesis, field.records).expect("a VM");
    shrink(&history, question, &mut |_, _| ())
}

fn path(text: &str) -> Question {
    Question::Path(text.parse().expect("a path and a value"))
}

#[test]
fn a_value_needs_what_led_to_it() {
    let shrunk = asked(Field::with_cycles(300), &path("backends.tm240.holder.state=attached")).expect("few inputs");
    // Plug, backend, add, answer; of two extents one is enough.
    assert_eq!((shrunk.records.len(), shrunk.at), (4, Seq(4)));
    let Input::Extents(extents::Input::Add(add)) = &shrunk.records[2].input else { panic!("an add") };
    assert_eq!((add.tag, add.extents.len()), (tag(240), 1));
    assert!(shrunk.records.iter().all(|record| record.stamp.time.0 == 0));
    assert!(shrunk.from > 2_000 && shrunk.runs < 400, "{} runs", shrunk.runs);
    let genesis = Field::new().genesis;
    assert!(
        replay(replay::Fold::new(&genesis).expect("a VM"), &shrunk.records, &mut |_| ())
            .expect("a VM")
            .finding()
            .is_none()
    );
}

/// Extents of 64 MiB become one block, where they are added, answered and given back.
#[test]
fn long_extents_become_short_wherever_they_are_named() {
    let mut field = Field::new();
    field.life(1, 64 * MIB);
    let shrunk = asked(field, &path("devices.cxl-vmem0.extents.generation=2")).expect("few inputs");
    let lengths: Vec<_> = shrunk.records.iter().flat_map(lengths).collect();
    let block_bytes = 2 * MIB;
    assert_eq!(lengths, [block_bytes; 4], "{:?}", shrunk.steps);
}

/// The lengths of a backend, or of the extents that are added, answered or given back.
fn lengths(record: &Record) -> Vec<u64> {
    match &record.input {
        Input::Backends(device::backends::Input::ObjectAdd { spec, .. }) => vec![spec.size_bytes],
        Input::Extents(extents::Input::Add(add)) => add.extents.iter().map(|extent| extent.len_bytes).collect(),
        Input::Extents(extents::Input::Command { payload, .. }) => {
            let ranges = payload.get(8..).unwrap_or_default().chunks_exact(24);
            ranges.map(|range| u64::from_le_bytes(range[8..16].try_into().expect("eight bytes"))).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn what_is_not_there_cannot_be_shrunk() {
    let refused = |question| asked(Field::with_cycles(3), &question).expect_err("nothing").to_string();
    assert!(refused(path("backends.tm2.holder.state=gone")).contains("is not so after any of"));
    assert!(
        refused(path("backends.tm99.holder.state=attached")).starts_with("there is never a 'tm99' in backends: it has")
    );
    assert!(
        refused(path("backends.tm0.holder=attached")).starts_with("backends.tm0.holder is no value: ask for one of")
    );
    assert!(refused(Question::Panics).contains("'deciding panics' is not so"));
    assert!(refused(Question::Diverges).contains("is not so"));
}

/// Offers of two backends in turn, each made before the one before it is rejected: an offer and its answer can only go
/// together, or the answers meet other offers. Seen as: 103 inputs left where 9 are enough.
#[test]
fn offers_and_the_answers_that_reject_them_go_together() {
    let mut field = Field::new();
    for n in [0, 1] {
        field.object_add(n, 2 * MIB);
    }
    let extents = |n: u64| [(n * 8 * MIB, 2 * MIB)];
    field.add(0, &extents(0));
    for n in 1..=50 {
        field.add(n % 2, &extents(n % 2));
        field.command(Opcode::ADD_DC_RESPONSE, update(&[]));
    }
    field.add(1, &extents(1));
    field.command(Opcode::ADD_DC_RESPONSE, update(&extents(0)));
    field.command(Opcode::ADD_DC_RESPONSE, update(&extents(1)));
    let shrunk = asked(field, &path("devices.cxl-vmem0.extents.generation=2")).expect("few inputs");
    // Plug, two backends, two adds, two answers.
    assert_eq!(shrunk.records.len(), 7, "{:?}", shrunk.steps);
}

/// Seen as: a journal and a test that did not show it, since its records were numbered anew.
#[test]
fn a_value_that_is_a_record_is_refused() {
    let refused = |question| asked(Field::with_cycles(17), &question).expect_err("refused").to_string();
    let holder = "backends.tm16.holder";
    let field = Field::with_cycles(17);
    let by = field.records.iter().rev().find(|record| accepts(record)).expect("an answer").stamp.seq;
    for value in [by.to_string(), by.0.to_string()] {
        let told = refused(path(&format!("{holder}.by={value}")));
        assert!(
            told.contains("its value is a record") && told.contains(&format!("ask for {holder}.state=attached")),
            "{told}"
        );
    }
    // A record in the path is found out when what is left is asked.
    let offer =
        field.records.iter().rev().find(|record| matches!(record.input, Input::Extents(extents::Input::Add(_))));
    let offer = offer.expect("an add").stamp.seq;
    let told = refused(path(&format!("devices.cxl-vmem0.extents.offers[{offer}].tag={}", tag(16))));
    assert!(told.contains("ask for something that names no record"), "{told}");
}

/// Seen as: "2 of 57 inputs show it", of a compacted journal in which it was so before them all.
#[test]
fn what_is_so_where_the_journal_begins_needs_no_input() {
    let field = Field::with_cycles(40);
    let mut fold = replay::Fold::new(&field.genesis).expect("a VM");
    let (known, later) = field.records.split_at(120);
    known.iter().for_each(|record| fold.apply(record).expect("it fits"));
    let history = History::behind(field.genesis, fold, later.to_vec());
    let refused = |question: &str| shrink(&history, &path(question), &mut |_, _| ()).expect_err("it is so").to_string();
    let whence = "is so at #120 already, where the journal begins: 0 inputs show it";
    assert_eq!(
        refused("backends.tm0.holder.state=attached"),
        format!("nothing to shrink: 'backends.tm0.holder.state=attached' {whence}")
    );
    let start = History::new(Field::new().genesis, Vec::new()).expect("a VM");
    let refused = shrink(&start, &path("runs=0"), &mut |_, _| ()).expect_err("it is so").to_string();
    assert_eq!(refused, "nothing to shrink: 'runs=0' is so from the start: 0 inputs show it");
}

fn accepts(record: &Record) -> bool {
    record.facts.iter().any(|fact| matches!(fact, Fact::Extents(extents::Fact::Accepted { .. })))
}

/// A decision of another build, in the middle of a recording: both of its sides stay as they are.
#[test]
fn a_divergence_keeps_both_of_its_sides() {
    let mut field = Field::with_cycles(60);
    let at = field.records.iter().rposition(accepts).expect("an answer");
    field.records[at].facts.pop();
    field.records.truncate(at + 1);
    let before = replay(replay::Fold::new(&field.genesis).expect("a VM"), &field.records, &mut |_| ())
        .expect("a VM")
        .divergence
        .expect("a divergence");
    let genesis = field.genesis.clone();
    let shrunk = asked(field, &Question::Diverges).expect("few inputs");
    assert!(shrunk.records.len() <= 12, "{} inputs", shrunk.records.len());
    let after = replay(replay::Fold::new(&genesis).expect("a VM"), &shrunk.records, &mut |_| ())
        .expect("a VM")
        .divergence
        .expect("a divergence");
    assert_eq!((after.seq, after.difference), (Seq(shrunk.records.len() as u64), before.difference));
}

/// The law is broken as recorded, and this build does not decide so: it says so, and what to ask instead.
#[test]
fn what_only_another_build_decided_is_named() {
    let mut field = Field::with_cycles(20);
    let at = field.records.iter().rposition(accepts).expect("an answer");
    field.records[at].facts.retain(|fact| !matches!(fact, Fact::Backends(_)));
    field.records.truncate(at + 1);
    let law = device::laws::Law::named("backend-one-owner").expect("a law");
    let refused = asked(field, &Question::Law(law)).expect_err("it is fixed");
    assert_eq!(
        refused,
        ShrinkError::Decided { question: "law backend-one-owner is broken".into(), at: Seq(at as u64 + 1) }
    );
    assert!(refused.to_string().contains("shrink with --diverges"));
}

/// A panic that was recorded and is repaired is not there to be shrunk; that it was recorded is said.
#[test]
fn a_panic_of_another_build_is_named() {
    let mut field = Field::with_cycles(3);
    let last = field.records.last_mut().expect("a record");
    last.facts.clear();
    last.reply = RecordedReply::Panicked("an invariant".into());
    let at = last.stamp.seq;
    let refused = asked(field, &Question::Panics).expect_err("it is fixed");
    assert_eq!(refused, ShrinkError::Decided { question: "deciding panics".into(), at });
}
