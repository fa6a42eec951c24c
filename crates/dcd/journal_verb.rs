//! `dcd journal`: looks into a journal.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;
use journal::Recovered;
use journal::record::{Genesis, Record};

use crate::{print_line, table};

/// Look into a journal.
#[derive(Debug, clap::Args)]
pub(crate) struct Journal {
    #[command(subcommand)]
    verb: JournalVerb,
}

#[derive(Debug, Subcommand)]
enum JournalVerb {
    /// List the records of a journal that no process holds.
    #[command(after_help = "Example: dcd journal show ~/.local/state/dcd/journal")]
    Show {
        /// The journal's directory.
        dir: PathBuf,
        /// Print one JSON object a record, with everything that is in it.
        #[arg(long)]
        json: bool,
    },
}

impl Journal {
    /// Does it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match &self.verb {
            JournalVerb::Show { dir, json } => show(dir, *json),
        }
    }
}

/// A journal whose records are read.
pub(crate) struct Opened {
    /// What the VM was started as.
    pub(crate) genesis: Genesis,
    /// Its records.
    pub(crate) records: Vec<Record>,
}

/// Reads a journal that no process holds.
pub(crate) fn open(dir: &Path) -> anyhow::Result<Opened> {
    decode(&journal::read(dir)?).with_context(|| format!("the journal in {}", dir.display()))
}

fn decode(recovered: &Recovered) -> anyhow::Result<Opened> {
    let genesis = Genesis::of(recovered).context("genesis")?;
    let record = |stored: &journal::Stored| Record::from_stored(stored).with_context(|| stored.seq.to_string());
    Ok(Opened { genesis, records: recovered.records.iter().map(record).collect::<Result<_, _>>()? })
}

fn show(dir: &Path, json: bool) -> anyhow::Result<()> {
    let Opened { genesis, records } = open(dir)?;
    if !json {
        return print_line(&table::table(&table::rows(&records)));
    }
    print_line(&serde_json::to_string(&serde_json::json!({"genesis": genesis}))?)?;
    records.iter().try_for_each(|record| print_line(&serde_json::to_string(record)?))
}
