//! What a run of a bench is asked to measure, and where it may write.

use std::env;

/// A directory on the disk that the build is on, so that it is that disk that is measured and not memory.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory")
}

/// The numbers on the command line; all of them if there is none.
pub(crate) struct Asked(Vec<String>);

impl Asked {
    pub(crate) fn of_arguments() -> Self {
        Self(env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect())
    }

    /// Whether one of these is wanted.
    pub(crate) fn any_of(&self, names: &[&str]) -> bool {
        self.0.is_empty() || self.0.iter().any(|asked| names.contains(&asked.as_str()))
    }
}
