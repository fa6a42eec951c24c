//! `dcd laws`: what is true of every state.

use device::laws::LAWS;
use serde_json::json;

use crate::{print_line, print_text};

/// List the laws: what is true of the device after every record, each with its sentence.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd laws && dcd bisect --law extents-disjoint")]
pub(crate) struct Laws {
    /// Print one JSON object a law.
    #[arg(long)]
    json: bool,
}

impl Laws {
    /// Prints them.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.json {
            return LAWS
                .iter()
                .try_for_each(|law| print_line(&json!({"name": law.name, "sentence": law.sentence}).to_string()));
        }
        let width = LAWS.iter().map(|law| law.name.len()).max().unwrap_or_default();
        let lines: String = LAWS.iter().map(|law| format!("{:width$}  {}\n", law.name, law.sentence)).collect();
        print_text(&lines)
    }
}
