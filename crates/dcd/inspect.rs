//! `dcd inspect`: what stands at a path of the state, at any record.

use std::path::PathBuf;

use device::Seq;
use device::inspect::{self, Path};
use replay::HistoryError;
use serde_json::json;

use crate::print_text;
use crate::question::{Asked, json_of_all, lines_of, seq};

/// Print what stands at a path of the state, at the end of a journal or after any of its records.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd inspect devices.cxl-vmem0.extents.accepted[0x40000000] --at 312\n\n\
                        The tree: config, runs, plugs, backends.ID, devices.ID.{port,config,mailbox,extents,windows}. \
                        Things that are no plain word stand in brackets: [0x40000000], [#80], [UUID], [0].")]
pub(crate) struct Inspect {
    /// Where to look; default: the whole state.
    #[arg(default_value = "")]
    path: Path,
    /// The journal's directory; default: that of the latest bare `dcd run`.
    #[arg(long, value_name = "DIR")]
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
        let mut asked = Asked::open(self.journal.as_deref())?;
        let at = self.at.unwrap_or(asked.history.last());
        let fold = asked.history.at(at)?;
        let values = inspect::values(fold.vm(), &self.path)
            .map_err(|error| asked.no_answer(HistoryError::Path { at, error }, at))?;
        if self.json {
            return print_text(&format!("{}\n", json!({"at": at.0, "state": json_of_all(&values)})));
        }
        match &values[..] {
            [] => print_text(&format!("{} is empty after {at}\n", self.path)),
            values => print_text(&lines_of(values)),
        }
    }
}
