//! A journal as one file: what a user mails, what the corpus keeps.
//!
//! ```text
//! ┌ about ┐┌ records #0 .. ┐┌ records ┐ ... ┌ end ┐        every segment is checked by itself and chained to the one before
//! └───────┘└───────────────┘└─────────┘     └─────┘        a file without its end was cut
//! ```
//!
//! A segment of records holds whole frames, the very bytes that a directory holds, compressed. Deliberately absent: an
//! index (a segment's header says what is in it and how long it is), appending (a file is written once), and secrets: the
//! links show what was lost or swapped, not who did it.

mod read;
mod segment;
mod write;

pub use read::{read_file, salvage_file};
pub use segment::{HEADER_LEN_BYTES, SegmentError, VERSION};
pub use write::{write_file, write_to};

/// What a file says of itself, beside its records: names and texts, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct About(pub Vec<(String, String)>);

impl About {
    /// The text under a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, text)| text.as_str())
    }
}
