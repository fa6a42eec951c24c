//! `dcd snapshot delete`: deletes a snapshot.

use serde_json::json;

use crate::client::Client;
use crate::print_line;
use crate::snapshot_job;
use crate::snapshot_verb::Running;

/// Delete a snapshot that no other is built on.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd snapshot delete monday")]
pub(crate) struct Delete {
    /// The snapshot.
    name: String,
    #[command(flatten)]
    running: Running,
}

impl Delete {
    /// Deletes.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut client = Client::connect_to(self.running.qmp.as_deref())?;
        snapshot_job::finish(&mut client, "delete", "snapshot-delete", json!({"tag": self.name}))?;
        if self.running.json {
            return print_line(&json!({"tag": self.name}).to_string());
        }
        print_line(&format!("deleted {}", self.name))
    }
}
