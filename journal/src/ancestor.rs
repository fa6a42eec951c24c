//! Which journal has the records that a new one shares with what came before it.
//!
//! ```text
//! past/000001   #1 ─────────── #30
//! past/000002                #20 ──── #120     loaded from a snapshot after #20
//! the new one         #10 ───                  from one after #10: past/000001 has #1 to #10, and the one before it has not
//! ```
//!
//! Deliberately absent: whether those records are whole.

use std::path::Path;

use device::Seq;

use crate::directory::{Directory, Past};
use crate::form;
use crate::portable::Index;

/// The journal that has the records up to `shared`, seen from `dir`: the one in there, which is moved to `past`; or, where that
/// begins behind them, what it was made from, and so on as far as that is there.
pub(crate) fn with_records(dir: &Path, past: Past, shared: Seq) -> String {
    let (mut name, mut place) = (past.name(), dir.to_owned());
    let mut seen = Vec::new();
    while let Some(parent) = parent_that_has(&place, shared) {
        let next = dir.join(&parent);
        if seen.contains(&parent) || !is_journal(&next) {
            break;
        }
        seen.push(parent.clone());
        (name, place) = (parent, next);
    }
    name
}

/// What a journal that begins behind a record was made from, if that is where the record is. Records that were removed are
/// nowhere.
fn parent_that_has(place: &Path, shared: Seq) -> Option<String> {
    let first = Directory::new(place).sealed_files().ok()?.into_iter().next()?;
    let index = Index::open(&first.path).ok()?;
    let (before, _) = index.span();
    let genesis = before.filter(|before| *before >= shared).and_then(|_| index.genesis().ok().flatten())?;
    let parent = form::decode_genesis(genesis.version, &genesis.body).ok()?.parent?;
    (parent.shared >= shared).then_some(parent.journal)
}

fn is_journal(place: &Path) -> bool {
    let directory = Directory::new(place);
    let has_records = directory.sealed_files().is_ok_and(|files| !files.is_empty());
    has_records || directory.generations().is_ok_and(|generations| !generations.is_empty())
}
