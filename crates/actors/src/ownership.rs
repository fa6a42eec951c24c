//! Whose a journal is while its VM changes hands: notes in its directory, for the start that comes after a crash.
//!
//! ```text
//!  giver   DIR/handing-over   the other journal; before the state is sent, until the VM is known to stay
//!  taker   DIR/unowned        from before there is a journal until the VM is known to be this process's
//!
//!  start of the giver's    the other has begun and owns ─▶ refused: that one holds the last state
//!                          it has not ───────────────────▶ the note is removed: the VM had stayed
//!  start of the taker's    unowned ──────────────────────▶ refused: the VM had stayed
//! ```
//!
//! While both live the protocol's deed settles it, and the notes are looked at by nobody. Deliberately absent: other hosts.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use journal::{OpenError, Opening};

use crate::start::{JournalPlace, StartError};

const HANDING_OVER: &str = "handing-over";
const UNOWNED: &str = "unowned";

/// A note in a journal's directory; none where there is no journal.
pub(crate) struct Note(Option<PathBuf>);

impl Note {
    /// The VM is about to go to a process with another journal.
    pub(crate) fn handing_over(place: &JournalPlace, to: &str) -> io::Result<Self> {
        Self::write(place, HANDING_OVER, to)
    }

    /// The journal is begun for a VM that is not yet this process's.
    pub(crate) fn unowned(place: &JournalPlace) -> io::Result<Self> {
        Self::write(place, UNOWNED, "")
    }

    /// It does not hold any more.
    pub(crate) fn remove(self) -> io::Result<()> {
        let Some(path) = self.0 else { return Ok(()) };
        fs::remove_file(&path)?;
        sync_above(&path)
    }

    fn write(place: &JournalPlace, name: &str, text: &str) -> io::Result<Self> {
        let JournalPlace::Directory(dir) = place else { return Ok(Self(None)) };
        fs::create_dir_all(dir)?;
        let path = dir.join(name);
        let mut file = File::create(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        sync_above(&path)?;
        Ok(Self(Some(path)))
    }
}

fn sync_above(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Refuses a journal whose VM is another's.
pub(crate) fn check(dir: &Path) -> Result<(), StartError> {
    if dir.join(UNOWNED).exists() {
        return Err(StartError::NeverOwned { dir: dir.to_owned() });
    }
    let note = dir.join(HANDING_OVER);
    let Ok(other) = fs::read_to_string(&note) else { return Ok(()) };
    let other = PathBuf::from(other);
    let is_owned = !other.join(UNOWNED).exists()
        && !matches!(Opening::of(&other), Err(OpenError::Missing { .. } | OpenError::Unfinished { .. }));
    if is_owned {
        return Err(StartError::HandedOver { dir: dir.to_owned(), other });
    }
    tracing::warn!("the hand-over to {} was not finished: the VM goes on here", other.display());
    // Where it stays, the next start looks again.
    fs::remove_file(&note).ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use journal::{Journal, Options};

    use super::*;

    #[test]
    fn a_journal_is_gone_on_with_by_who_owns_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let (there, taken) = (JournalPlace::Directory(old.clone()), JournalPlace::Directory(new.clone()));
        let to = new.display().to_string();
        check(&old).expect("no note");
        // The other process has died before it had begun a journal, and before it owned the VM.
        Note::handing_over(&there, &to).expect("a note");
        check(&old).expect("the VM had stayed");
        let unowned = Note::unowned(&taken).expect("a note");
        Journal::create(&new, b"genesis", Options::default()).expect("new").close().expect("closed");
        Note::handing_over(&there, &to).expect("a note");
        check(&old).expect("the VM had stayed");
        assert!(matches!(check(&new), Err(StartError::NeverOwned { .. })));
        // And behind it.
        Note::handing_over(&there, &to).expect("a note");
        unowned.remove().expect("removed");
        check(&new).expect("it owns the VM");
        assert!(matches!(check(&old), Err(StartError::HandedOver { other, .. }) if other == new));
    }

    #[test]
    fn a_vm_without_a_journal_needs_no_note() {
        Note::handing_over(&JournalPlace::None, "x").expect("none").remove().expect("none");
    }
}
