//! Saving: the contents of memories are copied while the guest writes to them, and the rest when it stands still.
//!
//! ```text
//!  begin      memories are tracked; known from the parent: what is dirty since; else: where there is data
//!  pre_copy   what became dirty meanwhile, again and again, until little is left or it does not get less
//!  rest       in the pause: what is dirty now is held, and memories that have come
//!  finish     what is held, parts, digests, disk
//! ```
//!
//! Deliberately absent: the pause itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Weak};
use std::time::Duration;

use device::backends::{BackendKind, BackendSpec, FileAccess, Sharing};
use memory::{HostMemory, OutOfRange, Slots};
use snapshot::{
    Base, CloneOutcome, Contents, ContentsId, ContentsWriter, Draft, Snapshot, SnapshotId, SnapshotName, Store,
};

use crate::captured::{Captured, Part};
use crate::held::Held;
use crate::restore::backend_id;
use crate::snapshot_error::SnapshotError;
use crate::snapshots::{RECORDS, SaveForm, SaveProgress, SaveRequest, SaveWish, Saved};

/// Memories by what they are called in a snapshot.
pub(crate) type Named = BTreeMap<ContentsId, Arc<HostMemory>>;

/// So much is copied in the pause rather than before it: about a quarter of a millisecond.
const LITTLE_BYTES: u64 = 512 << 10;
/// Room for what is dirty in the pause: twice what it was last, within these.
const HELD_BYTES: RangeInclusive<u64> = (1 << 20)..=(64 << 20);
/// Rounds of copying before the pause, at most.
const ROUNDS_MAX: u32 = 8;

/// The snapshot of this run that was saved or loaded last, and the memories whose pages are clean if they have not changed since.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    newest: Option<(SnapshotName, SnapshotId)>,
    memories: BTreeMap<ContentsId, Weak<HostMemory>>,
}

impl Lineage {
    pub(crate) fn is_newest(&self, name: &SnapshotName) -> bool {
        self.newest.as_ref().is_some_and(|(newest, _)| newest == name)
    }

    /// The snapshot that the next one can be built on, if it is still there.
    fn parent(&self, store: &Store) -> Option<Snapshot> {
        let (name, id) = self.newest.as_ref()?;
        store.snapshot(name).ok().filter(|snapshot| snapshot.manifest().is_or_was(*id))
    }

    /// A VM that has just become a snapshot: what its memories have is in there. Nobody writes to them yet; from now on it is
    /// known who does.
    pub(crate) fn of_loaded(snapshot: &Snapshot, named: &Named) -> Self {
        let is_copied = |id: &ContentsId| {
            let of_it = snapshot.memories().iter().find(|memory| memory.id == *id);
            of_it.is_some_and(|memory| matches!(memory.contents, Contents::Copied(_)))
        };
        // All of them are tracked: those whose bytes are elsewhere are shown by the same slots.
        let clean = |memory: &Arc<HostMemory>| {
            memory.track();
            memory.take_dirty();
        };
        named.values().for_each(clean);
        let copied = named.iter().filter(|(id, _)| is_copied(id));
        Self {
            newest: Some((snapshot.name().clone(), snapshot.id())),
            memories: copied.map(|(id, memory)| (id.clone(), Arc::downgrade(memory))).collect(),
        }
    }

    fn knows(&self, id: &ContentsId, memory: &Arc<HostMemory>) -> bool {
        self.memories.get(id).is_some_and(|known| std::ptr::eq(known.as_ptr(), Arc::as_ptr(memory)))
    }
}

/// Backends whose bytes stay where they are, whether or not that was asked for: nobody here writes to them, so nobody here could
/// bring them back. A load in place once stopped the VM at such a file.
fn never_written(specs: &BTreeMap<String, BackendSpec>) -> impl Iterator<Item = &String> {
    let is_never = |spec: &BackendSpec| {
        spec.sharing == Sharing::Shared && matches!(spec.kind, BackendKind::File { access: FileAccess::ReadOnly, .. })
    };
    specs.iter().filter(move |(_, spec)| is_never(spec)).map(|(id, _)| id)
}

/// What was taken of what memories know to be dirty: it is dirty again unless it has come into a snapshot.
#[derive(Default)]
struct Taken(Vec<(Weak<HostMemory>, Vec<Range<u64>>)>);

impl Taken {
    fn take(&mut self, memory: &Arc<HostMemory>) -> Vec<Range<u64>> {
        let dirty = memory.take_dirty();
        self.0.push((Arc::downgrade(memory), dirty.clone()));
        dirty
    }

    /// It is in a snapshot.
    fn settle(mut self) {
        self.0.clear();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        for (memory, dirty) in &self.0 {
            if let Some(memory) = memory.upgrade() {
                dirty.iter().for_each(|range| memory.mark_dirty(range.start, range.end - range.start));
            }
        }
    }
}

/// A snapshot whose contents are being copied. Dropped, it leaves nothing, and what it took is dirty as before.
pub(crate) struct Copying {
    store: Store,
    draft: Draft,
    taken: Taken,
    is_wanted: SaveWish,
    parent: Option<SnapshotName>,
    memories: BTreeMap<ContentsId, Copy>,
    referenced: BTreeMap<ContentsId, Arc<HostMemory>>,
    slots: Option<Arc<Slots>>,
    held: Held,
    written_bytes: u64,
}

/// One memory on its way.
struct Copy {
    memory: Arc<HostMemory>,
    writer: ContentsWriter,
    /// Where it is a file whose blocks the snapshot can share, it is done in the pause, in one step.
    file: Option<File>,
}

impl Copying {
    /// Begins, and copies what has to be copied anyway.
    pub(crate) fn begin(
        store: Store,
        request: &SaveRequest,
        lineage: &Lineage,
        named: Named,
        specs: BTreeMap<String, BackendSpec>,
        slots: Option<Arc<Slots>>,
        is_wanted: SaveWish,
    ) -> Result<Self, SnapshotError> {
        let parent = if request.form == SaveForm::Incremental { lineage.parent(&store) } else { None };
        let draft = store.begin(&request.name, parent.as_ref())?;
        let parent_name = parent.as_ref().map(|parent| parent.name().clone());
        let (memories, referenced, held) = (BTreeMap::new(), BTreeMap::new(), Held::with_room(0));
        let taken = Taken::default();
        let mut copying = Self {
            store,
            draft,
            taken,
            is_wanted,
            parent: parent_name,
            memories,
            referenced,
            slots,
            held,
            written_bytes: 0,
        };
        let mut named = named;
        let referred: BTreeSet<_> = request.by_reference.iter().chain(never_written(&specs)).collect();
        for id in referred {
            copying.refer(id, specs.get(id), &mut named)?;
        }
        copying.track(&named)?;
        for (id, memory) in named {
            let is_known = parent.is_some() && lineage.knows(&id, &memory);
            copying.add(id, memory, if is_known { Base::Parent } else { Base::Zeros })?;
        }
        Ok(copying)
    }

    /// A backend whose bytes stay where they are.
    fn refer(&mut self, id: &str, spec: Option<&BackendSpec>, named: &mut Named) -> Result<(), SnapshotError> {
        let refused = |reason| SnapshotError::ByReference { id: id.into(), reason };
        let spec = spec.ok_or_else(|| refused("there is no such backend"))?;
        let BackendKind::File { path, .. } = &spec.kind else { return Err(refused("it is no file")) };
        if spec.sharing != Sharing::Shared {
            return Err(refused("what is written to it does not reach its file: it has share=off"));
        }
        let contents = backend_id(id)?;
        let memory = named.remove(&contents).ok_or_else(|| refused("there is no such backend"))?;
        self.draft.reference(&contents, memory.len_bytes(), path)?;
        self.referenced.insert(contents, memory);
        Ok(())
    }

    /// From now on every change of a page is known.
    fn track(&self, named: &Named) -> Result<(), SnapshotError> {
        named.values().for_each(|memory| memory.track());
        if let Some(slots) = &self.slots {
            // A slot without a log counts as written whenever it is asked: slower, never wrong.
            if let Err(error) = slots.track() {
                tracing::warn!("what the guest writes is not known page by page: {error}");
            }
        }
        self.collect();
        Ok(())
    }

    /// Brings what the guest has written to the memories' own knowledge.
    fn collect(&self) {
        if let Some(slots) = &self.slots
            && let Err(error) = slots.collect_dirty()
        {
            tracing::warn!("what the guest has written is not known page by page: {error}");
        }
    }

    fn add(&mut self, id: ContentsId, memory: Arc<HostMemory>, base: Base) -> Result<(), SnapshotError> {
        let mut writer = self.draft.contents(&id, memory.len_bytes(), base)?;
        let failed = |error: std::io::Error| SnapshotError::Memory { id: id.to_string(), reason: error.to_string() };
        // Asked for in either case: what was dirty before is copied now.
        let dirty = self.taken.take(&memory);
        let file = memory.share().map_err(failed)?.map(File::from);
        let file = match file {
            Some(file) if writer.clone_file(&file)? == CloneOutcome::Cloned => Some(file),
            _ => None,
        };
        if file.is_none() {
            let ranges = if base == Base::Parent { dirty } else { memory.data_ranges().map_err(failed)? };
            self.written_bytes += writer.copy(&memory, &ranges)?.written_bytes;
        }
        self.memories.insert(id, Copy { memory, writer, file });
        Ok(())
    }

    /// Copies what becomes dirty while the guest runs, until it is little.
    pub(crate) fn pre_copy(&mut self, progress: &SaveProgress) -> Result<(), SnapshotError> {
        let mut before = u64::MAX;
        for _ in 0..ROUNDS_MAX {
            self.check_wanted()?;
            let dirty_bytes = self.copy_dirty()?;
            progress(self.written_bytes, self.written_bytes + dirty_bytes);
            let is_enough = dirty_bytes <= LITTLE_BYTES || dirty_bytes >= before;
            before = dirty_bytes;
            if is_enough {
                break;
            }
        }
        let room_bytes = before.saturating_mul(2).clamp(*HELD_BYTES.start(), *HELD_BYTES.end());
        self.held = Held::with_room(room_bytes as usize);
        // Sharing blocks waits until a file's are on the disk: in the pause that shall be little.
        for (id, Copy { file, .. }) in &self.memories {
            let synced = file.as_ref().map_or(Ok(()), File::sync_data);
            synced.map_err(|error| SnapshotError::Memory { id: id.to_string(), reason: error.to_string() })?;
        }
        Ok(())
    }

    /// In the pause: the rest. Memories may have come and gone since.
    pub(crate) fn rest(&mut self, mut named: Named) -> Result<(), SnapshotError> {
        let is_same =
            |now: Option<&Arc<HostMemory>>, was: &Arc<HostMemory>| now.is_some_and(|now| Arc::ptr_eq(now, was));
        let gone = |(id, copy): &(&ContentsId, &Copy)| !is_same(named.get(*id), &copy.memory);
        let gone: Vec<_> = self.memories.iter().filter(gone).map(|(id, _)| id.clone()).collect();
        for id in gone {
            if let Some(copy) = self.memories.remove(&id) {
                self.draft.forget(copy.writer)?;
            }
        }
        if let Some(id) = self.referenced.iter().find(|(id, was)| !is_same(named.get(*id), was)).map(|(id, _)| id) {
            return Err(SnapshotError::Memory { id: id.to_string(), reason: "it was deleted meanwhile".into() });
        }
        self.hold_dirty()?;
        named.retain(|id, _| !self.memories.contains_key(id) && !self.referenced.contains_key(id));
        for (id, memory) in named {
            memory.track();
            self.add(id, memory, Base::Zeros)?;
        }
        for copy in self.memories.values_mut() {
            if let Some(file) = &copy.file
                && copy.writer.clone_file(file)? == CloneOutcome::Unsupported
            {
                // It could before the pause. What it has of then is too old, and nobody has kept what has changed since.
                let everything = 0..copy.memory.len_bytes();
                self.written_bytes += copy.writer.copy(&copy.memory, &[everything])?.written_bytes;
            }
        }
        Ok(())
    }

    /// Copies what is dirty, and says how much that was.
    fn copy_dirty(&mut self) -> Result<u64, SnapshotError> {
        self.collect();
        let mut dirty_bytes = 0;
        for copy in self.memories.values_mut() {
            let dirty = self.taken.take(&copy.memory);
            if copy.file.is_none() {
                dirty_bytes += dirty.iter().map(|Range { start, end }| end - start).sum::<u64>();
                self.written_bytes += copy.writer.copy(&copy.memory, &dirty)?.written_bytes;
            }
        }
        Ok(dirty_bytes)
    }

    /// Takes what is dirty, to be written when the guest runs again.
    fn hold_dirty(&mut self) -> Result<(), SnapshotError> {
        self.collect();
        for (id, copy) in &mut self.memories {
            let dirty = self.taken.take(&copy.memory);
            if copy.file.is_none() {
                let failed =
                    |reason: OutOfRange| SnapshotError::Memory { id: id.to_string(), reason: reason.to_string() };
                let left = self.held.take(id, &copy.memory, dirty).map_err(failed)?;
                self.written_bytes += copy.writer.copy(&copy.memory, &left)?.written_bytes;
            }
        }
        Ok(())
    }

    fn write_held(&mut self) -> Result<(), SnapshotError> {
        for (id, start, bytes) in self.held.runs() {
            if let Some(copy) = self.memories.get_mut(id) {
                self.written_bytes += copy.writer.write(start, bytes)?.written_bytes;
            }
        }
        Ok(())
    }

    fn check_wanted(&self) -> Result<(), SnapshotError> {
        if (self.is_wanted)() { Ok(()) } else { Err(SnapshotError::Unwanted) }
    }

    /// Makes it a snapshot.
    pub(crate) fn finish(
        mut self,
        captured: Captured,
        build: &str,
        pause: Duration,
    ) -> Result<(Saved, Lineage), SnapshotError> {
        self.check_wanted()?;
        self.write_held()?;
        let last = captured.keyframe.seq;
        self.draft.about("build", build)?;
        self.draft.about(RECORDS, &last.0.to_string())?;
        self.draft.about("time-ns", &captured.keyframe.time.0.to_string())?;
        self.draft.about("accel", &captured.guest_side.accel().to_string())?;
        self.draft.about("pause-us", &pause.as_micros().to_string())?;
        for Part { name, version, bytes } in captured.to_parts() {
            self.draft.part(&name, version.into(), bytes)?;
        }
        let memories = self.memories.iter().map(|(id, copy)| (id.clone(), Arc::downgrade(&copy.memory))).collect();
        let writers = self.memories.into_values().map(|copy| copy.writer).collect();
        let snapshot = self.draft.finish(writers, &mut |_| ())?;
        if !(self.is_wanted)() {
            let name = snapshot.name().clone();
            drop(snapshot);
            self.store.delete(&name)?;
            return Err(SnapshotError::Unwanted);
        }
        self.taken.settle();
        let saved = Saved {
            name: snapshot.name().to_string(),
            id: snapshot.id().to_string(),
            parent: self.parent.as_ref().map(ToString::to_string),
            last,
            pause,
            contents_bytes: self.written_bytes,
        };
        Ok((saved, Lineage { newest: Some((snapshot.name().clone(), snapshot.id())), memories }))
    }
}
