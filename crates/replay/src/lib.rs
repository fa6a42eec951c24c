//! Questions to a journal: what state its facts make, whether the laws hold, whether today's build decides the same.
//!
//! ```text
//!  records ──▶ Fold: admit, evolve ──▶ state at any record, for ever
//!          └─▶ recheck: decide again ──▶ equal, or the first difference with both sides
//! ```
//!
//! Needs no actor, no KVM and no privilege. Deliberately absent: effects, which replay drops.
#![forbid(unsafe_code)]

mod fold;
mod recheck;
mod row;

pub use fold::{Fold, FoldError};
pub use recheck::{Difference, Divergence, panic_message, recheck};
pub use row::{DeviceNames, Row};

use device::Seq;
use device::laws;
use journal::record::{Genesis, Record};

/// What a replay found.
pub struct Replay {
    /// The state after the last record that could be replayed.
    pub fold: Fold,
    /// Records replayed.
    pub records: u64,
    /// The first record that does not agree with this build, if any does not.
    pub finding: Option<Finding>,
}

/// What can be wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum Finding {
    /// Its facts do not fit the state.
    #[error(transparent)]
    Unfit(#[from] FoldError),
    /// Today's build decides something else.
    #[error(transparent)]
    Diverged(#[from] Divergence),
    /// A law does not hold after it.
    #[error("{seq}: {broken}")]
    Unlawful {
        /// The record.
        seq: Seq,
        /// The law.
        broken: laws::Broken,
    },
}

/// Folds, decides again and checks the laws, record by record, up to the first disagreement.
///
/// # Errors
/// If the genesis describes a VM that cannot be.
pub fn replay(genesis: &Genesis, records: impl IntoIterator<Item = Record>) -> Result<Replay, FoldError> {
    let mut replay = Replay { fold: Fold::new(genesis)?, records: 0, finding: None };
    for record in records {
        if let Err(finding) = step(&mut replay.fold, &record) {
            replay.finding = Some(finding);
            break;
        }
        replay.records += 1;
    }
    Ok(replay)
}

fn step(fold: &mut Fold, record: &Record) -> Result<(), Finding> {
    let seq = record.stamp.seq;
    recheck(fold.vm(), record)?;
    let generation = fold.vm().devices.get(&record.device).map(|device| device.extents.generation());
    fold.apply(record)?;
    if record.facts.is_empty() {
        // The state is the one before, of which the laws were true.
        return Ok(());
    }
    laws::check(fold.vm()).map_err(|broken| Finding::Unlawful { seq, broken })?;
    check_generation(fold, record, generation).map_err(|broken| Finding::Unlawful { seq, broken })
}

/// The law that binds two states, told from the facts so that no state is copied for each record.
fn check_generation(fold: &Fold, record: &Record, before: Option<u32>) -> Result<(), laws::Broken> {
    use device::extents::Fact;
    use device::operation::Fact as AnyFact;
    let moves_list =
        record.facts.iter().any(|fact| matches!(fact, AnyFact::Extents(Fact::Accepted { .. } | Fact::Released { .. })));
    let after = fold.vm().devices.get(&record.device).map(|device| device.extents.generation());
    if moves_list && before == after {
        let detail = "the extent list changed and the generation stayed".into();
        return Err(laws::Broken { name: "generation-moves", detail });
    }
    Ok(())
}
