//! How bodies become bytes: bincode 2, derived, integers of fixed width in little-endian order.
//!
//! Deliberately absent: the version, which stands in the header.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

use crate::error::HandoverError;
use crate::frame::Kind;

/// Most bytes that a decoded body may ask to allocate: the longest body, with the room that its lists take here.
const DECODED_LEN_BYTES_MAX: usize = 4 << 20;

const fn codec() -> Configuration<LittleEndian, Fixint, Limit<DECODED_LEN_BYTES_MAX>> {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<DECODED_LEN_BYTES_MAX>()
}

/// The body of a message of kind `of`.
pub(crate) fn encode(of: Kind, value: &impl Encode) -> Result<Vec<u8>, HandoverError> {
    bincode::encode_to_vec(value, codec()).map_err(|error| HandoverError::Malformed { of, reason: error.to_string() })
}

/// What a body says: all of it.
pub(crate) fn decode<T: Decode<()>>(of: Kind, body: &[u8]) -> Result<T, HandoverError> {
    let malformed = |reason| HandoverError::Malformed { of, reason };
    let (value, used) = bincode::decode_from_slice(body, codec()).map_err(|error| malformed(error.to_string()))?;
    if used == body.len() {
        return Ok(value);
    }
    Err(malformed(format!("{} bytes came and only the first {used} mean something", body.len())))
}
