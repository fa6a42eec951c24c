//! Restoring: a VM that was captured becomes the first state of a new life, in another process or in the place of a running one.
//!
//! ```text
//!  snapshot ─▶ parts ─▶ Recalled ─┬─▶ memories, filled or mapped      nothing has changed so far
//!                                 ├─▶ a journal that begins behind the captured record and names where it is from
//!                                 └─▶ a life whose guest goes on at its next instruction
//! ```
//!
//! Deliberately absent: saving.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use device::backends::{self, BackendKind, BackendSpec, Population, Reservation, Sharing};
use device::vm::Vm as State;
use journal::form::Keyframe;
use memory::{FileRun, HostMemory, MissingFile};
use snapshot::{Contents, ContentsId, Memory, Snapshot, SnapshotName, Store};
use tokio::task::spawn_blocking;
use wire::Tag;

use crate::captured::{Part, Recalled};
use crate::fatal::{Fatal, FatalFlag, Stopped};
use crate::host_memory::Maker;
use crate::snapshot_error::SnapshotError;
use crate::start::Accel;

/// The guest's RAM among the memories of a snapshot.
const RAM: &str = "ram";
/// Before the id of a backend.
const BACKEND: &str = "backend-";

/// When bytes are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// All of them, and checked, before the guest runs.
    Eager,
    /// When they are touched; they are checked beside the running guest. Backends that are files or memfds are read at once.
    Lazy,
}

/// A snapshot to begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreOptions {
    /// The snapshot's directory.
    pub snapshot: PathBuf,
    /// When its bytes are read.
    pub loading: Loading,
}

impl RestoreOptions {
    /// What ran the VM that was saved.
    ///
    /// # Errors
    ///
    /// The snapshot cannot be read.
    pub fn accel(&self) -> Result<Accel, SnapshotError> {
        Ok(Source::open(&self.snapshot)?.accel())
    }
}

/// A snapshot that was read, but for its contents.
pub(crate) struct Source {
    /// The directory that it is in.
    dir: PathBuf,
    pub(crate) snapshot: Snapshot,
    pub(crate) recalled: Recalled,
}

/// Where the bytes of a snapshot go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target<'a> {
    /// Another process, or another directory: a file that is there is somebody's.
    Elsewhere,
    /// A VM that runs: the files that it has get the bytes that they had. Any other that is there is somebody's, too: one was
    /// once overwritten because the snapshot had a backend of that path.
    InPlace(&'a HeldFiles),
}

/// The paths of the files that a VM has as backends, by the ids of these.
pub(crate) type HeldFiles = BTreeMap<String, String>;

/// The files that backends are.
pub(crate) fn held_files(backends: &backends::State) -> HeldFiles {
    let path = |spec: &BackendSpec| match &spec.kind {
        BackendKind::File { path, .. } => Some(path.clone()),
        _ => None,
    };
    backends.iter().filter_map(|(id, backend)| Some((id.to_owned(), path(&backend.spec)?))).collect()
}

/// The memories of a VM.
pub(crate) struct Memories {
    pub(crate) ram: Arc<HostMemory>,
    pub(crate) backends: BTreeMap<String, Arc<HostMemory>>,
}

impl Source {
    /// Reads the snapshot whose directory this is.
    pub(crate) fn open(path: &Path) -> Result<Self, SnapshotError> {
        let no_name = || SnapshotError::NoName { path: path.to_owned() };
        let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(no_name)?;
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Self::of(&Store::open(dir)?, &snapshot_name(name)?)
    }

    /// Reads a snapshot.
    pub(crate) fn of(store: &Store, name: &SnapshotName) -> Result<Self, SnapshotError> {
        let snapshot = store.snapshot(name)?;
        let names: Vec<_> = snapshot.parts().map(|part| part.name.clone()).collect();
        let part = |name: String| {
            let snapshot::Part { version, bytes } = snapshot.part(&name)?;
            let unknown =
                |_| SnapshotError::Part { name: name.clone(), reason: format!("there is no version {version}") };
            Ok(Part { version: u16::try_from(version).map_err(unknown)?, name, bytes })
        };
        let parts = names.into_iter().map(part).collect::<Result<Vec<_>, SnapshotError>>()?;
        let source = Self { dir: store.path().to_owned(), recalled: Recalled::from_parts(parts)?, snapshot };
        source.check_memories()?;
        Ok(source)
    }

    /// Of what was read only the snapshot is needed any more.
    pub(crate) fn into_parts(self) -> (Snapshot, Recalled) {
        (self.snapshot, self.recalled)
    }

    pub(crate) fn keyframe(&self) -> &Keyframe {
        self.recalled.base.keyframe()
    }

    /// What ran it.
    pub(crate) fn accel(&self) -> Accel {
        self.recalled.guest_side.accel()
    }

    /// The run must be of the same kind.
    pub(crate) fn check_accel(&self, asked: Accel) -> Result<(), SnapshotError> {
        let saved = self.accel();
        if saved == asked {
            return Ok(());
        }
        let option = match saved {
            Accel::Soft => "--accel soft".into(),
            Accel::Kvm { vcpus } => format!("--accel kvm --vcpus {vcpus}"),
        };
        Err(SnapshotError::Accel { saved: saved.to_string(), asked: asked.to_string(), option })
    }

    /// RAM and every backend have their bytes in it or elsewhere, as long as they are, and nothing else has.
    fn check_memories(&self) -> Result<(), SnapshotError> {
        let state = &self.keyframe().vm;
        let wanted = sizes(state)?;
        for Memory { id, len_bytes, contents } in self.snapshot.memories() {
            let reason = match wanted.get(id) {
                None => "the state does not have it".into(),
                Some(size_bytes) if size_bytes != len_bytes => {
                    format!("it has {len_bytes} bytes, and the state says {size_bytes}")
                }
                Some(_) => match unlike(contents, file_of(state, id)) {
                    Some(reason) => reason,
                    None => continue,
                },
            };
            return Err(SnapshotError::Memory { id: id.to_string(), reason });
        }
        let is_there = |id: &ContentsId| self.snapshot.memories().iter().any(|memory| memory.id == *id);
        match wanted.keys().find(|id| !is_there(id)) {
            Some(id) => Err(SnapshotError::Memory { id: id.to_string(), reason: "its bytes are missing".into() }),
            None => Ok(()),
        }
    }

    /// Makes the memories with their bytes.
    pub(crate) async fn memories(
        &self,
        maker: &Maker,
        loading: Loading,
        target: Target<'_>,
    ) -> Result<Memories, SnapshotError> {
        let state = &self.keyframe().vm;
        let ram = self.memory(maker, RAM, &ram_spec(state.config.memory_bytes), ram_id()?, loading, target).await?;
        let mut memories = Memories { ram, backends: BTreeMap::new() };
        for (id, backend) in state.backends.iter() {
            match self.memory(maker, id, &backend.spec, backend_id(id)?, loading, target).await {
                Ok(memory) => drop(memories.backends.insert(id.to_owned(), memory)),
                Err(error) => {
                    memories.abandon().await;
                    return Err(error);
                }
            }
        }
        Ok(memories)
    }

    async fn memory(
        &self,
        maker: &Maker,
        name: &str,
        spec: &BackendSpec,
        id: ContentsId,
        loading: Loading,
        target: Target<'_>,
    ) -> Result<Arc<HostMemory>, SnapshotError> {
        let failed = |reason| SnapshotError::Memory { id: name.into(), reason };
        let contents = self.snapshot.memories().iter().find(|memory| memory.id == id).map(|memory| &memory.contents);
        match (contents, &spec.kind) {
            (Some(Contents::Reference { .. }), _) => maker.make(name, spec, MissingFile::Refuse).await.map_err(failed),
            (_, BackendKind::Ram) if loading == Loading::Lazy => {
                let runs = self.snapshot.runs(&id, BRIDGED_BYTES)?.into_iter().map(run).collect();
                maker.make_over(name, spec, runs).await.map_err(failed)
            }
            (_, BackendKind::File { path, .. }) => match target {
                // Filled when the guest does not see it any more.
                Target::InPlace(held) => {
                    let missing = if held.get(name) == Some(path) { MissingFile::Create } else { MissingFile::Anew };
                    maker.make(name, spec, missing).await.map_err(failed)
                }
                Target::Elsewhere => {
                    let memory = maker.make(name, spec, MissingFile::Anew).await.map_err(failed)?;
                    let filled = self.fill(&id, Arc::clone(&memory)).await;
                    if filled.is_err() {
                        abandon(memory).await;
                    }
                    filled
                }
            },
            _ => {
                let memory = maker.make(name, spec, MissingFile::Refuse).await.map_err(failed)?;
                self.fill(&id, memory).await
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(self.snapshot.name().as_str())
    }

    /// The contents that a load in place puts into files that are there, with the backends of these.
    fn in_files(&self) -> impl Iterator<Item = (&ContentsId, &str)> {
        let is_copied = |memory: &&Memory| matches!(memory.contents, Contents::Copied(_));
        self.snapshot.memories().iter().filter(is_copied).filter_map(|memory| {
            let backend = memory.id.as_str().strip_prefix(BACKEND)?;
            let spec = &self.keyframe().vm.backends.get(backend)?.spec;
            matches!(spec.kind, BackendKind::File { .. }).then_some((&memory.id, backend))
        })
    }

    /// Whether a load in place puts bytes into files that are there.
    pub(crate) fn fills_files(&self) -> bool {
        self.in_files().next().is_some()
    }

    /// Reads all of it, so that it is known to be whole before there is no way back.
    pub(crate) async fn verify(&self) -> Result<(), SnapshotError> {
        let snapshot = self.snapshot.clone();
        Ok(spawn_blocking(move || snapshot.verify(&mut |_, _| ())).await.map_err(|_| Stopped)??)
    }

    /// Fills the files of a VM that was loaded in place with the bytes that they had, on the disk too.
    pub(crate) async fn fill_files(&self, memories: &Memories) -> Result<(), SnapshotError> {
        for (id, backend) in self.in_files() {
            if let Some(memory) = memories.backends.get(backend) {
                let (clearing, failed) = (Arc::clone(memory), |error: std::io::Error| SnapshotError::Memory {
                    id: id.to_string(),
                    reason: error.to_string(),
                });
                spawn_blocking(move || clearing.clear()).await.map_err(|_| Stopped)?.map_err(failed)?;
                let filled = self.fill(id, Arc::clone(memory)).await?;
                let sync =
                    move || filled.share().and_then(|file| file.map_or(Ok(()), |file| File::from(file).sync_data()));
                spawn_blocking(sync).await.map_err(|_| Stopped)?.map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Fills a memory of zeros.
    async fn fill(&self, id: &ContentsId, memory: Arc<HostMemory>) -> Result<Arc<HostMemory>, SnapshotError> {
        let (snapshot, id) = (self.snapshot.clone(), id.clone());
        let filled = spawn_blocking(move || snapshot.load(&id, &memory, &mut |_, _| ()).map(|()| memory));
        Ok(filled.await.map_err(|_| Stopped)??)
    }
}

impl Memories {
    /// Takes back the making of all of it: files that were made go.
    pub(crate) async fn abandon(&self) {
        for memory in self.backends.values() {
            abandon(Arc::clone(memory)).await;
        }
    }
}

async fn abandon(memory: Arc<HostMemory>) {
    // It fails only where the runtime ends, and everything with it.
    spawn_blocking(move || memory.abandon()).await.ok();
}

/// Zeros between two stretches of a file that are mapped with them rather than making two mappings.
const BRIDGED_BYTES: u64 = 64 << 10;

fn run(run: snapshot::FileRun) -> FileRun {
    let snapshot::FileRun { offset_bytes, len_bytes, file, file_offset_bytes } = run;
    FileRun { offset_bytes, len_bytes, file, file_offset_bytes }
}

/// Any other thread goes before one of this.
const LOWEST_PRIORITY: i32 = 19;
/// A new thread is let in before it can say how little it wants, and keeps its processor for a tick of the host's clock: it
/// took it once from who had just made the VM.
const HEAD_START: Duration = Duration::from_millis(20);

/// Checks every byte of a snapshot beside the VM that runs on it, which is stopped if one is wrong.
pub(crate) fn check_beside(snapshot: Snapshot, fatal: FatalFlag) {
    let check = move || {
        // On a host whose processors are all busy it took the guest's first milliseconds.
        if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
            tracing::debug!("the bytes of the snapshot are checked as fast as all else: {error}");
        }
        thread::sleep(HEAD_START);
        if let Err(error) = snapshot.verify(&mut |_, _| ()) {
            fatal.raise(Fatal::Snapshot { reason: error.to_string() });
        }
    };
    if let Err(error) = thread::Builder::new().name("snapshot-check".into()).spawn(check) {
        tracing::warn!("the bytes of the snapshot are not checked: {error}");
    }
}

/// RAM as a backend would be: anonymous, and nothing set aside.
pub(crate) fn ram_spec(size_bytes: u64) -> BackendSpec {
    BackendSpec {
        kind: BackendKind::Ram,
        size_bytes,
        sharing: Sharing::Private,
        population: Population::OnDemand,
        reservation: Reservation::Unreserved,
        tag: Tag::NONE,
        tag_text: String::new(),
    }
}

/// A name from outside.
pub(crate) fn snapshot_name(text: &str) -> Result<SnapshotName, SnapshotError> {
    text.parse().map_err(|error| SnapshotError::Name { name: text.into(), error })
}

/// The file that a memory is in the state; RAM is none.
fn file_of<'a>(state: &'a State, id: &ContentsId) -> Option<&'a str> {
    match &state.backends.get(id.as_str().strip_prefix(BACKEND)?)?.spec.kind {
        BackendKind::File { path, .. } => Some(path),
        _ => None,
    }
}

/// Why the bytes of a memory cannot be where a snapshot says. Those of one that is no file were once taken for zeros.
fn unlike(contents: &Contents, file: Option<&str>) -> Option<String> {
    match (contents, file) {
        (Contents::Reference { path }, None) => {
            Some(format!("its bytes are said to be in '{path}', and by the state it is no file"))
        }
        (Contents::Reference { path }, Some(file)) if path != file => {
            Some(format!("its bytes are said to be in '{path}', and by the state it is the file '{file}'"))
        }
        _ => None,
    }
}

/// How long the contents of every memory are.
fn sizes(state: &State) -> Result<BTreeMap<ContentsId, u64>, SnapshotError> {
    let backends = state.backends.iter().map(|(id, backend)| Ok((backend_id(id)?, backend.spec.size_bytes)));
    std::iter::once(Ok((ram_id()?, state.config.memory_bytes))).chain(backends).collect()
}

/// The contents of RAM.
pub(crate) fn ram_id() -> Result<ContentsId, SnapshotError> {
    contents_id(RAM.into())
}

/// The contents of a backend.
pub(crate) fn backend_id(id: &str) -> Result<ContentsId, SnapshotError> {
    contents_id(format!("{BACKEND}{id}"))
}

fn contents_id(text: String) -> Result<ContentsId, SnapshotError> {
    text.parse().map_err(|error: snapshot::NameError| SnapshotError::Memory { id: text, reason: error.to_string() })
}
