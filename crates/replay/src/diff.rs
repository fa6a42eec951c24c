//! Two journals held against each other: where what reached them parts, and what that made of their states.

use device::Seq;
use device::inspect::{self, Change, Path};
use journal::record::Record;

use crate::history::{History, HistoryError};

/// The first input that is not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// Where.
    pub seq: Seq,
    /// What reached the first; `None` where it has ended.
    pub first: Option<Record>,
    /// What reached the second.
    pub second: Option<Record>,
}

/// Two journals compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diff {
    /// The first different input; `None` where the same inputs reached both.
    pub input: Option<Parting>,
    /// The first decision that differs though the inputs do not: two builds.
    pub decision: Option<Parting>,
    /// What differs between the states at their ends: before is the first's, after the second's.
    pub changes: Vec<Change>,
}

/// Compares two journals and their states at `at`, or at their ends. Times are not compared: no two runs have the same.
///
/// # Errors
/// If one does not fold.
pub fn diff(first: &mut History, second: &mut History, path: &Path, at: Option<Seq>) -> Result<Diff, HistoryError> {
    first.check_whole()?;
    second.check_whole()?;
    let input = parting(first, second, |a, b| {
        (a.device, a.origin, &a.input, &a.outcomes) == (b.device, b.origin, &b.input, &b.outcomes)
    });
    let decision = parting(first, second, |a, b| (&a.facts, &a.reply) == (&b.facts, &b.reply));
    let decision = decision.filter(|decision| input.as_ref().is_none_or(|input| decision.seq < input.seq));
    let of_first = first.at(at.unwrap_or(first.last()))?;
    let of_second = second.at(at.unwrap_or(second.last()))?;
    let changes = inspect::changes(of_first.vm(), of_second.vm(), path);
    Ok(Diff { input, decision, changes })
}

/// The first place where the records of two journals are not alike.
fn parting(first: &History, second: &History, alike: impl Fn(&Record, &Record) -> bool) -> Option<Parting> {
    let shared = first.records().iter().zip(second.records()).take_while(|(a, b)| alike(a, b)).count();
    let (a, b) = (first.records().get(shared), second.records().get(shared));
    (a.is_some() || b.is_some()).then(|| Parting { seq: Seq(shared as u64 + 1), first: a.cloned(), second: b.cloned() })
}
