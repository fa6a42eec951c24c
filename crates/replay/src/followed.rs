//! The state behind a running journal: what its durable records make, a moment later.
//!
//! ```text
//! journal's follower ── record ─▶ fold ─▶ keyframes
//!                                  └───── look ◀── live questions: no actor is stopped for them
//! ```
//!
//! Deliberately absent: any effect on what runs. It reads what is written anyway.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use device::{Seq, laws};
use journal::form::KEYFRAME_VERSION;
use journal::record::Record;
use journal::{Follower, Stored};
use thiserror::Error;

use crate::fold::Fold;
use crate::weight::weight;

/// The folding is a millisecond behind; who waits so long for it waits in vain.
const BEHIND_TIMEOUT: Duration = Duration::from_secs(10);

/// The state behind a journal, for who looks at it. Clones are the same state.
#[derive(Clone)]
pub struct Followed(Arc<Shared>);

/// Who folds it.
struct Following(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    moved: Condvar,
}

struct State {
    fold: Fold,
    has_ended: bool,
}

/// The state could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the state behind the journal is that of {at} and does not reach {asked}: its follower has stopped")]
pub struct Behind {
    /// What was asked.
    pub asked: Seq,
    /// Where it is.
    pub at: Seq,
}

impl Followed {
    /// A state, and who folds on from it.
    pub fn new(fold: Fold) -> (Self, Box<dyn Follower>) {
        let state = Mutex::new(State { fold, has_ended: false });
        let shared = Arc::new(Shared { state, moved: Condvar::new() });
        (Self(Arc::clone(&shared)), Box::new(Following(shared)))
    }

    /// Looks at the state, which is that after a record or a later one. Blocks until it is so far.
    ///
    /// # Errors
    /// If it never is.
    pub fn look<T>(&self, asked: Seq, look: impl FnOnce(&Fold) -> T) -> Result<T, Behind> {
        let until = Instant::now() + BEHIND_TIMEOUT;
        let mut state = self.0.lock();
        while state.fold.last() < asked {
            let rest = until.saturating_duration_since(Instant::now());
            if state.has_ended || rest.is_zero() {
                return Err(Behind { asked, at: state.fold.last() });
            }
            state = self.0.moved.wait_timeout(state, rest).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(look(&state.fold))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A fold that panicked stands before the record it panicked at.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower for Following {
    fn follow(&mut self, stored: &Stored) -> Result<(), String> {
        let mut state = self.0.lock();
        let record = Record::from_stored(stored).map_err(|error| error.to_string());
        let followed = record.and_then(|record| state.fold.apply(&record).map_err(|error| error.to_string()));
        state.has_ended = followed.is_err();
        drop(state);
        self.0.moved.notify_all();
        followed
    }

    /// A state that breaks a law is refused when it is read, and it is of such that somebody will want to ask: its records
    /// stay, and are folded.
    fn keyframe(&self) -> Result<(u16, Vec<u8>), String> {
        let state = self.0.lock();
        laws::check(state.fold.vm()).map_err(|broken| broken.to_string())?;
        Ok((KEYFRAME_VERSION, state.fold.to_keyframe().to_bytes()))
    }

    fn weight(&self) -> u64 {
        weight(self.0.lock().fold.vm())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.0.lock().has_ended = true;
        self.0.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use device::backends::{self, BackendKind, BackendSpec, Population, Reservation, Sharing, Source};
    use device::config::{DeviceIndex, VmConfig};
    use device::operation::Fact;
    use device::vm::Vm;
    use device::{Stamp, VmTime};
    use journal::form::Keyframe;
    use wire::{Hpa, Tag};

    use super::*;

    fn vm() -> Vm {
        let (windows_bytes, root_ports) = (vec![1 << 32], vec!["rp0".into()]);
        Vm::new(VmConfig { memory_bytes: 1 << 30, window_base: Hpa(0x1_1000_0000), windows_bytes, root_ports })
    }

    /// Seen as: a journal in which a planted bug had broken a law was sealed, and nothing of it could be read again.
    #[test]
    fn a_state_that_breaks_a_law_makes_no_keyframe() {
        let (id, device) = (String::from("tm0"), DeviceIndex(0));
        let spec = BackendSpec {
            kind: BackendKind::Ram,
            size_bytes: 1 << 21,
            sharing: Sharing::Private,
            population: Population::OnDemand,
            reservation: Reservation::Reserved,
            tag: Tag::NONE,
            tag_text: String::new(),
        };
        let mut broken = vm();
        // A backend that is attached to the extents of a device which is not there.
        let added = backends::Fact::Added { id: id.clone(), spec, source: Source::Request };
        for fact in [added, backends::Fact::Attached { id, device }] {
            broken.evolve(device, Stamp { seq: Seq(1), time: VmTime(0) }, &Fact::Backends(fact));
        }
        for (vm, is_lawful) in [(vm(), true), (broken, false)] {
            let (_, follower) = Followed::new(Fold::from_keyframe(Keyframe { seq: Seq(1), time: VmTime(0), vm }));
            assert_eq!(follower.keyframe().is_ok(), is_lawful);
        }
    }
}
