//! The actor GuestVcpu: the guest's thread and its lifecycle, one per VM.
//!
//! The guest is a driver: inside this process, or as the image that runs on processors of KVM. Here is the former; its
//! thread never asks an actor: it touches registers and memory through the bus, and the gate on the bus is where it is
//! paused, rebooted and stopped. It sleeps until an interrupt comes, or until its policy has something to do by itself.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use driver::{Bus, DrainError, HostSet, Policy};
use kameo::Actor;
use kameo::actor::{ActorRef, Spawn, WeakActorRef};
use kameo::error::ActorStopReason;
use kameo::mailbox::unbounded;
use kameo::message::{Context, Message};
use wire::Tag;

use crate::bus::GuestBus;
use crate::gate::Round;
use crate::processor::Processor;
use crate::read::Read;
use crate::vm::RunState;

/// How long the guest sleeps without an interrupt before it looks by itself: a lost interrupt is a delay, not a hang.
const WATCHDOG: Duration = Duration::from_secs(1);

/// What runs as the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestProgram {
    /// Nothing.
    None,
    /// The driver.
    Driver {
        /// How it answers.
        policy: Policy,
        /// Tags whose memory is busy whenever it is there, for a policy that looks at it.
        busy: Vec<Tag>,
    },
}

impl From<Policy> for GuestProgram {
    fn from(policy: Policy) -> Self {
        Self::Driver { policy, busy: Vec::new() }
    }
}

/// How the guest fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guest {
    /// It has not found its device yet.
    Booting,
    /// It serves events.
    Serving {
        /// Extents that it holds.
        extents: usize,
    },
    /// It gave up until the next reset, or until a device comes or goes.
    Failed(String),
}

impl fmt::Display for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Booting => f.write_str("booting"),
            Self::Serving { extents } => write!(f, "serving events, holding {extents} extents"),
            Self::Failed(reason) => write!(f, "failed until the next reset: {reason}"),
        }
    }
}

/// The guest's thread, and what it last said of itself.
pub(crate) struct GuestVcpu {
    processor: Processor,
    thread: Option<JoinHandle<()>>,
    says: Arc<Mutex<Option<Guest>>>,
}

/// Let the guest run, or stand still.
pub(crate) struct Run(pub(crate) RunState);

impl Actor for GuestVcpu {
    type Args = Self;
    type Error = kameo::error::Infallible;

    async fn on_start(args: Self, _: ActorRef<Self>) -> Result<Self, Self::Error> {
        Ok(args)
    }

    async fn on_stop(&mut self, _: WeakActorRef<Self>, _: ActorStopReason) -> Result<(), Self::Error> {
        let processor = self.processor.clone();
        // It waits for the processors' threads; a panic in one of these was reported.
        tokio::task::spawn_blocking(move || processor.stop()).await.ok();
        if let Some(thread) = self.thread.take() {
            // The thread leaves at its next access; a panic in it has been printed and harms nobody else.
            tokio::task::spawn_blocking(move || thread.join().ok()).await.ok();
        }
        Ok(())
    }
}

impl GuestVcpu {
    /// Spawns the actor with its guest, which begins its first boot when `gate` lets it.
    pub(crate) fn spawn_for(program: GuestProgram, bus: &GuestBus, processor: Processor) -> ActorRef<Self> {
        let says = Arc::new(Mutex::new(None));
        let thread = match program {
            GuestProgram::Driver { policy, busy } if processor.kvm.is_none() => {
                let (bus, says) = (bus.clone(), Arc::clone(&says));
                thread::Builder::new().name("guest".into()).spawn(move || run(&bus, policy, &busy, &says)).ok()
            }
            GuestProgram::Driver { .. } | GuestProgram::None => None,
        };
        Self::spawn_with_mailbox(Self { processor, thread, says }, unbounded())
    }
}

impl Message<Run> for GuestVcpu {
    type Reply = ();

    async fn handle(&mut self, Run(to): Run, _: &mut Context<Self, ()>) {
        match to {
            RunState::Running => self.processor.run(),
            RunState::Paused => self.processor.pause(),
        }
    }
}

impl<T: Send + 'static> Message<Read<Option<Guest>, T>> for GuestVcpu {
    type Reply = ();

    async fn handle(&mut self, message: Read<Option<Guest>, T>, _: &mut Context<Self, ()>) {
        let seen = match &self.processor.kvm {
            Some(kvm) => (message.question)(&kvm.guest()),
            None => (message.question)(&self.says.lock().unwrap_or_else(PoisonError::into_inner)),
        };
        // What a guest says of itself is no decision: it waits for no record. An asker that is gone wants no answer.
        message.answer.send(seen).ok();
    }
}

/// The guest's thread: one round after the other.
fn run(bus: &GuestBus, policy: Policy, busy: &[Tag], says: &Mutex<Option<Guest>>) {
    let say = |guest| *says.lock().unwrap_or_else(PoisonError::into_inner) = Some(guest);
    let mut last = None;
    say(Guest::Booting);
    while let Some(round) = bus.gate().next_round(last) {
        say(Guest::Booting);
        if let Err(reason) = serve(&mut bus.in_boot(round.boot), round, policy, busy, &say) {
            tracing::warn!("guest: {reason}");
            say(Guest::Failed(reason));
        }
        last = Some(round);
    }
}

/// One round: finds the devices, makes a region of all their capacity, and answers events until the round is over.
fn serve(bus: &mut GuestBus, round: Round, policy: Policy, busy: &[Tag], say: &dyn Fn(Guest)) -> Result<(), String> {
    let is_over = |bus: &GuestBus| bus.gate().is_over(round);
    let map = bus.platform_map();
    let probed = HostSet::probe(bus, &map, policy);
    if is_over(bus) {
        return Ok(());
    }
    let (mut hosts, failures) = probed.map_err(|error| error.to_string())?;
    if !failures.is_empty() {
        tracing::warn!("guest: {failures}");
    }
    busy.iter().for_each(|tag| hosts.mark_busy(*tag));
    loop {
        let seen = bus.interrupts();
        let served = match hosts.on_interrupt(bus) {
            // Operators fill the log as fast as it is read; that is no reason to stop reading it.
            Ok(_) | Err(DrainError::NeverEmpty { .. }) => Ok(()),
            Err(error) => Err(error),
        };
        if is_over(bus) {
            return Ok(());
        }
        served.map_err(|error| error.to_string())?;
        say(Guest::Serving { extents: hosts.hosts().iter().map(|host| host.extents().len()).sum() });
        let sleep = sleep(bus.now_ms(), hosts.wakes_at_ms());
        bus.wait_interrupt(seen, sleep);
    }
}

/// How long to sleep without an interrupt.
fn sleep(now_ms: u64, wakes_at_ms: Option<u64>) -> Duration {
    let until = wakes_at_ms.map(|wakes_at_ms| Duration::from_millis(wakes_at_ms.saturating_sub(now_ms)));
    until.map_or(WATCHDOG, |until| until.min(WATCHDOG))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_sleeps_until_its_policy_has_something_to_do_and_never_longer_than_the_watchdog() {
        assert_eq!(sleep(1_000, None), WATCHDOG);
        assert_eq!(sleep(1_000, Some(1_040)), Duration::from_millis(40));
        assert_eq!(sleep(1_000, Some(999)), Duration::ZERO);
        assert_eq!(sleep(1_000, Some(21_000)), WATCHDOG);
    }
}
