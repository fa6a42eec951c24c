//! The header in front of every message.
//!
//! ```text
//!  0  magic "dcd>"                      the same in every version
//!  4  u16  version of the protocol      the same in every version
//!  6  u16  kind
//!  8  u32  length of the body, bytes
//! 12  u16  file descriptors that come with its first byte
//! 14  u16  zero
//! 16  u32  CRC-32 of the body
//! 20  u32  CRC-32 of the 20 bytes before
//! 24  body
//! ```
//!
//! Little-endian. Deliberately absent: what stands in bodies.

use std::fmt;

use crate::error::HandoverError;

/// The version of the protocol that this build speaks. Both ends must speak the same.
pub const PROTOCOL_VERSION: u16 = 1;

/// Length of a header in bytes.
pub(crate) const HEADER_LEN_BYTES: usize = 24;

/// Most file descriptors that one message carries (`SCM_MAX_FD` in linux/include/net/scm.h).
pub(crate) const FDS_MAX: usize = 253;

/// The longest body in bytes.
pub(crate) const BODY_LEN_BYTES_MAX: usize = 1 << 20;

/// The longest reason in bytes, and the longest `Hello`.
const SHORT_LEN_BYTES_MAX: usize = 16 << 10;

const MAGIC: [u8; 4] = *b"dcd>";

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Taker: who it is.
    Hello,
    /// Giver: what is given.
    Offer,
    /// Giver: some of the offer's memories, with their file descriptors.
    Memories,
    /// Taker: all is prepared that can be before the pause.
    Ready,
    /// Giver: the state's parts by name and length. The guest is paused.
    State,
    /// Giver: bytes of the parts, one after the other.
    Bytes,
    /// Giver: that was all of the state; with the deed.
    End,
    /// Taker: it has drawn the deed.
    Taken,
    /// Giver: it has let go of what two cannot have.
    Go,
    /// Giver: it has drawn the deed and resumed the guest; why.
    TakenBack,
    /// Either, before the state: it does not go on; why.
    Refused,
}

impl Kind {
    /// All of them, by their numbers from 1.
    const ALL: [Self; 11] = [
        Self::Hello,
        Self::Offer,
        Self::Memories,
        Self::Ready,
        Self::State,
        Self::Bytes,
        Self::End,
        Self::Taken,
        Self::Go,
        Self::TakenBack,
        Self::Refused,
    ];

    fn number(self) -> u16 {
        self as u16 + 1
    }

    fn of(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// The longest body in bytes, and the most file descriptors.
    fn limits(self) -> (usize, usize) {
        match self {
            Self::Hello | Self::TakenBack | Self::Refused => (SHORT_LEN_BYTES_MAX, 0),
            Self::Offer | Self::State | Self::Bytes => (BODY_LEN_BYTES_MAX, 0),
            Self::Memories => (BODY_LEN_BYTES_MAX, FDS_MAX),
            Self::Ready | Self::Taken | Self::Go => (0, 0),
            Self::End => (0, 1),
        }
    }
}

impl fmt::Display for Kind {
    /// For people, who do not know the protocol.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hello => "the word who takes the VM",
            Self::Offer => "the offer of the VM",
            Self::Memories => "the VM's memory",
            Self::Ready => "the word that the new process is ready",
            Self::State => "the VM's state",
            Self::Bytes => "a piece of the VM's state",
            Self::End => "the end of the VM's state",
            Self::Taken => "the word that the new process has the VM",
            Self::Go => "the word that the old process has let go",
            Self::TakenBack => "the word that the old process has the VM back",
            Self::Refused => "a refusal",
        })
    }
}

/// What a header says of the body behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) body_len: usize,
    pub(crate) fds: usize,
    body_crc: u32,
}

impl Header {
    /// The header of a body and so many file descriptors.
    pub(crate) fn new(kind: Kind, body: &[u8], fds: usize) -> Result<Self, HandoverError> {
        let header = Self { kind, body_len: body.len(), fds, body_crc: crc32fast::hash(body) };
        header.check_limits()
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_LEN_BYTES] {
        let mut bytes = [0; HEADER_LEN_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.kind.number().to_le_bytes());
        // Both are below their limits, which fit.
        bytes[8..12].copy_from_slice(&(self.body_len as u32).to_le_bytes());
        bytes[12..14].copy_from_slice(&(self.fds as u16).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.body_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[0..20]);
        bytes[20..24].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn parse(bytes: &[u8; HEADER_LEN_BYTES]) -> Result<Self, HandoverError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[0..4] != MAGIC {
            return Err(HandoverError::Foreign);
        }
        // Before the CRC: another version may keep it elsewhere.
        if u16_at(4) != PROTOCOL_VERSION {
            return Err(HandoverError::Version { theirs: u16_at(4), ours: PROTOCOL_VERSION });
        }
        if crc32fast::hash(&bytes[0..20]) != u32_at(20) || u16_at(14) != 0 {
            return Err(HandoverError::Damaged { what: "header" });
        }
        let kind = Kind::of(u16_at(6)).ok_or(HandoverError::Unknown { number: u16_at(6) })?;
        let (body_len, fds) = (u32_at(8) as usize, usize::from(u16_at(12)));
        Self { kind, body_len, fds, body_crc: u32_at(16) }.check_limits()
    }

    pub(crate) fn check_body(self, body: &[u8]) -> Result<(), HandoverError> {
        if crc32fast::hash(body) == self.body_crc { Ok(()) } else { Err(HandoverError::Damaged { what: "body" }) }
    }

    fn check_limits(self) -> Result<Self, HandoverError> {
        let (body_len_max, fds_max) = self.kind.limits();
        let check = |what, len, max| {
            if len > max { Err(HandoverError::TooMany { of: self.kind, what, len, max }) } else { Ok(()) }
        };
        check("bytes", self.body_len as u64, body_len_max as u64)?;
        check("file descriptors", self.fds as u64, fds_max as u64)?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_are_written_and_read() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(kind.number()), index + 1);
            let (body_len_max, fds_max) = kind.limits();
            let header = Header::new(kind, &vec![7; body_len_max], fds_max).unwrap();
            assert_eq!(Header::parse(&header.to_bytes()).unwrap(), header);
            header.check_body(&vec![7; body_len_max]).unwrap();
            assert!(Header::new(kind, &vec![7; body_len_max + 1], fds_max).is_err());
            assert!(Header::new(kind, &[], fds_max + 1).is_err());
        }
    }

    #[test]
    fn the_form_is_fixed() {
        let header = Header::new(Kind::Memories, b"abc", 2).unwrap();
        expect_test::expect!["646364 3e 01 00 03 00 03 00 00 00 02 00 00 00 c2 41 24 35"].assert_eq(
            &header.to_bytes()[..20].iter().enumerate().fold(String::new(), |text, (at, byte)| {
                let space = if at > 2 { " " } else { "" };
                format!("{text}{space}{byte:02x}")
            }),
        );
    }

    #[test]
    fn another_version_is_named_whatever_else_it_changed() {
        let mut bytes = [0xff; HEADER_LEN_BYTES];
        bytes[0..6].copy_from_slice(b"dcd>\x09\x00");
        let said = Header::parse(&bytes).unwrap_err().to_string();
        assert_eq!(
            said,
            "the other process speaks version 9 of the hand-over and this one version 1: use builds that speak the same"
        );
    }

    proptest! {
        #[test]
        fn no_header_panics_and_no_changed_one_passes(at in 0..HEADER_LEN_BYTES, by in 1..=255_u8, any: [u8; HEADER_LEN_BYTES]) {
            let mut bytes = Header::new(Kind::Offer, b"body", 0).unwrap().to_bytes();
            bytes[at] ^= by;
            prop_assert!(Header::parse(&bytes).is_err());
            Header::parse(&any).ok();
        }
    }
}
