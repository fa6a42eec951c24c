//! Commands of the journal of a running VM: its state by path, and the records that are in no sealed file yet.

use actors::{LookError, Vm};
use device::inspect::{self, Path, Value as Leaf};
use serde_json::{Value, json};

use super::arguments::{Arguments, required_text, text};
use crate::error::QmpError;
use crate::schema::{CommandSchema, Kind, StructSchema, UNSTABLE, optional, required};

static STATE_VALUE: StructSchema = StructSchema {
    name: "StateValue",
    doc: "One value of the state.",
    members: &[
        required("path", Kind::Str, "Where it stands."),
        required("value", Kind::Str, "What it is, as `dcd inspect` writes it."),
    ],
};

static INSPECTED: StructSchema = StructSchema {
    name: "Inspected",
    doc: "What stands at and below a path of the state.",
    members: &[
        required("at", Kind::U64, "The record after which it is so."),
        required("values", Kind::List(&Kind::Object(&STATE_VALUE)), "Every value there, in the order of the tree."),
    ],
};

static JOURNAL_TAIL: StructSchema = StructSchema {
    name: "JournalTail",
    doc: "Records that were written into a file.",
    members: &[required("last", Kind::U64, "The last of them: every record that was durable is in it or sealed.")],
};

pub(super) const INSPECT: CommandSchema = CommandSchema {
    name: "x-inspect",
    doc: "Returns what stands at a path of the state. The paths are those of `dcd inspect`; nothing that runs is stopped for it.",
    arguments: &[optional("path", Kind::Str, "The path, such as `backends.tm0`. Default: all of the state.")],
    returns: Kind::Object(&INSPECTED),
    features: &[UNSTABLE],
};

pub(super) const TAIL: CommandSchema = CommandSchema {
    name: "x-journal-tail",
    doc: "Writes the newest records into a file. They are those that are in no sealed file of the journal, with the state before them; the other verbs read an open journal so.",
    arguments: &[required("filename", Kind::Str, "The file, which must not be there yet.")],
    returns: Kind::Object(&JOURNAL_TAIL),
    features: &[UNSTABLE],
};

pub(super) async fn inspect(vm: &Vm, given: &Arguments) -> Result<Value, QmpError> {
    let path: Path = text(given, "path").unwrap_or_default().parse().map_err(generic)?;
    let looked = vm.look(move |fold| (fold.last(), inspect::values(fold.vm(), &path))).await?;
    let (at, values) = looked;
    let values = values.map_err(generic)?;
    let value = |(path, value): (String, Leaf)| json!({"path": path, "value": value.to_string()});
    Ok(json!({"at": at.0, "values": values.into_iter().map(value).collect::<Vec<_>>()}))
}

pub(super) async fn tail(vm: &Vm, given: &Arguments) -> Result<Value, QmpError> {
    let path = required_text(given, "filename")?;
    if path.is_empty() {
        return Err(QmpError::generic("Parameter 'filename' is empty: name a file that is not there yet"));
    }
    let last = vm.write_journal_tail(path.into()).await?;
    Ok(json!({"last": last.0}))
}

fn generic(error: impl std::fmt::Display) -> QmpError {
    QmpError::generic(error.to_string())
}

impl From<LookError> for QmpError {
    fn from(error: LookError) -> Self {
        generic(error)
    }
}
