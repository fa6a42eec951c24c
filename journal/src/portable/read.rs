//! Reads a journal that is one file.
//!
//! ```text
//! segment ─ crc, version ─▶ link ─▶ unpack ─▶ frames ─ crc, sequence, chain ─▶ records      first damage: stop, say where
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
    About,
    segment::{self, Kind, SegmentError},
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
    let mut file = FileReading::default();
    if let Err(cause) = file.scan(&bytes) {
        file.reading.damage = Some(Damage { intact: file.reading.intact(), cause });
    }
    let (recovered, damage) = file.reading.into_recovered(|| path.display().to_string())?;
    Ok((recovered, file.about, damage))
}

#[derive(Default)]
struct FileReading {
    reading: Reading,
    about: About,
    link: Chain,
    segments: u32,
}

impl FileReading {
    fn scan(&mut self, bytes: &[u8]) -> Result<(), DamageCause> {
        let mut offset = 0;
        loop {
            let segment = segment::decode(bytes, offset)?;
            segment.check_link(offset, self.link)?;
            // What the file says of itself stands first, and only there.
            let is_first = self.segments == 0;
            let expected = if is_first { Kind::About } else { Kind::Records };
            match segment.kind {
                Kind::About if is_first => {
                    self.about = segment.about(offset)?;
                    segment.check_field(offset, "count", segment.count.into(), self.about.0.len() as u64)?;
                }
                Kind::Records if !is_first => self.take_in(&segment, offset)?,
                Kind::End if !is_first => {
                    segment.check_field(offset, "number of segments", segment.count.into(), self.segments.into())?;
                    let last = self.reading.intact().map_or(0, |last| last.0);
                    segment.check_field(offset, "last record", segment.first, last)?;
                    return behind_end(bytes, offset + segment.len_bytes());
                }
                kind => {
                    let (stored, expected) = (kind.code().into(), expected.code().into());
                    return Err(SegmentError::Field { offset, field: "kind", stored, expected }.into());
                }
            }
            self.link = segment.link;
            self.segments += 1;
            offset += segment.len_bytes();
        }
    }

    fn take_in(&mut self, segment: &segment::Segment<'_>, offset: usize) -> Result<(), DamageCause> {
        let bytes = segment.frames(offset)?;
        let before = self.reading.frames();
        self.reading.take_in(&Group { first: Seq(segment.first), bytes })?;
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
