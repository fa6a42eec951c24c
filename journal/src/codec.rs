//! How records become bytes: bincode 2, derived, integers of fixed width in little-endian order.
//!
//! The one place that names the codec, so that it can be replaced byte for byte. Deliberately absent: the version,
//! which stands in the frame in front of the body and is read before it.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};
use thiserror::Error;

/// Most bytes that a decoded body may ask to allocate: the largest mailbox payload on both sides of a record, as
/// ranges of which each takes more room than on the wire, and the rest of the record.
const DECODED_LEN_BYTES_MAX: usize = 64 << 20;

/// The same for a whole state: 32 devices with all the extents, offers and pieces that they can have.
const DECODED_STATE_LEN_BYTES_MAX: usize = 1 << 30;

const fn codec() -> Configuration<LittleEndian, Fixint, Limit<DECODED_LEN_BYTES_MAX>> {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<DECODED_LEN_BYTES_MAX>()
}

/// A body that is not what its frame says it is.
#[derive(Debug, Error)]
pub enum CodecError {
    /// It cannot be decoded.
    #[error("the body does not decode: {0}")]
    Undecodable(String),
    /// It is of a form that this build does not read.
    #[error("the body is of form {found} and this build reads form {known}: use the build that wrote it")]
    Form {
        /// The form that stands before it.
        found: u16,
        /// The form that is known.
        known: u16,
    },
    /// It has a field that no value of this field is.
    #[error("the {field} of the body: {reason}")]
    Field {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// It decodes to a state that cannot be.
    #[error("the body is of a state that cannot be: {0}")]
    Unsound(String),
    /// Something stands behind it.
    #[error("the body has {len_bytes} bytes and only the first {used_bytes} are a record")]
    Trailing {
        /// Its length.
        len_bytes: usize,
        /// What the record takes.
        used_bytes: usize,
    },
}

/// The bytes of a value. What the device makes is far below the limit, so that this does not fail.
pub fn encode(value: &impl Encode) -> Vec<u8> {
    bincode::encode_to_vec(value, codec()).expect("encoding into memory fails only past the size limit")
}

/// Reads the values of a body from the front, in the codec's form. What it reads is `None` where the body has no such value,
/// and the first reason for that is kept.
pub(crate) struct Reader<'a> {
    body: &'a [u8],
    rest: &'a [u8],
    /// Bytes that are allocated for what lists announce and was not read yet, and how many may be, with what was read.
    announced_bytes: usize,
    limit_bytes: usize,
    refused: Option<CodecError>,
}

impl<'a> Reader<'a> {
    /// Of a record.
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body, rest: body, announced_bytes: 0, limit_bytes: DECODED_LEN_BYTES_MAX, refused: None }
    }

    /// Of a state, which may be long.
    pub(crate) fn of_state(body: &'a [u8]) -> Self {
        Self { limit_bytes: DECODED_STATE_LEN_BYTES_MAX, ..Self::new(body) }
    }

    fn used_bytes(&self) -> usize {
        self.body.len() - self.rest.len()
    }

    /// What was read, if something was and nothing stands behind it; otherwise why not.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, CodecError> {
        let (len_bytes, used_bytes) = (self.body.len(), self.used_bytes());
        match (value, self.refused.take()) {
            (Some(value), _) if used_bytes == len_bytes => Ok(value),
            (None, Some(reason)) => Err(reason),
            (_, _) => Err(CodecError::Trailing { len_bytes, used_bytes }),
        }
    }

    /// Whether nothing is left.
    pub(crate) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// There is no value, for this reason.
    #[cold]
    pub(crate) fn refuse<T>(&mut self, reason: CodecError) -> Option<T> {
        self.refused.get_or_insert(reason);
        None
    }

    #[cold]
    fn undecodable<T>(&mut self, what: &str) -> Option<T> {
        let (used_bytes, len_bytes) = (self.used_bytes(), self.body.len());
        self.refuse(CodecError::Undecodable(format!("{what} at byte {used_bytes} of {len_bytes}")))
    }

    /// The variant or option byte that was read is none.
    #[cold]
    pub(crate) fn no_variant<T>(&mut self, of: &str, stored: u32) -> Option<T> {
        self.undecodable(&format!("{of} has no variant {stored}, which stands"))
    }

    /// The next bytes.
    #[inline]
    pub(crate) fn bytes(&mut self, len_bytes: usize) -> Option<&'a [u8]> {
        let Some((bytes, rest)) = self.rest.split_at_checked(len_bytes) else {
            return self.undecodable(&format!("it ends before {len_bytes} bytes that belong"));
        };
        self.rest = rest;
        Some(bytes)
    }

    /// The next bytes, of a number that is always the same.
    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let Some((array, rest)) = self.rest.split_first_chunk() else {
            return self.undecodable(&format!("it ends before {N} bytes that belong"));
        };
        self.rest = rest;
        Some(*array)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next bytes, behind their number.
    #[inline]
    pub(crate) fn counted_bytes(&mut self) -> Option<&'a [u8]> {
        let len_bytes = self.u64()?;
        self.bytes(usize::try_from(len_bytes).unwrap_or(usize::MAX))
    }

    /// The next text.
    #[inline]
    pub(crate) fn text(&mut self) -> Option<&'a str> {
        let bytes = self.counted_bytes()?;
        std::str::from_utf8(bytes).ok().or_else(|| self.undecodable("what is not UTF-8 stands before the text's end"))
    }

    /// How many of a list follow. Each must be taken with [`Reader::item`].
    #[inline]
    pub(crate) fn count<T>(&mut self) -> Option<usize> {
        let count = self.u64()?;
        let room = usize::try_from(count).ok().and_then(|count| count.checked_mul(size_of::<T>()));
        match room.and_then(|room| self.announced_bytes.checked_add(room)) {
            Some(announced) if announced <= self.limit_bytes.saturating_sub(self.used_bytes()) => {
                self.announced_bytes = announced;
                Some(count as usize)
            }
            _ => self.undecodable(&format!("a list of {count}, which takes too much room, stands")),
        }
    }

    /// The next of a list comes.
    #[inline]
    pub(crate) fn item<T>(&mut self) {
        self.announced_bytes -= size_of::<T>();
    }
}

/// The value of exactly these bytes.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used_bytes) =
        bincode::decode_from_slice(bytes, codec()).map_err(|error| CodecError::Undecodable(error.to_string()))?;
    let len_bytes = bytes.len();
    if used_bytes == len_bytes { Ok(value) } else { Err(CodecError::Trailing { len_bytes, used_bytes }) }
}
