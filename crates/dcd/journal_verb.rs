//! `dcd journal`: looks into a journal, moves it, and takes out what is left of it.

use std::path::PathBuf;

use clap::Subcommand;
use device::Seq;
use journal::record::{Genesis, Record};
use replay::{Fold, lineage};

use crate::journal_compact::Compact;
use crate::journal_file::{Export, Import, Pack};
use crate::journal_salvage::Salvage;
use crate::journal_stats::Stats;
use crate::journal_verify::Verify;
use crate::reading::Reading;
use crate::{print_line, table};

/// Look into a journal, move it, or take out what is left of it.
#[derive(Debug, clap::Args)]
pub(crate) struct Journal {
    #[command(subcommand)]
    verb: JournalVerb,
}

#[derive(Debug, Subcommand)]
enum JournalVerb {
    /// List the records of a journal.
    #[command(after_help = "Example: dcd journal show ~/.local/state/dcd/journal")]
    Show {
        /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
        journal: Option<PathBuf>,
        /// Print one JSON object a record, with everything that is in it.
        #[arg(long)]
        json: bool,
    },
    Verify(Verify),
    Stats(Stats),
    Export(Export),
    Import(Import),
    Pack(Pack),
    Compact(Compact),
    Salvage(Salvage),
}

impl Opened {
    /// Where it is from, in lines; none of one that was run from power-on on.
    pub(crate) fn lineage(&self) -> String {
        lineage(&self.genesis, self.start.last()).into_iter().map(|line| line + "\n").collect()
    }
}

impl Journal {
    /// Does it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match &self.verb {
            JournalVerb::Show { journal, json } => show(&Reading::open(journal.as_deref())?, *json),
            JournalVerb::Verify(verify) => verify.run(),
            JournalVerb::Stats(stats) => stats.run(),
            JournalVerb::Export(export) => export.run(),
            JournalVerb::Import(import) => import.run(),
            JournalVerb::Pack(pack) => pack.run(),
            JournalVerb::Compact(compact) => compact.run(),
            JournalVerb::Salvage(salvage) => salvage.run(),
        }
    }
}

/// A journal whose records are read.
pub(crate) struct Opened {
    /// What the VM was started as.
    pub(crate) genesis: Genesis,
    /// The state that its records follow.
    pub(crate) start: Fold,
    /// Its records.
    pub(crate) records: Vec<Record>,
}

fn show(reading: &Reading, json: bool) -> anyhow::Result<()> {
    let Opened { genesis, start, records } = reading.decode()?;
    if !json {
        return table::blocks(table::rows(&start, &records)).try_for_each(|block| print_line(&block));
    }
    let first = match start.last() {
        Seq(0) => serde_json::json!({"genesis": genesis}),
        before => serde_json::json!({"genesis": genesis, "before": before.0}),
    };
    print_line(&first.to_string())?;
    records.iter().try_for_each(|record| print_line(&serde_json::to_string(record)?))
}
