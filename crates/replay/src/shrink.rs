//! Shrinking: from a recording of the field to the few inputs that still show what is wrong.
//!
//! ```text
//!  record that shows it ─▶ what it names and what names that: a slice ─── enough ──┐
//!                                 │ not enough                                     ├─▶ halves, quarters, … single
//!  all up to it ◀─────────────────┘ ─▶ whole kinds away ─▶ whole lives away ───────┘   operations away ─▶ neighbours and
//!                                                                                       pairs away ─▶ simpler inputs
//! ```
//!
//! Every candidate is decided by this build from the state at which the journal begins, so that what stays is a journal like
//! any other.
//! Deliberately absent: a search for another bug. What counts is the one question, asked after every record.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use device::inspect::{self, Path, Value};
use device::laws::{Law, Watch};
use device::operation::{Actor, Fact};
use device::vm::Vm;
use device::{Seq, extents};
use journal::record::{Record, RecordedReply};
use thiserror::Error;

use crate::fold::FoldError;
use crate::history::{History, HistoryError, PathValue};
use crate::position::parse_seq;
use crate::recheck::{Divergence, recheck};
use crate::renumber::renumber;
use crate::rerun::{Decided, Numbers, Step, rerun, rerun_all};
use crate::simplify::simpler;
use crate::slice::{REACHES, lives, slice};
use crate::weight::weight;

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
    /// It is so before any input.
    #[error("nothing to shrink: '{question}' is so {}: 0 inputs show it", whence(*at))]
    FromStart {
        /// What was asked.
        question: String,
        /// The state at which the journal begins.
        at: Seq,
    },
    /// The value is a record, and records have other numbers in what is left.
    #[error(
        "'{question}' cannot be shrunk: its value is a record, and in what is left the records are numbered anew; ask for {instead}"
    )]
    Cites {
        /// What was asked.
        question: String,
        /// What to ask instead.
        instead: String,
    },
    /// What is left shows it only as long as its records have the numbers that they had.
    #[error(
        "'{question}' cannot be shrunk: in what is left the records are numbered anew, and then it is not so; ask for something that names no record"
    )]
    Renumbered {
        /// What was asked.
        question: String,
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

/// How a search for fewer inputs ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Nothing that is tried makes it less.
    Done,
    /// Enough was decided: fewer may show it, too.
    GivenUp,
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
    /// How the search ended.
    pub search: Search,
    /// What is wrong there, in a sentence.
    pub detail: String,
}

/// Whether the journal as recorded shows it, and where.
///
/// # Errors
/// If it does not fold up to there.
fn recorded(history: &History, question: &Question) -> Result<Option<Seq>, FoldError> {
    match question {
        Question::Law(law) if law.check_state(history.start().vm()).is_err() => Ok(Some(history.start().last())),
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
    refuse(history, question, there)?;
    let mut trial = Trial::new(history, question, there)?;
    let mut shows = |steps: &[Step]| {
        if trial.is_spent() {
            return Verdict::GivenUp;
        }
        let shown = trial.shown(steps);
        progress(trial.runs, steps.len());
        shown.map_or(Verdict::No, |shown| Verdict::Shows(shown.at))
    };
    let steps = match there.and_then(|at| sliced(history, at, &mut shows)) {
        Some(steps) => steps,
        None => cut(history, &mut shows).ok_or_else(|| not_there(history, question, there))?,
    };
    let run_weight = weight(history.start().vm());
    let mut steps = fewest_together(fewest(steps, &operation, &mut shows), run_weight, &mut shows);
    loop {
        while steps.len() <= UNITS_FEW
            && let Some(better) =
                simpler(&steps, history.start().time()).into_iter().find(|steps| shows(steps).is_yes())
        {
            steps = fewest(better, &operation, &mut shows);
        }
        let len = steps.len();
        steps = fewest_together(steps, run_weight, &mut shows);
        if steps.len() == len {
            break;
        }
    }
    let shrunk = trial.finish(steps, history.records().len())?;
    kept(history, question, shrunk)
}

/// Why the question cannot be shrunk, whatever the inputs: it is so before them all, or its value is a record.
fn refuse(history: &History, question: &Question, there: Option<Seq>) -> Result<(), ShrinkError> {
    let Some(at) = there else { return Ok(()) };
    if at == history.start().last() {
        return Err(ShrinkError::FromStart { question: question.to_string(), at });
    }
    // A fold more, only for a text that may be a record.
    let Question::Path(wanted) = question else { return Ok(()) };
    if parse_seq(&wanted.value).is_err() {
        return Ok(());
    }
    let (before, after) = (history.folded(Seq(at.0 - 1))?, history.folded(at)?);
    match inspect::value(after.vm(), &wanted.path) {
        Some(Value::Record(_)) => {
            let instead =
                instead(before.vm(), after.vm(), wanted).unwrap_or_else(|| "a value that is no record".into());
            Err(ShrinkError::Cites { question: question.to_string(), instead })
        }
        _ => Ok(()),
    }
}

/// What became so beside a value that is a record.
fn instead(before: &Vm, after: &Vm, wanted: &PathValue) -> Option<String> {
    let (spelled, _) = inspect::values(after, &wanted.path).ok()?.into_iter().next()?;
    let beside: Path = spelled.rsplit_once('.')?.0.parse().ok()?;
    let changes = inspect::changes(before, after, &beside).into_iter();
    let mut values = changes.filter_map(|change| change.after.map(|value| (change.path, value)));
    let (path, value) = values.find(|(_, value)| !matches!(value, Value::Record(_)))?;
    Some(format!("{path}={value}, which came with it"))
}

fn not_there(history: &History, question: &Question, there: Option<Seq>) -> ShrinkError {
    if let Some(at) = there {
        return ShrinkError::Decided { question: question.to_string(), at };
    }
    // That there is never such a path, or never one value, is worth more than that it has not this one.
    let refusal = match question {
        Question::Path(wanted) => history.stood(&wanted.path).map(|stood| stood.refusal(&wanted.path)),
        Question::Law(_) | Question::Panics | Question::Diverges => Ok(None),
    };
    match refusal {
        Ok(Some(refusal)) => refusal.into(),
        Ok(None) => ShrinkError::NotThere { question: question.to_string(), records: history.records().len() as u64 },
        Err(error) => error.into(),
    }
}

/// What is left as a journal of its own, which must show it whoever asks: records have other numbers there, and a question
/// may name one.
fn kept(history: &History, question: &Question, mut shrunk: Shrunk) -> Result<Shrunk, ShrinkError> {
    let few = History::behind(history.genesis().clone(), history.start().clone(), shrunk.records.clone());
    let at = recorded(&few, question)?;
    shrunk.at = at.ok_or_else(|| ShrinkError::Renumbered { question: question.to_string() })?;
    Ok(shrunk)
}

fn whence(at: Seq) -> String {
    match at {
        Seq(0) => "from the start".to_owned(),
        at => format!("at {at} already, where the journal begins"),
    }
}

/// Whether a run of steps shows it.
enum Verdict {
    /// It does, and this record first.
    Shows(Seq),
    /// It does not.
    No,
    /// It was not run: enough was.
    GivenUp,
}

impl Verdict {
    fn is_yes(&self) -> bool {
        matches!(self, Self::Shows(_))
    }
}

/// Runs steps.
type Shows<'a> = dyn FnMut(&[Step]) -> Verdict + 'a;

/// So many steps are decided in all, runs and what it takes to begin them: most of a minute. What cannot be made short is left
/// long: a generation of 56,000 among a million records once took hours.
const STEPS_MAX: u64 = 9_000_000;

/// As many for a journal of so many records: never fewer than it takes to see whether it shows it at all. What was not run would
/// be taken for what this build decides otherwise.
fn steps_max(records: usize, run_weight: u64) -> u64 {
    let runs = REACHES.len() as u64 + 1;
    STEPS_MAX.max(runs * (records as u64 + run_weight))
}

/// The shortest slice of the record that shows it as recorded, if it is enough.
fn sliced(history: &History, at: Seq, shows: &mut Shows<'_>) -> Option<Vec<Step>> {
    REACHES.into_iter().find_map(|reach| {
        let operations = slice(history.up_to(at), reach);
        let records = history.up_to(at).iter();
        let steps: Vec<_> = records.filter(|record| operations.contains(&record.operation)).map(Step::of).collect();
        shows(&steps).is_yes().then_some(steps)
    })
}

/// All steps up to where they show it, without whole kinds and whole lives that do not matter; nothing where they do not.
fn cut(history: &History, shows: &mut Shows<'_>) -> Option<Vec<Step>> {
    let mut steps: Vec<_> = history.records().iter().map(Step::of).collect();
    let Verdict::Shows(at) = shows(&steps) else { return None };
    steps.truncate(steps.partition_point(|step| step.record <= at));
    for kind in kinds(history, &steps) {
        let fewer: Vec<_> = steps.iter().filter(|step| !kind.contains(&step.operation)).cloned().collect();
        if fewer.len() < steps.len() && shows(&fewer).is_yes() {
            steps = fewer;
        }
    }
    let lives = lives(history.up_to(at));
    let life = |step: &Step| lives.get(&step.operation).copied().unwrap_or(step.operation);
    Some(fewest(steps, &life, shows))
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
fn fewest(mut steps: Vec<Step>, unit: &dyn Fn(&Step) -> Seq, shows: &mut Shows<'_>) -> Vec<Step> {
    let mut chunk = units(&steps, unit).len().div_ceil(2);
    while chunk > 0 {
        let (mut at, mut is_shorter) = (0, false);
        loop {
            let units = units(&steps, unit);
            let Some(first) = units.get(at) else { break };
            let behind = units.get(at + chunk);
            let is_out = |step: &Step| unit(step) >= *first && behind.is_none_or(|next| unit(step) < *next);
            let fewer: Vec<_> = steps.iter().filter(|step| !is_out(step)).cloned().collect();
            match shows(&fewer) {
                Verdict::Shows(_) => (steps, is_shorter) = (fewer, true),
                Verdict::No => at += chunk,
                Verdict::GivenUp => return steps,
            }
        }
        // What could not go alone may go now that others are gone.
        chunk = if chunk == 1 && is_shorter { 1 } else { chunk / 2 };
    }
    steps
}

/// So many operations that follow each other are tried together, wherever they begin.
const NEIGHBOURS_MAX: usize = 8;

/// Of so many operations every two are tried together, and each is made simpler.
const UNITS_FEW: usize = 256;

/// No more steps than that are decided to find operations that can only go together: seconds.
const TOGETHER_STEPS_MAX: u64 = 2_000_000;

/// Takes operations away that can only go together: an offer and the answer that rejects it, of which either alone would
/// leave the other to the next one. Neighbours first, then any two, those that are near each other first. `run_weight` is
/// what it takes to begin a run, in steps.
fn fewest_together(mut steps: Vec<Step>, run_weight: u64, shows: &mut Shows<'_>) -> Vec<Step> {
    let mut spent = 0;
    let mut is_less = |steps: &mut Vec<Step>, out: &[Seq]| {
        spent += steps.len() as u64 + run_weight;
        let fewer: Vec<_> = steps.iter().filter(|step| !out.contains(&operation(step))).cloned().collect();
        let verdict = if spent > TOGETHER_STEPS_MAX { Verdict::GivenUp } else { shows(&fewer) };
        if verdict.is_yes() {
            *steps = fewer;
        }
        verdict
    };
    // None can go alone.
    let mut taken_min = 2;
    loop {
        let len = steps.len();
        let count = units(&steps, &operation).len();
        let neighbours = (taken_min..=NEIGHBOURS_MAX).map(|taken| (taken, 1));
        let pairs = (2..count).filter(|_| count <= UNITS_FEW).map(|distance| (2, distance));
        for (taken, distance) in neighbours.chain(pairs) {
            let mut at = 0;
            loop {
                let units = units(&steps, &operation);
                let out: Vec<_> = units.iter().skip(at).step_by(distance).take(taken).copied().collect();
                if out.len() < taken {
                    break;
                }
                match is_less(&mut steps, &out) {
                    Verdict::Shows(_) => {}
                    Verdict::No => at += 1,
                    Verdict::GivenUp => return steps,
                }
            }
        }
        if steps.len() == len {
            return steps;
        }
        // What could not go may go now that others are gone.
        taken_min = 1;
    }
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
    /// Steps that were decided, and for each run what it takes to copy the state; and how many may be.
    spent: u64,
    steps_max: u64,
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
        let steps_max = steps_max(history.records().len(), weight(&start));
        let mut trial = Self { start, before, question, target: None, runs: 0, spent: 0, steps_max };
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

    /// Whether enough was decided.
    fn is_spent(&self) -> bool {
        self.spent > self.steps_max
    }

    /// Where a run of these steps shows it first.
    fn shown(&mut self, steps: &[Step]) -> Option<Shown> {
        self.runs += 1;
        let (mut shown, mut watch, mut decided_steps) = (None, Watch::of(&self.start), 0);
        rerun(&mut self.start.clone(), steps, Numbers::Own, &mut |decided| {
            decided_steps += 1;
            match self.ask(decided, &mut watch) {
                Answer::No => ControlFlow::Continue(()),
                Answer::NoMore => ControlFlow::Break(()),
                Answer::Yes(detail) => {
                    shown = Some(Shown { at: decided.record.stamp.seq, detail });
                    ControlFlow::Break(())
                }
            }
        });
        self.spent += decided_steps + weight(&self.start);
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
        let search = if self.is_spent() { Search::GivenUp } else { Search::Done };
        let shown = self.shown(&steps);
        let detail = shown.map(|shown| shown.detail).ok_or_else(gone)?;
        if let Some(target) = &self.target {
            // The recorded side is what is wrong: it stands in the place of what this build decides.
            records.pop();
            let places = steps.iter().zip(self.before.0 + 1..).map(|(step, place)| (step.record, Seq(place))).collect();
            records.push(renumber(target.recorded.clone(), steps.last().map(|step| step.time), &places));
        }
        let at = Seq(self.before.0 + records.len() as u64);
        Ok(Shrunk { steps, records, at, from, runs, search, detail })
    }
}

/// What one record says to the question.
enum Answer {
    Yes(String),
    No,
    /// No, and no later one can.
    NoMore,
}

#[cfg(test)]
mod tests {
    use device::VmTime;
    use device::config::DeviceIndex;
    use device::operation::Input;
    use journal::record::Origin;

    use super::*;

    fn step(seq: u64) -> Step {
        let record = Seq(seq);
        let (input, origin) = (Input::Extents(extents::Input::Reset), Origin::Guest);
        Step { record, time: VmTime(0), device: DeviceIndex(0), operation: record, origin, input, outcomes: Vec::new() }
    }

    /// Whether the offers 1, 3, 5, … stand with their answers, which are 3 places behind, and so does the wanted one.
    fn shows(steps: &[Step]) -> bool {
        let has = |seq: u64| steps.iter().any(|step| step.record == Seq(seq));
        has(200) && (1..=99).step_by(2).all(|offer| has(offer) == has(offer + 3))
    }

    /// Seen as: 103 inputs left of a long journal where 9 are enough.
    #[test]
    fn what_can_only_go_together_goes_together() {
        let all: Vec<_> = (1..=102).filter(|seq| *seq != 2).chain([200]).map(step).collect();
        let mut runs = 0;
        let mut shows = |steps: &[Step]| {
            runs += 1;
            if shows(steps) { Verdict::Shows(Seq(200)) } else { Verdict::No }
        };
        assert!(shows(&all).is_yes());
        let alone = fewest(all, &operation, &mut shows);
        assert!(alone.len() > 50, "{}", alone.len());
        let together = fewest_together(alone, 0, &mut shows);
        assert_eq!(together.iter().map(|step| step.record.0).collect::<Vec<_>>(), [200]);
        assert!(runs < 2_000, "{runs} runs");
    }

    /// However many are left, looking for them ends.
    #[test]
    fn what_never_goes_together_ends() {
        let all: Vec<_> = (1..=250).map(step).collect();
        let mut steps_decided = 0;
        let left = fewest_together(all, 0, &mut |steps| {
            steps_decided += steps.len() as u64;
            Verdict::No
        });
        assert_eq!(left.len(), 250);
        assert!(steps_decided <= TOGETHER_STEPS_MAX && steps_decided > TOGETHER_STEPS_MAX / 2, "{steps_decided}");
    }

    /// Seen as: hours for a value that takes 56,000 of a million records, of which each was tried alone.
    #[test]
    fn what_cannot_be_made_short_is_given_up() {
        let all: Vec<_> = (1..=1_000).map(step).collect();
        let mut runs = 0;
        let left = fewest(all, &operation, &mut |steps| {
            runs += 1;
            match runs {
                1 => Verdict::Shows(steps[0].record),
                2..=10 => Verdict::No,
                _ => Verdict::GivenUp,
            }
        });
        assert_eq!((left.len(), runs), (500, 11));
    }
}
