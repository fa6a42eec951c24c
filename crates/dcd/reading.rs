//! The journal that a verb reads: a directory, whose owner is asked where it is open, or one file.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use device::Seq;
use journal::portable::{About, Attached, read_attached, read_file};
use journal::record::Genesis;
use journal::{Archive, OpenError, Recovered, remains};
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
            let (recovered, about) = opened(&place, read_file(&place))?;
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
        read => opened(dir, read),
    }
}

/// A journal of which only what is asked for will be read.
pub(crate) fn archived(place: &Path) -> anyhow::Result<(Archived, Option<Tail>)> {
    if place.is_file() {
        return Ok((Archived::new(opened(place, Archive::of_file(place))?)?, None));
    }
    match Archive::of_directory(place) {
        Err(OpenError::Held { .. }) => {
            let tail = Tail::of(place)?;
            Ok((Archived::new(Archive::of_open_directory(place, &tail.path())?)?, Some(tail)))
        }
        archive => Ok((Archived::new(opened(place, archive)?)?, None)),
    }
}

/// What of a journal is intact, in words.
pub(crate) fn intact(recovered: &Recovered) -> String {
    match (recovered.before(), recovered.last) {
        (Seq(0), Seq(0)) => "the genesis is intact".to_owned(),
        (Seq(0), last) => format!("records up to {last} are intact"),
        // What stood before a state may have been removed on purpose, or is lost.
        (before, last) if before == last => format!("the state after {last} is intact, and no record"),
        (before, last) => format!("the state after {before} is intact, and the records behind it up to {last}"),
    }
}

/// What was opened. What is no journal is not called a damaged one: nothing could be taken out of it.
fn opened<T>(place: &Path, opened: Result<T, OpenError>) -> anyhow::Result<T> {
    match opened {
        Err(OpenError::Missing { .. }) if !place.exists() => {
            bail!("there is no {}: name a journal, or make one: dcd run --journal DIR", place.display())
        }
        Err(OpenError::Damaged { damage, .. }) if damage.intact.is_none() && has_nothing(place) => {
            let (place, cause) = (place.display(), damage.cause);
            bail!("{place} is no journal, or nothing is left of it: not one whole record is in it ({cause})")
        }
        opened => Ok(opened?),
    }
}

/// Whether there is nothing that a salvage would find.
fn has_nothing(place: &Path) -> bool {
    remains::find(place).is_ok_and(|found| found.prefix.is_none() && found.beyond.is_empty())
}
