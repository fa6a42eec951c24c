//! Opening a journal's directory: from its newest keyframe to its last record, and then on.
//!
//! ```text
//! sealed files: newest keyframe ─▶ frames behind it ─┐
//! generations, oldest to newest ─────────────────────┴─▶ Recovered ─▶ (does it fit?) ─▶ start ─▶ Journal
//!      older ones: not sealed before the end, the follower does it now
//! ```
//!
//! Between reading and starting nothing has changed on the disk, so that whoever finds that the journal is not the one he
//! meant has done it no harm. Deliberately absent: checking what stands before the keyframe; `read` does that.

use std::{fs, iter::from_fn, path::Path};

use device::Seq;

use crate::{
    directory::{Directory, Generation, SealedFile, failed},
    follower::{Beginning, Message, Row, frame_bytes},
    frame::Chain,
    handle::{Journal, Options, Start},
    keyframe::StoredKeyframe,
    part::Group,
    portable::{About, Index, read_segments},
    recover::{Damage, DamageCause, OpenError, Reading, Recovered, Stored},
    sled_store::SledStore,
    store::{Durability, Key, Store},
};

/// A journal that was read and is held.
pub struct Opening {
    directory: Directory,
    stores: Vec<(Generation, SledStore)>,
    live: Vec<Live>,
    torn: Vec<Key>,
    frame_bytes: u64,
    chain: Chain,
    beginning: Beginning,
    recovered: Recovered,
}

/// Frames that are in a generation and in no sealed file.
struct Live {
    /// Which of the stores has them.
    store: usize,
    frames: Vec<u8>,
}

/// A journal's directory, held and not yet read.
struct Held {
    directory: Directory,
    files: Vec<SealedFile>,
    stores: Vec<(Generation, SledStore)>,
}

impl Held {
    fn of(dir: &Path) -> Result<Held, OpenError> {
        let directory = Directory::new(dir);
        let generations = directory.generations()?;
        let files = directory.sealed_files()?;
        if let (true, Some(last)) = (generations.is_empty(), files.last()) {
            let damage = Damage { intact: Some(last.last), cause: DamageCause::NoGeneration };
            return Err(OpenError::Damaged { place: dir.display().to_string(), damage });
        }
        if generations.is_empty() {
            return Err(OpenError::Missing { place: dir.display().to_string() });
        }
        // The newest first: who has the journal open holds that one.
        let open = |generation: &Generation| Ok((*generation, SledStore::open(&directory, *generation)?));
        let mut stores = generations.iter().rev().map(open).collect::<Result<Vec<_>, OpenError>>()?;
        stores.reverse();
        Ok(Held { directory, files, stores })
    }

    /// Reads the generations behind what was read of the files.
    fn scan(&self, reading: &mut Reading) -> Vec<Live> {
        let mut live = Vec::new();
        let stores = self.stores.iter().map(|(_, store)| store as &dyn Store);
        let scanned = reading.scan(stores, &mut |store, frames| live.push(Live { store, frames: frames.to_vec() }));
        if let Err(cause) = scanned {
            reading.damage = Some(Damage { intact: reading.intact(), cause });
        }
        live
    }

    fn place(&self) -> String {
        self.directory.path().display().to_string()
    }
}

impl Opening {
    /// Reads the journal in `dir` from its newest keyframe on, and holds it.
    ///
    /// # Errors
    /// If there is none, another has it open, or it is damaged.
    pub fn of(dir: &Path) -> Result<Opening, OpenError> {
        let held = Held::of(dir)?;
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
        let beginning = Beginning { genesis, base, sealed, chain: sealed_chain, newest };
        Ok(Opening { directory, stores, live, torn, frame_bytes, chain, beginning, recovered })
    }

    /// What was read.
    pub fn recovered(&self) -> &Recovered {
        &self.recovered
    }

    /// What the journal was created with.
    pub fn genesis(&self) -> &Stored {
        &self.beginning.genesis
    }

    /// The records that were read. The journal is let go.
    pub fn into_records(self) -> Vec<Stored> {
        self.recovered.records
    }

    /// Goes on with the journal. What was cut short is removed.
    ///
    /// # Errors
    /// If the disk fails, or a thread cannot be started.
    pub fn start(self, options: Options) -> Result<Journal, OpenError> {
        let Opening { directory, mut stores, live, torn, frame_bytes, chain, beginning, recovered } = self;
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
            backlog
                .extend(from_fn(|| live.next_if(|part| part.store == index)).map(|part| Message::Frames(part.frames)));
            backlog.push(Message::Full(Box::new(store), generation));
        }
        backlog.extend(live.map(|part| Message::Frames(part.frames)));
        let row = Row { directory, beginning, backlog, bytes };
        Journal::start(
            Start { store: Box::new(current), chain, last: recovered.last, frame_bytes, row: Some(row) },
            options,
        )
    }
}

/// Reads all of the journal in `dir`, which nobody may have open, from its first record on. Damage is an error.
///
/// # Errors
/// If there is none, another has it open, or it is damaged.
pub fn read(dir: &Path) -> Result<Recovered, OpenError> {
    match salvage(dir)? {
        (recovered, None) => Ok(recovered),
        (_, Some(damage)) => Err(OpenError::Damaged { place: dir.display().to_string(), damage }),
    }
}

/// Reads what is intact of the journal in `dir`, which nobody may have open, and says what is not.
///
/// # Errors
/// If there is none, another has it open, or not even its genesis is intact.
pub fn salvage(dir: &Path) -> Result<(Recovered, Option<Damage>), OpenError> {
    let held = Held::of(dir)?;
    let mut reading = Reading::default();
    read_files(&held.files, &mut reading);
    if reading.damage.is_none() {
        held.scan(&mut reading);
    }
    reading.into_recovered(|| held.place())
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

/// Reads whole files, each behind the one before it, to their end or to damage.
fn read_files(files: &[SealedFile], reading: &mut Reading) {
    for file in files {
        let read = fs::read(&file.path).map_err(|source| DamageCause::Store(failed("read", &file.path)(source)));
        let read = read.and_then(|bytes| read_segments(&bytes, reading, &mut About::default()));
        if let Err(cause) = read {
            let (intact, cause) =
                (reading.intact(), DamageCause::Sealed { path: file.path.clone(), cause: Box::new(cause) });
            reading.damage = Some(Damage { intact, cause });
            return;
        }
    }
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
