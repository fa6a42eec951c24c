//! What a journal holds, read back: groups from parts, records from frames, checked from the genesis or a keyframe on.
//!
//! ```text
//! sealed ─▶ keyframe or #0 ─▶ genesis   intact prefix          │ damage: reading stops, the error names #N
//!           frames #1 #2 #3                                    │
//! parts  ─▶ group #4 ─▶ #4 ...                           #N    │ or a torn tail: dropped, nothing of it was durable
//! ```
//!
//! Absent on purpose: writing (the opener removes a torn tail), repair, and reading on behind damage.

use std::io;

use device::Seq;

use crate::{
    frame::{self, Chain, FrameError},
    keyframe::StoredKeyframe,
    part::{Assembly, Group, PartError},
    portable::SegmentError,
    store::{Key, Store, StoreError},
};

/// One record as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its position, from 1.
    pub seq: Seq,
    /// The version its body was written in.
    pub version: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// The last group, when it was cut short: none of its records was ever durable, so none of them is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The first record it would have held.
    pub first: Seq,
    /// Parts of it that are in the store.
    pub parts: usize,
}

/// A journal read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The configuration the journal was created with.
    pub genesis: Vec<u8>,
    /// The version the genesis was written in.
    pub genesis_version: u16,
    /// The state that the records follow; `None` where they begin with #1.
    pub base: Option<StoredKeyframe>,
    /// Every record behind that, without a gap.
    pub records: Vec<Stored>,
    /// The last record, or that of the base; 0 if there is neither.
    pub last: Seq,
    /// The torn tail, if there was one.
    pub torn: Option<Torn>,
}

impl Recovered {
    /// The link of the last record, computed again: two journals that have the same one hold the same.
    pub fn link(&self) -> Chain {
        let before = self.base.as_ref().map(|base| base.chain).unwrap_or_default();
        self.bodies().fold(before, |before, (seq, version, body)| before.next(seq, version, body))
    }

    /// The record that `records` follow; 0 where they begin with #1.
    pub fn before(&self) -> Seq {
        self.base.as_ref().map_or(Seq(0), |base| base.seq)
    }

    /// What is written as frames: the genesis, where it is not in the base, and every record.
    pub(crate) fn bodies(&self) -> impl Iterator<Item = (Seq, u16, &[u8])> {
        let genesis = self.base.is_none().then_some((Seq(0), self.genesis_version, self.genesis.as_slice()));
        let records = self.records.iter().map(|stored| (stored.seq, stored.version, stored.body.as_slice()));
        genesis.into_iter().chain(records)
    }
}

/// Where a journal stops being intact, and why.
#[derive(Debug)]
pub struct Damage {
    /// The last intact record; `None` if not even the genesis is.
    pub intact: Option<Seq>,
    /// What stands behind it.
    pub cause: DamageCause,
}

impl core::fmt::Display for Damage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.intact {
            Some(Seq(0)) => write!(f, "only the genesis is intact")?,
            Some(last) => write!(f, "records up to {last} are intact")?,
            None => write!(f, "no record is intact")?,
        }
        write!(f, ", what follows is not: {}", self.cause)
    }
}

impl core::error::Error for Damage {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum DamageCause {
    /// A stored part is not what was written, or is missing.
    #[error(transparent)]
    Part(#[from] PartError),
    /// A frame is not what was written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A segment of a file is not what was written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// Whole groups are missing.
    #[error("the next group begins at {stored} and {expected} is due: records in between are missing")]
    Gap {
        /// Where the stored group begins.
        stored: Seq,
        /// Where it should.
        expected: Seq,
    },
    /// A keyframe does not stand where it says.
    #[error("a keyframe of {stored} stands behind {expected}, or is of another journal")]
    Keyframe {
        /// The record that it says it follows.
        stored: Seq,
        /// The record that it stands behind.
        expected: Seq,
    },
    /// A file of sealed records is not what was written.
    #[error("{}: {cause}", path.display())]
    Sealed {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        cause: Box<DamageCause>,
    },
    /// There are sealed records and nothing that is written to.
    #[error("its live part is gone")]
    NoGeneration,
    /// The database ends although later groups lie whole in its bytes.
    #[error("the database ends there, and records {from} to {to} lie whole in its bytes")]
    Forgotten {
        /// The first record of those groups.
        from: Seq,
        /// The last.
        to: Seq,
    },
    /// The store could not be read on.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a journal cannot be created, opened or read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is one already.
    #[error("{place} already holds a journal: open it, or create in another directory")]
    Exists {
        /// The directory or store.
        place: String,
    },
    /// There is none.
    #[error("{place} holds no journal: create one there, or name the directory that was given at its creation")]
    Missing {
        /// The directory or store.
        place: String,
    },
    /// Another process, or another handle in this one, has it open.
    #[error("{dir} is held by another process: ask that one (its control socket answers questions), or stop it first", dir = .dir.display())]
    Held {
        /// The journal's directory.
        dir: std::path::PathBuf,
    },
    /// It was never begun, or its creation was cut short, so that no record was ever in it; or that is how it looks now.
    #[error(
        "{place} holds no whole genesis: its creation was cut short, and no record was in it; or it was damaged, and then keep it \
         and try: dcd journal salvage {place} OUT"
    )]
    Unfinished {
        /// The directory or store.
        place: String,
    },
    /// The database below does not open.
    #[error("the database in {dir} does not open: {message}; keep it, and take the intact records out with: dcd journal salvage {dir} OUT", dir = .dir.display())]
    Unopenable {
        /// The journal's directory.
        dir: std::path::PathBuf,
        /// What the database said.
        message: String,
    },
    /// It opens, and its contents are not what was written.
    #[error(
        "{place} is damaged: {damage}; keep it, and take the intact records out with: dcd journal salvage {place} OUT"
    )]
    Damaged {
        /// The directory or store.
        place: String,
        /// Where, and why.
        damage: Damage,
    },
    /// It is no state at which a journal can begin.
    #[error("no journal can begin at {seq}: {reason}")]
    Base {
        /// The record after which it is.
        seq: Seq,
        /// Why.
        reason: String,
    },
    /// Its records cannot be sealed.
    #[error("the records in {dir} cannot be sealed: {reason}; they stay where they are", dir = .dir.display())]
    Unsealable {
        /// The journal's directory.
        dir: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// The genesis does not fit into a frame.
    #[error(transparent)]
    Genesis(#[from] FrameError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keeper's thread could not be started.
    #[error("could not start the journal's thread: {source}; raise the limit on threads")]
    Thread {
        /// What the operating system said.
        source: io::Error,
    },
}

/// All that a journal was found to hold, and what is needed to write on.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) genesis: Option<Stored>,
    pub(crate) base: Option<StoredKeyframe>,
    pub(crate) records: Vec<Stored>,
    pub(crate) chain: Chain,
    /// Bytes of the frames that were read, and of those that were not because a keyframe stands for them.
    pub(crate) frame_bytes: u64,
    pub(crate) torn: Vec<Key>,
    pub(crate) damage: Option<Damage>,
}

impl Reading {
    /// Nothing read yet, behind a keyframe.
    pub(crate) fn behind(base: StoredKeyframe) -> Reading {
        let (genesis, chain) = (Some(base.genesis.clone()), base.chain);
        Reading { genesis, chain, base: Some(base), ..Reading::default() }
    }

    /// Reads a store from its first part to its last, or to damage.
    pub(crate) fn of(store: &dyn Store) -> Reading {
        let mut reading = Reading::default();
        if let Err(cause) = reading.scan(std::iter::once(store), &mut |_, _| ()) {
            reading.damage = Some(Damage { intact: reading.intact(), cause });
        }
        reading
    }

    /// Reads stores, of which each goes on where the one before it ends. `new` is told the frames of each group that were
    /// not read before, and which of the stores has them.
    pub(crate) fn scan<'a>(
        &mut self,
        stores: impl Iterator<Item = &'a dyn Store>,
        new: &mut dyn FnMut(usize, &[u8]),
    ) -> Result<(), DamageCause> {
        let mut assembly = Assembly::default();
        for (index, store) in stores.enumerate() {
            for part in store.scan() {
                let (key, value) = part?;
                if let Some(group) = assembly.push(key, &value)? {
                    let known_bytes = self.known(&group);
                    if known_bytes == 0 {
                        self.take_in(&group)?;
                    } else if known_bytes < group.bytes.len() {
                        self.take_in_frames(&group.bytes, known_bytes)?;
                    }
                    if known_bytes < group.bytes.len() {
                        new(index, &group.bytes[known_bytes..]);
                    }
                }
            }
        }
        if let Some(first) = assembly.open_group() {
            self.check_place(first)?;
        }
        self.torn = assembly.finish();
        Ok(())
    }

    /// Bytes at the beginning of a group of which a sealed file has told already: a store is removed only after its file
    /// is there. Of what is not a frame nothing is known, and reading it will tell.
    fn known(&self, group: &Group) -> usize {
        let (mut offset, next) = (0, self.next());
        while group.first < next && offset < group.bytes.len() {
            match frame::decode_alone(&group.bytes, offset, next) {
                Ok(frame) if frame.seq < next => offset += frame.len_bytes(),
                _ => break,
            }
        }
        offset
    }

    /// Takes in the frames of a segment.
    pub(crate) fn take_in(&mut self, group: &Group) -> Result<(), DamageCause> {
        self.check_place(group.first)?;
        self.take_in_frames(&group.bytes, 0)
    }

    fn take_in_frames(&mut self, bytes: &[u8], mut offset: usize) -> Result<(), DamageCause> {
        // At least one frame: a group without any is damage too, and is found as a frame that is too short.
        loop {
            let frame = frame::decode(bytes, offset, self.next(), self.chain)?;
            let stored = Stored { seq: frame.seq, version: frame.version, body: frame.body.to_vec() };
            self.chain = frame.chain;
            offset += frame.len_bytes();
            self.frame_bytes += frame.len_bytes() as u64;
            match self.genesis {
                None => self.genesis = Some(stored),
                Some(_) => self.records.push(stored),
            }
            if offset >= bytes.len() {
                return Ok(());
            }
        }
    }

    /// Takes in a keyframe: what is read before it must lead to it, and where nothing was, reading begins with it.
    pub(crate) fn take_in_keyframe(&mut self, keyframe: StoredKeyframe) -> Result<(), DamageCause> {
        let Some(expected) = self.intact() else {
            *self = Reading::behind(keyframe);
            return Ok(());
        };
        let stored = keyframe.seq;
        let fits =
            stored == expected && keyframe.chain == self.chain && self.genesis.as_ref() == Some(&keyframe.genesis);
        if fits { Ok(()) } else { Err(DamageCause::Keyframe { stored, expected }) }
    }

    fn check_place(&self, stored: Seq) -> Result<(), DamageCause> {
        let expected = self.next();
        if stored == expected { Ok(()) } else { Err(DamageCause::Gap { stored, expected }) }
    }

    /// Frames up to the last that was read, the genesis too.
    pub(crate) fn frames(&self) -> u64 {
        self.next().0
    }

    /// The last record that was read.
    pub(crate) fn intact(&self) -> Option<Seq> {
        let before = self.base.as_ref().map_or(0, |base| base.seq.0);
        self.genesis.as_ref().map(|_| Seq(before + self.records.len() as u64))
    }

    fn next(&self) -> Seq {
        Seq(self.intact().map_or(0, |last| last.0 + 1))
    }

    /// The intact records and the damage behind them, or why there is nothing to be had.
    pub(crate) fn into_recovered(
        self,
        place: impl FnOnce() -> String,
    ) -> Result<(Recovered, Option<Damage>), OpenError> {
        let last = self.intact().unwrap_or(Seq(0));
        let Some(genesis) = self.genesis else {
            let place = place();
            return Err(match self.damage {
                Some(damage) => OpenError::Damaged { place, damage },
                None => OpenError::Unfinished { place },
            });
        };
        let torn = self.torn.first().map(|key| Torn { first: key.first, parts: self.torn.len() });
        let Stored { version: genesis_version, body: genesis, .. } = genesis;
        Ok((Recovered { genesis, genesis_version, base: self.base, records: self.records, last, torn }, self.damage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        memory_store::MemoryDisk,
        part::{self, PAYLOAD_LIMIT_BYTES},
    };

    /// A disk with the genesis in group 0 and then one group for each list of bodies.
    fn disk_with(groups: &[&[Vec<u8>]]) -> MemoryDisk {
        let disk = MemoryDisk::default();
        let (mut chain, mut next) = (Chain::default(), 0);
        for bodies in [&[b"genesis".to_vec()][..]].iter().chain(groups) {
            let (first, mut group) = (Seq(next), Vec::new());
            for body in *bodies {
                chain = frame::encode(&mut group, chain, Seq(next), 1, body).expect("short");
                next += 1;
            }
            disk.store().write(&part::cut(first, &group)).expect("memory");
        }
        disk
    }

    fn long(parts: usize) -> Vec<u8> {
        vec![0xA5; parts * PAYLOAD_LIMIT_BYTES - 100]
    }

    fn read(disk: &MemoryDisk) -> Result<(Recovered, Option<Damage>), OpenError> {
        Reading::of(&*disk.store()).into_recovered(|| "a test".to_owned())
    }

    #[test]
    fn groups_come_back_as_records() {
        let disk = disk_with(&[&[b"a".to_vec(), long(3)], &[Vec::new()]]);
        let (read, damage) = read(&disk).expect("whole");
        assert!(damage.is_none() && read.torn.is_none());
        assert_eq!((read.genesis.as_slice(), read.last), (&b"genesis"[..], Seq(3)));
        assert_eq!(read.records.iter().map(|stored| stored.seq.0).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(read.records[1].body, long(3));
    }

    #[test]
    fn a_tail_torn_at_any_part_is_dropped() {
        let disk = disk_with(&[&[b"kept".to_vec()], &[long(4), b"lost".to_vec()]]);
        let last_group: Vec<Key> = disk.parts().iter().map(|(key, _)| *key).filter(|key| key.first == Seq(2)).collect();
        assert!(last_group.len() >= 4);
        for key in last_group.iter().rev() {
            disk.replace(*key, None);
            let (read, damage) = read(&disk).expect("whole but for its tail");
            assert!(damage.is_none());
            assert_eq!(read.last, Seq(1));
            assert_eq!(read.torn.map_or(0, |torn| torn.parts), key.part as usize);
        }
    }

    #[test]
    fn a_flipped_bit_in_any_byte_names_the_intact_prefix() {
        let disk = disk_with(&[&[b"one".to_vec()], &[b"two".to_vec(), b"three".to_vec()], &[b"four".to_vec()]]);
        for (key, value) in disk.parts() {
            for at in 0..value.len() {
                let mut damaged = value.clone();
                damaged[at] ^= 1 << (at % 8);
                disk.replace(key, Some(damaged));
                let Reading { damage, records, .. } = Reading::of(&*disk.store());
                let damage = damage.unwrap_or_else(|| panic!("byte {at} of {key:?}"));
                assert_eq!(damage.intact, key.first.0.checked_sub(1).map(Seq), "byte {at} of {key:?}: {damage}");
                assert_eq!(records.len() as u64, key.first.0.saturating_sub(1));
            }
            disk.replace(key, Some(value));
        }
        assert!(read(&disk).expect("repaired").1.is_none());
    }

    #[test]
    fn a_missing_group_is_a_gap_wherever_it_was() {
        for (missing, intact) in [(1, Seq(0)), (2, Seq(1))] {
            let disk = disk_with(&[&[b"one".to_vec()], &[b"two".to_vec()], &[long(2)]]);
            disk.replace(Key { first: Seq(missing), part: 0 }, None);
            let (_, damage) = read(&disk).expect("a prefix");
            let damage = damage.expect("a gap");
            assert_eq!(damage.intact, Some(intact));
            assert!(matches!(damage.cause, DamageCause::Gap { stored, .. } if stored == Seq(missing + 1)));
        }
        // The hole is seen also when what stands behind it is torn.
        let disk = disk_with(&[&[b"one".to_vec()], &[long(2)]]);
        disk.replace(Key { first: Seq(1), part: 0 }, None);
        disk.replace(Key { first: Seq(2), part: 1 }, None);
        assert!(matches!(read(&disk), Ok((_, Some(Damage { cause: DamageCause::Gap { .. }, .. })))));
    }

    #[test]
    fn a_group_of_another_journal_does_not_continue_this_one() {
        let disk = disk_with(&[&[b"one".to_vec()], &[b"two".to_vec()]]);
        let other = disk_with(&[&[b"uno".to_vec()], &[b"two".to_vec()]]);
        let (key, value) = other.parts().remove(2);
        disk.replace(key, Some(value));
        let (_, damage) = read(&disk).expect("a prefix");
        let damage = damage.expect("another chain");
        assert!(matches!(damage.cause, DamageCause::Frame(FrameError::Link { seq: Seq(2), .. })));
        assert!(damage.to_string().starts_with("records up to #1 are intact, what follows is not: "), "{damage}");
    }

    #[test]
    fn an_empty_group_is_damage() {
        let disk = disk_with(&[&[b"one".to_vec()]]);
        disk.store().write(&part::cut(Seq(2), &[])).expect("memory");
        assert!(matches!(
            read(&disk),
            Ok((_, Some(Damage { intact: Some(Seq(1)), cause: DamageCause::Frame(FrameError::Short { .. }) })))
        ));
    }

    #[test]
    fn without_a_whole_genesis_nothing_was_ever_there() {
        assert!(matches!(read(&MemoryDisk::default()), Err(OpenError::Unfinished { .. })));
    }
}
