//! What runs the guest: a thread of this process, or processors of KVM.
//!
//! ```text
//!            pause                    stop
//!  running ─────────▶ paused ─────┐
//!     ▲   ◀─────────    │         ▼
//!     │      run        └────▶ stopped
//!  a reset stops what runs, and begins the next boot when it has ended
//! ```
//!
//! The gate stands before drivers inside this process, whether or not there are real processors beside them.

use std::sync::{Arc, Weak};

use platform::MsixMessage;

use crate::gate::Gate;
use crate::kvm_guest::KvmGuest;

/// Who is paused, run and reset as the guest.
#[derive(Clone)]
pub(crate) struct Processor {
    pub(crate) gate: Arc<Gate>,
    pub(crate) kvm: Option<Arc<KvmGuest>>,
}

impl Processor {
    pub(crate) fn run(&self) {
        self.gate.run();
        self.kvm.iter().for_each(|kvm| kvm.run());
    }

    pub(crate) fn pause(&self) {
        self.gate.pause();
        self.kvm.iter().for_each(|kvm| kvm.pause());
    }

    /// For good.
    pub(crate) fn stop(&self) {
        self.gate.stop();
        self.kvm.iter().for_each(|kvm| kvm.stop());
    }

    /// Ends the boot under way, and returns when its last access has ended; the next begins when as many resets have ended
    /// as have begun.
    pub(crate) fn reset_begins(&self) {
        self.gate.reset_begins();
        self.gate.wait_empty();
        self.kvm.iter().for_each(|kvm| kvm.reset_begins());
    }

    /// What [`Processor::reset_begins`] began is over.
    pub(crate) fn reset_ends(&self) {
        self.gate.reset_ends();
        self.kvm.iter().for_each(|kvm| kvm.reset_ends());
    }

    /// Does something while no processor of the guest runs.
    pub(crate) fn still<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.kvm {
            Some(kvm) => kvm.still(work),
            None => work(),
        }
    }

    /// Brings what it has written to the memories' own knowledge: before its slots go, which may be never.
    pub(crate) fn collect_written(&self) {
        if let Some(kvm) = &self.kvm
            && let Err(error) = kvm.slots().collect_dirty()
        {
            tracing::warn!("what the guest has written is not known page by page: {error}");
        }
    }

    /// A device came or went.
    pub(crate) fn plugged(&self) {
        self.gate.plugged();
        self.kvm.iter().for_each(|kvm| kvm.plugged());
    }

    /// The devices are as they were when the guest stood still: nothing is under way.
    pub(crate) fn settled(&self) {
        self.kvm.iter().for_each(|kvm| kvm.look_whether_settled());
    }

    /// Who takes message-signalled interrupts that are not for RAM. It does not keep the processors alive, because
    /// devices have it and processors have devices.
    pub(crate) fn interrupts(&self) -> impl Fn(MsixMessage) + Send + Sync + 'static {
        let (gate, kvm) = (Arc::clone(&self.gate), self.kvm.as_ref().map(Arc::downgrade));
        move |message| {
            gate.interrupt();
            if let Some(kvm) = kvm.as_ref().and_then(Weak::upgrade) {
                kvm.interrupt(message);
            }
        }
    }
}
