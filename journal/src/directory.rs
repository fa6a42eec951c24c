//! A journal's directory: what lies where in it, and what in it is left over from something that was cut short.
//!
//! ```text
//! DIR/live/000001/                 a generation: one sled database; the highest is written to
//! DIR/live/000002.part  .gone      a generation that is being made, or being removed: nobody's
//! DIR/sealed/00000000000000000000-00000000000000024575.dcds        records #0 to #24575, for good
//! DIR/sealed/….dcds.part           a file that is being written: nobody's
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

/// A journal's directory.
#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

/// A file of sealed records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedFile {
    /// Its first record; `#0` is the genesis.
    pub first: Seq,
    /// Its last record.
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
        Self(dir.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn live(&self) -> PathBuf {
        self.0.join("live")
    }

    pub(crate) fn generation(&self, Generation(number): Generation) -> PathBuf {
        self.live().join(format!("{number:06}"))
    }

    /// Every generation, in the order in which they were written.
    pub(crate) fn generations(&self) -> Result<Vec<Generation>, StoreError> {
        let numbers = names(&self.live())?.into_iter().filter_map(|name| name.parse().ok().map(Generation));
        let mut generations: Vec<_> = numbers.filter(|generation| self.generation(*generation).is_dir()).collect();
        generations.sort_unstable();
        Ok(generations)
    }

    pub(crate) fn sealed(&self) -> PathBuf {
        self.0.join("sealed")
    }

    /// Makes the directory of sealed files, durably, unless it is there.
    pub(crate) fn make_sealed(&self) -> Result<(), StoreError> {
        let path = self.sealed();
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir(&path).map_err(failed("make", &path))?;
        sync_dir(&self.0)
    }

    /// Where the file of sealed records from `first` to `last` is.
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
        files.sort_unstable_by_key(|file| file.first);
        Ok(files)
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
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last <= SEQ_MAX).then_some((Seq(first), Seq(last)))
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
        for (first, last) in [(5, 9), (0, 4)] {
            fs::write(directory.sealed_path(Seq(first), Seq(last)), "x").expect("a file");
        }
        fs::write(directory.sealed_path(Seq(10), Seq(11)).with_extension("dcds.part"), "x").expect("a file");
        // What no journal has is not counted on from.
        fs::write(directory.sealed_path(Seq(12), Seq(u64::MAX)), "x").expect("a file");
        let look = || {
            let files = directory.sealed_files().expect("listable");
            let spans: Vec<_> = files.iter().map(|file| (file.first.0, file.last.0, file.len_bytes)).collect();
            (directory.generations().expect("listable"), spans)
        };
        let there = (vec![Generation(2), Generation(10)], vec![(0, 4, 1), (5, 9, 1)]);
        assert_eq!(look(), there);
        directory.remove_leftovers().expect("removable");
        assert_eq!(look(), there);
        assert_eq!(fs::read_dir(directory.live()).expect("listable").count(), 3);
        directory.remove_generation(Generation(2)).expect("removable");
        assert_eq!(look().0, [Generation(10)]);
    }
}
