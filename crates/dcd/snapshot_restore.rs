//! `dcd snapshot restore`: makes a running VM what it was.

use serde_json::{Value, json};

use crate::client::Client;
use crate::print_line;
use crate::snapshot_job;
use crate::snapshot_place::plain;
use crate::snapshot_verb::Running;

/// Make a running VM what it was in a snapshot, in its process.
///
/// `dcd run --restore PATH` does it in a new process. What ran until now is over; its journal is kept.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd snapshot restore monday")]
pub(crate) struct Restore {
    /// The snapshot.
    name: String,
    #[command(flatten)]
    running: Running,
}

impl Restore {
    /// Restores.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut client = Client::connect_to(self.running.qmp.as_deref())?;
        let mut job = snapshot_job::finish(&mut client, "restore", "snapshot-load", json!({"tag": self.name}))?;
        let mut loaded = job["x-loaded"].take();
        if self.running.json {
            loaded["tag"] = self.name.as_str().into();
            return print_line(&loaded.to_string());
        }
        print_line(&describe(&self.name, &loaded))
    }
}

fn describe(name: &str, loaded: &Value) -> String {
    let past = loaded["past"].as_str().map(|past| format!("; the journal of what ran until now is in {}", plain(past)));
    let records = loaded["records"].as_u64().unwrap_or_default();
    format!("restored {name}: the VM is as it was after #{records}{}", past.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_where_the_past_is() {
        let line = describe("monday", &json!({"records": 312}));
        assert_eq!(line, "restored monday: the VM is as it was after #312");
        let line = describe("monday", &json!({"records": 312, "past": "/var/lib/dcd/journal.1"}));
        let past = "restored monday: the VM is as it was after #312; the journal of what ran until now is in /var/lib/dcd/journal.1";
        assert_eq!(line, past);
    }
}
