//! Snapshots on disk: a directory each, of small named parts and of the contents of large memories, in incremental chains.
//!
//! ```text
//! SNAPSHOTS/NAME/manifest.json     what it is and what belongs to it; written last
//! SNAPSHOTS/NAME/parts             small byte strings by name, each with a version
//! SNAPSHOTS/NAME/runs              of each memory, which pages this snapshot holds: tools that copy lose holes
//! SNAPSHOTS/NAME/ID.contents       bytes of a memory, sparse, each byte where the memory has it
//! SNAPSHOTS/NAME.part              one that is being written: nobody's, once its writer is dead
//! SNAPSHOTS/NAME.gone              one that is being removed: nobody's, too
//!
//!  Store ──begin──▶ Draft ──contents──▶ ContentsWriter ──copy, copy again──┐
//!                     └──part, about, reference──▶ finish ◀────────────────┘
//!                                                    └──▶ Snapshot ──▶ part, load, runs, verify
//! ```
//!
//! A snapshot with a parent holds only what differs from it; reading goes through the chain, and the newest wins. Every
//! byte is under a digest. FORMAT.md has the bytes. Deliberately absent: what parts and memories mean, and when their
//! bytes hold still. That is for whoever writes them.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod contents;
mod digest;
mod dir;
mod draft;
mod error;
mod finish;
mod flatten;
mod layer;
mod listing;
mod manifest;
mod name;
mod overlay;
mod packed;
mod pages;
mod removal;
mod runs;
mod snapshot;
mod store;
mod verify;
mod writer;

pub use digest::{Digest, SnapshotId};
pub use draft::Draft;
pub use error::{Damage, SnapshotError};
pub use finish::Step;
pub use listing::{Holder, Listed};
pub use manifest::{Base, Contents, Link, Manifest, Memory};
pub use name::{ContentsId, NameError, SnapshotName};
pub use overlay::FileRun;
pub use packed::{Part, PartInfo};
pub use snapshot::Snapshot;
pub use store::Store;
pub use writer::{CloneOutcome, ContentsWriter, Copied};

/// Limits and versions of the format; FORMAT.md has them in words.
pub mod format {
    pub use crate::manifest::{
        ABOUT_KEY_MAX_BYTES, ABOUT_MAX, ABOUT_VALUE_MAX_BYTES, FORMAT, MANIFEST_MAX_BYTES, MEMORIES_MAX,
        MEMORY_MAX_BYTES, PATH_MAX_BYTES,
    };
    pub use crate::name::{CONTENTS_ID_MAX_BYTES, SNAPSHOT_NAME_MAX_BYTES};
    pub use crate::packed::{PACKED_VERSION, PART_MAX_BYTES, PART_NAME_MAX_BYTES, PARTS_MAX};
    pub use crate::pages::PAGE_BYTES;
    pub use crate::runs::{RUNS_MAX, RUNS_MAX_BYTES, RUNS_VERSION};
    pub use crate::snapshot::CHAIN_MAX;
}
