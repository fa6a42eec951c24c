//! What ever stood at a path, for who asked for a value that never did.
//!
//! Deliberately absent: the value. Who asks here has not found it.

use device::inspect::{self, Path, PathError};
use device::vm::Vm;

use crate::fold::{Fold, FoldError, Foldable};
use crate::history::{History, HistoryError, can_write};

/// Most names of values that an error lists.
const PARTS_SHOWN: usize = 12;

/// What ever stood at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stood {
    /// Nothing: how many parts of the path were ever there, and what was there instead of the next.
    Nothing {
        /// How many.
        depth: usize,
        /// What was.
        error: PathError,
    },
    /// A value, or a collection in which nothing was.
    Something,
    /// More than a value: their paths.
    Parts(Vec<String>),
}

impl Stood {
    /// What stood there before and later, together.
    #[must_use]
    pub fn and_later(self, later: Self) -> Self {
        match (self, later) {
            (parts @ Self::Parts(_), _) | (_, parts @ Self::Parts(_)) => parts,
            (Self::Something, _) | (_, Self::Something) => Self::Something,
            (Self::Nothing { depth, error }, Self::Nothing { depth: later, .. }) if depth > later => {
                Self::Nothing { depth, error }
            }
            (Self::Nothing { .. }, later) => later,
        }
    }

    /// Why no value of the path can be found, where that is not only this value.
    pub fn refusal(self, path: &Path) -> Option<HistoryError> {
        match self {
            Self::Something | Self::Nothing { error: PathError::Syntax { .. }, .. } => None,
            Self::Nothing { error: PathError::Missing { key, place, there }, .. } => {
                Some(HistoryError::Never { key, place, there })
            }
            Self::Parts(mut parts) => {
                let more = parts.len().saturating_sub(PARTS_SHOWN);
                parts.truncate(PARTS_SHOWN);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                Some(HistoryError::NoValue { path: path.to_string(), parts: parts.join(", ") + &more })
            }
        }
    }

    fn at(vm: &Vm, path: &Path, prefixes: &[Path]) -> Self {
        if inspect::value(vm, path).is_some() {
            return Self::Something;
        }
        match inspect::values(vm, path) {
            Ok(values) if values.len() > 1 => Self::Parts(values.into_iter().map(|(path, _)| path).collect()),
            Ok(_) => Self::Something,
            Err(error) => Self::Nothing { depth: depth(vm, prefixes), error },
        }
    }
}

impl History {
    /// What ever stood at a path.
    ///
    /// # Errors
    /// If a record does not fit.
    pub fn stood(&self, path: &Path) -> Result<Stood, FoldError> {
        stood(path, self.start().clone(), self.records())
    }
}

/// What ever stood at a path, from a state on.
///
/// # Errors
/// If a record does not fit.
pub(crate) fn stood(path: &Path, mut fold: Fold, records: &[impl Foldable]) -> Result<Stood, FoldError> {
    let prefixes = prefixes(path);
    let mut stood = Stood::at(fold.vm(), path, &prefixes);
    for record in records {
        fold.apply(record)?;
        // Listing what is there instead takes long, and is not needed twice.
        let is_news = || match &stood {
            Stood::Nothing { depth: known, .. } => depth(fold.vm(), &prefixes) > *known,
            Stood::Something | Stood::Parts(_) => true,
        };
        if can_write(path, record) && is_news() {
            stood = stood.and_later(Stood::at(fold.vm(), path, &prefixes));
        }
        if matches!(stood, Stood::Parts(_)) {
            return Ok(stood);
        }
    }
    Ok(stood.and_later(Stood::at(fold.vm(), path, &prefixes)))
}

/// How many of a path's beginnings are there.
fn depth(vm: &Vm, prefixes: &[Path]) -> usize {
    prefixes.iter().take_while(|prefix| inspect::is_there(vm, prefix)).count()
}

/// The beginnings of a path, the shortest first.
fn prefixes(path: &Path) -> Vec<Path> {
    let beginning = |len: usize| path.segments()[..len].iter().map(|key| format!("[{key}]")).collect::<String>();
    (1..=path.segments().len()).filter_map(|len| beginning(len).parse().ok()).collect()
}
