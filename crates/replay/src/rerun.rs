//! Deciding on: recorded inputs through this build's `plan` and `decide`, from a state of one's choice.
//!
//! ```text
//!  steps (inputs with what the host said) ──▶ decide ──▶ admit ──▶ evolve ──▶ records
//! ```
//!
//! An input is what reached the device, not why: a guest that would have sent something else in the changed run is not
//! there to do so. In a run with its *own* numbers a step keeps the sequence of the record that it is from, so that two
//! runs can be compared record by record though steps are missing; a *gapless* run is what a journal holds. Nothing of a
//! decision depends on more than the order of sequences. Deliberately absent: facts, of which a run makes new ones.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use device::config::DeviceIndex;
use device::laws::Before;
use device::operation::{Answers, Fact, HostOutcome, Input, decide};
use device::vm::Vm;
use device::{Seq, Stamp, VmTime, backends};
use journal::record::{Origin, Record, RecordedReply};
use serde::{Deserialize, Serialize};

use crate::recheck::panic_message;
use crate::row::fact_told;

/// One input and all that deciding it needs beside the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The record that it is from.
    pub record: Seq,
    /// VM clock in nanoseconds.
    pub time: VmTime,
    /// Whose.
    pub device: DeviceIndex,
    /// The operation that it belongs to.
    pub operation: Seq,
    /// Where it came from.
    pub origin: Origin,
    /// What was decided on.
    pub input: Input,
    /// What came of host work.
    pub outcomes: Vec<HostOutcome>,
}

impl Step {
    /// What a record was decided from.
    pub fn of(record: &Record) -> Self {
        let Record { stamp, device, operation, origin, input, outcomes, .. } = record;
        Self {
            record: stamp.seq,
            time: stamp.time,
            device: *device,
            operation: *operation,
            origin: *origin,
            input: input.clone(),
            outcomes: outcomes.clone(),
        }
    }
}

/// How records of a run are numbered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Numbers {
    /// Each has that of the record from which its step is.
    Own,
    /// One by one behind this record.
    GaplessAfter(Seq),
}

/// A record of a run, and the change that it made.
pub struct Decided<'a> {
    /// The step.
    pub step: &'a Step,
    /// What was decided.
    pub record: &'a Record,
    /// What laws remember of the state before.
    pub before: &'a Before<'a>,
    /// The state after.
    pub after: &'a Vm,
}

/// Who watches a run, record by record; a break ends it.
pub type Visitor<'a> = dyn FnMut(&Decided<'_>) -> ControlFlow<()> + 'a;

/// Where a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All steps are done, or the visitor had enough.
    Done,
    /// Deciding panicked, which stops a VM; the record says so and is the last.
    Panicked(String),
    /// This build decided what cannot be true: a bug of it.
    Unfit {
        /// The record.
        seq: Seq,
        /// Why.
        reason: String,
    },
}

/// Runs steps from a state on. A step for a device that is not there reaches nobody and leaves no record.
pub fn rerun(vm: &mut Vm, steps: &[Step], numbers: Numbers, visitor: &mut Visitor<'_>) -> End {
    let mut run = Run { places: Vec::new(), numbers };
    for step in steps {
        let Some(record) = run.decide(vm, step) else { continue };
        let before = Before::of(vm, record.device, record.stamp.seq, &record.facts);
        for fact in &record.facts {
            if let Err(reason) = vm.admit(record.device, fact) {
                return End::Unfit { seq: record.stamp.seq, reason: in_words(fact, &reason) };
            }
            vm.evolve(record.device, record.stamp, fact);
        }
        if visitor(&Decided { step, record: &record, before: &before, after: vm }).is_break() {
            return End::Done;
        }
        if let RecordedReply::Panicked(message) = record.reply {
            return End::Panicked(message);
        }
    }
    End::Done
}

/// Runs steps from a state on and keeps all records.
pub fn rerun_all(mut vm: Vm, steps: &[Step], numbers: Numbers) -> (Vec<Record>, End) {
    let mut records = Vec::new();
    let end = rerun(&mut vm, steps, numbers, &mut |decided| {
        records.push(decided.record.clone());
        ControlFlow::Continue(())
    });
    (records, end)
}

/// A reason that quotes a fact as the program has it, with the fact as people read it. Of a device that cannot be, why.
fn in_words(fact: &Fact, reason: &str) -> String {
    if let Fact::Backends(backends::Fact::DeviceAdded { config, .. }) = fact
        && let Err(error) = config.check()
    {
        return error.to_string();
    }
    match reason.rfind(" does not fit ") {
        Some(at) => format!("'{}'{}", fact_told(fact), &reason[at..]),
        None => reason.to_owned(),
    }
}

struct Run {
    /// Of each record from which a step was, the place in this run; rising.
    places: Vec<(Seq, Seq)>,
    numbers: Numbers,
}

impl Run {
    fn decide(&mut self, vm: &Vm, step: &Step) -> Option<Record> {
        let Step { record, time, device, operation, origin, input, outcomes } = step;
        let seq = match self.numbers {
            Numbers::Own => *record,
            Numbers::GaplessAfter(last) => Seq(last.0 + 1 + self.places.len() as u64),
        };
        let stamp = Stamp { seq, time: *time };
        let input = present(vm, input);
        let decision = || decide(vm, *device, stamp, &input, outcomes);
        let (answers, facts, reply) = match catch_unwind(AssertUnwindSafe(decision)) {
            Ok(None) => return None,
            Ok(Some((answers, decision))) => (answers, decision.facts, RecordedReply::of(&decision.reply)),
            Err(panic) => (Answers::default(), Vec::new(), RecordedReply::Panicked(panic_message(&*panic))),
        };
        self.places.push((*record, seq));
        let place = |old: Seq| {
            let index = self.places.binary_search_by_key(&old, |(old, _)| *old).ok()?;
            self.places.get(index).map(|(_, now)| *now)
        };
        let operation = place(*operation).unwrap_or(seq);
        let origin = match *origin {
            Origin::CausedBy(cause) => place(cause).map_or(Origin::Supervisor, Origin::CausedBy),
            origin => origin,
        };
        let (device, outcomes) = (*device, outcomes.clone());
        Some(Record { stamp, device, operation, origin, input, outcomes, answers, facts, reply })
    }
}

/// A run that starts finds the backends that there are, not those of another run.
fn present(vm: &Vm, input: &Input) -> Input {
    match input {
        Input::Backends(backends::Input::RunStart { build, survivals }) => {
            let there = survivals.iter().filter(|(id, _)| vm.backends.get(id).is_some()).cloned().collect();
            Input::Backends(backends::Input::RunStart { build: build.clone(), survivals: there })
        }
        input => input.clone(),
    }
}
