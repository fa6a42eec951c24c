//! `dcd diff`: two journals, where they part.

use std::path::PathBuf;

use device::Seq;
use device::inspect::Path;
use journal::record::Record;
use replay::{Diff as Found, Parting};
use serde_json::{Value as Json, json};

use crate::parted::Parted;
use crate::print_text;
use crate::question::{Asked, json_of_changes, lines_of_changes, seq};

/// Compare two journals: the first input that differs, then the difference of their states, path by path.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: dcd diff good bad --path backends\n\n\
                        The exit code is 0 only if nothing differs. Times are not compared.")]
pub(crate) struct Diff {
    /// One journal, a directory or a file.
    first: PathBuf,
    /// The other's.
    second: PathBuf,
    /// Compare the states only at and below this path.
    #[arg(long, default_value = "")]
    path: Path,
    /// Compare the states after this record of both; default: at the end of each.
    #[arg(long, value_name = "#N", value_parser = seq)]
    at: Option<Seq>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

impl Diff {
    /// Compares.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let (mut first, mut second) = (Asked::open(Some(&self.first))?, Asked::open(Some(&self.second))?);
        let found = replay::diff(&mut first.history, &mut second.history, &self.path, self.at)?;
        let Found { from: _, start, input, decision, changes } = &found;
        let differs = input.is_some() || decision.is_some() || !start.is_empty() || !changes.is_empty();
        if self.json {
            print_text(&format!("{}\n", json_of(&first, &second, &found)))?;
        } else if differs {
            print_text(&told(&first, &second, &found))?;
        } else {
            print_text(&format!("{}the same inputs, the same decisions, the same state\n", told_start(&found)))?;
        }
        if differs { Err(crate::Differs.into()) } else { Ok(()) }
    }
}

fn told(first: &Asked, second: &Asked, found: &Found) -> String {
    let side = |asked: &Asked, record: &Option<_>| match record {
        Some(record) => asked.told(record),
        None => format!("it ends with {}", asked.history.last()),
    };
    let parting = |what: &str, parting: &Parting| {
        let (a, b) = (side(first, &parting.first), side(second, &parting.second));
        format!("{what}\n{}: {a}\n{}: {b}\n", first.dir.display(), second.dir.display())
    };
    let differs = |parting: &Parting, fields: &[&str]| {
        let parted = parted(parting, fields);
        let told = |Parted { path, first, second }| format!("they differ in {path}: {first} and {second}\n");
        parted.map(told).unwrap_or_default()
    };
    let decision = |found| parting("the same input, another decision:", found) + &differs(found, &DECISION);
    let decision = found.decision.as_ref().map(decision);
    let input = match &found.input {
        Some(found) => parting("the first input that differs:", found) + &differs(found, &INPUT),
        None => "the same inputs\n".to_owned(),
    };
    let states = match found.changes.len() {
        0 => "the same state\n".to_owned(),
        count => format!("{count} values differ:\n{}", lines_of_changes(&found.changes)),
    };
    [told_start(found), decision.unwrap_or_default(), input, states].concat()
}

/// The fields of a record that are compared as its input, and as what was decided on it.
const INPUT: [&str; 4] = ["device", "origin", "input", "outcomes"];
const DECISION: [&str; 2] = ["facts", "reply"];

/// What differs first in these fields of two records; nothing where one has ended.
fn parted(parting: &Parting, fields: &[&str]) -> Option<Parted> {
    let json = |record: &Record| -> Option<Json> {
        let mut json = serde_json::to_value(record).ok()?;
        json.as_object_mut()?.retain(|field, _| fields.contains(&field.as_str()));
        Some(json)
    };
    Parted::of(&json(parting.first.as_ref()?)?, &json(parting.second.as_ref()?)?)
}

/// From where on they are compared, if not from their first records on.
fn told_start(found: &Found) -> String {
    match found.from {
        Seq(0) => String::new(),
        from if found.start.is_empty() => format!("compared from {from} on, where one of them begins\n"),
        from => format!(
            "compared from {from} on, where one of them begins and {} values differ already:\n{}",
            found.start.len(),
            lines_of_changes(&found.start)
        ),
    }
}

fn json_of(first: &Asked, second: &Asked, found: &Found) -> Json {
    let parting = |found: &Option<Parting>, fields: &[&str]| {
        found.as_ref().map(|found| {
            let differs = parted(found, fields).map(|parted| parted.json());
            let a = found.first.as_ref().map(|record| first.row(record));
            let b = found.second.as_ref().map(|record| second.row(record));
            json!({"record": found.seq.0, "first": a, "second": b, "differs": differs})
        })
    };
    let changes = json_of_changes(&found.changes);
    let start = json_of_changes(&found.start);
    let (input, decision) = (parting(&found.input, &INPUT), parting(&found.decision, &DECISION));
    json!({"from": found.from.0, "start": start, "input": input, "decision": decision, "state": changes})
}
