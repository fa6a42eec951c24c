//! A value of the tree: how it is written, and when a text means it.

use std::borrow::Cow;
use std::fmt;

use crate::stamp::Seq;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number, a length in bytes or a time in nanoseconds.
    Number(u64),
    /// An address or the bits of a register.
    Address(u64),
    /// A record.
    Record(Seq),
    /// A word or a name.
    Text(Cow<'static, str>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Address(address) => write!(f, "{address:#x}"),
            Self::Record(seq) => seq.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Value {
    /// Whether a text that a person wrote means this value: numbers in any base and with K, M, G or T, records with and
    /// without their `#`.
    pub fn is(&self, text: &str) -> bool {
        match self {
            Self::Number(number) | Self::Address(number) => Self::parse_number(text) == Some(*number),
            Self::Record(seq) => Self::parse_number(text.strip_prefix('#').unwrap_or(text)) == Some(seq.0),
            Self::Text(word) => word.eq_ignore_ascii_case(text),
        }
    }

    /// A number as people write it: `1073741824`, `0x40000000`, `1G`.
    pub(super) fn parse_number(text: &str) -> Option<u64> {
        if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
            return u64::from_str_radix(digits, 16).ok();
        }
        let shift = match text.bytes().last()? {
            b'K' | b'k' => 10,
            b'M' | b'm' => 20,
            b'G' | b'g' => 30,
            b'T' | b't' => 40,
            _ => return text.parse().ok(),
        };
        let number: u64 = text[..text.len() - 1].parse().ok()?;
        number.checked_mul(1 << shift)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_means_a_value_in_any_of_its_spellings() {
        for text in ["1073741824", "0x40000000", "0X40000000", "1G", "1024m"] {
            assert!(Value::Number(1 << 30).is(text) && Value::Address(1 << 30).is(text), "{text}");
        }
        assert!(Value::Record(Seq(80)).is("#80") && Value::Record(Seq(80)).is("80"));
        assert!(Value::Text("attached".into()).is("Attached"));
        for text in ["", "G", "-1", "16777216T", "0x", "1.5G", "ä"] {
            assert!(!Value::Number(1 << 30).is(text), "{text}");
        }
    }
}
