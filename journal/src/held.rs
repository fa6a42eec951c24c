//! A journal's directory while it is read.
//!
//! ```text
//! DIR/live/* ─ copied ─▶ stores
//! DIR/sealed/* ─▶ files
//! ```
//!
//! Deliberately absent: what is in them.

use std::{fs, path::Path};

use crate::{
    copied::{Copied, Print},
    directory::{Directory, Generation, SealedFile, failed},
    portable::{About, read_segments},
    recover::{Damage, DamageCause, OpenError, Reading},
    sled_store::SledStore,
    store::Store,
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
    pub(crate) generations: Vec<Generation>,
    /// What the newest generation was.
    pub(crate) print: Print,
    /// One of each generation.
    stores: Vec<SledStore>,
}

impl Held {
    pub(crate) fn of(dir: &Path) -> Result<Held, OpenError> {
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
        let copied = Copied::of(&directory, &generations)?;
        let stores = generations.iter().map(|generation| copied.open(&directory, *generation));
        let stores = stores.collect::<Result<Vec<_>, _>>()?;
        // Their names go with `copied`: sled works on what it has open, and who is killed from here on leaves nothing behind.
        Ok(Held { directory, files, generations, print: copied.newest(), stores })
    }

    /// Reads the generations behind what was read of the files.
    pub(crate) fn scan(&self, reading: &mut Reading) -> Vec<Live> {
        let mut live = Vec::new();
        let stores = self.stores.iter().map(|store| store as &dyn Store);
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
