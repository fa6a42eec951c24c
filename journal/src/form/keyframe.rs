//! Keyframes: the whole state after a record, so that what follows need not be folded from the first one.
//!
//! Its form has a version of its own, because state changes more often than what is recorded. A keyframe saves time and
//! says nothing new: where it cannot be read, the facts up to it are folded. Only of a lawful state comes the same state
//! back. Deliberately absent: indexes, orders and sums, which are made again; and the file around it.

use device::vm::Vm;
use device::{Seq, VmTime, laws};

use crate::codec::CodecError;

use super::v1;

/// Version of the form in which this build writes keyframes.
pub const KEYFRAME_VERSION: u16 = 1;

/// A state at which a journal can begin: a keyframe whose laws hold, and its body.
///
/// Who read it has checked it, and has its body: neither is done again for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    keyframe: Keyframe,
    version: u16,
    body: Vec<u8>,
}

/// The state of a VM after a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyframe {
    /// The record.
    pub seq: Seq,
    /// Its time.
    pub time: VmTime,
    /// The state that its facts made.
    pub vm: Vm,
}

impl Keyframe {
    /// The keyframe's body, in the form of [`KEYFRAME_VERSION`].
    pub fn to_bytes(&self) -> Vec<u8> {
        v1::encode_keyframe(self)
    }

    /// The keyframe in a body of a form. It is input from outside: whether it is of this journal, the caller has to ask.
    ///
    /// # Errors
    /// If it is of a form that this build does not read, does not decode, or is of a state that cannot be or breaks a
    /// law.
    pub fn from_stored(version: u16, body: &[u8]) -> Result<Self, CodecError> {
        let keyframe = match version {
            1 => v1::decode_keyframe(body)?,
            found => return Err(CodecError::Form { found, known: KEYFRAME_VERSION }),
        };
        keyframe.check()?;
        Ok(keyframe)
    }

    fn check(&self) -> Result<(), CodecError> {
        laws::check(&self.vm).map_err(|broken| CodecError::Unsound(broken.to_string()))
    }
}

impl Base {
    /// The base of a keyframe.
    ///
    /// # Errors
    /// If its state breaks a law.
    pub fn of(keyframe: Keyframe) -> Result<Self, CodecError> {
        keyframe.check()?;
        let body = keyframe.to_bytes();
        Ok(Self { keyframe, version: KEYFRAME_VERSION, body })
    }

    /// The base in a body of a form.
    ///
    /// # Errors
    /// As [`Keyframe::from_stored`].
    pub fn from_stored(version: u16, body: Vec<u8>) -> Result<Self, CodecError> {
        Ok(Self { keyframe: Keyframe::from_stored(version, &body)?, version, body })
    }

    /// The keyframe.
    pub fn keyframe(&self) -> &Keyframe {
        &self.keyframe
    }

    /// The same state, as one that was found after a later record.
    #[must_use]
    pub fn moved_to(mut self, seq: Seq, time: VmTime) -> Self {
        (self.keyframe.seq, self.keyframe.time) = (seq, time);
        match self.version {
            1 => v1::move_keyframe(&mut self.body, seq, time),
            _ => (self.version, self.body) = (KEYFRAME_VERSION, self.keyframe.to_bytes()),
        }
        self
    }

    /// The keyframe, for who has no journal to begin.
    pub fn into_keyframe(self) -> Keyframe {
        self.keyframe
    }

    /// The version of its body's form, and the body.
    pub(crate) fn into_body(self) -> (u16, Vec<u8>) {
        (self.version, self.body)
    }
}
