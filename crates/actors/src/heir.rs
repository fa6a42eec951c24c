//! Heirs: of the two journals of a hand-over one is the VM's, whoever dies when.
//!
//! ```text
//!  giver   DIR/heir    offered HEIR ──┬─▶ given HEIR     who starts it is refused
//!                                     ├─▶ removed        it kept the VM
//!                                     └─▶ left behind    who starts it goes on, unless the heir is nobody's orphan
//!  taker   DIR/orphan  GIVER ─────────┬─▶ removed        it has the VM
//!                                     └─▶ left behind    who starts it is refused, unless the giver says that it was given
//! ```
//!
//! Both are on the disk before the deed can be drawn. Where both processes die around that, the giver's goes on: the taker
//! removes its own before it answers anybody. Deliberately absent: the deed itself.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::mark;
use crate::start::JournalPlace;

const HEIR: &str = "heir";
const ORPHAN: &str = "orphan";
const OFFERED: &str = "offered";
const GIVEN: &str = "given";
/// Stands for the journal of a process that keeps none.
pub(crate) const NO_JOURNAL: &str = "none";

/// Why a journal is not that of a VM any more, or not yet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotTheVm {
    /// Another process has it.
    #[error(
        "the VM of the journal {} was handed over: its last state is in the journal {heir}, start that; to go on from what it was \
         before that, remove {} first", dir.display(), dir.join(HEIR).display()
    )]
    Given {
        /// The journal that was to be started.
        dir: PathBuf,
        /// That of the other process.
        heir: String,
    },
    /// It never had it.
    #[error(
        "the journal {} was begun by a hand-over of which nothing came: the VM is that of the journal {giver}, start that; where it \
         is gone, remove {} first", dir.display(), dir.join(ORPHAN).display()
    )]
    Orphan {
        /// The journal that was to be started.
        dir: PathBuf,
        /// That of the other process.
        giver: String,
    },
}

/// What the other process is told of a journal: its directory, wherever that process is.
pub(crate) fn name(place: &JournalPlace) -> String {
    match place {
        JournalPlace::Directory(dir) => std::path::absolute(dir).unwrap_or_else(|_| dir.clone()).display().to_string(),
        JournalPlace::None => NO_JOURNAL.into(),
    }
}

/// The giver is about to give.
pub(crate) fn offer(dir: &Path, heir: &str) -> io::Result<()> {
    mark::write(dir, HEIR, &format!("{OFFERED} {heir}"))
}

/// The taker has it.
pub(crate) fn give(dir: &Path, heir: &str) -> io::Result<()> {
    mark::write(dir, HEIR, &format!("{GIVEN} {heir}"))
}

/// The giver keeps it.
pub(crate) fn keep(dir: &Path) -> io::Result<()> {
    mark::remove(dir, HEIR)
}

/// The taker is about to begin its journal.
pub(crate) fn begin(dir: &Path, giver: &str) -> io::Result<()> {
    mark::write(dir, ORPHAN, giver)
}

/// The taker has it.
pub(crate) fn own(dir: &Path) -> io::Result<()> {
    mark::remove(dir, ORPHAN)
}

/// Whether the journal is the VM's; then it is marked no more.
pub(crate) fn check(dir: &Path) -> Result<(), NotTheVm> {
    if let Some((is_given, heir)) = heir_of(dir) {
        if is_given || has_vm(Path::new(&heir)) {
            return Err(NotTheVm::Given { dir: dir.to_owned(), heir });
        }
        mark::warn_of(keep(dir), dir, HEIR);
    }
    if let Some(giver) = orphan_of(dir) {
        return Err(NotTheVm::Orphan { dir: dir.to_owned(), giver });
    }
    mark::warn_of(own(dir), dir, ORPHAN);
    Ok(())
}

/// Whether it was begun and never owned.
pub(crate) fn is_orphan(dir: &Path) -> bool {
    orphan_of(dir).is_some()
}

/// Whose it is, where it is an orphan.
fn orphan_of(dir: &Path) -> Option<String> {
    let giver = mark::read(dir, ORPHAN)?;
    let is_ours = |heir: &str| same(Path::new(heir), dir);
    let is_given = heir_of(Path::new(&giver)).is_some_and(|(is_given, heir)| is_given && is_ours(&heir));
    (!is_given).then_some(giver)
}

/// Whether a journal was begun, and owned. The state at which it begins is in a file of its own, from its begin on.
fn has_vm(heir: &Path) -> bool {
    let is_begun = fs::read_dir(heir.join("sealed")).is_ok_and(|mut files| files.next().is_some());
    is_begun && !heir.join(ORPHAN).exists()
}

fn heir_of(dir: &Path) -> Option<(bool, String)> {
    let text = mark::read(dir, HEIR)?;
    let (word, heir) = text.split_once(' ')?;
    Some((word == GIVEN, heir.to_owned()))
}

fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(one).is_some() && real(one) == real(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two journals of a hand-over, and who may start when.
    struct Two {
        _dir: tempfile::TempDir,
        giver: PathBuf,
        taker: PathBuf,
    }

    impl Two {
        /// Both processes have died after so many steps.
        fn after(steps: usize) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let (giver, taker) = (dir.path().join("giver"), dir.path().join("taker"));
            fs::create_dir(&giver).expect("a journal");
            let name = |path: &Path| path.to_str().expect("text").to_owned();
            let steps_of_both: [&dyn Fn() -> io::Result<()>; 5] = [
                &|| fs::create_dir_all(taker.join("sealed")),
                &|| offer(&giver, &name(&taker)),
                &|| begin(&taker, &name(&giver)),
                &|| fs::write(taker.join("sealed/state"), ""),
                &|| own(&taker),
            ];
            steps_of_both.iter().take(steps).for_each(|step| step().expect("a step"));
            Self { _dir: dir, giver, taker }
        }

        fn starts(&self) -> (bool, bool) {
            (check(&self.giver).is_ok(), self.taker.join("sealed/state").exists() && check(&self.taker).is_ok())
        }
    }

    #[test]
    fn whoever_dies_when_one_journal_is_the_vms() {
        for steps in 0..5 {
            assert_eq!(Two::after(steps).starts(), (true, false), "both died after {steps}");
        }
        assert_eq!(Two::after(5).starts(), (false, true));
        // The giver lived, and found the deed drawn by one that died before it could say so.
        let two = Two::after(4);
        give(&two.giver, two.taker.to_str().expect("text")).expect("a mark");
        assert_eq!(two.starts(), (false, true));
        assert!(!two.taker.join(ORPHAN).exists(), "it is not asked again");
        // It lived, and drew the deed itself.
        let two = Two::after(4);
        keep(&two.giver).expect("no mark");
        assert_eq!(two.starts(), (true, false));
    }

    #[test]
    fn a_refusal_names_the_other_and_what_to_remove() {
        let two = Two::after(5);
        let said = check(&two.giver).expect_err("given").to_string();
        assert!(said.contains("/taker, start that") && said.ends_with("/giver/heir first"), "{said}");
        let two = Two::after(4);
        let said = check(&two.taker).expect_err("an orphan").to_string();
        assert!(said.contains("/giver, start that") && said.ends_with("/taker/orphan first"), "{said}");
    }
}
