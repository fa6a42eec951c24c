//! The fold: from facts to state. It never asks what today's build would decide.

use device::config::{ConfigError, DeviceIndex};
use device::operation::Fact;
use device::vm::Vm;
use device::{Seq, Stamp, VmTime};
use journal::form::Keyframe;
use journal::record::{Facts, Genesis, Record};
use thiserror::Error;

/// What can be folded: a record, or what is left of one of which only the facts were read.
pub trait Foldable {
    /// Where and when.
    fn stamp(&self) -> Stamp;

    /// Whose.
    fn device(&self) -> DeviceIndex;

    /// What happened.
    fn facts(&self) -> &[Fact];
}

impl Foldable for Record {
    fn stamp(&self) -> Stamp {
        self.stamp
    }

    fn device(&self) -> DeviceIndex {
        self.device
    }

    fn facts(&self) -> &[Fact] {
        &self.facts
    }
}

impl Foldable for Facts {
    fn stamp(&self) -> Stamp {
        self.stamp
    }

    fn device(&self) -> DeviceIndex {
        self.device
    }

    fn facts(&self) -> &[Fact] {
        &self.facts
    }
}

/// A record that cannot follow the ones before it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FoldError {
    /// The VM that the journal was made for cannot be.
    #[error("#0: {0}")]
    Genesis(#[from] ConfigError),
    /// A record is missing or stands twice.
    #[error("{found} follows {last}: records count up one by one")]
    OutOfSequence {
        /// The last one.
        last: Seq,
        /// The next one.
        found: Seq,
    },
    /// The VM clock went back.
    #[error("{seq}: its time {time_ns} ns is before the {last_ns} ns of the record before it")]
    TimeWentBack {
        /// The record.
        seq: Seq,
        /// Its time.
        time_ns: u64,
        /// The time before.
        last_ns: u64,
    },
    /// A fact does not fit the state.
    #[error("{seq}: fact {index} cannot be true here: {reason}")]
    Unfit {
        /// The record.
        seq: Seq,
        /// Which of its facts.
        index: usize,
        /// Why.
        reason: String,
    },
}

/// A state and the position at which it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fold {
    vm: Vm,
    last: Seq,
    time: VmTime,
}

impl Fold {
    /// The state before the first record.
    ///
    /// # Errors
    /// If the genesis describes a VM that cannot be.
    pub fn new(genesis: &Genesis) -> Result<Self, FoldError> {
        genesis.config.check()?;
        Ok(Self { vm: Vm::new(genesis.config.clone()), last: Seq(0), time: VmTime(0) })
    }

    /// The state that a keyframe has.
    pub fn from_keyframe(Keyframe { seq, time, vm }: Keyframe) -> Self {
        Self { vm, last: seq, time }
    }

    /// The state as a keyframe.
    pub fn to_keyframe(&self) -> Keyframe {
        Keyframe { seq: self.last, time: self.time, vm: self.vm.clone() }
    }

    /// The state.
    pub fn vm(&self) -> &Vm {
        &self.vm
    }

    /// The state, for good.
    pub fn into_vm(self) -> Vm {
        self.vm
    }

    /// The last record.
    pub fn last(&self) -> Seq {
        self.last
    }

    /// The time of the last record.
    pub fn time(&self) -> VmTime {
        self.time
    }

    /// Makes a record's facts true.
    ///
    /// # Errors
    /// If the record or one of its facts cannot stand here. The state is then that before the unfit fact.
    pub fn apply(&mut self, record: &impl Foldable) -> Result<(), FoldError> {
        let (stamp, device, facts) = (record.stamp(), record.device(), record.facts());
        let Stamp { seq, time } = stamp;
        if seq.0 != self.last.0 + 1 {
            return Err(FoldError::OutOfSequence { last: self.last, found: seq });
        }
        if time < self.time {
            return Err(FoldError::TimeWentBack { seq, time_ns: time.0, last_ns: self.time.0 });
        }
        for (index, fact) in facts.iter().enumerate() {
            self.vm.admit(device, fact).map_err(|reason| FoldError::Unfit { seq, index, reason })?;
            self.vm.evolve(device, stamp, fact);
        }
        (self.last, self.time) = (seq, time);
        Ok(())
    }
}
