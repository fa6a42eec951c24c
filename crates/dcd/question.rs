//! What the questions to a journal have in common: which journal, and how an answer is written.

use std::path::{Path, PathBuf};

use device::Seq;
use device::inspect::{Change, Value};
use journal::record::{Parent, Record};
use replay::{DeviceNames, History, Row};
use serde_json::{Map, Value as Json, json};

use crate::journal_verb::Opened;
use crate::reading::Reading;
use crate::shell;

/// The journal that is asked.
pub(crate) struct Asked {
    /// Where it is: a directory or a file.
    pub(crate) dir: PathBuf,
    /// What is in it.
    pub(crate) history: History,
}

impl Asked {
    /// Reads a journal; where none is named, that of the latest bare `dcd run`.
    pub(crate) fn open(dir: Option<&Path>) -> anyhow::Result<Self> {
        let reading = Reading::open(dir)?;
        let Opened { genesis, start, records } = reading.decode()?;
        Ok(Self { history: History::behind(genesis, start, records), dir: reading.place })
    }

    /// Where the journal is from which this one was made, if it is still there. One that was superseded lies below this one, or
    /// beside it where this one was superseded, too.
    pub(crate) fn parent_place(&self, parent: &Parent) -> Option<PathBuf> {
        let home = self.dir.parent().filter(|past| past.ends_with("past")).and_then(Path::parent);
        let places = [Some(self.dir.as_path()), home].into_iter().flatten().map(|from| from.join(&parent.journal));
        places.into_iter().find(|place| place.exists())
    }

    /// The line that shows a position again.
    pub(crate) fn replay_line(&self, seq: Seq) -> String {
        replay_line(&self.dir, seq)
    }

    /// A record in columns.
    pub(crate) fn row(&self, record: &Record) -> Row {
        let mut names = DeviceNames::of(self.history.start().vm());
        let before = self.history.records().iter().take_while(|other| other.stamp.seq < record.stamp.seq);
        before.for_each(|other| names.follow(other));
        Row::of(&names, record)
    }

    /// A record in one sentence.
    pub(crate) fn told(&self, record: &Record) -> String {
        let Row { record, time_ms, device, from, input, outcome, .. } = self.row(record);
        let device = if device.is_empty() { "the VM".to_owned() } else { device };
        let outcome = if outcome.is_empty() { "done".to_owned() } else { outcome };
        format!("{record} at {time_ms} ms, {from} to {device}: {input}\n  {outcome}")
    }
}

/// The line that shows a position of a journal again. Without `#`, which begins a comment in a shell.
pub(crate) fn replay_line(journal: &Path, seq: Seq) -> String {
    format!("replay with: dcd replay {} --until {}", shell::path(journal), seq.0)
}

/// A record, `#312` or `312`.
pub(crate) fn seq(text: &str) -> Result<Seq, String> {
    replay::parse_seq(text).map_err(|error| error.to_string())
}

/// A value for programs: numbers as numbers, all else as people read it.
pub(crate) fn json_of(value: &Value) -> Json {
    match value {
        Value::Number(number) => json!(number),
        value => json!(value.to_string()),
    }
}

/// Values by their paths.
pub(crate) fn json_of_all(values: &[(String, Value)]) -> Json {
    Json::Object(values.iter().map(|(path, value)| (path.clone(), json_of(value))).collect::<Map<_, _>>())
}

/// Changes for programs.
pub(crate) fn json_of_changes(changes: &[Change]) -> Json {
    let side = |value: &Option<Value>| value.as_ref().map_or(Json::Null, json_of);
    let one =
        |change: &Change| json!({"path": change.path, "before": side(&change.before), "after": side(&change.after)});
    changes.iter().map(one).collect()
}

/// Values as lines.
pub(crate) fn lines_of(values: &[(String, Value)]) -> String {
    values.iter().map(|(path, value)| format!("{path} = {value}\n")).collect()
}

/// What stands in a first state: nobody knows what it was before.
pub(crate) fn lines_of_start(changes: &[Change]) -> String {
    let values = changes.iter().filter_map(|change| Some((&change.path, change.after.as_ref()?)));
    let mut lines: String = values.take(CHANGES_SHOWN).map(|(path, value)| format!("  {path} = {value}\n")).collect();
    lines.push_str(&more(changes.len()));
    lines
}

/// As [`json_of_changes`], of a first state.
pub(crate) fn json_of_start(changes: &[Change]) -> Json {
    let one = |change: &Change| json!({"path": change.path, "after": change.after.as_ref().map(json_of)});
    changes.iter().map(one).collect()
}

/// Most changes that are shown to people.
const CHANGES_SHOWN: usize = 40;

/// Changes as lines.
pub(crate) fn lines_of_changes(changes: &[Change]) -> String {
    let side = |value: &Option<Value>| value.as_ref().map_or_else(|| "absent".to_owned(), Value::to_string);
    let line = |change: &Change| format!("  {}: {} -> {}\n", change.path, side(&change.before), side(&change.after));
    let mut lines: String = changes.iter().take(CHANGES_SHOWN).map(line).collect();
    lines.push_str(&more(changes.len()));
    lines
}

fn more(count: usize) -> String {
    match count.saturating_sub(CHANGES_SHOWN) {
        0 => String::new(),
        more => format!("  and {more} more; --json shows all\n"),
    }
}
