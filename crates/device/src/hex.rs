//! Payloads as hexadecimal text, for people who read and write records as JSON.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('?');
    let text: String = bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]).collect();
    serializer.serialize_str(&text)
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bad = || D::Error::custom(format_args!("'{text}' is no payload: two hexadecimal digits a byte"));
    let digits = text.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<Vec<_>>>();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).ok_or_else(bad)?;
    Ok(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
