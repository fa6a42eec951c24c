//! The recorder: decide and append as one step, inside the journal's critical section.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError, RwLock};

use device::config::DeviceIndex;
use device::operation::{Answers, Decision, HostOutcome, Input, Reply};
use device::{Seq, Stamp};
use journal::Journal;
use journal::record::{Origin, Record, RecordedReply};
use replay::panic_message;

use crate::fatal::{Fatal, FatalFlag, Stopped};

/// What every actor records with.
#[derive(Clone)]
pub(crate) struct Recorder {
    journal: Journal,
    fatal: FatalFlag,
    /// Of the device whose actor records: once it is unplugged, nothing more may be recorded of it, however late its
    /// doorbell or its operator comes. The lock is held over decision and append.
    presence: Arc<RwLock<Presence>>,
}

/// Whether a device is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Plugged,
    Unplugged,
}

/// A record before its decision.
pub(crate) struct Draft {
    pub(crate) device: DeviceIndex,
    pub(crate) origin: Origin,
    pub(crate) input: Input,
    pub(crate) outcomes: Vec<HostOutcome>,
    pub(crate) answers: Answers,
}

impl Draft {
    /// An input that needs neither host work nor other actors.
    pub(crate) fn alone(device: DeviceIndex, origin: Origin, input: Input) -> Self {
        Self { device, origin, input, outcomes: Vec::new(), answers: Answers::default() }
    }
}

impl Recorder {
    pub(crate) fn new(journal: Journal, fatal: FatalFlag) -> Self {
        Self { journal, fatal, presence: Arc::new(RwLock::new(Presence::Plugged)) }
    }

    /// The same for the actors of a device of its own.
    #[must_use]
    pub(crate) fn of_device(&self) -> Self {
        Self::new(self.journal.clone(), self.fatal.clone())
    }

    /// Decides and appends. Awaits nothing; what the decision causes must wait for the returned sequence.
    pub(crate) fn record(
        &self,
        draft: Draft,
        decide: impl FnOnce(Stamp, &Answers) -> Decision,
    ) -> Result<(Stamp, Decision), Stopped> {
        let presence = self.presence.read().unwrap_or_else(PoisonError::into_inner);
        if *presence == Presence::Unplugged {
            return Err(Stopped);
        }
        self.append(draft, decide)
    }

    /// Decides and appends what may be the last record of the device: it is, if it has facts.
    pub(crate) fn record_unplug(
        &self,
        draft: Draft,
        decide: impl FnOnce(Stamp, &Answers) -> Decision,
    ) -> Result<(Stamp, Decision), Stopped> {
        let mut presence = self.presence.write().unwrap_or_else(PoisonError::into_inner);
        if *presence == Presence::Unplugged {
            return Err(Stopped);
        }
        let recorded = self.append(draft, decide)?;
        if !recorded.1.facts.is_empty() {
            *presence = Presence::Unplugged;
        }
        Ok(recorded)
    }

    fn append(
        &self,
        draft: Draft,
        decide: impl FnOnce(Stamp, &Answers) -> Decision,
    ) -> Result<(Stamp, Decision), Stopped> {
        let Draft { device, origin, input, outcomes, answers } = draft;
        let appended = self.journal.append(|stamp| {
            let decided = catch(|| decide(stamp, &answers));
            let (facts, reply, outcome) = match decided {
                Ok(Decision { facts, reply }) => (facts, RecordedReply::of(&reply), Ok(reply)),
                Err(message) => (Vec::new(), RecordedReply::Panicked(message.clone()), Err(message)),
            };
            let operation = stamp.seq;
            let record = Record { stamp, device, operation, origin, input, outcomes, answers, facts, reply };
            (record.to_bytes(), outcome.map(|reply| Decision { facts: record.facts, reply }))
        });
        match appended {
            Ok((stamp, Ok(decision))) => Ok((stamp, decision)),
            Ok((stamp, Err(message))) => Err(self.panicked_at(stamp.seq, message)),
            Err(closed) => {
                Err(self.fatal.raise(Fatal::Journal { last_durable: closed.last_durable, reason: closed.to_string() }))
            }
        }
    }

    /// Runs a pure step before the decision; its panic is recorded as the decision's would be.
    pub(crate) fn before<T>(&self, draft: impl FnOnce() -> Draft, step: impl FnOnce() -> T) -> Result<T, Stopped> {
        catch(step).map_err(|message| {
            let panic_again = |_: Stamp, _: &Answers| -> Decision { std::panic::panic_any(message.clone()) };
            match self.record(draft(), panic_again) {
                Err(stopped) => stopped,
                Ok(_) => Stopped,
            }
        })
    }

    /// An actor that should answer is gone: that ends the VM, unless its device was unplugged.
    pub(crate) fn actor_gone(&self, actor: &'static str) -> Stopped {
        let presence = *self.presence.read().unwrap_or_else(PoisonError::into_inner);
        if presence == Presence::Unplugged {
            return Stopped;
        }
        self.fatal.raise(Fatal::ActorGone { actor })
    }

    /// What is mapped is not what the state says, and cannot be made so.
    pub(crate) fn cannot_undo(&self, reason: String) -> Stopped {
        self.fatal.raise(Fatal::Mapping { reason })
    }

    fn panicked_at(&self, seq: Seq, message: String) -> Stopped {
        // The record is the best bug report there is: it must not be lost with the process. Where it cannot be kept,
        // the journal has raised its own alarm.
        self.journal.flush().ok();
        self.fatal.raise(Fatal::Panicked { seq, message })
    }
}

/// The command reply of a decision on a command.
pub(crate) fn command_reply(reply: Reply) -> device::operation::CommandReply {
    match reply {
        Reply::Command(reply) => reply,
        // A command is decided with a command's reply; anything else would be a hole in `decide`.
        other => unreachable!("a command was decided with {other:?}"),
    }
}

fn catch<T>(step: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(step)).map_err(|panic| panic_message(&*panic))
}

#[cfg(test)]
mod tests {
    use device::extents;
    use journal::Options;
    use journal::memory_store::MemoryDisk;
    use tokio::sync::watch;

    use super::*;
    use crate::outbox::Outbox;

    fn draft() -> Draft {
        Draft::alone(DeviceIndex(0), Origin::Operator, Input::Extents(extents::Input::Reset))
    }

    /// The input of a panic and its message are the best bug report there is.
    #[test]
    fn a_panic_is_a_record_with_its_input_and_stops_the_vm() {
        let disk = MemoryDisk::default();
        let journal = Journal::create_on(disk.store(), b"genesis", Options::default()).expect("a journal");
        let raised = Arc::new(watch::Sender::new(None));
        let fatal = FatalFlag::new(Arc::clone(&raised), Outbox::default());
        let recorder = Recorder::new(journal.clone(), fatal.clone());
        let stopped = recorder.record(draft(), |_, _| panic!("an invariant of the test"));
        assert!(stopped.is_err());
        let message = String::from("an invariant of the test");
        assert_eq!(*raised.borrow(), Some(Fatal::Panicked { seq: Seq(1), message: message.clone() }));
        let before = recorder.before(draft, || panic!("before the decision"));
        assert_eq!(before, Err(Stopped));
        drop((recorder, journal));

        // Durable without anybody's flush: what a crash leaves has both.
        let (_, recovered) = Journal::open_on(disk.crash_image(0).store(), Options::default()).expect("a journal");
        let records = recovered.records.iter().map(|stored| Record::from_bytes(&stored.body).expect("a record"));
        let replies: Vec<_> = records.map(|record| (record.input, record.reply)).collect();
        let input = draft().input;
        let second = RecordedReply::Panicked("before the decision".into());
        assert_eq!(replies, [(input.clone(), RecordedReply::Panicked(message)), (input, second)]);
    }
}
