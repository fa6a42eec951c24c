//! Runs: which pages of a memory a snapshot holds, and whether as bytes or as zeros.
//!
//! ```text
//!  ├ gap    ┼ length ┼ gap    ┼ length ...      in pages, each LEB128: seven bits a byte, the lowest first
//!  │ varint │ varint │        │
//!  gap      pages between the run before (the memory's begin) and this one
//!  length   (pages - 1) * 2 + (0: its bytes are in the file, 1: it is zeros)
//! ```
//!
//! Zeros are told apart because a snapshot says so of pages that its parent has bytes for. Pages in no run are as below: the
//! parent's, or zeros. Deliberately absent: holes of the file as a source of this; copies of a file lose them.

use std::ops::Range;

use rangemap::RangeMap;

use crate::pages;

/// Version of this form, which stands with the runs of each memory.
pub const RUNS_VERSION: u32 = 1;

/// Runs of a memory: as many as 128 GiB have if every second page is one.
pub const RUNS_MAX: u64 = 1 << 24;

/// Bytes that the runs of a memory take at most: so much is unpacked of a file whose lengths nobody vouches for.
pub const RUNS_MAX_BYTES: u64 = 64 << 20;

/// Bytes of the longest number.
const VARINT_MAX_BYTES: usize = 10;

/// What the pages of a run are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// Bytes of the file.
    Data,
    /// Zeros.
    Zeros,
}

/// Pages one behind the other that are filled alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) pages: Range<u64>,
    pub(crate) fill: Fill,
}

/// The runs of a memory, ascending; two that touch differ in what they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<Run>);

impl Runs {
    pub(crate) fn of(map: &RangeMap<u64, Fill>) -> Self {
        Self(map.iter().map(|(pages, fill)| Run { pages: pages.clone(), fill: *fill }).collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.0.iter()
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// The pages whose bytes are in the file.
    pub(crate) fn data(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter().filter(|run| run.fill == Fill::Data).map(|run| &run.pages)
    }

    /// Bytes that are in the file.
    pub(crate) fn data_bytes(&self, len_bytes: u64) -> u64 {
        self.data().map(|data| pages::bytes(data, len_bytes)).map(|bytes| bytes.end - bytes.start).sum()
    }

    /// Whether the file has bytes for any of these pages.
    pub(crate) fn has_data_in(&self, pages: &Range<u64>) -> bool {
        let first = self.0.partition_point(|run| run.pages.end <= pages.start);
        let touching = self.0[first..].iter().take_while(|run| run.pages.start < pages.end);
        touching.into_iter().any(|run| run.fill == Fill::Data)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let (mut bytes, mut end) = (Vec::new(), 0);
        for Run { pages, fill } in &self.0 {
            put(&mut bytes, pages.start - end);
            put(&mut bytes, (pages.end - pages.start - 1) << 1 | u64::from(*fill == Fill::Zeros));
            end = pages.end;
        }
        bytes
    }

    /// Reads the runs of a memory of so many pages.
    pub(crate) fn decode(bytes: &[u8], page_count: u64) -> Result<Self, String> {
        let (mut runs, mut rest, mut end) = (Vec::<Run>::new(), bytes, 0u64);
        while !rest.is_empty() {
            let gap = take(&mut rest)?;
            let length = take(&mut rest)?;
            let fill = if length & 1 == 0 { Fill::Data } else { Fill::Zeros };
            let run = end.checked_add(gap).and_then(|start| Some(start..start.checked_add((length >> 1) + 1)?));
            let Some(pages) = run.filter(|pages| pages.end <= page_count) else {
                let number = runs.len() + 1;
                return Err(format!("run {number} reaches beyond the {page_count} pages of the memory"));
            };
            if gap == 0 && runs.last().is_some_and(|last| last.fill == fill) {
                return Err(format!("run {} goes on with the one before it", runs.len() + 1));
            }
            if runs.len() as u64 == RUNS_MAX {
                return Err(format!("there are more than {RUNS_MAX}"));
            }
            end = pages.end;
            runs.push(Run { pages, fill });
        }
        Ok(Self(runs))
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn take(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut number = 0u64;
    for index in 0..VARINT_MAX_BYTES {
        let Some((byte, rest)) = bytes.split_first() else { return Err("they end inside a number".into()) };
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if bits << shift >> shift != bits {
            break;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err("a number in them has more than 64 bits".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_run_is_named() {
        let said = |bytes: &[u8]| Runs::decode(bytes, 10).expect_err("no runs");
        assert_eq!(said(&[0]), "they end inside a number");
        assert_eq!(said(&[0x80]), "they end inside a number");
        assert_eq!(said(&[0xff; 11]), "a number in them has more than 64 bits");
        assert_eq!(said(&[0, 20]), "run 1 reaches beyond the 10 pages of the memory");
        assert_eq!(said(&[3, 0, 7, 0]), "run 2 reaches beyond the 10 pages of the memory");
        let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(said(&[&huge[..], &huge].concat()), "run 1 reaches beyond the 10 pages of the memory");
        assert_eq!(said(&[0, 0, 0, 0]), "run 2 goes on with the one before it");
        assert_eq!(Runs::decode(&[0, 0, 0, 1], 10).expect("they differ").count(), 2);
    }

    proptest! {
        #[test]
        fn runs_come_back(stretches in prop::collection::vec((0u64..1 << 40, 1u64..1 << 30, any::<bool>()), 0..40)) {
            let mut map = RangeMap::new();
            for (start, len, is_zeros) in stretches {
                map.insert(start..start + len, if is_zeros { Fill::Zeros } else { Fill::Data });
            }
            let runs = Runs::of(&map);
            prop_assert_eq!(Runs::decode(&runs.encode(), 1 << 41), Ok(runs));
        }

        #[test]
        fn any_bytes_are_runs_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(runs) = Runs::decode(&bytes, 1 << 20) {
                prop_assert!(runs.iter().all(|run| run.pages.start < run.pages.end && run.pages.end <= 1 << 20));
            }
        }
    }
}
