//! A memory's bytes through the chain: of the snapshots that hold a page, the newest has it.
//!
//! ```text
//!  newest   ·  ·  D  ·  0  ·  ·       D bytes, 0 zeros, · nothing held
//!  parent   ·  D  D  ·  D  D  ·
//!  oldest   D  D  ·  ·  D  ·  ·
//!           ─────────────────────
//!  page of  o  p  n  0  0  p  0
//! ```
//!
//! [`Snapshot::load`] reads every snapshot of the chain whole, since a digest is of all of it, and writes what shows.
//! Deliberately absent: mapping, which is for whoever owns the memory.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memory::HostMemory;
use rangemap::{RangeMap, RangeSet};

use crate::error::SnapshotError;
use crate::layer::Layer;
use crate::manifest::{Base, Contents, Memory};
use crate::name::ContentsId;
use crate::pages;
use crate::runs::{Fill, Run, Runs};
use crate::snapshot::Snapshot;

/// A stretch of a memory, and the file that has its bytes.
#[derive(Clone, Debug)]
pub struct FileRun {
    /// Where it begins in the memory: a multiple of [`crate::format::PAGE_BYTES`].
    pub offset_bytes: u64,
    /// Its length: whole pages, but at the end of a memory that is none.
    pub len_bytes: u64,
    /// The file, open to be read.
    pub file: Arc<File>,
    /// Where it begins in the file.
    pub file_offset_bytes: u64,
}

/// What one snapshot holds of a memory.
pub(crate) struct Held<'a> {
    pub(crate) layer: &'a Layer,
    pub(crate) runs: &'a Runs,
}

/// Of each page that has bytes, which of the snapshots shows; the newest is 0.
pub(crate) type Shown = RangeMap<u64, usize>;

/// The snapshots that hold a memory, from the newest down to the one that lies on zeros.
pub(crate) fn held<'a>(snapshot: &'a Snapshot, id: &ContentsId) -> Vec<Held<'a>> {
    let mut held = Vec::new();
    for layer in snapshot.layers.iter() {
        let (Some(runs), Some(memory)) = (layer.runs(id), layer.manifest.memory(id)) else { break };
        held.push(Held { layer, runs });
        if memory.contents == Contents::Copied(Base::Zeros) {
            break;
        }
    }
    held
}

pub(crate) fn shown(held: &[Held<'_>]) -> Shown {
    let mut shown = Shown::new();
    for (number, Held { runs, .. }) in held.iter().enumerate().rev() {
        for Run { pages, fill } in runs.iter() {
            match fill {
                Fill::Data => shown.insert(pages.clone(), number),
                Fill::Zeros => shown.remove(pages.clone()),
            }
        }
    }
    shown
}

/// The pages of a memory that have bytes in a chain.
pub(crate) fn pages_with_bytes(snapshot: &Snapshot, id: &ContentsId) -> RangeSet<u64> {
    shown(&held(snapshot, id)).iter().map(|(pages, _)| pages.clone()).collect()
}

impl Snapshot {
    /// Fills a memory of zeros with the bytes of this one. `progress` hears bytes done and bytes in all.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NoMemory`], [`SnapshotError::ByReference`], [`SnapshotError::Length`] before anything is written.
    /// [`SnapshotError::Damaged`] and [`SnapshotError::File`] name the file whose bytes are not those that were stored: the
    /// memory holds some of them then, and is of no use.
    pub fn load(
        &self,
        id: &ContentsId,
        memory: &HostMemory,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<(), SnapshotError> {
        let stored = self.copied(id)?;
        let (expected_bytes, found_bytes) = (stored.len_bytes, memory.len_bytes());
        if expected_bytes != found_bytes {
            let (snapshot, id) = (self.name().to_string(), id.to_string());
            return Err(SnapshotError::Length { snapshot, id, expected_bytes, found_bytes });
        }
        let held = held(self, id);
        let shown = shown(&held);
        let total = held.iter().map(|held| held.runs.data_bytes(expected_bytes)).sum();
        let mut done = 0;
        for (number, Held { layer, runs }) in held.iter().enumerate() {
            layer.read_contents(stored, runs, |offset, piece| {
                write_shown(memory, &shown, number, offset, piece)?;
                done += piece.len() as u64;
                progress(done, total);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Where the bytes of a memory are, to be mapped privately: ascending, each of one file, none over another; what is
    /// between them is zeros. Nothing is checked of the bytes.
    ///
    /// A host maps only so many stretches (`vm.max_map_count`, 65530). Where a file has zeros for a gap between two stretches
    /// of it, and the gap has at most `bridged_bytes`, they are given as one; with 0 there are only stretches that were
    /// stored.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NoMemory`], [`SnapshotError::ByReference`]; [`SnapshotError::Damaged`] or [`SnapshotError::File`] for
    /// a file that is not there or has not its length.
    pub fn runs(&self, id: &ContentsId, bridged_bytes: u64) -> Result<Vec<FileRun>, SnapshotError> {
        let Memory { len_bytes, .. } = self.copied(id)?;
        let held = held(self, id);
        let bridged = bridged(&shown(&held), &held, bridged_bytes / pages::PAGE_BYTES);
        let mut files: Vec<Option<Arc<File>>> = vec![None; held.len()];
        let mut runs = Vec::new();
        for (pages, number) in bridged {
            let file = match &files[number] {
                Some(file) => file.clone(),
                None => Arc::new(held[number].layer.open_file(&id.file_name())?),
            };
            files[number] = Some(file.clone());
            let Range { start, end } = pages::bytes(&pages, *len_bytes);
            runs.push(FileRun { offset_bytes: start, len_bytes: end - start, file, file_offset_bytes: start });
        }
        Ok(runs)
    }
}

/// Writes of a piece what no newer snapshot hides.
fn write_shown(memory: &HostMemory, shown: &Shown, number: usize, offset: u64, piece: &[u8]) -> io::Result<()> {
    let end = offset + piece.len() as u64;
    for (pages, _) in shown.overlapping(pages::touched(&(offset..end))).filter(|(_, other)| **other == number) {
        let bytes = pages::bytes(pages, end);
        let from = bytes.start.max(offset);
        let show = &piece[(from - offset) as usize..(bytes.end - offset) as usize];
        memory.write(from, show).map_err(io::Error::other)?;
    }
    Ok(())
}

/// Stretches of one snapshot as one, where what is between them is short and its file has nothing there.
fn bridged(shown: &Shown, held: &[Held<'_>], pages_max: u64) -> Vec<(Range<u64>, usize)> {
    let mut bridged: Vec<(Range<u64>, usize)> = Vec::new();
    for (pages, number) in shown.iter() {
        match bridged.last_mut() {
            Some((last, other))
                if other == number
                    && pages.start - last.end <= pages_max
                    && !held[*number].runs.has_data_in(&(last.end..pages.start)) =>
            {
                last.end = pages.end;
            }
            _ => bridged.push((pages.clone(), *number)),
        }
    }
    bridged
}
