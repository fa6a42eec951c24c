//! `dcd inspect`: what stands at a path of the state, at any record, or in a snapshot.

use std::path::PathBuf;

use device::Seq;
use device::inspect::{self, Path, Value};
use journal::form::Keyframe;
use replay::HistoryError;
use serde_json::json;

use crate::question::{json_of_all, lines_of, seq};
use crate::reading::archived;
use crate::{place, print_text, snapshot_place};

/// Print what stands at a path of the state, at the end of a journal, after any of its records, or in a snapshot.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd inspect devices.cxl-vmem0.extents.accepted[0x40000000] --at 312\n         \
                        dcd inspect backends.tm0 --snapshot /var/lib/dcd/snapshots/monday\n\n\
                        The tree: config, runs, plugs, backends.ID, devices.ID.{port,config,mailbox,extents,windows}. \
                        Things that are no plain word stand in brackets: [0x40000000], [#80], [UUID], [0].")]
pub(crate) struct Inspect {
    /// Where to look; default: the whole state.
    #[arg(default_value = "")]
    path: Path,
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    #[arg(long, value_name = "JOURNAL")]
    journal: Option<PathBuf>,
    /// The record after which to look; default: the last one.
    #[arg(long, value_name = "#N", value_parser = seq)]
    at: Option<Seq>,
    /// Look into this snapshot, or that in a packed file, and not into a journal.
    #[arg(long, value_name = "DIR/NAME|FILE", conflicts_with_all = ["journal", "at"])]
    snapshot: Option<PathBuf>,
    /// Print one JSON object: path by path, its value.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Prints it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if let Some(path) = &self.snapshot {
            let Keyframe { seq, time: _, vm } = snapshot_place::keyframe_at(path)?;
            let values = inspect::values(&vm, &self.path).map_err(|error| HistoryError::Path { at: seq, error })?;
            return self.print(seq, &values);
        }
        let place = self.journal.clone().map_or_else(place::journal, Ok)?;
        // Of a long journal the keyframe before the record and what is behind it.
        let (archived, _tail) = archived(&place)?;
        let at = self.at.unwrap_or(archived.last());
        let fold = archived.at(at)?;
        let values = inspect::values(fold.vm(), &self.path).map_err(|error| HistoryError::Path { at, error })?;
        self.print(at, &values)
    }

    fn print(&self, at: Seq, values: &[(String, Value)]) -> anyhow::Result<()> {
        if self.json {
            return print_text(&format!("{}\n", json!({"at": at.0, "state": json_of_all(values)})));
        }
        match values {
            [] => print_text(&format!("{} is empty after {at}\n", self.path)),
            values => print_text(&lines_of(values)),
        }
    }
}
