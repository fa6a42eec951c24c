//! `dcd snapshot save`: saves a running VM.

use serde_json::{Value, json};

use crate::client::Client;
use crate::snapshot_job;
use crate::snapshot_place::plain;
use crate::snapshot_verb::Running;
use crate::{print_line, size};

/// Save a running VM, which runs on but for a short pause.
///
/// Only what has changed since the snapshot that this run has saved or loaded last is written, where there is one. Returns when
/// the snapshot is on the disk. Who interrupts this does not end it: `dcd snapshot list` shows what became of it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: dcd snapshot save monday\n          dcd snapshot save tuesday --by-reference tm0")]
pub(crate) struct Save {
    /// What it is called: letters, digits, '.', '_' and '-'.
    name: String,
    /// Write all of the memory, on no other snapshot.
    #[arg(long)]
    full: bool,
    /// A backend whose bytes stay in their file; may be repeated. They must still be there at the restore.
    #[arg(long, value_name = "ID")]
    by_reference: Vec<String>,
    #[command(flatten)]
    running: Running,
}

impl Save {
    /// Saves.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut client = Client::connect_to(self.running.qmp.as_deref())?;
        let arguments = json!({"tag": self.name, "x-incremental": !self.full, "x-by-reference": self.by_reference});
        let mut job = snapshot_job::finish(&mut client, "save", "snapshot-save", arguments)?;
        let mut saved = job["x-saved"].take();
        if self.running.json {
            saved["tag"] = self.name.as_str().into();
            return print_line(&saved.to_string());
        }
        print_line(&describe(&self.name, &saved))
    }
}

fn describe(name: &str, saved: &Value) -> String {
    let number = |name: &str| saved[name].as_u64().unwrap_or_default();
    let on = saved["parent"].as_str().map_or_else(|| "full".to_owned(), |parent| format!("on {}", plain(parent)));
    format!(
        "saved {name}: records up to #{}, {on}, {} of memory written, the guest stood still for {:.3} ms",
        number("records"),
        size::people(number("contents-bytes")),
        number("pause-ns") as f64 / 1e6
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_it_all() {
        let saved = json!({"id": "6b86", "records": 312, "pause-ns": 1_234_567, "contents-bytes": 12 << 20});
        let full =
            "saved monday: records up to #312, full, 12 MiB of memory written, the guest stood still for 1.235 ms";
        assert_eq!(describe("monday", &saved), full);
        let mut saved = saved;
        saved["parent"] = "sunday".into();
        assert_eq!(describe("monday", &saved), full.replace("full", "on sunday"));
    }
}
