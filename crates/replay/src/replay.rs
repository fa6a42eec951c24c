//! The whole journal in one pass: fold, laws, decisions.

use device::Seq;
use device::laws::{Broken, LAWS};
use journal::record::Record;

use crate::fold::{Fold, FoldError};
use crate::lawful::Lawful;
use crate::recheck::{Divergence, recheck};

/// What a replay found. The state is what the facts say; a decision that this build would make otherwise changes nothing
/// of it.
pub struct Replay {
    /// The state after the last record that fits.
    pub fold: Fold,
    /// Records that fit.
    pub records: u64,
    /// Of them, those that this build decides as they are recorded.
    pub equal: u64,
    /// The record that does not fit, where the fold ends.
    pub unfit: Option<FoldError>,
    /// The first broken law, and where.
    pub broken: Option<(Seq, Broken)>,
    /// The first decision that this build makes otherwise.
    pub divergence: Option<Divergence>,
}

/// What is wrong with a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Today's build decides something else.
    #[error(transparent)]
    Diverged(#[from] Divergence),
    /// Its facts do not fit the state.
    #[error(transparent)]
    Unfit(#[from] FoldError),
    /// A law does not hold after it.
    #[error("{seq}: {broken}")]
    Unlawful {
        /// The record.
        seq: Seq,
        /// The law.
        broken: Broken,
    },
}

impl Replay {
    /// What is wrong first, if anything is.
    pub fn finding(&self) -> Option<Finding> {
        let diverged = self.divergence.clone().map(|divergence| (divergence.seq, Finding::Diverged(divergence)));
        let unfit = self.unfit.clone().map(|error| (Seq(self.fold.last().0 + 1), Finding::Unfit(error)));
        let unlawful = self.broken.clone().map(|(seq, broken)| (seq, Finding::Unlawful { seq, broken }));
        // The first of equals: what is decided comes before what it makes.
        let all = [diverged, unfit, unlawful].into_iter().flatten();
        all.min_by_key(|(seq, _)| *seq).map(|(_, finding)| finding)
    }

    /// What makes the journal itself wrong, whatever this build would decide.
    pub fn fault(&self) -> Option<Finding> {
        let unlawful = self.broken.clone().map(|(seq, broken)| Finding::Unlawful { seq, broken });
        unlawful.or_else(|| self.unfit.clone().map(Finding::Unfit))
    }

    fn step(&mut self, lawful: &mut Lawful<'_>, records: &[Record], at: usize) -> Result<(), FoldError> {
        match recheck(self.fold.vm(), &records[at]) {
            Ok(()) => self.equal += 1,
            Err(divergence) if self.divergence.is_none() => self.divergence = Some(divergence),
            Err(_) => {}
        }
        lawful.apply(&mut self.fold, records, at)?;
        self.records += 1;
        Ok(())
    }
}

/// Folds the records that follow a state, checks the laws after each and decides each again. `progress` is told how many
/// are done.
///
/// # Errors
/// If what folded does not fold again, which is a bug.
pub fn replay(fold: Fold, records: &[Record], progress: &mut dyn FnMut(u64)) -> Result<Replay, FoldError> {
    let mut lawful = Lawful::new(LAWS, &fold, fold.last());
    let mut replay = Replay { fold, records: 0, equal: 0, unfit: None, broken: None, divergence: None };
    for at in 0..records.len() {
        if let Err(error) = replay.step(&mut lawful, records, at) {
            replay.unfit = Some(error);
            break;
        }
        progress(replay.records);
    }
    if replay.unfit.is_none() {
        lawful.verify(&replay.fold, records)?;
    }
    replay.broken = lawful.broken().cloned();
    Ok(replay)
}
