//! A journal of which any part can be read without the rest.
//!
//! ```text
//! DIR/sealed/… ─ index ─▶ keyframe, records of a span        opened when they are asked for
//! the rest     ─────────▶ in memory: what no file has yet     at most two generations
//! FILE         ─ index ─▶ keyframe, records of a span
//! ```
//!
//! What is read is checked by itself: segments and frames by their checksums, records by their sequence. Deliberately absent:
//! the chain, which only a reading of all can follow (`read`, `dcd journal verify`).

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use device::Seq;

use crate::{
    directory::Directory,
    keyframe::StoredKeyframe,
    opening::newest_records,
    portable::{Index, check_file},
    recover::{Damage, DamageCause, OpenError, Stored},
};

/// Who is shown records, one after the other: each with the version of its body, until he breaks off.
pub type Visit<'a> = dyn FnMut(Seq, u16, &[u8]) -> ControlFlow<()> + 'a;

/// A journal, to be read here and there.
#[derive(Debug)]
pub struct Archive {
    genesis: Stored,
    /// Ascending, without a gap.
    files: Vec<File>,
    /// Records behind the files, the first of them behind `before_rest`.
    rest: Vec<Stored>,
    before_rest: Seq,
}

/// A file of records, from `first` to `last`.
#[derive(Debug)]
struct File {
    first: Seq,
    last: Seq,
    path: PathBuf,
    index: OnceLock<Index>,
}

impl File {
    fn index(&self) -> Result<&Index, OpenError> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let index = Index::open(&self.path).map_err(|cause| self.damaged(cause))?;
        Ok(self.index.get_or_init(|| index))
    }

    fn damaged(&self, cause: DamageCause) -> OpenError {
        let intact = self.first.0.checked_sub(1).map(Seq);
        OpenError::Damaged { place: self.path.display().to_string(), damage: Damage { intact, cause } }
    }
}

impl Archive {
    /// The journal in a directory, which nobody may have open.
    ///
    /// # Errors
    /// If there is none, another has it open, or what no file has is damaged.
    pub fn of_directory(dir: &Path) -> Result<Archive, OpenError> {
        let (genesis, before, mut rest) = newest_records(dir)?;
        let files = files_up_to(dir, Seq(u64::MAX))?;
        let before_rest = files.last().map_or(before, |file| file.last);
        rest.retain(|stored| stored.seq > before_rest);
        Ok(Archive { genesis, files, rest, before_rest })
    }

    /// The journal in a directory that another has open, with the tail that he wrote into a file.
    ///
    /// # Errors
    /// If the tail cannot be read.
    pub fn of_open_directory(dir: &Path, tail: &Path) -> Result<Archive, OpenError> {
        let Archive { genesis, files: tail, .. } = Archive::of_file(tail)?;
        let before_tail = tail.first().map_or(Seq(0), |file| Seq(file.first.0.saturating_sub(1)));
        let mut files = files_up_to(dir, before_tail)?;
        files.extend(tail);
        let before_rest = files.last().map_or(Seq(0), |file| file.last);
        Ok(Archive { genesis, files, rest: Vec::new(), before_rest })
    }

    /// The journal in one file.
    ///
    /// # Errors
    /// If the file cannot be read or is not one.
    pub fn of_file(path: &Path) -> Result<Archive, OpenError> {
        if !path.exists() {
            return Err(OpenError::Missing { place: path.display().to_string() });
        }
        check_file(path)?;
        let damaged = |cause| {
            let damage = Damage { intact: None, cause };
            OpenError::Damaged { place: path.display().to_string(), damage }
        };
        let index = Index::open(path).map_err(damaged)?;
        let (before, last) = index.span();
        let genesis = index.genesis().map_err(damaged)?;
        let genesis = genesis.ok_or_else(|| OpenError::Unfinished { place: path.display().to_string() })?;
        let file = File {
            first: Seq(before.map_or(0, |before| before.0 + 1)),
            last,
            path: path.to_owned(),
            index: index.into(),
        };
        Ok(Archive { genesis, files: vec![file], rest: Vec::new(), before_rest: last })
    }

    /// The last record that is in no tail, of an open directory.
    pub(crate) fn before_tail(&self) -> Seq {
        self.files.last().map_or(Seq(0), |tail| Seq(tail.first.0.saturating_sub(1)))
    }

    /// What the journal was created with.
    pub fn genesis(&self) -> &Stored {
        &self.genesis
    }

    /// The record before the first that is there; `#0` where none is gone.
    pub fn before(&self) -> Seq {
        self.files.first().map_or(self.before_rest, |file| Seq(file.first.0.saturating_sub(1)))
    }

    /// The last record; `#0` where there is none.
    pub fn last(&self) -> Seq {
        Seq(self.before_rest.0 + self.rest.len() as u64)
    }

    /// The last keyframe that is not behind a record, if there is one.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn keyframe(&self, seq: Seq) -> Result<Option<StoredKeyframe>, OpenError> {
        for file in self.files.iter().rev().filter(|file| file.first.0 <= seq.0 + 1) {
            if let Some(keyframe) = file.index()?.keyframe(seq).map_err(|cause| file.damaged(cause))? {
                return Ok(Some(keyframe));
            }
        }
        Ok(None)
    }

    /// The records on which the keyframes stand, ascending; where one file ends and the next begins there are two.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn keyframes(&self) -> Result<Vec<Seq>, OpenError> {
        let mut keyframes = Vec::new();
        for file in &self.files {
            keyframes.extend(file.index()?.keyframes().filter(|seq| *seq <= file.last));
        }
        Ok(keyframes)
    }

    /// The records from `first` to `last`, of those that are there.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn records(&self, first: Seq, last: Seq) -> Result<Vec<Stored>, OpenError> {
        let mut records = Vec::new();
        self.visit(first, last, &mut |seq, version, body| {
            records.push(Stored { seq, version, body: body.to_vec() });
            ControlFlow::Continue(())
        })?;
        Ok(records)
    }

    /// Shows the records from `first` to `last`, of those that are there, one after the other, until `visit` breaks off: each
    /// with the version of its body, and that where it was unpacked. Of a long journal no more is in memory than a segment.
    ///
    /// # Errors
    /// If one cannot be read. Those before it were shown.
    pub fn visit(&self, first: Seq, last: Seq, visit: &mut Visit<'_>) -> Result<(), OpenError> {
        let (first, last) = (Seq(first.0.max(self.before().0 + 1)), Seq(last.0.min(self.last().0)));
        let (mut due, mut stored) = (first, None);
        let flow = self.show(first, last, &mut |seq, version, body| {
            if seq != due {
                stored = Some(seq);
                return ControlFlow::Break(());
            }
            due.0 += 1;
            visit(seq, version, body)
        })?;
        let stored = stored.or((flow.is_continue() && due <= last).then_some(last));
        let Some(stored) = stored else { return Ok(()) };
        let damage = Damage { intact: Some(self.before()), cause: DamageCause::Gap { stored, expected: due } };
        Err(OpenError::Damaged { place: self.place(), damage })
    }

    /// The same, whether or not they are a row.
    fn show(&self, first: Seq, last: Seq, visit: &mut Visit<'_>) -> Result<ControlFlow<()>, OpenError> {
        for file in self.files.iter().filter(|file| file.first <= last && file.last >= first) {
            let (from, until) = (Seq(first.0.max(file.first.0).max(1)), Seq(last.0.min(file.last.0)));
            if file.index()?.visit(from, until, visit).map_err(|cause| file.damaged(cause))?.is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        let mut rest = self.rest.iter().filter(|stored| (first..=last).contains(&stored.seq));
        Ok(rest.try_for_each(|Stored { seq, version, body }| visit(*seq, *version, body)))
    }

    fn place(&self) -> String {
        self.files.first().map_or_else(String::new, |file| file.path.display().to_string())
    }
}

/// The sealed files of a directory that hold records up to one.
fn files_up_to(dir: &Path, last: Seq) -> Result<Vec<File>, OpenError> {
    let files = Directory::new(dir).sealed_files()?.into_iter().filter(|file| file.first <= last);
    let file = |file: crate::SealedFile| File {
        first: file.first,
        last: Seq(file.last.0.min(last.0)),
        path: file.path,
        index: OnceLock::new(),
    };
    Ok(files.map(file).collect())
}
