//! Laws along a fold: after each record only what its facts could have broken is looked at.
//!
//! ```text
//!  state ──▶ Before ──┐                        ┌─▶ holds
//!    │ facts          ├─▶ near: what is touched┤
//!    ▼                │                        └─▶ doubt ──▶ the whole law decides
//!  state ─────────────┘
//! ```
//!
//! The near form of a law stands on that law alone: it assumes that it held before the record, and nothing of other laws,
//! so that one that is broken for long does not blind the others. It may doubt what is right, which costs time; it must
//! not pass what is wrong. Tests hold it against the whole law on states that facts of every kind have broken, and who
//! walks a journal asks the whole law too, now and then. Deliberately absent: facts that were not admitted.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use crate::extents::{self, Extent};
use crate::operation::{Actor, Fact};
use crate::vm::{Device, Vm};
use crate::windows::Piece;

use super::{Before, Broken, Check, Law};

/// What the laws remember along a fold.
pub struct Watch {
    /// How many pieces stand on each backend: no state needs to find them so.
    pieces: BTreeMap<String, usize>,
    /// Whether the journal holds what no decision makes and no near law is made for; then all laws are asked whole.
    is_odd: bool,
    doubts: u64,
}

/// A change, seen from the state after it.
pub(super) struct Near<'a> {
    pub(super) before: &'a Before<'a>,
    pub(super) vm: &'a Vm,
    /// The record's device, where it is plugged.
    pub(super) device: Option<&'a Device>,
    watch: &'a Watch,
    extents: OnceCell<Vec<&'a Extent>>,
    pieces: OnceCell<Vec<&'a Piece>>,
}

impl Watch {
    /// From a state on.
    pub fn of(vm: &Vm) -> Self {
        let mut watch = Self { pieces: BTreeMap::new(), is_odd: false, doubts: 0 };
        watch.count(vm);
        watch
    }

    /// Checks laws after a change, all of which held before it. A change that concerns none of them may be left out.
    ///
    /// # Errors
    /// The first that is broken, as the whole law says it.
    pub fn check<'a>(
        &mut self,
        laws: impl IntoIterator<Item = &'a Law>,
        before: &Before<'_>,
        after: &Vm,
    ) -> Result<(), Broken> {
        if before.facts.is_empty() {
            return Ok(());
        }
        self.follow(before, after);
        let is_near = !self.is_odd && !before.is_plug();
        let mut doubts = 0;
        let near = Near::of(before, after, self);
        let checked = laws.into_iter().try_for_each(|law| {
            if is_near && law.holds_near(&near) {
                return Ok(());
            }
            doubts += 1;
            law.check(before, after)
        });
        self.doubts += doubts;
        checked
    }

    /// How often a whole law was asked.
    pub fn doubts(&self) -> u64 {
        self.doubts
    }

    fn follow(&mut self, before: &Before<'_>, after: &Vm) {
        if before.is_plug() {
            self.count(after);
        } else if before.facts.iter().any(|fact| fact.actor() == Actor::Windows) {
            for backend in &before.stood.pieces {
                if let Some(pieces) = self.pieces.get_mut(backend) {
                    *pieces = pieces.saturating_sub(1);
                    if *pieces == 0 {
                        self.pieces.remove(backend);
                    }
                }
            }
            let pieces = after.devices.get(&before.device).map(|device| before.touched.pieces_of(device));
            let pieces = pieces.unwrap_or_default();
            self.is_odd |= pieces.windows(2).any(|pair| pair[0].range.overlaps(pair[1].range));
            pieces.into_iter().for_each(|piece| self.add(&piece.backend));
        }
        let is_offer = |fact: &&extents::Fact| matches!(fact, extents::Fact::Offered { .. });
        self.is_odd |= before.extents_facts().filter(is_offer).count() > 1;
    }

    fn count(&mut self, vm: &Vm) {
        self.pieces.clear();
        for piece in vm.devices.values().flat_map(|device| device.windows.pieces()) {
            self.add(&piece.backend);
        }
    }

    fn add(&mut self, backend: &str) {
        match self.pieces.get_mut(backend) {
            Some(pieces) => *pieces += 1,
            None => drop(self.pieces.insert(backend.to_owned(), 1)),
        }
    }
}

impl<'a> Near<'a> {
    fn of(before: &'a Before<'a>, vm: &'a Vm, watch: &'a Watch) -> Self {
        let device = vm.devices.get(&before.device);
        Self { before, vm, device, watch, extents: OnceCell::new(), pieces: OnceCell::new() }
    }

    /// The accepted extents that are touched, by address.
    pub(super) fn extents(&self) -> &[&'a Extent] {
        let extents = || self.device.map_or_else(Vec::new, |device| self.before.touched.extents_of(device));
        self.extents.get_or_init(extents)
    }

    /// The pieces that are touched, by address.
    pub(super) fn pieces(&self) -> &[&'a Piece] {
        let pieces = || self.device.map_or_else(Vec::new, |device| self.before.touched.pieces_of(device));
        self.pieces.get_or_init(pieces)
    }

    /// Whether a piece stands on a backend.
    pub(super) fn has_pieces(&self, backend: &str) -> bool {
        self.watch.pieces.contains_key(backend)
    }

    /// Whether any fact is of a kind.
    pub(super) fn any(&self, is_of_kind: impl Fn(&Fact) -> bool) -> bool {
        self.before.facts.iter().any(is_of_kind)
    }
}

impl Law {
    /// Whether it surely holds after a change before which it held.
    fn holds_near(&self, near: &Near<'_>) -> bool {
        if !self.concerns(near.before.facts) {
            return true;
        }
        match self.check {
            Check::Device { near: holds, .. } => near.device.is_none_or(|device| holds(near, device)),
            Check::Vm { near: holds, .. } => holds(near),
            Check::Step(check) => check(near.before, near.vm).is_ok(),
        }
    }
}
