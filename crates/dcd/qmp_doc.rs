//! `dcd qmp-doc`: what a QMP command or event means, from the schema that requests are checked against.

use anyhow::anyhow;
use qmp::doc;

use crate::print_text;

/// Print what a QMP command or event means; without a name, list all of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: dcd qmp-doc\n          dcd qmp-doc cxl-add-dynamic-capacity")]
pub(crate) struct QmpDoc {
    /// The command or event.
    #[arg(value_name = "COMMAND")]
    name: Option<String>,
}

impl QmpDoc {
    /// Prints.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let text = match &self.name {
            None => doc::index(qmp::COMMANDS, qmp::EVENTS),
            Some(name) => doc::page(qmp::COMMANDS, qmp::EVENTS, name)
                .map_err(|unknown| anyhow!("{unknown}; `dcd qmp-doc` lists all"))?,
        };
        print_text(&text)
    }
}
