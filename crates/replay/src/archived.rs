//! Questions to a journal that is not read whole: the state at a record, and who wrote a value.
//!
//! ```text
//!  #0 ───── keyframe ───── keyframe ───── #N
//!               └─ records ─▶ state at any record       one stretch is read
//!  ◀── stretch ◀── stretch ◀── why                      from the end, until the record is found; several at once
//! ```
//!
//! Where records are folded only their facts are read. Where many are, a thread of the archive's unpacks the next ones.
//! Deliberately absent: questions that look at every record; those read the journal whole (`History`).

use std::num::NonZero;
use std::ops::ControlFlow;
use std::sync::mpsc;
use std::thread;

use device::Seq;
use device::inspect::{self, Path};
use device::laws::{Broken, Law};
use journal::codec::CodecError;
use journal::form::Keyframe;
use journal::record::{Facts, Genesis, Record};
use journal::{Archive, OpenError, Stored, StoredKeyframe};
use thiserror::Error;

use crate::fold::{Fold, FoldError};
use crate::history::{History, HistoryError, PathValue, first_value};
use crate::lawful::first_broken;
use crate::stood::{Stood, stood};
use crate::watched::Written;

/// What stands in a journal cannot be read.
#[derive(Debug, Error)]
pub enum UnreadableError {
    /// The journal itself.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What a record or keyframe says.
    #[error("{seq}: {error}")]
    Body {
        /// The record; `#0` is the genesis.
        seq: Seq,
        /// Why.
        error: CodecError,
    },
    /// The keyframe is of another journal or another place.
    #[error("{seq}: its keyframe is of {found}, or of another VM")]
    Keyframe {
        /// The record behind which it stands.
        seq: Seq,
        /// What it says.
        found: Seq,
    },
    /// The keyframe is not what the records before it make.
    #[error("{seq}: its keyframe is not the state that the records before it make")]
    Untrue {
        /// The record behind which it stands.
        seq: Seq,
    },
    /// The records do not fit each other.
    #[error(transparent)]
    Fold(#[from] FoldError),
    /// There is no such position, or nothing at the path.
    #[error(transparent)]
    History(#[from] HistoryError),
}

/// The record of a stored frame.
///
/// # Errors
/// If it is of another form, or not what its frame says.
pub fn record_of(stored: &Stored) -> Result<Record, UnreadableError> {
    Record::from_stored(stored).map_err(|error| UnreadableError::Body { seq: stored.seq, error })
}

/// The state that a stored keyframe has.
///
/// # Errors
/// If it cannot be read, or is not of the place at which it stands.
pub fn fold_of(stored: &StoredKeyframe) -> Result<Fold, UnreadableError> {
    let body = |error| UnreadableError::Body { seq: stored.seq, error };
    let genesis = Genesis::from_stored(&stored.genesis).map_err(body)?;
    let keyframe = Keyframe::from_stored(stored.version, &stored.body).map_err(body)?;
    if keyframe.seq != stored.seq || keyframe.vm.config != genesis.config {
        return Err(UnreadableError::Keyframe { seq: stored.seq, found: keyframe.seq });
    }
    Ok(Fold::from_keyframe(keyframe))
}

/// The state where the records of a journal begin.
///
/// # Errors
/// If the genesis or the keyframe cannot be read.
pub fn start_of(genesis: &Genesis, base: Option<&StoredKeyframe>) -> Result<Fold, UnreadableError> {
    base.map_or_else(|| Ok(Fold::new(genesis)?), fold_of)
}

/// No more look at a journal side by side: each has a stretch in memory.
const LOOKERS_MAX: usize = 8;

/// So many stretches one may be ahead of the others.
const AHEAD_STRETCHES: usize = 4;

/// The records behind one and up to another.
#[derive(Clone, Copy)]
struct Stretch {
    begin: Seq,
    end: Seq,
}

/// An answer, if there is one, and the stretch of records in which it stands.
pub type Found<T> = Option<(T, History)>;

/// A journal of which only what is asked for is read.
pub struct Archived {
    archive: Archive,
    genesis: Genesis,
}

impl Archived {
    /// The journal in an archive.
    ///
    /// # Errors
    /// If its genesis cannot be read.
    pub fn new(archive: Archive) -> Result<Self, UnreadableError> {
        let genesis = Genesis::from_stored(archive.genesis());
        let genesis = genesis.map_err(|error| UnreadableError::Body { seq: Seq(0), error })?;
        Ok(Self { archive, genesis })
    }

    /// What the VM was started as.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The record before the first that is there; `#0` where none is gone.
    pub fn before(&self) -> Seq {
        self.archive.before()
    }

    /// The last record; `#0` where there is none.
    pub fn last(&self) -> Seq {
        self.archive.last()
    }

    /// The state after a record; after `#0`, the one before all.
    ///
    /// # Errors
    /// If there is no such record, or what leads to it cannot be read.
    pub fn at(&self, seq: Seq) -> Result<Fold, UnreadableError> {
        self.check_position(seq)?;
        let mut fold = self.start_before(seq)?;
        // Of a file without keyframes that is all of it.
        self.each(fold.last(), seq, Facts::from_body, |facts| Ok(fold.apply(&facts)?))?;
        Ok(fold)
    }

    /// That every keyframe behind the first state is the state that the records before it make, and how many there are.
    ///
    /// # Errors
    /// The first that is not, or what cannot be read.
    pub fn check_keyframes(&self) -> Result<u64, UnreadableError> {
        let mut fold = self.at(self.archive.before())?;
        let mut keyframes = self.archive.keyframes()?;
        keyframes.retain(|seq| *seq > fold.last());
        let mut due = keyframes.iter().copied().peekable();
        let last = keyframes.last().copied().unwrap_or(fold.last());
        self.each(fold.last(), last, Facts::from_body, |facts| {
            fold.apply(&facts)?;
            while let Some(seq) = due.next_if_eq(&fold.last()) {
                let keyframe = self.archive.keyframe(seq)?.as_ref().map(fold_of).transpose()?;
                if keyframe.as_ref() != Some(&fold) {
                    return Err(UnreadableError::Untrue { seq });
                }
            }
            Ok(())
        })?;
        Ok(keyframes.len() as u64)
    }

    /// Hands over what is read of the records behind one up to another, until it is refused.
    fn each<T>(
        &self,
        before: Seq,
        last: Seq,
        read: impl Fn(u16, &[u8]) -> Result<T, CodecError>,
        mut take: impl FnMut(T) -> Result<(), UnreadableError>,
    ) -> Result<(), UnreadableError> {
        let mut taken = Ok(());
        self.archive.visit(Seq(before.0 + 1), last, &mut |seq, version, body| {
            taken = read(version, body).map_err(|error| UnreadableError::Body { seq, error }).and_then(&mut take);
            if taken.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        taken
    }

    /// The record up to `at` that last changed what stands at a path, which may be gone by then; and the stretch of records in
    /// which it stands. `progress` is told how many records were looked at, of how many.
    ///
    /// # Errors
    /// If there is no such record, nothing ever stood there, or what leads to the answer cannot be read.
    pub fn why(
        &self,
        path: &Path,
        at: Seq,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(Written, History), UnreadableError> {
        self.check_position(at)?;
        let (mut stretches, before) = (self.stretches(at)?, self.before());
        stretches.reverse();
        // Of a file without keyframes there is one stretch, which is not read twice.
        let is_worth_a_look = stretches.len() > 1;
        let look = |stretch: &Stretch| {
            if is_worth_a_look && !self.can_write_in(stretch, path)? {
                return Ok(None);
            }
            let history = self.stretch(stretch)?;
            match history.why(path, stretch.end) {
                Ok(written) => Ok((written.by > history.start().last()).then_some((written, history))),
                Err(HistoryError::Path { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        let found = self.side_by_side(&stretches, look, |stretch, found| {
            progress(at.0 - stretch.end.0, at.0 - before.0);
            found
        })?;
        if let Some(found) = found {
            return Ok(found);
        }
        // It is as it was before all of them, if it is.
        inspect::values(self.at(at)?.vm(), path).map_err(|error| HistoryError::Path { at, error })?;
        let history = self.stretch(&Stretch { begin: before, end: before })?;
        Ok((history.why(path, before)?, history))
    }

    /// The first record after which a law is broken, if any, and the stretch in which it stands. `progress` is told how many
    /// records were looked at, of how many.
    ///
    /// # Errors
    /// If a record before that cannot be read or does not fit.
    pub fn first_broken(
        &self,
        law: &Law,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Found<(Seq, Broken)>, UnreadableError> {
        self.first(|fold, records| first_broken(law, &fold, records), progress)
    }

    /// The first position at which a path has a value, if any, and the stretch in which it is. `progress` as above.
    ///
    /// # Errors
    /// If a record before that cannot be read or does not fit.
    pub fn first_value(
        &self,
        wanted: &PathValue,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Found<Seq>, UnreadableError> {
        self.first(|fold, records| first_value(wanted, fold, records), progress)
    }

    /// The first answer that the facts of a stretch give, from the first record on, and that stretch.
    fn first<T: Send>(
        &self,
        look: impl Fn(Fold, &[Facts]) -> Result<Option<T>, FoldError> + Sync,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Found<T>, UnreadableError> {
        let (stretches, before, last) = (self.stretches(self.last())?, self.before(), self.last());
        let look = |stretch: &Stretch| {
            let (start, facts) = self.facts(stretch)?;
            Ok(look(start, &facts)?)
        };
        let found = self.side_by_side(&stretches, look, |stretch, found| {
            progress(stretch.begin.0 - before.0, last.0 - before.0);
            found.map(|found| (found, *stretch))
        })?;
        found.map(|(found, stretch)| Ok((found, self.stretch(&stretch)?))).transpose()
    }

    /// What ever stood at a path. `progress` is told how many records were looked at, of how many.
    ///
    /// # Errors
    /// If a record cannot be read or does not fit.
    pub fn stood(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> Result<Option<Stood>, UnreadableError> {
        let (stretches, before, last) = (self.stretches(self.last())?, self.before(), self.last());
        let look = |stretch: &Stretch| {
            let (start, facts) = self.facts(stretch)?;
            Ok(stood(path, start, &facts)?)
        };
        let mut known: Option<Stood> = None;
        self.side_by_side(&stretches, look, |stretch, later| {
            progress(stretch.begin.0 - before.0, last.0 - before.0);
            let stood = match known.take() {
                Some(known) => known.and_later(later),
                None => later,
            };
            let is_enough = matches!(stood, Stood::Parts(_)).then_some(());
            known = Some(stood);
            is_enough
        })?;
        Ok(known)
    }

    /// From keyframe to keyframe, up to a record.
    fn stretches(&self, at: Seq) -> Result<Vec<Stretch>, UnreadableError> {
        let before = self.before();
        let mut ends = self.archive.keyframes()?;
        ends.retain(|end| (before..at).contains(end));
        ends.push(at);
        ends.dedup();
        let begins = std::iter::once(before).chain(ends.iter().copied());
        Ok(begins.zip(&ends).map(|(begin, end)| Stretch { begin, end: *end }).collect())
    }

    /// Looks at stretches, several at once, and hands over in their order what was seen, until it is enough.
    fn side_by_side<S: Send, T>(
        &self,
        stretches: &[Stretch],
        look: impl Fn(&Stretch) -> Result<S, UnreadableError> + Sync,
        mut take: impl FnMut(&Stretch, S) -> Option<T>,
    ) -> Result<Option<T>, UnreadableError> {
        let lookers = thread::available_parallelism().map_or(1, NonZero::get).min(LOOKERS_MAX);
        thread::scope(|scope| {
            let begin = |looker: usize| {
                let (sender, receiver) = mpsc::sync_channel(AHEAD_STRETCHES);
                let (mut own, look) = (stretches.iter().skip(looker).step_by(lookers), &look);
                // Until nobody takes it.
                scope.spawn(move || while own.next().is_some_and(|stretch| sender.send(look(stretch)).is_ok()) {});
                receiver
            };
            let receivers: Vec<_> = (0..lookers).map(begin).collect();
            for (stretch, receiver) in stretches.iter().zip(receivers.iter().cycle()) {
                // One that has panicked makes the scope panic.
                let Ok(seen) = receiver.recv() else { break };
                if let Some(found) = take(stretch, seen?) {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }

    /// Whether a record of a stretch has a fact that can have written a path.
    fn can_write_in(&self, stretch: &Stretch, path: &Path) -> Result<bool, UnreadableError> {
        let mut can_write = false;
        self.each(stretch.begin, stretch.end, Facts::from_body, |facts| {
            can_write |= facts.facts.iter().any(|fact| inspect::can_write(path, fact));
            Ok(())
        })?;
        Ok(can_write)
    }

    /// The facts of a stretch, and the state before them.
    fn facts(&self, stretch: &Stretch) -> Result<(Fold, Vec<Facts>), UnreadableError> {
        let start = self.start_before(stretch.begin)?;
        let mut records = Vec::new();
        self.each(start.last(), stretch.end, Facts::from_body, |facts| {
            records.push(facts);
            Ok(())
        })?;
        Ok((start, records))
    }

    /// The records of a stretch, from the last keyframe on that is not behind it.
    fn stretch(&self, stretch: &Stretch) -> Result<History, UnreadableError> {
        let start = self.start_before(stretch.begin)?;
        let mut records = Vec::new();
        self.each(start.last(), stretch.end, Record::from_body, |record| {
            records.push(record);
            Ok(())
        })?;
        Ok(History::behind(self.genesis.clone(), start, records))
    }

    /// The state of the last keyframe that is not behind a record. One that cannot be read is passed over: another build may
    /// refuse what this one wrote, and its records make the same state.
    fn start_before(&self, mut seq: Seq) -> Result<Fold, UnreadableError> {
        loop {
            let Some(keyframe) = self.archive.keyframe(seq)? else { return start_of(&self.genesis, None) };
            match fold_of(&keyframe) {
                Err(_) if keyframe.seq > self.archive.before() => seq = Seq(keyframe.seq.0 - 1),
                fold => return fold,
            }
        }
    }

    fn check_position(&self, seq: Seq) -> Result<(), HistoryError> {
        let (first, last) = (self.archive.before(), self.last());
        match seq {
            seq if seq > last => Err(HistoryError::NoSuchRecord { asked: seq, last }),
            seq if seq < first => Err(HistoryError::before(&self.genesis, seq, first)),
            _ => Ok(()),
        }
    }
}
