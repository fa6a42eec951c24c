//! Handing over: a running VM goes to another process on this host, which goes on with its guest.
//!
//! ```text
//!  offered  the state as it is so far, memories by their files; those without one are copied into a file made for it while
//!           the guest runs
//!  quiet    the rest of the copies, then the state, if it is another one by now ─▶ given: this process never acts again
//!                                                 └─▶ kept: the guest goes on here
//! ```
//!
//! One at a time, and none any more when the VM was given or this process ends:
//!
//! ```text
//!  Open ─▶ Preparing ─▶ Deciding ─▶ Open, or given
//!    └────────┴─ this process ends: cut off ─▶ Closed      (what is being decided is decided first)
//! ```
//!
//! Deliberately absent: who owns the VM when one of them falls silent, which the protocol settles.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use device::backends::{BackendKind, Seal, Sharing};
use handover::{GivenAway, Giver, Greeted, HandoverError, Offer, Outcome, Prepared, State, Transfer};
use journal::form::Keyframe;
use memory::{HostMemory, HostMemorySpec, MissingFile, Slots, Surroundings};
use thiserror::Error;
use tokio::task::spawn_blocking;

use crate::ahead::Sent;
use crate::captured::{Captured, Part};
use crate::fatal::{Fatal, Stopped};
use crate::heir;
use crate::quiet::{Quiet, QuietError};
use crate::restore::{backend_id, ram_id};
use crate::snapshot_error::SnapshotError;
use crate::start::JournalPlace;
use crate::vm::{RunState, Vm};

/// Under this word an offer says what runs the guest.
pub(crate) const ACCEL: &str = "accel";
/// How long the other process may take to say who it is, and to prepare itself.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the guest stands still for a hand-over of which nothing comes.
const STATE_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the other process is told that all is let go of.
const GO_TIMEOUT: Duration = Duration::from_secs(5);
/// So much is copied in the pause rather than before it.
const LITTLE_BYTES: u64 = 512 << 10;
const ROUNDS_MAX: u32 = 8;
const COPY_LEN_BYTES: usize = 1 << 20;

/// Why a VM is not handed over. It goes on here.
#[derive(Debug, Error)]
pub enum HandOverError {
    /// The other process.
    #[error(transparent)]
    Protocol(#[from] HandoverError),
    /// The VM cannot be captured.
    #[error(transparent)]
    Capture(#[from] SnapshotError),
    /// The VM does not become quiet.
    #[error(transparent)]
    Quiet(#[from] QuietError),
    /// A memory cannot be given.
    #[error("the memory '{id}' cannot be given: {reason}")]
    Memory {
        /// Which.
        id: String,
        /// Why.
        reason: String,
    },
    /// A memory came or went meanwhile.
    #[error("a backend came or went while memory was copied: ask again")]
    Moved,
    /// Another process has the VM already.
    #[error("the VM was handed over already: {holder}; ask that one")]
    GivenAlready {
        /// Who has it, and which journal holds its last state.
        holder: String,
    },
    /// This process was told to end meanwhile.
    #[error("the process that has the VM was told to end: start its journal, or ask it before it ends")]
    Ending,
    /// There is nobody left to answer.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A VM that another process has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// Who has it, and which journal holds its last state.
    pub holder: String,
    /// Why it is not known that it runs there.
    pub doubt: Option<String>,
    /// How long the guest had stood still when the other process had it.
    pub pause: Duration,
}

impl Vm {
    /// Hands the VM to the process at the other end of a connection. This one has stopped then ([`Fatal::HandedOver`]), and has
    /// to let go ([`Vm::let_go`]) when its sockets are closed.
    ///
    /// # Errors
    ///
    /// The VM goes on here.
    pub async fn hand_over(&self, stream: UnixStream) -> Result<HandedOver, HandOverError> {
        let vm = self.clone();
        // On a task of its own: who has asked may be cut off in the middle, and it once was while the other process took the VM,
        // so that this one ended without a word of it.
        tokio::spawn(async move { vm.hand_over_to(stream).await }).await.map_err(|_| Stopped)?
    }

    /// No hand-over begins any more, one that is being prepared is cut off, and one that is being decided is decided when this
    /// returns: [`Fatal::HandedOver`] where another process has the VM.
    pub async fn end_hand_overs(&self) -> Option<Fatal> {
        self.shared.hand_overs.close();
        drop(self.shared.hand_overs.one.lock().await);
        self.shared.fatal.borrow().clone().filter(|fatal| matches!(fatal, Fatal::HandedOver { .. }))
    }

    async fn hand_over_to(&self, stream: UnixStream) -> Result<HandedOver, HandOverError> {
        let line = stream.try_clone().map_err(|source| HandoverError::Host { doing: "the connection", source })?;
        let giver = blocking(move || Ok(Giver::hello(stream, PREPARE_TIMEOUT)?)).await?;
        let hand_overs = &self.shared.hand_overs;
        let _one = hand_overs.one.lock().await;
        // Before anything is marked: of two that asked at once, the second once removed the mark of the first, which had the VM.
        if let Err(error) = self.begin_hand_over(line) {
            giver.refuse(&error.to_string());
            return Err(error);
        }
        let handed = self.hand_over_marked(giver).await;
        hand_overs.end();
        handed
    }

    fn begin_hand_over(&self, line: UnixStream) -> Result<(), HandOverError> {
        if let Some(Fatal::HandedOver { holder, .. }) = &*self.shared.fatal.borrow() {
            return Err(HandOverError::GivenAlready { holder: holder.clone() });
        }
        self.shared.hand_overs.begin(line)
    }

    /// Marks the journal for as long as it may be the other's.
    async fn hand_over_marked(&self, giver: Giver<Greeted>) -> Result<HandedOver, HandOverError> {
        let (place, heir) = (self.shared.options.journal.clone(), giver.taker().journal.clone());
        let (giver, marked) = blocking(move || Ok((giver, mark(&place, &heir)))).await?;
        let handed = match marked {
            Ok(()) => self.hand_over_prepared(giver).await,
            Err(error) => {
                giver.refuse(&error.to_string());
                Err(error)
            }
        };
        match &handed {
            // It stays where it is not known who has the VM: who starts the journal looks.
            Ok(_) | Err(HandOverError::Stopped(_)) => {}
            Err(_) => {
                if let JournalPlace::Directory(dir) = &self.shared.options.journal
                    && let Err(error) = heir::keep(dir)
                {
                    tracing::warn!("the mark of a hand-over stays: {error}");
                }
            }
        }
        handed
    }

    async fn hand_over_prepared(&self, giver: Giver<Greeted>) -> Result<HandedOver, HandOverError> {
        // No snapshot takes what is dirty meanwhile.
        let mut lineage = self.shared.lineage.lock().await;
        *lineage = crate::save::Lineage::default();
        let (giver, moving, ahead) = self.offer(giver).await?;
        let heir = giver.taker().journal.clone();
        let (giver, moving) = blocking(move || moving.follow(giver)).await?;

        if let Err(error) = self.shared.hand_overs.decide() {
            giver.refuse(&error.to_string());
            return Err(error);
        }
        let (quiet, state) = self.quiet().await?;
        let given = match self.given_state(&quiet, state, &ahead, moving).await {
            Ok((state, moving)) => {
                let given = blocking(move || Ok((giver.state(&state, STATE_TIMEOUT), moving)));
                given.await.map(|(given, copied)| {
                    spawn_blocking(move || drop(copied));
                    given
                })
            }
            Err(error) => Err(error),
        };
        match given {
            Ok(Outcome::Given(given)) => Ok(self.given(quiet, given, &heir).await),
            Ok(Outcome::Kept(error)) => {
                quiet.go_on();
                Err(error.into())
            }
            Err(error) => {
                quiet.go_on();
                Err(error)
            }
        }
    }

    /// Tells the process that has the VM that nothing of it is in use here any more.
    pub async fn let_go(&self) {
        let given = self.shared.given.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(given) = given {
            // It runs whether it hears it or not.
            spawn_blocking(move || given.go(GO_TIMEOUT).ok()).await.ok();
        }
    }

    async fn offer(&self, giver: Giver<Greeted>) -> Result<(Giver<Prepared>, Moving, Sent), HandOverError> {
        let (parts, options) = (self.parts(), &self.shared.options);
        let vm = parts.state().await.map_err(QuietError::from)?;
        let state = Keyframe { seq: parts.journal.last(), time: parts.journal.clock().now(), vm };
        let memories = named(parts.platform().ram(), parts.memories().await?)?;
        let slots = parts.slots.processor.kvm.as_ref().map(|kvm| Arc::clone(kvm.slots()));
        let journal = (options.journal != JournalPlace::None).then(|| heir::name(&options.journal));
        let (build, last) = (options.build.clone(), parts.journal.durable());
        let about = vec![(ACCEL.to_owned(), options.accel.to_string()), Sent::about()];
        blocking(move || {
            let moving = match Moving::begin(memories, slots) {
                Ok(moving) => moving,
                Err(error) => {
                    giver.refuse(&error.to_string());
                    return Err(error);
                }
            };
            let failed = |reason| HandOverError::Memory { id: "state".into(), reason };
            let ahead = Sent::of(state).map_err(failed)?;
            let mut memories = moving.offered()?;
            memories.push(ahead.offered().map_err(|error| failed(error.to_string()))?);
            let giver = giver.offer(&Offer { build, about, journal, last, memories }, PREPARE_TIMEOUT)?;
            Ok((giver, moving, ahead))
        })
        .await
    }

    async fn given_state(
        &self,
        quiet: &Quiet<'_>,
        state: device::vm::Vm,
        ahead: &Sent,
        moving: Moving,
    ) -> Result<(State, Moving), HandOverError> {
        let memories = named(quiet.parts.platform().ram(), quiet.memories().await?)?;
        let moving = blocking(move || moving.rest(&memories)).await?;
        let captured = Captured::of(quiet, state)?;
        let of_part = |Part { name, version, bytes }| handover::Part { name, version: version.into(), bytes };
        let run = match quiet.was {
            RunState::Running => handover::RunState::Running,
            RunState::Paused => handover::RunState::Paused,
        };
        let (last, clock) = (captured.keyframe.seq, captured.keyframe.time);
        let parts = captured.to_parts_behind(ahead.state()).into_iter().map(of_part).collect();
        Ok((State { parts, last, clock, run }, moving))
    }

    /// The VM is another's: all that acts here ends.
    async fn given(&self, quiet: Quiet<'_>, given: GivenAway, heir: &str) -> HandedOver {
        let pause = quiet.since.elapsed();
        quiet.end_life().await;
        quiet.parts.close_journal().await;
        if let JournalPlace::Directory(dir) = &self.shared.options.journal
            && let Err(error) = heir::give(dir, heir)
        {
            // That it was offered is noted there, and that the other has it in the other's.
            tracing::warn!("it is not noted in the journal that {heir} has the VM: {error}");
        }
        let (holder, doubt) = (given.holder(), given.doubt().map(ToString::to_string));
        *self.shared.given.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
        self.shared.fatal.send_replace(Some(Fatal::HandedOver { holder: holder.clone(), doubt: doubt.clone() }));
        HandedOver { holder, doubt, pause }
    }
}

/// The VM is about to be another's.
fn mark(place: &JournalPlace, heir: &str) -> Result<(), HandOverError> {
    let JournalPlace::Directory(dir) = place else { return Ok(()) };
    heir::offer(dir, heir).map_err(|source| SnapshotError::Mark { dir: dir.clone(), source }.into())
}

/// The hand-overs of a VM.
#[derive(Default)]
pub(crate) struct HandOvers {
    /// Held over one of them.
    one: tokio::sync::Mutex<()>,
    stage: Mutex<Stage>,
}

#[derive(Default)]
enum Stage {
    #[default]
    Open,
    /// The guest runs; the line to the other process, by which it is cut off.
    Preparing(UnixStream),
    /// The guest is to stand still for it.
    Deciding,
    /// This process ends.
    Closed,
}

impl HandOvers {
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, next: Stage) -> Result<(), HandOverError> {
        let mut stage = self.stage();
        if let Stage::Closed = *stage {
            return Err(HandOverError::Ending);
        }
        *stage = next;
        Ok(())
    }

    fn begin(&self, line: UnixStream) -> Result<(), HandOverError> {
        self.step(Stage::Preparing(line))
    }

    fn decide(&self) -> Result<(), HandOverError> {
        self.step(Stage::Deciding)
    }

    fn end(&self) {
        // Where it is closed it stays so.
        self.step(Stage::Open).ok();
    }

    fn close(&self) {
        if let Stage::Preparing(line) = std::mem::replace(&mut *self.stage(), Stage::Closed) {
            // The other end may have gone.
            line.shutdown(Shutdown::Both).ok();
        }
    }
}

/// Memories on their way to another process.
struct Moving {
    memories: BTreeMap<String, Copy>,
    slots: Option<Arc<Slots>>,
}

struct Copy {
    memory: Arc<HostMemory>,
    /// The file that it is copied into; `None` where it is one itself.
    copy: Option<HostMemory>,
}

impl Moving {
    fn begin(memories: BTreeMap<String, Arc<HostMemory>>, slots: Option<Arc<Slots>>) -> Result<Self, HandOverError> {
        let mut moving = BTreeMap::new();
        for (id, memory) in memories {
            let failed = |reason: String| HandOverError::Memory { id: id.clone(), reason };
            let is_file = memory.share().map_err(|error| failed(error.to_string()))?.is_some();
            let copy = (!is_file).then(|| file_for(memory.len_bytes()).map_err(failed)).transpose()?;
            if copy.is_some() {
                memory.track();
            }
            moving.insert(id.clone(), Copy { memory, copy });
        }
        let moving = Self { memories: moving, slots };
        // A slot without a log counts as written whenever it is asked: slower, never wrong.
        if let Some(slots) = &moving.slots
            && let Err(error) = slots.track()
        {
            tracing::warn!("what the guest writes is not known page by page: {error}");
        }
        moving.collect();
        for (id, Copy { memory, copy }) in &moving.memories {
            let Some(copy) = copy else { continue };
            drop(memory.take_dirty());
            let failed = |reason: String| HandOverError::Memory { id: id.clone(), reason };
            let ranges = memory.data_ranges().map_err(|error| failed(error.to_string()))?;
            copy_ranges(memory, copy, &ranges).map_err(failed)?;
        }
        Ok(moving)
    }

    /// What the other process gets of them.
    fn offered(&self) -> Result<Vec<handover::Memory>, HandOverError> {
        let offered = |(id, Copy { memory, copy }): (&String, &Copy)| {
            let failed = |reason: String| HandOverError::Memory { id: id.clone(), reason };
            let (file, transfer) = match copy {
                Some(copy) => (copy, Transfer::Copied),
                None => (&**memory, Transfer::Shared),
            };
            let fd = file.share().map_err(|error| failed(error.to_string()))?;
            let fd = fd.ok_or_else(|| failed("it is no file any more".into()))?;
            Ok(handover::Memory { id: id.clone(), len_bytes: memory.len_bytes(), transfer, fd })
        };
        self.memories.iter().map(offered).collect()
    }

    /// Copies what becomes dirty, until it is little.
    fn follow(self, giver: Giver<Prepared>) -> Result<(Giver<Prepared>, Self), HandOverError> {
        let mut before = u64::MAX;
        for _ in 0..ROUNDS_MAX {
            giver.check()?;
            let dirty_bytes = self.copy_dirty()?;
            if dirty_bytes <= LITTLE_BYTES || dirty_bytes >= before {
                break;
            }
            before = dirty_bytes;
        }
        Ok((giver, self))
    }

    /// In the pause. What it is made of is given back when the pause is over: to unmap what was copied takes longer than all
    /// else.
    fn rest(self, now: &BTreeMap<String, Arc<HostMemory>>) -> Result<Self, HandOverError> {
        let is_same = |(id, copy): (&String, &Copy)| now.get(id).is_some_and(|now| Arc::ptr_eq(now, &copy.memory));
        if now.len() != self.memories.len() || !self.memories.iter().all(is_same) {
            return Err(HandOverError::Moved);
        }
        self.copy_dirty()?;
        Ok(self)
    }

    fn collect(&self) {
        if let Some(slots) = &self.slots
            && let Err(error) = slots.collect_dirty()
        {
            tracing::warn!("what the guest has written is not known page by page: {error}");
        }
    }

    fn copy_dirty(&self) -> Result<u64, HandOverError> {
        self.collect();
        let mut dirty_bytes = 0;
        for (id, Copy { memory, copy }) in &self.memories {
            let Some(copy) = copy else { continue };
            let dirty = memory.take_dirty();
            dirty_bytes += dirty.iter().map(|Range { start, end }| end - start).sum::<u64>();
            copy_ranges(memory, copy, &dirty).map_err(|reason| HandOverError::Memory { id: id.clone(), reason })?;
        }
        Ok(dirty_bytes)
    }
}

/// A file of zeros that another process can map.
pub(crate) fn file_for(size_bytes: u64) -> Result<HostMemory, String> {
    let spec = HostMemorySpec {
        kind: BackendKind::Memfd { seal: Seal::Unsealed, huge_pages: None },
        sharing: Sharing::Shared,
        ..HostMemorySpec::anonymous(size_bytes)
    };
    let surroundings = Surroundings { backend_dir: None, missing: MissingFile::Refuse, progress: &|_, _| () };
    HostMemory::create(&spec, surroundings).map_err(|error| error.to_string())
}

fn copy_ranges(from: &HostMemory, to: &HostMemory, ranges: &[Range<u64>]) -> Result<(), String> {
    let mut buffer = vec![0; COPY_LEN_BYTES];
    for range in ranges {
        for at in range.clone().step_by(COPY_LEN_BYTES) {
            let piece = &mut buffer[..COPY_LEN_BYTES.min((range.end - at) as usize)];
            from.read(at, piece).map_err(|error| error.to_string())?;
            to.write(at, piece).map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

/// Memories by what they are called on the way, which is what snapshots call them.
fn named(
    ram: &Arc<HostMemory>,
    backends: BTreeMap<String, Arc<HostMemory>>,
) -> Result<BTreeMap<String, Arc<HostMemory>>, SnapshotError> {
    let backends = backends.into_iter().map(|(id, memory)| Ok((backend_id(&id)?.to_string(), memory)));
    std::iter::once(Ok((ram_id()?.to_string(), Arc::clone(ram)))).chain(backends).collect()
}

/// Does what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, HandOverError> + Send + 'static,
) -> Result<T, HandOverError> {
    spawn_blocking(work).await.map_err(|_| Stopped)?
}
