//! The handle: where a decision gets its place and time, and where what follows from it learns that it is durable.
//!
//! ```text
//! open, create, begin ─▶ appending ── close, limit, too long a body ─▶ refusing (what was appended becomes durable)
//!                            └────── a failed write or sync ─────────▶ failed   (durable stands still for ever)
//! ```
//!
//! Absent on purpose: reading records back while the journal is open (sealed files and the follower's tail have them), and a
//! way from refusing or failed back to appending.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use device::{Seq, Stamp, VmTime};

use crate::{
    beginning::Beginning,
    clock::VmClock,
    directory::Directory,
    follower::{FollowerThread, Message, Row, Sealing, TailError},
    form::{Base, Keyframe},
    frame::{self, Chain},
    keeper::{BaseFile, Desk, DeskOptions, Generations, Keeper, Pending, check_body},
    opening::Opening,
    part,
    record::RECORD_VERSION,
    recover::{OpenError, Reading, Recovered, Stored},
    sled_store::SledStore,
    store::{Durability, Store, StoreError},
};

/// Told that everything up to a record is durable.
pub type OnDurable = Box<dyn Fn(Seq) + Send + Sync>;

/// Told that the store has failed, and which record is the last in it for sure.
pub type OnFailed = Box<dyn Fn(&StoreError, Seq) + Send + Sync>;

/// How a journal is kept. The callbacks must not append, flush, close or hold a [`Journal`]: they run on the keeper's thread.
pub struct Options {
    /// When a record counts as durable.
    pub durability: Durability,
    /// The version that stands before every body written from now on.
    pub record_version: u16,
    /// Bytes of frames at which the journal refuses more; `None` is no limit. The record that reaches it is still taken.
    pub limit_bytes: Option<u64>,
    /// Where the clock stands, stopped, until [`VmClock::resume`].
    pub clock: VmTime,
    /// Everything up to this record is durable now. Ascending; with [`Durability::None`] the appending thread calls it
    /// after the lock is released, and threads may overtake each other, so a lower number than before says nothing new.
    pub on_durable: OnDurable,
    /// The store has failed, and this is the last record that is in it for sure. Called once.
    pub on_failed: OnFailed,
    /// How a journal in a directory is kept short; `None` leaves all in the store.
    pub sealing: Option<Sealing>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            durability: Durability::Disk,
            record_version: RECORD_VERSION,
            limit_bytes: None,
            clock: VmTime(0),
            on_durable: Box::new(|_| ()),
            on_failed: Box::new(|_, _| ()),
            sealing: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options { durability, record_version, limit_bytes, clock, .. } = self;
        f.debug_struct("Options")
            .field("durability", durability)
            .field("record_version", record_version)
            .field("limit_bytes", limit_bytes)
            .field("clock", clock)
            .finish_non_exhaustive()
    }
}

/// Nothing more is appended.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the journal takes no more records ({last_durable} is the last durable one): {reason}")]
pub struct JournalClosed {
    /// The last record that is in the store for sure.
    pub last_durable: Seq,
    /// Why.
    pub reason: CloseReason,
}

/// Why a journal takes no more.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CloseReason {
    /// It was closed.
    #[error("it was closed")]
    Asked,
    /// It has reached its limit.
    #[error(
        "it holds {frame_bytes} bytes and {limit_bytes} is its limit: take a snapshot and go on from it, or raise the limit"
    )]
    Limit {
        /// Bytes of frames in it.
        frame_bytes: u64,
        /// The limit it was opened with.
        limit_bytes: u64,
    },
    /// A decision was made that no frame can hold, so what it changed in memory is nowhere else.
    #[error("the decision {seq} takes {len_bytes} bytes and {limit_bytes} is the limit of a record: this is a bug, start again from {}", Seq(.seq.0.saturating_sub(1)))]
    BodyTooLong {
        /// The sequence it would have had.
        seq: Seq,
        /// The length of its body.
        len_bytes: u64,
        /// The limit.
        limit_bytes: u64,
    },
    /// The store has failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
}

/// A handle to an open journal. Clones are the same journal; it is closed by [`Journal::close`] or with its last clone.
#[derive(Clone)]
pub struct Journal {
    room: Arc<Room>,
}

/// What all clones share.
struct Room {
    desk: Arc<Desk>,
    clock: VmClock,
    keeper: Mutex<Option<JoinHandle<()>>>,
    follower: Mutex<Option<FollowerHandle>>,
}

/// The follower's thread, and how it is asked.
struct FollowerHandle {
    messages: mpsc::Sender<Message>,
    thread: JoinHandle<()>,
}

/// What a journal is started with.
pub(crate) struct Start {
    pub(crate) store: Box<dyn Store>,
    /// The link of the last record.
    pub(crate) chain: Chain,
    pub(crate) last: Seq,
    /// Bytes of all frames in the journal.
    pub(crate) frame_bytes: u64,
    /// Where the store is one of a row in a directory.
    pub(crate) row: Option<Row>,
    /// The state at which it begins, where that is not on its disk yet.
    pub(crate) base: Option<BaseFile>,
}

impl Journal {
    /// Makes a journal in `dir`, and `dir` with what is missing above it, and returns when its genesis is on disk.
    pub fn create(dir: &Path, genesis: &[u8], options: Options) -> Result<Journal, OpenError> {
        Journal::create_in(Box::new(SledStore::create(dir)?), Some(dir), genesis, options)
    }

    /// Makes a journal in `dir` that begins at a state, with the record behind it as its first one, and returns when that is
    /// on disk. `genesis` is the body of a [`Genesis`](crate::record::Genesis) of the same VM, which names the parent. The
    /// clock stands at [`Options::clock`], or at the state's own time where that is later; a [`Sealing`] is at the state.
    ///
    /// # Errors
    /// If there is a journal, the state is none at which one can begin, or the disk fails.
    pub fn begin(dir: &Path, genesis: &[u8], base: Keyframe, options: Options) -> Result<Journal, OpenError> {
        Beginning::prepare(dir)?.begin(genesis, base_of(base)?, options)
    }

    /// Opens the journal in `dir` and reads it from its newest keyframe on. A torn tail is removed. A [`Sealing`] must be at
    /// the state of that keyframe: who does not know it looks at an [`Opening`] first.
    pub fn open(dir: &Path, options: Options) -> Result<(Journal, Recovered), OpenError> {
        let opening = Opening::of(dir)?;
        let recovered = opening.recovered().clone();
        Ok((opening.start(options)?, recovered))
    }

    /// Makes a journal in an empty store.
    pub fn create_on(store: Box<dyn Store>, genesis: &[u8], options: Options) -> Result<Journal, OpenError> {
        Journal::create_in(store, None, genesis, options)
    }

    fn create_in(
        mut store: Box<dyn Store>,
        dir: Option<&Path>,
        genesis: &[u8],
        options: Options,
    ) -> Result<Journal, OpenError> {
        if store.scan().next().transpose()?.is_some() {
            return Err(OpenError::Exists { place: store.place() });
        }
        let mut group = Vec::new();
        let chain = frame::encode(&mut group, Chain::default(), Seq(0), options.record_version, genesis)?;
        store.write(&part::cut(Seq(0), &group))?;
        store.sync(Durability::Disk)?;
        let genesis = Stored { seq: Seq(0), version: options.record_version, body: genesis.to_vec() };
        let frame_bytes = group.len() as u64;
        let row = dir.map(|dir| Row::new(Directory::new(dir), genesis, group));
        Journal::start(Start { store, chain, last: Seq(0), frame_bytes, row, base: None }, options)
    }

    /// Opens the journal in a store and reads it whole. A torn tail is removed.
    pub fn open_on(mut store: Box<dyn Store>, options: Options) -> Result<(Journal, Recovered), OpenError> {
        let reading = Reading::of(&*store);
        let (chain, frame_bytes, torn) = (reading.chain, reading.frame_bytes, reading.torn.clone());
        let recovered = whole(reading, &*store)?;
        if !torn.is_empty() {
            // Before anything is written: the next group begins at the same sequence and must not mix with this one.
            store.remove(&torn)?;
            store.sync(Durability::Disk)?;
            tracing::warn!(
                place = store.place(),
                parts = torn.len(),
                "a torn group behind {} was dropped",
                recovered.last
            );
        }
        let start = Start { store, chain, last: recovered.last, frame_bytes, row: None, base: None };
        Ok((Journal::start(start, options)?, recovered))
    }

    /// A journal that keeps nothing: every record behind `last` is durable at once and forgotten.
    pub fn volatile(last: Seq, options: Options) -> Journal {
        let Options { limit_bytes, clock, on_durable, .. } = options;
        let durability = Durability::None;
        let desk = Arc::new(Desk::new(
            false,
            last,
            0,
            DeskOptions { durability, limit_bytes, on_durable, is_base_due: false },
        ));
        let (keeper, follower) = (Mutex::new(None), Mutex::new(None));
        Journal { room: Arc::new(Room { desk, clock: VmClock::stopped_at(clock), keeper, follower }) }
    }

    pub(crate) fn start(start: Start, options: Options) -> Result<Journal, OpenError> {
        let Start { store, chain, last, frame_bytes, row, base } = start;
        let Options { durability, record_version, limit_bytes, clock, on_durable, on_failed, sealing } = options;
        let desk_options = DeskOptions { durability, limit_bytes, on_durable, is_base_due: base.is_some() };
        let desk = Arc::new(Desk::new(true, last, frame_bytes, desk_options));
        warn_near_limit(0, frame_bytes, limit_bytes);
        let (follower, generations) = match row.zip(sealing) {
            Some((row, sealing)) => follow(&desk, row, sealing).map(|(follower, row)| (Some(follower), Some(row)))?,
            None => (None, None),
        };
        let keeper = Keeper { desk: Arc::clone(&desk), store, chain, record_version, on_failed, generations, base };
        let keeper = spawn("journal-keeper", move || keeper.run())?;
        let (keeper, follower) = (Mutex::new(Some(keeper)), Mutex::new(follower));
        let room = Room { desk, clock: VmClock::stopped_at(clock), keeper, follower };
        Ok(Journal { room: Arc::new(room) })
    }

    /// The critical section: gives the next place and the clock's time, lets `decide` make the record's body, and leaves it
    /// for the keeper. It waits for nothing but the lock and does no IO.
    ///
    /// `decide` must not touch the journal. If it panics, nothing is appended and the next append has the same sequence.
    pub fn append<R>(&self, decide: impl FnOnce(Stamp) -> (Vec<u8>, R)) -> Result<(Stamp, R), JournalClosed> {
        let desk = &*self.room.desk;
        let mut ledger = desk.ledger();
        let held_before = ledger.frame_bytes;
        if let (None, Some(limit_bytes)) = (&ledger.closed, desk.limit_bytes)
            && held_before >= limit_bytes
        {
            ledger.closed = Some(CloseReason::Limit { frame_bytes: held_before, limit_bytes });
        }
        if ledger.closed.is_some() {
            return Err(desk.closed(&ledger));
        }
        let stamp = Stamp { seq: Seq(ledger.last.0 + 1), time: self.room.clock.now() };
        let (body, result) = decide(stamp);
        if let Err(reason) = check_body(stamp.seq, &body) {
            ledger.closed = Some(reason);
            return Err(desk.closed(&ledger));
        }
        let wake = desk.take_in(&mut ledger, Pending { seq: stamp.seq, body });
        let held_after = ledger.frame_bytes;
        drop(ledger);

        if wake {
            desk.wake_keeper();
        }
        warn_near_limit(held_before, held_after, desk.limit_bytes);
        if desk.durability == Durability::None {
            (desk.on_durable)(stamp.seq);
        }
        Ok((stamp, result))
    }

    /// The last record appended; 0 if there is none.
    pub fn last(&self) -> Seq {
        self.room.desk.last()
    }

    /// The last record that is durable: it and everything before it may have consequences outside.
    pub fn durable(&self) -> Seq {
        self.room.desk.durable()
    }

    /// The VM clock that stamps records. It stands where [`Options::clock`] put it until it is resumed.
    pub fn clock(&self) -> &VmClock {
        &self.room.clock
    }

    /// Blocks until everything appended so far is in the store, as durably as asked, and returns the last of it; or says
    /// that it never will be. Not for an actor's handler.
    pub fn flush(&self) -> Result<Seq, JournalClosed> {
        self.room.desk.flush()
    }

    /// Writes every durable record that is in no sealed file into one at `path`, with the state before them, and returns the
    /// last. Blocks; not for an actor's handler.
    ///
    /// # Errors
    /// If nothing follows the journal, or the file cannot be written.
    pub fn write_tail(&self, path: &Path) -> Result<Seq, TailError> {
        let (answer, answered) = mpsc::channel();
        let follower = self.room.follower.lock().unwrap_or_else(PoisonError::into_inner);
        let messages = follower.as_ref().ok_or(TailError::Unfollowed)?.messages.clone();
        drop(follower);
        messages.send(Message::Tail(path.to_owned(), answer)).map_err(|_| TailError::Unfollowed)?;
        answered.recv().map_err(|_| TailError::Unfollowed)?
    }

    /// Refuses further appends, flushes, ends the keeper and closes the store, so that it can be opened again at once.
    pub fn close(self) -> Result<Seq, JournalClosed> {
        self.room.desk.refuse(CloseReason::Asked);
        let flushed = self.flush();
        self.room.end_keeper();
        flushed
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("last", &self.last()).field("durable", &self.durable()).finish_non_exhaustive()
    }
}

impl Room {
    fn end_keeper(&self) {
        self.desk.end();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(keeper) = keeper else { return };
        // A callback that held the last clone drops it on the keeper's own thread, which cannot wait for itself.
        if keeper.thread().id() != thread::current().id() && keeper.join().is_err() {
            tracing::error!("the journal's thread panicked while it told of a failure or closed its store");
        }
        // It ends when nobody can send to it any more: the keeper has gone, and this is the other one.
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(FollowerHandle { messages, thread }) = follower else { return };
        drop(messages);
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the journal's follower panicked");
        }
    }
}

/// What is refused here would be refused by every start.
pub(crate) fn base_of(keyframe: Keyframe) -> Result<Base, OpenError> {
    let seq = keyframe.seq;
    Base::of(keyframe).map_err(|error| OpenError::Base { seq, reason: error.to_string() })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, OpenError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|source| OpenError::Thread { source })
}

/// Starts the follower of a journal whose store is one of a row.
fn follow(desk: &Arc<Desk>, row: Row, sealing: Sealing) -> Result<(FollowerHandle, Generations), OpenError> {
    let Row { directory, standing, backlog, bytes } = row;
    let (messages, receiver) = mpsc::channel();
    let (next, nexts) = mpsc::sync_channel(1);
    for message in backlog {
        // The receiver is right here.
        messages.send(message).ok();
    }
    let (current, seal_bytes, follower) = (standing.newest, sealing.seal_bytes, messages.clone());
    let generations = Generations { current, follower, nexts, bytes, seal_bytes, is_next_asked: false };
    let desk = Arc::clone(desk);
    let on_forgotten = Box::new(move |bytes| desk.forget(bytes));
    let run = move || FollowerThread::begin(directory, sealing, standing, next, on_forgotten).run(&receiver);
    let thread = spawn("journal-follower", run)?;
    Ok((FollowerHandle { messages, thread }, generations))
}

impl Drop for Room {
    fn drop(&mut self) {
        self.end_keeper();
    }
}

fn whole(reading: Reading, store: &dyn Store) -> Result<Recovered, OpenError> {
    match reading.into_recovered(|| store.place())? {
        (recovered, None) => Ok(recovered),
        (_, Some(damage)) => Err(OpenError::Damaged { place: store.place(), damage }),
    }
}

/// Warns when nine tenths of the limit are passed, which happens once: at opening or by one append.
fn warn_near_limit(held_before: u64, held_after: u64, limit_bytes: Option<u64>) {
    let Some(limit_bytes) = limit_bytes else { return };
    let near = limit_bytes - limit_bytes / 10;
    if held_before < near && held_after >= near {
        tracing::warn!(
            "the journal holds {held_after} bytes of its {limit_bytes}: at the limit it refuses and the VM stops"
        );
    }
}
