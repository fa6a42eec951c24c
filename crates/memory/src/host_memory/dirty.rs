//! Which pages may have changed since somebody last asked.
//!
//! ```text
//!  writer:  store bytes ─▶ (is it tracked?) ─▶ set the page's bit
//!  taker:   clear the bit ─▶ copy the page
//! ```
//!
//! *The bit is set after the store.* A taker that clears a bit before the store is seen may copy the old bytes; the bit
//! that follows then stays for the next one. Set before the store alone, it could be cleared, and the old bytes copied,
//! between the two, and nobody would come again. The bit is always set by an atomic read-modify-write that releases the
//! store, and cleared by one that acquires it: a writer that looked first and found the bit set could have its store wait
//! in the processor while the taker clears the bit and copies.
//!
//! *Looking whether memory is tracked is the same danger*: the load may come before the store is seen, so that a writer
//! finds nothing to mark while the tracker, which has begun meanwhile, copies the old bytes. A full barrier in every
//! write would rule that out; instead [`DirtyPages::track`] makes every thread of the process pass one. What is stored
//! before it is seen by the copies that follow; whoever stores after it finds that the memory is tracked.
//!
//! At first all pages are dirty: nothing is known of what was written before. Deliberately absent: what a guest's
//! processor stores through a slot, which only its hypervisor knows ([`crate::Slots::collect_dirty`]).

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use std::thread;
use std::time::Duration;

use rustix::thread::{MembarrierCommand, membarrier};

use super::HostMemory;
use super::data_ranges::everything;

/// What one bit stands for, whatever the host's pages are.
const PAGE_BYTES: u64 = 4096;
/// Bits of a word.
const WORD_PAGES: u64 = 64;
/// Longer than any processor keeps a store to itself, for hosts without a barrier for other threads.
const STORES_SEEN_AFTER: Duration = Duration::from_millis(1);

/// The bits of one memory: none until it is tracked.
#[derive(Default)]
pub(super) struct DirtyPages {
    words: OnceLock<Box<[AtomicU64]>>,
    /// Filled when every thread has passed a barrier since the words were there.
    passed: OnceLock<()>,
}

impl fmt::Debug for DirtyPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirtyPages").field("is_tracked", &self.words.get().is_some()).finish()
    }
}

impl DirtyPages {
    fn track(&self, len_bytes: u64) {
        self.words.get_or_init(|| {
            let pages = len_bytes.div_ceil(PAGE_BYTES);
            (0..pages.div_ceil(WORD_PAGES)).map(|word| AtomicU64::new(mask(word, 0, pages))).collect()
        });
        self.passed.get_or_init(all_threads_pass_a_barrier);
    }

    /// Sets the bits of `start..end`, which are bytes of the memory.
    fn mark(&self, start: u64, end: u64) {
        let Some(words) = self.words.get() else { return };
        if start >= end {
            return;
        }
        let (first, end) = (start / PAGE_BYTES, end.div_ceil(PAGE_BYTES));
        for word in first / WORD_PAGES..end.div_ceil(WORD_PAGES) {
            if let Some(bits) = words.get(word as usize) {
                bits.fetch_or(mask(word, first, end), Ordering::Release);
            }
        }
    }

    fn take(&self, len_bytes: u64) -> Vec<Range<u64>> {
        let Some(words) = self.words.get() else { return everything(len_bytes) };
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (word, bits) in (0..).zip(words) {
            // A bit that is set just now stays for the next one, as its store does.
            if bits.load(Ordering::Relaxed) == 0 {
                continue;
            }
            for run in runs(bits.swap(0, Ordering::Acquire)) {
                let base = word * WORD_PAGES;
                let (start, end) = ((base + run.start) * PAGE_BYTES, (base + run.end) * PAGE_BYTES);
                match ranges.last_mut() {
                    Some(last) if last.end == start => last.end = end.min(len_bytes),
                    _ => ranges.push(start..end.min(len_bytes)),
                }
            }
        }
        ranges
    }
}

impl HostMemory {
    /// From now on it is known which pages change: by a write of this process, and by [`HostMemory::mark_dirty`]. At first
    /// all of them are dirty. Once begun it lasts as long as the memory; it costs a bit for each page.
    pub fn track(&self) {
        self.dirty.track(self.len_bytes());
    }

    /// Whether [`HostMemory::track`] has begun.
    pub fn is_tracked(&self) -> bool {
        self.dirty.words.get().is_some()
    }

    /// Marks the pages that have one of these bytes, after they were changed by somebody who does not write through this
    /// memory. What is outside the memory is nothing.
    pub fn mark_dirty(&self, offset_bytes: u64, len_bytes: u64) {
        self.dirty.mark(offset_bytes, offset_bytes.saturating_add(len_bytes).min(self.len_bytes()));
    }

    /// Where pages may differ from what they were at the last call, and of which the next call will not tell again: in
    /// whole pages of 4 KiB up to the memory's end, sorted, with a gap between any two. All of the memory where it is not
    /// tracked, and at the first call since it is. Bytes that are copied after this call has returned are at least as new
    /// as what it told of.
    pub fn take_dirty(&self) -> Vec<Range<u64>> {
        self.dirty.take(self.len_bytes())
    }

    /// Marks what a write of this process has just stored. The range is inside the memory.
    #[inline]
    pub(super) fn mark_written(&self, offset_bytes: u64, len: usize) {
        // The processor's part of this barrier is in `track`.
        compiler_fence(Ordering::SeqCst);
        if self.dirty.words.get().is_some() {
            self.dirty.mark(offset_bytes, offset_bytes + len as u64);
        }
    }

    /// Marks what a log has a bit for, of which each stands for `page_bytes`: the first one at `offset_bytes`.
    pub(crate) fn mark_log(&self, offset_bytes: u64, log: &[u64], page_bytes: u64) {
        for (word, bits) in (0..).zip(log) {
            for run in runs(*bits) {
                let first = word * WORD_PAGES + run.start;
                self.mark_dirty(offset_bytes + first * page_bytes, (run.end - run.start) * page_bytes);
            }
        }
    }
}

/// The bits of a word for those of the pages `first..end` that it has.
fn mask(word: u64, first: u64, end: u64) -> u64 {
    let base = word * WORD_PAGES;
    let (from, to) = (first.saturating_sub(base).min(WORD_PAGES), end.saturating_sub(base).min(WORD_PAGES));
    let below = |bit: u64| if bit == WORD_PAGES { u64::MAX } else { (1 << bit) - 1 };
    below(to) & !below(from)
}

/// The stretches of ones in a word.
fn runs(mut bits: u64) -> impl Iterator<Item = Range<u64>> {
    std::iter::from_fn(move || {
        let start = bits.trailing_zeros();
        // None is left where this is 64.
        let ones = bits.checked_shr(start)?.trailing_ones();
        let run = u64::from(start)..u64::from(start + ones);
        bits &= !mask(0, run.start, run.end);
        Some(run)
    })
}

/// When it returns, what any thread of this process had stored before is seen, and what it loads after is up to date.
fn all_threads_pass_a_barrier() {
    let expedited = membarrier(MembarrierCommand::RegisterPrivateExpedited)
        .and_then(|()| membarrier(MembarrierCommand::PrivateExpedited));
    if expedited.or_else(|_| membarrier(MembarrierCommand::Global)).is_err() {
        thread::sleep(STORES_SEEN_AFTER);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_has_the_pages_that_are_in_its_word() {
        assert_eq!(mask(0, 0, 64), u64::MAX);
        assert_eq!(mask(0, 63, 200), 1 << 63);
        assert_eq!((mask(1, 63, 200), mask(2, 63, 200), mask(3, 63, 200)), (u64::MAX, u64::MAX, 0xff));
        assert_eq!((mask(1, 0, 64), mask(0, 64, 65), mask(0, 5, 5)), (0, 0, 0));
    }

    #[test]
    fn runs_are_the_ones_of_a_word() {
        let of = |bits| runs(bits).collect::<Vec<_>>();
        assert_eq!(of(0), []);
        assert_eq!((of(u64::MAX).len(), of(u64::MAX).pop()), (1, Some(0..64)));
        assert_eq!(of(0b1011 | 1 << 63), [0..2, 3..4, 63..64]);
    }

    #[test]
    fn a_barrier_for_all_threads_is_to_be_had_here_or_waited_for() {
        let begin = std::time::Instant::now();
        all_threads_pass_a_barrier();
        println!("it took {:?}", begin.elapsed());
        assert!(membarrier(MembarrierCommand::PrivateExpedited).is_ok() || begin.elapsed() >= STORES_SEEN_AFTER);
    }
}
