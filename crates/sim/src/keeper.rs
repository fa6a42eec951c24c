//! The keeper of a simulated journal: what the journal's own thread does, on a model disk and one step at a time.
//!
//! ```text
//!  gathered ── write ─▶ in flight ── sync ─▶ durable          a fault in either is final; then the process dies
//! ```
//!
//! Frames, parts and the store are the journal's own, so that what is on the disk is what a journal is. A step at a time,
//! because a crash comes between any two. Deliberately absent: the thread.

use device::Seq;
use journal::frame::{self, Chain};
use journal::memory_store::{MemoryDisk, MemoryStore};
use journal::record::{Genesis, RECORD_VERSION, Record};
use journal::{Durability, Journal, OpenError, Options, Recovered, Store, StoreError, part};

/// The keeper, and the bodies of all records that it was ever given and that no crash has taken.
pub(crate) struct Keeper {
    disk: MemoryDisk,
    store: Box<MemoryStore>,
    chain: Chain,
    genesis: Vec<u8>,
    bodies: Vec<Vec<u8>>,
    /// The last record that is in the store, perhaps only in its memory.
    written: Seq,
    durable: Seq,
}

impl Keeper {
    pub(crate) fn create(genesis: &Genesis) -> Result<Self, StoreError> {
        let disk = MemoryDisk::default();
        let (mut store, genesis) = (disk.store(), genesis.to_bytes());
        let mut group = Vec::new();
        let chain = frame::encode(&mut group, Chain::default(), Seq(0), RECORD_VERSION, &genesis)?;
        store.write(&part::cut(Seq(0), &group))?;
        store.sync(Durability::Disk)?;
        Ok(Self { disk, store, chain, genesis, bodies: Vec::new(), written: Seq(0), durable: Seq(0) })
    }

    /// The keeper of the journal on a disk that a crash left, and what is in it. The journal's own code reads it and drops
    /// a torn tail.
    pub(crate) fn open(disk: MemoryDisk) -> Result<(Self, Recovered), OpenError> {
        let recovered = recovered(&disk)?;
        let Recovered { genesis, records, last, .. } = &recovered;
        let first = Chain::default().next(Seq(0), RECORD_VERSION, genesis);
        let chain = records.iter().fold(first, |chain, stored| chain.next(stored.seq, stored.version, &stored.body));
        let bodies = records.iter().map(|stored| stored.body.clone()).collect();
        let (store, genesis, last) = (disk.store(), genesis.clone(), *last);
        Ok((Self { disk, store, chain, genesis, bodies, written: last, durable: last }, recovered))
    }

    /// Takes in the next record.
    pub(crate) fn gather(&mut self, record: &Record) {
        self.bodies.push(record.to_bytes());
    }

    /// Whether something waits to be written or synced.
    pub(crate) fn is_behind(&self) -> bool {
        self.durable.0 < self.bodies.len() as u64
    }

    /// Writes what has gathered, as one group.
    pub(crate) fn write(&mut self) -> Result<(), StoreError> {
        let first = Seq(self.written.0 + 1);
        let mut group = Vec::new();
        for (seq, body) in (first.0..).zip(&self.bodies[self.written.0 as usize..]) {
            self.chain = frame::encode(&mut group, self.chain, Seq(seq), RECORD_VERSION, body)?;
        }
        if !group.is_empty() {
            self.store.write(&part::cut(first, &group))?;
            self.written = Seq(self.bodies.len() as u64);
        }
        Ok(())
    }

    /// Makes durable what was written, and returns the last record of it.
    pub(crate) fn sync(&mut self) -> Result<Seq, StoreError> {
        self.store.sync(Durability::Disk)?;
        self.durable = self.written;
        Ok(self.durable)
    }

    pub(crate) fn disk(&self) -> &MemoryDisk {
        &self.disk
    }

    /// Whether what a disk holds is this journal: all that is durable, and of the rest a beginning.
    pub(crate) fn is_kept_by(&self, recovered: &Recovered) -> Result<(), String> {
        let last = recovered.last;
        if recovered.genesis != self.genesis {
            return Err("the genesis is not what was written".into());
        }
        if last < self.durable {
            return Err(format!(
                "records up to {} were acknowledged and only those up to {last} are there",
                self.durable
            ));
        }
        if last.0 > self.bodies.len() as u64 {
            return Err(format!("{last} is there and nobody wrote it"));
        }
        let differs = recovered.records.iter().zip(&self.bodies).find(|(stored, body)| stored.body != **body);
        differs.map_or(Ok(()), |(stored, _)| Err(format!("{} is not what was written", stored.seq)))
    }
}

/// What the journal's own code finds on a disk.
pub(crate) fn recovered(disk: &MemoryDisk) -> Result<Recovered, OpenError> {
    let options = Options { record_version: RECORD_VERSION, ..Options::default() };
    let (journal, recovered) = Journal::open_on(disk.store(), options)?;
    // Nothing was appended, so that there is nothing to flush.
    drop(journal);
    Ok(recovered)
}

#[cfg(test)]
mod tests {
    use device::config::DeviceIndex;
    use journal::record::Origin;

    use super::*;
    use crate::mix::vm_config;
    use crate::world::{Heard, World};

    /// What the crash tests rest on: that a lost record, a changed one and one that nobody wrote would be seen.
    #[test]
    fn what_was_acknowledged_and_is_gone_is_seen() {
        let genesis = Genesis { config: vm_config(), build: "test".into(), parent: None };
        let mut world = World::new(genesis.clone()).expect("a VM");
        let input = device::operation::Input::Backends(device::backends::Input::RunStart {
            build: "test".into(),
            survivals: Vec::new(),
        });
        let heard = Heard { device: DeviceIndex(0), origin: Origin::Supervisor, input, outcomes: Vec::new() };
        world.hear(heard).expect("decided");
        let keeper = &mut world.keeper;
        keeper.write().expect("written");
        let unsynced = recovered(&keeper.disk().crash_image(0)).expect("a journal");
        let whole = recovered(&keeper.disk().live_image()).expect("a journal");
        // Before the sync both are possible; after it only the whole one.
        assert_eq!(keeper.is_kept_by(&unsynced), Ok(()));
        assert_eq!(keeper.is_kept_by(&whole), Ok(()));
        keeper.sync().expect("synced");
        let lost = keeper.is_kept_by(&unsynced).expect_err("it was acknowledged");
        assert!(lost.contains("records up to #1 were acknowledged and only those up to #0 are there"), "{lost}");
        keeper.bodies[0][0] ^= 1;
        assert!(keeper.is_kept_by(&whole).expect_err("it is another").contains("#1 is not what was written"));
        let nothing = Keeper::create(&genesis).expect("a disk");
        assert!(nothing.is_kept_by(&whole).expect_err("nobody").contains("nobody wrote it"));
    }
}
