//! The journal that a verb reads: a directory, whose owner is asked where it is open, or one file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use device::Seq;
use journal::portable::{About, Attached, read_attached, read_file};
use journal::record::Genesis;
use journal::{Archive, OpenError, Recovered};
use replay::Archived;

use crate::journal_verb::Opened;
use crate::owner::Tail;
use crate::place;

/// A journal that was read; its records are not decoded yet.
pub(crate) struct Reading {
    /// Where it is.
    pub(crate) place: PathBuf,
    /// What is in it.
    pub(crate) recovered: Recovered,
    /// What a file says of itself; `None` of a directory.
    pub(crate) about: Option<About>,
}

impl Reading {
    /// Reads a journal; where none is named, that of the latest bare `dcd run`.
    pub(crate) fn open(place: Option<&Path>) -> anyhow::Result<Self> {
        let place = place.map_or_else(place::journal, |place| Ok(place.to_owned()))?;
        let (recovered, about) = if place.is_file() {
            let (recovered, about) = read_file(&place)?;
            (recovered, Some(about))
        } else {
            (read_directory(&place)?, None)
        };
        Ok(Self { place, recovered, about })
    }

    /// Its genesis and its records.
    pub(crate) fn decode(&self) -> anyhow::Result<Opened> {
        self.decoded().with_context(|| format!("the journal in {}", self.place.display()))
    }

    /// What goes with it in its file; nothing of a directory.
    pub(crate) fn attached(&self) -> anyhow::Result<Vec<Attached>> {
        if self.about.is_some() { Ok(read_attached(&self.place)?) } else { Ok(Vec::new()) }
    }

    fn decoded(&self) -> anyhow::Result<Opened> {
        let genesis = Genesis::of(&self.recovered).context("genesis")?;
        let start = replay::start_of(&genesis, self.recovered.base.as_ref())?;
        let records = self.recovered.records.iter().map(replay::record_of).collect::<Result<_, _>>()?;
        Ok(Opened { genesis, start, records })
    }
}

fn read_directory(dir: &Path) -> anyhow::Result<Recovered> {
    match journal::read(dir) {
        Err(OpenError::Held { .. }) => Ok(journal::read_open(dir, &Tail::of(dir)?.path())?),
        read => Ok(read?),
    }
}

/// A journal of which only what is asked for will be read.
pub(crate) fn archived(place: &Path) -> anyhow::Result<(Archived, Option<Tail>)> {
    if place.is_file() {
        return Ok((Archived::new(Archive::of_file(place)?)?, None));
    }
    match Archive::of_directory(place) {
        Err(OpenError::Held { .. }) => {
            let tail = Tail::of(place)?;
            Ok((Archived::new(Archive::of_open_directory(place, &tail.path())?)?, Some(tail)))
        }
        archive => Ok((Archived::new(archive?)?, None)),
    }
}

/// How far a journal is intact, in words.
pub(crate) fn intact(last: Seq) -> String {
    if last == Seq(0) { "the genesis is intact".to_owned() } else { format!("records up to {last} are intact") }
}
