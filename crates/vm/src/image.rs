//! The guest image: its segments, its entry, its stubs.
//!
//! The file is built by this crate's build script and taken apart here, with every number checked: a build that went
//! wrong is an error that says so, not a guest that jumps into nothing. Deliberately absent: relocation, symbols.

use std::ops::Range;

use guest::place::{IMAGE, IMAGE_END, IMAGE_MAGIC, ImageHeader};
use zerocopy::{FromBytes, Immutable, KnownLayout};

static FILE: &[u8] = include_bytes!(env!("GUEST_IMAGE"));

const MAGIC: [u8; 4] = *b"\x7fELF";
const LOAD: u32 = 1;

/// The head of a 64-bit ELF file (System V ABI, chapter 4).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FileHeader {
    magic: [u8; 4],
    identification: [u8; 12],
    kind: u16,
    machine: u16,
    version: u32,
    entry: u64,
    segments_at: u64,
    sections_at: u64,
    flags: u32,
    header_len: u16,
    segment_len: u16,
    segment_count: u16,
    section_len: u16,
    section_count: u16,
    names: u16,
}

/// A program header.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SegmentHeader {
    kind: u32,
    flags: u32,
    file_at: u64,
    address: u64,
    physical: u64,
    file_len: u64,
    memory_len: u64,
    align: u64,
}

/// Why the image cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest image in this program is broken: {0}; build it anew")]
pub struct ImageError(&'static str);

/// Bytes for guest memory.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    /// Where they go.
    pub(crate) address: u64,
    /// What is in the file; up to the image's end zeros follow.
    pub(crate) bytes: &'static [u8],
}

/// The guest image.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) segments: Vec<Segment>,
    pub(crate) entry: u64,
    stubs: u64,
    stub_stride_bytes: u64,
}

impl Image {
    /// The image of this program.
    pub(crate) fn embedded() -> Result<Self, ImageError> {
        Self::parse(FILE)
    }

    fn parse(file: &'static [u8]) -> Result<Self, ImageError> {
        let (header, _) = FileHeader::read_from_prefix(file).map_err(|_| ImageError("it is cut off"))?;
        if header.magic != MAGIC {
            return Err(ImageError("it is no ELF file"));
        }
        let segments = segments(file, &header)?;
        let place = IMAGE..IMAGE_END;
        let first = segments.iter().find(|segment| segment.address == IMAGE);
        let first = first.ok_or(ImageError("nothing is at its first address"))?;
        let (marks, _) =
            ImageHeader::read_from_prefix(first.bytes).map_err(|_| ImageError("it has no header of its own"))?;
        if marks.magic != IMAGE_MAGIC {
            return Err(ImageError("it is of another ABI"));
        }
        if !place.contains(&header.entry) || !place.contains(&marks.stubs) || marks.stub_stride_bytes > 64 {
            return Err(ImageError("its entry or its stubs are outside it"));
        }
        Ok(Self { segments, entry: header.entry, stubs: marks.stubs, stub_stride_bytes: marks.stub_stride_bytes })
    }

    /// The ring 0 stub of a vector.
    pub(crate) fn stub(&self, vector: u8) -> u64 {
        self.stubs + u64::from(vector) * self.stub_stride_bytes
    }
}

fn segments(file: &'static [u8], header: &FileHeader) -> Result<Vec<Segment>, ImageError> {
    let headers = part(file, header.segments_at, u64::from(header.segment_count) * size_of::<SegmentHeader>() as u64)?;
    let headers =
        headers.chunks_exact(size_of::<SegmentHeader>()).filter_map(|bytes| SegmentHeader::read_from_bytes(bytes).ok());
    let loads = headers.filter(|segment| segment.kind == LOAD && segment.memory_len > 0);
    loads.map(|header| segment(file, &header)).collect()
}

fn segment(file: &'static [u8], header: &SegmentHeader) -> Result<Segment, ImageError> {
    let bytes = part(file, header.file_at, header.file_len)?;
    let end = header.address.checked_add(header.memory_len).filter(|end| *end <= IMAGE_END);
    if header.address < IMAGE || end.is_none() || header.file_len > header.memory_len {
        return Err(ImageError("a segment is outside its place"));
    }
    Ok(Segment { address: header.address, bytes })
}

fn part(file: &'static [u8], at: u64, len: u64) -> Result<&'static [u8], ImageError> {
    let range = usize::try_from(at).ok().zip(usize::try_from(len).ok());
    let range: Option<Range<usize>> = range.and_then(|(at, len)| Some(at..at.checked_add(len)?));
    range.and_then(|range| file.get(range)).ok_or(ImageError("it is cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_of_this_program_is_whole() {
        let image = Image::embedded().expect("an image");
        assert!((IMAGE..IMAGE_END).contains(&image.stub(255)));
        assert!(image.segments.iter().any(|segment| segment.address == IMAGE && segment.bytes.len() > 4096));
    }

    #[test]
    fn a_broken_image_is_an_error() {
        assert_eq!(Image::parse(&FILE[..20]).unwrap_err(), ImageError("it is cut off"));
        assert_eq!(Image::parse(&FILE[..FILE.len() / 2]).unwrap_err(), ImageError("it is cut off"));
        assert_eq!(Image::parse(&[0; 64]).unwrap_err(), ImageError("it is no ELF file"));
    }
}
