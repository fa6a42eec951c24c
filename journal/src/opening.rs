//! Opening a journal's directory: from its newest keyframe to its last record, and then on.
//!
//! ```text
//! sealed files: newest keyframe ─▶ frames behind it ─┐
//! copies of generations, oldest to newest ───────────┴─▶ Recovered ─▶ (does it fit?) ─▶ start ─▶ is it still that? ─▶ Journal
//!
//! start:  the newest has little in it ─▶ opened, and written on
//!         it has more                 ─▶ the next one is made; what is in this one the follower seals now, as it does with
//!                                        the older ones, which were not sealed before the end
//! ```
//!
//! A database takes time to open by what is in it, and the copy has been opened already: so one that would be opened twice is
//! rather left. Between reading and starting nothing has changed on the disk, so that whoever finds that the journal is not
//! the one he meant has done it no harm. Deliberately absent: checking what stands before the keyframe; `read` does that.

use std::{
    fs::File,
    iter::{from_fn, once},
    path::{Path, PathBuf},
    sync::mpsc,
};

use device::Seq;

use crate::{
    copied::{Hold, Print, lock, remove_unfinished},
    directory::{Directory, Generation, SealedFile, failed},
    follower::{FollowerThread, Message, Row, Sealing, Standing, frame_bytes},
    frame::{self, Chain},
    handle::{Journal, Options, Start},
    held::{Held, Live, read_files},
    keyframe::StoredKeyframe,
    part::{Assembly, Group},
    portable::Index,
    recover::{Damage, DamageCause, OpenError, Reading, Recovered, Stored},
    sled_store::SledStore,
    store::{Durability, Key, Store},
    succession::finish,
    whole::check_end,
};

/// A generation is written on that has less than this share of what makes it full. The others give a file each.
const LITTLE_SHARE: u64 = 8;

/// A journal that was read, to be gone on with.
pub struct Opening {
    dir: PathBuf,
    newest: Newest,
}

/// What a directory has behind its newest keyframe, and what is needed to write on.
struct Newest {
    /// Where it was read.
    generations: Vec<Generation>,
    files: Vec<SealedFile>,
    print: Print,
    live: Vec<Live>,
    torn: Vec<Key>,
    frame_bytes: u64,
    chain: Chain,
    standing: Standing,
    recovered: Recovered,
}

/// What was read, and is there: nobody else writes on it as long as this is.
struct Kept {
    newest: Newest,
    directory: Directory,
    /// The newest database's.
    lock: File,
}

impl Opening {
    /// Reads the journal in `dir` from its newest keyframe on. The directory stays as it is.
    ///
    /// # Errors
    /// If there is none, another has it open, or it is damaged.
    pub fn of(dir: &Path) -> Result<Opening, OpenError> {
        let newest = check_end(dir, read_newest(dir), |newest| newest.recovered.last)?;
        Ok(Opening { dir: dir.to_owned(), newest })
    }

    /// What was read.
    pub fn recovered(&self) -> &Recovered {
        &self.newest.recovered
    }

    /// Goes on with the journal. What was cut short is removed.
    ///
    /// # Errors
    /// If the disk fails, a thread cannot be started, or another went on with it first.
    pub fn start(self, options: Options) -> Result<Journal, OpenError> {
        let kept = self.keep()?;
        let Newest { chain, frame_bytes, recovered: Recovered { last, .. }, .. } = kept.newest;
        let has_little = |sealing: &Sealing| kept.newest.newest_bytes() < sealing.seal_bytes / LITTLE_SHARE;
        // Where nothing is sealed all stays in one.
        let (store, row) = match options.sealing.as_ref().is_none_or(has_little) {
            true => kept.written_on()?,
            false => kept.followed_by_next()?,
        };
        Journal::start(Start { store, chain, last, frame_bytes, row: Some(row), base: None }, options)
    }

    /// Seals every record into files and removes the oldest of these, as `sealing` says.
    ///
    /// # Errors
    /// If the disk fails, a record cannot be followed, or another went on with it first.
    pub fn compact(self, sealing: Sealing) -> Result<(), OpenError> {
        let (_current, row) = self.keep()?.followed_by_next()?;
        let Row { directory, standing, backlog, bytes: _ } = row;
        let (next, _) = mpsc::sync_channel(1);
        FollowerThread::begin(directory, sealing, standing, next, Box::new(|_| ())).seal_all(backlog)
    }

    /// Keeps what was read, which must be what is there.
    fn keep(self) -> Result<Kept, OpenError> {
        let Opening { dir, mut newest } = self;
        finish(&dir)?;
        let directory = Directory::new(&dir);
        if !newest.is_in(&directory)? {
            // Another has had it, and perhaps has added nothing.
            let again = Opening::of(&dir)?.newest;
            if again.chain != newest.chain {
                return Err(OpenError::Held { dir });
            }
            newest = again;
        }
        newest.generations.iter().try_for_each(|generation| remove_unfinished(&directory, *generation))?;
        if !newest.torn.is_empty() {
            newest.remove_torn(&directory)?;
        }
        let lock = lock(&directory, newest.standing.newest, Hold::Alone)?;
        if !newest.is_in(&directory)? {
            return Err(OpenError::Held { dir });
        }
        directory.remove_leftovers()?;
        newest.warn_of_gaps();
        Ok(Kept { newest, directory, lock })
    }
}

/// What of the journal in `dir`, which nobody may have open, is behind its newest keyframe: the genesis, the record before,
/// and the records. The directory stays as it is.
pub(crate) fn newest_records(dir: &Path) -> Result<(Stored, Seq, Vec<Stored>), OpenError> {
    let Newest { standing, recovered, .. } = check_end(dir, read_newest(dir), |newest| newest.recovered.last)?;
    Ok((standing.genesis, recovered.before(), recovered.records))
}

/// What is behind the newest keyframe, read from copies that are gone when this returns.
fn read_newest(dir: &Path) -> Result<Newest, OpenError> {
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
    let newest = held.generations.last().map_or(Generation(0), |generation| *generation);
    let genesis = Stored { seq: Seq(0), version: recovered.genesis_version, body: recovered.genesis.clone() };
    let Held { files, generations, print, .. } = held;
    let standing = Standing { genesis, base, sealed, chain: sealed_chain, newest };
    Ok(Newest { generations, files, print, live, torn, frame_bytes, chain, standing, recovered })
}

impl Newest {
    /// Says where sealed files are missing between others. The state needs none of them, so that it is no reason not to start;
    /// but somebody should know before the others are gone, too.
    fn warn_of_gaps(&self) {
        for (from, to) in gaps(&self.files) {
            tracing::warn!(
                "records {from} to {to} are missing: their sealed file is gone; the state is whole without them"
            );
        }
    }

    /// Bytes of the frames in the generation that was written to, without those that are sealed.
    fn newest_bytes(&self) -> u64 {
        let newest = self.generations.len().saturating_sub(1);
        let live = self.live.iter().filter(|live| live.store == newest);
        live.map(|live| live.frames.len() as u64).sum()
    }

    /// Whether that is what is in a directory: nothing was written, sealed or removed since.
    fn is_in(&self, directory: &Directory) -> Result<bool, OpenError> {
        let spans = |files: &[SealedFile]| files.iter().map(|file| (file.first, file.last, file.len_bytes)).collect();
        let (there, read): (Vec<_>, Vec<_>) = (spans(&directory.sealed_files()?), spans(&self.files));
        Ok(directory.generations()? == self.generations
            && there == read
            && Print::of(directory, self.standing.newest)? == self.print)
    }

    /// Removes a torn group, before anything is written: the next group begins at the same sequence and must not mix with it.
    fn remove_torn(&mut self, directory: &Directory) -> Result<(), OpenError> {
        // The newest first, which nobody else writes to as long as it is open.
        let stores = self.generations.iter().rev().map(|generation| SledStore::open(directory, *generation));
        let mut stores = stores.collect::<Result<Vec<_>, _>>()?;
        let end = self.end_of(stores.iter().rev(), directory)?;
        if end.torn != self.torn || end.chain.is_some_and(|chain| chain != self.chain) {
            return Err(OpenError::Held { dir: directory.path().to_owned() });
        }
        for store in &mut stores {
            store.remove(&end.torn)?;
            store.sync(Durability::Disk)?;
        }
        drop(stores);
        let (parts, first) = (end.torn.len(), end.torn.first().map_or(Seq(0), |key| key.first));
        tracing::warn!(parts, "a torn group from {first} on, behind {}, was dropped", self.recovered.last);
        self.torn.clear();
        self.print = Print::of(directory, self.standing.newest)?;
        Ok(())
    }

    /// What stands at the end of stores, as they are now.
    fn end_of<'a>(&self, stores: impl Iterator<Item = &'a SledStore>, directory: &Directory) -> Result<End, OpenError> {
        End::of(stores).map_err(|cause| {
            let damage = Damage { intact: Some(self.recovered.last), cause };
            OpenError::Damaged { place: directory.path().display().to_string(), damage }
        })
    }

    /// What the follower has to do first: it seals all generations but the one that is written to.
    fn into_row(self, directory: Directory, current: Generation, bytes: u64) -> Row {
        let Newest { generations, live, standing, .. } = self;
        let mut backlog = Vec::new();
        let mut live = live.into_iter().peekable();
        for (index, generation) in generations.into_iter().enumerate() {
            let frames = from_fn(|| live.next_if(|part| part.store == index));
            backlog.extend(frames.map(|part| Message::Frames(part.frames)));
            if generation != current {
                backlog.push(Message::Full(None, generation));
            }
        }
        Row { directory, standing: Standing { newest: current, ..standing }, backlog, bytes }
    }
}

impl Kept {
    /// Goes on in the newest generation.
    fn written_on(self) -> Result<(Box<dyn Store>, Row), OpenError> {
        let Kept { newest, directory, lock } = self;
        let (current, bytes) = (newest.standing.newest, newest.newest_bytes());
        // sled wants the lock to itself.
        drop(lock);
        let store = SledStore::open(&directory, current)?;
        let end = newest.end_of(once(&store), &directory)?;
        // In between another may have had it.
        let is_same = end.torn.is_empty() && end.chain.map_or(bytes == 0, |chain| chain == newest.chain);
        if !is_same || directory.generations()? != newest.generations {
            return Err(OpenError::Held { dir: directory.path().to_owned() });
        }
        Ok((Box::new(store), newest.into_row(directory, current, bytes)))
    }

    /// Goes on in a new generation, and leaves all that are there to the follower.
    fn followed_by_next(self) -> Result<(Box<dyn Store>, Row), OpenError> {
        let Kept { newest, directory, lock: _lock } = self;
        // Of what a process has left that was killed the last group may be on no disk, and what comes behind it will be.
        for generation in &newest.generations {
            let path = directory.generation(*generation).join("db");
            File::open(&path).and_then(|log| log.sync_data()).map_err(failed("sync", &path))?;
        }
        let next = Generation(newest.standing.newest.0 + 1);
        let store = SledStore::create_next(&directory, next)?;
        Ok((Box::new(store), newest.into_row(directory, next, 0)))
    }
}

/// What stands at the end of stores.
struct End {
    /// The link of the last record, if there is one.
    chain: Option<Chain>,
    torn: Vec<Key>,
}

impl End {
    fn of<'a>(stores: impl Iterator<Item = &'a SledStore>) -> Result<End, DamageCause> {
        let (mut assembly, mut last) = (Assembly::default(), None);
        for store in stores {
            for part in store.scan() {
                let (key, value) = part?;
                last = assembly.push(key, &value)?.or(last);
            }
        }
        let Group { first, bytes } = last.unwrap_or(Group { first: Seq(0), bytes: Vec::new() });
        let (mut offset, mut chain) = (0, None);
        while offset < bytes.len() {
            let frame = frame::decode_alone(&bytes, offset, first)?;
            offset += frame.len_bytes();
            chain = Some(frame.chain);
        }
        Ok(End { chain, torn: assembly.finish() })
    }
}

/// The records between files that follow each other.
fn gaps(files: &[SealedFile]) -> impl Iterator<Item = (Seq, Seq)> {
    let between = files.windows(2).map(|pair| (Seq(pair[0].last.0 + 1), Seq(pair[1].first.0.saturating_sub(1))));
    between.filter(|(from, to)| from <= to)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(first: u64, last: u64) -> SealedFile {
        SealedFile { first: Seq(first), last: Seq(last), path: PathBuf::new(), len_bytes: 1 }
    }

    /// A start once said nothing of a sealed file that was gone from the middle.
    #[test]
    fn records_between_sealed_files_are_missed() {
        let gaps = |files: &[SealedFile]| gaps(files).collect::<Vec<_>>();
        assert_eq!(gaps(&[]), []);
        assert_eq!(gaps(&[file(0, 99), file(100, 149), file(150, 150)]), []);
        // One that begins with the state alone, behind what was removed.
        assert_eq!(gaps(&[file(121, 120), file(121, 200)]), []);
        assert_eq!(gaps(&[file(0, 99), file(150, 199), file(201, 300)]), [(Seq(100), Seq(149)), (Seq(200), Seq(200))]);
    }
}
