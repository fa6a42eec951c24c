//! Shrinking: from a recording of the field to the few inputs that still show what is wrong.
//!
//! ```text
//!  record that shows it ─▶ what it names and what names that: a slice ─── enough ──┐
//!                                 │ not enough                                     ├─▶ halves, quarters, … single
//!  all up to it ◀─────────────────┘ ─▶ whole kinds away ─▶ whole lives away ───────┘   operations away ─▶ simpler inputs
//! ```
//!
//! Every candidate is decided by this build from the state at which the journal begins, so that what stays is a journal like
//! any other.
//! Deliberately absent: a search for another bug. What counts is the one question, asked after every record.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use device::laws::{Law, Watch};
use device::operation::{Actor, Fact};
use device::vm::Vm;
use device::{Seq, extents};
use journal::record::{Record, RecordedReply};
use thiserror::Error;

use crate::fold::FoldError;
use crate::history::{History, HistoryError, PathValue};
use crate::recheck::{Divergence, recheck};
use crate::renumber::renumber;
use crate::rerun::{Decided, Numbers, Step, rerun, rerun_all};
use crate::simplify::simpler;
use crate::slice::{REACHES, lives, slice};

/// What a shrunk journal must still show.
#[derive(Clone)]
pub enum Question {
    /// A law is broken.
    Law(&'static Law),
    /// A path has a value.
    Path(PathValue),
    /// Deciding panics.
    Panics,
    /// What is recorded is not what this build decides: the first such record, and both of its sides as they are.
    Diverges,
}

impl std::fmt::Display for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Law(law) => write!(f, "law {} is broken", law.name),
            Self::Path(wanted) => wanted.fmt(f),
            Self::Panics => f.write_str("deciding panics"),
            Self::Diverges => f.write_str("the recorded decision is not this build's"),
        }
    }
}

/// Why there is nothing to shrink.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ShrinkError {
    /// The journal does not show it.
    #[error("nothing to shrink: '{question}' is not so after any of {records} records")]
    NotThere {
        /// What was asked.
        question: String,
        /// How many records there are.
        records: u64,
    },
    /// A position of it cannot be had.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The journal shows it, and this build does not decide so any more.
    #[error(
        "'{question}' is so at {at} as it was recorded; this build decides otherwise and does not come there: see dcd replay --check, or shrink with --diverges"
    )]
    Decided {
        /// What was asked.
        question: String,
        /// Where it is so.
        at: Seq,
    },
    /// The journal does not fold.
    #[error(transparent)]
    Fold(#[from] FoldError),
}

/// What is left.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The steps, each with the record that it is from.
    pub steps: Vec<Step>,
    /// Their records, gapless.
    pub records: Vec<Record>,
    /// The record that shows it.
    pub at: Seq,
    /// How many inputs there were.
    pub from: usize,
    /// How many candidates were decided.
    pub runs: u64,
    /// What is wrong there, in a sentence.
    pub detail: String,
}

/// Whether the journal as recorded shows it, and where.
///
/// # Errors
/// If it does not fold up to there.
fn recorded(history: &History, question: &Question) -> Result<Option<Seq>, FoldError> {
    match question {
        Question::Law(law) => Ok(history.first_broken(law)?.map(|(seq, _)| seq)),
        Question::Path(wanted) => history.first_value(wanted),
        Question::Panics => {
            let panics = |record: &&Record| matches!(record.reply, RecordedReply::Panicked(_));
            Ok(history.records().iter().find(panics).map(|record| record.stamp.seq))
        }
        Question::Diverges => Ok(history.first_divergence()?.map(|divergence| divergence.seq)),
    }
}

/// Shrinks a journal.
///
/// # Errors
/// If this build, deciding the journal's inputs, does not come to what is asked.
pub fn shrink(
    history: &History,
    question: &Question,
    progress: &mut dyn FnMut(u64, usize),
) -> Result<Shrunk, ShrinkError> {
    let there = recorded(history, question)?;
    let mut trial = Trial::new(history, question, there)?;
    let mut shows = |steps: &[Step]| {
        let shown = trial.shown(steps);
        progress(trial.runs, steps.len());
        shown.map(|shown| shown.at)
    };
    let steps = match there.and_then(|at| sliced(history, at, &mut shows)) {
        Some(steps) => steps,
        None => cut(history, &mut shows).ok_or_else(|| {
            let question = question.to_string();
            match there {
                Some(at) => ShrinkError::Decided { question, at },
                None => ShrinkError::NotThere { question, records: history.records().len() as u64 },
            }
        })?,
    };
    let shows = &mut |steps: &[Step]| shows(steps).is_some();
    let mut steps = fewest(steps, &operation, shows);
    while let Some(better) = simpler(&steps, history.start().time()).into_iter().find(|candidate| shows(candidate)) {
        steps = fewest(better, &operation, shows);
    }
    trial.finish(steps, history.records().len())
}

/// Where a run of steps shows it first.
type Shows<'a> = dyn FnMut(&[Step]) -> Option<Seq> + 'a;

/// The shortest slice of the record that shows it as recorded, if it is enough.
fn sliced(history: &History, at: Seq, shows: &mut Shows<'_>) -> Option<Vec<Step>> {
    REACHES.into_iter().find_map(|reach| {
        let operations = slice(history.up_to(at), reach);
        let records = history.up_to(at).iter();
        let steps: Vec<_> = records.filter(|record| operations.contains(&record.operation)).map(Step::of).collect();
        shows(&steps).is_some().then_some(steps)
    })
}

/// All steps up to where they show it, without whole kinds and whole lives that do not matter; nothing where they do not.
fn cut(history: &History, shows: &mut Shows<'_>) -> Option<Vec<Step>> {
    let mut steps: Vec<_> = history.records().iter().map(Step::of).collect();
    let at = shows(&steps)?;
    steps.truncate(steps.partition_point(|step| step.record <= at));
    for kind in kinds(history, &steps) {
        let fewer: Vec<_> = steps.iter().filter(|step| !kind.contains(&step.operation)).cloned().collect();
        if fewer.len() < steps.len() && shows(&fewer).is_some() {
            steps = fewer;
        }
    }
    let lives = lives(history.up_to(at));
    let life = |step: &Step| lives.get(&step.operation).copied().unwrap_or(step.operation);
    Some(fewest(steps, &life, &mut |steps| shows(steps).is_some()))
}

fn operation(step: &Step) -> Seq {
    step.operation
}

/// Sets of operations that often matter to nobody, largest first: those that decided nothing, those of one actor, those
/// of one tag.
fn kinds(history: &History, steps: &[Step]) -> Vec<BTreeSet<Seq>> {
    let records = &history.records()[..steps.len()];
    let of = |is_kind: &dyn Fn(&Record) -> bool| -> BTreeSet<Seq> {
        records.iter().filter(|record| is_kind(record)).map(|record| record.operation).collect()
    };
    let mut kinds = vec![of(&|record| record.facts.is_empty())];
    for actor in [Actor::Mailbox, Actor::Windows] {
        kinds.push(of(&|record| record.actor() == actor));
    }
    kinds.push(of(&|record| record.facts.iter().all(is_of_log)));
    kinds
}

/// Whether a fact only moves the event log, which most of what goes wrong does not need.
fn is_of_log(fact: &Fact) -> bool {
    matches!(fact, Fact::Extents(extents::Fact::EventsCleared { .. } | extents::Fact::AllEventsCleared))
}

/// Takes units away, operations or more, as long as the rest still shows it: in halves, in quarters, in the end one by one.
fn fewest(mut steps: Vec<Step>, unit: &dyn Fn(&Step) -> Seq, shows: &mut dyn FnMut(&[Step]) -> bool) -> Vec<Step> {
    let mut chunk = units(&steps, unit).len().div_ceil(2);
    while chunk > 0 {
        let (mut at, mut is_shorter) = (0, false);
        loop {
            let units = units(&steps, unit);
            let Some(first) = units.get(at) else { break };
            let behind = units.get(at + chunk);
            let is_out = |step: &Step| unit(step) >= *first && behind.is_none_or(|next| unit(step) < *next);
            let fewer: Vec<_> = steps.iter().filter(|step| !is_out(step)).cloned().collect();
            if shows(&fewer) {
                (steps, is_shorter) = (fewer, true);
            } else {
                at += chunk;
            }
        }
        // What could not go alone may go now that others are gone.
        chunk = if chunk == 1 && is_shorter { 1 } else { chunk / 2 };
    }
    steps
}

fn units(steps: &[Step], unit: &dyn Fn(&Step) -> Seq) -> Vec<Seq> {
    let mut units: Vec<_> = steps.iter().map(unit).collect();
    units.sort_unstable();
    units.dedup();
    units
}

/// Where a run shows it.
struct Shown {
    at: Seq,
    detail: String,
}

/// The question, and what a run must be held against.
struct Trial<'a> {
    start: Vm,
    /// The record after which that is the state.
    before: Seq,
    question: &'a Question,
    target: Option<Target>,
    runs: u64,
}

/// The record that diverges, and what this build makes of it.
struct Target {
    recorded: Record,
    decided: Record,
    divergence: Divergence,
}

impl<'a> Trial<'a> {
    fn new(history: &History, question: &'a Question, there: Option<Seq>) -> Result<Self, ShrinkError> {
        let (start, before) = (history.start().vm().clone(), history.start().last());
        let mut trial = Self { start, before, question, target: None, runs: 0 };
        if let (Question::Diverges, Some(at)) = (question, there) {
            // All before it are decided as they are recorded, so that the folded state is the decided one.
            let recorded = history.record(at)?.clone();
            let before = history.folded(Seq(at.0 - 1))?.into_vm();
            let divergence = recheck(&before, &recorded).err();
            let (mut decided, _) = rerun_all(before, &[Step::of(&recorded)], Numbers::Own);
            let sides = decided.pop().zip(divergence);
            trial.target = sides.map(|(decided, divergence)| Target { recorded, decided, divergence });
        }
        Ok(trial)
    }

    /// Where a run of these steps shows it first.
    fn shown(&mut self, steps: &[Step]) -> Option<Shown> {
        self.runs += 1;
        let (mut shown, mut watch) = (None, Watch::of(&self.start));
        rerun(&mut self.start.clone(), steps, Numbers::Own, &mut |decided| match self.ask(decided, &mut watch) {
            Answer::No => ControlFlow::Continue(()),
            Answer::NoMore => ControlFlow::Break(()),
            Answer::Yes(detail) => {
                shown = Some(Shown { at: decided.record.stamp.seq, detail });
                ControlFlow::Break(())
            }
        });
        shown
    }

    /// The question, after one record.
    fn ask(&self, decided: &Decided<'_>, watch: &mut Watch) -> Answer {
        let record = decided.record;
        match (self.question, &self.target) {
            (Question::Law(law), _) => match watch.check([*law], decided.before, decided.after) {
                Ok(()) => Answer::No,
                Err(broken) => Answer::Yes(broken.to_string()),
            },
            (Question::Path(wanted), _) if wanted.is_written_by(record) && wanted.holds(decided.after) => {
                Answer::Yes(wanted.to_string())
            }
            (Question::Panics, _) => match &record.reply {
                RecordedReply::Panicked(message) => Answer::Yes(message.clone()),
                RecordedReply::Whole(_) | RecordedReply::Digest { .. } => Answer::No,
            },
            (Question::Diverges, Some(target)) if record.stamp.seq == target.recorded.stamp.seq => {
                let is_as_it_was = record.answers == target.decided.answers
                    && record.facts == target.decided.facts
                    && record.reply == target.decided.reply;
                if is_as_it_was { Answer::Yes(target.divergence.to_string()) } else { Answer::NoMore }
            }
            (Question::Path(_) | Question::Diverges, _) => Answer::No,
        }
    }

    fn finish(&mut self, steps: Vec<Step>, from: usize) -> Result<Shrunk, ShrinkError> {
        let gone = || ShrinkError::NotThere { question: self.question.to_string(), records: steps.len() as u64 };
        let (mut records, _) = rerun_all(self.start.clone(), &steps, Numbers::GaplessAfter(self.before));
        let runs = self.runs;
        let shown = self.shown(&steps);
        let detail = shown.map(|shown| shown.detail).ok_or_else(gone)?;
        if let Some(target) = &self.target {
            // The recorded side is what is wrong: it stands in the place of what this build decides.
            records.pop();
            let places = steps.iter().zip(self.before.0 + 1..).map(|(step, place)| (step.record, Seq(place))).collect();
            records.push(renumber(target.recorded.clone(), steps.last().map(|step| step.time), &places));
        }
        let at = Seq(self.before.0 + records.len() as u64);
        Ok(Shrunk { steps, records, at, from, runs, detail })
    }
}

/// What one record says to the question.
enum Answer {
    Yes(String),
    No,
    /// No, and no later one can.
    NoMore,
}
