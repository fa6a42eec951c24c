//! `dcd inspect`: what stands at a path of the state, at any record.

use std::path::PathBuf;

use anyhow::anyhow;
use device::Seq;
use device::inspect::{self, Path};
use replay::HistoryError;
use serde_json::json;

use crate::question::{json_of_all, lines_of, replay_line, seq};
use crate::reading::archived;
use crate::{place, print_text};

/// Print what stands at a path of the state, at the end of a journal or after any of its records.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd inspect devices.cxl-vmem0.extents.accepted[0x40000000] --at 312\n\n\
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
    /// Print one JSON object: path by path, its value.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Prints it.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let place = self.journal.clone().map_or_else(place::journal, Ok)?;
        // Of a long journal the keyframe before the record and what is behind it.
        let (archived, _tail) = archived(&place)?;
        let at = self.at.unwrap_or(archived.last());
        let fold = archived.at(at)?;
        let values = inspect::values(fold.vm(), &self.path).map_err(|error| {
            let error = HistoryError::Path { at, error };
            anyhow!("{error}\n{}", replay_line(&place, at))
        })?;
        if self.json {
            return print_text(&format!("{}\n", json!({"at": at.0, "state": json_of_all(&values)})));
        }
        match &values[..] {
            [] => print_text(&format!("{} is empty after {at}\n", self.path)),
            values => print_text(&lines_of(values)),
        }
    }
}
