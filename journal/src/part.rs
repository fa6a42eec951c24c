//! A group of frames cut into values that are short enough for the store, and put together again.
//!
//! ```text
//! group  = the frames of 1..n records that became durable together
//! key    = sequence of the group's first record ‖ number of the part
//!  0     1       2          4        8       12
//!  ├ ver ┼ flags ┼ payload  ┼ part   ┼ crc32 ┼ payload ...                      at most 7 KiB with its header
//!  │ 1   │ 1=last│ bytes u16│ u32    │       │
//! crc32 covers the key, the header before it and the payload
//! ```
//!
//! A group is there when its last part and all before it are. An incomplete last group is a torn tail: none of its
//! records was ever durable, so it is dropped. Anything else that is missing or different is damage. Absent on purpose:
//! the number of parts (the last one says that it is), and any use of a part without its group.

use device::Seq;

use crate::store::Key;

/// The longest value given to the store, header included. sled moves values from 16 KiB on (a consolidated leaf counts)
/// into files that it never syncs; 7 KiB keeps two of them and their keys under that.
pub const VALUE_LIMIT_BYTES: usize = 7 << 10;

/// Bytes of the header that stands before every payload.
pub const HEADER_LEN_BYTES: usize = 12;

/// The longest payload of one part.
pub const PAYLOAD_LIMIT_BYTES: usize = VALUE_LIMIT_BYTES - HEADER_LEN_BYTES;

const VERSION: u8 = 1;
const LAST: u8 = 1;

/// A group that is whole: frames, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Sequence of its first record.
    pub first: Seq,
    /// The frames.
    pub bytes: Vec<u8>,
}

/// Why a stored value is not the part that its key says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// Too short or too long to be one.
    #[error("part {} of group {} has {len_bytes} bytes; parts have {HEADER_LEN_BYTES} to {VALUE_LIMIT_BYTES}", key.part, key.first)]
    Length {
        /// Where it is stored.
        key: Key,
        /// The stored length.
        len_bytes: usize,
    },
    /// Written in another form.
    #[error("part {} of group {} is of version {stored} and this build reads version {VERSION}: read it with the build that wrote it", key.part, key.first)]
    Version {
        /// Where it is stored.
        key: Key,
        /// The stored version.
        stored: u8,
    },
    /// Its contents are not those that were written there.
    #[error("part {} of group {} is damaged: its crc32 is stored as {stored:#010x} and computes to {computed:#010x}", key.part, key.first)]
    Checksum {
        /// Where it is stored.
        key: Key,
        /// The stored crc32.
        stored: u32,
        /// The crc32 of what is there.
        computed: u32,
    },
    /// The checksum is right and a field is not: no build writes this.
    #[error("part {} of group {} contradicts itself: its {field} is stored as {stored} where {expected} belongs", key.part, key.first)]
    Field {
        /// Where it is stored.
        key: Key,
        /// Which field.
        field: &'static str,
        /// What is stored.
        stored: u64,
        /// What belongs there.
        expected: u64,
    },
    /// A group behind which others stand is not whole.
    #[error("group {first} is not whole ({parts} parts of it are there) although group {behind} stands behind it")]
    Incomplete {
        /// The group.
        first: Seq,
        /// Parts of it that are there.
        parts: usize,
        /// The group that stands behind it.
        behind: Seq,
    },
    /// A part stands behind its group's last.
    #[error("part {} of group {} stands behind that group's last part", key.part, key.first)]
    BehindLast {
        /// Where it is stored.
        key: Key,
    },
}

/// Cuts a group into values for the store, ascending by key. A group without bytes is one part without payload.
pub fn cut(first: Seq, group: &[u8]) -> Vec<(Key, Vec<u8>)> {
    let last = group.len().div_ceil(PAYLOAD_LIMIT_BYTES).max(1) - 1;
    let payload_at = |index: usize| {
        let start = index * PAYLOAD_LIMIT_BYTES;
        &group[start..group.len().min(start + PAYLOAD_LIMIT_BYTES)]
    };
    (0u32..).zip(0..=last).map(|(part, index)| value(Key { first, part }, index == last, payload_at(index))).collect()
}

fn value(key: Key, last: bool, payload: &[u8]) -> (Key, Vec<u8>) {
    let mut bytes = Vec::with_capacity(HEADER_LEN_BYTES + payload.len());
    bytes.extend_from_slice(&[VERSION, if last { LAST } else { 0 }]);
    // At most PAYLOAD_LIMIT_BYTES, which fits.
    bytes.extend_from_slice(&(payload.len() as u16).to_le_bytes());
    bytes.extend_from_slice(&key.part.to_le_bytes());
    let crc = checksum(key, &bytes, payload);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(payload);
    (key, bytes)
}

fn checksum(key: Key, header: &[u8], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&key.to_bytes());
    crc.update(header);
    crc.update(payload);
    crc.finalize()
}

/// The payload of a stored part, and whether it is its group's last.
fn payload(key: Key, bytes: &[u8]) -> Result<(bool, &[u8]), PartError> {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN_BYTES>() else {
        return Err(PartError::Length { key, len_bytes: bytes.len() });
    };
    if bytes.len() > VALUE_LIMIT_BYTES {
        return Err(PartError::Length { key, len_bytes: bytes.len() });
    }
    let [version, flags, len_low, len_high, part @ .., crc_0, crc_1, crc_2, crc_3] = *header;
    let (stored, computed) = (u32::from_le_bytes([crc_0, crc_1, crc_2, crc_3]), checksum(key, &header[..8], payload));
    if stored != computed {
        return Err(PartError::Checksum { key, stored, computed });
    }
    if version != VERSION {
        return Err(PartError::Version { key, stored: version });
    }
    let fields = [
        ("part number", u64::from(u32::from_le_bytes(part)), u64::from(key.part)),
        ("payload length", u64::from(u16::from_le_bytes([len_low, len_high])), payload.len() as u64),
        ("flag byte", u64::from(flags), u64::from(flags & LAST)),
    ];
    match fields.into_iter().find(|(_, stored, expected)| stored != expected) {
        Some((field, stored, expected)) => Err(PartError::Field { key, field, stored, expected }),
        None => Ok((flags & LAST != 0, payload)),
    }
}

/// What looks like a stored part: its header fits, its checksum has not been computed, for the key that belongs into that
/// is not known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    /// Its number in its group.
    pub(crate) part: u32,
    /// It is its group's last.
    pub(crate) last: bool,
    pub(crate) payload: &'a [u8],
    /// Its crc32.
    pub(crate) stored: u32,
    header: &'a [u8],
}

impl Candidate<'_> {
    /// That it was written into this group.
    pub(crate) fn is_of(&self, first: Seq) -> bool {
        checksum(Key { first, part: self.part }, self.header, self.payload) == self.stored
    }
}

/// What looks like a part at `offset`, wherever in a store it belongs. Only the last part of a group is short.
pub(crate) fn find(bytes: &[u8], offset: usize) -> Option<Candidate<'_>> {
    let (header, rest): (&[u8; HEADER_LEN_BYTES], _) = bytes.get(offset..)?.split_first_chunk()?;
    let [version, flags, len_low, len_high, part @ .., crc_0, crc_1, crc_2, crc_3] = *header;
    let len_bytes = usize::from(u16::from_le_bytes([len_low, len_high]));
    let last = flags == LAST;
    let is_one = version == VERSION
        && (last || flags == 0)
        && (1..=PAYLOAD_LIMIT_BYTES).contains(&len_bytes)
        && (last || len_bytes == PAYLOAD_LIMIT_BYTES);
    let payload = rest.get(..len_bytes).filter(|_| is_one)?;
    let (part, stored) = (u32::from_le_bytes(part), u32::from_le_bytes([crc_0, crc_1, crc_2, crc_3]));
    Some(Candidate { part, last, payload, header: &header[..8], stored })
}

/// Puts groups together from parts that come ascending by key.
#[derive(Debug, Default)]
pub struct Assembly {
    open: Option<Pieces>,
    whole: Option<Seq>,
}

/// What is there of a group whose last part has not come.
#[derive(Debug)]
struct Pieces {
    first: Seq,
    keys: Vec<Key>,
    bytes: Vec<u8>,
    /// A part before these is missing, so the group can no longer become whole.
    holed: bool,
}

impl Assembly {
    /// Takes the next part, and returns its group if that is whole now. After an error no more may be given.
    pub fn push(&mut self, key: Key, value: &[u8]) -> Result<Option<Group>, PartError> {
        if let Some(open) = &self.open
            && open.first != key.first
        {
            return Err(PartError::Incomplete { first: open.first, parts: open.keys.len(), behind: key.first });
        }
        if self.whole == Some(key.first) {
            return Err(PartError::BehindLast { key });
        }
        let (last, payload) = payload(key, value)?;
        let open = self.open.get_or_insert_with(|| Pieces {
            first: key.first,
            keys: Vec::new(),
            bytes: Vec::new(),
            holed: false,
        });
        open.holed |= key.part as usize != open.keys.len();
        open.keys.push(key);
        open.bytes.extend_from_slice(payload);
        if !last || open.holed {
            return Ok(None);
        }
        self.whole = Some(key.first);
        Ok(self.open.take().map(|Pieces { first, bytes, .. }| Group { first, bytes }))
    }

    /// The group that is being put together, if one is.
    pub fn open_group(&self) -> Option<Seq> {
        self.open.as_ref().map(|open| open.first)
    }

    /// The keys of the last group, if it is not whole: a torn tail.
    pub fn finish(self) -> Vec<Key> {
        self.open.map(|open| open.keys).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assemble(parts: &[(Key, Vec<u8>)]) -> Result<(Vec<Group>, Vec<Key>), PartError> {
        let mut assembly = Assembly::default();
        let mut groups = Vec::new();
        for (key, value) in parts {
            groups.extend(assembly.push(*key, value)?);
        }
        Ok((groups, assembly.finish()))
    }

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 % 251) as u8).collect()
    }

    #[test]
    fn the_edges_of_a_part() {
        for (len, parts) in [(0, 1), (1, 1), (PAYLOAD_LIMIT_BYTES, 1), (PAYLOAD_LIMIT_BYTES + 1, 2)] {
            let cut = cut(Seq(9), &pattern(len));
            assert_eq!(cut.len(), parts, "{len} bytes");
            assert!(cut.iter().all(|(_, value)| value.len() <= VALUE_LIMIT_BYTES));
            assert_eq!(assemble(&cut), Ok((vec![Group { first: Seq(9), bytes: pattern(len) }], vec![])));
        }
    }

    #[test]
    fn a_missing_part_of_the_last_group_is_a_torn_tail() {
        let parts = cut(Seq(4), &pattern(4 * PAYLOAD_LIMIT_BYTES));
        for missing in 0..parts.len() {
            let mut left = parts.clone();
            left.remove(missing);
            let (groups, torn) = assemble(&left).expect("torn, not damaged");
            assert!(groups.is_empty());
            assert_eq!(torn, left.iter().map(|(key, _)| *key).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_missing_part_of_an_earlier_group_is_damage() {
        let earlier = cut(Seq(4), &pattern(3 * PAYLOAD_LIMIT_BYTES));
        for missing in 0..earlier.len() {
            let mut left = earlier.clone();
            left.remove(missing);
            left.extend(cut(Seq(5), b"x"));
            assert_eq!(assemble(&left), Err(PartError::Incomplete { first: Seq(4), parts: 2, behind: Seq(5) }));
        }
    }

    #[test]
    fn a_part_behind_the_last_is_damage() {
        let mut parts = cut(Seq(4), b"short now");
        parts.push(cut(Seq(4), &pattern(2 * PAYLOAD_LIMIT_BYTES)).remove(1));
        assert_eq!(assemble(&parts), Err(PartError::BehindLast { key: Key { first: Seq(4), part: 1 } }));
    }

    #[test]
    fn a_flipped_bit_anywhere_and_a_move_are_damage() {
        let (key, value) = cut(Seq(4), b"payload").remove(0);
        for at in 0..value.len() * 8 {
            let mut damaged = value.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(matches!(payload(key, &damaged), Err(PartError::Checksum { .. })), "bit {at}");
        }
        let elsewhere = Key { first: Seq(5), part: 0 };
        assert!(matches!(payload(elsewhere, &value), Err(PartError::Checksum { .. })));
    }

    #[test]
    fn lengths_are_checked_before_use() {
        let key = Key { first: Seq(1), part: 0 };
        for len_bytes in [0, HEADER_LEN_BYTES - 1, VALUE_LIMIT_BYTES + 1] {
            assert_eq!(payload(key, &vec![0; len_bytes]), Err(PartError::Length { key, len_bytes }));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn groups_survive_the_cut(lens in prop::collection::vec(prop_oneof![0usize..300, 0usize..=1 << 20], 1..4)) {
            let groups: Vec<Group> = (0u64..).zip(&lens)
                .map(|(n, &len)| Group { first: Seq(n * 10), bytes: pattern(len) })
                .collect();
            let parts: Vec<_> = groups.iter().flat_map(|group| cut(group.first, &group.bytes)).collect();
            prop_assert!(parts.is_sorted_by_key(|(key, _)| *key));
            prop_assert_eq!(assemble(&parts), Ok((groups, vec![])));
        }

        #[test]
        fn any_value_is_read_without_a_panic(value in prop::collection::vec(any::<u8>(), 0..40), part: u32) {
            let _ = Assembly::default().push(Key { first: Seq(1), part }, &value);
        }
    }
}
