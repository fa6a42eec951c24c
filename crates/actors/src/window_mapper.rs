//! The actor WindowMapper: HDM decoders, and what is mapped where, one per device.
//!
//! Host work is done while preparing and undone if the ticket is dropped, so that a mapping is in place before the
//! doorbell clears and gone before a release is answered.

use std::collections::BTreeMap;
use std::sync::Arc;

use device::config::DeviceIndex;
use device::decode::DecodedRange;
use device::operation::{Decision, Fact as AnyFact, Input as AnyInput, Reply};
use device::windows::{self, Fact, Input, Piece, Prepare, Prepared};
use device::{DpaRange, Refusal, Seq, Stamp};
use journal::record::Origin;
use kameo::Actor;
use kameo::message::{Context, Message};
use kameo::reply::DelegatedReply;
use memory::{HostMemory, Refused, StuckSlot, Window, WindowError};
use platform::{DecoderStatus, Face};
use tokio::sync::oneshot;

use crate::effect::Effect;
use crate::outbox::Outbox;
use crate::processor::Processor;
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
    pub(crate) processor: Processor,
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
        self.map(&joined(self.state.pieces()), memories)?;
        self.decode(self.state.decoded())
    }

    fn show_decoders(&self) -> Result<(), StuckSlot> {
        self.window.set_decoders(self.device, self.state.decoded())
    }

    /// Makes the decoders decode something else. A refusal is the end of the VM.
    fn decode(&self, decoded: Vec<DecodedRange>) -> Result<(), Refusal> {
        let shown = self.window.set_decoders(self.device, decoded);
        shown.map_err(|stuck| self.refused(DpaRange::default(), WindowError::Stuck(stuck)))
    }

    /// All of them or none, as one change: neighbours share a slot.
    fn map(&self, pieces: &[Piece], memories: &BTreeMap<String, Arc<HostMemory>>) -> Result<(), Refusal> {
        let found: Result<Vec<_>, _> = pieces.iter().map(|piece| piece_of(piece, memories)).collect();
        let mapped = self.window.map_all(self.device, found?);
        let range = |index: usize| pieces.get(index).map(|piece| piece.range).unwrap_or_default();
        mapped.map_err(|Refused { index, error }| self.refused(range(index), error))
    }

    /// All of them or none.
    fn unmap(&self, ranges: &[DpaRange]) -> Result<Vec<memory::Piece>, Refusal> {
        let unmapped = self.processor.still(|| self.window.unmap_all(self.device, ranges));
        unmapped.map_err(|Refused { index, error }| self.refused(ranges.get(index).copied().unwrap_or_default(), error))
    }

    /// A guest that may still reach what was taken away must not be told that it does not: the VM stops.
    fn refused(&self, range: DpaRange, error: WindowError) -> Refusal {
        let reason = error.to_string();
        if let WindowError::Stuck(_) = error {
            self.recorder.cannot_undo(reason.clone());
        }
        Refusal::Mapping { range, reason }
    }

    fn do_host_work(&self, message: &PrepareWindows) -> Result<Undo, Refusal> {
        match &message.prepare {
            Prepare::Map(pieces) => {
                self.map(pieces, &message.memories)?;
                Ok(Undo::Unmap(pieces.iter().map(|piece| piece.range).collect()))
            }
            Prepare::Unmap(ranges) => self.unmap(ranges).map(Undo::Map),
            Prepare::Reset => self.decode(Vec::new()).map(|()| Undo::Decode),
            Prepare::Unplug => {
                let ranges: Vec<_> = self.state.pieces().map(|piece| piece.range).collect();
                let removed = self.unmap(&ranges)?;
                self.decode(Vec::new())?;
                Ok(Undo::Replug(removed))
            }
        }
    }

    fn map_again(&self, pieces: Vec<memory::Piece>) -> Result<(), String> {
        self.window.map_all(self.device, pieces).map_err(|refused| refused.to_string())
    }

    /// Host work that cannot be undone leaves a guest that sees what it must not: the VM stops.
    fn undo(&self, undo: Undo) {
        let decode_again = || self.show_decoders().map_err(|stuck| stuck.to_string());
        let undone = match undo {
            Undo::Nothing => Ok(()),
            Undo::Unmap(ranges) => self.unmap(&ranges).map(drop).map_err(|refusal| refusal.to_string()),
            Undo::Map(pieces) => self.map_again(pieces),
            Undo::Decode => decode_again(),
            Undo::Replug(pieces) => self.map_again(pieces).and(decode_again()),
        };
        if let Err(reason) = undone {
            self.recorder.cannot_undo(reason);
        }
    }
}

/// Pieces by address, one of those that go on in each other: a restore does not wait for ten thousand where ten would do. The
/// lookup cuts them again where capacity is released.
fn joined<'a>(pieces: impl Iterator<Item = &'a Piece>) -> Vec<Piece> {
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match joined.last_mut() {
            Some(last)
                if last.range.end() == piece.range.start.0
                    && last.backend == piece.backend
                    && last.offset_bytes.checked_add(last.range.len_bytes) == Some(piece.offset_bytes) =>
            {
                last.range.len_bytes += piece.range.len_bytes;
            }
            _ => joined.push(piece.clone()),
        }
    }
    joined
}

fn piece_of(piece: &Piece, memories: &BTreeMap<String, Arc<HostMemory>>) -> Result<memory::Piece, Refusal> {
    let Piece { range, backend, offset_bytes } = piece;
    let missing = || Refusal::Mapping { range: *range, reason: format!("backend {backend} is gone") };
    let memory = memories.get(backend).map(Arc::clone).ok_or_else(missing)?;
    Ok(memory::Piece { dpa: range.start, len_bytes: range.len_bytes, memory, offset_bytes: *offset_bytes })
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
            if let Err(stuck) = self.show_decoders() {
                self.recorder.cannot_undo(stuck.to_string());
                return;
            }
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
