//! What a vCPU's thread is asked, what it does, and how it is made to look.

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use kvm_ioctls::VcpuFd;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler, unblock_signal};

/// What the thread is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Run,
    Pause,
    Stop,
}

/// What the thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    Paused,
    Ended,
}

/// What the thread is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Enter the guest.
    Enter,
    /// Let the access under way retire, then look again.
    Retire,
    /// End.
    End,
}

#[derive(Debug)]
struct State {
    wish: Wish,
    life: Life,
    /// An exit was answered, and the guest has not seen the answer yet.
    is_pending: bool,
    looks_asked: u64,
    looks_done: u64,
}

impl State {
    /// What it does, or is about to: one that was told to run does not stand still, though its thread may not have looked.
    fn doing(&self) -> Life {
        match self.life {
            Life::Paused if self.wish == Wish::Run => Life::Running,
            life => life,
        }
    }
}

/// What a vCPU's thread and those who steer it share.
#[derive(Debug)]
pub(super) struct Control {
    state: Mutex<State>,
    changed: Condvar,
    /// The host's id of the thread, from its first moment on.
    thread_id: OnceLock<u32>,
}

impl Control {
    pub(super) fn new() -> Self {
        let state = State { wish: Wish::Pause, life: Life::Paused, is_pending: false, looks_asked: 0, looks_done: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new(), thread_id: OnceLock::new() }
    }

    /// The thread begins: this is the one that calls.
    pub(super) fn begin(&self) {
        self.thread_id.get_or_init(|| rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs());
    }

    /// The host's id of the thread, which has been started.
    pub(super) fn thread_id(&self) -> u32 {
        *self.thread_id.wait()
    }

    /// A stop is for good.
    pub(super) fn set_wish(&self, wish: Wish) {
        self.change(|state| {
            if state.wish != Wish::Stop {
                state.wish = wish;
            }
        });
    }

    pub(super) fn ask_look(&self) -> u64 {
        let mut number = 0;
        self.change(|state| {
            state.looks_asked += 1;
            number = state.looks_asked;
        });
        number
    }

    pub(super) fn wait_looked(&self, number: u64) {
        let not_yet = |state: &mut State| state.looks_done < number && state.life != Life::Ended;
        drop(self.changed.wait_while(self.lock(), not_yet));
    }

    pub(super) fn wait_still(&self) {
        let runs = |state: &mut State| state.doing() == Life::Running;
        drop(self.changed.wait_while(self.lock(), runs));
    }

    pub(super) fn life(&self) -> Life {
        self.lock().doing()
    }

    pub(super) fn forget_pending(&self) {
        self.lock().is_pending = false;
    }

    /// The thread looks. It returns when there is something to do.
    pub(super) fn look(&self) -> Next {
        let mut state = self.lock();
        loop {
            if state.looks_done != state.looks_asked {
                state.looks_done = state.looks_asked;
                self.changed.notify_all();
            }
            match state.wish {
                Wish::Run => {
                    self.set_life(&mut state, Life::Running);
                    return Next::Enter;
                }
                Wish::Stop => return Next::End,
                Wish::Pause if state.is_pending => return Next::Retire,
                Wish::Pause => {
                    self.set_life(&mut state, Life::Paused);
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Whether an exit was answered whose instruction has not retired.
    pub(super) fn set_pending(&self, is_pending: bool) {
        self.lock().is_pending = is_pending;
    }

    pub(super) fn end(&self) {
        self.change(|state| state.life = Life::Ended);
    }

    fn set_life(&self, state: &mut State, life: Life) {
        if state.life != life {
            state.life = life;
            self.changed.notify_all();
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    // Every change leaves the state whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The byte that makes KVM_RUN return at once, in memory that the kernel shares with the vCPU.
#[derive(Clone)]
pub(super) struct ImmediateExit {
    flag: NonNull<AtomicU8>,
    /// The memory is mapped as long as the vCPU is.
    _vcpu: Arc<Mutex<VcpuFd>>,
}

// SAFETY: the byte is only accessed atomically, and is mapped as long as the value lives.
unsafe impl Send for ImmediateExit {}
// SAFETY: as above.
unsafe impl Sync for ImmediateExit {}

impl ImmediateExit {
    pub(super) fn flag(vcpu: &mut VcpuFd) -> NonNull<AtomicU8> {
        NonNull::from(&mut vcpu.get_kvm_run().immediate_exit).cast()
    }

    pub(super) fn new(flag: NonNull<AtomicU8>, vcpu: Arc<Mutex<VcpuFd>>) -> Self {
        Self { flag, _vcpu: vcpu }
    }

    pub(super) fn set(&self) {
        self.byte().store(1, Ordering::SeqCst);
    }

    pub(super) fn clear(&self) {
        self.byte().store(0, Ordering::SeqCst);
    }

    fn byte(&self) -> &AtomicU8 {
        // SAFETY: the byte is mapped as long as the vCPU lives, which is as long as `self`; the kernel only reads it.
        unsafe { self.flag.as_ref() }
    }
}

/// The signal that makes KVM_RUN return. Nobody else in this program uses it.
pub(super) fn signal() -> libc::c_int {
    SIGRTMIN() + 3
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}

/// Lets the signal through to this thread.
pub(super) fn accept_signal() {
    // Where it fails the flag alone makes the thread look, at the guest's next exit.
    let _ = unblock_signal(signal());
}

/// A handler that does nothing, so that the signal interrupts instead of ending the process.
pub(super) fn install_signal_handler() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    let installed =
        INSTALLED.get_or_init(|| register_signal_handler(signal(), on_signal).map_err(|error| error.errno()));
    installed.map_err(io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A boot right after a run once took the vCPU for one that stands still, and waited for its next exit.
    #[test]
    fn one_that_was_told_to_run_does_not_stand_still() {
        let control = Control::new();
        assert_eq!(control.life(), Life::Paused);
        control.set_wish(Wish::Run);
        assert_eq!(control.life(), Life::Running);
        assert_eq!(control.look(), Next::Enter);
        control.set_wish(Wish::Pause);
        assert_eq!(control.life(), Life::Running, "until it looks");
        control.set_pending(true);
        assert_eq!(control.look(), Next::Retire);
        control.set_wish(Wish::Stop);
        control.set_wish(Wish::Run);
        assert_eq!(control.look(), Next::End, "a stop is for good");
    }
}
