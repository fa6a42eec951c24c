//! The simulated VM: its state, its journal and its clock.
//!
//! ```text
//!  hear ─▶ decide, admit, evolve (as replay does) ─▶ laws ─▶ gathered ── the keeper's write, sync ─▶ acknowledged
//!  crash ─▶ the disk that it left ─▶ recovered ─▶ fold ─▶ the VM again, without what was never durable
//! ```
//!
//! Deliberately absent: chance. Who comes and what happens to the disk is the run's.

use std::ops::ControlFlow;

use device::config::DeviceIndex;
use device::laws::check_step;
use device::operation::{CommandReply, HostOutcome, Input, Reply, decide};
use device::vm::Vm;
use device::{Seq, VmTime};
use journal::Recovered;
use journal::memory_store::MemoryDisk;
use journal::record::{Genesis, Origin, Record, RecordedReply};
use replay::{End, Fold, Numbers, Step, rerun};

use crate::failure::Wrong;
use crate::keeper::{Keeper, recovered};

/// What reached the VM.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    pub(crate) device: DeviceIndex,
    pub(crate) origin: Origin,
    pub(crate) input: Input,
    pub(crate) outcomes: Vec<HostOutcome>,
}

/// The VM.
pub(crate) struct World {
    pub(crate) genesis: Genesis,
    pub(crate) records: Vec<Record>,
    pub(crate) vm: Vm,
    pub(crate) now: VmTime,
    pub(crate) keeper: Keeper,
}

impl World {
    pub(crate) fn new(genesis: Genesis) -> Result<Self, Wrong> {
        let keeper = Keeper::create(&genesis)?;
        let vm = Fold::new(&genesis)?.into_vm();
        Ok(Self { genesis, records: Vec::new(), vm, now: VmTime(0), keeper })
    }

    /// The last record.
    pub(crate) fn last(&self) -> Seq {
        Seq(self.records.len() as u64)
    }

    /// Decides an input. `None` where there is no such device: it reaches nobody.
    pub(crate) fn hear(&mut self, heard: Heard) -> Result<Option<&Record>, Wrong> {
        let Heard { device, origin, input, outcomes } = heard;
        let seq = Seq(self.last().0 + 1);
        let step = Step { record: seq, time: self.now, device, operation: seq, origin, input, outcomes };
        let (mut made, mut broken) = (None, None);
        let end = rerun(&mut self.vm, &[step], Numbers::Own, &mut |decided| {
            made = Some(decided.record.clone());
            broken = check_step(decided.before, decided.after).err();
            ControlFlow::Continue(())
        });
        if let Some(record) = &made {
            self.keeper.gather(record);
        }
        let is_heard = made.is_some();
        self.records.extend(made);
        match (end, broken) {
            (End::Panicked(message), _) => Err(Wrong::Panicked { seq, message }),
            (End::Unfit { seq, reason }, _) => Err(Wrong::Unfit { seq, reason }),
            (End::Done, Some(broken)) => Err(Wrong::Unlawful { seq, broken }),
            (End::Done, None) => Ok(self.records.last().filter(|_| is_heard)),
        }
    }

    /// What the host gets to see of the last record. A record keeps no more than the digest of a long answer; as a long
    /// answer changes nothing, deciding it again gives it whole.
    pub(crate) fn answer(&self) -> Option<CommandReply> {
        let record = self.records.last()?;
        let reply = match &record.reply {
            RecordedReply::Whole(reply) => reply.clone(),
            RecordedReply::Panicked(_) => return None,
            RecordedReply::Digest { .. } => {
                let (_, decision) = decide(&self.vm, record.device, record.stamp, &record.input, &record.outcomes)?;
                (RecordedReply::of(&decision.reply) == record.reply).then_some(decision.reply)?
            }
        };
        match reply {
            Reply::Command(reply) => Some(reply),
            _ => None,
        }
    }

    /// The process is gone and `left` is what the disk holds: another one reads it, folds it and goes on from there.
    /// Returns how many records were lost, of which nobody knew.
    pub(crate) fn crash(&mut self, left: MemoryDisk) -> Result<u64, Wrong> {
        let in_flight = self.keeper.disk().unsynced();
        let (keeper, found) = Keeper::open(left)?;
        self.keeper.is_kept_by(&found).map_err(|reason| Wrong::NotKept { in_flight, reason })?;
        let (last, lost) = (found.last, self.last().0 - found.last.0);
        let (records, vm) = self.folded(&found)?;
        if lost == 0 && vm != self.vm {
            return Err(Wrong::FoldedOtherwise { seq: last });
        }
        (self.records, self.vm, self.keeper) = (records, vm, keeper);
        Ok(lost)
    }

    /// The records of a disk, and the state that they make.
    fn folded(&self, found: &Recovered) -> Result<(Vec<Record>, Vm), Wrong> {
        let mut fold = Fold::new(&self.genesis)?;
        let mut records = Vec::with_capacity(found.records.len());
        for stored in &found.records {
            let record = Record::from_stored(stored)
                .map_err(|error| Wrong::NotKept { in_flight: 0, reason: error.to_string() })?;
            fold.apply(&record)?;
            records.push(record);
        }
        Ok((records, fold.into_vm()))
    }

    /// Whether what is on the disk, once all is synced, folds into the state that is.
    pub(crate) fn check_disk(&mut self) -> Result<(), Wrong> {
        self.keeper.write()?;
        self.keeper.sync()?;
        let found = recovered(&self.keeper.disk().crash_image(0))?;
        self.keeper.is_kept_by(&found).map_err(|reason| Wrong::NotKept { in_flight: 0, reason })?;
        let (records, vm) = self.folded(&found)?;
        let is_same = vm == self.vm && records == self.records;
        if is_same { Ok(()) } else { Err(Wrong::FoldedOtherwise { seq: self.last() }) }
    }
}
