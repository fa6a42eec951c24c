//! Commands of jobs: how far they are, and their end.
//!
//! Deliberately absent: `job-pause`, `job-resume`, `job-complete` and `job-finalize`, which no job here could follow.

use serde_json::Value;

use super::arguments::{Arguments, required_text};
use super::nothing;
use super::snapshots::{LOADED_INFO, SAVED_INFO};
use crate::error::QmpError;
use crate::events::EventSender;
use crate::jobs::{Jobs, STATUS_CHANGE};
use crate::schema::{Argument, CommandSchema, EMPTY, EnumSchema, EventSchema, Kind, StructSchema, optional, required};

static JOB_TYPE: EnumSchema = EnumSchema {
    name: "JobType",
    doc: "What a job does.",
    values: &[
        ("snapshot-save", "Saves a snapshot."),
        ("snapshot-load", "Loads a snapshot."),
        ("snapshot-delete", "Deletes a snapshot."),
    ],
};

static JOB_STATUS: EnumSchema = EnumSchema {
    name: "JobStatus",
    doc: "How a job stands, in QEMU's words.",
    values: &[
        ("undefined", "Nothing is known of it. Not used."),
        ("created", "It has not begun: those before it run."),
        ("running", "It runs."),
        ("paused", "It runs, and is held up. Not used."),
        ("ready", "It runs, and waits to be completed. Not used."),
        ("standby", "It is ready, and held up. Not used."),
        ("waiting", "It has done its work; told, and over at once."),
        ("pending", "What it did takes its place; told, and over at once."),
        ("aborting", "It has failed or was cancelled; told, and over at once."),
        ("concluded", "It has ended, with `error` or without, and waits to be dismissed."),
        ("null", "It was dismissed."),
    ],
};

static JOB_INFO: StructSchema = StructSchema {
    name: "JobInfo",
    doc: "A job.",
    members: &[
        required("id", Kind::Str, "Its id."),
        required("type", Kind::Enum(&JOB_TYPE), "What it does."),
        required("status", Kind::Enum(&JOB_STATUS), "How it stands."),
        required("current-progress", Kind::U64, "How much is done; of a snapshot-save bytes, else 0 or 1."),
        required("total-progress", Kind::U64, "How much there is to do. It may change while the job runs."),
        optional(
            "error",
            Kind::Str,
            "Why it came to nothing. A job that has concluded without has done all it should.",
        ),
        optional("x-saved", Kind::Object(&SAVED_INFO), "What a snapshot-save that has concluded well has saved."),
        optional("x-loaded", Kind::Object(&LOADED_INFO), "What a snapshot-load that has concluded well has loaded."),
    ],
};

const JOB_ID: Argument = required("id", Kind::Str, "The job's id.");

pub(super) const QUERY_JOBS: CommandSchema = CommandSchema {
    name: "query-jobs",
    doc: "Returns the jobs, in the order in which they were begun. Those that have concluded are among them until they are dismissed.",
    arguments: &[],
    returns: Kind::List(&Kind::Object(&JOB_INFO)),
    features: &[],
};

pub(super) const JOB_CANCEL: CommandSchema = CommandSchema {
    name: "job-cancel",
    doc: "Asks a job to give up: JOB_STATUS_CHANGE tells when it has. A job that has not begun gives up at once. Of those that \
          run a snapshot-save gives up, and its snapshot is deleted; it may have ended before. A snapshot-load and a \
          snapshot-delete that have begun go on to their end.",
    arguments: &[JOB_ID],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const JOB_DISMISS: CommandSchema = CommandSchema {
    name: "job-dismiss",
    doc: "Forgets a job that has concluded: JOB_STATUS_CHANGE. Until then it counts among the jobs, of which there may be 64.",
    arguments: &[JOB_ID],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const JOB_STATUS_CHANGE: EventSchema = EventSchema {
    name: STATUS_CHANGE,
    doc: "A job stands otherwise than before.",
    data: &[
        required("id", Kind::Str, "The job's id."),
        required("status", Kind::Enum(&JOB_STATUS), "How it stands now."),
    ],
    features: &[],
};

pub(super) fn query(jobs: &Jobs) -> Value {
    jobs.query()
}

pub(super) fn cancel(jobs: &Jobs, given: &Arguments) -> Result<Value, QmpError> {
    jobs.cancel(required_text(given, "id")?).map(|()| nothing())
}

pub(super) fn dismiss(jobs: &Jobs, given: &Arguments, events: &EventSender) -> Result<Value, QmpError> {
    jobs.dismiss(required_text(given, "id")?, events).map(|()| nothing())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::JOB_LIMIT;

    #[test]
    fn the_limit_is_told() {
        assert!(JOB_DISMISS.doc.ends_with(&format!(" {JOB_LIMIT}.")));
    }
}
