//! A journal as one file: what a user mails, what the corpus keeps.
//!
//! ```text
//! ┌ about ┐┌ attached ┐┌ records #0 .. ┐┌ keyframe ┐┌ records ┐ ... ┌ end ┐     every segment is checked by itself and
//! └───────┘└──────────┘└───────────────┘└──────────┘└─────────┘     └─────┘     chained to the one before; a file without
//!            any number                                                         its end was cut
//! ```
//!
//! A segment of records holds whole frames, the very bytes that a directory holds, compressed. A keyframe says the state at
//! its place; one in front of all records stands for those that are gone. Sealed records are such files too. Deliberately
//! absent: a written index (a segment's header says what is in it and how long it is), appending (a file is written once),
//! and secrets: the links show what was lost or swapped, not who did it.

mod index;
mod read;
mod segment;
mod write;

pub(crate) use segment::{segment_at, unpack_remains};

pub use read::{read_attached, read_file, salvage_file};
pub use segment::{ATTACHED_VERSION, HEADER_LEN_BYTES, SegmentError, VERSION};
pub use write::{write_file, write_file_with, write_to};

pub(crate) use index::Index;
pub(crate) use read::{check_file, read_segments};
pub(crate) use segment::{Level, SEQ_MAX};
pub(crate) use write::{Segments, make_file, write_base};

/// The longest name and bytes of what is attached, together: a reader takes no more.
pub const ATTACHED_LIMIT_BYTES: usize = 63 << 20;

/// Something that goes with a journal in its file, opaque here: a part of a snapshot, for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// What it is, for who reads the file.
    pub name: String,
    /// The version of its form, as its writer gave it.
    pub version: u32,
    /// It.
    pub bytes: Vec<u8>,
}

/// What a file says of itself, beside its records: names and texts, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct About(pub Vec<(String, String)>);

impl About {
    /// The text under a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, text)| text.as_str())
    }
}
