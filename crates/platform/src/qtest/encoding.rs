//! Bytes as text: two hex digits each, or base64 (RFC 4648, 4).

/// Appends two digits for each byte.
pub(super) fn push_hex(bytes: &[u8], to: &mut Vec<u8>) {
    let filled = to.len();
    to.resize(filled + 2 * bytes.len(), 0);
    for (pair, byte) in to[filled..].chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&PAIRS[usize::from(*byte)]);
    }
}

/// The byte of two digits.
pub(super) fn hex_byte(pair: &[u8]) -> Option<u8> {
    let [high, low] = pair else { return None };
    let digit = |digit: &u8| Some(HEX_VALUES[usize::from(*digit)]).filter(|value| *value < 16);
    Some(digit(high)? << 4 | digit(low)?)
}

/// Appends base64, padded. Texts of parts can be joined where all parts but the last have a multiple of three bytes.
pub(super) fn push_base64(bytes: &[u8], to: &mut Vec<u8>) {
    for part in bytes.chunks(3) {
        let at = |index: usize| u32::from(part.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        let digits = [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift & 0x3f) as usize]);
        to.extend_from_slice(&digits[..=part.len()]);
        to.extend(std::iter::repeat_n(b'=', 3 - part.len()));
    }
}

/// The digits of a base64 text without its padding; `None` for what is none.
pub(super) fn base64_digits(text: &[u8]) -> Option<&[u8]> {
    let digits = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    let is_whole = digits.len() % 4 != 1 && (digits.len() == text.len() || text.len().is_multiple_of(4));
    (is_whole && digits.iter().all(|digit| VALUES[usize::from(*digit)] < 64)).then_some(digits)
}

/// How many bytes so many digits are.
pub(super) fn base64_len(digits: usize) -> usize {
    digits / 4 * 3 + (digits % 4).saturating_sub(1)
}

/// Appends the bytes of digits. Parts can be decoded one by one where all but the last have a multiple of four digits.
pub(super) fn decode_base64(digits: &[u8], to: &mut Vec<u8>) {
    for part in digits.chunks(4) {
        let at = |index: usize| part.get(index).map_or(0, |digit| u32::from(VALUES[usize::from(*digit)] & 0x3f));
        let bits = at(0) << 18 | at(1) << 12 | at(2) << 6 | at(3);
        to.extend_from_slice(&bits.to_be_bytes()[1..][..base64_len(part.len())]);
    }
}

/// The two digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 0xf]];
        byte += 1;
    }
    pairs
};

/// The value of each byte as a hex digit, in either case; 16 for what is no digit.
const HEX_VALUES: [u8; 256] = {
    let mut values = [16; 256];
    let mut value = 0;
    while value < 16 {
        let digit = PAIRS[value as usize][1];
        values[digit as usize] = value;
        values[digit.to_ascii_uppercase() as usize] = value;
        value += 1;
    }
    values
};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of each byte as a digit; 64 for what is no digit.
const VALUES: [u8; 256] = {
    let mut values = [64; 256];
    let mut value = 0;
    while value < 64 {
        values[ALPHABET[value as usize] as usize] = value;
        value += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn base64(bytes: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        push_base64(bytes, &mut text);
        text
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text.as_bytes());
        }
        for text in ["Z", "Zg=", "Zm9v=", "Zm9vY===", "Zm 9v", "====", "Zg==Zg=="] {
            assert_eq!(base64_digits(text.as_bytes()), None, "{text}");
        }
        assert_eq!(base64_digits(b"Zg"), Some(&b"Zg"[..]), "padding may be left out");
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let text = base64(&bytes);
            let digits = base64_digits(&text).unwrap();
            prop_assert_eq!(base64_len(digits.len()), bytes.len());
            let mut back = Vec::new();
            decode_base64(digits, &mut back);
            prop_assert_eq!(&back, &bytes);
            let mut hex = Vec::new();
            push_hex(&bytes, &mut hex);
            let back: Option<Vec<u8>> = hex.chunks(2).map(hex_byte).collect();
            prop_assert_eq!(back, Some(bytes));
        }

        #[test]
        fn any_text_is_taken_or_refused(text in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(digits) = base64_digits(&text) {
                let mut bytes = Vec::new();
                decode_base64(digits, &mut bytes);
                prop_assert_eq!(bytes.len(), base64_len(digits.len()));
            }
        }
    }
}
