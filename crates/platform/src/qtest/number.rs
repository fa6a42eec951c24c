//! Numbers as C reads them with base 0: `0x10`, `020` and `16` are the same one.

/// The value of a word, all of it, modulo 2 to the power of 64 where it has a minus; `None` for what is no number or
/// does not fit into 64 bits.
pub(super) fn unsigned(word: &[u8]) -> Option<u64> {
    let (is_negative, magnitude) = magnitude(word)?;
    Some(if is_negative { magnitude.wrapping_neg() } else { magnitude })
}

/// The value of a word, all of it; `None` for what is no number or does not fit into 64 bits with a sign.
pub(super) fn signed(word: &[u8]) -> Option<i64> {
    match magnitude(word)? {
        (false, magnitude) => i64::try_from(magnitude).ok(),
        (true, magnitude) => 0i64.checked_sub_unsigned(magnitude),
    }
}

/// Whether there is a minus, and the rest.
fn magnitude(word: &[u8]) -> Option<(bool, u64)> {
    let (is_negative, digits) = match word {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let (base, digits) = match digits {
        [b'0', b'x' | b'X', digits @ ..] => (16, digits),
        [b'0', digits @ ..] if !digits.is_empty() => (8, digits),
        digits => (10, digits),
    };
    if digits.is_empty() {
        return None;
    }
    let value = digits.iter().try_fold(0u64, |value, digit| {
        let digit = char::from(*digit).to_digit(base)?;
        value.checked_mul(base.into())?.checked_add(digit.into())
    })?;
    Some((is_negative, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_c() {
        for (word, value) in [
            ("0", Some(0)),
            ("16", Some(16)),
            ("0x10", Some(16)),
            ("0XfF", Some(255)),
            ("020", Some(16)),
            ("+7", Some(7)),
            ("-1", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("0x10000000000000000", None),
            ("08", None),
            ("0x", None),
            ("", None),
            ("-", None),
            ("1 ", None),
            ("1k", None),
            ("0x-1", None),
        ] {
            assert_eq!(unsigned(word.as_bytes()), value, "{word}");
        }
        assert_eq!(signed(b"-5"), Some(-5));
        assert_eq!(signed(b"-0x8000000000000000"), Some(i64::MIN));
        assert_eq!(signed(b"-0x8000000000000001"), None);
        assert_eq!(signed(b"0x8000000000000000"), None);
    }
}
