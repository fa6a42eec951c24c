//! Replay of journals that do not agree with this build, or with themselves: the first record is named, with both sides.

use device::extents::{self, RejectReason};
use device::operation::{Fact, Reply};
use device::{Refusal, Seq};
use journal::record::{Genesis, RECORD_VERSION, Record, RecordedReply};
use journal::{Journal, Options};
use replay::{Difference, Finding};
use serde_json::json;

use crate::program::{MIB, TAG0, add_arguments, release_arguments, verb};
use crate::vm::{InProcess, Wanted, vm_request};

/// Offered, accepted, released, offered again and rejected by a reset.
fn recorded() -> (Genesis, Vec<Record>) {
    let mut vm = InProcess::start(Wanted::default());
    let mut host = vm.host();
    vm.object_add("tm0", TAG0, 4 * MIB);
    for _ in 0..2 {
        let add = add_arguments(TAG0, &[(4 * MIB, 2 * MIB), (0, 2 * MIB)]);
        vm.qmp("cxl-add-dynamic-capacity", add).expect("an offer");
        host.on_interrupt(&mut vm.bus).expect("an answer");
        vm.qmp("cxl-release-dynamic-capacity", release_arguments(TAG0)).expect("asked");
        host.on_interrupt(&mut vm.bus).expect("an answer");
    }
    vm.qmp("cxl-add-dynamic-capacity", add_arguments(TAG0, &[(0, 4 * MIB)])).expect("an offer");
    vm.qmp("system_reset", json!({})).expect("a reset");
    let genesis = Genesis { config: vm_request(&Wanted::default()).config, build: "test".into(), parent: None };
    (genesis, vm.end())
}

fn finding(genesis: &Genesis, records: Vec<Record>) -> Finding {
    replay::replay(replay::Fold::new(genesis).expect("a VM"), &records, &mut |_| ())
        .expect("a VM")
        .finding()
        .expect("a finding")
}

/// The first record whose input is what `wanted` looks for.
fn position(records: &[Record], wanted: impl Fn(&Record) -> bool) -> usize {
    records.iter().position(wanted).expect("such a record")
}

#[test]
fn the_first_disagreement_is_named_with_both_sides() {
    let (genesis, records) = recorded();
    let accepted =
        |record: &Record| record.facts.iter().any(|fact| matches!(fact, Fact::Extents(extents::Fact::Accepted { .. })));
    let at = position(&records, accepted);
    let seq = Seq(at as u64 + 1);

    let mut other_facts = records.clone();
    other_facts[at].facts.pop();
    let Finding::Diverged(divergence) = finding(&genesis, other_facts) else { panic!("it diverges") };
    assert_eq!((divergence.seq, divergence.difference), (seq, Difference::Facts));
    assert!(divergence.decided.contains("Mapped") && !divergence.recorded.contains("Mapped"), "{divergence}");

    let mut other_reply = records.clone();
    other_reply[at].reply = RecordedReply::Whole(Reply::Refused(Refusal::TagNeeded));
    let Finding::Diverged(divergence) = finding(&genesis, other_reply) else { panic!("it diverges") };
    assert_eq!((divergence.seq, divergence.difference), (seq, Difference::Reply));

    let mut other_answers = records.clone();
    other_answers[at].answers.windows = None;
    let Finding::Diverged(divergence) = finding(&genesis, other_answers) else { panic!("it diverges") };
    assert_eq!((divergence.seq, divergence.difference), (seq, Difference::Answers));

    let mut missing = records;
    missing.remove(at);
    let found = finding(&genesis, missing).to_string();
    assert!(found.contains(&format!("#{} follows", at + 2)) || found.contains(&format!("#{}", at + 2)), "{found}");
}

#[test]
fn dcd_replay_tells_of_a_disagreement_and_exits_with_an_error() {
    let (genesis, mut records) = recorded();
    let rejected =
        |record: &Record| record.facts.iter().any(|fact| matches!(fact, Fact::Extents(extents::Fact::Rejected { .. })));
    let at = position(&records, rejected);
    for fact in &mut records[at].facts {
        if let Fact::Extents(extents::Fact::Rejected { reason, .. }) = fact {
            *reason = RejectReason::Host;
        }
    }
    let dir = tempfile::tempdir().expect("a directory");
    let journal = dir.path().join("journal");
    let options = Options { record_version: RECORD_VERSION, ..Options::default() };
    let forged = Journal::create(&journal, &genesis.to_bytes(), options).expect("a journal");
    for record in &records {
        forged.append(|_| (record.to_bytes(), ())).expect("appended");
    }
    forged.close().expect("closed");
    let output = verb(&["replay", "--check", journal.to_str().expect("a path")]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(said.contains(&format!("{at} of {} records agree with this build", records.len())), "{said}");
    assert!(said.contains(&format!("#{}: the facts differ", at + 1)), "{said}");
    assert!(said.contains("recorded:") && said.contains("reason: Host"), "{said}");
    assert!(said.contains("decided:") && said.contains("reason: Reset"), "{said}");
}

/// A journal is input from outside: whatever its records say, folding ends in a finding, not in a panic.
#[test]
fn forged_records_are_found_and_never_panic() {
    let (genesis, records) = recorded();
    let bodies: Vec<_> = records.iter().map(Record::to_bytes).collect();
    let mut dice = 0x5bd1_e995_u64;
    let mut roll = |sides: usize| {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (dice >> 33) as usize % sides
    };
    let (mut readable, mut found) = (0, 0);
    for _ in 0..20_000 {
        let at = roll(bodies.len());
        let mut body = bodies[at].clone();
        for _ in 0..=roll(3) {
            let place = roll(body.len());
            body[place] = [0, 1, 0x7f, 0x80, 0xff, body[place].wrapping_add(1)][roll(6)];
        }
        let Ok(forged) = Record::from_bytes(&body) else { continue };
        readable += 1;
        let mut fold = replay::Fold::new(&genesis).expect("a VM");
        let all = records[..at].iter().chain([&forged]).chain(&records[at + 1..]);
        for record in all {
            // Both are tried on every record: neither may panic, whatever came before.
            let differs = replay::recheck(fold.vm(), record).is_err();
            if fold.apply(record).is_err() || differs {
                found += 1;
                break;
            }
        }
    }
    assert!(readable > 2_000 && found > 1_000, "{readable} forged records could be read, {found} were found");
}
