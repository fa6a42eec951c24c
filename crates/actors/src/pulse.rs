//! Pulse: the VM is saved, torn down and restored in place, while whoever uses it goes on.
//!
//! ```text
//!  quiet ─▶ captured ─▶ parts ─▶ bytes ─▶ parts ─▶ captured ─▶ next life, of the same memory and journal ─▶ goes on
//!                                                 └ the actors, registers, slots and processors of this life end
//! ```
//!
//! Whatever is not saved is lost in it, and somebody notices: the cheapest soak of saving and restoring that there is. A
//! guest inside this process begins a new round of its driver. Deliberately absent: contents of memories, which stay, with
//! what is known of the pages that have changed since the last snapshot: one after a pulse is as small as one without.

use std::sync::{Arc, PoisonError};

use journal::form::Keyframe;

use crate::birth::{self, Birth};
use crate::captured::{Captured, Recalled};
use crate::fatal::Fatal;
use crate::quiet::Quiet;
use crate::snapshot_error::SnapshotError;
use crate::vm::Vm;

impl Vm {
    /// Pulses the VM.
    ///
    /// # Errors
    ///
    /// It could not be saved: then it goes on as it is. Or it could not be restored: then it has stopped.
    pub async fn pulse(&self) -> Result<(), SnapshotError> {
        // Not in the middle of a save or a hand-over: they know what the guest writes from the slots of this life, and what it
        // wrote in the next one would be missing.
        let _lineage = self.shared.lineage.lock().await;
        let (quiet, state) = self.quiet().await?;
        let recalled = Captured::of(&quiet, state).and_then(|captured| Recalled::from_parts(captured.to_parts()));
        let memories = quiet.memories().await;
        let (recalled, memories) = match (recalled, memories) {
            (Ok(recalled), Ok(memories)) => (recalled, memories),
            (Err(error), _) => {
                quiet.go_on();
                return Err(error);
            }
            (_, Err(stopped)) => return Err(stopped.into()),
        };
        let old = &quiet.parts;
        let Recalled { base, guest_side } = recalled;
        let Keyframe { seq: last, time: _, vm: state } = base.into_keyframe();
        let birth = Birth {
            journal: old.journal.clone(),
            followed: old.followed.clone(),
            outbox: old.slots.outbox.clone(),
            state,
            last,
            ram: Arc::clone(old.platform().ram()),
            memories,
            guest_side: Some(guest_side),
            ahead: None,
        };
        quiet.next_life(birth).await
    }
}

impl Quiet<'_> {
    /// Ends the life under way and begins the next one, which goes on as this one did.
    pub(crate) async fn next_life(mut self, birth: Birth) -> Result<(), SnapshotError> {
        self.end_life().await;
        self.parts.slots.processor.collect_written();
        let shared = &self.vm.shared;
        match birth::begin(&shared.options, &shared.fatal, birth) {
            Ok(parts) => {
                self.parts = Arc::new(parts);
                *shared.parts.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&self.parts);
                self.go_on();
                Ok(())
            }
            Err(error) => {
                let fatal = Fatal::Restore { last: self.last, reason: error.to_string() };
                shared.fatal.send_replace(Some(fatal));
                Err(error.into())
            }
        }
    }

    /// Ends the guest and the actors. From now on there is no way back to this life.
    pub(crate) async fn end_life(&self) {
        self.parts.fatal.life_is_over();
        self.parts.stop().await;
    }
}
