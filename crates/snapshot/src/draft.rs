//! A snapshot that is being written.
//!
//! ```text
//!  begin ─▶ NAME.part, locked ── contents, part, about, reference ──▶ finish ─▶ NAME
//!                            └── dropped ──▶ removed
//! ```
//!
//! What a draft does before [`Draft::finish`] is cheap enough for a VM that is paused: copying, and keeping bytes. Packing,
//! digests and syncs come in `finish`, when the VM runs again. Deliberately absent: going on with the draft of a dead
//! process.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::dir::{Dir, Locked};
use crate::error::SnapshotError;
use crate::layer::{failed, failed_at};
use crate::manifest::{
    ABOUT_KEY_MAX_BYTES, ABOUT_MAX, ABOUT_VALUE_MAX_BYTES, Base, Contents, FORMERLY, MEMORIES_MAX, MEMORY_MAX_BYTES,
    Memory, PATH_MAX_BYTES,
};
use crate::name::{self, ContentsId, SnapshotName};
use crate::overlay::pages_with_bytes;
use crate::packed::{PART_MAX_BYTES, PART_NAME_MAX_BYTES, PARTS_MAX, Part, Unpacked};
use crate::removal;
use crate::snapshot::{Snapshot, base_in};
use crate::writer::ContentsWriter;

/// A snapshot that is being written; dropped, it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    pub(crate) name: Arc<SnapshotName>,
    pub(crate) half: Half,
    pub(crate) parent: Option<Snapshot>,
    /// When it was saved, where that is not now.
    pub(crate) created_ms: Option<u64>,
    pub(crate) about: Vec<(String, String)>,
    pub(crate) memories: Vec<Memory>,
    pub(crate) parts: Vec<Unpacked>,
    part_names: BTreeSet<String>,
    ids: BTreeSet<ContentsId>,
}

/// The directory `NAME.part`, which goes with this value unless it got its name.
#[derive(Debug)]
pub(crate) struct Half {
    pub(crate) store: Arc<Dir>,
    pub(crate) name: String,
    pub(crate) dir: Option<Dir>,
}

impl Drop for Half {
    fn drop(&mut self) {
        let Self { store, name, dir } = self;
        // Its lock ends only behind this: until then it is nobody else's to remove.
        if let Some(dir) = dir.take() {
            if let Err(error) = removal::remove(store, name, &dir) {
                tracing::warn!(dir = %dir.path().display(), %error, "a draft of a snapshot stays, to be swept");
            }
            drop(dir);
        }
    }
}

impl Half {
    pub(crate) fn dir(&self, name: &SnapshotName) -> Result<&Dir, SnapshotError> {
        self.dir.as_ref().ok_or_else(|| {
            failed_at(name, &self.store.path().join(&self.name), "use")(std::io::ErrorKind::NotFound.into())
        })
    }

    /// Makes its lock one for many, as that of a snapshot is that is open.
    pub(crate) fn share(&self, name: &SnapshotName) -> Result<(), SnapshotError> {
        let dir = self.dir(name)?;
        match dir.try_share().map_err(failed_at(name, dir.path(), "lock"))? {
            Locked::Yes => Ok(()),
            Locked::No => Err(SnapshotError::BeingWritten { snapshot: name.to_string() }),
        }
    }
}

impl Draft {
    pub(crate) fn new(name: &SnapshotName, half: Half, parent: Option<Snapshot>) -> Self {
        let name = Arc::new(name.clone());
        let (part_names, ids) = (BTreeSet::new(), BTreeSet::new());
        let created_ms = None;
        Self { name, half, parent, created_ms, about: vec![], memories: vec![], parts: vec![], part_names, ids }
    }

    /// Its name.
    pub fn name(&self) -> &SnapshotName {
        &self.name
    }

    /// Says a fact about it, which the manifest repeats after those that were said before.
    ///
    /// # Errors
    ///
    /// If there is one of this name, or it is `formerly`, which only flattening says; or a limit is reached.
    pub fn about(&mut self, key: &str, value: &str) -> Result<(), SnapshotError> {
        if key == FORMERLY {
            return Err(self.twice("a fact", key));
        }
        self.say(key, value)
    }

    pub(crate) fn say(&mut self, key: &str, value: &str) -> Result<(), SnapshotError> {
        self.check_name("a fact", key, ABOUT_KEY_MAX_BYTES)?;
        if self.about.iter().any(|(other, _)| other == key) {
            return Err(self.twice("a fact", key));
        }
        self.check_count("facts", self.about.len() as u64 + 1, ABOUT_MAX as u64)?;
        self.check_count(&format!("bytes of fact '{key}'"), value.len() as u64, ABOUT_VALUE_MAX_BYTES as u64)?;
        self.about.push((key.to_owned(), value.to_owned()));
        Ok(())
    }

    /// Takes a part. It is packed when the draft is finished.
    ///
    /// # Errors
    ///
    /// If there is one of this name, or a limit is reached.
    pub fn part(&mut self, name: &str, version: u32, bytes: Vec<u8>) -> Result<(), SnapshotError> {
        self.check_name("a part", name, PART_NAME_MAX_BYTES)?;
        self.check_count("parts", self.parts.len() as u64 + 1, PARTS_MAX as u64)?;
        self.check_count(&format!("bytes of part '{name}'"), bytes.len() as u64, PART_MAX_BYTES)?;
        if !self.part_names.insert(name.to_owned()) {
            return Err(self.twice("a part", name));
        }
        self.parts.push(Unpacked { name: name.to_owned(), part: Part { version, bytes } });
        Ok(())
    }

    /// Begins a memory whose bytes are copied. Pages that the writer is never given are as `base` says. The writer goes back to
    /// [`Draft::finish`].
    ///
    /// # Errors
    ///
    /// If there is a memory of this id, the parent has nothing that it can be built on ([`SnapshotError::NoBase`]), a limit is
    /// reached, or its file cannot be made.
    pub fn contents(&mut self, id: &ContentsId, len_bytes: u64, base: Base) -> Result<ContentsWriter, SnapshotError> {
        self.check_memory(id, len_bytes)?;
        let below = match (base, &self.parent) {
            (Base::Zeros, _) => Default::default(),
            (Base::Parent, Some(parent)) => {
                base_in(parent.manifest(), id, len_bytes).map_err(|reason| self.no_base(id, len_bytes, reason))?;
                pages_with_bytes(parent, id)
            }
            (Base::Parent, None) => return Err(self.no_base(id, len_bytes, "there is no parent".into())),
        };
        let file_name = id.file_name();
        let created = self.half.dir(&self.name)?.create_file(&file_name);
        let file = created.map_err(failed(&self.name, &file_name, "create"))?;
        let memory = Memory { id: id.clone(), len_bytes, contents: Contents::Copied(base) };
        let writer = ContentsWriter::new(self.name.clone(), memory.clone(), file, below)?;
        self.ids.insert(id.clone());
        self.memories.push(memory);
        Ok(writer)
    }

    /// Gives up a memory that was begun: it is gone, and the snapshot does not have it.
    ///
    /// # Errors
    ///
    /// The writer is none that it handed out, or its file cannot be removed.
    pub fn forget(&mut self, writer: ContentsWriter) -> Result<(), SnapshotError> {
        let ContentsWriter { memory, .. } = &writer;
        if !self.handed_out(&writer) {
            let (snapshot, id) = (self.name.to_string(), memory.id.to_string());
            return Err(SnapshotError::Writers { snapshot, id, reason: "belongs to another draft" });
        }
        let file_name = memory.id.file_name();
        let removed = self.half.dir(&self.name)?.remove_file(&file_name);
        removed.map_err(failed(&self.name, &file_name, "remove"))?;
        self.ids.remove(&memory.id);
        self.memories.retain(|begun| begun.id != memory.id);
        Ok(())
    }

    /// Says of a memory where its bytes are instead of copying them.
    ///
    /// # Errors
    ///
    /// If there is a memory of this id, or a limit is reached.
    pub fn reference(&mut self, id: &ContentsId, len_bytes: u64, path: &str) -> Result<(), SnapshotError> {
        self.check_memory(id, len_bytes)?;
        self.check_count(&format!("bytes of the path of memory '{id}'"), path.len() as u64, PATH_MAX_BYTES as u64)?;
        let contents = Contents::Reference { path: path.to_owned() };
        self.ids.insert(id.clone());
        self.memories.push(Memory { id: id.clone(), len_bytes, contents });
        Ok(())
    }

    fn check_memory(&self, id: &ContentsId, len_bytes: u64) -> Result<(), SnapshotError> {
        if self.ids.contains(id) {
            return Err(self.twice("a memory", id.as_str()));
        }
        self.check_count("memories", self.memories.len() as u64 + 1, MEMORIES_MAX as u64)?;
        if len_bytes == 0 {
            let (snapshot, id) = (self.name.to_string(), id.to_string());
            return Err(SnapshotError::Range { snapshot, id, start: 0, end: 1, len_bytes });
        }
        self.check_count(&format!("bytes of memory '{id}'"), len_bytes, MEMORY_MAX_BYTES)
    }

    fn check_name(&self, what: &'static str, name: &str, max_bytes: usize) -> Result<(), SnapshotError> {
        name::check(name, max_bytes).map_err(|reason| SnapshotError::Name {
            snapshot: self.name.to_string(),
            what,
            name: name.to_owned(),
            reason,
        })
    }

    pub(crate) fn check_count(&self, what: &str, count: u64, max: u64) -> Result<(), SnapshotError> {
        if count <= max {
            return Ok(());
        }
        Err(SnapshotError::TooMany { snapshot: self.name.to_string(), what: what.to_owned(), count, max })
    }

    fn twice(&self, what: &'static str, name: &str) -> SnapshotError {
        SnapshotError::Twice { snapshot: self.name.to_string(), what, name: name.to_owned() }
    }

    fn no_base(&self, id: &ContentsId, len_bytes: u64, reason: String) -> SnapshotError {
        SnapshotError::NoBase { snapshot: self.name.to_string(), id: id.to_string(), len_bytes, reason }
    }
}
