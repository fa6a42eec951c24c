//! `dcd whatif`: the journal as it would have gone on without a record, or with another one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use device::Seq;
use journal::record::{Parent, Record};
use replay::{Changed, Edit, End, Fork};
use serde_json::{Value as Json, json};

use crate::parted::Parted;
use crate::question::{Asked, seq};
use crate::{fork, patch, print_line, print_text, shell, table};

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
        let mut forked = replay::whatif(&mut asked.history, &edits, parent)?;
        if let End::Unfit { seq, .. } = &forked.end {
            // Nothing is known of those behind it.
            forked.edited.retain(|changed| changed.was.stamp.seq < *seq);
            forked.changes.retain(|changed| changed.was.stamp.seq < *seq);
        }
        let into = match &forked.end {
            // It would hold all but the record that is wrong, and be in the way of who asks again.
            End::Unfit { .. } => None,
            End::Done | End::Panicked(_) => Some(fork::place(self.into.as_deref(), &asked.dir, &change)),
        };
        if let Some(into) = &into {
            fork::write(into, &forked.genesis, &forked.start, &forked.records)?;
        }
        if self.json {
            self.print_json(&asked, &forked, into.as_deref())?
        } else {
            print(&asked, &forked, into.as_deref(), &change)?
        }
        match &forked.end {
            End::Unfit { seq, reason } => bail!(self.unfit(&asked, *seq, reason)?),
            End::Done | End::Panicked(_) => Ok(()),
        }
    }

    /// That this build decides what cannot be true, at which record, and the line that shows it again.
    fn unfit(&self, asked: &Asked, seq: Seq, reason: &str) -> anyhow::Result<String> {
        let record = asked.row(asked.history.record(seq)?);
        let input = record.input;
        let drops = self.edits.drop.iter().map(|seq| format!(" --drop {}", seq.0));
        let edits = self.edits.edit.iter().map(|(seq, patch)| shell::word(&format!("{}={patch}", seq.0)));
        let options: String = drops.chain(edits.map(|edit| format!(" --edit {edit}"))).collect();
        Ok(format!(
            "{seq} ({input}): this build decides what cannot be true: {reason}; no fork is written\n\
             replay with: dcd whatif {}{options}",
            shell::path(&asked.dir)
        ))
    }

    fn edits(&self, asked: &Asked) -> anyhow::Result<BTreeMap<Seq, Edit>> {
        let mut edits: BTreeMap<_, _> = self.edits.drop.iter().map(|seq| (*seq, Edit::Drop)).collect();
        for (seq, patch) in &self.edits.edit {
            let edited = patch::patched(*seq, &asked.history.record(*seq)?.input, patch)?;
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

    fn print_json(&self, asked: &Asked, fork: &Fork, into: Option<&Path>) -> anyhow::Result<()> {
        let edited = fork.edited.iter().map(|changed| (changed, true));
        for (changed, is_edited) in edited.chain(fork.changes.iter().map(|changed| (changed, false))) {
            let (was, is) = (asked.row(&changed.was), changed.is.as_ref().map(|record| asked.row(record)));
            let differs = parted(changed, is_edited)?.map(|parted| parted.json());
            let seq = changed.was.stamp.seq.0;
            let line = json!({"record": seq, "edited": is_edited, "was": was, "is": is, "differs": differs});
            print_line(&line.to_string())?;
        }
        let (records, changes) = (fork.records.len(), fork.changes.len());
        let line =
            json!({"fork": into, "records": records, "shared": fork.shared.0, "later": fork.later, "changed": changes});
        print_line(&line.to_string())
    }
}

/// Most changed records that are shown to people.
const CHANGES_SHOWN: usize = 20;

fn print(asked: &Asked, fork: &Fork, into: Option<&Path>, change: &str) -> anyhow::Result<()> {
    let (later, changed) = (fork.later, fork.changes.len());
    match &fork.end {
        End::Unfit { seq, .. } => print_line(&format!("{change}: {changed} records before {seq} change"))?,
        End::Done | End::Panicked(_) => print_line(&format!("{change}: {changed} of {later} later records change"))?,
    }
    let edited = fork.edited.iter().map(|changed| columns(asked, changed, true));
    let changes = fork.changes.iter().take(CHANGES_SHOWN).map(|changed| columns(asked, changed, false));
    let rows = edited.chain(changes).collect::<anyhow::Result<Vec<_>>>()?;
    if !rows.is_empty() {
        let rows = rows.into_iter();
        print_text(&format!("{}\n", table::columns(["record", "input", "was", "is"], rows)))?;
    }
    if changed > CHANGES_SHOWN {
        print_line(&format!(" and {} more; --json shows all", changed - CHANGES_SHOWN))?;
    }
    if let End::Panicked(message) = &fork.end {
        print_line(&format!("the fork ends with a panic: {message}"))?;
    }
    let Some(into) = into else { return Ok(()) };
    let (dir, records) = (shell::path(into), fork.records.len());
    print_line(&format!("the fork has {records} records, those up to {} shared: dcd replay {dir}", fork.shared))
}

/// A record before and after. Where both look alike, what differs stands behind them; of one that was edited only if what it
/// did differs.
fn columns(asked: &Asked, changed: &Changed, is_edited: bool) -> anyhow::Result<[String; 4]> {
    let said = |outcome: &str| if outcome.is_empty() { "done".to_owned() } else { outcome.to_owned() };
    let was = asked.row(&changed.was);
    let Some(is) = changed.is.as_ref().map(|record| asked.row(record)) else {
        return Ok([was.record, was.input, said(&was.outcome), "reaches nobody".to_owned()]);
    };
    let input = if is_edited { format!("{} (edited)", is.input) } else { was.input };
    let (mut before, mut after) = (said(&was.outcome), said(&is.outcome));
    if before == after
        && let Some(Parted { path, first, second }) = parted(changed, is_edited)?
    {
        before.push_str(&format!("; {path}: {first}"));
        after.push_str(&format!("; {path}: {second}"));
    }
    Ok([was.record, input, before, after])
}

/// What differs first between a record as it was and as it is; the input of one that was edited aside.
fn parted(changed: &Changed, is_edited: bool) -> anyhow::Result<Option<Parted>> {
    let Some(is) = &changed.is else { return Ok(None) };
    let json = |record: &Record| -> anyhow::Result<Json> {
        let mut json = serde_json::to_value(record)?;
        if let (true, Some(fields)) = (is_edited, json.as_object_mut()) {
            fields.remove("input");
        }
        Ok(json)
    };
    Ok(Parted::of(&json(&changed.was)?, &json(is)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_names_its_record_and_its_json() {
        assert_eq!(edit("#80={\"a\":1}"), Ok((Seq(80), json!({"a": 1}))));
        assert!(edit("80").is_err() && edit("x={}").is_err() && edit("80={").is_err());
    }
}
