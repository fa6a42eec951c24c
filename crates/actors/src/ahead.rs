//! The state ahead: what a hand-over tells of a VM while its guest still runs, so that many extents do not make its pause long.
//!
//! ```text
//!  giver    state ─▶ bytes, in a file of their own ─▶ offered beside the memories
//!  taker    file ─▶ bytes ─▶ read, its laws checked ─▶ ready
//!  pause    still the same: only after which record it is      another one: all of it
//! ```
//!
//! A state that is looked at while requests are served may be one that never was. That does no harm: it is compared in the
//! pause with the one that is. Deliberately absent: a second try.

use std::fs::File;
use std::io::{self, Read, Seek};

use device::vm::Vm as State;
use handover::{Offer, STATE_LEN_BYTES_MAX, Transfer};
use journal::form::{Base, KEYFRAME_VERSION, Keyframe};
use memory::HostMemory;

use crate::hand_over::file_for;
use crate::snapshot_error::SnapshotError;

/// What it is called among memories, and in what an offer says: there the version of its form.
const STATE_AHEAD: &str = "state-ahead";

/// What was sent of a VM.
pub(crate) struct Sent {
    state: State,
    file: HostMemory,
}

impl Sent {
    /// Writes it.
    pub(crate) fn of(keyframe: Keyframe) -> Result<Self, String> {
        let bytes = keyframe.to_bytes();
        let file = file_for(bytes.len() as u64)?;
        file.write(0, &bytes).map_err(|error| error.to_string())?;
        Ok(Self { state: keyframe.vm, file })
    }

    /// What an offer says of it.
    pub(crate) fn about() -> (String, String) {
        (STATE_AHEAD.to_owned(), KEYFRAME_VERSION.to_string())
    }

    pub(crate) fn offered(&self) -> io::Result<handover::Memory> {
        let fd = self.file.share()?.ok_or(io::ErrorKind::Unsupported)?;
        let (id, len_bytes) = (STATE_AHEAD.to_owned(), self.file.len_bytes());
        Ok(handover::Memory { id, len_bytes, transfer: Transfer::Copied, fd })
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }
}

/// Takes it out of what is offered, and reads it; `None` where it was not sent.
pub(crate) fn take(offer: &mut Offer) -> Result<Option<Base>, SnapshotError> {
    let Some(index) = offer.memories.iter().position(|memory| memory.id == STATE_AHEAD) else { return Ok(None) };
    let handover::Memory { len_bytes, fd, .. } = offer.memories.swap_remove(index);
    let unreadable = |reason: String| SnapshotError::Part { name: STATE_AHEAD.into(), reason };
    let said = offer.about.iter().find(|(key, _)| key == STATE_AHEAD).map(|(_, version)| version);
    let version = said.and_then(|version| version.parse().ok());
    let version = version.ok_or_else(|| unreadable("the offer does not say of which version it is".into()))?;
    if len_bytes > STATE_LEN_BYTES_MAX {
        return Err(unreadable(format!("it has {len_bytes} bytes, of at most {STATE_LEN_BYTES_MAX}")));
    }
    let (mut file, mut bytes) = (File::from(fd), Vec::new());
    // Whoever wrote it may have left its descriptor anywhere in it.
    let read = file.rewind().and_then(|()| file.take(len_bytes).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(error.to_string()))?;
    Base::from_stored(version, bytes).map(Some).map_err(|error| unreadable(error.to_string()))
}
