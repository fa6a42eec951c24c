//! The whole journal in one pass: fold, laws, decisions.

use device::Seq;
use device::laws::{Before, Broken, check_step};
use journal::record::{Genesis, Record};

use crate::fold::{Fold, FoldError};
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
        let unfit = self.unfit.clone().map(|error| (Seq(self.records + 1), Finding::Unfit(error)));
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

    fn step(&mut self, record: &Record) -> Result<(), FoldError> {
        match recheck(self.fold.vm(), record) {
            Ok(()) => self.equal += 1,
            Err(divergence) if self.divergence.is_none() => self.divergence = Some(divergence),
            Err(_) => {}
        }
        let before = Before::of(self.fold.vm(), record.device, &record.facts);
        self.fold.apply(record)?;
        self.records += 1;
        if self.broken.is_none() {
            self.broken = check_step(&before, self.fold.vm()).err().map(|broken| (record.stamp.seq, broken));
        }
        Ok(())
    }
}

/// Folds records, checks the laws after each and decides each again. `progress` is told how many are done.
///
/// # Errors
/// If the genesis describes a VM that cannot be.
pub fn replay(genesis: &Genesis, records: &[Record], progress: &mut dyn FnMut(u64)) -> Result<Replay, FoldError> {
    let fold = Fold::new(genesis)?;
    let mut replay = Replay { fold, records: 0, equal: 0, unfit: None, broken: None, divergence: None };
    for record in records {
        if let Err(error) = replay.step(record) {
            replay.unfit = Some(error);
            break;
        }
        progress(replay.records);
    }
    Ok(replay)
}
