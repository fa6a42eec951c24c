//! The actor BackendRegistry: host memory by id and by tag, one per VM.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::backends::{self, Fact, Input, Prepare, Prepared};
use device::config::{DeviceIndex, VmConfig};
use device::operation::{Fact as AnyFact, HostOutcome, Input as AnyInput, Reply, backends_decision};
use device::{Refusal, Seq, Stamp};
use journal::record::Origin;
use kameo::Actor;
use kameo::message::{Context, Message};
use kameo::reply::DelegatedReply;
use memory::HostMemory;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::effect::Effect;
use crate::outbox::Outbox;
use crate::read::Read;
use crate::recorder::{Draft, Recorder};

/// The registry's state and the memory that it stands for.
#[derive(Actor)]
pub(crate) struct BackendRegistry {
    pub(crate) config: Arc<VmConfig>,
    pub(crate) recorder: Recorder,
    pub(crate) outbox: Outbox,
    pub(crate) state: backends::State,
    pub(crate) memories: BTreeMap<String, Arc<HostMemory>>,
    /// The record of the last fact: what was said since waits for it, and for nothing younger.
    pub(crate) last_fact: Seq,
}

/// The registry's own input. The asking edge has done the host work.
pub(crate) struct Register {
    pub(crate) origin: Origin,
    /// The root port of a device that is plugged; the first for what is the VM's.
    pub(crate) device: DeviceIndex,
    pub(crate) input: Input,
    /// The memory of an `object-add`, or why there is none.
    pub(crate) memory: Option<Result<Arc<HostMemory>, String>>,
    pub(crate) answer: oneshot::Sender<Result<Seq, Refusal>>,
}

/// A coordinator's question. The registry holds still until the ticket is committed or dropped.
pub(crate) struct PrepareBackends {
    pub(crate) device: DeviceIndex,
    pub(crate) prepare: Prepare,
}

/// The answer to [`PrepareBackends`], and the right to commit it.
#[derive(kameo::Reply)]
pub(crate) struct BackendTicket {
    pub(crate) answer: Prepared,
    /// The memory of the backends that the answer names.
    pub(crate) memories: BTreeMap<String, Arc<HostMemory>>,
    pub(crate) commit: oneshot::Sender<(Stamp, Vec<Fact>)>,
}

/// Asks for the memory behind a backend.
pub(crate) struct MemoryOf {
    pub(crate) id: String,
    pub(crate) answer: oneshot::Sender<Option<Arc<HostMemory>>>,
}

/// Asks for the memory behind every backend.
pub(crate) struct Memories {
    pub(crate) answer: oneshot::Sender<BTreeMap<String, Arc<HostMemory>>>,
}

impl Message<Register> for BackendRegistry {
    type Reply = ();

    async fn handle(&mut self, message: Register, _: &mut Context<Self, ()>) {
        let Register { origin, device, input, memory, answer } = message;
        let outcome = memory.as_ref().map(|made| match made {
            Ok(_) => HostOutcome::Done,
            Err(reason) => HostOutcome::Failed(reason.clone()),
        });
        let outcomes = Vec::from_iter(outcome);
        let draft =
            Draft { outcomes: outcomes.clone(), ..Draft::alone(device, origin, AnyInput::Backends(input.clone())) };
        let decide = |_: Stamp, _: &_| backends_decision(self.state.decide(&self.config, device, &input, &outcomes));
        let Ok((stamp, decision)) = self.recorder.record(draft, decide) else { return };
        if !decision.facts.is_empty() {
            self.last_fact = stamp.seq;
        }
        let mut removed = None;
        for fact in &decision.facts {
            if let AnyFact::Backends(fact) = fact {
                if let Fact::Removed { id } = fact {
                    removed = self.memories.remove_entry(id);
                }
                self.make_true(device, stamp, fact, memory.as_ref().and_then(|made| made.as_ref().ok()));
            }
        }
        let reply = match decision.reply {
            Reply::Refused(refusal) => Err(refusal),
            _ => Ok(stamp.seq),
        };
        self.outbox.push(self.last_fact, answer_of(removed, answer, reply));
    }
}

/// The bytes go when their end is durable, not before; who asked for it hears when they are gone.
fn answer_of(
    removed: Option<(String, Arc<HostMemory>)>,
    answer: oneshot::Sender<Result<Seq, Refusal>>,
    reply: Result<Seq, Refusal>,
) -> Effect {
    match removed {
        Some((id, memory)) => {
            let answer = Box::new(move || drop(answer.send(reply)));
            Effect::Retire { id, memory, runtime: Handle::current(), answer }
        }
        None => Effect::answer(answer, reply),
    }
}

impl BackendRegistry {
    fn make_true(&mut self, device: DeviceIndex, stamp: Stamp, fact: &Fact, memory: Option<&Arc<HostMemory>>) {
        self.state.evolve(device, stamp, fact);
        if let Fact::Added { id, .. } = fact {
            self.memories.extend(memory.map(|memory| (id.clone(), Arc::clone(memory))));
        }
    }

    fn memories_of(&self, prepare: &Prepare) -> BTreeMap<String, Arc<HostMemory>> {
        match prepare {
            Prepare::Attach { id } | Prepare::Lend { id } => self
                .memories
                .get_key_value(id)
                .map(|(id, memory)| (id.clone(), Arc::clone(memory)))
                .into_iter()
                .collect(),
            Prepare::Reserve { .. } | Prepare::Free { .. } | Prepare::Unplug { .. } => BTreeMap::new(),
        }
    }
}

impl Message<PrepareBackends> for BackendRegistry {
    type Reply = DelegatedReply<BackendTicket>;

    async fn handle(&mut self, message: PrepareBackends, context: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let answer = self.state.prepare(message.device, &message.prepare);
        let memories = self.memories_of(&message.prepare);
        let (delegated, asker) = context.reply_sender();
        let (commit, committed) = oneshot::channel();
        if let Some(asker) = asker {
            asker.send(BackendTicket { answer, memories, commit });
        }
        if let Ok((stamp, facts)) = committed.await {
            self.last_fact = stamp.seq;
            facts.iter().for_each(|fact| self.make_true(message.device, stamp, fact, None));
        }
        delegated
    }
}

impl Message<MemoryOf> for BackendRegistry {
    type Reply = ();

    async fn handle(&mut self, message: MemoryOf, _: &mut Context<Self, ()>) {
        let memory = self.memories.get(&message.id).cloned();
        self.outbox.push(self.last_fact, Effect::answer(message.answer, memory));
    }
}

impl Message<Memories> for BackendRegistry {
    type Reply = ();

    async fn handle(&mut self, message: Memories, _: &mut Context<Self, ()>) {
        self.outbox.push(self.last_fact, Effect::answer(message.answer, self.memories.clone()));
    }
}

impl<T: Send + 'static> Message<Read<backends::State, T>> for BackendRegistry {
    type Reply = ();

    async fn handle(&mut self, message: Read<backends::State, T>, _: &mut Context<Self, ()>) {
        let seen = (message.question)(&self.state);
        self.outbox.push(self.last_fact, Effect::answer(message.answer, seen));
    }
}
