//! Refilling: the files of backends get the bytes of a snapshot that is loaded in place, whoever dies meanwhile.
//!
//! ```text
//!  DIR/refill is written ─▶ the journal is superseded ─▶ files are filled ─▶ DIR/refill is removed
//!                        └ died here: it is removed   └ died here: the next start fills them again
//! ```
//!
//! Files were once filled before the journal was superseded: a kill -9 in between left a VM that had not been loaded, with
//! half of its bytes gone. Deliberately absent: which bytes.

use std::io;
use std::path::{Path, PathBuf};

use journal::Recovered;
use journal::record::Genesis;

use crate::mark;
use crate::restore::{Memories, Source};
use crate::snapshot_error::SnapshotError;

const REFILL: &str = "refill";

/// A snapshot whose bytes files are to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refill {
    /// Where the journal is that was superseded for it, seen from the directory of its successor.
    past: String,
    id: String,
    snapshot: PathBuf,
}

impl Refill {
    /// Notes it, before anything is done.
    pub(crate) fn begin(dir: &Path, past: &str, source: &Source) -> io::Result<()> {
        let snapshot = std::path::absolute(source.path())?;
        mark::write(dir, REFILL, &format!("{past}\n{}\n{}", source.snapshot.id(), snapshot.display()))
    }

    /// What a directory says that is due.
    pub(crate) fn due(dir: &Path, recovered: &Recovered) -> Option<Self> {
        let text = mark::read(dir, REFILL)?;
        let mut lines = text.splitn(3, '\n').map(str::to_owned);
        let (past, id, snapshot) = (lines.next()?, lines.next()?, PathBuf::from(lines.next()?));
        // Either says so: what was superseded may be gone by now, and its successor may name an older one as its parent.
        let parent = Genesis::of(recovered).ok().and_then(|genesis| genesis.parent);
        if dir.join(&past).exists() || parent.is_some_and(|parent| parent.journal == past) {
            return Some(Self { past, id, snapshot });
        }
        // The journal was not superseded: nothing was done.
        Self::end(dir);
        None
    }

    /// Fills the files again.
    pub(crate) async fn again(&self, dir: &Path, memories: &Memories) -> Result<(), SnapshotError> {
        let failed =
            |reason: String| SnapshotError::Refill { snapshot: self.snapshot.clone(), mark: dir.join(REFILL), reason };
        let source = Source::open(&self.snapshot).map_err(|error| failed(error.to_string()))?;
        if source.snapshot.id().to_string() != self.id {
            return Err(failed("it is another one by now".into()));
        }
        source.fill_files(memories).await.map_err(|error| failed(error.to_string()))?;
        Self::end(dir);
        Ok(())
    }

    /// The files have their bytes.
    pub(crate) fn end(dir: &Path) {
        mark::warn_of(mark::remove(dir, REFILL), dir, REFILL);
    }
}
