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

#[cfg(test)]
pub(crate) mod tests {
    use device::config::VmConfig;
    use device::{Seq, VmTime};
    use wire::Hpa;

    use super::*;

    fn keyframe(seq: u64, time: u64) -> Keyframe {
        let root_ports = vec!["rp0".to_owned()];
        let (window_base, windows_bytes) = (Hpa(0x1_1000_0000), vec![1 << 32]);
        let config = VmConfig { memory_bytes: 1 << 30, window_base, windows_bytes, root_ports };
        Keyframe { seq: Seq(seq), time: VmTime(time), vm: State::new(config) }
    }

    /// An empty VM after a record.
    pub(crate) fn base(seq: u64, time: u64) -> Base {
        Base::of(keyframe(seq, time)).expect("lawful")
    }

    fn offer() -> Offer {
        let sent = Sent::of(keyframe(5, 50)).expect("written");
        assert_eq!(sent.state(), &base(5, 50).keyframe().vm);
        let memories = vec![sent.offered().expect("a file")];
        Offer { build: "test".into(), about: vec![Sent::about()], journal: None, last: Seq(5), memories }
    }

    fn refused(spoil: impl FnOnce(&mut Offer)) -> String {
        let mut offer = offer();
        spoil(&mut offer);
        take(&mut offer).expect_err("refused").to_string()
    }

    #[test]
    fn what_was_sent_is_what_is_taken_and_no_memory_of_the_guest() {
        let mut offer = offer();
        assert_eq!(take(&mut offer).expect("taken"), Some(base(5, 50)));
        assert!(offer.memories.is_empty());
        assert_eq!(take(&mut offer).expect("nothing"), None);
    }

    /// Whoever listens at the socket may be anyone.
    #[test]
    fn what_no_giver_sends_is_refused_with_its_reason() {
        assert!(refused(|offer| offer.about.clear()).contains("does not say of which version"));
        assert!(refused(|offer| offer.about[0].1 = "first".into()).contains("does not say of which version"));
        assert!(refused(|offer| offer.about[0].1 = "999".into()).contains("999"));
        let len_bytes = STATE_LEN_BYTES_MAX + 1;
        assert!(refused(|offer| offer.memories[0].len_bytes = len_bytes).contains(&len_bytes.to_string()));
        assert!(refused(|offer| offer.memories[0].len_bytes -= 1).contains(STATE_AHEAD));
        let (pipe, _other) = io::pipe().expect("a pipe");
        assert!(refused(|offer| offer.memories[0].fd = pipe.into()).contains(STATE_AHEAD));
        let zeros = File::open("/dev/zero").expect("there");
        assert!(refused(|offer| offer.memories[0].fd = zeros.into()).contains(STATE_AHEAD));
    }
}
