//! A journal that was read, written again into a directory: frame for frame what it was.
//!
//! ```text
//! Recovered ─▶ one sealed file, under its last name at once ─┐
//! an empty generation, to be written to ─────────────────────┴─▶ DIR
//! ```
//!
//! Deliberately absent: new times and sequences (an import is the same journal, its chain ends in the same link), and a
//! journal that is half there: the file comes last and by one rename.

use std::path::Path;

use device::Seq;

use crate::{
    directory::Directory,
    portable::{About, write_file},
    recover::{OpenError, Recovered},
    sled_store::SledStore,
};

/// Makes a journal in `dir` that holds exactly this.
///
/// # Errors
/// If there is a journal already, or the disk fails.
pub fn restore(dir: &Path, recovered: &Recovered) -> Result<(), OpenError> {
    drop(SledStore::create(dir)?);
    let directory = Directory::new(dir);
    directory.make_sealed()?;
    // Without a base the genesis is the first frame.
    let first = recovered.base.as_ref().map_or(Seq(0), |base| Seq(base.seq.0 + 1));
    write_file(&directory.sealed_path(first, recovered.last.max(first)), recovered, &About::default())?;
    Ok(())
}
