//! Form 1 of records and of keyframes. Frozen: not a field and not a variant of it changes any more
//! (`journal/tests/form_v1.rs` holds its bytes).
//!
//! ```text
//!  genesis   config │ build │ parent?
//!  record    seq time │ device │ operation │ origin │ input │ outcomes │ answers │ facts │ reply
//!  keyframe  seq time │ config │ backends │ plugs runs │ devices: config, mailbox, extents, windows
//! ```

mod backends;
mod config;
mod extents;
mod extents_state;
mod keyframe;
mod mailbox;
mod record;
mod refusal;
mod windows;

use device::{Seq, VmTime};

use crate::codec::{CodecError, Reader, encode};
use crate::record::{Facts, Genesis, Record};

use super::Keyframe;
use super::frozen::Frozen;

/// The body of a genesis.
pub(crate) fn encode_genesis(genesis: &Genesis) -> Vec<u8> {
    encode(&record::Genesis::of(genesis))
}

/// The genesis in a body.
pub(crate) fn decode_genesis(body: &[u8]) -> Result<Genesis, CodecError> {
    decode(Reader::new(body), record::Genesis::read)
}

/// The body of a record.
pub(crate) fn encode_record(record: &Record) -> Vec<u8> {
    encode(&record::Record::of(record))
}

/// The record in a body.
pub(crate) fn decode_record(body: &[u8]) -> Result<Record, CodecError> {
    decode(Reader::new(body), record::Record::read)
}

/// What of the record in a body the state is made of. What is no record is refused as [`decode_record`] does it.
pub(crate) fn decode_facts(body: &[u8]) -> Result<Facts, CodecError> {
    let mut reader = Reader::new(body);
    let facts = record::facts(&mut reader).filter(|_| reader.is_at_end());
    facts.map_or_else(|| decode_record(body).map(Facts::from), Ok)
}

/// The body of a keyframe.
pub(super) fn encode_keyframe(keyframe: &Keyframe) -> Vec<u8> {
    encode(&keyframe::Keyframe::of(keyframe))
}

/// Makes the body of a keyframe that of the same state after another record: both numbers stand at its begin.
pub(super) fn move_keyframe(body: &mut [u8], Seq(seq): Seq, VmTime(time): VmTime) {
    if let Some((numbers, _)) = body.split_first_chunk_mut::<16>() {
        numbers[..8].copy_from_slice(&seq.to_le_bytes());
        numbers[8..].copy_from_slice(&time.to_le_bytes());
    }
}

/// The keyframe in a body.
pub(super) fn decode_keyframe(body: &[u8]) -> Result<Keyframe, CodecError> {
    decode(Reader::of_state(body), keyframe::Keyframe::read)
}

/// The one value of a body.
fn decode<'a, T>(mut reader: Reader<'a>, read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Result<T, CodecError> {
    let value = read(&mut reader);
    reader.finish(value)
}
