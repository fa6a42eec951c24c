//! Forms: what stands in the bodies of frames and keyframes, numbered, and frozen when a build that writes them is
//! released.
//!
//! ```text
//!  version ─▶ v1 ─▶ frozen types ─▶ today's types         read: every form that was ever released
//!                   today's types ─▶ frozen types ─▶ body   written: the newest
//! ```
//!
//! A body is what [`crate::codec`] makes of the frozen types of its form, which are types of their own: what the device
//! calls its fields today and how it orders them does not reach a body. Form 0 was never released and is not read.
//! Deliberately absent: a way from a form to an older one.

mod frozen;
mod keyframe;
pub(crate) mod v1;

pub use keyframe::{Base, KEYFRAME_VERSION, Keyframe};

use crate::codec::CodecError;
use crate::record::{Facts, Genesis, RECORD_VERSION, Record};

/// The record in a body of a form.
pub(crate) fn decode_record(version: u16, body: &[u8]) -> Result<Record, CodecError> {
    match version {
        1 => v1::decode_record(body),
        found => Err(CodecError::Form { found, known: RECORD_VERSION }),
    }
}

/// What of the record in a body of a form the state is made of.
pub(crate) fn decode_facts(version: u16, body: &[u8]) -> Result<Facts, CodecError> {
    match version {
        1 => v1::decode_facts(body),
        found => Err(CodecError::Form { found, known: RECORD_VERSION }),
    }
}

/// The genesis in a body of a form.
pub(crate) fn decode_genesis(version: u16, body: &[u8]) -> Result<Genesis, CodecError> {
    match version {
        1 => v1::decode_genesis(body),
        found => Err(CodecError::Form { found, known: RECORD_VERSION }),
    }
}
