//! The keeper: the one thread that makes records durable, and the desk at which handles leave them for it.
//!
//! ```text
//! handle ── lock, append ─▶ desk: gathered ── take all ─▶ keeper: frames, parts, write, sync ─▶ desk: durable = #N
//!                           desk: failed   ◀─ the first error, final ──────────────────────┘    └─▶ on_durable(#N)
//! ```
//!
//! Of a journal that begins at a state, that comes first: no record is durable before it is. What gathers while one group is
//! being synced is the next group, so a crowd shares one sync. Between two groups it goes over to the next generation of the
//! store, when that is there. Absent on purpose: a retry (after a failed sync nobody knows what is on the disk), a delay to
//! gather more, waiting for the follower, and IO under the desk's lock.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use device::Seq;

use crate::{
    directory::Generation,
    follower::{Message, Next},
    frame::{self, BODY_LIMIT_BYTES, Chain},
    handle::{CloseReason, JournalClosed, OnDurable, OnFailed},
    keyframe::StoredKeyframe,
    part,
    portable::write_base,
    store::{Durability, Store, StoreError, panic_message},
};

/// A record that waits for the keeper.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) seq: Seq,
    pub(crate) body: Vec<u8>,
}

/// What the desk's lock guards.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) last: Seq,
    /// The last record the store has taken as durably as asked.
    pub(crate) written: Seq,
    pub(crate) gathered: Vec<Pending>,
    /// Bytes of all frames in the journal, gathered ones included.
    pub(crate) frame_bytes: u64,
    /// Why no more is appended.
    pub(crate) closed: Option<CloseReason>,
    /// Nothing becomes durable any more.
    failed: bool,
    /// The keeper ends once nothing has gathered.
    ending: bool,
    keeper_waits: bool,
    flushers: usize,
    /// The state at which the journal begins is not on its disk yet.
    is_base_due: bool,
}

/// Where handles and the keeper meet.
pub(crate) struct Desk {
    ledger: Mutex<Ledger>,
    gathered: Condvar,
    settled: Condvar,
    last: AtomicU64,
    durable: AtomicU64,
    /// `None` for a journal without a store, which forgets what it is given.
    pub(crate) keeps: bool,
    pub(crate) durability: Durability,
    pub(crate) limit_bytes: Option<u64>,
    pub(crate) on_durable: OnDurable,
}

impl Desk {
    pub(crate) fn new(keeps: bool, last: Seq, frame_bytes: u64, options: DeskOptions) -> Desk {
        let DeskOptions { durability, limit_bytes, on_durable, is_base_due } = options;
        let ledger = Ledger {
            last,
            written: last,
            gathered: Vec::new(),
            frame_bytes,
            closed: None,
            failed: false,
            ending: false,
            keeper_waits: false,
            flushers: 0,
            is_base_due,
        };
        Desk {
            ledger: Mutex::new(ledger),
            gathered: Condvar::new(),
            settled: Condvar::new(),
            last: AtomicU64::new(last.0),
            durable: AtomicU64::new(last.0),
            keeps,
            durability,
            limit_bytes,
            on_durable,
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // A decision that panics under the lock has changed nothing here: the ledger is written after it returned.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn last(&self) -> Seq {
        Seq(self.last.load(Ordering::Acquire))
    }

    pub(crate) fn durable(&self) -> Seq {
        Seq(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn closed(&self, ledger: &Ledger) -> JournalClosed {
        let reason = ledger.closed.clone().unwrap_or(CloseReason::Asked);
        JournalClosed { last_durable: ledger.written, reason }
    }

    /// Takes in a record of which the ledger has said that it comes next, and returns whether the keeper must be woken.
    pub(crate) fn take_in(&self, ledger: &mut Ledger, pending: Pending) -> bool {
        let seq = pending.seq;
        ledger.last = seq;
        ledger.frame_bytes = ledger.frame_bytes.saturating_add(frame_len_bytes(&pending.body));
        if self.keeps {
            ledger.gathered.push(pending);
        } else {
            ledger.written = seq;
        }
        self.last.store(seq.0, Ordering::Release);
        if self.durability == Durability::None {
            self.durable.store(seq.0, Ordering::Release);
        }
        self.keeps && std::mem::take(&mut ledger.keeper_waits)
    }

    pub(crate) fn wake_keeper(&self) {
        self.gathered.notify_one();
    }

    /// Blocks until everything appended before the call is written as durably as asked, or never will be.
    pub(crate) fn flush(&self) -> Result<Seq, JournalClosed> {
        let mut ledger = self.ledger();
        let target = ledger.last;
        while ledger.is_base_due || ledger.written < target {
            if ledger.failed {
                return Err(self.closed(&ledger));
            }
            ledger.flushers += 1;
            ledger = self.settled.wait(ledger).unwrap_or_else(PoisonError::into_inner);
            ledger.flushers -= 1;
        }
        Ok(target)
    }

    /// Frames of so many bytes are gone from the journal's beginning.
    pub(crate) fn forget(&self, frame_bytes: u64) {
        let mut ledger = self.ledger();
        ledger.frame_bytes = ledger.frame_bytes.saturating_sub(frame_bytes);
    }

    /// Refuses what is appended from now on.
    pub(crate) fn refuse(&self, reason: CloseReason) {
        self.ledger().closed.get_or_insert(reason);
    }

    /// Lets the keeper end when it has written what has gathered.
    pub(crate) fn end(&self) {
        let mut ledger = self.ledger();
        ledger.closed.get_or_insert(CloseReason::Asked);
        ledger.ending = true;
        drop(ledger);
        self.gathered.notify_all();
    }

    /// Exchanges the empty `records` for those that have gathered, waiting for one; `false` when there will be none.
    fn gather(&self, records: &mut Vec<Pending>) -> bool {
        let mut ledger = self.ledger();
        while ledger.gathered.is_empty() {
            if ledger.ending {
                return false;
            }
            ledger.keeper_waits = true;
            ledger = self.gathered.wait(ledger).unwrap_or_else(PoisonError::into_inner);
        }
        ledger.keeper_waits = false;
        std::mem::swap(&mut ledger.gathered, records);
        true
    }

    fn settle(&self, last: Seq) {
        let mut ledger = self.ledger();
        ledger.written = last;
        let awaited = ledger.flushers > 0;
        if self.durability != Durability::None {
            self.durable.store(last.0, Ordering::Release);
        }
        drop(ledger);
        if awaited {
            self.settled.notify_all();
        }
        if self.durability != Durability::None {
            (self.on_durable)(last);
        }
    }

    fn base_is_written(&self) {
        self.ledger().is_base_due = false;
        self.settled.notify_all();
    }

    /// Makes an error final, and returns the last record that is written.
    fn fail(&self, error: &Arc<StoreError>) -> Seq {
        let mut ledger = self.ledger();
        ledger.failed = true;
        ledger.closed = Some(CloseReason::Store(Arc::clone(error)));
        ledger.gathered = Vec::new();
        let written = ledger.written;
        drop(ledger);
        self.settled.notify_all();
        written
    }
}

/// What of the options the desk needs.
pub(crate) struct DeskOptions {
    pub(crate) durability: Durability,
    pub(crate) limit_bytes: Option<u64>,
    pub(crate) on_durable: OnDurable,
    pub(crate) is_base_due: bool,
}

/// The state at which a journal begins, on its way to the disk.
pub(crate) struct BaseFile {
    pub(crate) path: PathBuf,
    pub(crate) keyframe: StoredKeyframe,
}

fn frame_len_bytes(body: &[u8]) -> u64 {
    (frame::HEADER_LEN_BYTES + body.len()) as u64
}

/// Whether a body fits into a frame; if not, the reason for which the journal closes.
pub(crate) fn check_body(seq: Seq, body: &[u8]) -> Result<(), CloseReason> {
    if body.len() <= BODY_LIMIT_BYTES {
        return Ok(());
    }
    Err(CloseReason::BodyTooLong { seq, len_bytes: body.len() as u64, limit_bytes: BODY_LIMIT_BYTES as u64 })
}

/// The thread's own state.
pub(crate) struct Keeper {
    pub(crate) desk: Arc<Desk>,
    pub(crate) store: Box<dyn Store>,
    pub(crate) chain: Chain,
    pub(crate) record_version: u16,
    pub(crate) on_failed: OnFailed,
    pub(crate) generations: Option<Generations>,
    /// What has to be on the disk before the first record.
    pub(crate) base: Option<BaseFile>,
}

/// The store as one of a row, and the way to the follower, who seals those that are full.
pub(crate) struct Generations {
    pub(crate) current: Generation,
    pub(crate) follower: mpsc::Sender<Message>,
    pub(crate) nexts: mpsc::Receiver<Next>,
    /// Bytes of frames in the current one.
    pub(crate) bytes: u64,
    /// Bytes of frames that make it full.
    pub(crate) seal_bytes: u64,
    pub(crate) is_next_asked: bool,
}

impl Generations {
    /// Leaves a durable group with the follower, and exchanges `store` for the next one when it is full. A follower that
    /// has ended keeps nothing from being written.
    fn kept(&mut self, store: &mut Box<dyn Store>, group: Vec<u8>) {
        self.bytes += group.len() as u64;
        self.follower.send(Message::Frames(group)).ok();
        if !self.is_next_asked && self.bytes >= self.seal_bytes / 2 {
            self.is_next_asked = true;
            self.follower.send(Message::Prepare).ok();
        }
        if self.bytes >= self.seal_bytes
            && let Ok((next, generation)) = self.nexts.try_recv()
        {
            let full = mem::replace(store, next);
            self.follower.send(Message::Full(Some(full), self.current)).ok();
            (self.current, self.bytes, self.is_next_asked) = (generation, 0, false);
        }
    }
}

impl Keeper {
    /// Keeps records until the desk says that there will be no more, or until the first failure.
    pub(crate) fn run(mut self) {
        let mut records = Vec::new();
        if let Some(base) = self.base.take()
            && let Err(error) = self.guarded("write the state at which it begins", |keeper| keeper.begin(&base))
        {
            self.fail(error);
            return;
        }
        while self.desk.gather(&mut records) {
            if let Err(error) = self.guarded("keep records", |keeper| keeper.keep(&records)) {
                self.fail(error);
                return;
            }
            records.clear();
        }
    }

    fn guarded(
        &mut self,
        doing: &'static str,
        work: impl FnOnce(&mut Self) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|panic| {
            let message = panic_message(&*panic);
            Err(StoreError::Panicked { doing, place: self.store.place(), message })
        })
    }

    fn begin(&mut self, BaseFile { path, keyframe }: &BaseFile) -> Result<(), StoreError> {
        write_base(path, keyframe)?;
        self.desk.base_is_written();
        Ok(())
    }

    /// Makes one group durable and says so.
    fn keep(&mut self, records: &[Pending]) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let group_bytes: u64 = records.iter().map(|record| frame_len_bytes(&record.body)).sum();
        let mut group = Vec::with_capacity(usize::try_from(group_bytes).unwrap_or_default());
        for Pending { seq, body } in records {
            self.chain = frame::encode(&mut group, self.chain, *seq, self.record_version, body)?;
        }
        self.store.write(&part::cut(first.seq, &group))?;
        self.store.sync(self.desk.durability)?;
        // Before anybody is told that it is durable: whoever then asks the follower finds it there.
        if let Some(generations) = &mut self.generations {
            generations.kept(&mut self.store, group);
        }
        self.desk.settle(last.seq);
        Ok(())
    }

    fn fail(&self, error: StoreError) {
        let error = Arc::new(error);
        let written = self.desk.fail(&error);
        tracing::error!(last_durable = %written, "the journal has failed: {error}");
        (self.on_failed)(&error, written);
    }
}
