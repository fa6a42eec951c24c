//! Held pages: what was taken of memories while the guest stood still, to be written when it runs again.
//!
//! ```text
//!  before the pause   room is made
//!  in it              dirty pages ─▶ room      those that have none go straight to their file
//!  behind it          room ─▶ files
//! ```
//!
//! A write to a file waits now and then for what its file system is about, for tens of milliseconds: in the pause it was the
//! guest that waited. Deliberately absent: more room than was asked for, which would be the guest's memory a second time.

use std::ops::Range;

use memory::{HostMemory, OutOfRange};
use snapshot::ContentsId;

/// Pages of memories, and the room that they are in.
pub(crate) struct Held {
    room: Vec<u8>,
    used_bytes: usize,
    runs: Vec<Run>,
}

/// Pages that are neighbours.
struct Run {
    id: ContentsId,
    start: u64,
    place: Range<usize>,
}

impl Held {
    /// Nothing, and room for so many bytes.
    pub(crate) fn with_room(len_bytes: usize) -> Self {
        // No zeros: their pages would be made when they are first written to, in the pause.
        Self { room: vec![1; len_bytes], used_bytes: 0, runs: Vec::new() }
    }

    /// Takes ranges of a memory, and returns those that have no room.
    pub(crate) fn take(
        &mut self,
        id: &ContentsId,
        memory: &HostMemory,
        ranges: Vec<Range<u64>>,
    ) -> Result<Vec<Range<u64>>, OutOfRange> {
        let mut left = Vec::new();
        for range in ranges {
            let Some(place) = self.place(range.end - range.start) else {
                left.push(range);
                continue;
            };
            memory.read(range.start, &mut self.room[place.clone()])?;
            self.used_bytes = place.end;
            self.runs.push(Run { id: id.clone(), start: range.start, place });
        }
        Ok(left)
    }

    fn place(&self, len_bytes: u64) -> Option<Range<usize>> {
        let end = self.used_bytes.checked_add(usize::try_from(len_bytes).ok()?)?;
        (end <= self.room.len()).then_some(self.used_bytes..end)
    }

    /// What is held: of which memory, from which offset on, the bytes.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (&ContentsId, u64, &[u8])> {
        self.runs.iter().map(|Run { id, start, place }| (id, *start, &self.room[place.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    fn what_has_room_is_what_was_there_then_and_the_rest_is_told() {
        let memory = HostMemory::anonymous(8 * PAGE).expect("memory");
        memory.write(0, &[7; 8 * PAGE as usize]).expect("inside");
        let id: ContentsId = "ram".parse().expect("a name");
        let mut held = Held::with_room(3 * PAGE as usize);
        let ranges = vec![0..PAGE, 2 * PAGE..5 * PAGE, 6 * PAGE..8 * PAGE];
        let left = held.take(&id, &memory, ranges).expect("inside");
        assert_eq!(left, vec![2 * PAGE..5 * PAGE], "of three pages two had room, and none is torn");
        memory.write(0, &[9; 8 * PAGE as usize]).expect("inside");
        let runs: Vec<_> = held.runs().map(|(of, start, bytes)| (of.clone(), start, bytes.to_vec())).collect();
        let was = |pages: u64| vec![7; (pages * PAGE) as usize];
        assert_eq!(runs, [(id.clone(), 0, was(1)), (id.clone(), 6 * PAGE, was(2))]);
        let more = vec![0..PAGE, PAGE..2 * PAGE];
        assert_eq!(held.take(&id, &memory, more.clone()).expect("inside"), more, "it is full");
        let outside = vec![0..PAGE, 7 * PAGE..9 * PAGE];
        Held::with_room(PAGE as usize * 8).take(&id, &memory, outside).expect_err("outside");
    }
}
