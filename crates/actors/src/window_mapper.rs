//! The actor WindowMapper: HDM decoders, and what is mapped where, one per device.
//!
//! Host work is done while preparing and undone if the ticket is dropped, so that a mapping is in place before the
//! doorbell clears and gone before a release is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::config::DeviceIndex;
use device::operation::{Decision, Fact as AnyFact, Input as AnyInput, Reply};
use device::windows::{self, Fact, Input, Piece, Prepare, Prepared};
use device::{DpaRange, Refusal, Seq, Stamp};
use journal::record::Origin;
use kameo::Actor;
use kameo::message::{Context, Message};
use kameo::reply::DelegatedReply;
use memory::{HostMemory, Window};
use platform::{DecoderStatus, Face};
use tokio::sync::oneshot;

use crate::effect::Effect;
use crate::outbox::Outbox;
use crate::read::Read;
use crate::recorder::{Draft, Recorder};

/// The mapper's state and the lookup that it keeps equal to it.
#[derive(Actor)]
pub(crate) struct WindowMapper {
    pub(crate) device: DeviceIndex,
    pub(crate) recorder: Recorder,
    pub(crate) outbox: Outbox,
    pub(crate) face: Arc<Face>,
    pub(crate) window: Arc<Window>,
    pub(crate) state: windows::State,
    /// The record of the last fact.
    pub(crate) last_fact: Seq,
}

/// The extent manager's question. The mapper holds still until the ticket is committed or dropped.
pub(crate) struct PrepareWindows {
    pub(crate) prepare: Prepare,
    /// The memory of the backends that are to be mapped.
    pub(crate) memories: BTreeMap<String, Arc<HostMemory>>,
}

/// The answer to [`PrepareWindows`], and the right to commit it.
#[derive(kameo::Reply)]
pub(crate) struct WindowTicket {
    pub(crate) answer: Prepared,
    pub(crate) commit: oneshot::Sender<(Stamp, Vec<Fact>)>,
}

/// A commanded write to the component registers.
pub(crate) struct DecoderWrite(pub(crate) Input);

/// How prepared host work is undone.
enum Undo {
    /// There is nothing to undo.
    Nothing,
    /// Take away what was mapped.
    Unmap(Vec<DpaRange>),
    /// Put back what was taken away.
    Map(Vec<memory::Piece>),
    /// Let the decoders decode again.
    Decode,
    /// Put back all of it.
    Replug(Vec<memory::Piece>),
}

impl WindowMapper {
    /// Makes the lookup show what the state says: the last step of a start.
    pub(crate) fn reconcile(&self, memories: &BTreeMap<String, Arc<HostMemory>>) -> Result<(), Refusal> {
        let pieces: Vec<_> = self.state.pieces().cloned().collect();
        self.map(&pieces, memories)?;
        self.show_decoders();
        Ok(())
    }

    fn show_decoders(&self) {
        self.window.set_decoders(self.device, self.state.decoded());
    }

    fn map(&self, pieces: &[Piece], memories: &BTreeMap<String, Arc<HostMemory>>) -> Result<(), Refusal> {
        for (done, piece) in pieces.iter().enumerate() {
            if let Err(reason) = self.map_one(piece, memories) {
                let ranges: Vec<_> = pieces[..done].iter().map(|piece| piece.range).collect();
                return self.unmap(&ranges).and(Err(Refusal::Mapping { range: piece.range, reason }));
            }
        }
        Ok(())
    }

    fn map_one(&self, piece: &Piece, memories: &BTreeMap<String, Arc<HostMemory>>) -> Result<(), String> {
        let memory = memories.get(&piece.backend).ok_or_else(|| format!("backend {} is gone", piece.backend))?;
        let (dpa, len_bytes, memory) = (piece.range.start, piece.range.len_bytes, Arc::clone(memory));
        let piece = memory::Piece { dpa, len_bytes, memory, offset_bytes: piece.offset_bytes };
        self.window.map(self.device, piece).map_err(|error| error.to_string())
    }

    fn unmap(&self, ranges: &[DpaRange]) -> Result<Vec<memory::Piece>, Refusal> {
        let mut removed = Vec::new();
        for range in ranges {
            let unmapped = self.window.unmap(self.device, range.start, range.len_bytes);
            removed.extend(unmapped.map_err(|error| Refusal::Mapping { range: *range, reason: error.to_string() })?);
        }
        Ok(removed)
    }

    fn do_host_work(&self, message: &PrepareWindows) -> Result<Undo, Refusal> {
        match &message.prepare {
            Prepare::Map(pieces) => {
                self.map(pieces, &message.memories)?;
                Ok(Undo::Unmap(pieces.iter().map(|piece| piece.range).collect()))
            }
            Prepare::Unmap(ranges) => self.unmap(ranges).map(Undo::Map),
            Prepare::Reset => {
                self.window.set_decoders(self.device, Vec::new());
                Ok(Undo::Decode)
            }
            Prepare::Unplug => {
                let ranges: Vec<_> = self.state.pieces().map(|piece| piece.range).collect();
                let removed = self.unmap(&ranges)?;
                self.window.set_decoders(self.device, Vec::new());
                Ok(Undo::Replug(removed))
            }
        }
    }

    fn map_again(&self, pieces: Vec<memory::Piece>) -> Result<(), String> {
        let mut pieces = pieces.into_iter();
        pieces.try_for_each(|piece| self.window.map(self.device, piece).map_err(|error| error.to_string()))
    }

    /// Host work that cannot be undone leaves a guest that sees what it must not: the VM stops.
    fn undo(&self, undo: Undo) {
        let undone = match undo {
            Undo::Nothing => Ok(()),
            Undo::Unmap(ranges) => self.unmap(&ranges).map(drop).map_err(|refusal| refusal.to_string()),
            Undo::Map(pieces) => self.map_again(pieces),
            Undo::Decode => {
                self.show_decoders();
                Ok(())
            }
            Undo::Replug(pieces) => {
                let mapped = self.map_again(pieces);
                self.show_decoders();
                mapped
            }
        };
        if let Err(reason) = undone {
            self.recorder.cannot_undo(reason);
        }
    }
}

impl Message<PrepareWindows> for WindowMapper {
    type Reply = DelegatedReply<WindowTicket>;

    async fn handle(&mut self, message: PrepareWindows, context: &mut Context<Self, Self::Reply>) -> Self::Reply {
        let (undo, answer) = match self.do_host_work(&message) {
            Ok(undo) => (undo, self.state.prepare(&message.prepare)),
            Err(refusal) => (Undo::Nothing, Err(refusal)),
        };
        let (delegated, asker) = context.reply_sender();
        let (commit, committed) = oneshot::channel();
        if let Some(asker) = asker {
            asker.send(WindowTicket { answer, commit });
        }
        match committed.await {
            Ok((stamp, facts)) => {
                self.last_fact = stamp.seq;
                facts.iter().for_each(|fact| self.state.evolve(stamp, fact));
            }
            Err(_) => self.undo(undo),
        }
        delegated
    }
}

impl Message<DecoderWrite> for WindowMapper {
    type Reply = ();

    async fn handle(&mut self, DecoderWrite(input): DecoderWrite, _: &mut Context<Self, ()>) {
        let draft = Draft::alone(self.device, Origin::Guest, AnyInput::Windows(input.clone()));
        let decide = |_: Stamp, _: &_| Decision {
            facts: self.state.decide(&input).into_iter().map(AnyFact::Windows).collect(),
            reply: Reply::Done,
        };
        let Ok((stamp, decision)) = self.recorder.record(draft, decide) else { return };
        self.last_fact = stamp.seq;
        for fact in decision.facts {
            let AnyFact::Windows(fact) = fact else { continue };
            self.state.evolve(stamp, &fact);
            self.show_decoders();
            let (decoder, status) = match fact {
                Fact::DecoderCommitted { decoder, .. } => (decoder, DecoderStatus::Committed),
                Fact::DecoderFailed { decoder } => (decoder, DecoderStatus::Error),
                Fact::DecoderUncommitted { decoder } => (decoder, DecoderStatus::Uncommitted),
                _ => continue,
            };
            let face = Arc::clone(&self.face);
            self.outbox.push(stamp.seq, Effect::Decoder { face, decoder, status });
        }
    }
}

impl<T: Send + 'static> Message<Read<windows::State, T>> for WindowMapper {
    type Reply = ();

    async fn handle(&mut self, message: Read<windows::State, T>, _: &mut Context<Self, ()>) {
        let seen = (message.question)(&self.state);
        self.outbox.push(self.last_fact, Effect::answer(message.answer, seen));
    }
}
