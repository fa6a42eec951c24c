//! What stands where in a file of segments, so that one of them can be read without the others.
//!
//! ```text
//! header ─ its length ─▶ header ─▶ header ─▶ end        48 bytes of each are read
//! ```
//!
//! A segment is checked by itself when it is read, and its link when all are checked. Where many are read, one thread unpacks
//! the next ones while another looks at these. Deliberately absent: the chain of the frames, which reading the whole file
//! checks.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use device::Seq;

use crate::archive::Visit;
use crate::directory::failed;
use crate::frame::{self, Chain};
use crate::keyframe::StoredKeyframe;
use crate::part::Group;
use crate::recover::{DamageCause, Stored};

use super::segment::{self, HEADER_LEN_BYTES, Header, Kind, Segment, SegmentError, Unpacker};
use super::{About, Attached};

/// A file of segments, open to be read here and there.
#[derive(Debug)]
pub(crate) struct Index {
    file: File,
    path: PathBuf,
    entries: Vec<Entry>,
}

/// A segment of it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    kind: Kind,
    offset: usize,
    len_bytes: usize,
    /// Of records: the first. Of a keyframe: the one that it follows.
    first: Seq,
    /// Of records: how many.
    count: u32,
}

/// So few segments are unpacked by who asks; of more the next ones by another thread, which is ahead by at most so many.
const SEGMENTS_FEW: usize = 2;
const AHEAD_SEGMENTS: usize = 4;

/// What it takes to unpack. Taken anew for every segment it costs as much as all else.
#[derive(Default)]
struct Room {
    unpacker: Unpacker,
    segment: Vec<u8>,
    frames: Vec<u8>,
}

impl Index {
    /// Opens a file and finds its segments.
    ///
    /// # Errors
    /// If it cannot be read, or is not a whole row of segments.
    pub(crate) fn open(path: &Path) -> Result<Index, DamageCause> {
        let file = File::open(path).map_err(failed("open", path))?;
        let file_bytes = file.metadata().map_err(failed("look at", path))?.len() as usize;
        let mut index = Index { file, path: path.to_owned(), entries: Vec::new() };
        let mut offset = 0;
        while index.entries.last().is_none_or(|last| last.kind != Kind::End) {
            let present_bytes = file_bytes.saturating_sub(offset);
            let short = |needed_bytes| SegmentError::Short { offset, needed_bytes, present_bytes };
            if present_bytes < HEADER_LEN_BYTES {
                return Err(short(HEADER_LEN_BYTES).into());
            }
            let mut bytes = [0; HEADER_LEN_BYTES];
            index.read_at(&mut bytes, offset)?;
            let header = Header::of(&bytes, offset)?;
            let len_bytes = HEADER_LEN_BYTES + header.stored_bytes;
            if present_bytes < len_bytes {
                return Err(short(len_bytes).into());
            }
            let (kind, first, count) = (header.kind(offset)?, Seq(header.first), header.count);
            index.entries.push(Entry { kind, offset, len_bytes, first, count });
            offset += len_bytes;
        }
        Ok(index)
    }

    fn read_at(&self, bytes: &mut [u8], offset: usize) -> Result<(), DamageCause> {
        let read = self.file.read_exact_at(bytes, offset as u64);
        Ok(read.map_err(failed("read", &self.path))?)
    }

    fn segment<T>(
        &self,
        entry: &Entry,
        read: impl FnOnce(&Segment<'_>) -> Result<T, SegmentError>,
    ) -> Result<T, DamageCause> {
        self.segment_in(&mut Vec::new(), entry, read)
    }

    /// As [`Index::segment`], with room for the bytes of the segment.
    fn segment_in<T>(
        &self,
        bytes: &mut Vec<u8>,
        entry: &Entry,
        read: impl FnOnce(&Segment<'_>) -> Result<T, SegmentError>,
    ) -> Result<T, DamageCause> {
        bytes.resize(entry.len_bytes, 0);
        self.read_at(bytes, entry.offset)?;
        Ok(read(&segment::decode(bytes, 0)?)?)
    }

    /// That every segment is whole and continues the one before it.
    pub(crate) fn check_links(&self) -> Result<(), DamageCause> {
        let (mut bytes, mut link) = (Vec::new(), Chain::default());
        for entry in &self.entries {
            let follows = |segment: &Segment<'_>| segment.check_link(entry.offset, link).map(|()| segment.link);
            link = self.segment_in(&mut bytes, entry, follows)?;
        }
        Ok(())
    }

    /// What the file says of itself.
    pub(crate) fn about(&self) -> Result<About, DamageCause> {
        let first = self.entries.iter().find(|entry| entry.kind == Kind::About);
        first.map_or_else(|| Ok(About::default()), |entry| self.segment(entry, |segment| segment.about(0)))
    }

    /// What is attached.
    pub(crate) fn attached(&self) -> Result<Vec<Attached>, DamageCause> {
        let attached = self.entries.iter().filter(|entry| entry.kind == Kind::Attached);
        attached.map(|entry| self.segment(entry, |segment| segment.attached(0))).collect()
    }

    /// The last keyframe that is not behind a record, if there is one.
    pub(crate) fn keyframe(&self, seq: Seq) -> Result<Option<StoredKeyframe>, DamageCause> {
        let mut keyframes =
            self.entries.iter().rev().filter(|entry| entry.kind == Kind::Keyframe && entry.first <= seq);
        keyframes.next().map(|entry| self.segment(entry, |segment| segment.keyframe(0))).transpose()
    }

    /// The record before the first that the file has (`None` where the genesis is that), and its last.
    pub(crate) fn span(&self) -> (Option<Seq>, Seq) {
        let of = |kind| self.entries.iter().find(move |entry| entry.kind == kind).map(|entry| entry.first);
        let last = of(Kind::End).unwrap_or(Seq(0));
        let before = of(Kind::Records).map_or(of(Kind::Keyframe), |first| first.0.checked_sub(1).map(Seq));
        (before, last)
    }

    /// The records on which the keyframes of the file stand.
    pub(crate) fn keyframes(&self) -> impl Iterator<Item = Seq> {
        self.entries.iter().filter(|entry| entry.kind == Kind::Keyframe).map(|entry| entry.first)
    }

    /// What the journal was created with, where the file says it.
    pub(crate) fn genesis(&self) -> Result<Option<Stored>, DamageCause> {
        if let Some(keyframe) = self.keyframe(Seq(u64::MAX))? {
            return Ok(Some(keyframe.genesis));
        }
        let mut frames = Vec::new();
        self.records(Seq(0), Seq(0), &mut frames)?;
        Ok(frames.pop())
    }

    /// The frames of every segment that begins behind a record.
    pub(crate) fn groups_behind(&self, seq: Seq) -> Result<Vec<Group>, DamageCause> {
        let behind = self.entries.iter().filter(|entry| entry.kind == Kind::Records && entry.first > seq);
        let group = |entry: &Entry| {
            let bytes = self.segment(entry, |segment| segment.unpacked(0))?;
            Ok(Group { first: entry.first, bytes })
        };
        behind.map(group).collect()
    }

    /// The frames from `first` to `last`, of those that the file has, appended to `records`.
    pub(crate) fn records(&self, first: Seq, last: Seq, records: &mut Vec<Stored>) -> Result<(), DamageCause> {
        let pushed = self.visit(first, last, &mut |seq, version, body| {
            records.push(Stored { seq, version, body: body.to_vec() });
            ControlFlow::Continue(())
        });
        pushed.map(drop)
    }

    /// Shows the frames from `first` to `last`, of those that the file has, until `visit` breaks off.
    pub(crate) fn visit(&self, first: Seq, last: Seq, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, DamageCause> {
        let overlapping = |entry: &&Entry| {
            let end = entry.first.0.saturating_add(entry.count.into());
            entry.kind == Kind::Records && entry.first <= last && end > first.0
        };
        let entries: Vec<_> = self.entries.iter().filter(overlapping).collect();
        let mut show = |frames: &[u8]| {
            let mut offset = 0;
            while offset < frames.len() {
                let frame = frame::decode_alone(frames, offset, first)?;
                offset += frame.len_bytes();
                if (first..=last).contains(&frame.seq) && visit(frame.seq, frame.version, frame.body).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            Ok(ControlFlow::Continue(()))
        };
        if entries.len() > SEGMENTS_FEW {
            return self.unpack_ahead(&entries, show);
        }
        let mut room = Room::default();
        for entry in entries {
            self.unpack_in(&mut room, entry)?;
            if show(&room.frames)?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Shows the frames of segments while a thread of its own reads and unpacks the next ones.
    fn unpack_ahead(
        &self,
        entries: &[&Entry],
        mut show: impl FnMut(&[u8]) -> Result<ControlFlow<()>, DamageCause>,
    ) -> Result<ControlFlow<()>, DamageCause> {
        let (sender, receiver) = mpsc::sync_channel(AHEAD_SEGMENTS);
        let (back, returned) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut room = Room::default();
                for entry in entries {
                    room.frames = returned.try_recv().unwrap_or_default();
                    let unpacked = self.unpack_in(&mut room, entry).map(|()| std::mem::take(&mut room.frames));
                    let is_damaged = unpacked.is_err();
                    if sender.send(unpacked).is_err() || is_damaged {
                        break;
                    }
                }
            });
            for unpacked in receiver {
                let frames = unpacked?;
                if show(&frames)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                back.send(frames).ok();
            }
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Unpacks a segment of records.
    fn unpack_in(&self, room: &mut Room, entry: &Entry) -> Result<(), DamageCause> {
        let Room { unpacker, segment, frames } = room;
        self.segment_in(segment, entry, |segment| unpacker.unpack(segment, 0, frames))
    }
}
