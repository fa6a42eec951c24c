//! `dcd why`: the record that last wrote a path.

use std::path::PathBuf;

use anyhow::anyhow;
use device::Seq;
use device::inspect::Path;
use serde_json::json;

use crate::question::{Asked, json_of_changes, lines_of_changes, replay_line, seq};
use crate::reading::archived;
use crate::{place, print_text};

/// Name the record that last changed what stands at a path: its input, who asked, and what it replaced.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd why backends.tm0.holder --at 312")]
pub(crate) struct Why {
    /// Where to look.
    path: Path,
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    #[arg(long, value_name = "JOURNAL")]
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
        let place = self.journal.clone().map_or_else(place::journal, Ok)?;
        // Of a long journal as little as is needed, from its end on.
        let (archived, _tail) = archived(&place)?;
        let at = self.at.unwrap_or(archived.last());
        let why = archived.why(&self.path, at);
        let (written, history) =
            why.map_err(|error| anyhow!("{error}\n{}", replay_line(&place, at.min(archived.last()))))?;
        let asked = Asked { dir: place, history };
        let is_recorded = written.by > asked.history.start().last();
        let record = if is_recorded { Some(asked.history.record(written.by)?) } else { None };
        if self.json {
            let row = record.map(|record| asked.row(record));
            let changes = json_of_changes(&written.changes);
            return print_text(&format!("{}\n", json!({"by": written.by.0, "record": row, "changes": changes})));
        }
        let told = match record {
            Some(record) => asked.told(record),
            None if written.by == Seq(0) => "so from the start: no record wrote it".to_owned(),
            None => {
                format!("so after {}, which is the first state that is there: what came before was removed", written.by)
            }
        };
        print_text(&format!("{told}\n{}", lines_of_changes(&written.changes)))
    }
}
