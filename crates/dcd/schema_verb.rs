//! `dcd schema`: the schemas of QMP and of the configuration file as JSON Schema.

use clap::ValueEnum;
use qmp::json_schema::{self, SizeForm};

use crate::config_schema::CONFIG;
use crate::print_line;

/// Print a JSON Schema (draft 2020-12): of QMP requests, QMP events, or the configuration file.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd schema config > dcd.schema.json")]
pub(crate) struct Schema {
    /// Of what.
    #[arg(value_enum, default_value = "requests")]
    subject: Subject,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Subject {
    /// Requests of QMP clients.
    Requests,
    /// Events that QMP clients are sent.
    Events,
    /// The file that `dcd run --config` reads, as JSON has it.
    Config,
}

impl Schema {
    /// Prints.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let schema = match self.subject {
            Subject::Requests => json_schema::requests(qmp::COMMANDS),
            Subject::Events => json_schema::events(qmp::EVENTS),
            Subject::Config => json_schema::object(&CONFIG, SizeForm::BytesOrText),
        };
        print_line(&serde_json::to_string_pretty(&schema)?)
    }
}
