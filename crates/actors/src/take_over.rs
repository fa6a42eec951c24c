//! Taking over: a VM that runs in another process on this host goes on in this one.
//!
//! ```text
//!  prepared   an empty store, before the other's guest stands still
//!  state      memories mapped from their files, the journal begun behind the state, actors, processors
//!  taken      it is this process's: the guest runs, and the other one never acts again
//!  not ours   the other has it back: what was begun here is forgotten
//! ```
//!
//! Deliberately absent: the other side.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use device::backends::{self, BackendKind, BackendSpec, Seal, Sharing, Survival};
use handover::{Hello, Memory, Offer, Owner, State, Stated, Taker};
use journal::form::Base;
use journal::record::{Origin, Parent};
use journal::{Journal, OpenError, Opening};
use memory::HostMemory;
use tokio::task::spawn_blocking;

use crate::ahead;
use crate::birth::{self, Birth};
use crate::captured::{Part, Recalled};
use crate::fatal::{Raised, Stopped};
use crate::hand_over::ACCEL;
use crate::heir;
use crate::host_memory::host_spec;
use crate::kvm_guest::Ahead;
use crate::open::{self, Opened, Prepared};
use crate::parts::Parts;
use crate::restore::{backend_id, ram_id, ram_spec};
use crate::resume::{check_named, check_vm};
use crate::snapshot_error::SnapshotError;
use crate::start::{Accel, GuestReturn, JournalPlace, Restored, StartOptions, Started, settle};
use crate::start_error::StartError;
use crate::vm::{RunState, Vm};

/// How long the other process may take to say what it has.
const OFFER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to copy memory, and to stand still.
const STATE_TIMEOUT: Duration = Duration::from_secs(600);

/// A VM that was another process's and is this one's.
pub struct TakenOver {
    /// It runs, if it ran.
    pub vm: Vm,
    /// How it came to be.
    pub started: Started,
    /// The line to the other process, which holds its sockets until [`Owner::wait_for_go`].
    pub owner: Owner,
    /// The journal of the other process, if it keeps one.
    pub giver_journal: Option<PathBuf>,
}

/// Takes the VM of the process at the other end of a connection, whose guest goes on with what runs it there. It runs when
/// this returns.
///
/// # Errors
///
/// The other process goes on with the VM, and nothing of it is here.
pub async fn take_over(mut options: StartOptions, stream: UnixStream) -> Result<TakenOver, StartError> {
    if let JournalPlace::Directory(dir) = &options.journal
        && heir::is_orphan(dir)
    {
        // One of an earlier try, of which nothing came; unless it is of one that is under way.
        if let Err(OpenError::Held { dir }) = Opening::of(dir) {
            return Err(no_new(OpenError::Held { dir }.into()));
        }
        forget(&options.journal);
    }
    let prepared = open::prepare(&options).map_err(no_new)?;
    let taken = take(&mut options, prepared, stream).await;
    if taken.is_err() {
        forget(&options.journal);
    }
    let Taken { parts, raised, run, restored, last, owner, giver_journal } = taken?;
    let vm = Vm::new(parts, options, raised);
    if run == handover::RunState::Running {
        vm.set_run_state(RunState::Running).await?;
    }
    // Behind the first step of the guest, so that it does not stand still for a disk; and before anybody is answered.
    if let JournalPlace::Directory(dir) = &vm.shared.options.journal
        && let Err(error) = heir::own(dir)
    {
        tracing::warn!("the mark of a hand-over stays: {error}");
    }
    let survivals = vm.backends(|state| state.iter().map(|(id, _)| (id.to_owned(), Survival::Kept)).collect()).await?;
    let survivals: Vec<_> = survivals;
    let build = vm.shared.options.build.clone();
    let input = backends::Input::RunStart { build, survivals: survivals.clone() };
    let run = settle(&vm, Origin::Supervisor, input).await?;
    let started = Started { records: last, run, survivals, torn_from: None, restored: Some(restored) };
    Ok(TakenOver { vm, started, owner, giver_journal })
}

/// In the words of one that wants a new journal: to resume the one that is there, or to stop who has it, is no way to it.
fn no_new(error: StartError) -> StartError {
    match error {
        StartError::Open(OpenError::Held { dir }) => {
            StartError::NoNewJournal { dir, state: ", and a process that runs has it open" }
        }
        StartError::Snapshot(error) => match *error {
            SnapshotError::JournalThere { dir } => StartError::NoNewJournal { dir, state: "" },
            error => error.into(),
        },
        error => error,
    }
}

/// A VM that is this process's and does not run yet.
struct Taken {
    parts: Parts,
    raised: Raised,
    run: handover::RunState,
    restored: Restored,
    last: device::Seq,
    owner: Owner,
    giver_journal: Option<PathBuf>,
}

async fn take(options: &mut StartOptions, prepared: Prepared, stream: UnixStream) -> Result<Taken, StartError> {
    let place = options.journal.clone();
    let hello = Hello { build: options.build.clone(), pid: std::process::id(), journal: heir::name(&place) };
    let heard = spawn_blocking(move || {
        let (taker, mut offer) = Taker::begin(stream, &hello, OFFER_TIMEOUT)?;
        let peer = taker.peer().to_string();
        let state = mark(&place, &offer).and_then(|()| Ok(ahead::take(&mut offer)?));
        let state_ahead = match state {
            Ok(state) => state,
            Err(error) => {
                taker.refuse(&error.to_string());
                return Err(error);
            }
        };
        // Before the guest stands still for it.
        let ahead = accel_of(&offer).and_then(Ahead::begin);
        let (taker, state) = taker.ready(STATE_TIMEOUT)?;
        Ok::<_, StartError>((taker, state, offer, Early { ahead, state: state_ahead }, peer))
    });
    let (taker, state, offer, early, peer) = heard.await.map_err(|_| Stopped)??;
    let raised = Raised::default();
    let giver_journal = offer.journal.clone().map(PathBuf::from);
    let begun = begin(&mut *options, prepared, early, state, offer, &peer, &raised);
    let (parts, run, restored, last) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            taker.refuse(&error.to_string());
            return Err(error);
        }
    };
    let journal = parts.journal.clone();
    match spawn_blocking(move || owned(taker, &journal)).await.map_err(|_| Stopped)? {
        Ok(owner) => Ok(Taken { parts, raised, run, restored, last, owner, giver_journal }),
        Err(error) => {
            parts.fatal.life_is_over();
            parts.stop().await;
            parts.close_journal().await;
            Err(error)
        }
    }
}

/// Takes it, when its state is on the disk here.
fn owned(taker: Taker<Stated>, journal: &Journal) -> Result<Owner, StartError> {
    if let Err(closed) = journal.flush() {
        taker.refuse(&closed.to_string());
        return Err(closed.into());
    }
    taker.taken().map_err(StartError::NotOurs)
}

/// What is begun from now on is the other's, until it is known to be ours.
fn mark(place: &JournalPlace, offer: &Offer) -> Result<(), StartError> {
    let JournalPlace::Directory(dir) = place else { return Ok(()) };
    let giver = offer.journal.as_deref().unwrap_or(heir::NO_JOURNAL);
    heir::begin(dir, giver).map_err(|source| SnapshotError::Mark { dir: dir.clone(), source }.into())
}

/// What was made before the other's guest stood still.
struct Early {
    ahead: Option<Ahead>,
    state: Option<Base>,
}

type Begun = (Parts, handover::RunState, Restored, device::Seq);

fn begin(
    options: &mut StartOptions,
    prepared: Prepared,
    early: Early,
    state: State,
    offer: Offer,
    peer: &str,
    raised: &Raised,
) -> Result<Begun, StartError> {
    let State { parts, last, clock: _, run } = state;
    let unknown = |name: &str, version| SnapshotError::Part {
        name: name.into(),
        reason: format!("there is no version {version}"),
    };
    let part = |handover::Part { name, version, bytes }: handover::Part| {
        Ok(Part { version: u16::try_from(version).map_err(|_| unknown(&name, version))?, name, bytes })
    };
    let parts = parts.into_iter().map(part).collect::<Result<Vec<_>, SnapshotError>>()?;
    let Early { ahead, state: state_ahead } = early;
    let Recalled { base, guest_side } = Recalled::from_parts_behind(parts, state_ahead)?;
    options.accel = guest_side.accel();
    let keyframe = base.keyframe();
    check_vm(options, &keyframe.vm).map_err(other_running)?;
    check_named(&keyframe.vm, &options.objects)?;
    let mut files: BTreeMap<_, _> = offer.memories.into_iter().map(|memory| (memory.id.clone(), memory)).collect();
    let mut map = |id: String, spec: &BackendSpec| map(files.remove(&id), &id, spec);
    let ram = map(ram_id()?.to_string(), &ram_spec(keyframe.vm.config.memory_bytes))?;
    let mut memories = BTreeMap::new();
    for (id, backend) in keyframe.vm.backends.iter() {
        memories.insert(id.to_owned(), map(backend_id(id)?.to_string(), &backend.spec)?);
    }
    if let Some(id) = files.keys().next() {
        return Err(SnapshotError::Memory { id: id.clone(), reason: "the state does not have it".into() }.into());
    }
    let guest = match &guest_side.machine {
        Some(_) => GuestReturn::WithProcessors,
        None => GuestReturn::DriverAnew,
    };
    let parent =
        Parent { journal: offer.journal.unwrap_or_default(), shared: last, change: format!("taken over from {peer}") };
    let opened = open::begin_beside(options, raised, base, parent, prepared)?;
    let Opened { journal, followed, outbox, state, last, torn_from: _, refill: _ } = opened;
    let guest_side = Some(guest_side);
    let birth = Birth { journal, followed, outbox, state, last, ram, memories, guest_side, ahead };
    let restored = Restored { from: format!("taken over from {peer}"), guest };
    Ok((birth::begin(options, raised, birth)?, run, restored, last))
}

/// There is no journal yet: what differs is the VM that runs.
fn other_running(error: StartError) -> StartError {
    match error {
        StartError::OtherVm { what, journal, asked } => StartError::OtherRunningVm { what, running: journal, asked },
        error => error,
    }
}

/// What the giver says that runs it. Only a hint: the state says it too.
fn accel_of(offer: &Offer) -> Option<Accel> {
    let (_, said) = offer.about.iter().find(|(key, _)| key == ACCEL)?;
    Accel::parse(said)
}

/// Memory from the file of the one that the guest saw until now.
fn map(offered: Option<Memory>, id: &str, spec: &BackendSpec) -> Result<Arc<HostMemory>, SnapshotError> {
    let failed = |reason: String| SnapshotError::Memory { id: id.into(), reason };
    let Memory { len_bytes, fd, .. } = offered.ok_or_else(|| failed("it was not given".into()))?;
    if len_bytes != spec.size_bytes {
        return Err(failed(format!("it has {len_bytes} bytes, and the state says {}", spec.size_bytes)));
    }
    // What was private to the other process was copied into a file that nobody else has, and that is written even where the one
    // under it was only read: mapped as that was, it once took no writes any more.
    let kind = match (&spec.kind, spec.sharing) {
        (BackendKind::File { .. }, Sharing::Private) => BackendKind::Memfd { seal: Seal::Unsealed, huge_pages: None },
        (kind, _) => kind.clone(),
    };
    let spec = memory::HostMemorySpec { kind, sharing: Sharing::Shared, ..host_spec(spec) };
    HostMemory::from_fd(fd, &spec).map(Arc::new).map_err(|error| failed(error.to_string()))
}

/// What was begun of a journal must not be taken for one that was owned.
pub(crate) fn forget(journal: &JournalPlace) {
    if let JournalPlace::Directory(dir) = journal {
        for half in ["sealed", "live"] {
            fs::remove_dir_all(dir.join(half)).ok();
        }
        heir::own(dir).ok();
        fs::remove_dir(dir).ok();
    }
}
