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

use crate::fold::{Fold, FoldError, Foldable};
use crate::weight::weight;

/// After so many records at least everything is looked at.
const STRETCH_RECORDS_MIN: u64 = 1 << 16;

/// And after so many records for each thing that a state holds, so that looking costs next to nothing.
const STRETCH_RECORDS_A_THING: u64 = 16;

/// One law is asked of two parts of a journal at once, of which the later must be folded up to first: this share of a hundred
/// is the former, so that both take as long. A journal in which it is shorter than this is asked as a whole.
const FIRST_SHARE: u64 = 70;
const HALVES_RECORDS_MIN: usize = 1 << 15;

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
    pub(crate) fn apply(&mut self, fold: &mut Fold, records: &[impl Foldable], at: usize) -> Result<(), FoldError> {
        let record = &records[at];
        if self.broken.is_some() || !self.laws.iter().any(|law| law.concerns(record.facts())) {
            return fold.apply(record);
        }
        let seq = record.stamp().seq;
        let before = Before::of(fold.vm(), record.device(), seq, record.facts());
        fold.apply(record)?;
        let checked = self.watch.check(self.laws, &before, fold.vm());
        self.broken = checked.err().map(|broken| (seq, broken));
        if fold.last() >= self.next {
            self.verify(fold, records)?;
        }
        Ok(())
    }

    /// Looks at everything, and at the stretch behind the last time that it did where something is broken.
    ///
    /// # Errors
    /// None that the fold has not had.
    pub(crate) fn verify(&mut self, fold: &Fold, records: &[impl Foldable]) -> Result<(), FoldError> {
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

/// The first of the records that follow a state after which a law is broken, if any. Of many the former and the later part are
/// looked at side by side.
///
/// # Errors
/// If a record before that does not fit.
pub(crate) fn first_broken<R: Foldable + Sync>(
    law: &Law,
    fold: &Fold,
    records: &[R],
) -> Result<Option<(Seq, Broken)>, FoldError> {
    let (start, middle) = (fold.last(), (records.len() as u64 * FIRST_SHARE / 100) as usize);
    if middle < HALVES_RECORDS_MIN {
        return first_broken_behind(law, fold.clone(), start, records);
    }
    let (former, later) = std::thread::scope(|scope| {
        let former = scope.spawn(|| first_broken_behind(law, fold.clone(), start, &records[..middle]));
        let mut fold = fold.clone();
        let folded = records[..middle].iter().try_for_each(|record| fold.apply(record));
        let later = folded.and_then(|()| first_broken_behind(law, fold, start, records));
        (former.join(), later)
    });
    let former = former.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    // What the later part says counts where the former one holds: then the law held where that began.
    if former.is_some() { Ok(former) } else { later }
}

/// The first record after which a law is broken, from a state on in which it holds. The records stand behind `start`, which
/// is that state or an earlier one.
///
/// # Errors
/// If a record before that does not fit.
fn first_broken_behind(
    law: &Law,
    mut fold: Fold,
    start: Seq,
    records: &[impl Foldable],
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
fn first_whole(laws: &[Law], mut fold: Fold, records: &[impl Foldable]) -> Result<Option<(Seq, Broken)>, FoldError> {
    for record in records {
        let seq = record.stamp().seq;
        let before = Before::of(fold.vm(), record.device(), seq, record.facts());
        fold.apply(record)?;
        if let Err(broken) = laws.iter().try_for_each(|law| law.check(&before, fold.vm())) {
            return Ok(Some((seq, broken)));
        }
    }
    Ok(None)
}
