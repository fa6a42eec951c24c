//! The VM clock: nanoseconds that stop with the VM, continue after a resume, and never go back.
//!
//! ```text
//! stopped at T ── resume ─▶ running: T + time of the host since ── pause ─▶ stopped at T'      T' >= T
//!      └─ step, advance_to: forward only, in either state
//!
//! drive_by_hand: from then on it shows T in either state, and only step and advance_to move it
//! ```
//!
//! The host's monotonic clock drives it while it runs, until a person or a test takes over; whether it runs is still
//! what the VM goes by. Absent on purpose: the time of day (it jumps), and ticks: nobody is
//! woken by this clock.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use device::VmTime;

/// A clock that stops with the VM. It is made stopped.
#[derive(Debug)]
pub struct VmClock {
    hand: Mutex<Hand>,
}

/// The time at the last change, and since when the host's clock has been added to it.
#[derive(Clone, Copy, Debug)]
struct Hand {
    at_ns: u64,
    running_since: Option<Instant>,
    drive: Drive,
}

/// What makes time pass while the clock runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drive {
    /// The host's clock.
    Host,
    /// Steps and advances only.
    Hand,
}

impl Hand {
    fn now_ns(&self) -> u64 {
        let since = self.running_since.filter(|_| self.drive == Drive::Host);
        self.at_ns.saturating_add(nanoseconds(since.map_or(Duration::ZERO, |start| start.elapsed())))
    }

    /// Makes now the time of the last change, so that what is changed next counts from here.
    fn settle(&mut self) -> u64 {
        self.at_ns = self.now_ns();
        self.running_since = self.running_since.map(|_| Instant::now());
        self.at_ns
    }
}

/// 584 years fit; a longer duration stands still there.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl VmClock {
    /// A clock that stands at `time` until it is resumed or stepped.
    pub fn stopped_at(time: VmTime) -> VmClock {
        VmClock { hand: Mutex::new(Hand { at_ns: time.0, running_since: None, drive: Drive::Host }) }
    }

    /// What the clock shows.
    pub fn now(&self) -> VmTime {
        VmTime(self.hand().now_ns())
    }

    /// Whether the VM runs, and time passes by itself unless the clock is driven by hand.
    pub fn is_running(&self) -> bool {
        self.hand().running_since.is_some()
    }

    /// Lets time pass; a running clock runs on.
    pub fn resume(&self) {
        let mut hand = self.hand();
        hand.running_since.get_or_insert_with(Instant::now);
    }

    /// Stops the clock where it is, and returns where that is; a stopped one stays.
    pub fn pause(&self) -> VmTime {
        let mut hand = self.hand();
        hand.settle();
        hand.running_since = None;
        VmTime(hand.at_ns)
    }

    /// From now on time passes only by [`VmClock::step`] and [`VmClock::advance_to`], whether the clock runs or not.
    pub fn drive_by_hand(&self) {
        let mut hand = self.hand();
        hand.settle();
        hand.drive = Drive::Hand;
    }

    /// Moves the clock forward by `by` and returns the new time.
    pub fn step(&self, by: Duration) -> VmTime {
        let mut hand = self.hand();
        hand.at_ns = hand.settle().saturating_add(nanoseconds(by));
        VmTime(hand.at_ns)
    }

    /// Moves the clock forward to `time` and returns the new time, which is a later one if the clock was past it already.
    pub fn advance_to(&self, time: VmTime) -> VmTime {
        let mut hand = self.hand();
        hand.at_ns = hand.settle().max(time.0);
        VmTime(hand.at_ns)
    }

    fn hand(&self) -> MutexGuard<'_, Hand> {
        // Nothing above can panic between two writes, so a poisoned hand is a whole one.
        self.hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_clock_moves_only_by_hand() {
        let clock = VmClock::stopped_at(VmTime(100));
        assert_eq!((clock.now(), clock.is_running()), (VmTime(100), false));
        assert_eq!(clock.step(Duration::from_nanos(5)), VmTime(105));
        assert_eq!(clock.advance_to(VmTime(90)), VmTime(105), "never back");
        assert_eq!(clock.advance_to(VmTime(200)), VmTime(200));
        assert_eq!(clock.step(Duration::MAX), VmTime(u64::MAX));
        clock.resume();
        assert_eq!(clock.now(), VmTime(u64::MAX));
    }

    #[test]
    fn time_passes_only_between_resume_and_pause() {
        let clock = VmClock::stopped_at(VmTime(1_000));
        clock.resume();
        std::thread::sleep(Duration::from_millis(2));
        clock.resume();
        let paused = clock.pause();
        assert!(paused >= VmTime(2_001_000), "{paused:?}");
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), paused);
        assert_eq!(clock.pause(), paused);
    }

    #[test]
    fn a_clock_driven_by_hand_stands_still_while_it_runs() {
        let clock = VmClock::stopped_at(VmTime(0));
        clock.resume();
        std::thread::sleep(Duration::from_millis(2));
        clock.drive_by_hand();
        let taken_over = clock.now();
        assert!(taken_over >= VmTime(2_000_000) && clock.is_running());
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(clock.now(), taken_over);
        assert_eq!(clock.step(Duration::from_nanos(7)), VmTime(taken_over.0 + 7));
        assert_eq!(clock.pause(), VmTime(taken_over.0 + 7));
        assert!(!clock.is_running());
        clock.resume();
        assert_eq!(clock.advance_to(VmTime(taken_over.0 + 9)), VmTime(taken_over.0 + 9));
        assert_eq!(clock.now(), VmTime(taken_over.0 + 9));
    }

    #[test]
    fn a_running_clock_never_goes_back() {
        let clock = VmClock::stopped_at(VmTime(0));
        clock.resume();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut before = VmTime(0);
                    for round in 0..2_000 {
                        let now = match round % 4 {
                            0 => clock.step(Duration::from_nanos(3)),
                            1 => clock.advance_to(VmTime(50)),
                            2 => clock.pause(),
                            _ => clock.now(),
                        };
                        clock.resume();
                        assert!(now >= before);
                        before = now;
                    }
                });
            }
        });
    }
}
