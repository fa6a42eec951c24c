//! What a run may find wrong, and the few inputs that still show it.
//!
//! Deliberately absent: a second way to look at it. A failure is a journal, and every question to a journal is one to it.

use device::Seq;
use device::laws::{Broken, Law};
use journal::record::{Genesis, Record};
use journal::{OpenError, StoreError};
use replay::{FoldError, History, Question, ShrinkError, Shrunk};
use thiserror::Error;

use crate::crash::CrashPoints;

/// What is wrong.
#[derive(Debug, Error)]
pub enum Wrong {
    /// A law does not hold after a record.
    #[error("{seq}: {broken}")]
    Unlawful {
        /// The record.
        seq: Seq,
        /// The law.
        broken: Broken,
    },
    /// Deciding panicked.
    #[error("{seq}: deciding panics: {message}")]
    Panicked {
        /// The record.
        seq: Seq,
        /// What the panic said.
        message: String,
    },
    /// What was decided cannot be true.
    #[error("{seq}: what was decided does not fit the state: {reason}")]
    Unfit {
        /// The record.
        seq: Seq,
        /// Why.
        reason: String,
    },
    /// A crash took what was acknowledged, or left what nobody wrote.
    #[error("with {in_flight} unsynced parts on the disk: {reason}")]
    NotKept {
        /// Unsynced parts that a power cut left.
        in_flight: usize,
        /// What is missing or different.
        reason: String,
    },
    /// The disk that a crash left does not open.
    #[error("the journal does not open after a crash: {0}")]
    NotOpened(#[from] OpenError),
    /// What the disk holds does not fold.
    #[error("the journal does not fold after a crash: {0}")]
    NotFolded(#[from] FoldError),
    /// What the disk holds folds into another state than the one that was.
    #[error("{seq}: the state folded from the disk is not the one that the run had")]
    FoldedOtherwise {
        /// The last record.
        seq: Seq,
    },
    /// The operator has taken everything back, and something is still held.
    #[error("{seq}: everything was taken back by force, and {what}")]
    NotTakenBack {
        /// The last record.
        seq: Seq,
        /// What is still held.
        what: String,
    },
    /// A panic outside of deciding.
    #[error("after {seq}: making facts true, a law or the simulator panics: {message}")]
    Stopped {
        /// The last record before it.
        seq: Seq,
        /// What the panic said.
        message: String,
    },
    /// The model disk failed although nobody asked it to.
    #[error("the model disk failed on its own: {0}")]
    Disk(#[from] StoreError),
}

/// A run that found something wrong: its seed, and its journal up to there.
#[derive(Debug, Error)]
#[error("seed {seed}: {wrong}\nreplay with: {}", self.command())]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// How long the run was to be.
    pub steps: u64,
    /// Which crash points were tried.
    pub crash_points: CrashPoints,
    /// What is wrong.
    pub wrong: Wrong,
    /// What the simulated VM was started as.
    pub genesis: Genesis,
    /// The records up to there.
    pub records: Vec<Record>,
}

impl Failure {
    /// The command that comes here again.
    pub fn command(&self) -> String {
        let every = if self.crash_points == CrashPoints::Every { " --every-crash-point" } else { "" };
        format!("dcd sim --seed {} --steps {}{every}", self.seed, self.steps)
    }

    /// The last record of its journal.
    pub fn last(&self) -> Seq {
        Seq(self.records.len() as u64)
    }

    /// What a shrunk journal must still show; `None` where the wrong is not in the journal but in how it is kept.
    pub fn question(&self) -> Option<Question> {
        match &self.wrong {
            Wrong::Unlawful { broken, .. } => Law::named(broken.name).ok().map(Question::Law),
            Wrong::Panicked { .. } => Some(Question::Panics),
            _ => None,
        }
    }

    /// The few inputs that still show it; `None` as for [`Failure::question`].
    ///
    /// # Errors
    /// If the journal does not show it: the run and replay disagree, which is a bug of one of them.
    pub fn shrink(&self) -> Option<Result<Shrunk, ShrinkError>> {
        let question = self.question()?;
        let history = History::new(self.genesis.clone(), self.records.clone());
        Some(history.map_err(ShrinkError::from).and_then(|history| replay::shrink(&history, &question, &mut |_, _| ())))
    }
}
