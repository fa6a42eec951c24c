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

const fn codec<const LEN_BYTES_MAX: usize>() -> Configuration<LittleEndian, Fixint, Limit<LEN_BYTES_MAX>> {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<LEN_BYTES_MAX>()
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
    bincode::encode_to_vec(value, codec::<DECODED_LEN_BYTES_MAX>())
        .expect("encoding into memory fails only past the size limit")
}

/// The value of exactly these bytes.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<T, DECODED_LEN_BYTES_MAX>(bytes)
}

/// The state of exactly these bytes, which may be long.
pub(crate) fn decode_state<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within::<T, DECODED_STATE_LEN_BYTES_MAX>(bytes)
}

fn decode_within<T: Decode<()>, const LEN_BYTES_MAX: usize>(bytes: &[u8]) -> Result<T, CodecError> {
    let (value, used_bytes) = bincode::decode_from_slice(bytes, codec::<LEN_BYTES_MAX>())
        .map_err(|error| CodecError::Undecodable(error.to_string()))?;
    let len_bytes = bytes.len();
    if used_bytes == len_bytes { Ok(value) } else { Err(CodecError::Trailing { len_bytes, used_bytes }) }
}
