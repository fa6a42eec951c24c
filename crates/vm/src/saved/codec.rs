//! How the saved form becomes bytes: bincode 2, derived, integers of fixed width in little-endian order.
//!
//! Deliberately absent: the version, which whoever keeps the bytes keeps beside them.

use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

use super::SavedError;

/// Most bytes that a decoded form may ask to allocate: 64 vCPUs, each with all the registers that it can have.
const DECODED_LEN_BYTES_MAX: usize = 4 << 20;

const fn codec() -> Configuration<LittleEndian, Fixint, Limit<DECODED_LEN_BYTES_MAX>> {
    bincode::config::standard().with_fixed_int_encoding().with_limit::<DECODED_LEN_BYTES_MAX>()
}

/// The bytes of a form. What a machine has is below the limit, so that this does not fail.
pub(super) fn encode(form: &impl Encode) -> Vec<u8> {
    bincode::encode_to_vec(form, codec()).expect("encoding into memory fails only past the size limit")
}

/// The form of exactly these bytes.
pub(super) fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, SavedError> {
    let (form, used_bytes) = bincode::decode_from_slice(bytes, codec())
        .map_err(|error| SavedError::Undecodable { reason: error.to_string() })?;
    let len_bytes = bytes.len();
    if used_bytes == len_bytes { Ok(form) } else { Err(SavedError::Trailing { len_bytes, used_bytes }) }
}
