//! Reading all of a journal's directory: from its first record to its last, every link checked.
//!
//! ```text
//! sealed files ─▶ frames ─┐
//! generations  ─▶ frames ─┴─▶ Recovered     and behind its end: is there more in the raw bytes?
//! ```
//!
//! Deliberately absent: repair, and changing anything.

use std::path::Path;

use device::Seq;

use crate::{
    archive::Archive,
    directory::Directory,
    held::{Held, read_file, read_files},
    recover::{Damage, DamageCause, OpenError, Reading, Recovered},
    remains,
};

/// Reads all of the journal in `dir`, which nobody may have open, from its first record on, and leaves it as it is. Damage
/// is an error.
///
/// # Errors
/// If there is none, another has it open, or it is damaged.
pub fn read(dir: &Path) -> Result<Recovered, OpenError> {
    let read = salvage(dir).and_then(|(recovered, damage)| match damage {
        None => Ok(recovered),
        Some(damage) => Err(OpenError::Damaged { place: dir.display().to_string(), damage }),
    });
    check_end(dir, read, |recovered| recovered.last)
}

/// Looks for what lies behind the end that was read, whatever that is: sled takes damage for the end, and says nothing.
///
/// # Errors
/// If there is something, or what was read is an error.
pub(crate) fn check_end<T>(
    dir: &Path,
    read: Result<T, OpenError>,
    last: impl FnOnce(&T) -> Seq,
) -> Result<T, OpenError> {
    let intact = match &read {
        Ok(read) => Some(last(read)),
        // Nothing was read, and perhaps nothing is there.
        Err(OpenError::Unfinished { .. }) => None,
        Err(_) => return read,
    };
    match remains::behind(dir, intact.map_or(Seq(0), |last| Seq(last.0 + 1)))? {
        None => read,
        Some((from, to)) => {
            let damage = Damage { intact, cause: DamageCause::Forgotten { from, to } };
            Err(OpenError::Damaged { place: dir.display().to_string(), damage })
        }
    }
}

/// Reads what is intact of the journal in `dir`, which nobody may have open, and says what is not. The directory stays as
/// it is.
///
/// # Errors
/// If there is none, another has it open, or not even its genesis is intact.
pub fn salvage(dir: &Path) -> Result<(Recovered, Option<Damage>), OpenError> {
    let held = Held::of(dir)?;
    let mut reading = Reading::default();
    read_files(&held.files, &mut reading);
    if reading.damage.is_none() {
        held.scan(&mut reading);
    }
    reading.into_recovered(|| held.place())
}

/// Reads all of the journal in `dir`, which another has open, with the tail that he wrote into a file.
///
/// # Errors
/// If the tail or a sealed file before it is damaged.
pub fn read_open(dir: &Path, tail: &Path) -> Result<Recovered, OpenError> {
    let before = Archive::of_open_directory(dir, tail)?.before_tail();
    let mut files = Directory::new(dir).sealed_files()?;
    files.retain(|file| file.last <= before);
    let mut reading = Reading::default();
    read_files(&files, &mut reading);
    if reading.damage.is_none() {
        read_file(tail, &mut reading);
    }
    match reading.into_recovered(|| dir.display().to_string())? {
        (recovered, None) => Ok(recovered),
        (_, Some(damage)) => Err(OpenError::Damaged { place: dir.display().to_string(), damage }),
    }
}
