//! The gate between the in-process guest and everything that it touches: where it is paused, rebooted and stopped.
//!
//! ```text
//!            pause                    stop
//!  running ─────────▶ paused ─────┐
//!     ▲   ◀─────────    │         ▼
//!     │      run        └────▶ stopped
//! ```
//!
//! Every access of the guest passes; a paused guest parks in front of its next access, so that whatever it has begun is
//! complete. A reset ends the boot under way at once (its accesses read all ones) and holds the next one back, each access
//! of it, until the registers are as at power-on. A device that is plugged or unplugged begins a new round of the same boot,
//! in which the guest looks for devices anew.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the guest may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Running,
    Paused,
    Stopped,
}

/// Whether an access may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// It may.
    Go,
    /// Its boot is over: it reads all ones.
    BootOver,
}

/// A boot of the guest, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Boot(u64);

/// A stretch of a boot in which no device comes or goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) boot: Boot,
    plugs: u64,
}

#[derive(Debug)]
struct State {
    mode: Mode,
    boot: Boot,
    /// Devices that came or went.
    plugs: u64,
    /// Resets under way; no boot begins while there is one, and nobody is in an access.
    resets: u32,
    interrupts: u64,
    /// Accesses under way.
    inside: u32,
}

/// One access that is under way.
pub(crate) struct Passage<'a>(&'a Gate);

/// The gate.
#[derive(Debug)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

impl State {
    fn round(&self) -> Round {
        Round { boot: self.boot, plugs: self.plugs }
    }
}

impl Gate {
    pub(crate) fn new() -> Self {
        let state = State { mode: Mode::Running, boot: Boot(0), plugs: 0, resets: 0, interrupts: 0, inside: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Waits out a pause.
    pub(crate) fn pass(&self, boot: Boot) -> Pass {
        let state = self.wait_out_pause(boot);
        if state.mode == Mode::Stopped || state.boot != boot { Pass::BootOver } else { Pass::Go }
    }

    /// Waits out a reset, too: what is written between its decision and what it shows would be in the device's state and in
    /// none of its registers.
    fn wait_out_pause(&self, boot: Boot) -> MutexGuard<'_, State> {
        let held_back = |state: &mut State| {
            let is_reset = state.mode == Mode::Running && state.resets > 0;
            state.boot == boot && (state.mode == Mode::Paused || is_reset)
        };
        self.changed.wait_while(self.lock(), held_back).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits out a pause or a reset, and begins an access, unless the boot is over.
    pub(crate) fn enter(&self, boot: Boot) -> Option<Passage<'_>> {
        let mut state = self.wait_out_pause(boot);
        let is_over = state.mode == Mode::Stopped || state.boot != boot;
        (!is_over).then(|| {
            state.inside += 1;
            Passage(self)
        })
    }

    /// Waits until no access is under way. Of a gate that is paused, or being reset, none begins then.
    pub(crate) fn wait_empty(&self) {
        let occupied = |state: &mut State| state.inside > 0;
        drop(self.changed.wait_while(self.lock(), occupied).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until a round other than `last` may begin; `None` when the guest must end.
    pub(crate) fn next_round(&self, last: Option<Round>) -> Option<Round> {
        let not_yet = |state: &mut State| {
            let is_last = Some(state.round()) == last;
            state.mode != Mode::Stopped && (state.resets > 0 || is_last || state.mode == Mode::Paused)
        };
        let state = self.changed.wait_while(self.lock(), not_yet).unwrap_or_else(PoisonError::into_inner);
        (state.mode != Mode::Stopped).then(|| state.round())
    }

    /// Whether a round is over: by a reset, a device that came or went, or the end. Waits out a pause.
    pub(crate) fn is_over(&self, round: Round) -> bool {
        self.pass(round.boot) == Pass::BootOver || self.lock().round() != round
    }

    /// A device came or went.
    pub(crate) fn plugged(&self) {
        self.change(|state| {
            state.plugs += 1;
            state.interrupts += 1;
        });
    }

    /// The boot under way.
    pub(crate) fn boot(&self) -> Boot {
        self.lock().boot
    }

    /// Interrupt messages so far.
    pub(crate) fn interrupts(&self) -> u64 {
        self.lock().interrupts
    }

    /// Waits until there are more interrupts than `seen`, the boot is over, or `timeout` has passed.
    pub(crate) fn wait_interrupt(&self, boot: Boot, seen: u64, timeout: Duration) {
        let nothing = |state: &mut State| state.mode != Mode::Stopped && state.boot == boot && state.interrupts == seen;
        drop(self.changed.wait_timeout_while(self.lock(), timeout, nothing));
    }

    /// An interrupt message arrived.
    pub(crate) fn interrupt(&self) {
        self.change(|state| state.interrupts += 1);
    }

    pub(crate) fn run(&self) {
        self.change_mode(Mode::Paused, Mode::Running);
    }

    pub(crate) fn pause(&self) {
        self.change_mode(Mode::Running, Mode::Paused);
    }

    /// Ends the boot under way; the next begins when as many resets have ended as have begun.
    pub(crate) fn reset_begins(&self) {
        self.change(|state| {
            state.boot.0 += 1;
            state.resets += 1;
        });
    }

    pub(crate) fn reset_ends(&self) {
        self.change(|state| state.resets = state.resets.saturating_sub(1));
    }

    pub(crate) fn stop(&self) {
        self.change(|state| state.mode = Mode::Stopped);
    }

    fn change_mode(&self, from: Mode, to: Mode) {
        self.change(|state| {
            if state.mode == from {
                state.mode = to;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.inside -= 1;
        // Nobody waits for it while the guest runs.
        if state.inside == 0 && (state.mode != Mode::Running || state.resets > 0) {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_reset_ends_the_boot_and_holds_the_next_one_back() {
        let gate = Arc::new(Gate::new());
        let first_round = gate.next_round(None).expect("a boot");
        let first = first_round.boot;
        assert_eq!(gate.pass(first), Pass::Go);
        gate.reset_begins();
        assert_eq!(gate.pass(first), Pass::BootOver);
        let waiting = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.next_round(Some(first_round)))
        };
        gate.reset_ends();
        let second = waiting.join().expect("no panic").expect("a boot").boot;
        assert_ne!(second, first);
        assert_eq!(gate.pass(second), Pass::Go);
    }

    #[test]
    fn an_access_of_the_next_boot_waits_for_the_end_of_the_reset() {
        let gate = Arc::new(Gate::new());
        let before = gate.enter(gate.boot()).expect("a passage");
        gate.reset_begins();
        let waiting = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.wait_empty())
        };
        let next = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.enter(gate.boot()).is_some())
        };
        drop(before);
        waiting.join().expect("no panic");
        thread::sleep(Duration::from_millis(5));
        assert!(!next.is_finished(), "the registers are not as at power-on yet");
        gate.reset_ends();
        assert!(next.join().expect("no panic"));
        gate.reset_begins();
        gate.stop();
        assert!(gate.enter(gate.boot()).is_none(), "the end is not waited for");
    }

    #[test]
    fn a_paused_guest_parks_until_it_runs_or_stops() {
        let gate = Arc::new(Gate::new());
        let boot = gate.boot();
        gate.pause();
        let parked = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || (gate.pass(boot), gate.pass(boot)))
        };
        gate.run();
        assert_eq!(parked.join().expect("no panic"), (Pass::Go, Pass::Go));
        gate.stop();
        gate.run();
        assert_eq!(gate.pass(boot), Pass::BootOver, "stopped is for good");
        assert_eq!(gate.next_round(None), None);
    }

    #[test]
    fn a_device_that_comes_begins_a_round_of_the_same_boot() {
        let gate = Gate::new();
        let first = gate.next_round(None).expect("a round");
        assert!(!gate.is_over(first));
        gate.plugged();
        assert!(gate.is_over(first));
        let second = gate.next_round(Some(first)).expect("a round");
        assert!(second.boot == first.boot && second != first);
        assert_eq!(gate.pass(first.boot), Pass::Go);
    }

    #[test]
    fn a_paused_gate_is_empty_when_the_access_under_way_has_ended() {
        let gate = Arc::new(Gate::new());
        let passage = gate.enter(gate.boot()).expect("a passage");
        gate.pause();
        let waiting = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.wait_empty())
        };
        assert!(!waiting.is_finished());
        drop(passage);
        waiting.join().expect("no panic");
        gate.stop();
        assert!(gate.enter(gate.boot()).is_none());
    }
}
