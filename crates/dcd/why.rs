//! `dcd why`: the record that last wrote a path.

use std::path::PathBuf;

use device::Seq;
use device::inspect::Path;
use serde_json::json;

use crate::print_text;
use crate::question::{Asked, json_of_changes, lines_of_changes, seq};

/// Name the record that last changed what stands at a path: its input, who asked, and what it replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd why backends.tm0.holder --at 312")]
pub(crate) struct Why {
    /// Where to look.
    path: Path,
    /// The journal's directory; default: that of the latest bare `dcd run`.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// Up to this record; default: the last one.
    #[arg(long, value_name = "#N", value_parser = seq)]
    at: Option<Seq>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Why {
    /// Finds it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut asked = Asked::open(self.journal.as_deref())?;
        let at = self.at.unwrap_or(asked.history.last());
        let written = asked.history.why(&self.path, at);
        let written = written.map_err(|error| asked.no_answer(error, at.min(asked.history.last())))?;
        let record = if written.by == Seq(0) { None } else { Some(asked.history.record(written.by)?) };
        if self.json {
            let row = record.map(|record| asked.row(record));
            let changes = json_of_changes(&written.changes);
            return print_text(&format!("{}\n", json!({"by": written.by.0, "record": row, "changes": changes})));
        }
        let told = match record {
            Some(record) => asked.told(record),
            None => "so from the start: no record wrote it".to_owned(),
        };
        print_text(&format!("{told}\n{}", lines_of_changes(&written.changes)))
    }
}
