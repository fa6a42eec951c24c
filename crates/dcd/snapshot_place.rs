//! A snapshot in its directory, for the verbs that need no running program.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use journal::form::Keyframe;
use journal::portable::{Attached, read_attached};
use serde_json::Value;
use snapshot::{Part, Snapshot, SnapshotError, SnapshotName, Store};

use crate::{date, print_line};

/// The part that has the state of the devices, as journals keep it.
const DEVICE_PART: &str = "device";

/// What the names of a snapshot's parts begin with where they go with a journal.
const PACKED: &str = "snapshots/";

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
    anyhow!(plain(&error.to_string()))
}

/// A text that a snapshot or a directory says, without what a terminal would do as it is told.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => plain.extend(character.escape_debug()),
            false => plain.push(character),
        }
    }
    plain
}

/// Prints one JSON value on a line. JSON itself escapes only the control characters of ASCII, and of these not all.
pub(crate) fn print_json(value: &Value) -> anyhow::Result<()> {
    print_line(&json_line(value))
}

fn json_line(value: &Value) -> String {
    let mut line = String::new();
    for character in value.to_string().chars() {
        match character.is_control() {
            // They stand in texts only, and none of them is beyond four digits.
            true => line.push_str(&format!("\\u{:04x}", u32::from(character))),
            false => line.push(character),
        }
    }
    line
}

/// The directory of snapshots, and the name of the one in it.
pub(crate) fn split(path: &Path) -> anyhow::Result<(PathBuf, SnapshotName)> {
    let no_snapshot =
        || format!("'{}' is no snapshot: give its directory, DIR/NAME", plain(&path.display().to_string()));
    let name = path.file_name().and_then(|name| name.to_str()).with_context(no_snapshot)?;
    let name = name.parse().with_context(no_snapshot)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((dir.to_owned(), name))
}

/// The name under which a part goes with a journal in its file: `snapshots/NAME/PART`.
fn packed_name(name: &SnapshotName, part: &str) -> String {
    format!("{PACKED}{name}/{part}")
}

/// What a snapshot is, in words, and its parts as they go with a journal in its file.
pub(crate) fn packed(path: &Path) -> anyhow::Result<(String, Vec<Attached>)> {
    let snapshot = open(path)?;
    let (name, seq) = (snapshot.name(), keyframe(&snapshot)?.seq);
    let saved = date::utc(snapshot.manifest().created_ms);
    let parts = snapshot.parts().map(|info| {
        let Part { version, bytes } = snapshot.part(&info.name).map_err(told)?;
        Ok(Attached { name: packed_name(name, &info.name), version, bytes })
    });
    let parts = parts.collect::<anyhow::Result<_>>()?;
    Ok((format!("{name}, {}, saved {saved} UTC after {seq}", snapshot.id()), parts))
}

/// The state of the devices in a snapshot: one in its directory, or one that was packed with a journal.
pub(crate) fn keyframe_at(path: &Path) -> anyhow::Result<Keyframe> {
    if !path.is_file() {
        return keyframe(&open(path)?);
    }
    let suffix = format!("/{DEVICE_PART}");
    let parts = read_attached(path)?;
    let part = parts.iter().find(|part| part.name.starts_with(PACKED) && part.name.ends_with(&suffix));
    let part = part.with_context(|| {
        format!("{} has no snapshot: dcd journal pack --snapshot DIR/NAME makes a file that has one", path.display())
    })?;
    keyframe_of(part.version, &part.bytes).with_context(|| format!("{}: '{}'", path.display(), plain(&part.name)))
}

fn keyframe_of(version: u32, bytes: &[u8]) -> anyhow::Result<Keyframe> {
    let version = u16::try_from(version).with_context(|| format!("form {version} is none"))?;
    Keyframe::from_stored(version, bytes).map_err(|error| anyhow!(plain(&format!("{:#}", anyhow!(error)))))
}

/// The state of the devices that it has.
pub(crate) fn keyframe(snapshot: &Snapshot) -> anyhow::Result<Keyframe> {
    let part = snapshot.part(DEVICE_PART).map_err(told)?;
    let unreadable = || format!("snapshot '{}': part '{DEVICE_PART}' in form {}", snapshot.name(), part.version);
    keyframe_of(part.version, &part.bytes).with_context(unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen as: the colours of a terminal in what a snapshot said of the build that wrote it.
    #[test]
    fn a_terminal_is_told_nothing_by_a_snapshot() {
        assert_eq!(plain("dcd \u{1b}[31m\r\n\u{9b}2J\u{7f} 'ä' \\ \""), r#"dcd \u{1b}[31m\r\n\u{9b}2J\u{7f} 'ä' \ ""#);
        let value = serde_json::json!({"a\u{9b}": "\u{1b}\u{7f}ä"});
        assert_eq!(json_line(&value), r#"{"a\u009b":"\u001b\u007fä"}"#);
        assert_eq!(serde_json::from_str::<Value>(&json_line(&value)).expect("JSON"), value);
    }

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
