//! The manifest: what a snapshot is, what it stands on, and which files belong to it.
//!
//! ```text
//! {
//!   "format": 1,                    read first: all else is only known of this format
//!   "name": "tuesday",              the name of the directory, too
//!   "id": "…",                      digest of the lines down to the last but the digest, with 64 zeros here
//!   "parent": { "name": "monday", "id": "…" },       or null: nothing is below
//!   "created_ms": 1767225600000,    since 1970, by the host's clock
//!   "about": { "build": "…" },      what the writer says of it
//!   "memories": [ … ],
//!   "files": [ … ],                 every other file: length and digest
//!   "digest": "…"                   of all bytes before the comma that stands before this line
//! }
//! ```
//!
//! JSON, so that people can read it; under a digest, so that they do not change it. Deliberately absent: names of files that
//! are opened. They follow from the ids of the memories; a manifest that names others is refused.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, SnapshotId};
use crate::error::Damage;
use crate::name::{self, ContentsId, SnapshotName};

/// The format of snapshots that this build writes and reads.
pub const FORMAT: u32 = 1;

/// Bytes of a manifest.
pub const MANIFEST_MAX_BYTES: u64 = 64 << 20;

/// Memories of a snapshot: as many backends as a VM has, and its RAM.
pub const MEMORIES_MAX: usize = 65_537;

/// Bytes of a memory: 64 PiB.
pub const MEMORY_MAX_BYTES: u64 = 1 << 56;

/// Facts about a snapshot.
pub const ABOUT_MAX: usize = 256;

/// Bytes of what such a fact is called.
pub const ABOUT_KEY_MAX_BYTES: usize = 64;

/// Bytes of such a fact.
pub const ABOUT_VALUE_MAX_BYTES: usize = 4096;

/// Bytes of a path where the bytes of a memory are.
pub const PATH_MAX_BYTES: usize = 4096;

/// Under this word, of what is said about a snapshot, stands the id that it had before it was flattened.
pub(crate) const FORMERLY: &str = "formerly";

/// The file of the manifest.
pub(crate) const FILE: &str = "manifest.json";

/// The file of the parts.
pub(crate) const PARTS_FILE: &str = "parts";

/// The file of the runs.
pub(crate) const RUNS_FILE: &str = "runs";

/// What stands around the digest at the end.
const BEFORE_DIGEST: &str = ",\n  \"digest\": \"";
const BEHIND_DIGEST: &str = "\"\n}\n";

/// A snapshot by its name and id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: SnapshotName,
    /// Its id.
    pub id: SnapshotId,
}

/// What a snapshot's pages of a memory lie on: what the pages are that it does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Zeros.
    Zeros,
    /// The memory of this id in the parent, which has the same length.
    Parent,
}

/// Where the bytes of a memory are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contents {
    /// In the snapshot, and below it.
    Copied(Base),
    /// Elsewhere: nothing of it is in the snapshot but this text, by the words of whoever wrote it.
    Reference {
        /// The text.
        path: String,
    },
}

/// A memory of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// What it is called.
    pub id: ContentsId,
    /// Its length.
    pub len_bytes: u64,
    /// Where its bytes are.
    pub contents: Contents,
}

/// What a snapshot says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its name.
    pub name: SnapshotName,
    /// Its id.
    pub id: SnapshotId,
    /// What it is built on; `None` is a full one.
    pub parent: Option<Link>,
    /// When it was finished, in milliseconds since 1970 by the host's clock.
    pub created_ms: u64,
    /// What its writer says of it, in the writer's order.
    pub about: Vec<(String, String)>,
    /// Its memories, in the order in which they were begun.
    pub memories: Vec<Memory>,
    /// Its files but this one.
    pub(crate) files: Vec<FileEntry>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileEntry {
    pub(crate) name: String,
    pub(crate) len_bytes: u64,
    /// Of its bytes; of contents, of their runs and what those hold.
    pub(crate) digest: Digest,
}

/// Why bytes are no manifest.
#[derive(Debug)]
pub(crate) enum Unreadable {
    Damaged(Damage),
    Format { found: u32 },
}

impl From<Damage> for Unreadable {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl Manifest {
    /// The memory of this id.
    pub fn memory(&self, id: &ContentsId) -> Option<&Memory> {
        self.memories.iter().find(|memory| memory.id == *id)
    }

    /// Whether this is the snapshot that another was built on: it, or what it has become by flattening, with the same bytes in
    /// every memory.
    pub fn is_or_was(&self, id: SnapshotId) -> bool {
        let formerly = self.about.iter().find(|(key, _)| key == FORMERLY).and_then(|(_, text)| Digest::parse(text));
        self.id == id || formerly == Some(id.0)
    }

    /// The entry of a file, which is there: [`Manifest::parse`] saw to that.
    pub(crate) fn file(&self, name: &str) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Gives it the id that follows from all else, and its bytes.
    pub(crate) fn seal(mut self) -> (Self, Vec<u8>) {
        self.id = SnapshotId(Digest([0; Digest::LEN_BYTES]));
        let unnamed = body(&self);
        self.id = SnapshotId(Digest::of(unnamed.as_bytes()));
        let mut text = renamed(&unnamed, &zeros(), &self.id.to_string());
        let digest = Digest::of(text.as_bytes());
        text.push_str(&format!("{BEFORE_DIGEST}{digest}{BEHIND_DIGEST}"));
        (self, text.into_bytes())
    }

    /// Reads the bytes of the manifest of the snapshot `name`.
    pub(crate) fn parse(bytes: &[u8], name: &SnapshotName) -> Result<Self, Unreadable> {
        // Of another format nothing else is known, its digest neither.
        if let Ok(Probe { format: found }) = serde_json::from_slice::<Probe>(bytes)
            && found != FORMAT
        {
            return Err(Unreadable::Format { found });
        }
        let body = signed(bytes)?;
        let form: Form = serde_json::from_str(&format!("{body}\n}}")).map_err(|why| Damage::Json(why.to_string()))?;
        let manifest = form.into_manifest().map_err(Damage::Says)?;
        manifest.check(name).map_err(Damage::Says)?;
        let unnamed = renamed(body, &manifest.id.to_string(), &zeros());
        let found = Digest::of(unnamed.as_bytes());
        if found != manifest.id.0 {
            return Err(Damage::Digest { found, expected: manifest.id.0 }.into());
        }
        Ok(manifest)
    }

    fn check(&self, name: &SnapshotName) -> Result<(), String> {
        if self.name != *name {
            return Err(format!("its name is '{}'; name the directory so again", self.name));
        }
        if self.memories.len() > MEMORIES_MAX || self.about.len() > ABOUT_MAX {
            return Err(format!("{} memories and {} facts", self.memories.len(), self.about.len()));
        }
        self.check_facts()?;
        let mut seen = BTreeSet::new();
        for memory in &self.memories {
            let Memory { id, len_bytes, contents } = memory;
            if !seen.insert(id) {
                return Err(format!("there are two memories '{id}'"));
            }
            if !(1..=MEMORY_MAX_BYTES).contains(len_bytes) {
                return Err(format!("memory '{id}' has {len_bytes} bytes"));
            }
            if *contents == Contents::Copied(Base::Parent) && self.parent.is_none() {
                return Err(format!("memory '{id}' is built on a parent, and there is none"));
            }
            if let Contents::Reference { path } = contents
                && path.len() > PATH_MAX_BYTES
            {
                return Err(format!("the path of memory '{id}' has {} bytes, of at most {PATH_MAX_BYTES}", path.len()));
            }
        }
        self.check_files()
    }

    fn check_facts(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for (key, text) in &self.about {
            name::check(key, ABOUT_KEY_MAX_BYTES).map_err(|why| format!("the name {key:?} of a fact: {why}"))?;
            if text.len() > ABOUT_VALUE_MAX_BYTES {
                return Err(format!("fact '{key}' has {} bytes, of at most {ABOUT_VALUE_MAX_BYTES}", text.len()));
            }
            if !seen.insert(key) {
                return Err(format!("there are two facts '{key}'"));
            }
        }
        Ok(())
    }

    /// Which files there are follows from the memories; none else is opened.
    fn check_files(&self) -> Result<(), String> {
        let copied = self.memories.iter().filter(|memory| matches!(memory.contents, Contents::Copied(_)));
        let contents = copied.map(|memory| (memory.id.file_name(), Some(memory.len_bytes)));
        let mut expected = [(PARTS_FILE.to_owned(), None), (RUNS_FILE.to_owned(), None)].into_iter().chain(contents);
        for FileEntry { name, len_bytes, .. } in &self.files {
            match expected.next() {
                None => return Err(format!("there is a file '{name}', which belongs to nothing")),
                Some((other, _)) if other != *name => {
                    return Err(format!("there is a file '{name}' where '{other}' should be"));
                }
                Some((_, Some(expected))) if expected != *len_bytes => {
                    return Err(format!("'{name}' has {len_bytes} bytes for a memory of {expected}"));
                }
                Some(_) => {}
            }
        }
        expected.next().map_or(Ok(()), |(name, _)| Err(format!("there is no file '{name}'")))
    }
}

fn zeros() -> String {
    "0".repeat(Digest::LEN_DIGITS)
}

/// The text with another id. The name, which stands before it, has no quotation marks.
fn renamed(text: &str, from: &str, to: &str) -> String {
    text.replacen(&format!("\"id\": \"{from}\""), &format!("\"id\": \"{to}\""), 1)
}

/// The text up to where the digest comes in.
fn body(manifest: &Manifest) -> String {
    // It is made of texts and numbers, which are always JSON.
    let mut text = serde_json::to_string_pretty(&Form::of(manifest)).unwrap_or_default();
    text.truncate(text.len().saturating_sub("\n}".len()));
    text
}

/// The text before the digest at the end, which must be its digest.
fn signed(bytes: &[u8]) -> Result<&str, Damage> {
    let text = str::from_utf8(bytes).map_err(|why| Damage::Json(why.to_string()))?;
    let rest = text.strip_suffix(BEHIND_DIGEST).ok_or(Damage::Unsigned)?;
    let (rest, digits) =
        rest.len().checked_sub(Digest::LEN_DIGITS).and_then(|at| rest.split_at_checked(at)).ok_or(Damage::Unsigned)?;
    let body = rest.strip_suffix(BEFORE_DIGEST).ok_or(Damage::Unsigned)?;
    let expected = Digest::parse(digits).ok_or(Damage::Unsigned)?;
    let found = Digest::of(body.as_bytes());
    if found == expected { Ok(body) } else { Err(Damage::Digest { found, expected }) }
}

/// All that is read of a manifest before it is known to be one.
#[derive(Deserialize)]
struct Probe {
    format: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    format: u32,
    name: String,
    id: String,
    parent: Option<LinkForm>,
    created_ms: u64,
    about: AboutForm,
    memories: Vec<MemoryForm>,
    files: Vec<FileForm>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkForm {
    name: String,
    id: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, tag = "contents", rename_all = "lowercase")]
enum MemoryForm {
    Copied { id: String, len_bytes: u64, base: BaseForm },
    Reference { id: String, len_bytes: u64, path: String },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BaseForm {
    Zeros,
    Parent,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    name: String,
    len_bytes: u64,
    blake3: String,
}

/// Texts by name, in the order in which they stand.
struct AboutForm(Vec<(String, String)>);

impl Serialize for AboutForm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for AboutForm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(AboutVisitor)
    }
}

struct AboutVisitor;

impl<'de> Visitor<'de> for AboutVisitor {
    type Value = AboutForm;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("texts by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AboutForm, A::Error> {
        let mut about = Vec::new();
        while let Some(entry) = map.next_entry()? {
            about.push(entry);
        }
        Ok(AboutForm(about))
    }
}

impl Form {
    fn of(manifest: &Manifest) -> Self {
        let Manifest { name, id, parent, created_ms, about, memories, files } = manifest;
        Self {
            format: FORMAT,
            name: name.to_string(),
            id: id.to_string(),
            parent: parent.as_ref().map(|Link { name, id }| LinkForm { name: name.to_string(), id: id.to_string() }),
            created_ms: *created_ms,
            about: AboutForm(about.clone()),
            memories: memories.iter().map(MemoryForm::of).collect(),
            files: files.iter().map(FileForm::of).collect(),
        }
    }

    fn into_manifest(self) -> Result<Manifest, String> {
        let Self { format: _, name, id, parent, created_ms, about: AboutForm(about), memories, files } = self;
        let parent =
            parent.map(|LinkForm { name, id }| Ok::<_, String>(Link { name: parse(&name)?, id: self::id(&id)? }));
        Ok(Manifest {
            name: parse(&name)?,
            id: self::id(&id)?,
            parent: parent.transpose()?,
            created_ms,
            about,
            memories: memories.into_iter().map(MemoryForm::into_memory).collect::<Result<_, _>>()?,
            files: files.into_iter().map(FileForm::into_entry).collect::<Result<_, _>>()?,
        })
    }
}

impl MemoryForm {
    fn of(memory: &Memory) -> Self {
        let Memory { id, len_bytes, contents } = memory;
        let (id, len_bytes) = (id.to_string(), *len_bytes);
        match contents {
            Contents::Copied(Base::Zeros) => Self::Copied { id, len_bytes, base: BaseForm::Zeros },
            Contents::Copied(Base::Parent) => Self::Copied { id, len_bytes, base: BaseForm::Parent },
            Contents::Reference { path } => Self::Reference { id, len_bytes, path: path.clone() },
        }
    }

    fn into_memory(self) -> Result<Memory, String> {
        let (id, len_bytes, contents) = match self {
            Self::Copied { id, len_bytes, base: BaseForm::Zeros } => (id, len_bytes, Contents::Copied(Base::Zeros)),
            Self::Copied { id, len_bytes, base: BaseForm::Parent } => (id, len_bytes, Contents::Copied(Base::Parent)),
            Self::Reference { id, len_bytes, path } => (id, len_bytes, Contents::Reference { path }),
        };
        Ok(Memory { id: parse(&id)?, len_bytes, contents })
    }
}

impl FileForm {
    fn of(entry: &FileEntry) -> Self {
        let FileEntry { name, len_bytes, digest } = entry;
        Self { name: name.clone(), len_bytes: *len_bytes, blake3: digest.to_string() }
    }

    fn into_entry(self) -> Result<FileEntry, String> {
        let Self { name, len_bytes, blake3 } = self;
        Ok(FileEntry { name, len_bytes, digest: digest(&blake3)? })
    }
}

fn parse<T: std::str::FromStr<Err = crate::NameError>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|why| format!("the name '{text}': {why}"))
}

fn digest(text: &str) -> Result<Digest, String> {
    Digest::parse(text).ok_or_else(|| format!("'{text}' is no digest of {} digits", Digest::LEN_DIGITS))
}

fn id(text: &str) -> Result<SnapshotId, String> {
    digest(text).map(SnapshotId)
}
