//! One virtual processor: its thread, its registers, its end.
//!
//! ```text
//!           run               stop, death
//!  Paused ───────▶ Running ──────────────▶ Ended
//!     ▲  ◀───────  │                         ▲
//!     │    pause   └─ exit: answer it, look  │
//!     └──────────────────────────────────────┘ stop
//! ```
//!
//! The thread alone enters the guest, and looks at what it is asked after every exit. Who asks writes the wish first, then
//! the flag that makes KVM_RUN return at once, then sends the signal; the thread clears the flag before it looks. So
//! a wish that comes between the look and the entry finds the flag, and none is lost. A pause lets the access under way
//! retire. Deliberately absent: what exits mean.

mod control;
mod cpuid;
mod death;
mod entry;
mod msrs;
mod registers;
mod state;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::Killable;

use crate::counters::{ExitCounters, ExitCounts};
use control::{Control, ImmediateExit};
use entry::Entry;

pub(crate) use control::{Life, Wish};
pub use cpuid::MissingFeatures;
pub(crate) use cpuid::{missing as missing_features, read as read_cpuid};
pub use death::{DeathReason, Registers, VcpuDeath};
pub(crate) use entry::{OwnPort, VcpuEvents};
pub(crate) use msrs::readable as readable_msrs;
pub(crate) use registers::{BootRegisters, set_boot_registers};
pub use state::LoadError;
#[cfg(test)]
pub(crate) use state::XSAVE_WORDS;
pub(crate) use state::{VcpuState, load, save};

/// A vCPU and its thread.
pub(crate) struct Vcpu {
    fd: Arc<Mutex<VcpuFd>>,
    control: Arc<Control>,
    counters: Arc<ExitCounters>,
    immediate_exit: ImmediateExit,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Vcpu {
    /// Starts the thread, which waits until it is told to run.
    pub(crate) fn start(number: u32, mut fd: VcpuFd, events: Arc<dyn VcpuEvents>) -> io::Result<Self> {
        control::install_signal_handler()?;
        let flag = ImmediateExit::flag(&mut fd);
        let fd = Arc::new(Mutex::new(fd));
        let immediate_exit = ImmediateExit::new(flag, Arc::clone(&fd));
        let (control, counters) = (Arc::new(Control::new()), Arc::new(ExitCounters::default()));
        let entry = Entry::new(number, Arc::clone(&fd), Arc::clone(&control), Arc::clone(&counters), events);
        let clearing = immediate_exit.clone();
        let thread = thread::Builder::new().name(format!("vcpu{number}")).spawn(move || entry.run(&clearing))?;
        Ok(Self { fd, control, counters, immediate_exit, thread: Mutex::new(Some(thread)) })
    }

    /// Says what it is to do, and makes it look.
    pub(crate) fn wish(&self, wish: Wish) {
        self.control.set_wish(wish);
        self.interrupt();
    }

    /// Makes it look at what it is asked; the number of this kick.
    pub(crate) fn kick(&self) -> u64 {
        let number = self.control.ask_look();
        self.interrupt();
        number
    }

    /// Waits until it has looked after a kick, or ended.
    pub(crate) fn wait_kicked(&self, number: u64) {
        self.control.wait_looked(number);
    }

    /// Waits until it stands still or has ended.
    pub(crate) fn wait_still(&self) {
        self.control.wait_still();
    }

    pub(crate) fn life(&self) -> Life {
        self.control.life()
    }

    pub(crate) fn thread_id(&self) -> u32 {
        self.control.thread_id()
    }

    pub(crate) fn counts(&self) -> ExitCounts {
        self.counters.read()
    }

    /// The vCPU; to be used only while it stands still, else it waits for the guest's next exit.
    pub(crate) fn fd(&self) -> MutexGuard<'_, VcpuFd> {
        self.fd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What it was about when it came back last is over: its registers are new.
    pub(crate) fn forget_pending(&self) {
        self.control.forget_pending();
    }

    /// Ends the thread, and waits until it has, unless it is the thread itself that asks.
    pub(crate) fn stop(&self) {
        self.wish(Wish::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            // Its panics are caught and reported as deaths.
            let _ = thread.join();
        }
    }

    fn interrupt(&self) {
        self.immediate_exit.set();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.as_ref() {
            // A thread that has ended needs no signal.
            let _ = thread.kill(control::signal());
        }
    }
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.stop();
    }
}
