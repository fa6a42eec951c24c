//! A journal's directory, held while it is read or written on.
//!
//! ```text
//! to read:  DIR/live/* ─ copied ─▶ stores       to write on:  DIR/live/* ─▶ stores
//!           DIR/sealed/* ─▶ files
//! ```
//!
//! Deliberately absent: what is in them.

use std::{fs, path::Path};

use crate::{
    copied::Copied,
    directory::{Directory, Generation, SealedFile, failed},
    portable::{About, read_segments},
    recover::{Damage, DamageCause, OpenError, Reading},
    sled_store::SledStore,
    store::Store,
    succession::finish,
};

/// Frames that are in a generation and in no sealed file.
pub(crate) struct Live {
    /// Which of the stores has them.
    pub(crate) store: usize,
    pub(crate) frames: Vec<u8>,
}

/// A journal's directory, held and not yet read.
pub(crate) struct Held {
    pub(crate) directory: Directory,
    pub(crate) files: Vec<SealedFile>,
    pub(crate) stores: Vec<(Generation, SledStore)>,
    /// Where the stores are, of who only reads. Behind them, so that they are closed before it is gone.
    pub(crate) copied: Option<Copied>,
}

/// What is done with what is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It is written on.
    Write,
    /// It stays as it is.
    Read,
}

impl Held {
    pub(crate) fn of(dir: &Path, purpose: Purpose) -> Result<Held, OpenError> {
        if purpose == Purpose::Write {
            finish(dir)?;
        }
        let directory = Directory::new(dir);
        let generations = directory.generations()?;
        let files = directory.sealed_files()?;
        if let (true, Some(last)) = (generations.is_empty(), files.last()) {
            let damage = Damage { intact: Some(last.last), cause: DamageCause::NoGeneration };
            return Err(OpenError::Damaged { place: dir.display().to_string(), damage });
        }
        if generations.is_empty() {
            return Err(OpenError::Missing { place: dir.display().to_string() });
        }
        let copied = (purpose == Purpose::Read).then(|| Copied::of(&directory, &generations)).transpose()?;
        // The newest first: who has the journal open holds that one.
        let open = |generation: &Generation| {
            let store = match &copied {
                Some(copied) => copied.open(&directory, *generation)?,
                None => SledStore::open(&directory, *generation)?,
            };
            Ok((*generation, store))
        };
        let mut stores = generations.iter().rev().map(open).collect::<Result<Vec<_>, OpenError>>()?;
        stores.reverse();
        Ok(Held { directory, files, stores, copied })
    }

    /// Reads the generations behind what was read of the files.
    pub(crate) fn scan(&self, reading: &mut Reading) -> Vec<Live> {
        let mut live = Vec::new();
        let stores = self.stores.iter().map(|(_, store)| store as &dyn Store);
        let scanned = reading.scan(stores, &mut |store, frames| live.push(Live { store, frames: frames.to_vec() }));
        if let Err(cause) = scanned {
            reading.damage = Some(Damage { intact: reading.intact(), cause });
        }
        live
    }

    pub(crate) fn place(&self) -> String {
        self.directory.path().display().to_string()
    }
}

/// Reads whole files, each behind the one before it, to their end or to damage.
pub(crate) fn read_files(files: &[SealedFile], reading: &mut Reading) {
    for file in files {
        if reading.damage.is_some() {
            return;
        }
        read_file(&file.path, reading);
    }
}

pub(crate) fn read_file(path: &Path, reading: &mut Reading) {
    let read = fs::read(path).map_err(|source| DamageCause::Store(failed("read", path)(source)));
    let read = read.and_then(|bytes| read_segments(&bytes, reading, &mut About::default()));
    if let Err(cause) = read {
        let (intact, cause) = (reading.intact(), DamageCause::Sealed { path: path.to_owned(), cause: Box::new(cause) });
        reading.damage = Some(Damage { intact, cause });
    }
}
