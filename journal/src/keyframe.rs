//! Keyframes: a state with all that is needed to go on from it, so that what came before can be skipped or be gone.
//!
//! ```text
//!  0              16      18      20       24
//!  ├ link         ┼ ver   ┼ 0     ┼ genesis┼ genesis ... ┼ state ...
//!  │ of record #N │ of the genesis │ bytes │             │ in the version that stands before the payload
//! ```
//!
//! What a state is, and whether one is well made, is decided above. Deliberately absent: a file of its own; keyframes stand
//! between the records of a segment file.

use device::Seq;

use crate::frame::Chain;
use crate::recover::Stored;

const HEADER_LEN_BYTES: usize = 24;

/// The state after a record, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredKeyframe {
    /// The record after which it is.
    pub seq: Seq,
    /// That record's link, which the next one continues.
    pub chain: Chain,
    /// The genesis of the journal: its sequence is 0.
    pub genesis: Stored,
    /// The version the state was written in.
    pub version: u16,
    /// The state.
    pub body: Vec<u8>,
}

impl StoredKeyframe {
    /// What stands in a segment; `None` where it is too long for one.
    pub(crate) fn payload(&self, limit_bytes: usize) -> Option<Vec<u8>> {
        let Self { seq: _, chain, genesis, version: _, body } = self;
        let len_bytes = HEADER_LEN_BYTES + genesis.body.len() + body.len();
        let genesis_bytes = u32::try_from(genesis.body.len()).ok().filter(|_| len_bytes <= limit_bytes)?;
        let mut payload = Vec::with_capacity(len_bytes);
        payload.extend_from_slice(&chain.0);
        payload.extend_from_slice(&genesis.version.to_le_bytes());
        payload.extend_from_slice(&[0; 2]);
        payload.extend_from_slice(&genesis_bytes.to_le_bytes());
        payload.extend_from_slice(&genesis.body);
        payload.extend_from_slice(body);
        Some(payload)
    }

    /// What a segment's payload says; `None` where it is none.
    pub(crate) fn from_payload(seq: Seq, version: u16, payload: &[u8]) -> Option<Self> {
        let (header, rest) = payload.split_first_chunk::<HEADER_LEN_BYTES>()?;
        let [version_low, version_high, 0, 0, len_bytes @ ..] = *header.last_chunk::<8>()? else { return None };
        let (genesis, body) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(len_bytes)).ok()?)?;
        let genesis_version = u16::from_le_bytes([version_low, version_high]);
        Some(Self {
            seq,
            chain: Chain(*header.first_chunk()?),
            genesis: Stored { seq: Seq(0), version: genesis_version, body: genesis.to_vec() },
            version,
            body: body.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyframe() -> StoredKeyframe {
        let genesis = Stored { seq: Seq(0), version: 7, body: b"genesis".to_vec() };
        StoredKeyframe { seq: Seq(9), chain: Chain([5; 16]), genesis, version: 3, body: b"state".to_vec() }
    }

    #[test]
    fn a_keyframe_reads_back_and_a_cut_one_does_not() {
        let payload = keyframe().payload(1000).expect("short");
        assert_eq!(StoredKeyframe::from_payload(Seq(9), 3, &payload), Some(keyframe()));
        for len in 0..HEADER_LEN_BYTES + b"genesis".len() {
            assert_eq!(StoredKeyframe::from_payload(Seq(9), 3, &payload[..len]), None, "{len} bytes");
        }
    }

    #[test]
    fn one_that_no_segment_takes_is_not_written() {
        let len_bytes = keyframe().payload(1000).expect("short").len();
        assert!(keyframe().payload(len_bytes).is_some());
        assert_eq!(keyframe().payload(len_bytes - 1), None);
    }
}
