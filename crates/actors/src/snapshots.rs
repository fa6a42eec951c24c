//! Snapshots of a running VM: saved, loaded, listed, deleted.
//!
//! ```text
//!  save    pre-copy while it runs ─▶ quiet: the rest of the pages, registers, processors ─▶ it runs on ─▶ digests, disk, manifest
//!  load    snapshot read, memory filled while it runs ─▶ quiet: this life ends ─▶ the journal is superseded ─▶ next life
//! ```
//!
//! A save copies what has changed since the snapshot of this run that was saved or loaded last, if there is one. Deliberately
//! absent: the format on the disk.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use device::Seq;
use memory::HostMemory;
use snapshot::{Holder, Listed, Manifest, SnapshotName, Store};
use tokio::task::spawn_blocking;

use crate::birth::Birth;
use crate::captured::Captured;
use crate::fatal::{Fatal, Stopped};
use crate::open::{self, Opened};
use crate::refill::Refill;
use crate::restore::{Loading, Memories, Source, Target, backend_id, ram_id, snapshot_name};
use crate::save::{Copying, Lineage, Named};
use crate::snapshot_error::SnapshotError;
use crate::start::JournalPlace;
use crate::vm::Vm;

/// Under this word a snapshot says after which record it is.
pub(crate) const RECORDS: &str = "records";

/// What is to be saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SaveRequest {
    /// What the snapshot is called.
    pub name: SnapshotName,
    /// How much is written.
    pub form: SaveForm,
    /// Backends whose bytes stay where they are: the snapshot says where that is.
    pub by_reference: Vec<String>,
}

/// How much of the memory a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveForm {
    /// All of it.
    Full,
    /// What has changed since the snapshot of this run that was saved or loaded last; all of it where there is none.
    Incremental,
}

/// A snapshot that was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// The name of the snapshot that it is built on.
    pub parent: Option<String>,
    /// The last record that it has.
    pub last: Seq,
    /// How long the guest stood still for it.
    pub pause: Duration,
    /// Bytes of memory that were written.
    pub contents_bytes: u64,
}

/// A snapshot that the VM has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its name.
    pub name: String,
    /// The last record that it has.
    pub last: Seq,
    /// Where the journal is kept of what ran before, seen from the journal's directory.
    pub past: Option<String>,
}

/// A snapshot in the list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedSnapshot {
    /// Its name.
    pub name: String,
    /// What is there of it.
    pub state: ListedState,
}

/// What is there of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedState {
    /// All of it.
    Whole(SnapshotFacts),
    /// It is being written or removed, or whoever did that has died.
    HalfMade {
        /// Which of them.
        reason: String,
    },
    /// It cannot be loaded.
    Damaged {
        /// The file, and what is wrong with it.
        reason: String,
    },
}

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Its id.
    pub id: String,
    /// The name of the snapshot that it is built on.
    pub parent: Option<String>,
    /// When it was saved, in milliseconds since 1970.
    pub created_ms: u64,
    /// The last record that it has.
    pub last: Seq,
    /// Bytes of memory that it holds itself.
    pub contents_bytes: u64,
}

/// Who hears how far a save is: bytes done, bytes in all.
pub type SaveProgress = Arc<dyn Fn(u64, u64) + Send + Sync>;

impl Vm {
    /// Saves the VM while it runs.
    ///
    /// # Errors
    ///
    /// Nothing of it is left then, and the VM goes on.
    pub async fn save_snapshot(&self, request: SaveRequest, progress: SaveProgress) -> Result<Saved, SnapshotError> {
        let store = self.store()?;
        self.sweep_snapshots().await;
        // One at a time, because each takes what is dirty.
        let mut lineage = self.shared.lineage.lock().await;
        let known = std::mem::take(&mut *lineage);
        let (saved, next) = self.save(store, request, known, progress).await?;
        *lineage = next;
        Ok(saved)
    }

    async fn save(
        &self,
        store: Store,
        request: SaveRequest,
        lineage: Lineage,
        progress: SaveProgress,
    ) -> Result<(Saved, Lineage), SnapshotError> {
        let parts = self.parts();
        let slots = parts.slots.processor.kvm.as_ref().map(|kvm| Arc::clone(kvm.slots()));
        let memories = named(parts.platform().ram(), parts.memories().await?)?;
        let specs =
            parts.backends(|state| state.iter().map(|(id, b)| (id.to_owned(), b.spec.clone())).collect()).await?;
        let copying = spawn_blocking(move || {
            let mut copying = Copying::begin(&store, &request, &lineage, memories, specs, slots)?;
            copying.pre_copy(&progress)?;
            Ok::<_, SnapshotError>(copying)
        });
        let mut copying = copying.await.map_err(|_| Stopped)??;
        drop(parts);

        let (quiet, state) = self.quiet().await?;
        let taken = match quiet.memories().await {
            Ok(memories) => {
                let memories = named(quiet.parts.platform().ram(), memories);
                let rest =
                    spawn_blocking(move || memories.and_then(|memories| copying.rest(memories).map(|()| copying)));
                rest.await.map_err(|_| Stopped.into()).flatten()
            }
            Err(stopped) => Err(stopped.into()),
        };
        let captured = Captured::of(&quiet, state);
        quiet.go_on();
        let pause = quiet.since.elapsed();
        drop(quiet);

        let (copying, captured) = (taken?, captured?);
        let build = self.shared.options.build.clone();
        let finished = spawn_blocking(move || copying.finish(captured, &build, pause));
        finished.await.map_err(|_| Stopped)?
    }

    /// Makes the VM what it was when the snapshot was saved. What the journal has of it until now is kept as its past.
    ///
    /// # Errors
    ///
    /// Nothing has changed, unless the VM has stopped.
    pub async fn load_snapshot(&self, name: &str) -> Result<Loaded, SnapshotError> {
        let (store, name) = (self.store()?, snapshot_name(name)?);
        let mut lineage = self.shared.lineage.lock().await;
        let options = &self.shared.options;
        let opened = spawn_blocking(move || Source::of(&store, &name));
        let source = opened.await.map_err(|_| Stopped)??;
        source.check_accel(options.accel)?;
        if source.fills_files() {
            source.verify().await?;
        }
        // What goes into files that the guest still sees is written when it does not any more.
        let early = source.memories(&options.maker(), Loading::Eager, Target::InPlace).await?;

        let (quiet, _) = self.quiet().await?;
        quiet.end_life().await;
        quiet.parts.close_journal().await;
        let succeeded = self.succeed(&source, early).await;
        *lineage = Lineage::default();
        match succeeded {
            Ok((birth, past)) => {
                let last = birth.last;
                // Before anybody writes. Memories that could not be named would be saved whole.
                let memories = named(&birth.ram, birth.memories.clone());
                let loaded = memories
                    .map_or_else(|_| Lineage::default(), |memories| Lineage::of_loaded(&source.snapshot, &memories));
                quiet.next_life(birth).await?;
                *lineage = loaded;
                Ok(Loaded { name: source.snapshot.name().to_string(), last, past })
            }
            Err(error) => {
                let fatal = Fatal::Restore { last: quiet.last, reason: error.to_string() };
                self.shared.fatal.send_replace(Some(fatal));
                Err(error)
            }
        }
    }

    /// What the next life of the VM begins with, and where the records of this one are.
    async fn succeed(&self, source: &Source, memories: Memories) -> Result<(Birth, Option<String>), SnapshotError> {
        let options = &self.shared.options;
        let opened = open::supersede(options, &self.shared.fatal, source);
        let (opened, past) = opened?;
        source.fill_files(&memories).await?;
        if let JournalPlace::Directory(dir) = &options.journal {
            Refill::end(dir);
        }
        let Opened { journal, followed, outbox, state, last, torn_from: _, refill: _ } = opened;
        let (Memories { ram, backends: memories }, guest_side) = (memories, Some(source.recalled.guest_side.clone()));
        let ahead = None;
        Ok((Birth { journal, followed, outbox, state, last, ram, memories, guest_side, ahead }, past))
    }

    /// Deletes a snapshot that no other is built on.
    ///
    /// # Errors
    ///
    /// There is none, others are built on it, or it is in use.
    pub async fn delete_snapshot(&self, name: &str) -> Result<(), SnapshotError> {
        let (store, name) = (self.store()?, snapshot_name(name)?);
        let mut lineage = self.shared.lineage.lock().await;
        // The next one cannot be built on it.
        if lineage.is_newest(&name) {
            *lineage = Lineage::default();
        }
        spawn_blocking(move || Ok(store.delete(&name)?)).await.map_err(|_| Stopped)?
    }

    /// All snapshots, by name.
    ///
    /// # Errors
    ///
    /// The host cannot list them.
    pub async fn snapshots(&self) -> Result<Vec<ListedSnapshot>, SnapshotError> {
        let dir = self.snapshots_dir()?;
        if !dir.exists() {
            return Ok(Vec::new());
        }
        let listed = spawn_blocking(move || Store::open(&dir)?.list()).await.map_err(|_| Stopped)??;
        Ok(listed.into_iter().map(ListedSnapshot::from).collect())
    }

    /// Removes what dead processes have left half made. Nobody waits for it in vain: what stays is named in lists, and swept by
    /// the next save or start.
    pub(crate) async fn sweep_snapshots(&self) {
        let Ok(dir) = self.snapshots_dir() else { return };
        if !dir.exists() {
            return;
        }
        let swept = spawn_blocking(move || Store::open(&dir)?.sweep()).await;
        if let Ok(Err(error)) = swept {
            tracing::warn!("what is left of snapshots is not swept: {error}");
        }
    }

    /// Where snapshots are: in the directory that was named, else in that of the journal.
    fn snapshots_dir(&self) -> Result<PathBuf, SnapshotError> {
        let options = &self.shared.options;
        match (&options.snapshots, &options.journal) {
            (Some(dir), _) => Ok(dir.clone()),
            (None, JournalPlace::Directory(journal)) => Ok(journal.join("snapshots")),
            (None, JournalPlace::None) => Err(SnapshotError::NoStore),
        }
    }

    fn store(&self) -> Result<Store, SnapshotError> {
        Ok(Store::create(&self.snapshots_dir()?)?)
    }
}

/// Memories by what they are called in a snapshot.
fn named(ram: &Arc<HostMemory>, backends: BTreeMap<String, Arc<HostMemory>>) -> Result<Named, SnapshotError> {
    let backends = backends.into_iter().map(|(id, memory)| Ok((backend_id(&id)?, memory)));
    std::iter::once(Ok((ram_id()?, Arc::clone(ram)))).chain(backends).collect()
}

impl From<Listed> for ListedSnapshot {
    fn from(listed: Listed) -> Self {
        let name = listed.name().to_owned();
        let half_made = |reason: &str| ListedState::HalfMade { reason: reason.into() };
        let state = match listed {
            Listed::Whole { manifest, disk_bytes } => ListedState::Whole(SnapshotFacts::of(&manifest, disk_bytes)),
            Listed::Unfinished { holder: Holder::Alive, .. } => half_made("it is being written"),
            Listed::Unfinished { holder: Holder::Dead, .. } => half_made("whoever wrote it has ended"),
            Listed::Leaving { holder: Holder::Alive, .. } => half_made("it is being removed"),
            Listed::Leaving { holder: Holder::Dead, .. } => half_made("whoever removed it has ended"),
            Listed::Damaged { error, .. } => ListedState::Damaged { reason: error.to_string() },
        };
        Self { name, state }
    }
}

impl SnapshotFacts {
    fn of(manifest: &Manifest, disk_bytes: u64) -> Self {
        let records = manifest.about.iter().find(|(key, _)| key == RECORDS).and_then(|(_, text)| text.parse().ok());
        Self {
            id: manifest.id.to_string(),
            parent: manifest.parent.as_ref().map(|parent| parent.name.to_string()),
            created_ms: manifest.created_ms,
            last: Seq(records.unwrap_or(0)),
            contents_bytes: disk_bytes,
        }
    }
}
