//! What if: a journal forked at a record that is left out or changed, and decided on from there.

use std::collections::BTreeMap;

use device::Seq;
use device::operation::Input;
use journal::record::{Genesis, Parent, Record};

use crate::fold::Fold;
use crate::history::{History, HistoryError};
use crate::rerun::{End, Numbers, Step, rerun_all};

/// What is done to a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// It never came.
    Drop,
    /// Something else came.
    Replace(Input),
}

/// A record that is not what it was. Both sides have the numbers of the journal that was forked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// As recorded.
    pub was: Record,
    /// As it is now; `None` where the input reaches nobody, because its device is not there or the run has ended.
    pub is: Option<Record>,
}

/// A fork.
#[derive(Clone, Debug)]
pub struct Fork {
    /// Its genesis, which names its parent.
    pub genesis: Genesis,
    /// The state at which it begins, which is that of its parent.
    pub start: Fold,
    /// Its records behind that, gapless.
    pub records: Vec<Record>,
    /// Records that it has in common with its parent.
    pub shared: Seq,
    /// Records behind those that were decided again.
    pub later: u64,
    /// What became of the records whose inputs were replaced.
    pub edited: Vec<Changed>,
    /// Those of the later ones that changed.
    pub changes: Vec<Changed>,
    /// Where deciding ended; a record has the number that it has in the journal that was forked.
    pub end: End,
}

/// Forks a journal. `parent` says where it is and what is changed, for the genesis of the fork.
///
/// # Errors
/// If there is no such record, or a record before the first edit does not fit.
pub fn whatif(
    history: &mut History,
    edits: &BTreeMap<Seq, Edit>,
    parent: impl FnOnce(Seq) -> Parent,
) -> Result<Fork, HistoryError> {
    for seq in edits.keys() {
        history.record(*seq)?;
    }
    let first = edits.keys().next().copied().unwrap_or(Seq(history.last().0 + 1));
    let shared = Seq(first.0 - 1);
    let start = history.at(shared)?.into_vm();
    let later = history.behind_position(shared);
    let steps: Vec<_> = later.iter().filter_map(|record| edited(record, edits)).collect();

    let (own, end) = rerun_all(start.clone(), &steps, Numbers::Own);
    let (edited, changes) = changes(later, edits, own);
    let (gapless, _) = rerun_all(start, &steps, Numbers::GaplessAfter(shared));
    let records = [history.up_to(shared), &gapless].concat();
    let genesis = Genesis { parent: Some(parent(shared)), ..history.genesis().clone() };
    let later = (later.len() - edits.len()) as u64;
    Ok(Fork { genesis, start: history.start().clone(), records, shared, later, edited, changes, end })
}

fn edited(record: &Record, edits: &BTreeMap<Seq, Edit>) -> Option<Step> {
    match edits.get(&record.stamp.seq) {
        None => Some(Step::of(record)),
        Some(Edit::Drop) => None,
        Some(Edit::Replace(input)) => Some(Step { input: input.clone(), ..Step::of(record) }),
    }
}

/// What became of the records that were edited, and what differs of the others.
fn changes(later: &[Record], edits: &BTreeMap<Seq, Edit>, own: Vec<Record>) -> (Vec<Changed>, Vec<Changed>) {
    let mut own: BTreeMap<_, _> = own.into_iter().map(|record| (record.stamp.seq, record)).collect();
    let is_dropped = |record: &&Record| edits.get(&record.stamp.seq) == Some(&Edit::Drop);
    let all = later.iter().filter(|record| !is_dropped(record)).filter_map(|was| {
        let is = own.remove(&was.stamp.seq);
        let differs = edits.contains_key(&was.stamp.seq) || is.as_ref() != Some(was);
        differs.then(|| Changed { was: was.clone(), is })
    });
    all.partition(|changed| edits.contains_key(&changed.was.stamp.seq))
}
