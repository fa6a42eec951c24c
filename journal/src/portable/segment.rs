//! Segments: the pieces of a journal that is one file.
//!
//! ```text
//!  0       4       8     10     12       16        20      24      32              48
//!  ├ magic ┼ crc32 ┼ ver ┼ kind ┼ stored ┼ unpacked┼ count ┼ first ┼ link          ┼ payload ...
//!  │ DCDS  │       │ u16 │ u16  │ bytes  │ bytes   │ u32   │ u64   │ 16 bytes      │ stored bytes
//!                  └─ crc32 covers ───────────────────────────────────────────────────────────┘
//! link = first 16 bytes of blake3(link before ‖ bytes 8..32 ‖ payload); sixteen zeros stand before the first segment
//!
//! kind 1  about     payload: names and texts, as they are                   count: of them           first: 0
//! kind 2  records   payload: frames, one behind the other, zstd             count: of frames         first: sequence of the first
//! kind 3  end       no payload                                              count: segments before   first: sequence of the last record
//! kind 4  keyframe  payload: a state and its link, zstd                     count: version of its form  first: sequence after which it is
//! kind 5  attached  payload: a name and bytes, zstd                         count: version of its form  first: 0
//! ```
//!
//! What is attached is of version 2, all others are of version 1: a build that does not know it refuses it by that, and files
//! without it are the same as ever. All numbers are little-endian. Deliberately absent: what a frame holds.

use device::Seq;

use crate::codec::{self, CodecError};
use crate::frame::{self, Chain};
use crate::keyframe::StoredKeyframe;

use super::{About, Attached};

/// Version of the form of segments.
pub const VERSION: u16 = 1;

/// Version of the form of segments that have what is attached.
pub const ATTACHED_VERSION: u16 = 2;

/// Bytes of the header that stands before every payload.
pub const HEADER_LEN_BYTES: usize = 48;

/// Frames are gathered until a segment has so many bytes of them.
pub(super) const UNPACKED_GOAL_BYTES: usize = 256 << 10;

/// A segment holds at most the frames that reach the goal, of which the last may be as long as frames are.
pub(super) const UNPACKED_LIMIT_BYTES: usize = UNPACKED_GOAL_BYTES + frame::HEADER_LEN_BYTES + frame::BODY_LIMIT_BYTES;

/// No compressor makes more of it: zstd adds a few bytes to each of its blocks at worst.
const STORED_LIMIT_BYTES: usize = UNPACKED_LIMIT_BYTES + UNPACKED_LIMIT_BYTES / 128 + 1024;

/// The last record that a journal can have. A file from outside names what it likes, and what is counted on from there must not
/// overflow.
pub(crate) const SEQ_MAX: u64 = u64::MAX / 2;

/// What zstd may keep at hand while it unpacks: 128 MiB, as much as its own command takes without being asked.
const WINDOW_LOG_MAX: u32 = 27;

/// What packed frames begin with.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

const MAGIC: [u8; 4] = *b"DCDS";
const CRC_COVERS_FROM: usize = 8;
const LINK_AT: usize = 32;

/// How hard it is tried to make segments small.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// Beside a running VM.
    Fast = 3,
    /// For the mail.
    Small = 9,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// What the file says of itself.
    About,
    /// Frames.
    Records,
    /// Nothing: it says that all segments are there.
    End,
    /// A state.
    Keyframe,
    /// Something that goes with the journal.
    Attached,
}

impl Kind {
    const ALL: [(Kind, u16); 5] =
        [(Kind::About, 1), (Kind::Records, 2), (Kind::End, 3), (Kind::Keyframe, 4), (Kind::Attached, 5)];

    fn version(self) -> u16 {
        match self {
            Kind::About | Kind::Records | Kind::End | Kind::Keyframe => VERSION,
            Kind::Attached => ATTACHED_VERSION,
        }
    }

    pub(super) fn code(self) -> u16 {
        Kind::ALL.into_iter().find(|(kind, _)| *kind == self).map_or(0, |(_, code)| code)
    }

    fn of(code: u16) -> Option<Kind> {
        Kind::ALL.into_iter().find(|(_, other)| *other == code).map(|(kind, _)| kind)
    }
}

/// A segment whose checksum, version and lengths have been checked; not yet its link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) kind: Kind,
    pub(super) count: u32,
    pub(super) first: u64,
    pub(super) link: Chain,
    unpacked_bytes: usize,
    head: &'a [u8],
    payload: &'a [u8],
}

/// Why bytes are not the segment that should stand there. Offsets are bytes from the start of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SegmentError {
    /// The file ends before the segment does.
    #[error(
        "the segment at byte {offset} needs {needed_bytes} bytes and the file has {present_bytes} more: it was cut"
    )]
    Short {
        /// Where the segment begins.
        offset: usize,
        /// Bytes that it needs.
        needed_bytes: usize,
        /// Bytes that are left.
        present_bytes: usize,
    },
    /// No segment begins here.
    #[error("no segment begins at byte {offset}: there is {stored:02x?} where {MAGIC:02x?} (DCDS) belongs")]
    Magic {
        /// Where it should begin.
        offset: usize,
        /// What is there.
        stored: [u8; 4],
    },
    /// The header announces more than a segment may hold.
    #[error("the segment at byte {offset} announces {stored_bytes} bytes and {limit_bytes} is the limit")]
    Length {
        /// Where it begins.
        offset: usize,
        /// The announced length.
        stored_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// The contents are not those that were written.
    #[error(
        "the segment at byte {offset} is damaged: its crc32 is stored as {stored:#010x} and computes to {computed:#010x}"
    )]
    Checksum {
        /// Where it begins.
        offset: usize,
        /// The stored crc32.
        stored: u32,
        /// The crc32 of what is there.
        computed: u32,
    },
    /// Written in another form.
    #[error(
        "the segment at byte {offset} is of version {stored} and this build reads versions up to {ATTACHED_VERSION}: read it with the build that wrote it"
    )]
    Version {
        /// Where it begins.
        offset: usize,
        /// The stored version.
        stored: u16,
    },
    /// A whole segment, but not written behind the one before it.
    #[error(
        "the segment at byte {offset} does not continue the one before it: segments are missing or of another file"
    )]
    Link {
        /// Where it begins.
        offset: usize,
    },
    /// The checksum is right and a field is not: no build writes this.
    #[error(
        "the segment at byte {offset} contradicts itself: its {field} is stored as {stored} where {expected} belongs"
    )]
    Field {
        /// Where it begins.
        offset: usize,
        /// Which field.
        field: &'static str,
        /// What is stored.
        stored: u64,
        /// What belongs there.
        expected: u64,
    },
    /// It is of a record that no journal has.
    #[error("the segment at byte {offset} is of record {stored}, and no journal has so many")]
    Sequence {
        /// Where it begins.
        offset: usize,
        /// The record.
        stored: u64,
    },
    /// The payload cannot be unpacked.
    #[error("the segment at byte {offset} does not unpack: {message}")]
    Unpack {
        /// Where it begins.
        offset: usize,
        /// What the compressor said.
        message: String,
    },
    /// What the file says of itself cannot be read.
    #[error("the segment at byte {offset} does not say what the file is: {message}")]
    About {
        /// Where it begins.
        offset: usize,
        /// What the codec said.
        message: String,
    },
    /// It is whole, and no state can be read from it.
    #[error("the segment at byte {offset} holds no keyframe, which it says it does")]
    Keyframe {
        /// Where it begins.
        offset: usize,
    },
    /// It is whole, and nothing that is attached can be read from it.
    #[error("the segment at byte {offset} holds nothing that is attached, which it says it does: {message}")]
    Attached {
        /// Where it begins.
        offset: usize,
        /// What the codec said.
        message: String,
    },
    /// Something stands behind the end.
    #[error("{len_bytes} bytes stand behind the end of the journal, at byte {offset}")]
    BehindEnd {
        /// Where they begin.
        offset: usize,
        /// How many.
        len_bytes: usize,
    },
}

/// A segment in bytes, and its link.
pub(super) fn encode(
    level: Level,
    before: Chain,
    kind: Kind,
    count: u32,
    first: u64,
    unpacked: &[u8],
) -> std::io::Result<(Vec<u8>, Chain)> {
    let packed;
    let payload = match kind {
        Kind::Records | Kind::Keyframe | Kind::Attached => {
            packed = zstd::bulk::compress(unpacked, level as i32)?;
            &packed
        }
        Kind::About | Kind::End => unpacked,
    };
    let mut head = Vec::with_capacity(LINK_AT - CRC_COVERS_FROM);
    head.extend_from_slice(&kind.version().to_le_bytes());
    head.extend_from_slice(&kind.code().to_le_bytes());
    for len in [payload.len(), unpacked.len()] {
        let len = u32::try_from(len).map_err(|_| std::io::Error::other("a segment of more than 4 GiB"))?;
        head.extend_from_slice(&len.to_le_bytes());
    }
    head.extend_from_slice(&count.to_le_bytes());
    head.extend_from_slice(&first.to_le_bytes());
    let link = link(before, &head, payload);
    let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&link.0);
    bytes.extend_from_slice(payload);
    let crc = crc32fast::hash(&bytes[CRC_COVERS_FROM..]);
    bytes[4..CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
    Ok((bytes, link))
}

fn link(before: Chain, head: &[u8], payload: &[u8]) -> Chain {
    let mut hash = blake3::Hasher::new();
    hash.update(&before.0).update(head).update(payload);
    let mut link = [0; 16];
    hash.finalize_xof().fill(&mut link);
    Chain(link)
}

/// What a header says; of it only what is needed to find the next one has been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) count: u32,
    pub(super) first: u64,
    /// Bytes of the payload behind it.
    pub(super) stored_bytes: usize,
    code: u16,
    version: u16,
    unpacked_bytes: usize,
    crc: u32,
    link: Chain,
}

impl Header {
    /// Reads the header of the segment at `offset`.
    pub(super) fn of(header: &[u8; HEADER_LEN_BYTES], offset: usize) -> Result<Header, SegmentError> {
        let stored_magic = array(header, 0);
        if stored_magic != MAGIC {
            return Err(SegmentError::Magic { offset, stored: stored_magic });
        }
        let stored_bytes = u32::from_le_bytes(array(header, 12)) as usize;
        if stored_bytes > STORED_LIMIT_BYTES {
            return Err(SegmentError::Length { offset, stored_bytes, limit_bytes: STORED_LIMIT_BYTES });
        }
        let first = u64::from_le_bytes(array(header, 24));
        if first > SEQ_MAX {
            return Err(SegmentError::Sequence { offset, stored: first });
        }
        Ok(Header {
            count: u32::from_le_bytes(array(header, 20)),
            first,
            stored_bytes,
            code: u16::from_le_bytes(array(header, 10)),
            version: u16::from_le_bytes(array(header, 8)),
            unpacked_bytes: u32::from_le_bytes(array(header, 16)) as usize,
            crc: u32::from_le_bytes(array(header, 4)),
            link: Chain(array(header, LINK_AT)),
        })
    }

    /// What the segment holds.
    pub(super) fn kind(&self, offset: usize) -> Result<Kind, SegmentError> {
        let (stored, expected) = (self.code.into(), Kind::Records.code().into());
        Kind::of(self.code).ok_or(SegmentError::Field { offset, field: "kind", stored, expected })
    }
}

/// The segment at `offset`, wherever it belongs.
pub(super) fn decode(bytes: &[u8], offset: usize) -> Result<Segment<'_>, SegmentError> {
    let rest = bytes.get(offset..).unwrap_or_default();
    let short = |needed_bytes| SegmentError::Short { offset, needed_bytes, present_bytes: rest.len() };
    let header = Header::of(rest.first_chunk().ok_or_else(|| short(HEADER_LEN_BYTES))?, offset)?;
    let needed_bytes = HEADER_LEN_BYTES + header.stored_bytes;
    let whole = rest.get(..needed_bytes).ok_or_else(|| short(needed_bytes))?;
    let (stored, computed) = (header.crc, crc32fast::hash(&whole[CRC_COVERS_FROM..]));
    if stored != computed {
        return Err(SegmentError::Checksum { offset, stored, computed });
    }
    let Header { count, first, version, unpacked_bytes, link, .. } = header;
    if !(VERSION..=ATTACHED_VERSION).contains(&version) {
        return Err(SegmentError::Version { offset, stored: version });
    }
    let kind = header.kind(offset)?;
    if version != kind.version() {
        let (stored, expected) = (version.into(), kind.version().into());
        return Err(SegmentError::Field { offset, field: "version", stored, expected });
    }
    if unpacked_bytes > UNPACKED_LIMIT_BYTES {
        return Err(SegmentError::Length { offset, stored_bytes: unpacked_bytes, limit_bytes: UNPACKED_LIMIT_BYTES });
    }
    let (head, payload) = (&whole[CRC_COVERS_FROM..LINK_AT], &whole[HEADER_LEN_BYTES..]);
    Ok(Segment { kind, count, first, link, unpacked_bytes, head, payload })
}

fn array<const N: usize>(header: &[u8; HEADER_LEN_BYTES], at: usize) -> [u8; N] {
    core::array::from_fn(|index| header[at + index])
}

impl Segment<'_> {
    /// Bytes of the segment in the file.
    pub(super) fn len_bytes(&self) -> usize {
        HEADER_LEN_BYTES + self.payload.len()
    }

    /// That it was written behind the segment with the link `before`.
    pub(super) fn check_link(&self, offset: usize, before: Chain) -> Result<(), SegmentError> {
        if link(before, self.head, self.payload) == self.link { Ok(()) } else { Err(SegmentError::Link { offset }) }
    }

    /// The payload of a segment of records or of a keyframe.
    pub(super) fn unpacked(&self, offset: usize) -> Result<Vec<u8>, SegmentError> {
        let mut unpacked = Vec::new();
        Unpacker::default().unpack(self, offset, &mut unpacked)?;
        Ok(unpacked)
    }

    /// The state of a segment of one.
    pub(super) fn keyframe(&self, offset: usize) -> Result<StoredKeyframe, SegmentError> {
        let payload = self.unpacked(offset)?;
        let wrong = SegmentError::Keyframe { offset };
        let version = u16::try_from(self.count).map_err(|_| wrong.clone())?;
        StoredKeyframe::from_payload(Seq(self.first), version, &payload).ok_or(wrong)
    }

    /// What is attached by a segment of that.
    pub(super) fn attached(&self, offset: usize) -> Result<Attached, SegmentError> {
        let payload = self.unpacked(offset)?;
        let (name, bytes) = codec::decode(&payload)
            .map_err(|error: CodecError| SegmentError::Attached { offset, message: error.to_string() })?;
        Ok(Attached { name, version: self.count, bytes })
    }

    /// What the file says of itself.
    pub(super) fn about(&self, offset: usize) -> Result<About, SegmentError> {
        codec::decode(self.payload)
            .map_err(|error: CodecError| SegmentError::About { offset, message: error.to_string() })
    }

    /// That a field has the value that belongs there.
    pub(super) fn check_field(
        &self,
        offset: usize,
        field: &'static str,
        stored: u64,
        expected: u64,
    ) -> Result<(), SegmentError> {
        if stored == expected { Ok(()) } else { Err(SegmentError::Field { offset, field, stored, expected }) }
    }
}

/// What a whole segment holds, wherever it belongs.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Its frames; none if it is not of records.
    pub(crate) frames: Vec<u8>,
    /// Its state.
    pub(crate) keyframe: Option<StoredKeyframe>,
    /// Its length in the file.
    pub(crate) len_bytes: usize,
}

/// The whole segment that begins at `offset`, if one does.
pub(crate) fn segment_at(bytes: &[u8], offset: usize) -> Option<Whole> {
    let segment = decode(bytes, offset).ok()?;
    let len_bytes = segment.len_bytes();
    let (frames, keyframe) = match segment.kind {
        Kind::Records => (segment.unpacked(offset).ok()?, None),
        Kind::Keyframe => (Vec::new(), segment.keyframe(offset).ok()),
        Kind::About | Kind::End | Kind::Attached => (Vec::new(), None),
    };
    Some(Whole { frames, keyframe, len_bytes })
}

/// What unpacks of the packed frames that begin at `offset` of these bytes, however far that goes; nothing of it has been
/// checked, which the frames in it allow.
pub(crate) fn unpack_remains(bytes: &[u8], offset: usize) -> Option<Vec<u8>> {
    use std::io::Read;
    let rest = bytes.get(offset..).filter(|rest| rest.starts_with(&ZSTD_MAGIC))?;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(rest).ok()?.single_frame();
    decoder.window_log_max(WINDOW_LOG_MAX).ok()?;
    let mut unpacked = Vec::new();
    // What came before an error is what is looked for.
    decoder.take(UNPACKED_LIMIT_BYTES as u64).read_to_end(&mut unpacked).ok();
    Some(unpacked)
}

/// Unpacks segments, one after the other, and keeps what it takes to do that: to make it anew takes as long as unpacking.
#[derive(Default)]
pub(super) struct Unpacker(Option<zstd::bulk::Decompressor<'static>>);

impl Unpacker {
    /// Makes of `unpacked` the payload of a segment of records or of a keyframe.
    pub(super) fn unpack(
        &mut self,
        segment: &Segment<'_>,
        offset: usize,
        unpacked: &mut Vec<u8>,
    ) -> Result<(), SegmentError> {
        let announced = segment.unpacked_bytes;
        // What is long, is not as long as announced, or does not unpack at once, is a case for `unpack`, which says why.
        if !self.unpack_at_once(segment.payload, announced, unpacked) {
            unpack(segment.payload, announced, unpacked)
                .map_err(|error| SegmentError::Unpack { offset, message: error.to_string() })?;
        }
        segment.check_field(offset, "unpacked length", announced as u64, unpacked.len() as u64)
    }

    /// Whether it is that, in full.
    fn unpack_at_once(&mut self, payload: &[u8], unpacked_bytes: usize, unpacked: &mut Vec<u8>) -> bool {
        if unpacked_bytes > UNPACKED_GOAL_BYTES * 2 {
            return false;
        }
        unpacked.clear();
        unpacked.reserve(unpacked_bytes);
        let kept = self.0.take().map_or_else(zstd::bulk::Decompressor::new, Ok);
        let decompressor = kept.ok().map(|kept| self.0.insert(kept));
        let done = decompressor.map(|decompressor| decompressor.decompress_to_buffer(payload, unpacked));
        matches!(done, Some(Ok(len_bytes)) if len_bytes == unpacked_bytes)
    }
}

/// Unpacks, and takes memory only for what comes, or for what is mostly announced: at most one byte more than that.
fn unpack(payload: &[u8], unpacked_bytes: usize, unpacked: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Read;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(payload)?;
    decoder.window_log_max(WINDOW_LOG_MAX)?;
    unpacked.clear();
    unpacked.reserve(unpacked_bytes.min(UNPACKED_GOAL_BYTES * 2) + 1);
    decoder.take(unpacked_bytes as u64 + 1).read_to_end(unpacked).map(drop)
}
