//! Names that come from outside and become names of directories and files.
//!
//! ```text
//! SnapshotName   A-Z a-z 0-9 . _ -   1 to 128 bytes, no '.' in front, no ".part" or ".gone" behind     a directory
//! ContentsId     A-Z a-z 0-9 . _ -   1 to 160 bytes, no '.' in front                                  ID.contents
//! of a part      as a ContentsId;    of a fact, 1 to 64 bytes
//! ```
//!
//! Deliberately absent: escapes. What does not fit is refused, so that a name on disk is the name that was given.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// Bytes that the name of a snapshot has at most.
pub const SNAPSHOT_NAME_MAX_BYTES: usize = 128;

/// Bytes that the id of a memory has at most.
pub const CONTENTS_ID_MAX_BYTES: usize = 160;

/// Behind the name of a snapshot that is being written.
pub(crate) const HALF_MADE: &str = ".part";

/// Behind the name of a snapshot that is being removed.
pub(crate) const HALF_GONE: &str = ".gone";

/// Why a text is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing.
    #[error("it is empty")]
    Empty,
    /// Too long.
    #[error("it has {len_bytes} bytes, and at most {max_bytes} are allowed")]
    TooLong {
        /// Its length.
        len_bytes: usize,
        /// What is allowed.
        max_bytes: usize,
    },
    /// It has a character that names do not have.
    #[error("it has {character:?} at byte {at}; letters, digits, '.', '_' and '-' are allowed")]
    Character {
        /// The character.
        character: char,
        /// Its place.
        at: usize,
    },
    /// It would be hidden, or the directory itself, or the one above.
    #[error("it begins with '.'")]
    Dot,
    /// It would be taken for one that is half made or half gone.
    #[error("it ends in '{suffix}', which is kept for snapshots that are being written or removed")]
    Suffix {
        /// What it ends in.
        suffix: &'static str,
    },
}

/// Whether a text is of the characters of names, and not too long.
pub(crate) fn check(text: &str, max_bytes: usize) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if text.len() > max_bytes {
        return Err(NameError::TooLong { len_bytes: text.len(), max_bytes });
    }
    let is_foreign = |character: char| !(character.is_ascii_alphanumeric() || ".-_".contains(character));
    match text.char_indices().find(|(_, character)| is_foreign(*character)) {
        Some((at, character)) => Err(NameError::Character { character, at }),
        None if text.starts_with('.') => Err(NameError::Dot),
        None => Ok(()),
    }
}

/// The name of a snapshot, and of its directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName(String);

impl SnapshotName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its directory while it is written.
    pub(crate) fn half_made(&self) -> String {
        format!("{self}{HALF_MADE}")
    }

    /// The name of its directory while it is removed.
    pub(crate) fn half_gone(&self) -> String {
        format!("{self}{HALF_GONE}")
    }
}

impl FromStr for SnapshotName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, SNAPSHOT_NAME_MAX_BYTES)?;
        match [HALF_MADE, HALF_GONE].into_iter().find(|suffix| text.ends_with(suffix)) {
            Some(suffix) => Err(NameError::Suffix { suffix }),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a memory is called; the same in every snapshot of a chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentsId(String);

impl ContentsId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file of its bytes.
    pub(crate) fn file_name(&self) -> String {
        format!("{self}.contents")
    }
}

impl FromStr for ContentsId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        check(text, CONTENTS_ID_MAX_BYTES)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ContentsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_file_name_and_nothing_else() {
        let long = "x".repeat(SNAPSHOT_NAME_MAX_BYTES);
        for name in ["a", "monday", "2024-05-01_10.00", "A.part.b", long.as_str()] {
            assert_eq!(name.parse::<SnapshotName>().expect(name).as_str(), name);
        }
        let refused = |text: &str| text.parse::<SnapshotName>().expect_err(text);
        assert_eq!(refused(""), NameError::Empty);
        assert_eq!(refused(&format!("{long}x")), NameError::TooLong { len_bytes: 129, max_bytes: 128 });
        assert_eq!(refused("../x"), NameError::Character { character: '/', at: 2 });
        assert_eq!(refused("a b"), NameError::Character { character: ' ', at: 1 });
        assert_eq!(refused("ä"), NameError::Character { character: 'ä', at: 0 });
        assert_eq!(refused("a\0"), NameError::Character { character: '\0', at: 1 });
        for name in [".", "..", ".part", ".hidden"] {
            assert_eq!(refused(name), NameError::Dot);
        }
        assert_eq!(refused("a.part"), NameError::Suffix { suffix: ".part" });
        assert_eq!(refused("a.gone"), NameError::Suffix { suffix: ".gone" });
        assert!("backend-tm0".parse::<ContentsId>().is_ok() && "../ram".parse::<ContentsId>().is_err());
    }
}
