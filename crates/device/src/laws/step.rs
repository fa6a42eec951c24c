//! Laws of a change: what must be true between the state before a record and the state after it.
//!
//! A state is large, so that it is not kept for the comparison: [`Before`] takes from it what the laws need. Deliberately
//! absent: the input. These laws say what may follow what, whoever asked.

use crate::backends;
use crate::config::DeviceIndex;
use crate::extents::{self, RejectReason, Standing};
use crate::operation::Fact;
use crate::stamp::Seq;
use crate::vm::Vm;

use super::holds;
use super::touched::{Stood, Touched};

/// What is remembered of a state while a record's facts change it.
pub struct Before<'a> {
    pub(super) device: DeviceIndex,
    pub(super) facts: &'a [Fact],
    pub(super) touched: Touched,
    pub(super) stood: Stood,
    generation: Option<u32>,
    /// Offers that the facts answer, each with an older one that the host has not answered and still could.
    out_of_order: Vec<(Seq, Seq)>,
}

impl<'a> Before<'a> {
    /// Of a state that the facts of a device's record `seq` are about to change.
    pub fn of(vm: &Vm, device: DeviceIndex, seq: Seq, facts: &'a [Fact]) -> Self {
        let state = vm.devices.get(&device).map(|device| &device.extents);
        let out_of_order = state.map_or_else(Vec::new, |state| {
            let answered = facts.iter().filter_map(answered);
            answered.filter_map(|offer| Some((offer, older_pending(state, offer)?))).collect()
        });
        let touched = Touched::of(vm, device, seq, facts);
        let stood = Stood::of(vm, device, &touched);
        Self { device, facts, touched, stood, generation: state.map(extents::State::generation), out_of_order }
    }

    /// Whether a device comes or goes.
    pub(super) fn is_plug(&self) -> bool {
        let is_plug = |fact: &Fact| {
            matches!(fact, Fact::Backends(backends::Fact::DeviceAdded { .. } | backends::Fact::DeviceRemoved))
        };
        self.facts.iter().any(is_plug)
    }

    /// The facts of the extent manager.
    pub(super) fn extents_facts(&self) -> impl Iterator<Item = &'a extents::Fact> {
        self.facts.iter().filter_map(|fact| if let Fact::Extents(fact) = fact { Some(fact) } else { None })
    }
}

/// The offer that a fact says the host has answered.
fn answered(fact: &Fact) -> Option<Seq> {
    match fact {
        Fact::Extents(
            extents::Fact::Accepted { offer, .. } | extents::Fact::Rejected { offer, reason: RejectReason::Host, .. },
        ) => Some(*offer),
        _ => None,
    }
}

fn older_pending(state: &extents::State, offer: Seq) -> Option<Seq> {
    let mut older = state.offers().iter().take_while(|other| other.id < offer);
    older.find(|other| other.standing == Standing::Pending).map(|other| other.id)
}

pub(super) fn offers_answered_in_order(before: &Before<'_>, _: &Vm) -> Result<(), String> {
    holds(before.out_of_order.is_empty(), || {
        let passed: Vec<_> =
            before.out_of_order.iter().map(|(offer, older)| format!("{offer} before {older}")).collect();
        format!("the host answered {}", passed.join(", "))
    })
}

pub(super) fn generation_moves(before: &Before<'_>, after: &Vm) -> Result<(), String> {
    let moves =
        |fact: &Fact| matches!(fact, Fact::Extents(extents::Fact::Accepted { .. } | extents::Fact::Released { .. }));
    let list_moved = before.facts.iter().any(moves);
    let generation = after.devices.get(&before.device).map(|device| device.extents.generation());
    let (Some(old), Some(new)) = (before.generation, generation) else { return Ok(()) };
    holds(list_moved == (old != new), || {
        let list = if list_moved { "changed" } else { "stayed" };
        format!("the extent list {list} and the generation went from {old} to {new}")
    })
}
