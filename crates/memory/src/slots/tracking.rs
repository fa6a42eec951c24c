//! Which pages guests write through slots, put beside what this process writes itself ([`HostMemory::take_dirty`]).
//!
//! ```text
//!              track                              collect_dirty: log ─▶ its memory's pages, the log begins anew
//!  no log ──────────────▶ log of every slot  ──┤
//!         ◀──────────────  that is written      clear, while it is still: log ─▶ its memory's pages
//!             untrack                           clear otherwise: all pages of the slot
//! ```
//!
//! *No written page is lost*: what a guest has written through a slot into a tracked memory is marked, by a log or as one of
//! all pages of the slot, when [`Slots::collect_dirty`] returns that began after the store, and when the slot is gone.
//! Where there is no log, or the hypervisor does not give it, all pages of the slot are marked: dirtier than it is, never
//! cleaner.
//!
//! *Clearing a slot loses its log*, with whatever was written since it was last taken, and no slot can be made one that
//! is only read before: so taking the log and then clearing it would lose what a processor wrote in between. All pages of
//! the slot are marked then, which is right and dear: the next one who asks copies them all. It is exact inside
//! [`Slots::still`], where the caller sees to it that no processor runs. Deliberately absent: who stops the processors.

use std::io;
use std::sync::Arc;

use crate::host_memory::HostMemory;

use super::hypervisor::{SlotAccess, SlotLog, SlotRegion};
use super::table::{Filled, Slots};

impl Slots {
    /// Begins the logs of all slots that guests can write to, now and from now on, and tracks their memories
    /// ([`HostMemory::track`]). Memory in no slot is not touched: who wants it tracked does that.
    ///
    /// # Errors
    ///
    /// What the hypervisor said of the first slot that gets no log: all of its pages count as written whenever they are
    /// collected. All others have theirs.
    pub fn track(&self) -> io::Result<()> {
        self.switch(SlotLog::On)
    }

    /// Ends the logs. Memories stay tracked; from now on all pages of a slot count as written whenever they are collected.
    ///
    /// # Errors
    ///
    /// What the hypervisor said of the first slot that keeps its log, which is still collected.
    pub fn untrack(&self) -> io::Result<()> {
        self.switch(SlotLog::Off)
    }

    /// Marks in their memories the pages that were written through slots. Stores that come while this works may be marked
    /// now, or by the next one.
    ///
    /// # Errors
    ///
    /// What the hypervisor said of the first log that cannot be had. Nothing is lost: all pages of such a slot are marked.
    pub fn collect_dirty(&self) -> io::Result<()> {
        let table = self.table();
        // Each of them, whatever became of those before.
        table.filled.values().map(|filled| self.collect(filled)).fold(Ok(()), io::Result::and)
    }

    /// Whether logs have begun.
    pub fn is_tracking(&self) -> bool {
        self.table().log == SlotLog::On
    }

    /// Does something while the caller sees to it that no processor runs guest code, from before to after: what is written
    /// through slots that are cleared meanwhile, by whomever, is known exactly.
    pub fn still<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Still<'a>(&'a Slots);
        impl Drop for Still<'_> {
            fn drop(&mut self) {
                self.0.table().still -= 1;
            }
        }
        self.table().still += 1;
        let _still = Still(self);
        work()
    }

    /// As [`Slots::still`], for good: the caller has seen to it that no processor ever runs guest code again. Until its slots are
    /// cleared, what was written through them is for [`Slots::collect_dirty`] to tell.
    pub fn still_for_good(&self) {
        self.table().still += 1;
    }

    /// Clears a slot, and marks what was written through it.
    pub(super) fn clear_filled(&self, filled: &Filled, is_still: bool) -> io::Result<()> {
        let is_collected = is_still && self.collect(filled).is_ok();
        self.hypervisor.clear_slot(filled.number)?;
        // After it: until then a processor may have stored.
        if !is_collected {
            filled.mark_all();
        }
        Ok(())
    }

    fn switch(&self, log: SlotLog) -> io::Result<()> {
        let mut table = self.table();
        table.log = log;
        let filled = table.filled.values_mut();
        filled.map(|filled| self.switch_one(filled, log)).fold(Ok(()), io::Result::and)
    }

    fn switch_one(&self, filled: &mut Filled, log: SlotLog) -> io::Result<()> {
        let log = begun(log, &filled.memory, filled.region);
        if filled.log == log {
            return Ok(());
        }
        // SAFETY: the table keeps the region that it has filled the slot with.
        unsafe { self.hypervisor.set_log(filled.number, filled.region, log) }?;
        filled.log = log;
        // What was written before the log began, or since it was last taken.
        filled.mark_all();
        Ok(())
    }

    fn collect(&self, filled: &Filled) -> io::Result<()> {
        let Filled { number, region, ref memory, offset_bytes, log } = *filled;
        if log == SlotLog::Off {
            filled.mark_all();
            return Ok(());
        }
        // SAFETY: the slot is filled with this region as long as the table has it, and the table is locked.
        let taken = unsafe { self.hypervisor.dirty_log(number, region.len_bytes) };
        match &taken {
            Ok(log) => memory.mark_log(offset_bytes, log, self.page_bytes),
            Err(_) => filled.mark_all(),
        }
        taken.map(drop)
    }
}

impl Filled {
    fn mark_all(&self) {
        if self.region.access == SlotAccess::ReadWrite {
            self.memory.mark_dirty(self.offset_bytes, self.region.len_bytes);
        }
    }
}

/// The log of a slot that is filled, or filled already: none where nobody writes. Its memory is tracked before it begins.
pub(super) fn begun(log: SlotLog, memory: &Arc<HostMemory>, region: SlotRegion) -> SlotLog {
    match (log, region.access) {
        (SlotLog::On, SlotAccess::ReadWrite) => {
            memory.track();
            SlotLog::On
        }
        (SlotLog::Off, _) | (_, SlotAccess::ReadOnly) => SlotLog::Off,
    }
}
