//! Payloads as hexadecimal text, for people who read records as JSON.

use serde::Serializer;

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('?');
    let text: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect();
    serializer.serialize_str(&text)
}
