//! Reads a journal that is one file.
//!
//! ```text
//! segment ─ crc, version ─▶ link ─▶ unpack ─▶ frames ─ crc, sequence, chain ─▶ records      first damage: stop, say where
//!                               ├─▶ keyframe: where nothing was read before it reading begins there, else it must fit
//!                               └─▶ attached: only behind `about`; it is checked here, and read by who asks for it
//! ```
//!
//! Deliberately absent: reading on behind damage; salvage does that, and says what it found.

use std::path::Path;

use device::Seq;

use crate::{
    frame::Chain,
    part::Group,
    recover::{Damage, DamageCause, OpenError, Reading, Recovered},
    store::StoreError,
};

use super::{
    About, Attached, Index,
    segment::{self, Kind, SegmentError, Unpacker},
};

/// Reads the journal in a file. Damage is an error.
///
/// # Errors
/// If the file cannot be read, or is not whole.
pub fn read_file(path: &Path) -> Result<(Recovered, About), OpenError> {
    match salvage_file(path)? {
        (recovered, about, None) => Ok((recovered, about)),
        (_, _, Some(damage)) => Err(OpenError::Damaged { place: path.display().to_string(), damage }),
    }
}

/// Reads what is intact of the journal in a file, from its beginning on, and says what is not.
///
/// # Errors
/// If the file cannot be read, or not even its genesis is intact.
pub fn salvage_file(path: &Path) -> Result<(Recovered, About, Option<Damage>), OpenError> {
    let bytes = std::fs::read(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => OpenError::Missing { place: path.display().to_string() },
        _ => StoreError::File { doing: "read", path: path.to_owned(), source }.into(),
    })?;
    let (mut reading, mut about) = (Reading::default(), About::default());
    if let Err(cause) = read_segments(&bytes, &mut reading, &mut about) {
        reading.damage = Some(Damage { intact: reading.intact(), cause });
    }
    let (recovered, damage) = reading.into_recovered(|| path.display().to_string())?;
    Ok((recovered, about, damage))
}

/// What is attached to the journal in a file, in the order in which it was written. The journal is not read.
///
/// # Errors
/// If the file cannot be read, is cut, or what is attached is not what was written.
pub fn read_attached(path: &Path) -> Result<Vec<Attached>, OpenError> {
    if !path.exists() {
        return Err(OpenError::Missing { place: path.display().to_string() });
    }
    Index::open(path).and_then(|index| index.attached()).map_err(|cause| {
        let damage = Damage { intact: None, cause };
        OpenError::Damaged { place: path.display().to_string(), damage }
    })
}

/// Checks that every segment of a file is whole and continues the one before it, which takes a fraction of reading it.
///
/// # Errors
/// As reading it would say.
pub(crate) fn check_file(path: &Path) -> Result<(), OpenError> {
    let is_whole = Index::open(path).is_ok_and(|index| index.check_links().is_ok());
    if is_whole { Ok(()) } else { read_file(path).map(drop) }
}

/// Reads a whole file behind what was read before it.
pub(crate) fn read_segments(bytes: &[u8], reading: &mut Reading, about: &mut About) -> Result<(), DamageCause> {
    let (unpacker, group) = (Unpacker::default(), Group { first: Seq(0), bytes: Vec::new() });
    FileReading { reading, about, link: Chain::default(), segments: 0, attached: 0, unpacker, group }.scan(bytes)
}

struct FileReading<'a> {
    reading: &'a mut Reading,
    about: &'a mut About,
    link: Chain,
    segments: u32,
    /// Of them, those that have what is attached.
    attached: u32,
    unpacker: Unpacker,
    /// The frames of the segment that is taken in.
    group: Group,
}

impl FileReading<'_> {
    fn scan(&mut self, bytes: &[u8]) -> Result<(), DamageCause> {
        let mut offset = 0;
        loop {
            let segment = segment::decode(bytes, offset)?;
            segment.check_link(offset, self.link)?;
            let is_end = segment.kind == Kind::End;
            self.take_in(&segment, offset)?;
            self.link = segment.link;
            self.segments += 1;
            offset += segment.len_bytes();
            if is_end {
                return behind_end(bytes, offset);
            }
        }
    }

    fn take_in(&mut self, segment: &segment::Segment<'_>, offset: usize) -> Result<(), DamageCause> {
        // What the file says of itself stands first, and only there.
        let is_first = self.segments == 0;
        match segment.kind {
            Kind::About if is_first => {
                *self.about = segment.about(offset)?;
                Ok(segment.check_field(offset, "count", segment.count.into(), self.about.0.len() as u64)?)
            }
            Kind::Attached if self.segments == self.attached + 1 => {
                self.attached += 1;
                Ok(segment.attached(offset).map(drop)?)
            }
            Kind::Records if !is_first => self.take_in_records(segment, offset),
            Kind::Keyframe if !is_first => self.reading.take_in_keyframe(segment.keyframe(offset)?),
            Kind::End if !is_first => {
                segment.check_field(offset, "number of segments", segment.count.into(), self.segments.into())?;
                let last = self.reading.intact().map_or(0, |last| last.0);
                Ok(segment.check_field(offset, "last record", segment.first, last)?)
            }
            kind => {
                let expected = if is_first { Kind::About } else { Kind::Records };
                let (stored, expected) = (kind.code().into(), expected.code().into());
                Err(SegmentError::Field { offset, field: "kind", stored, expected }.into())
            }
        }
    }

    fn take_in_records(&mut self, segment: &segment::Segment<'_>, offset: usize) -> Result<(), DamageCause> {
        self.unpacker.unpack(segment, offset, &mut self.group.bytes)?;
        self.group.first = Seq(segment.first);
        let before = self.reading.frames();
        self.reading.take_in(&self.group)?;
        let count = self.reading.frames() - before;
        Ok(segment.check_field(offset, "count", segment.count.into(), count)?)
    }
}

fn behind_end(bytes: &[u8], offset: usize) -> Result<(), DamageCause> {
    match bytes.len().checked_sub(offset) {
        None | Some(0) => Ok(()),
        Some(len_bytes) => Err(SegmentError::BehindEnd { offset, len_bytes }.into()),
    }
}
