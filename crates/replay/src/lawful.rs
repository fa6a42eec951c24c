//! Laws along a fold: asked of what each record touches, and of everything now and then.
//!
//! ```text
//!  verified ───near─near─near─near───▶ whole? ── holds: verified from here on
//!      └──────◀── does not: the stretch again, whole after each record ──┘
//! ```
//!
//! The near form of a law is tested to be as strong as the whole one; should it be blind once, the whole one finds out at
//! the end of the stretch, and the record is found all the same. Deliberately absent: decisions.

use device::Seq;
use device::laws::{Before, Broken, Law, Watch};
use journal::record::Record;

use crate::fold::{Fold, FoldError};
use crate::weight::weight;

/// After so many records at least everything is looked at.
const STRETCH_RECORDS_MIN: u64 = 1 << 16;

/// And after so many records for each thing that a state holds, so that looking costs next to nothing.
const STRETCH_RECORDS_A_THING: u64 = 16;

/// Laws along the fold of a journal.
pub(crate) struct Lawful<'a> {
    laws: &'a [Law],
    /// The state behind which the records stand.
    start: Seq,
    watch: Watch,
    /// The last state that was looked at whole.
    verified: Fold,
    next: Seq,
    broken: Option<(Seq, Broken)>,
}

impl<'a> Lawful<'a> {
    /// From a state on in which the laws hold, along records that stand behind `start`.
    pub(crate) fn new(laws: &'a [Law], fold: &Fold, start: Seq) -> Self {
        let (watch, verified) = (Watch::of(fold.vm()), fold.clone());
        Self { laws, start, watch, verified, next: end_of_stretch(fold), broken: None }
    }

    /// Folds the next of a journal's records and asks the laws, until one is broken.
    ///
    /// # Errors
    /// If the record does not fit.
    pub(crate) fn apply(&mut self, fold: &mut Fold, records: &[Record], at: usize) -> Result<(), FoldError> {
        let record = &records[at];
        if self.broken.is_some() || !self.laws.iter().any(|law| law.concerns(&record.facts)) {
            return fold.apply(record);
        }
        let before = Before::of(fold.vm(), record.device, record.stamp.seq, &record.facts);
        fold.apply(record)?;
        let checked = self.watch.check(self.laws, &before, fold.vm());
        self.broken = checked.err().map(|broken| (record.stamp.seq, broken));
        if fold.last() >= self.next {
            self.verify(fold, records)?;
        }
        Ok(())
    }

    /// Looks at everything, and at the stretch behind the last time that it did where something is broken.
    ///
    /// # Errors
    /// None that the fold has not had.
    pub(crate) fn verify(&mut self, fold: &Fold, records: &[Record]) -> Result<(), FoldError> {
        if self.broken.is_none() && self.laws.iter().any(|law| law.check_state(fold.vm()).is_err()) {
            let index = |fold: &Fold| (fold.last().0 - self.start.0) as usize;
            let stretch = &records[index(&self.verified)..index(fold)];
            self.broken = first_whole(self.laws, self.verified.clone(), stretch)?;
        }
        if self.broken.is_none() {
            (self.verified, self.next) = (fold.clone(), end_of_stretch(fold));
        }
        Ok(())
    }

    /// The first law that was broken, and where.
    pub(crate) fn broken(&self) -> Option<&(Seq, Broken)> {
        self.broken.as_ref()
    }
}

/// The first record after which a law is broken, from a state on in which it holds. The records stand behind `start`, which
/// is that state or an earlier one.
///
/// # Errors
/// If a record before that does not fit.
pub(crate) fn first_broken(
    law: &Law,
    mut fold: Fold,
    start: Seq,
    records: &[Record],
) -> Result<Option<(Seq, Broken)>, FoldError> {
    let mut lawful = Lawful::new(std::slice::from_ref(law), &fold, start);
    for at in (fold.last().0 - start.0) as usize..records.len() {
        lawful.apply(&mut fold, records, at)?;
        if lawful.broken().is_some() {
            break;
        }
    }
    lawful.verify(&fold, records)?;
    Ok(lawful.broken().cloned())
}

fn end_of_stretch(fold: &Fold) -> Seq {
    Seq(fold.last().0 + STRETCH_RECORDS_MIN.max(STRETCH_RECORDS_A_THING * weight(fold.vm())))
}

/// The first of the records that follow a state after which a law is broken, each asked of everything.
fn first_whole(laws: &[Law], mut fold: Fold, records: &[Record]) -> Result<Option<(Seq, Broken)>, FoldError> {
    for record in records {
        let before = Before::of(fold.vm(), record.device, record.stamp.seq, &record.facts);
        fold.apply(record)?;
        if let Err(broken) = laws.iter().try_for_each(|law| law.check(&before, fold.vm())) {
            return Ok(Some((record.stamp.seq, broken)));
        }
    }
    Ok(None)
}
