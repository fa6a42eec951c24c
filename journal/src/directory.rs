//! A journal's directory: what lies where in it, and what in it is left over from something that was cut short.
//!
//! ```text
//! DIR/live/000001/                 a generation: one sled database; the highest is written to
//! DIR/live/000002.part  .gone      a generation that is being made, or being removed: nobody's
//! DIR/sealed/00000000000000000000-00000000000000024575.dcds        records #0 to #24575, for good
//! DIR/sealed/00000000000000000121-00000000000000000120.dcds        no records: the state after #120, where it begins
//! DIR/sealed/….dcds.part           a file that is being written: nobody's
//! DIR/past/000001/                 a journal that was superseded by this one or by one before it
//! DIR/next/000001/                 one that supersedes this one, until it has come to its place
//! DIR/snapshots/                   no part of the journal
//! ```
//!
//! A generation that was followed by another one is sealed into a file and removed: sled's log never shrinks and its opening
//! takes time by its length. Deliberately absent: a list of what is there; the names say it, and each changes in one rename.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use device::Seq;

use crate::{portable::SEQ_MAX, store::StoreError};

/// The suffix of a file of sealed records.
const SEALED: &str = "dcds";

/// Suffixes of what is nobody's.
const LEFTOVERS: [&str; 2] = ["part", "gone"];

/// What lies in a journal's directory and is no part of the journal.
const APART: [&str; 3] = [PAST, NEXT, "snapshots"];

const PAST: &str = "past";
const NEXT: &str = "next";

/// A journal's directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    dir: PathBuf,
    live: PathBuf,
    sealed: PathBuf,
}

/// The two directories of which a journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    /// What is written to.
    Live,
    /// What is there for good.
    Sealed,
}

impl Half {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Half::Live => "live",
            Half::Sealed => "sealed",
        }
    }
}

/// A journal that was superseded, by its number; from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Past(pub(crate) u32);

impl Past {
    /// Where it is, from the directory of the journal that superseded it.
    pub(crate) fn name(self) -> String {
        format!("{PAST}/{:06}", self.0)
    }

    pub(crate) fn place(self, dir: &Path) -> PathBuf {
        dir.join(self.name())
    }

    /// Where its successor waits until the place is free.
    pub(crate) fn successor(self, dir: &Path) -> PathBuf {
        dir.join(format!("{NEXT}/{:06}", self.0))
    }

    /// The one that is being superseded in a directory: its successor is whole and has not come to its place.
    pub(crate) fn of(dir: &Path) -> Result<Option<Past>, StoreError> {
        Ok(numbers(&dir.join(NEXT))?.max().map(Past))
    }

    /// The next one.
    pub(crate) fn following(dir: &Path) -> Result<Past, StoreError> {
        Ok(Past(numbers(&dir.join(PAST))?.max().unwrap_or(0).saturating_add(1)))
    }

    /// Whether this half of it has gone there.
    pub(crate) fn has(self, dir: &Path, half: Half) -> bool {
        self.place(dir).join(half.name()).exists()
    }
}

/// Where successors wait.
pub(crate) fn next_dir(dir: &Path) -> PathBuf {
    dir.join(NEXT)
}

/// Where half of the journal in a directory is. While one supersedes another each half is moved on its own: what a successor
/// has is not yet moved, and what a predecessor has not is still where it was.
fn place(dir: &Path, half: Half) -> PathBuf {
    let here = dir.join(half.name());
    // Where it cannot be listed nothing else can.
    if let Ok(Some(past)) = Past::of(dir) {
        let waiting = past.successor(dir).join(half.name());
        return if waiting.exists() { waiting } else { here };
    }
    let before = dir.parent().filter(|parent| parent.ends_with(PAST)).and_then(Path::parent);
    match before.map(|home| (home, Past::of(home))) {
        Some((home, Ok(Some(past)))) if past.place(home) == dir && !here.exists() => home.join(half.name()),
        _ => here,
    }
}

/// A file of sealed records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedFile {
    /// Its first record; `#0` is the genesis.
    pub first: Seq,
    /// Its last record; the one before the first where it has none, but the state there.
    pub last: Seq,
    /// Where it is.
    pub path: PathBuf,
    /// Its length.
    pub len_bytes: u64,
}

/// One of the databases, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Generation(pub(crate) u32);

impl Directory {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), live: place(dir, Half::Live), sealed: place(dir, Half::Sealed) }
    }

    /// The same while its sealed files are made, under a name that is nobody's.
    pub(crate) fn with_sealed_part(&self) -> Self {
        Self { sealed: self.sealed.with_extension("part"), ..self.clone() }
    }

    /// Gives the sealed files that were made so their name.
    pub(crate) fn rename_sealed_part(&self) -> Result<(), StoreError> {
        let part = self.with_sealed_part().sealed;
        fs::rename(&part, &self.sealed).map_err(failed("rename", &part))?;
        sync_dir(&self.dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn live(&self) -> PathBuf {
        self.live.clone()
    }

    pub(crate) fn generation(&self, Generation(number): Generation) -> PathBuf {
        self.live().join(format!("{number:06}"))
    }

    /// Every generation, in the order in which they were written.
    pub(crate) fn generations(&self) -> Result<Vec<Generation>, StoreError> {
        let generations = numbers(&self.live())?.map(Generation);
        let mut generations: Vec<_> = generations.filter(|generation| self.generation(*generation).is_dir()).collect();
        generations.sort_unstable();
        Ok(generations)
    }

    pub(crate) fn sealed(&self) -> PathBuf {
        self.sealed.clone()
    }

    /// Makes the directory of sealed files, durably, unless it is there.
    pub(crate) fn make_sealed(&self) -> Result<(), StoreError> {
        let path = self.sealed();
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir(&path).map_err(failed("make", &path))?;
        sync_dir(&self.dir)
    }

    /// Where the file of sealed records from `first` to `last` is; of none, only a state, where `last` is the one before
    /// `first`.
    pub(crate) fn sealed_path(&self, first: Seq, last: Seq) -> PathBuf {
        self.sealed().join(format!("{:020}-{:020}.{SEALED}", first.0, last.0))
    }

    /// Every file of sealed records, in the order of their records.
    pub(crate) fn sealed_files(&self) -> Result<Vec<SealedFile>, StoreError> {
        let mut files = Vec::new();
        for name in names(&self.sealed())? {
            let path = self.sealed().join(&name);
            if let Some((first, last)) = span(&name) {
                let found = fs::metadata(&path).map_err(failed("look at", &path))?;
                files.push(SealedFile { first, last, path, len_bytes: found.len() });
            }
        }
        files.sort_unstable_by_key(|file| (file.first, file.last));
        Ok(files)
    }

    /// What lies in the directory, each with where it is, without what is apart.
    pub(crate) fn entries(&self) -> Result<Vec<PathBuf>, StoreError> {
        let halves = [Half::Live, Half::Sealed].map(Half::name);
        let others =
            names(&self.dir)?.into_iter().filter(|name| !APART.iter().chain(&halves).any(|known| name == known));
        let mut entries: Vec<_> = others.map(|name| self.dir.join(name)).collect();
        entries.extend([self.live(), self.sealed()].into_iter().filter(|half| half.exists()));
        entries.sort();
        Ok(entries)
    }

    /// Removes what was begun or ended and cut short.
    pub(crate) fn remove_leftovers(&self) -> Result<(), StoreError> {
        for dir in [self.live(), self.sealed()] {
            for name in names(&dir)?.iter().filter(|name| LEFTOVERS.iter().any(|suffix| has_suffix(name, suffix))) {
                let path = dir.join(name);
                let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                removed.map_err(failed("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Removes a generation: first its name, so that half of one is never taken for one.
    pub(crate) fn remove_generation(&self, generation: Generation) -> Result<(), StoreError> {
        let path = self.generation(generation);
        let gone = path.with_extension("gone");
        fs::rename(&path, &gone).map_err(failed("rename", &path))?;
        sync_dir(&self.live())?;
        fs::remove_dir_all(&gone).map_err(failed("remove", &gone))
    }

    /// Removes a file of sealed records, durably.
    pub(crate) fn remove_sealed(&self, file: &SealedFile) -> Result<(), StoreError> {
        fs::remove_file(&file.path).map_err(failed("remove", &file.path))?;
        sync_dir(&self.sealed())
    }
}

/// The files of sealed records in a journal's directory, in the order of their records.
///
/// # Errors
/// If the directory cannot be read.
pub fn sealed_files(dir: &Path) -> Result<Vec<SealedFile>, StoreError> {
    Directory::new(dir).sealed_files()
}

/// Bytes of the journal in a directory, without those that it superseded and without snapshots.
///
/// # Errors
/// If the directory cannot be read.
pub fn stored_bytes(dir: &Path) -> Result<u64, StoreError> {
    Directory::new(dir).entries()?.iter().map(|path| bytes_below(path)).sum()
}

fn bytes_below(path: &Path) -> Result<u64, StoreError> {
    let found = fs::symlink_metadata(path).map_err(failed("look at", path))?;
    if !found.is_dir() {
        return Ok(found.len());
    }
    names(path)?.iter().map(|name| bytes_below(&path.join(name))).sum()
}

/// The numbers among the names in a directory.
fn numbers(dir: &Path) -> Result<impl Iterator<Item = u32> + use<>, StoreError> {
    Ok(names(dir)?.into_iter().filter_map(|name| name.parse().ok()))
}

/// The names in a directory; none where there is no directory.
fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed("list", dir))?,
    };
    entries.map(|entry| Ok(entry.map_err(failed("list", dir))?.file_name().to_string_lossy().into_owned())).collect()
}

fn span(name: &str) -> Option<(Seq, Seq)> {
    let (first, last) = name.strip_suffix(SEALED)?.strip_suffix('.')?.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    (last <= SEQ_MAX && first <= last + 1).then_some((Seq(first), Seq(last)))
}

fn has_suffix(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|stem| stem.ends_with('.'))
}

/// Makes what was renamed or removed in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))
}

pub(crate) fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_half_made_or_half_gone_is_nobodys() {
        let dir = tempfile::tempdir().expect("a directory");
        let directory = Directory::new(dir.path());
        assert_eq!(directory.generations().expect("none"), []);
        for name in ["live/000002", "live/000010", "live/000011.part", "live/000001.gone", "live/else", "sealed"] {
            fs::create_dir_all(dir.path().join(name)).expect("a directory");
        }
        for (first, last) in [(5, 9), (0, 4), (5, 4)] {
            fs::write(directory.sealed_path(Seq(first), Seq(last)), "x").expect("a file");
        }
        fs::write(directory.sealed_path(Seq(10), Seq(11)).with_extension("dcds.part"), "x").expect("a file");
        // What no journal has is not counted on from.
        fs::write(directory.sealed_path(Seq(12), Seq(u64::MAX)), "x").expect("a file");
        fs::write(directory.sealed_path(Seq(12), Seq(10)), "x").expect("a file");
        let look = || {
            let files = directory.sealed_files().expect("listable");
            let spans: Vec<_> = files.iter().map(|file| (file.first.0, file.last.0, file.len_bytes)).collect();
            (directory.generations().expect("listable"), spans)
        };
        let there = (vec![Generation(2), Generation(10)], vec![(0, 4, 1), (5, 4, 1), (5, 9, 1)]);
        assert_eq!(look(), there);
        directory.remove_leftovers().expect("removable");
        assert_eq!(look(), there);
        assert_eq!(fs::read_dir(directory.live()).expect("listable").count(), 3);
        directory.remove_generation(Generation(2)).expect("removable");
        assert_eq!(look().0, [Generation(10)]);
    }
}
