//! A path that is watched along a fold: what stands there, and who changed it last.
//!
//! Deliberately absent: the fold.

use device::Seq;
use device::inspect::{self, Change, Path, Value};
use device::vm::Vm;
use journal::record::Record;

use crate::history::can_write;

/// So many values are listed after every record without a thought.
const VALUES_FEW: usize = 64;

/// The record that last wrote a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The record; `#0` where no record did: it is so from the start.
    pub by: Seq,
    /// What it changed at and below the path. From the start: what is there.
    pub changes: Vec<Change>,
}

/// A path along a fold.
pub(crate) struct Watched<'a> {
    path: &'a Path,
    /// The path as the tree spells it, once a value was there.
    spelled: Option<String>,
    there: There,
    patience: Patience,
    last: Option<(Seq, There, There)>,
}

/// What stands at a path: mostly a value or nothing, which takes no list.
#[derive(Clone, PartialEq, Eq)]
enum There {
    Nothing,
    Value(Value),
    Values(Vec<(String, Value)>),
}

/// Whether many values are too many.
#[derive(PartialEq, Eq)]
enum Patience {
    /// They would be.
    Few,
    /// They are: nothing is seen any more.
    Lost,
    /// However many they are, they are listed.
    Endless,
}

impl<'a> Watched<'a> {
    /// From a state on.
    pub(crate) fn new(path: &'a Path, vm: &Vm) -> Self {
        let (there, patience) = (There::at(vm, path), Patience::Few);
        let mut watched = Self { path, spelled: None, there, patience, last: None };
        watched.learn(vm);
        watched
    }

    /// Looks on, however much there is.
    pub(crate) fn insist(&mut self) {
        self.patience = Patience::Endless;
    }

    /// Whether there was too much to see.
    pub(crate) fn is_much(&self) -> bool {
        self.patience == Patience::Lost
    }

    /// Looks at the state that a record made.
    pub(crate) fn see(&mut self, record: &Record, vm: &Vm) {
        if self.is_much() || !can_write(self.path, record) {
            return;
        }
        let now = There::at(vm, self.path);
        if now != self.there {
            let before = std::mem::replace(&mut self.there, now.clone());
            self.last = Some((record.stamp.seq, before, now));
            self.learn(vm);
        }
    }

    fn learn(&mut self, vm: &Vm) {
        if self.spelled.is_none() && matches!(self.there, There::Value(_)) {
            let values = inspect::values(vm, self.path).unwrap_or_default();
            self.spelled = values.into_iter().next().map(|(path, _)| path);
        }
        if self.patience == Patience::Few && matches!(&self.there, There::Values(values) if values.len() > VALUES_FEW) {
            self.patience = Patience::Lost;
        }
    }

    /// The last change that was seen.
    pub(crate) fn written(self) -> Option<Written> {
        let (by, before, after) = self.last?;
        let spelled = self.spelled.unwrap_or_else(|| self.path.to_string());
        let changes = inspect::changes_of(before.listed(&spelled), after.listed(&spelled));
        Some(Written { by, changes })
    }
}

impl There {
    fn at(vm: &Vm, path: &Path) -> Self {
        match inspect::value(vm, path) {
            Some(value) => Self::Value(value),
            None if inspect::is_there(vm, path) => Self::Values(inspect::values(vm, path).unwrap_or_default()),
            None => Self::Nothing,
        }
    }

    fn listed(self, path: &str) -> Vec<(String, Value)> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Value(value) => vec![(path.to_owned(), value)],
            Self::Values(values) => values,
        }
    }
}
