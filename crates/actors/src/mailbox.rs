//! The actor Mailbox: configuration space, command dispatch, interrupt policy, one per device.

use std::sync::Arc;

use device::config::{DeviceConfig, DeviceIndex};
use device::mailbox::{self, Input, Route};
use device::operation::{Fact as AnyFact, Input as AnyInput, Reply};
use device::{Seq, extents};
use journal::record::Origin;
use kameo::Actor;
use kameo::actor::ActorRef;
use kameo::message::{Context, Message};
use platform::{Face, MailboxCommandImage};
use tokio::sync::oneshot;
use wire::EventLog;

use crate::effect::Effect;
use crate::extent_manager::{ExtentManager, Operate, Operated};
use crate::fatal::Stopped;
use crate::outbox::Outbox;
use crate::read::Read;
use crate::recorder::{Draft, Recorder, command_reply};

/// The mailbox's state and the Face on which it publishes.
#[derive(Actor)]
pub(crate) struct Mailbox {
    pub(crate) device: DeviceIndex,
    pub(crate) config: Arc<DeviceConfig>,
    pub(crate) recorder: Recorder,
    pub(crate) outbox: Outbox,
    pub(crate) face: Arc<Face>,
    pub(crate) extents: ActorRef<ExtentManager>,
    pub(crate) state: mailbox::State,
    /// The record of the last fact: what was said since waits for it, and for nothing younger.
    pub(crate) last_fact: Seq,
}

/// The doorbell rang.
pub(crate) struct Doorbell(pub(crate) MailboxCommandImage);

/// A commanded register other than the doorbell was written; the Face shows it already.
pub(crate) struct RegisterWrite(pub(crate) Input);

/// A log is no longer empty.
pub(crate) struct RaiseInterrupt {
    pub(crate) log: EventLog,
    pub(crate) after: Seq,
}

/// Conventional reset of the device.
pub(crate) struct Reset {
    pub(crate) origin: Origin,
    pub(crate) answer: oneshot::Sender<Seq>,
}

impl Message<Doorbell> for Mailbox {
    type Reply = ();

    async fn handle(&mut self, Doorbell(image): Doorbell, _: &mut Context<Self, ()>) {
        let MailboxCommandImage { opcode, declared_len_bytes, payload } = image;
        let decided = match mailbox::route(&self.config, opcode, declared_len_bytes, &payload) {
            Route::Extents => {
                let input = extents::Input::Command { opcode, payload };
                self.ask_extents(Origin::Guest, input).await.map(|operated| (operated.after, operated.reply))
            }
            Route::Mailbox => self.decide(Origin::Guest, Input::Doorbell { opcode, declared_len_bytes, payload }),
        };
        let Ok((after, reply)) = decided else { return };
        let (face, reply) = (Arc::clone(&self.face), command_reply(reply));
        self.outbox.push(after, Effect::Complete { face, opcode, reply });
    }
}

impl Message<RegisterWrite> for Mailbox {
    type Reply = ();

    async fn handle(&mut self, RegisterWrite(input): RegisterWrite, _: &mut Context<Self, ()>) {
        // Stopped: the flag is up, and there is nobody to tell.
        drop(self.decide(Origin::Guest, input));
    }
}

impl Message<RaiseInterrupt> for Mailbox {
    type Reply = ();

    async fn handle(&mut self, message: RaiseInterrupt, _: &mut Context<Self, ()>) {
        if let Some(vector) = self.state.event_vector(message.log) {
            self.outbox.push(message.after, Effect::Interrupt { face: Arc::clone(&self.face), vector });
        }
    }
}

impl Message<Reset> for Mailbox {
    type Reply = ();

    async fn handle(&mut self, message: Reset, _: &mut Context<Self, ()>) {
        let Ok(operated) = self.ask_extents(message.origin, extents::Input::Reset).await else { return };
        let seq = operated.stamp.seq;
        self.last_fact = seq;
        operated.mailbox_facts.iter().for_each(|fact| self.state.evolve(fact));
        let (face, mailbox) = (Arc::clone(&self.face), Box::new(self.state.clone()));
        self.outbox.push(seq, Effect::Reset { face, mailbox });
        self.outbox.push(seq, Effect::answer(message.answer, seq));
    }
}

impl<T: Send + 'static> Message<Read<mailbox::State, T>> for Mailbox {
    type Reply = ();

    async fn handle(&mut self, message: Read<mailbox::State, T>, _: &mut Context<Self, ()>) {
        let seen = (message.question)(&self.state);
        self.outbox.push(self.last_fact, Effect::answer(message.answer, seen));
    }
}

impl Mailbox {
    async fn ask_extents(&self, origin: Origin, input: extents::Input) -> Result<Operated, Stopped> {
        // An error is either Stopped, whose flag is up, or an actor that is gone, for which it goes up now.
        self.extents.ask(Operate { origin, input }).await.map_err(|_| self.recorder.actor_gone("ExtentManager"))
    }

    /// The reply, and the record after which it may leave: that of the last fact.
    fn decide(&mut self, origin: Origin, input: Input) -> Result<(Seq, Reply), Stopped> {
        let draft = Draft::alone(self.device, origin, AnyInput::Mailbox(input.clone()));
        let (stamp, decision) = self.recorder.record(draft, |_, _| self.state.decide(&self.config, &input))?;
        if !decision.facts.is_empty() {
            self.last_fact = stamp.seq;
        }
        for fact in &decision.facts {
            if let AnyFact::Mailbox(fact) = fact {
                self.state.evolve(fact);
            }
        }
        Ok((self.last_fact, decision.reply))
    }
}
