//! `dcd whatif`: the journal as it would have gone on without a record, or with another one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use device::Seq;
use device::operation::Input;
use journal::record::Parent;
use replay::{Changed, Edit, End, Fork};
use serde_json::{Value as Json, json};

use crate::question::{Asked, seq};
use crate::{fork, print_line, print_text, table};

/// Fork a journal: leave records out or change them, decide on with this build, and tell which later records change.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd whatif ~/.local/state/dcd/journal --drop 80\n\
                        Example: dcd whatif --edit '80={\"extents\":{\"add\":{\"region\":1}}}' --into /tmp/other-region\n\n\
                        The JSON is merged into the record's input as `dcd journal show --json` prints it. Later inputs \
                        reach the device as they were recorded: a guest that would have done something else is not there.")]
pub(crate) struct Whatif {
    /// The journal, a directory or a file; default: that of the latest bare `dcd run`.
    journal: Option<PathBuf>,
    #[command(flatten)]
    edits: Edits,
    /// Where to put the fork; default: beside the journal, named after what is changed.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// Print one JSON object for each record that changes, and one for the fork.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Edits {
    /// Leave this record out.
    #[arg(long, value_name = "#N", value_parser = seq)]
    drop: Vec<Seq>,
    /// Change this record's input.
    #[arg(long, value_name = "#N=JSON", value_parser = edit)]
    edit: Vec<(Seq, Json)>,
}

/// `80={…}`
fn edit(text: &str) -> Result<(Seq, Json), String> {
    let (record, patch) = text.split_once('=').ok_or_else(|| format!("'{text}' is no #N=JSON"))?;
    let patch = serde_json::from_str(patch).map_err(|error| format!("'{patch}' is no JSON: {error}"))?;
    Ok((seq(record)?, patch))
}

impl Whatif {
    /// Forks.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let mut asked = Asked::open(self.journal.as_deref())?;
        let edits = self.edits(&asked)?;
        let change = self.change();
        let journal = asked.dir.display().to_string();
        let parent = |shared| Parent { journal, shared, change: change.clone() };
        let forked = replay::whatif(&mut asked.history, &edits, parent)?;
        let into = fork::place(self.into.as_deref(), &asked.dir, &change);
        fork::write(&into, &forked.genesis, &forked.start, &forked.records)?;
        if self.json {
            self.print_json(&asked, &forked, &into)?
        } else {
            print(&asked, &forked, &into, &change)?
        }
        match &forked.end {
            End::Unfit { seq, reason } => {
                bail!(
                    "{seq}: this build decides what cannot be true: {reason}\nreplay with: dcd replay {}",
                    into.display()
                )
            }
            End::Done | End::Panicked(_) => Ok(()),
        }
    }

    fn edits(&self, asked: &Asked) -> anyhow::Result<BTreeMap<Seq, Edit>> {
        let mut edits: BTreeMap<_, _> = self.edits.drop.iter().map(|seq| (*seq, Edit::Drop)).collect();
        for (seq, patch) in &self.edits.edit {
            let mut input = serde_json::to_value(&asked.history.record(*seq)?.input)?;
            merge(&mut input, patch);
            let edited: Input = serde_json::from_value(input.clone())
                .with_context(|| format!("{seq} with this edit is no input: {input}"))?;
            if edits.insert(*seq, Edit::Replace(edited)).is_some() {
                bail!("{seq} is dropped or edited twice");
            }
        }
        Ok(edits)
    }

    /// What is done, in words that are part of a file name too.
    fn change(&self) -> String {
        let drops = self.edits.drop.iter().map(|seq| format!("drop {seq}"));
        let edits = self.edits.edit.iter().map(|(seq, patch)| format!("edit {seq}={patch}"));
        drops.chain(edits).collect::<Vec<_>>().join(", ")
    }

    fn print_json(&self, asked: &Asked, fork: &Fork, into: &Path) -> anyhow::Result<()> {
        for changed in &fork.changes {
            let is = changed.is.as_ref().map(|record| asked.row(record));
            print_line(
                &json!({"record": changed.was.stamp.seq.0, "was": asked.row(&changed.was), "is": is}).to_string(),
            )?;
        }
        let (records, changes) = (fork.records.len(), fork.changes.len());
        let line =
            json!({"fork": into, "records": records, "shared": fork.shared.0, "later": fork.later, "changed": changes});
        print_line(&line.to_string())
    }
}

/// Merges a patch into a JSON value (RFC 7396).
fn merge(value: &mut Json, patch: &Json) {
    let Json::Object(patch) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (key, patch) in patch {
        if patch.is_null() {
            value.as_object_mut().map(|object| object.remove(key));
        } else {
            merge(&mut value[key], patch);
        }
    }
}

/// Most changed records that are shown to people.
const CHANGES_SHOWN: usize = 20;

fn print(asked: &Asked, fork: &Fork, into: &Path, change: &str) -> anyhow::Result<()> {
    let (later, changed) = (fork.later, fork.changes.len());
    print_line(&format!("{change}: {changed} of {later} later records change"))?;
    if changed > 0 {
        let rows = fork.changes.iter().take(CHANGES_SHOWN).map(|changed| columns(asked, changed));
        print_text(&format!("{}\n", table::columns(["record", "input", "was", "is"], rows)))?;
    }
    if changed > CHANGES_SHOWN {
        print_line(&format!(" and {} more; --json shows all", changed - CHANGES_SHOWN))?;
    }
    if let End::Panicked(message) = &fork.end {
        print_line(&format!("the fork ends with a panic: {message}"))?;
    }
    let (dir, records) = (into.display(), fork.records.len());
    print_line(&format!("the fork has {records} records, those up to {} shared: dcd replay {dir}", fork.shared))
}

fn columns(asked: &Asked, changed: &Changed) -> [String; 4] {
    let was = asked.row(&changed.was);
    let is = changed.is.as_ref().map_or_else(|| "reaches nobody".to_owned(), |record| asked.row(record).outcome);
    let said = |outcome: String| if outcome.is_empty() { "done".to_owned() } else { outcome };
    [was.record, was.input, said(was.outcome), said(is)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_what_it_names() {
        let mut value = json!({"extents": {"add": {"region": 0, "extents": [1, 2]}}, "old": 1});
        merge(&mut value, &json!({"extents": {"add": {"region": 1}}, "old": null, "new": {"a": 2}}));
        assert_eq!(value, json!({"extents": {"add": {"region": 1, "extents": [1, 2]}}, "new": {"a": 2}}));
    }

    #[test]
    fn an_edit_names_its_record_and_its_json() {
        assert_eq!(edit("#80={\"a\":1}"), Ok((Seq(80), json!({"a": 1}))));
        assert!(edit("80").is_err() && edit("x={}").is_err() && edit("80={").is_err());
    }
}
