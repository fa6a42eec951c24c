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
use crate::restore::{Loading, Memories, Source, Target, backend_id, held_files, ram_id, snapshot_name};
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
    /// All of it, and of what it is built on.
    Whole(SnapshotFacts),
    /// It is being written or removed, or whoever did that has died.
    HalfMade {
        /// Which of them.
        reason: String,
    },
    /// It cannot be loaded: it is not what was written, or what it is built on is gone or another.
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

/// Whether a save is still wanted.
pub type SaveWish = Arc<dyn Fn() -> bool + Send + Sync>;

impl Vm {
    /// Saves the VM while it runs.
    ///
    /// # Errors
    ///
    /// Nothing of it is left then, and the VM goes on.
    pub async fn save_snapshot(&self, request: SaveRequest, progress: SaveProgress) -> Result<Saved, SnapshotError> {
        self.save_snapshot_while(request, progress, Arc::new(|| true)).await
    }

    /// Saves the VM as long as that is wanted, which is asked now and then, and at the end.
    ///
    /// # Errors
    ///
    /// Nothing of it is left then, and the VM goes on: [`SnapshotError::Unwanted`], or why it cannot be saved. The next one is
    /// built on the same snapshot as this one was to be. It was once full, though nothing had been done.
    pub async fn save_snapshot_while(
        &self,
        request: SaveRequest,
        progress: SaveProgress,
        is_wanted: SaveWish,
    ) -> Result<Saved, SnapshotError> {
        let store = self.store()?;
        self.sweep_snapshots().await;
        // One at a time, because each takes what is dirty.
        let mut lineage = self.shared.lineage.lock().await;
        // Whoever does not wait for the end of this leaves nothing to build on: threads of it may still take what is dirty.
        let known = Arc::new(std::mem::take(&mut *lineage));
        let saved = self.save(store, request, &known, progress, is_wanted).await;
        // What was taken of memories is dirty again where it failed; nobody else holds it any more.
        let (saved, next) = match saved {
            Ok((saved, next)) => (Ok(saved), next),
            Err(error) => (Err(error), Arc::into_inner(known).unwrap_or_default()),
        };
        *lineage = next;
        saved
    }

    async fn save(
        &self,
        store: Store,
        request: SaveRequest,
        lineage: &Arc<Lineage>,
        progress: SaveProgress,
        is_wanted: SaveWish,
    ) -> Result<(Saved, Lineage), SnapshotError> {
        let parts = self.parts();
        let slots = parts.slots.processor.kvm.as_ref().map(|kvm| Arc::clone(kvm.slots()));
        let memories = named(parts.platform().ram(), parts.memories().await?)?;
        let specs =
            parts.backends(|state| state.iter().map(|(id, b)| (id.to_owned(), b.spec.clone())).collect()).await?;
        let lineage = Arc::clone(lineage);
        let copying = spawn_blocking(move || {
            let mut copying = Copying::begin(store, &request, &lineage, memories, specs, slots, is_wanted)?;
            drop(lineage);
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
        let held = self.backends(held_files).await?;
        let early = source.memories(&options.maker(), Loading::Eager, Target::InPlace(&held)).await?;

        let quiet = match self.quiet().await {
            Ok((quiet, _)) => quiet,
            Err(error) => {
                early.abandon().await;
                return Err(error.into());
            }
        };
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
    /// There is none, others are built on it, it is in use, or its directory has anything in it that is none of a snapshot's.
    pub async fn delete_snapshot(&self, name: &str) -> Result<(), SnapshotError> {
        let (store, name) = (self.store()?, snapshot_name(name)?);
        let mut lineage = self.shared.lineage.lock().await;
        let is_newest = lineage.is_newest(&name);
        let deleted: Result<(), SnapshotError> =
            spawn_blocking(move || Ok(store.delete(&name)?)).await.map_err(|_| Stopped)?;
        // The next one cannot be built on it.
        if deleted.is_ok() && is_newest {
            *lineage = Lineage::default();
        }
        deleted
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
