//! A record's own frame: what makes a record recognisable and its place in the row provable, whatever store it lies in.
//!
//! ```text
//!  0       4       8       12    14    16         24                40
//!  ├ magic ┼ body  ┼ crc32 ┼ ver ┼ 0   ┼ sequence ┼ chain          ┼ body ...
//!  │ DCDR  │ bytes │       │ u16 │ u16 │ u64      │ 16 bytes       │
//!                          └────────── crc32 covers ──────────────────────┘
//! chain = first 16 bytes of blake3(chain before ‖ sequence ‖ version ‖ body); sixteen zeros stand before sequence 0
//! ```
//!
//! All numbers are little-endian. Sequence 0 is the genesis; records count from 1 without a gap. Absent on purpose: a
//! secret in the chain (it shows removed, reordered and swapped records, not a forger), and any use of what stands behind
//! damage when a journal is read: behind a broken link nothing says that it came next. Salvage looks there, and says so.

use device::Seq;

/// Bytes of the header that stands before every body.
pub const HEADER_LEN_BYTES: usize = 40;

/// The longest body a frame takes. The largest decision is an answer that accepts as many pieces as a device tracks, each of
/// which is named in the prepared answers and in the facts of two actors.
pub const BODY_LIMIT_BYTES: usize = 64 << 20;

pub(crate) const MAGIC: u32 = u32::from_le_bytes(*b"DCDR");
const CRC_COVERS_FROM: usize = 12;

/// One link of the chain: what a frame says about everything before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain(pub [u8; 16]);

impl Chain {
    /// The link that follows `self` when a frame with these contents is put behind it.
    pub fn next(self, seq: Seq, version: u16, body: &[u8]) -> Chain {
        let mut hash = blake3::Hasher::new();
        hash.update(&self.0).update(&seq.0.to_le_bytes()).update(&version.to_le_bytes()).update(body);
        let mut link = [0; 16];
        hash.finalize_xof().fill(&mut link);
        Chain(link)
    }
}

/// 32 hexadecimal digits.
impl core::fmt::Display for Chain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A frame that was read: its checksum, place and link have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Position in the journal; 0 is the genesis.
    pub seq: Seq,
    /// Version of the body's form, as its writer gave it.
    pub version: u16,
    /// The link of this frame.
    pub chain: Chain,
    /// The body, opaque here.
    pub body: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the frame, its header included.
    pub fn len_bytes(&self) -> usize {
        HEADER_LEN_BYTES + self.body.len()
    }
}

/// Why bytes are not the frame that should stand there. Offsets are bytes from the start of the group that was read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A body to be written is longer than a frame takes.
    #[error("record {seq} cannot be framed: its body is {len_bytes} bytes and {limit_bytes} is the limit; record less")]
    BodyTooLong {
        /// The record.
        seq: Seq,
        /// Its body's length.
        len_bytes: u64,
        /// [`BODY_LIMIT_BYTES`].
        limit_bytes: u64,
    },
    /// The bytes end before the frame does.
    #[error("the frame of {seq} at byte {offset} needs {needed_bytes} bytes and {present_bytes} are there")]
    Short {
        /// The record expected there.
        seq: Seq,
        /// Where the frame begins.
        offset: usize,
        /// Bytes the frame needs.
        needed_bytes: usize,
        /// Bytes that are left.
        present_bytes: usize,
    },
    /// No frame begins here.
    #[error("no frame begins at byte {offset}, where {seq} should: its magic is {stored:#010x}, not {expected:#010x}")]
    Magic {
        /// The record expected there.
        seq: Seq,
        /// Where the frame should begin.
        offset: usize,
        /// What is stored.
        stored: u32,
        /// What every frame begins with.
        expected: u32,
    },
    /// The header announces more than a frame may hold.
    #[error(
        "the frame of {seq} at byte {offset} announces a body of {stored_bytes} bytes and {limit_bytes} is the limit"
    )]
    Length {
        /// The record expected there.
        seq: Seq,
        /// Where the frame begins.
        offset: usize,
        /// The announced length.
        stored_bytes: u32,
        /// [`BODY_LIMIT_BYTES`].
        limit_bytes: u64,
    },
    /// The contents are not those that were written.
    #[error(
        "the frame of {seq} at byte {offset} is damaged: its crc32 is stored as {stored:#010x} and computes to {computed:#010x}"
    )]
    Checksum {
        /// The record expected there.
        seq: Seq,
        /// Where the frame begins.
        offset: usize,
        /// The stored crc32.
        stored: u32,
        /// The crc32 of what is there.
        computed: u32,
    },
    /// The reserved field is in use: a later format wrote this.
    #[error(
        "the frame of {seq} at byte {offset} has {stored:#06x} in its reserved field, which is 0 here: a later build wrote it; read it with that one"
    )]
    Reserved {
        /// The record expected there.
        seq: Seq,
        /// Where the frame begins.
        offset: usize,
        /// What is stored.
        stored: u16,
    },
    /// A whole frame, but of another place.
    #[error("the frame at byte {offset} is {stored}, but {expected} comes next: records are missing or out of order")]
    Sequence {
        /// Where the frame begins.
        offset: usize,
        /// The sequence it says it has.
        stored: Seq,
        /// The sequence that comes next.
        expected: Seq,
    },
    /// A whole frame of this place, but not written behind the record that stands before it.
    #[error(
        "the frame of {seq} at byte {offset} does not continue the record before it: its chain is stored as {stored} and computes to {computed}"
    )]
    Link {
        /// The record.
        seq: Seq,
        /// Where the frame begins.
        offset: usize,
        /// The stored link.
        stored: Chain,
        /// The link that the record before it leads to.
        computed: Chain,
    },
}

/// Appends the frame of one record to `out` and returns its link, which goes into the next frame. `out` is unchanged
/// by a body longer than [`BODY_LIMIT_BYTES`], which is refused.
pub fn encode(out: &mut Vec<u8>, before: Chain, seq: Seq, version: u16, body: &[u8]) -> Result<Chain, FrameError> {
    let len = match u32::try_from(body.len()) {
        Ok(len) if body.len() <= BODY_LIMIT_BYTES => len,
        _ => {
            let (len_bytes, limit_bytes) = (body.len() as u64, BODY_LIMIT_BYTES as u64);
            return Err(FrameError::BodyTooLong { seq, len_bytes, limit_bytes });
        }
    };
    let chain = before.next(seq, version, body);
    let start = out.len();
    out.reserve(HEADER_LEN_BYTES + body.len());
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&version.to_le_bytes());
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&seq.0.to_le_bytes());
    out.extend_from_slice(&chain.0);
    out.extend_from_slice(body);
    let crc = crc32fast::hash(&out[start + CRC_COVERS_FROM..]);
    out[start + 8..start + CRC_COVERS_FROM].copy_from_slice(&crc.to_le_bytes());
    Ok(chain)
}

/// Reads the frame at `offset`, which must be `seq` and continue `before`. The next one begins at
/// `offset + Frame::len_bytes`.
pub fn decode(bytes: &[u8], offset: usize, seq: Seq, before: Chain) -> Result<Frame<'_>, FrameError> {
    let frame = decode_alone(bytes, offset, seq)?;
    if frame.seq != seq {
        return Err(FrameError::Sequence { offset, stored: frame.seq, expected: seq });
    }
    let computed = before.next(seq, frame.version, frame.body);
    if frame.chain != computed {
        return Err(FrameError::Link { seq, offset, stored: frame.chain, computed });
    }
    Ok(frame)
}

/// Reads the frame at `offset` whatever its place: its lengths and its checksum are right, its link is not looked at.
/// `expected` is what an error says should have been there.
pub(crate) fn decode_alone(bytes: &[u8], offset: usize, expected: Seq) -> Result<Frame<'_>, FrameError> {
    let seq = expected;
    let rest = bytes.get(offset..).unwrap_or_default();
    let short = |needed_bytes| FrameError::Short { seq, offset, needed_bytes, present_bytes: rest.len() };
    let header: &[u8; HEADER_LEN_BYTES] = rest.first_chunk().ok_or_else(|| short(HEADER_LEN_BYTES))?;

    let stored_magic = u32_at(header, 0);
    if stored_magic != MAGIC {
        return Err(FrameError::Magic { seq, offset, stored: stored_magic, expected: MAGIC });
    }
    let stored_bytes = u32_at(header, 4);
    let body_len = stored_bytes as usize;
    if body_len > BODY_LIMIT_BYTES {
        return Err(FrameError::Length { seq, offset, stored_bytes, limit_bytes: BODY_LIMIT_BYTES as u64 });
    }
    let needed_bytes = HEADER_LEN_BYTES + body_len;
    let whole = rest.get(..needed_bytes).ok_or_else(|| short(needed_bytes))?;
    let (stored, computed) = (u32_at(header, 8), crc32fast::hash(&whole[CRC_COVERS_FROM..]));
    if stored != computed {
        return Err(FrameError::Checksum { seq, offset, stored, computed });
    }
    let reserved = u16_at(header, 14);
    if reserved != 0 {
        return Err(FrameError::Reserved { seq, offset, stored: reserved });
    }
    Ok(Frame {
        seq: seq_of(header),
        version: u16_at(header, 12),
        chain: Chain(core::array::from_fn(|i| header[24 + i])),
        body: &whole[HEADER_LEN_BYTES..],
    })
}

/// The sequence in a frame's header, if one begins these bytes; nothing of it has been checked.
pub(crate) fn announced_seq(bytes: &[u8]) -> Option<Seq> {
    let header: &[u8; HEADER_LEN_BYTES] = bytes.first_chunk()?;
    (u32_at(header, 0) == MAGIC).then(|| seq_of(header))
}

fn seq_of(header: &[u8; HEADER_LEN_BYTES]) -> Seq {
    Seq(u64::from(u32_at(header, 16)) | u64::from(u32_at(header, 20)) << 32)
}

fn u16_at(header: &[u8; HEADER_LEN_BYTES], at: usize) -> u16 {
    u16::from_le_bytes([header[at], header[at + 1]])
}

fn u32_at(header: &[u8; HEADER_LEN_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(seq: u64, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(&mut bytes, Chain::default(), Seq(seq), 7, body).expect("a short body");
        bytes
    }

    #[test]
    fn the_header_has_the_pictured_form() {
        let bytes = framed(0x0102, b"body");
        assert_eq!(bytes.len(), HEADER_LEN_BYTES + 4);
        assert_eq!(&bytes[..8], b"DCDR\x04\0\0\0");
        assert_eq!(&bytes[12..24], &[7, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[40..], b"body");
    }

    #[test]
    fn a_flipped_bit_anywhere_is_an_error() {
        let bytes = framed(3, b"some body");
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(decode(&damaged, 0, Seq(3), Chain::default()).is_err(), "bit {at}");
        }
    }

    #[test]
    fn a_cut_anywhere_is_an_error() {
        let bytes = framed(3, b"some body");
        for len in 0..bytes.len() {
            let cut = decode(&bytes[..len], 0, Seq(3), Chain::default());
            assert!(matches!(cut, Err(FrameError::Short { .. })), "{len}: {cut:?}");
        }
        assert!(matches!(decode(&bytes, usize::MAX, Seq(3), Chain::default()), Err(FrameError::Short { .. })));
    }

    #[test]
    fn another_place_or_predecessor_is_an_error() {
        let bytes = framed(3, b"some body");
        let moved = decode(&bytes, 0, Seq(4), Chain::default());
        assert_eq!(moved, Err(FrameError::Sequence { offset: 0, stored: Seq(3), expected: Seq(4) }));
        assert!(matches!(decode(&bytes, 0, Seq(3), Chain([1; 16])), Err(FrameError::Link { .. })));
    }

    #[test]
    fn the_longest_body_fits_and_one_more_byte_does_not() {
        let mut bytes = Vec::new();
        let longest = vec![5; BODY_LIMIT_BYTES];
        encode(&mut bytes, Chain::default(), Seq(1), 1, &longest).expect("the limit itself is allowed");
        assert_eq!(decode(&bytes, 0, Seq(1), Chain::default()).expect("whole").body, longest);

        bytes.clear();
        let refused = encode(&mut bytes, Chain::default(), Seq(1), 1, &vec![5; BODY_LIMIT_BYTES + 1]);
        assert!(matches!(refused, Err(FrameError::BodyTooLong { len_bytes: 67_108_865, .. })));
        assert!(bytes.is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), magic: bool) {
            let mut bytes = bytes;
            if magic && bytes.len() >= 4 {
                bytes[..4].copy_from_slice(b"DCDR");
            }
            let _ = decode(&bytes, 0, Seq(1), Chain::default());
        }
    }
}
