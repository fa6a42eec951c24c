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
    /// The first state that both have: where one of them begins at a state, what came before is not compared.
    pub from: Seq,
    /// What differs there already; of two that begin with their first record, what they were started as is not told here.
    pub start: Vec<Change>,
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
/// If one does not fold, or ends before the other begins.
pub fn diff(first: &mut History, second: &mut History, path: &Path, at: Option<Seq>) -> Result<Diff, HistoryError> {
    let from = first.start().last().max(second.start().last());
    let last = first.last().min(second.last());
    if last < from {
        return Err(HistoryError::Apart { last, first: from });
    }
    let start = match from {
        Seq(0) => Vec::new(),
        from => inspect::changes(first.at(from)?.vm(), second.at(from)?.vm(), path),
    };
    let input = parting(first, second, from, |a, b| {
        (a.device, a.origin, &a.input, &a.outcomes) == (b.device, b.origin, &b.input, &b.outcomes)
    });
    let decision = parting(first, second, from, |a, b| (&a.facts, &a.reply) == (&b.facts, &b.reply));
    let decision = decision.filter(|decision| input.as_ref().is_none_or(|input| decision.seq < input.seq));
    let of_first = first.at(at.unwrap_or(first.last()))?;
    let of_second = second.at(at.unwrap_or(second.last()))?;
    let changes = inspect::changes(of_first.vm(), of_second.vm(), path);
    Ok(Diff { from, start, input, decision, changes })
}

/// The first place behind a position where the records of two journals are not alike.
fn parting(first: &History, second: &History, from: Seq, alike: impl Fn(&Record, &Record) -> bool) -> Option<Parting> {
    let (first, second) = (first.behind_position(from), second.behind_position(from));
    let shared = first.iter().zip(second).take_while(|(a, b)| alike(a, b)).count();
    let (a, b) = (first.get(shared), second.get(shared));
    let seq = Seq(from.0 + shared as u64 + 1);
    (a.is_some() || b.is_some()).then(|| Parting { seq, first: a.cloned(), second: b.cloned() })
}
