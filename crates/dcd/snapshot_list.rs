//! `dcd snapshot list`: the snapshots of a running program, or those in a directory.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use snapshot::{Holder, Listed};

use crate::client::Client;
use crate::snapshot_place::{plain, print_json, told};
use crate::snapshot_verb::Running;
use crate::table::columns;
use crate::{date, print_text, size, snapshot_place};

/// List the snapshots of a running dcd, or those in a directory.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples: dcd snapshot list\n          dcd snapshot list --dir /var/lib/dcd/snapshots --json")]
pub(crate) struct List {
    /// List what is in this directory of snapshots; no dcd needs to run.
    #[arg(long, value_name = "DIR", conflicts_with = "qmp")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    running: Running,
}

impl List {
    /// Lists.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let listed = match &self.dir {
            Some(dir) => in_directory(dir)?,
            None => asked(self.running.qmp.as_deref())?,
        };
        if self.running.json {
            return listed.iter().try_for_each(print_json);
        }
        print_text(&describe(&listed))
    }
}

fn asked(qmp: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let listed = Client::connect_to(qmp)?.execute("query-snapshots", json!({}))?;
    Ok(listed.as_array().cloned().unwrap_or_default())
}

fn in_directory(dir: &Path) -> anyhow::Result<Vec<Value>> {
    Ok(snapshot_place::store(dir)?.list().map_err(told)?.iter().map(info).collect())
}

/// What `query-snapshots` would say of it.
fn info(listed: &Listed) -> Value {
    let half = |reason: &str| json!({"tag": listed.name(), "state": "half-made", "reason": reason});
    match listed {
        Listed::Whole { manifest, disk_bytes } => {
            let mut info = json!({
                "tag": listed.name(), "state": "whole", "id": manifest.id.to_string(), "created": manifest.created_ms,
                "contents-bytes": disk_bytes,
            });
            if let Some(parent) = &manifest.parent {
                info["parent"] = parent.name.as_str().into();
            }
            let records = manifest.about.iter().find(|(key, _)| key == "records");
            if let Some(records) = records.and_then(|(_, text)| text.parse::<u64>().ok()) {
                info["records"] = records.into();
            }
            info
        }
        Listed::Unfinished { holder: Holder::Alive, .. } => half("it is being written"),
        Listed::Unfinished { holder: Holder::Dead, .. } => half("the process that wrote it has ended"),
        Listed::Leaving { holder: Holder::Alive, .. } => half("it is being deleted"),
        Listed::Leaving { holder: Holder::Dead, .. } => half("the process that deleted it has ended"),
        Listed::Damaged { error, .. } => json!({"tag": listed.name(), "state": "damaged", "reason": error.to_string()}),
    }
}

fn describe(listed: &[Value]) -> String {
    let text = |snapshot: &Value, name: &str| plain(snapshot[name].as_str().unwrap_or("-"));
    let (whole, others): (Vec<_>, Vec<_>) = listed.iter().partition(|snapshot| snapshot["state"] == "whole");
    let row = |snapshot: &&Value| {
        let number = |name: &str, say: &dyn Fn(u64) -> String| snapshot[name].as_u64().map_or("-".into(), say);
        [
            text(snapshot, "tag"),
            number("records", &|last| format!("#{last}")),
            number("created", &date::utc),
            number("contents-bytes", &size::people),
            text(snapshot, "parent"),
        ]
    };
    let mut lines = match &whole[..] {
        [] => "no snapshots\n".to_owned(),
        whole => columns(["snapshot", "records", "saved (UTC)", "on disk", "on"], whole.iter().map(row)) + "\n",
    };
    for other in others {
        let (name, state, reason) = (text(other, "tag"), text(other, "state"), text(other, "reason"));
        lines.push_str(&format!("{name} is {state}: {reason}\n"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn whole_ones_in_columns_and_the_others_with_their_reason() {
        let listed = [
            json!({"tag": "monday", "state": "whole", "id": "6b", "created": 1_767_225_600_000_u64, "records": 312, "contents-bytes": 12 << 20}),
            json!({"tag": "tuesday", "state": "whole", "id": "d4", "created": 0, "contents-bytes": 4096, "parent": "monday"}),
            json!({"tag": "wednesday", "state": "half-made", "reason": "it is being written"}),
            json!({"tag": "thursday", "state": "damaged", "reason": "'parts' is not there"}),
            json!({"tag": "\u{1b}[2Jfriday", "state": "damaged", "reason": "line\nfeed"}),
        ];
        expect![[r#"
             snapshot  records  saved (UTC)          on disk  on
             monday    #312     2026-01-01 00:00:00  12 MiB   -
             tuesday   -        1970-01-01 00:00:00  4 KiB    monday
            wednesday is half-made: it is being written
            thursday is damaged: 'parts' is not there
            \u{1b}[2Jfriday is damaged: line\nfeed
        "#]]
        .assert_eq(&describe(&listed));
        assert_eq!(describe(&[]), "no snapshots\n");
    }
}
