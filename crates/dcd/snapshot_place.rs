//! A snapshot in its directory, for the verbs that need no running program.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use journal::form::Keyframe;
use snapshot::{Snapshot, SnapshotError, SnapshotName, Store};

/// The part that has the state of the devices, as journals keep it.
const DEVICE_PART: &str = "device";

/// Opens the snapshot whose directory this is, and all below it.
pub(crate) fn open(path: &Path) -> anyhow::Result<Snapshot> {
    let (dir, name) = split(path)?;
    store(&dir)?.snapshot(&name).map_err(told)
}

/// Opens a directory of snapshots.
pub(crate) fn store(dir: &Path) -> anyhow::Result<Store> {
    Store::open(dir).map_err(told)
}

/// An error whose text has its causes in it, and is not followed by them once more.
pub(crate) fn told(error: SnapshotError) -> anyhow::Error {
    anyhow!("{error}")
}

/// The directory of snapshots, and the name of the one in it.
pub(crate) fn split(path: &Path) -> anyhow::Result<(PathBuf, SnapshotName)> {
    let no_snapshot = || format!("'{}' is no snapshot: give its directory, DIR/NAME", path.display());
    let name = path.file_name().and_then(|name| name.to_str()).with_context(no_snapshot)?;
    let name = name.parse().with_context(no_snapshot)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((dir.to_owned(), name))
}

/// The state of the devices that it has.
pub(crate) fn keyframe(snapshot: &Snapshot) -> anyhow::Result<Keyframe> {
    let part = snapshot.part(DEVICE_PART).map_err(told)?;
    let unreadable = || format!("snapshot '{}': part '{DEVICE_PART}' in form {}", snapshot.name(), part.version);
    let version = u16::try_from(part.version).with_context(unreadable)?;
    Keyframe::from_stored(version, &part.bytes).with_context(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_the_last_of_its_path() {
        let of = |path: &str| {
            split(Path::new(path))
                .map(|(dir, name)| (dir.display().to_string(), name.to_string()))
                .map_err(|e| e.to_string())
        };
        assert_eq!(of("monday"), Ok((".".into(), "monday".into())));
        assert_eq!(of("/s/monday/"), Ok(("/s".into(), "monday".into())));
        assert_eq!(of("../s/monday"), Ok(("../s".into(), "monday".into())));
        for path in ["", "/", "..", "s/.hidden", "s/mon day", "s/monday.part"] {
            assert_eq!(of(path), Err(format!("'{path}' is no snapshot: give its directory, DIR/NAME")));
        }
    }
}
