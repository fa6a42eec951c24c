//! What is left of a journal, found by the frames of its records: whatever the database or the segments around them say.
//!
//! ```text
//! every file below a directory, or one file
//!   ├─ segments, and of damaged ones what unpacks ─────────────────────────┐
//!   ├─ parts ─ by checksum ─▶ groups, as much as is there ─────────────────┼▶ frames ─▶ rows: link after link
//!   └─ frames that lie bare ───────────────────────────────────────────────┘
//!
//! #0 ─ #1 ─ ... ─ #N          prefix: the longest row from a genesis on; where there is none, from a state on
//!                  gap  #M ─ ... ─ #K     beyond: rows behind it, which nothing links to the prefix
//! ```
//!
//! A database keeps old copies, and of a group that was torn and written again both: where two records can follow, one of
//! a group that was found whole is taken before one that was not, then the one with the longer row behind it. A body may
//! hold what looks like a frame, a part or a segment, for a guest chooses its payloads: what lies in a whole part or segment
//! is not searched, and a bare frame is taken only behind a record that it links to. Of several states that one counts which
//! the earliest row continues. Deliberately absent: writing anything, and a guess at what stood in a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use device::Seq;
use memchr::memmem;
use rustix::fs::{FlockOperation, flock};

use crate::{
    directory::Directory,
    frame::{self, Chain},
    keyframe::StoredKeyframe,
    part::{self, Candidate},
    portable,
    recover::{OpenError, Recovered, Stored},
    store::{Key, StoreError},
};

/// Most ways in which the parts of a group are put together where several are found under one number.
const WAYS_MAX: usize = 64;

/// What was found.
#[derive(Debug, Default)]
pub struct Remains {
    /// The journal as far as it goes without a gap; `None` if neither a genesis was found nor a state.
    pub prefix: Option<Recovered>,
    /// The link of its last record.
    pub link: Chain,
    /// Up to here the prefix lies in whole groups or segments: it was durable once. `None` if not even its beginning does.
    pub whole: Option<Seq>,
    /// Rows of records that stand behind gaps, ascending. The first of each links to nothing that was found.
    pub beyond: Vec<Vec<Stored>>,
    /// Those of the prefix and of the rows that lie in whole groups, ascending.
    in_whole_groups: Vec<Seq>,
    /// Files that were read.
    pub files: u64,
    /// Their bytes.
    pub len_bytes: u64,
}

impl Remains {
    fn note(&mut self, row: &[Sighting]) {
        let whole = row.iter().filter(|sighting| sighting.found == Found::Whole);
        self.in_whole_groups.extend(whole.map(|sighting| sighting.stored.seq));
    }

    /// The gaps between what was found: the first and the last sequence that is missing in each.
    pub fn gaps(&self) -> Vec<(Seq, Seq)> {
        let mut next = self.prefix.as_ref().map_or(0, |prefix| prefix.last.0 + 1);
        let mut gaps = Vec::new();
        for row in &self.beyond {
            let (Some(first), Some(last)) = (row.first(), row.last()) else { continue };
            if next < first.seq.0 {
                gaps.push((Seq(next), Seq(first.seq.0 - 1)));
            }
            next = last.seq.0.saturating_add(1);
        }
        gaps
    }
}

/// Looks for a journal's records in every file below a directory, or in one file.
///
/// # Errors
/// If a file cannot be read, a process holds the journal, or there is nothing at all.
pub fn find(place: &Path) -> Result<Remains, OpenError> {
    let mut files = Vec::new();
    // Other journals and snapshots in the directory are no part of this one.
    let entries = if place.is_dir() { Directory::new(place).entries()? } else { vec![place.to_owned()] };
    entries.iter().try_for_each(|path| list(path, &mut files))?;
    if files.is_empty() {
        return Err(OpenError::Missing { place: place.display().to_string() });
    }
    let mut search = Search::default();
    let mut remains = Remains::default();
    for path in files {
        let bytes = read(place, &path)?;
        remains.files += 1;
        remains.len_bytes += bytes.len() as u64;
        // DIR/live/000001/db and what is beside it.
        let is_database = path.ancestors().nth(2).is_some_and(|parent| parent.ends_with("live"));
        if is_database { search.database(&bytes) } else { search.file(&bytes) }
    }
    search.rows(&mut remains);
    Ok(remains)
}

/// The first and the last of the records that lie in whole groups in a directory's files although its database ended
/// before `next`. sled takes damage for the end: of 99 records it gave three because of one flipped bit, and said nothing.
/// A power cut does not leave such groups, for each is synced before the next is written.
///
/// # Errors
/// If a file cannot be read, or a process holds the journal.
pub(crate) fn behind(place: &Path, next: Seq) -> Result<Option<(Seq, Seq)>, OpenError> {
    let mut files = Vec::new();
    // A sealed file is checked when it is read; it is the databases that forget.
    list(&Directory::new(place).live(), &mut files)?;
    let mut is_suspect = false;
    for path in files {
        is_suspect |= begins_at_or_behind(&read(place, &path)?, next);
    }
    // The search for all that there is takes several times as long, and it is mostly not needed.
    if !is_suspect {
        return Ok(None);
    }
    let remains = find(place)?;
    let (from, to) = (remains.in_whole_groups.iter().find(|seq| **seq >= next), remains.in_whole_groups.last());
    Ok(from.zip(to).map(|(from, to)| (*from, *to)))
}

/// Whether a group begins in these bytes whose first record is `next` or a later one.
fn begins_at_or_behind(bytes: &[u8], next: Seq) -> bool {
    memmem::find_iter(bytes, &frame::MAGIC.to_le_bytes()).any(|offset| {
        let part = offset.checked_sub(part::HEADER_LEN_BYTES).and_then(|offset| part::find(bytes, offset));
        let first = frame::announced_seq(&bytes[offset..]).filter(|first| *first >= next);
        first.is_some_and(|first| part.is_some_and(|part| part.is_of(first)))
    })
}

fn list(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), OpenError> {
    let failed = |doing| move |source| StoreError::File { doing, path: path.to_owned(), source };
    let kind = match fs::symlink_metadata(path) {
        Ok(found) => found.file_type(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error).into()),
    };
    if kind.is_dir() {
        let entries = fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>).map_err(failed("list"))?;
        let paths: BTreeSet<_> = entries.iter().map(fs::DirEntry::path).collect();
        paths.iter().try_for_each(|path| list(path, files))?;
    } else if kind.is_file() {
        files.push(path.to_owned());
    }
    Ok(())
}

fn read(place: &Path, path: &Path) -> Result<Vec<u8>, OpenError> {
    let failed = |source| StoreError::File { doing: "read", path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(failed)?;
    // What a process writes while it is read is no remains; its lock ends with this descriptor.
    if flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
        return Err(OpenError::Held { dir: place.to_owned() });
    }
    Ok(fs::read(path).map_err(failed)?)
}

/// How a frame was found. Later is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// By its magic, in bytes that are no part.
    Bare,
    /// In a part of a group, or of a segment, that is not whole.
    Piece,
    /// In a whole group or segment.
    Whole,
}

#[derive(Debug)]
struct Sighting {
    stored: Stored,
    chain: Chain,
    found: Found,
    /// Records in the row that begins here, and which of the next sequence's sightings continues it.
    row: u64,
    next: Option<usize>,
}

#[derive(Debug, Default)]
struct Search {
    seen: BTreeMap<Seq, Vec<Sighting>>,
    keyframes: Vec<StoredKeyframe>,
}

impl Search {
    /// sled's files, which hold parts.
    fn database(&mut self, bytes: &[u8]) {
        self.bare(bytes);
        for group in Groups::of(bytes).0.values() {
            for (frames, is_complete) in group.runs() {
                self.run(&frames, is_complete);
            }
        }
    }

    /// A file of segments. What lies in a whole one is not searched: a guest chooses what is in its payloads.
    fn file(&mut self, bytes: &[u8]) {
        let mut offset = 0;
        while offset < bytes.len() {
            match portable::segment_at(bytes, offset) {
                Some(whole) => {
                    self.run(&whole.frames, true);
                    self.keyframes.extend(whole.keyframe);
                    offset += whole.len_bytes;
                }
                None => {
                    if let Some(frames) = portable::unpack_remains(bytes, offset) {
                        self.run(&frames, false);
                    }
                    offset += 1;
                }
            }
        }
        self.bare(bytes);
    }

    fn bare(&mut self, bytes: &[u8]) {
        let frames = (0..bytes.len()).filter_map(|offset| frame::decode_alone(bytes, offset, Seq(0)).ok());
        frames.for_each(|frame| self.saw(&frame, Found::Bare));
    }

    /// Frames one behind the other; where one is broken, what is found behind it.
    fn run(&mut self, bytes: &[u8], is_complete: bool) {
        let (mut frames, mut offset, mut is_whole) = (Vec::new(), 0, is_complete);
        while offset < bytes.len() {
            match frame::decode_alone(bytes, offset, Seq(0)).ok() {
                Some(frame) => {
                    offset += frame.len_bytes();
                    frames.push(frame);
                }
                None => {
                    is_whole = false;
                    offset += 1;
                }
            }
        }
        let found = if is_whole { Found::Whole } else { Found::Piece };
        frames.iter().for_each(|frame| self.saw(frame, found));
    }

    fn saw(&mut self, frame: &frame::Frame<'_>, found: Found) {
        let seen = self.seen.entry(frame.seq).or_default();
        match seen.iter_mut().find(|other| other.chain == frame.chain && other.stored.body == frame.body) {
            Some(again) => again.found = again.found.max(found),
            None => {
                let stored = Stored { seq: frame.seq, version: frame.version, body: frame.body.to_vec() };
                seen.push(Sighting { stored, chain: frame.chain, found, row: 1, next: None });
            }
        }
    }

    /// Puts what was seen into rows.
    fn rows(mut self, remains: &mut Remains) {
        self.link();
        let mut next = Seq(0);
        if let Some((base, row)) = self.beginning() {
            let in_whole = row.iter().take_while(|sighting| sighting.found == Found::Whole).count() as u64;
            // A state is found in a whole segment or not at all.
            let first = base.as_ref().map_or(0, |base| base.seq.0 + 1);
            remains.whole = (first + in_whole).checked_sub(1).map(Seq);
            let link = base.as_ref().map(|base| base.chain).unwrap_or_default();
            remains.link = row.last().map_or(link, |sighting| sighting.chain);
            next = Seq(first + row.len() as u64);
            remains.note(&row);
            remains.prefix = recovered(base, row);
        }
        while let Some((seq, index)) = self.first_from(next) {
            let row = self.take(seq, index);
            next = Seq(seq.0.saturating_add(row.len() as u64));
            remains.note(&row);
            remains.beyond.push(row.into_iter().map(|sighting| sighting.stored).collect());
        }
    }

    /// The row from the best genesis on; without one, from a state on.
    fn beginning(&mut self) -> Option<(Option<StoredKeyframe>, Vec<Sighting>)> {
        let genesis = self.best(Seq(0), |sighting| {
            Chain::default().next(Seq(0), sighting.stored.version, &sighting.stored.body) == sighting.chain
        });
        if let Some(index) = genesis {
            return Some((None, self.take(Seq(0), index)));
        }
        self.keyframes.sort_by_key(|keyframe| keyframe.seq);
        let behind = |keyframe: &StoredKeyframe| {
            let first = Seq(keyframe.seq.0 + 1);
            self.best(first, |after| {
                keyframe.chain.next(first, after.stored.version, &after.stored.body) == after.chain
            })
        };
        let continued = self.keyframes.iter().position(|keyframe| behind(keyframe).is_some());
        let base = self.keyframes.get(continued.unwrap_or(0))?.clone();
        let row = behind(&base).map(|index| self.take(Seq(base.seq.0 + 1), index)).unwrap_or_default();
        Some((Some(base), row))
    }

    /// Finds for every sighting the best one that continues it, from the last on.
    fn link(&mut self) {
        let sequences: Vec<_> = self.seen.keys().rev().copied().collect();
        for seq in sequences {
            let Some(next) = seq.0.checked_add(1).map(Seq) else { continue };
            let chains: Vec<_> = self.seen[&seq].iter().map(|sighting| sighting.chain).collect();
            for (index, chain) in chains.into_iter().enumerate() {
                let best =
                    self.best(next, |after| chain.next(next, after.stored.version, &after.stored.body) == after.chain);
                let row = best.map_or(1, |best| self.seen[&next][best].row + 1);
                if let Some(sighting) = self.seen.get_mut(&seq).and_then(|seen| seen.get_mut(index)) {
                    (sighting.row, sighting.next) = (row, best);
                }
            }
        }
    }

    /// The best of those sightings at a sequence that fit.
    fn best(&self, seq: Seq, fits: impl Fn(&Sighting) -> bool) -> Option<usize> {
        let seen = self.seen.get(&seq)?;
        let fitting = seen.iter().enumerate().filter(|(_, sighting)| fits(sighting));
        fitting.max_by_key(|(_, sighting)| (sighting.found == Found::Whole, sighting.row)).map(|(index, _)| index)
    }

    /// Where the next row behind a gap begins.
    fn first_from(&self, next: Seq) -> Option<(Seq, usize)> {
        let at = |seq: &Seq| self.best(*seq, |sighting| sighting.found > Found::Bare).map(|index| (*seq, index));
        self.seen.range(next..).find_map(|(seq, _)| at(seq))
    }

    /// Takes a row out, and with it everything else that was seen at its places.
    fn take(&mut self, first: Seq, index: usize) -> Vec<Sighting> {
        let (mut row, mut seq, mut index) = (Vec::new(), first, Some(index));
        while let Some(at) = index
            && let Some(mut seen) = self.seen.remove(&seq)
        {
            let sighting = seen.swap_remove(at);
            index = sighting.next;
            seq = Seq(seq.0.saturating_add(1));
            row.push(sighting);
        }
        row
    }
}

fn recovered(base: Option<StoredKeyframe>, row: Vec<Sighting>) -> Option<Recovered> {
    let mut stored = row.into_iter().map(|sighting| sighting.stored);
    let genesis = base.as_ref().map_or_else(|| stored.next(), |base| Some(base.genesis.clone()));
    let Stored { version: genesis_version, body: genesis, .. } = genesis?;
    let records: Vec<_> = stored.collect();
    let before = base.as_ref().map_or(0, |base| base.seq.0);
    let last = Seq(before + records.len() as u64);
    Some(Recovered { genesis, genesis_version, base, records, last, torn: None })
}

/// The payload of a part, and whether it is its group's last.
type Piece<'a> = (bool, &'a [u8]);

/// The parts of one group, by their numbers; under each number every one that was found.
#[derive(Debug, Default)]
struct Pieces<'a>(BTreeMap<u32, Vec<Piece<'a>>>);

#[derive(Debug, Default)]
struct Groups<'a>(BTreeMap<Seq, Pieces<'a>>);

impl<'a> Groups<'a> {
    /// The groups of all parts in the bytes. A group's first part names it. The checksum of a later one fits only with its
    /// key, which stands before it where it was set and not where sled copied it: then every group is tried that may be its.
    fn of(bytes: &'a [u8]) -> Self {
        let (mut groups, mut named, mut unnamed) = (Self::default(), Vec::new(), Vec::new());
        for offset in 0..bytes.len() {
            let Some(candidate) = part::find(bytes, offset) else { continue };
            let first = match candidate.part {
                0 => frame::announced_seq(candidate.payload).filter(|first| candidate.is_of(*first)),
                _ => key_before(bytes, offset, &candidate),
            };
            match first {
                Some(first) => {
                    groups.put(first, &candidate);
                    named.push((offset, first, candidate));
                }
                None if candidate.part > 0 => unnamed.push((offset, candidate)),
                None => {}
            }
        }
        let incomplete = groups.0.iter().filter(|(_, pieces)| !pieces.is_complete());
        let incomplete: Vec<_> = incomplete.map(|(first, _)| *first).collect();
        // Mostly it is another copy of one that is known.
        let known: BTreeMap<_, _> = named.iter().map(|(_, first, part)| ((part.part, part.stored), *first)).collect();
        for (offset, candidate) in unnamed {
            let copied = known.get(&(candidate.part, candidate.stored)).filter(|first| candidate.is_of(**first));
            let first = copied.or_else(|| incomplete.iter().find(|first| candidate.is_of(**first))).copied();
            named.extend(first.map(|first| (offset, first, candidate)));
        }
        Self::outermost(named)
    }

    /// Without the parts that lie in others: a guest chose those.
    fn outermost(mut named: Vec<(usize, Seq, Candidate<'a>)>) -> Self {
        named.sort_by_key(|(offset, ..)| *offset);
        let (mut groups, mut end) = (Self::default(), 0);
        for (offset, first, candidate) in named {
            if offset >= end {
                groups.put(first, &candidate);
                end = offset + part::HEADER_LEN_BYTES + candidate.payload.len();
            }
        }
        groups
    }

    fn put(&mut self, first: Seq, candidate: &Candidate<'a>) {
        let pieces = self.0.entry(first).or_default().0.entry(candidate.part).or_default();
        let piece = (candidate.last, candidate.payload);
        if !pieces.contains(&piece) {
            pieces.push(piece);
        }
    }
}

/// The group in the key that sled writes before a value, behind which stands the value's length in one to three bytes.
fn key_before(bytes: &[u8], offset: usize, candidate: &Candidate<'_>) -> Option<Seq> {
    (1..=3).find_map(|len_len_bytes| {
        let end = offset.checked_sub(len_len_bytes)?;
        let key = Key::from_bytes(bytes.get(end.checked_sub(Key::LEN_BYTES)?..end)?).ok()?;
        (key.part == candidate.part && candidate.is_of(key.first)).then_some(key.first)
    })
}

impl Pieces<'_> {
    fn is_complete(&self) -> bool {
        let numbers = (0..).zip(&self.0).take_while(|(expected, (number, _))| expected == *number);
        numbers.into_iter().any(|(_, (_, pieces))| pieces.iter().any(|(last, _)| *last))
    }

    /// The bytes of every run of parts that follow each other, and whether that is all of a group. Of a group that was
    /// torn and written again there are parts of both, which are tried in every combination up to a limit: the frames
    /// that come of a wrong one are not whole.
    fn runs(&self) -> Vec<(Vec<u8>, bool)> {
        let mut runs = Vec::new();
        let numbers: Vec<_> = self.0.keys().copied().collect();
        for run in numbers.chunk_by(|a, b| a + 1 == *b) {
            let begins = run.first() == Some(&0);
            let mut ways = vec![Vec::new()];
            for number in run {
                let (ended, open) = extended(ways, &self.0[number]);
                runs.extend(ended.into_iter().map(|bytes| (bytes, begins)));
                ways = if open.is_empty() { vec![Vec::new()] } else { open };
            }
            runs.extend(ways.into_iter().map(|bytes| (bytes, false)));
        }
        runs
    }
}

/// Every way with every piece behind it: those that end there, and those that go on.
fn extended(ways: Vec<Vec<u8>>, pieces: &[Piece<'_>]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let (mut ended, mut open) = (Vec::new(), Vec::new());
    for mut way in ways {
        let mut put = |last, way| if last { ended.push(way) } else { open.push(way) };
        let Some(((last, payload), others)) = pieces.split_first() else { continue };
        for (last, payload) in others {
            put(*last, [&way[..], payload].concat());
        }
        // Mostly there is one piece, and a long group is not copied for each of its parts.
        way.extend_from_slice(payload);
        put(*last, way);
    }
    open.truncate(WAYS_MAX);
    (ended, open)
}
