//! Marks: small files in a journal's directory that outlive whoever wrote them, for what a journal cannot say of itself.
//!
//! ```text
//!  write   NAME.part ─ synced ─▶ NAME ─ the directory is synced        there whole, or not at all
//!  remove  NAME ─▶ nothing ─ the directory is synced
//! ```
//!
//! Deliberately absent: what they say.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// The text of a mark.
pub(crate) fn read(dir: &Path, name: &str) -> Option<String> {
    fs::read_to_string(dir.join(name)).ok().map(|text| text.trim_end().to_owned())
}

pub(crate) fn write(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let half = dir.join(format!("{name}.part"));
    let mut file = File::create(&half)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&half, dir.join(name))?;
    File::open(dir)?.sync_all()
}

/// Removes one, if it is there.
pub(crate) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.and_then(|()| File::open(dir)?.sync_all()),
    }
}

/// A mark that stays is read again by the next start, which comes to the same end.
pub(crate) fn warn_of(removed: io::Result<()>, dir: &Path, name: &str) {
    if let Err(error) = removed {
        tracing::warn!("{} stays: {error}", dir.join(name).display());
    }
}
