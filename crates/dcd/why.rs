//! `dcd why`: the record that last wrote a path.

use std::path::PathBuf;

use device::Seq;
use device::inspect::Path;
use journal::record::Parent;
use replay::{Archived, History, Origin, Written, origin};
use serde_json::json;

use crate::progress::Progress;
use crate::question::{Asked, json_of_changes, json_of_start, lines_of_changes, lines_of_start, seq};
use crate::reading::archived;
use crate::{place, print_text, shell};

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
        let (written, history) = self.written(&archived, at)?;
        let asked = Asked { dir: place, history };
        let is_recorded = written.by > asked.history.start().last();
        let record = if is_recorded { Some(asked.history.record(written.by)?) } else { None };
        if self.json {
            let row = record.map(|record| asked.row(record));
            let changes = if is_recorded { json_of_changes(&written.changes) } else { json_of_start(&written.changes) };
            return print_text(&format!("{}\n", json!({"by": written.by.0, "record": row, "changes": changes})));
        }
        let (told, lines) = match record {
            Some(record) => (asked.told(record), lines_of_changes(&written.changes)),
            None => (self.told_start(&asked, written.by), lines_of_start(&written.changes)),
        };
        print_text(&format!("{told}\n{lines}"))
    }

    /// Who wrote it, and the stretch of the journal in which that is.
    fn written(&self, archived: &Archived, at: Seq) -> anyhow::Result<(Written, History)> {
        let (before, last) = (archived.before(), archived.last());
        if at > before && at <= last {
            let mut progress = Progress::new("why");
            let why = archived.why(&self.path, at, &mut |done, total| progress.bar(done, total));
            drop(progress);
            return Ok(why?);
        }
        // The first state is behind no record, and a position that is not there is refused as it was asked.
        let start = archived.at(at)?;
        let history = History::behind(archived.genesis().clone(), start, Vec::new());
        Ok((history.why(&self.path, at)?, history))
    }

    /// That it is so in the first state, and who may know more.
    fn told_start(&self, asked: &Asked, first: Seq) -> String {
        match origin(asked.history.genesis(), first) {
            Origin::PowerOn => "so from the start: no record wrote it".to_owned(),
            Origin::Removed => {
                format!("so after {first}, which is the first state that is there: what came before was removed")
            }
            Origin::Parent(parent) => {
                let Parent { journal, shared: _, change } = parent;
                let told = format!("so at {first} already, where this journal begins: {change} of {journal}");
                match asked.parent_place(parent) {
                    Some(place) => {
                        let (path, place) = (shell::word(&self.path.to_string()), shell::path(&place));
                        format!("{told}\nask there: dcd why {path} --journal {place} --at {}", first.0)
                    }
                    None => told,
                }
            }
        }
    }
}
