//! What of the window is in slots: a cache of the lookup, brought in line with it after every change.
//!
//! ```text
//!  changed pages ─▶ every slot that has one of them is cleared
//!                ─▶ what the lookup shows there now, and the rest of the cleared slots, is filled again:
//!                   neighbours in one slot; what cannot be in one is trapped
//! ```
//!
//! The cost is that of what has changed, however much is mapped beside it. Deliberately absent: the lookup, which has
//! changed before, and whoever reads through it meanwhile.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use wire::Hpa;

use crate::slots::{SlotAccess, SlotError, SlotRequest, Slots, StuckSlot};

use super::shown::{Pages, Shown, joined};
use super::trapped::{TrapCount, TrapReason, Trapped, overlapping};

/// Stretches that wait for a slot and may have one after a change that has cleared none: others give slots back too.
const ROOM_MIN: usize = 16;

/// The window's slots.
#[derive(Debug)]
pub(super) struct Slotted {
    slots: Arc<Slots>,
    /// By first address, as [`Slots`] names them.
    filled: BTreeMap<Hpa, Shown>,
    bytes: u64,
    trapped: Trapped,
    /// Accesses that the lookup had served when this began.
    pub(super) served_before: u64,
}

impl Slotted {
    /// Nothing is in slots yet.
    pub(super) fn new(slots: Arc<Slots>, served_before: u64) -> Self {
        Self { slots, filled: BTreeMap::new(), bytes: 0, trapped: Trapped::default(), served_before }
    }

    /// Bytes of a page.
    pub(super) fn page_bytes(&self) -> u64 {
        self.slots.page_bytes()
    }

    /// How many slots there are, and their bytes.
    pub(super) fn filled(&self) -> (u64, u64) {
        (self.filled.len() as u64, self.bytes)
    }

    /// What is trapped.
    pub(super) fn trapped(&self) -> &BTreeMap<TrapReason, TrapCount> {
        self.trapped.counts()
    }

    /// Brings the slots in line with what the lookup shows in `changed` pages, which are sorted and disjoint.
    pub(super) fn settle(&mut self, changed: &[Range<Hpa>], shown: Vec<Shown>) -> Result<(), StuckSlot> {
        let before = self.filled.len();
        let (mut fill, stuck) = self.clear(changed);
        let room = (before - self.filled.len()).max(ROOM_MIN);
        self.trapped.cut(changed);
        fill.extend(shown);
        joined(fill).into_iter().for_each(|stretch| self.show(stretch));
        self.use_room(room);
        stuck.map_or(Ok(()), Err)
    }

    /// Clears all slots.
    pub(super) fn clear_all(&mut self) -> Result<(), StuckSlot> {
        let everything = Hpa(0)..Hpa(u64::MAX);
        self.trapped.cut(std::slice::from_ref(&everything));
        let (_, stuck) = self.clear(&[everything]);
        stuck.map_or(Ok(()), Err)
    }

    /// Clears every slot with a changed page. What else was in them comes back, and the first one that is stuck: it is
    /// still there, and so is whatever of it must not be.
    fn clear(&mut self, changed: &[Range<Hpa>]) -> (Vec<Shown>, Option<StuckSlot>) {
        let (mut rest, mut stuck) = (Vec::new(), None);
        for range in changed {
            for hpa in overlapping(&self.filled, range, Shown::end) {
                if let Err(error) = self.slots.clear(hpa) {
                    stuck.get_or_insert(error);
                    continue;
                }
                let Some(slot) = self.filled.remove(&hpa) else { continue };
                self.bytes -= slot.len_bytes;
                rest.extend(slot.outside(changed));
            }
        }
        (rest, stuck)
    }

    fn show(&mut self, stretch: Shown) {
        match stretch.pages(self.slots.page_bytes()) {
            Pages::Misaligned(stretch) => self.trapped.insert(stretch, TrapReason::Misaligned),
            Pages::Aligned { head, pages, tail } => {
                for stretch in [head, tail].into_iter().flatten() {
                    self.trapped.insert(stretch, TrapReason::UnderPage);
                }
                pages.into_iter().for_each(|pages| self.fill(pages));
            }
        }
    }

    fn fill(&mut self, pages: Shown) {
        let Shown { hpa, len_bytes, ref memory, offset_bytes } = pages;
        let memory = Arc::clone(memory);
        let request = SlotRequest { hpa, len_bytes, memory, offset_bytes, access: SlotAccess::ReadWrite };
        match self.slots.fill_spare(request) {
            Ok(()) => {
                self.bytes += len_bytes;
                self.filled.insert(hpa, pages);
            }
            Err(SlotError::Full { .. }) => self.trapped.insert(pages, TrapReason::Limit),
            Err(_) => self.trapped.insert(pages, TrapReason::Refused),
        }
    }

    /// Gives slots to what waits for them.
    fn use_room(&mut self, room: usize) {
        for _ in 0..room {
            let before = self.filled.len();
            let Some(stretch) = self.trapped.take_waiting() else { return };
            self.fill(stretch);
            if self.filled.len() == before {
                return;
            }
        }
    }
}
