//! The actor ExtentManager: offers, extents, tags and the DC event log, one per device; the coordinator of every
//! operation that spans actors.

use std::sync::Arc;

use device::config::{DeviceConfig, DeviceIndex};
use device::extents::{self, Input, Notice, Plan};
use device::operation::{Answers, Decision, Fact, Input as AnyInput, Reply};
use device::{Refusal, Seq, Stamp, mailbox};
use journal::record::Origin;
use kameo::Actor;
use kameo::actor::ActorRef;
use kameo::message::{Context, Message};
use platform::Face;
use tokio::sync::oneshot;
use wire::EventLog;
use wire::registers::EventStatus;

use crate::backend_registry::{BackendRegistry, BackendTicket, PrepareBackends};
use crate::effect::{Effect, NoticeListener};
use crate::fatal::Stopped;
use crate::mailbox::{Mailbox, RaiseInterrupt};
use crate::outbox::Outbox;
use crate::read::Read;
use crate::recorder::{Draft, Recorder};
use crate::window_mapper::{PrepareWindows, WindowMapper, WindowTicket};

/// The extent manager's state and those whom it asks and tells.
#[derive(Actor)]
pub(crate) struct ExtentManager {
    pub(crate) device: DeviceIndex,
    pub(crate) config: Arc<DeviceConfig>,
    pub(crate) recorder: Recorder,
    pub(crate) outbox: Outbox,
    pub(crate) face: Arc<Face>,
    pub(crate) listener: NoticeListener,
    pub(crate) registry: ActorRef<BackendRegistry>,
    pub(crate) mapper: ActorRef<WindowMapper>,
    pub(crate) mailbox: ActorRef<Mailbox>,
    pub(crate) state: extents::State,
    /// The record of the last fact: what was said since waits for it, and for nothing younger.
    pub(crate) last_fact: Seq,
}

/// An operator's request.
pub(crate) struct Request {
    pub(crate) input: Input,
    pub(crate) answer: oneshot::Sender<Result<Seq, Refusal>>,
}

/// An input that comes by the mailbox: a command of the host, or a reset.
pub(crate) struct Operate {
    pub(crate) origin: Origin,
    pub(crate) input: Input,
}

/// What became of [`Operate`].
#[derive(kameo::Reply)]
pub(crate) struct Operated {
    pub(crate) stamp: Stamp,
    /// The record of the last fact: the reply leaves when that is durable.
    pub(crate) after: Seq,
    pub(crate) reply: Reply,
    /// The facts that are the mailbox's.
    pub(crate) mailbox_facts: Vec<mailbox::Fact>,
}

/// The tickets of those who prepared; dropped, they undo.
#[derive(Default)]
struct Tickets {
    backends: Option<BackendTicket>,
    windows: Option<WindowTicket>,
}

impl Message<Request> for ExtentManager {
    type Reply = ();

    async fn handle(&mut self, message: Request, _: &mut Context<Self, ()>) {
        let Ok(operated) = self.operate(Origin::Operator, message.input).await else { return };
        let seq = operated.stamp.seq;
        let reply = match operated.reply {
            Reply::Refused(refusal) => Err(refusal),
            _ => Ok(seq),
        };
        self.outbox.push(operated.after, Effect::answer(message.answer, reply));
    }
}

impl Message<Operate> for ExtentManager {
    type Reply = Result<Operated, Stopped>;

    async fn handle(&mut self, message: Operate, _: &mut Context<Self, Self::Reply>) -> Self::Reply {
        self.operate(message.origin, message.input).await
    }
}

impl<T: Send + 'static> Message<Read<extents::State, T>> for ExtentManager {
    type Reply = ();

    async fn handle(&mut self, message: Read<extents::State, T>, _: &mut Context<Self, ()>) {
        let seen = (message.question)(&self.state);
        self.outbox.push(self.last_fact, Effect::answer(message.answer, seen));
    }
}

impl ExtentManager {
    /// The one path of an operation: plan, prepare, decide and append, commit, push what leaves.
    async fn operate(&mut self, origin: Origin, input: Input) -> Result<Operated, Stopped> {
        let draft = |input| Draft::alone(self.device, origin, AnyInput::Extents(input));
        let plan = self.recorder.before(|| draft(input.clone()), || self.state.plan(&self.config, &input))?;
        let (answers, tickets) = self.prepare(&plan).await?;
        let draft = Draft { answers, ..draft(input) };
        let is_unplug = matches!(draft.input, AnyInput::Extents(Input::Unplug { .. }));
        let decide = |stamp: Stamp, answers: &Answers| self.state.decide(stamp, plan, answers);
        let (stamp, decision) =
            if is_unplug { self.recorder.record_unplug(draft, decide) } else { self.recorder.record(draft, decide) }?;
        if !decision.facts.is_empty() {
            self.last_fact = stamp.seq;
        }
        Ok(self.commit(stamp, decision, tickets))
    }

    async fn prepare(&self, plan: &Plan) -> Result<(Answers, Tickets), Stopped> {
        let (mut answers, mut tickets) = (Answers::default(), Tickets::default());
        if let Some(prepare) = plan.steps.backends.clone() {
            let asked = self.registry.ask(PrepareBackends { device: self.device, prepare }).await;
            let ticket = asked.map_err(|_| self.recorder.actor_gone("BackendRegistry"))?;
            answers.backends = Some(ticket.answer.clone());
            tickets.backends = Some(ticket);
        }
        if answers.refusal().is_none()
            && let Some(prepare) = plan.steps.windows.clone()
        {
            let memories = tickets.backends.as_ref().map(|ticket| ticket.memories.clone()).unwrap_or_default();
            let asked = self.mapper.ask(PrepareWindows { prepare, memories }).await;
            let ticket = asked.map_err(|_| self.recorder.actor_gone("WindowMapper"))?;
            answers.windows = Some(ticket.answer.clone());
            tickets.windows = Some(ticket);
        }
        Ok((answers, tickets))
    }

    /// Hands the record's facts to those whom they name. A decision without another actor's facts drops its tickets.
    fn commit(&mut self, stamp: Stamp, decision: Decision, tickets: Tickets) -> Operated {
        let (mut own, mut mailbox_facts, mut backends, mut windows) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for fact in decision.facts {
            match fact {
                Fact::Extents(fact) => own.push(fact),
                Fact::Mailbox(fact) => mailbox_facts.push(fact),
                Fact::Backends(fact) => backends.push(fact),
                Fact::Windows(fact) => windows.push(fact),
            }
        }
        // A participant that is gone has raised the alarm itself; its commit has nowhere to go.
        if let Some(ticket) = tickets.backends.filter(|_| !backends.is_empty()) {
            drop(ticket.commit.send((stamp, backends)));
        }
        if let Some(ticket) = tickets.windows.filter(|_| !windows.is_empty()) {
            drop(ticket.commit.send((stamp, windows)));
        }
        let was_empty = self.state.log().is_empty();
        for fact in &own {
            self.state.evolve(stamp, fact);
        }
        self.tell(stamp, was_empty, &own);
        Operated { stamp, after: self.last_fact, reply: decision.reply, mailbox_facts }
    }

    /// What leaves because of facts: the event status bit, an interrupt, notices.
    fn tell(&self, stamp: Stamp, was_empty: bool, facts: &[extents::Fact]) {
        let is_empty = self.state.log().is_empty();
        if was_empty != is_empty {
            let bits = u64::from(EventStatus::new().with_dynamic_capacity(!is_empty));
            self.outbox.push(stamp.seq, Effect::EventStatus { face: Arc::clone(&self.face), bits });
        }
        if was_empty && !is_empty {
            let raise = RaiseInterrupt { log: EventLog::DynamicCapacity, after: stamp.seq };
            if self.mailbox.tell(raise).try_send().is_err() {
                self.recorder.actor_gone("Mailbox");
            }
        }
        for notice in facts.iter().flat_map(|fact| Notice::of(&self.config, stamp.seq, fact)) {
            let listener = Arc::clone(&self.listener);
            self.outbox.push(stamp.seq, Effect::Notice { device: Arc::clone(&self.config), notice, listener });
        }
    }
}
