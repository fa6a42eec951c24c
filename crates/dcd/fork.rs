//! Journals that are made from journals.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use device::Seq;
use journal::record::{Genesis, RECORD_VERSION, Record};
use journal::{Journal, Options};
use replay::Fold;

/// Most bytes of a name that tells what was done.
const NAME_LEN_BYTES_MAX: usize = 48;

/// Where the fork goes: where it is told, or beside its parent, named after the change.
pub(crate) fn place(into: Option<&Path>, parent: &Path, change: &str) -> PathBuf {
    into.map_or_else(
        || {
            let word = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { ' ' };
            let words: String = change.chars().map(word).collect();
            let mut name = words.split_whitespace().collect::<Vec<_>>().join("-");
            name.truncate(NAME_LEN_BYTES_MAX);
            let mut path = parent.as_os_str().to_owned();
            path.push(format!(".{}", name.trim_end_matches('-')));
            path.into()
        },
        Path::to_owned,
    )
}

/// Writes an ordinary journal: the state at which it begins, and the records behind that.
pub(crate) fn write(dir: &Path, genesis: &Genesis, start: &Fold, records: &[Record]) -> anyhow::Result<()> {
    ensure!(!dir.exists(), "{} is there already: name another place with --into DIR", dir.display());
    let options = Options { record_version: RECORD_VERSION, ..Options::default() };
    let journal = match start.last() {
        Seq(0) => Journal::create(dir, &genesis.to_bytes(), options)?,
        _ => Journal::begin(dir, &genesis.to_bytes(), start.to_keyframe(), options)?,
    };
    for record in records {
        let (stamp, ()) = journal.append(|_| (record.to_bytes(), ()))?;
        ensure!(stamp.seq == record.stamp.seq, "{} would stand as {}", record.stamp.seq, stamp.seq);
    }
    journal.close().with_context(|| format!("the journal in {}", dir.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_stands_beside_its_parent_under_a_name_that_a_shell_takes() {
        let named = |change| place(None, Path::new("/tmp/run"), change);
        assert_eq!(named("drop #80, drop #81"), Path::new("/tmp/run.drop-80-drop-81"));
        assert!(
            named("edit #80={\"extents\":{\"add\":{\"region\":1,\"extents\":[]}}}")
                .to_str()
                .is_some_and(|name| name.len() < 64)
        );
        assert_eq!(place(Some(Path::new("x")), Path::new("/tmp/run"), "drop #1"), Path::new("x"));
    }
}
