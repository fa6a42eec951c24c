//! A journal read whole, and every position of it within reach.
//!
//! ```text
//!  #0 ─────── keyframe ─────── keyframe ─────── #N
//!                 └─ clone, fold on ──▶ any position
//! ```
//!
//! Keyframes are states in memory, made on the way the first time that somebody passes, and never written. Deliberately
//! absent: decisions. A position is what the facts say, whatever this build would decide.

use device::inspect::{self, Path, PathError};
use device::laws::{Broken, Law};
use device::vm::Vm;
use device::{Seq, Stamp, VmTime};
use journal::record::{Genesis, Parent, Record};
use thiserror::Error;

use crate::fold::{Fold, FoldError, Foldable};
use crate::lawful::first_broken;
use crate::lineage::{Origin, origin};
use crate::position::TimeUnit;
use crate::recheck::{Divergence, recheck};
use crate::watched::{Watched, Written};
use crate::weight::weight;

/// Between two keyframes there are at least so many records.
const KEYFRAME_RECORDS_MIN: u64 = 6_000;

/// So few records are looked at one by one, however much there is to list.
const RECORDS_FEW: u64 = 16;

/// A position that a journal does not have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HistoryError {
    /// There is no such record.
    #[error("there is no {asked}: the journal ends with {last}")]
    NoSuchRecord {
        /// What was asked.
        asked: Seq,
        /// The last record.
        last: Seq,
    },
    /// The record was there once.
    #[error("{asked} is gone: of this journal what came before {first} was removed (--keep, dcd journal compact)")]
    Removed {
        /// What was asked.
        asked: Seq,
        /// The first state that is there.
        first: Seq,
    },
    /// The record is one of the journal at a state of which this one begins.
    #[error("{asked} is not in this journal, which begins at {first}: {change} of {journal}; ask that one")]
    Elsewhere {
        /// What was asked.
        asked: Seq,
        /// The first state that is there.
        first: Seq,
        /// Where that journal was.
        journal: String,
        /// What was done to it.
        change: String,
    },
    /// Two journals have no state in common.
    #[error("one journal ends with {last} and the other begins at {first}: there is nothing in common to compare")]
    Apart {
        /// The last record of the one.
        last: Seq,
        /// The first state of the other.
        first: Seq,
    },
    /// No record is so early, nor is the first state.
    #[error(
        "no record is as early as {}: the first is at {}; ask for that time or a later one, or for {first} itself", unit.told(*asked_ns), unit.told(*first_ns)
    )]
    TooEarly {
        /// What was asked.
        asked_ns: u64,
        /// The time of the first record, or that of the state before it.
        first_ns: u64,
        /// That record or state.
        first: Seq,
        /// The unit in which it was asked.
        unit: TimeUnit,
    },
    /// Nothing ever stood at the path.
    #[error("there is never a '{key}' in {place}: {there}")]
    Never {
        /// What was asked.
        key: String,
        /// How far the path goes.
        place: String,
        /// What is there.
        there: String,
    },
    /// At the path stands more than a value.
    #[error("{path} is no value: ask for one of {parts}")]
    NoValue {
        /// What was asked.
        path: String,
        /// What stands below it.
        parts: String,
    },
    /// The facts up to there do not fit each other.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// There is nothing at the path.
    #[error("at {at}: {error}")]
    Path {
        /// The position.
        at: Seq,
        /// What is there.
        error: PathError,
    },
    /// The law holds to the end.
    #[error("law {law} holds after each of {records} records")]
    Holds {
        /// The law.
        law: &'static str,
        /// How many records there are.
        records: u64,
    },
}

impl HistoryError {
    /// What was asked is before the first state of a journal.
    pub(crate) fn before(genesis: &Genesis, asked: Seq, first: Seq) -> Self {
        match origin(genesis, first) {
            Origin::Parent(Parent { journal, change, .. }) => {
                Self::Elsewhere { asked, first, journal: journal.clone(), change: change.clone() }
            }
            Origin::PowerOn | Origin::Removed => Self::Removed { asked, first },
        }
    }
}

/// A journal and the keyframes that were passed.
pub struct History {
    genesis: Genesis,
    records: Vec<Record>,
    keyframes: Vec<Fold>,
}

impl History {
    /// A journal's records, #1 first.
    ///
    /// # Errors
    /// If the genesis describes a VM that cannot be.
    pub fn new(genesis: Genesis, records: Vec<Record>) -> Result<Self, FoldError> {
        let start = Fold::new(&genesis)?;
        Ok(Self::behind(genesis, start, records))
    }

    /// The records of a journal that follow a state.
    pub fn behind(genesis: Genesis, start: Fold, records: Vec<Record>) -> Self {
        Self { genesis, records, keyframes: vec![start] }
    }

    /// The first state that is there: that before all records, or that behind which records were kept.
    pub fn start(&self) -> &Fold {
        &self.keyframes[0]
    }

    /// The records behind one position and up to another, both of which are there.
    fn span(&self, from: Seq, to: Seq) -> &[Record] {
        let index = |seq: Seq| (seq.0 - self.start().last().0) as usize;
        &self.records[index(from)..index(to)]
    }

    /// What the VM was started as.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// All records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The records up to a position.
    ///
    /// # Errors
    /// If there is no such position.
    pub fn records_up_to(&self, seq: Seq) -> Result<&[Record], HistoryError> {
        self.check_position(seq)?;
        Ok(self.up_to(seq))
    }

    /// As [`History::records_up_to`], for a position that is there.
    pub(crate) fn up_to(&self, seq: Seq) -> &[Record] {
        self.span(self.start().last(), seq)
    }

    /// The records behind a position that is there.
    pub(crate) fn behind_position(&self, seq: Seq) -> &[Record] {
        self.span(seq, self.last())
    }

    /// The last record, or the state before them all where there is none.
    pub fn last(&self) -> Seq {
        Seq(self.start().last().0 + self.records.len() as u64)
    }

    /// A record by its sequence.
    ///
    /// # Errors
    /// If there is none.
    pub fn record(&self, seq: Seq) -> Result<&Record, HistoryError> {
        self.check_position(seq)?;
        self.up_to(seq).last().ok_or_else(|| match self.start().last() {
            Seq(0) => HistoryError::NoSuchRecord { asked: seq, last: self.last() },
            first => HistoryError::before(&self.genesis, seq, first),
        })
    }

    /// The last record that is not later than a time; where all are, and the first state is not, that state.
    ///
    /// # Errors
    /// If all are later.
    pub fn at_time(&self, time: VmTime) -> Result<Seq, HistoryError> {
        match self.records.partition_point(|record| record.stamp.time <= time) {
            0 => match self.start() {
                start if start.last() > Seq(0) && start.time() <= time => Ok(start.last()),
                start => {
                    let before = Stamp { seq: start.last(), time: start.time() };
                    let first = self.records.first().filter(|_| before.seq == Seq(0));
                    let Stamp { seq: first, time: VmTime(first_ns) } = first.map_or(before, |record| record.stamp);
                    Err(HistoryError::TooEarly { asked_ns: time.0, first_ns, first, unit: TimeUnit::Ns })
                }
            },
            position => Ok(Seq(self.start().last().0 + position as u64)),
        }
    }

    /// The state after a record; after `#0`, the one before all.
    ///
    /// # Errors
    /// If there is no such record, or one before it does not fit.
    pub fn at(&mut self, seq: Seq) -> Result<Fold, HistoryError> {
        self.check_position(seq)?;
        let (mut fold, at) = self.keyframe_before(seq);
        let is_news = at + 1 == self.keyframes.len();
        let start = self.start().last().0;
        for record in &self.records[(fold.last().0 - start) as usize..(seq.0 - start) as usize] {
            fold.apply(record)?;
            if is_news {
                let since = fold.last().0 - self.keyframes.last().map_or(0, |keyframe| keyframe.last().0);
                // A large state is kept rarely, so that the keyframes never take more than a few bytes a record.
                if since >= KEYFRAME_RECORDS_MIN && since >= weight(fold.vm()) {
                    self.keyframes.push(fold.clone());
                }
            }
        }
        Ok(fold)
    }

    /// As [`History::at`], without keyframes for the next one who asks.
    pub(crate) fn folded(&self, seq: Seq) -> Result<Fold, FoldError> {
        let (mut fold, _) = self.keyframe_before(seq);
        self.span(fold.last(), seq).iter().try_for_each(|record| fold.apply(record))?;
        Ok(fold)
    }

    pub(crate) fn check_position(&self, seq: Seq) -> Result<(), HistoryError> {
        let first = self.start().last();
        match seq {
            seq if seq > self.last() => Err(HistoryError::NoSuchRecord { asked: seq, last: self.last() }),
            seq if seq < first => Err(HistoryError::before(&self.genesis, seq, first)),
            _ => Ok(()),
        }
    }

    /// A copy of the last keyframe that is not behind a record, and which of them it is.
    fn keyframe_before(&self, seq: Seq) -> (Fold, usize) {
        let at = self.keyframes.partition_point(|keyframe| keyframe.last() <= seq).saturating_sub(1);
        (self.keyframes[at].clone(), at)
    }

    /// The record up to `at` that last changed what stands at a path, which may be gone by then.
    ///
    /// # Errors
    /// If nothing ever stood there, or a record does not fit.
    pub fn why(&self, path: &Path, at: Seq) -> Result<Written, HistoryError> {
        self.check_position(at)?;
        let (start, mut end) = (self.start().last(), at);
        while end > start {
            let (fold, _) = self.keyframe_before(Seq(end.0 - 1));
            let begin = fold.last();
            if let Some(written) = self.last_change(fold, path, end)? {
                return Ok(written);
            }
            end = begin;
        }
        // It is as it was before all of them.
        let values = inspect::values(self.folded(at)?.vm(), path).map_err(|error| HistoryError::Path { at, error })?;
        let changes = inspect::changes_of(Vec::new(), values);
        Ok(Written { by: start, changes })
    }

    /// The last change of a path behind a state and up to a record. Behind the last fact that can have written it, nothing is
    /// folded. Where little stands at the path, it is watched on the way; where that is much, the later half of the rest is
    /// looked at first: folding twice costs less than listing all of it after every record.
    fn last_change(&self, mut fold: Fold, path: &Path, end: Seq) -> Result<Option<Written>, FoldError> {
        let begin = fold.last();
        let records = self.span(begin, end);
        let Some(last) = records.iter().rposition(|record| can_write(path, record)) else { return Ok(None) };
        let (records, end) = (&records[..=last], Seq(begin.0 + last as u64 + 1));
        let mut watched = Watched::new(path, fold.vm());
        if end.0 - begin.0 <= RECORDS_FEW {
            watched.insist();
        }
        for record in records {
            if watched.is_much() {
                break;
            }
            fold.apply(record)?;
            watched.see(record, fold.vm());
        }
        let begin = fold.last();
        if begin == end {
            return Ok(watched.written());
        }
        let middle = Seq(begin.0 + (end.0 - begin.0) / 2);
        let mut later = fold.clone();
        self.span(begin, middle).iter().try_for_each(|record| later.apply(record))?;
        let found = match self.last_change(later, path, end)? {
            None => self.last_change(fold, path, middle)?,
            found => found,
        };
        Ok(found.or_else(|| watched.written()))
    }

    /// The first record after which a law is broken, if any.
    ///
    /// # Errors
    /// If a record before that does not fit.
    pub fn first_broken(&self, law: &Law) -> Result<Option<(Seq, Broken)>, FoldError> {
        first_broken(law, self.start(), &self.records)
    }

    /// The first record that this build decides otherwise, if any.
    ///
    /// # Errors
    /// If a record before that does not fit.
    pub fn first_divergence(&self) -> Result<Option<Divergence>, FoldError> {
        let mut fold = self.start().clone();
        for record in &self.records {
            if let Err(divergence) = recheck(fold.vm(), record) {
                return Ok(Some(divergence));
            }
            fold.apply(record)?;
        }
        Ok(None)
    }

    /// The first position at which a path has a value, if any; `#0` where it has it from the start.
    ///
    /// # Errors
    /// If a record before that does not fit.
    pub fn first_value(&self, wanted: &PathValue) -> Result<Option<Seq>, FoldError> {
        first_value(wanted, self.start().clone(), &self.records)
    }
}

/// The first position from a state on at which a path has a value, if any.
///
/// # Errors
/// If a record before that does not fit.
pub(crate) fn first_value(
    wanted: &PathValue,
    mut fold: Fold,
    records: &[impl Foldable],
) -> Result<Option<Seq>, FoldError> {
    if wanted.holds(fold.vm()) {
        return Ok(Some(fold.last()));
    }
    for record in records {
        fold.apply(record)?;
        if wanted.is_written_by(record) && wanted.holds(fold.vm()) {
            return Ok(Some(fold.last()));
        }
    }
    Ok(None)
}

/// Whether a record can have changed what stands at a path.
pub(crate) fn can_write(path: &Path, record: &impl Foldable) -> bool {
    record.facts().iter().any(|fact| inspect::can_write(path, fact))
}

/// A path and the value that is looked for: `PATH=VALUE`. The value `absent` is nothing at the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathValue {
    /// Where.
    pub path: Path,
    /// What, as a person writes it.
    pub value: String,
}

/// A text that is no path and value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PathValueError {
    /// There is no `=`.
    #[error("'{0}' is no PATH=VALUE, such as backends.tm0.holder.state=attached")]
    NoValue(String),
    /// It is no path.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl std::str::FromStr for PathValue {
    type Err = PathValueError;

    fn from_str(text: &str) -> Result<Self, PathValueError> {
        let (path, value) = text.split_once('=').ok_or_else(|| PathValueError::NoValue(text.to_owned()))?;
        Ok(Self { path: path.parse()?, value: value.to_owned() })
    }
}

impl std::fmt::Display for PathValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.path, self.value)
    }
}

impl PathValue {
    /// Whether a record can have changed what stands at the path.
    pub fn is_written_by(&self, record: &impl Foldable) -> bool {
        can_write(&self.path, record)
    }

    /// Whether the path has the value.
    pub fn holds(&self, vm: &Vm) -> bool {
        if let Some(value) = inspect::value(vm, &self.path) {
            return value.is(&self.value);
        }
        if !inspect::is_there(vm, &self.path) {
            return self.value == "absent";
        }
        matches!(inspect::values(vm, &self.path).as_deref(), Ok([(_, value)]) if value.is(&self.value))
    }
}
