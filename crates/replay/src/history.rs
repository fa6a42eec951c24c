//! A journal read whole, and every position of it within reach.
//!
//! ```text
//!  #0 ─────── keyframe ─────── keyframe ─────── #N
//!                 └─ clone, fold on ──▶ any position
//! ```
//!
//! Keyframes are states in memory, made on the way the first time that somebody passes, and never written. Deliberately
//! absent: decisions. A position is what the facts say, whatever this build would decide.

use device::inspect::{self, Change, Path, PathError, Value};
use device::laws::{Before, Broken, Law};
use device::operation::Actor;
use device::vm::Vm;
use device::{Seq, VmTime};
use journal::record::{Genesis, Record};
use thiserror::Error;

use crate::fold::{Fold, FoldError};
use crate::recheck::{Divergence, recheck};
use crate::weight::weight;

/// Between two keyframes there are at least so many records.
const KEYFRAME_RECORDS_MIN: u64 = 4096;

/// So many values are listed after every record without a thought.
const VALUES_FEW: usize = 64;

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
    /// No record is so early.
    #[error("no record is as early as {asked_ns} ns: the first is at {first_ns} ns")]
    TooEarly {
        /// What was asked.
        asked_ns: u64,
        /// The time of the first record.
        first_ns: u64,
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

/// The record that last wrote a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The record; `#0` where no record did: it is so from the start.
    pub by: Seq,
    /// What it changed at and below the path. From the start: what is there.
    pub changes: Vec<Change>,
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
        Ok(Self { genesis, records, keyframes: vec![start] })
    }

    /// What the VM was started as.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// All records.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// The last record; `#0` where there is none.
    pub fn last(&self) -> Seq {
        Seq(self.records.len() as u64)
    }

    /// A record by its sequence.
    ///
    /// # Errors
    /// If there is none.
    pub fn record(&self, seq: Seq) -> Result<&Record, HistoryError> {
        let index = seq.0.checked_sub(1).and_then(|index| usize::try_from(index).ok());
        let record = index.and_then(|index| self.records.get(index));
        record.ok_or(HistoryError::NoSuchRecord { asked: seq, last: self.last() })
    }

    /// The last record that is not later than a time.
    ///
    /// # Errors
    /// If all are later.
    pub fn at_time(&self, time: VmTime) -> Result<Seq, HistoryError> {
        match self.records.partition_point(|record| record.stamp.time <= time) {
            0 => {
                let first_ns = self.records.first().map_or(0, |record| record.stamp.time.0);
                Err(HistoryError::TooEarly { asked_ns: time.0, first_ns })
            }
            position => Ok(Seq(position as u64)),
        }
    }

    /// The state after a record; after `#0`, the one before all.
    ///
    /// # Errors
    /// If there is no such record, or one before it does not fit.
    pub fn at(&mut self, seq: Seq) -> Result<Fold, HistoryError> {
        if seq > self.last() {
            return Err(HistoryError::NoSuchRecord { asked: seq, last: self.last() });
        }
        let (mut fold, at) = self.keyframe_before(seq);
        let is_news = at + 1 == self.keyframes.len();
        for record in &self.records[fold.last().0 as usize..seq.0 as usize] {
            fold.apply(record)?;
            if is_news {
                let last = self.keyframes.last().map_or(Seq(0), Fold::last);
                // A large state is kept rarely, so that the keyframes never take more than a few bytes a record.
                if fold.last().0 - last.0 >= KEYFRAME_RECORDS_MIN.max(weight(fold.vm())) {
                    self.keyframes.push(fold.clone());
                }
            }
        }
        Ok(fold)
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
    pub fn why(&mut self, path: &Path, at: Seq) -> Result<Written, HistoryError> {
        let now = inspect::values(self.at(at)?.vm(), path);
        let mut end = at;
        loop {
            let (fold, index) = self.keyframe_before(Seq(end.0.saturating_sub(1)));
            let begin = fold.last();
            if let Some(written) = self.last_change(fold, path, end)? {
                return Ok(written);
            }
            if index == 0 {
                break;
            }
            end = begin;
        }
        let values = now.map_err(|error| HistoryError::Path { at, error })?;
        let changes = inspect::changes_of(Vec::new(), values);
        Ok(Written { by: Seq(0), changes })
    }

    /// The last change of a path behind a state and up to a record. Where much stands at the path, the later half is looked
    /// at first: folding twice costs less than listing all of it after every record.
    fn last_change(&self, fold: Fold, path: &Path, end: Seq) -> Result<Option<Written>, FoldError> {
        let (begin, values) = (fold.last(), inspect::values(fold.vm(), path).unwrap_or_default());
        if values.len() <= VALUES_FEW || end.0 - begin.0 <= RECORDS_FEW {
            return self.last_change_of(fold, values, path, end);
        }
        let middle = Seq(begin.0 + (end.0 - begin.0) / 2);
        let mut later = fold.clone();
        self.records[begin.0 as usize..middle.0 as usize].iter().try_for_each(|record| later.apply(record))?;
        match self.last_change(later, path, end)? {
            Some(written) => Ok(Some(written)),
            None => self.last_change(fold, path, middle),
        }
    }

    /// As [`History::last_change`], record by record.
    fn last_change_of(
        &self,
        mut fold: Fold,
        mut values: Vec<(String, Value)>,
        path: &Path,
        end: Seq,
    ) -> Result<Option<Written>, FoldError> {
        let mut last = None;
        for record in &self.records[fold.last().0 as usize..end.0 as usize] {
            fold.apply(record)?;
            if !touches(record, inspect::writers(path)) {
                continue;
            }
            let after = inspect::values(fold.vm(), path).unwrap_or_default();
            if after != values {
                let before = std::mem::replace(&mut values, after.clone());
                last = Some((record.stamp.seq, before, after));
            }
        }
        Ok(last.map(|(by, before, after)| Written { by, changes: inspect::changes_of(before, after) }))
    }

    /// The first record after which a law is broken, if any.
    ///
    /// # Errors
    /// If a record before that does not fit.
    pub fn first_broken(&self, law: &Law) -> Result<Option<(Seq, Broken)>, FoldError> {
        let mut fold = self.keyframes[0].clone();
        for record in &self.records {
            let before = Before::of(fold.vm(), record.device, &record.facts);
            fold.apply(record)?;
            if let Err(broken) = law.check(&before, fold.vm()) {
                return Ok(Some((record.stamp.seq, broken)));
            }
        }
        Ok(None)
    }

    /// The first record that this build decides otherwise, if any.
    ///
    /// # Errors
    /// If a record before that does not fit.
    pub fn first_divergence(&self) -> Result<Option<Divergence>, FoldError> {
        let mut fold = self.keyframes[0].clone();
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
        let mut fold = self.keyframes[0].clone();
        if wanted.holds(fold.vm()) {
            return Ok(Some(Seq(0)));
        }
        for record in &self.records {
            fold.apply(record)?;
            if wanted.is_written_by(record) && wanted.holds(fold.vm()) {
                return Ok(Some(record.stamp.seq));
            }
        }
        Ok(None)
    }
}

/// Whether a record changes the state of one of these actors.
fn touches(record: &Record, actors: &[Actor]) -> bool {
    record.facts.iter().any(|fact| actors.contains(&fact.actor()))
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
    pub fn is_written_by(&self, record: &Record) -> bool {
        touches(record, inspect::writers(&self.path))
    }

    /// Whether the path has the value.
    pub fn holds(&self, vm: &Vm) -> bool {
        match inspect::values(vm, &self.path).as_deref() {
            Err(_) => self.value == "absent",
            Ok([(_, value)]) => Value::is(value, &self.value),
            Ok(_) => false,
        }
    }
}
