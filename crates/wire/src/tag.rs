//! The tag of an extent: 16 opaque bytes on the wire, UUID text at the edges (CXL r4.0 8.2.10.9.9.2).

use core::fmt;

/// A tag as the wire carries it, in the byte order of its UUID text. All zero means "no tag".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag([u8; 16]);

/// A text that is no tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a tag is a hyphenated UUID such as 5be13bce-ae34-4a77-b6c3-16df975fcf1a, or \"0\" or \"\" for none")]
pub struct TagError;

impl Tag {
    /// The tag of untagged capacity.
    pub const NONE: Self = Self([0; 16]);

    /// The tag with these wire bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The wire bytes.
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// Whether this is [`Tag::NONE`].
    pub const fn is_none(self) -> bool {
        u128::from_ne_bytes(self.0) == 0
    }

    /// Reads the text form: a hyphenated UUID in any case; `""`, `"0"` and the nil UUID mean no tag. Everything else,
    /// the other spellings of a UUID (braced, URN, without hyphens) too, is refused: Linux and QEMU print one form.
    pub fn parse(text: &str) -> Result<Self, TagError> {
        if text.is_empty() || text == "0" {
            return Ok(Self::NONE);
        }
        if text.len() != uuid::fmt::Hyphenated::LENGTH {
            return Err(TagError);
        }
        uuid::Uuid::try_parse(text).map(|uuid| Self(*uuid.as_bytes())).map_err(|_| TagError)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(feature = "codec")]
impl serde::Serialize for Tag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "codec")]
impl<'de> serde::Deserialize<'de> for Tag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = alloc::string::String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "5be13bce-ae34-4a77-b6c3-16df975fcf1a";

    #[test]
    fn wire_order_is_text_order() {
        let tag = Tag::parse(TEXT).unwrap();
        assert_eq!(tag.bytes()[..4], [0x5b, 0xe1, 0x3b, 0xce]);
        assert_eq!(alloc::format!("{tag}"), TEXT);
    }

    #[test]
    fn case_does_not_matter_and_none_has_three_spellings() {
        assert_eq!(Tag::parse(&TEXT.to_uppercase()), Tag::parse(TEXT));
        for none in ["", "0", "00000000-0000-0000-0000-000000000000"] {
            assert!(Tag::parse(none).unwrap().is_none());
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for bad in ["tm0", "00", "5be13bceae344a77b6c316df975fcf1a", "{5be13bce-ae34-4a77-b6c3-16df975fcf1a}", " 0"] {
            assert_eq!(Tag::parse(bad), Err(TagError), "{bad}");
        }
        assert_eq!(Tag::parse("5be13bce-ae34-4a77-b6c3-16df975fcf1g"), Err(TagError));
        assert_eq!(Tag::parse("5be13bce-ae34-4a77-b6c-316df975fcf1a"), Err(TagError));
    }
}
