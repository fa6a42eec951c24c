//! Opening a journal's directory: from its newest keyframe to its last record, and then on.
//!
//! ```text
//! sealed files: newest keyframe ─▶ frames behind it ─┐
//! copies of generations, oldest to newest ───────────┴─▶ Recovered ─▶ (does it fit?) ─▶ start: the same, in place ─▶ Journal
//!      older ones: not sealed before the end, the follower does it now
//! ```
//!
//! Between reading and starting nothing has changed on the disk, so that whoever finds that the journal is not the one he
//! meant has done it no harm. Deliberately absent: checking what stands before the keyframe; `read` does that.

use std::{
    iter::from_fn,
    path::{Path, PathBuf},
    sync::mpsc,
};

use device::Seq;

use crate::{
    directory::{Directory, Generation, SealedFile},
    follower::{FollowerThread, Message, Row, Sealing, Standing, frame_bytes},
    frame::Chain,
    handle::{Journal, Options, Start},
    held::{Held, Live, Purpose, read_files},
    keyframe::StoredKeyframe,
    part::Group,
    portable::Index,
    recover::{Damage, DamageCause, OpenError, Reading, Recovered, Stored},
    sled_store::SledStore,
    store::{Durability, Key, Store},
    whole::check_end,
};

/// A journal that was read, to be gone on with.
pub struct Opening {
    dir: PathBuf,
    chain: Chain,
    recovered: Recovered,
}

/// What a held directory has behind its newest keyframe, and what is needed to write on.
struct Newest {
    directory: Directory,
    stores: Vec<(Generation, SledStore)>,
    live: Vec<Live>,
    torn: Vec<Key>,
    frame_bytes: u64,
    chain: Chain,
    standing: Standing,
    recovered: Recovered,
}

impl Opening {
    /// Reads the journal in `dir` from its newest keyframe on. The directory stays as it is.
    ///
    /// # Errors
    /// If there is none, another has it open, or it is damaged.
    pub fn of(dir: &Path) -> Result<Opening, OpenError> {
        let read = read_newest(dir).map(|Newest { chain, recovered, .. }| (chain, recovered));
        let (chain, recovered) = check_end(dir, read, |(_, recovered)| recovered.last)?;
        Ok(Opening { dir: dir.to_owned(), chain, recovered })
    }

    /// What was read.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// Goes on with the journal. What was cut short is removed.
    ///
    /// # Errors
    /// If the disk fails, a thread cannot be started, or another went on with it first.
    pub fn start(self, options: Options) -> Result<Journal, OpenError> {
        let newest = self.hold()?;
        let (chain, last, frame_bytes) = (newest.chain, newest.recovered.last, newest.frame_bytes);
        let (store, row) = newest.into_row()?;
        Journal::start(Start { store, chain, last, frame_bytes, row: Some(row), base: None }, options)
    }

    /// Seals every record into files and removes the oldest of these, as `sealing` says.
    ///
    /// # Errors
    /// If the disk fails, a record cannot be followed, or another went on with it first.
    pub fn compact(self, sealing: Sealing) -> Result<(), OpenError> {
        let (current, row) = self.hold()?.into_row()?;
        let Row { directory, standing, backlog, bytes: _ } = row;
        let generation = standing.newest;
        let (next, _) = mpsc::sync_channel(1);
        let thread = FollowerThread::begin(directory, sealing, standing, next, Box::new(|_| ()));
        thread.seal_all(backlog, current, generation)
    }

    /// Holds what was read, which must be what is there.
    fn hold(&self) -> Result<Newest, OpenError> {
        let newest = Newest::of(Held::of(&self.dir, Purpose::Write)?)?;
        if newest.chain == self.chain { Ok(newest) } else { Err(OpenError::Held { dir: self.dir.clone() }) }
    }
}

/// What is behind the newest keyframe, read from copies that are gone when this returns; of the stores nothing is left.
fn read_newest(dir: &Path) -> Result<Newest, OpenError> {
    let mut held = Held::of(dir, Purpose::Read)?;
    let copied = held.copied.take();
    let mut newest = Newest::of(held)?;
    newest.stores.clear();
    drop(copied);
    Ok(newest)
}

/// What of the journal in `dir`, which nobody may have open, is behind its newest keyframe: the genesis, the record before,
/// and the records. The directory stays as it is.
pub(crate) fn newest_records(dir: &Path) -> Result<(Stored, Seq, Vec<Stored>), OpenError> {
    let Newest { standing, recovered, .. } = check_end(dir, read_newest(dir), |newest| newest.recovered.last)?;
    Ok((standing.genesis, recovered.before(), recovered.records))
}

impl Newest {
    fn of(held: Held) -> Result<Newest, OpenError> {
        let mut reading = newest(&held.files);
        let (sealed_chain, sealed) = (reading.chain, reading.records.clone());
        let live = if reading.damage.is_none() { held.scan(&mut reading) } else { Vec::new() };
        let base = reading.base.clone();
        let (torn, read_bytes, chain) = (reading.torn.clone(), reading.frame_bytes, reading.chain);
        let (recovered, damage) = reading.into_recovered(|| held.place())?;
        if let Some(damage) = damage {
            return Err(OpenError::Damaged { place: held.place(), damage });
        }
        let skipped = held.files.iter().filter(|file| file.first <= recovered.before());
        let frame_bytes = read_bytes + skipped.map(|file| frame_bytes(&file.path)).sum::<u64>();
        let newest = held.stores.last().map_or(Generation(0), |(generation, _)| *generation);
        let genesis = Stored { seq: Seq(0), version: recovered.genesis_version, body: recovered.genesis.clone() };
        let Held { directory, stores, .. } = held;
        let standing = Standing { genesis, base, sealed, chain: sealed_chain, newest };
        Ok(Newest { directory, stores, live, torn, frame_bytes, chain, standing, recovered })
    }

    /// The store that is written to, and what the follower has to do first. What was cut short is removed.
    fn into_row(self) -> Result<(Box<dyn Store>, Row), OpenError> {
        let Newest { directory, mut stores, live, torn, standing, recovered, .. } = self;
        directory.remove_leftovers()?;
        remove_torn(&mut stores, &torn, recovered.last)?;
        let newest = stores.len().saturating_sub(1);
        let bytes = live.iter().filter(|part| part.store == newest).map(|part| part.frames.len() as u64).sum();
        let Some((_, current)) = stores.pop() else {
            return Err(OpenError::Missing { place: directory.path().display().to_string() });
        };
        let mut backlog = Vec::new();
        let mut live = live.into_iter().peekable();
        for (index, (generation, store)) in stores.into_iter().enumerate() {
            let frames = from_fn(|| live.next_if(|part| part.store == index));
            backlog.extend(frames.map(|part| Message::Frames(part.frames)));
            backlog.push(Message::Full(Box::new(store), generation));
        }
        backlog.extend(live.map(|part| Message::Frames(part.frames)));
        Ok((Box::new(current), Row { directory, standing, backlog, bytes }))
    }
}

/// Reads sealed files from the last keyframe that can be read.
fn newest(files: &[SealedFile]) -> Reading {
    for (at, file) in files.iter().enumerate().rev() {
        if let Ok(Some((keyframe, behind))) = last_keyframe(file) {
            let mut reading = Reading::behind(keyframe);
            let taken = behind.iter().try_for_each(|group| reading.take_in(group));
            match taken {
                Ok(()) => read_files(&files[at + 1..], &mut reading),
                Err(cause) => reading.damage = Some(Damage { intact: reading.intact(), cause }),
            }
            return reading;
        }
    }
    let mut reading = Reading::default();
    read_files(files, &mut reading);
    reading
}

/// The last keyframe of a file, and the groups behind it.
fn last_keyframe(file: &SealedFile) -> Result<Option<(StoredKeyframe, Vec<Group>)>, DamageCause> {
    let index = Index::open(&file.path)?;
    let Some(keyframe) = index.keyframe(file.last)? else { return Ok(None) };
    let behind = index.groups_behind(keyframe.seq)?;
    Ok(Some((keyframe, behind)))
}

/// Removes a torn group, before anything is written: the next group begins at the same sequence and must not mix with it.
fn remove_torn(stores: &mut [(Generation, SledStore)], torn: &[Key], last: Seq) -> Result<(), OpenError> {
    let Some(torn_first) = torn.first() else { return Ok(()) };
    for (_, store) in stores {
        store.remove(torn)?;
        store.sync(Durability::Disk)?;
    }
    tracing::warn!(parts = torn.len(), "a torn group from {} on, behind {last}, was dropped", torn_first.first);
    Ok(())
}
