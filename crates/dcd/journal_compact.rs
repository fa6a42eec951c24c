//! `dcd journal compact`: seals a journal's records into files, and removes the oldest.

use std::path::PathBuf;

use anyhow::bail;
use journal::record::Genesis;
use journal::{OpenError, Opening, Sealing};
use replay::{Followed, start_of};

use crate::{options, place, print_line, size};

/// Seal all records of a journal into packed files, and remove the oldest of these.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd journal compact ~/.local/state/dcd/journal --keep 100M\n\n\
                        A running dcd does the same by itself: dcd run --keep 100M. What is removed can be asked no more; \
                        what is left begins with the state behind it. To keep it elsewhere, export it first.")]
pub(crate) struct Compact {
    /// The journal's directory; default: that of the latest bare `dcd run`.
    journal: Option<PathBuf>,
    /// Disk that the files may take; default: all stay.
    #[arg(long, value_parser = options::size, value_name = "SIZE")]
    keep: Option<u64>,
}

impl Compact {
    /// Compacts.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let dir = self.journal.clone().map_or_else(place::journal, Ok)?;
        let opening = match Opening::of(&dir) {
            Err(error @ OpenError::Held { .. }) => bail!("{error}; an open journal is kept short by dcd run --keep"),
            opening => opening?,
        };
        let recovered = opening.recovered();
        let start = start_of(&Genesis::of(recovered)?, recovered.base.as_ref())?;
        // Where what cannot be followed is an error of the compaction itself.
        let on_unfit = Box::new(|_, _| ());
        let (_, follower) = Followed::new(start);
        let (seal_bytes, keep_bytes) = (Sealing::SEAL_BYTES, self.keep);
        opening.compact(Sealing { follower, seal_bytes, keep_bytes, on_unfit })?;
        let read = journal::read(&dir)?;
        let held_bytes: u64 = journal::sealed_files(&dir)?.iter().map(|file| file.len_bytes).sum();
        print_line(&format!(
            "{}: records behind {} up to {}, sealed in {}",
            dir.display(),
            read.before(),
            read.last,
            size::people(held_bytes)
        ))
    }
}
