//! Commands of snapshots: saved, loaded and deleted by jobs, listed at once; and the pulse.
//!
//! ```text
//!  snapshot-save    ──▶ Vm::save_snapshot ──▶ x-saved of the job          JOB_STATUS_CHANGE …
//!  snapshot-load    ──▶ STOP, Vm::load_snapshot, RESUME ──▶ x-loaded
//!  snapshot-delete  ──▶ Vm::delete_snapshot
//! ```
//!
//! The schemas are QEMU's, with members of this program's own marked `x-`. Deliberately absent: what a snapshot is.

use std::sync::Arc;

use actors::{
    ListedSnapshot, ListedState, Loaded, RunState, SaveForm, SaveProgress, SaveRequest, SaveWish, Saved, SnapshotError,
    SnapshotFacts, SnapshotName, Vm,
};
use serde_json::{Map, Value, json};

use super::arguments::{Arguments, required_text};
use super::machine::RunStates;
use super::nothing;
use crate::error::QmpError;
use crate::events::EventSender;
use crate::jobs::{JobError, JobHandle, JobResult, JobType, Jobs};
use crate::schema::{Argument, CommandSchema, EMPTY, EnumSchema, Kind, StructSchema, UNSTABLE, optional, required};

const JOB_ID: Argument = required(
    "job-id",
    Kind::Str,
    "The id of the job, which no other job has: a letter, then letters, digits, `-`, `.` and `_`.",
);
const TAG: Argument =
    required("tag", Kind::Str, "The snapshot's name: letters, digits, `.`, `_` and `-`, no `.` in front.");
const DEVICES: Argument = optional(
    "devices",
    Kind::List(&Kind::Str),
    "In QEMU the block nodes that a snapshot has. There are none here: it is not looked at. Default: none.",
);
const VMSTATE: Argument = optional(
    "vmstate",
    Kind::Str,
    "In QEMU the block node that holds the VM's state. There are none here: it is not looked at. Default: none.",
);

pub(super) static SAVED_INFO: StructSchema = StructSchema {
    name: "SavedSnapshotInfo",
    doc: "A snapshot as it was saved.",
    members: &[
        required("id", Kind::Str, "Its id, a digest of all that it says of itself."),
        optional("parent", Kind::Str, "The snapshot that it is built on; absent where it is full."),
        required("records", Kind::U64, "The last journal record that it has."),
        required("pause-ns", Kind::U64, "How long the guest stood still for it, in nanoseconds."),
        required("contents-bytes", Kind::Size, "Bytes of memory that were written."),
    ],
};

pub(super) static LOADED_INFO: StructSchema = StructSchema {
    name: "LoadedSnapshotInfo",
    doc: "A snapshot that the VM has become.",
    members: &[
        required("records", Kind::U64, "The last journal record that it has."),
        optional("past", Kind::Str, "Where the journal is kept of what ran before; absent where there is none."),
    ],
};

static SNAPSHOT_STATE: EnumSchema = EnumSchema {
    name: "SnapshotState",
    doc: "What is there of a snapshot.",
    values: &[
        ("whole", "All of it, and of what it is built on."),
        ("half-made", "It is being written or removed, or who did that has died."),
        ("damaged", "It cannot be loaded: it is not what was written, or what it is built on is gone or another."),
    ],
};

static SNAPSHOT_INFO: StructSchema = StructSchema {
    name: "VmSnapshotInfo",
    doc: "A snapshot.",
    members: &[
        required("tag", Kind::Str, "Its name."),
        required(
            "state",
            Kind::Enum(&SNAPSHOT_STATE),
            "What is there of it; of one that is not whole the rest is unknown.",
        ),
        optional("reason", Kind::Str, "Why it is not whole."),
        optional("id", Kind::Str, "Its id, a digest of all that it says of itself."),
        optional("parent", Kind::Str, "The snapshot that it is built on; absent where it is full."),
        optional("created", Kind::U64, "When it was saved, in milliseconds since 1970."),
        optional("records", Kind::U64, "The last journal record that it has."),
        optional("contents-bytes", Kind::Size, "Bytes that it takes on the disk itself, without what it is built on."),
    ],
};

pub(super) const SNAPSHOT_SAVE: CommandSchema = CommandSchema {
    name: "snapshot-save",
    doc: "Saves a snapshot of the VM by a job: JOB_STATUS_CHANGE tells of its end, `query-jobs` how far it is. The VM runs on but \
          for the short pause at the end, which `x-saved` of the job tells; the run state does not change.",
    arguments: &[
        JOB_ID,
        TAG,
        VMSTATE,
        DEVICES,
        optional(
            "x-incremental",
            Kind::Bool,
            "Write only what has changed since the snapshot that this run has saved or loaded last, where there is one, which \
             becomes the parent. Default: true.",
        ),
        optional(
            "x-by-reference",
            Kind::List(&Kind::Str),
            "Ids of backends whose bytes stay in their files: the snapshot says where these are, and they must still be there \
             when it is loaded. Default: none.",
        ),
    ],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const SNAPSHOT_LOAD: CommandSchema = CommandSchema {
    name: "snapshot-load",
    doc: "Makes the VM what it was when a snapshot was saved, by a job: JOB_STATUS_CHANGE tells of its end. A VM that runs tells \
          STOP before, and RESUME when it runs again, also where the load was refused; one that is paused stays so. Devices, \
          backends and capacity are those of the snapshot, of which no event tells: query them. A file of a backend gets the \
          bytes that it had; one that is there and of no backend now is somebody's, and the load is refused.",
    arguments: &[JOB_ID, TAG, VMSTATE, DEVICES],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const SNAPSHOT_DELETE: CommandSchema = CommandSchema {
    name: "snapshot-delete",
    doc: "Deletes a snapshot that no other is built on, by a job: JOB_STATUS_CHANGE tells of its end. A directory that has \
          anything in it but files of a snapshot is refused, and stays as it is.",
    arguments: &[JOB_ID, TAG, DEVICES],
    returns: Kind::Object(&EMPTY),
    features: &[],
};

pub(super) const QUERY_SNAPSHOTS: CommandSchema = CommandSchema {
    name: "query-snapshots",
    doc: "Returns the snapshots, by name. Of each the manifest was read, not the contents: `dcd snapshot verify` reads these.",
    arguments: &[],
    returns: Kind::List(&Kind::Object(&SNAPSHOT_INFO)),
    features: &[],
};

pub(super) const PULSE: CommandSchema = CommandSchema {
    name: "x-pulse",
    doc: "Saves the VM, takes it down and makes it again from what was saved, all in this process: what a restore forgets, it \
          forgets here. The guest sees nothing but a pause.",
    arguments: &[],
    returns: Kind::Object(&EMPTY),
    features: &[UNSTABLE],
};

/// What snapshots are taken and loaded with.
#[derive(Clone)]
pub(super) struct Snapshots {
    pub(super) vm: Vm,
    pub(super) jobs: Jobs,
    pub(super) run_states: RunStates,
    pub(super) events: EventSender,
}

impl Snapshots {
    /// `snapshot-save`.
    pub(super) fn begin_save(self, given: &Arguments) -> Result<Value, QmpError> {
        let (job_id, request) = (required_text(given, "job-id")?, save_request(given)?);
        let (jobs, events) = (self.jobs.clone(), self.events.clone());
        jobs.begin(job_id, JobType::SnapshotSave, &events, |job| async move { self.save(request, &job).await })?;
        Ok(nothing())
    }

    async fn save(&self, request: SaveRequest, job: &JobHandle) -> JobResult {
        let progress: SaveProgress = {
            let job = job.clone();
            Arc::new(move |done_bytes, total_bytes| job.progress(done_bytes, total_bytes))
        };
        let is_wanted: SaveWish = {
            let job = job.clone();
            Arc::new(move || !job.is_cancelled())
        };
        let saved = self.vm.save_snapshot_while(request, progress, is_wanted).await?;
        // Since it was asked last.
        if job.is_cancelled() {
            self.vm.delete_snapshot(&saved.name).await?;
            return Err(JobError::Cancelled);
        }
        Ok(Map::from_iter([("x-saved".to_owned(), saved_info(&saved))]))
    }

    /// `snapshot-load`.
    pub(super) fn begin_load(self, given: &Arguments) -> Result<Value, QmpError> {
        let (job_id, name) = (required_text(given, "job-id")?, name(given)?);
        let (jobs, events) = (self.jobs.clone(), self.events.clone());
        jobs.begin(job_id, JobType::SnapshotLoad, &events, |_| async move {
            let loaded = self.load(&name).await?;
            Ok(Map::from_iter([("x-loaded".to_owned(), loaded_info(&loaded))]))
        })?;
        Ok(nothing())
    }

    async fn load(&self, name: &SnapshotName) -> Result<Loaded, SnapshotError> {
        let was = self.run_states.tell_stopped(&self.vm, &self.events).await;
        let loaded = self.vm.load_snapshot(&name.to_string()).await;
        if was == RunState::Running {
            self.run_states.tell_resumed(&self.vm, &self.events).await;
        }
        loaded
    }

    /// `snapshot-delete`.
    pub(super) fn begin_delete(self, given: &Arguments) -> Result<Value, QmpError> {
        let (job_id, name) = (required_text(given, "job-id")?, name(given)?);
        let (jobs, events) = (self.jobs.clone(), self.events.clone());
        jobs.begin(job_id, JobType::SnapshotDelete, &events, |_| async move {
            self.vm.delete_snapshot(&name.to_string()).await?;
            Ok(Map::new())
        })?;
        Ok(nothing())
    }

    /// `savevm` of the monitor: returns when it is done.
    pub(super) async fn save_now(&self, name: &str) -> Result<(), QmpError> {
        let request = SaveRequest { name: parse(name)?, form: SaveForm::Incremental, by_reference: Vec::new() };
        let _turn = self.jobs.turn().await;
        self.vm.save_snapshot(request, Arc::new(|_, _| ())).await?;
        Ok(())
    }

    /// `loadvm` of the monitor.
    pub(super) async fn load_now(&self, name: &str) -> Result<(), QmpError> {
        let name = parse(name)?;
        let _turn = self.jobs.turn().await;
        self.load(&name).await?;
        Ok(())
    }

    /// `delvm` of the monitor.
    pub(super) async fn delete_now(&self, name: &str) -> Result<(), QmpError> {
        let name = parse(name)?;
        let _turn = self.jobs.turn().await;
        Ok(self.vm.delete_snapshot(&name.to_string()).await?)
    }

    /// `x-pulse`.
    pub(super) async fn pulse(&self) -> Result<Value, QmpError> {
        let _turn = self.jobs.turn().await;
        self.vm.pulse().await?;
        Ok(nothing())
    }
}

/// `query-snapshots`.
pub(super) async fn query(vm: &Vm) -> Result<Value, QmpError> {
    Ok(vm.snapshots().await?.iter().map(snapshot_info).collect())
}

fn parse(text: &str) -> Result<SnapshotName, QmpError> {
    text.parse().map_err(|error| QmpError::generic(format!("Parameter 'tag' does not accept value '{text}': {error}")))
}

fn name(given: &Arguments) -> Result<SnapshotName, QmpError> {
    parse(required_text(given, "tag")?)
}

fn save_request(given: &Arguments) -> Result<SaveRequest, QmpError> {
    let is_incremental = given.get("x-incremental").and_then(Value::as_bool).unwrap_or(true);
    let listed = given.get("x-by-reference").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Ok(SaveRequest {
        name: name(given)?,
        form: if is_incremental { SaveForm::Incremental } else { SaveForm::Full },
        by_reference: listed.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
    })
}

fn saved_info(saved: &Saved) -> Value {
    let Saved { name: _, id, parent, last, pause, contents_bytes } = saved;
    let pause_ns = u64::try_from(pause.as_nanos()).unwrap_or(u64::MAX);
    let info = json!({"id": id, "records": last.0, "pause-ns": pause_ns, "contents-bytes": contents_bytes});
    with(info, "parent", parent.as_deref())
}

fn loaded_info(loaded: &Loaded) -> Value {
    let Loaded { name: _, last, past } = loaded;
    with(json!({"records": last.0}), "past", past.as_deref())
}

fn snapshot_info(listed: &ListedSnapshot) -> Value {
    let ListedSnapshot { name, state } = listed;
    match state {
        ListedState::Whole(facts) => {
            let SnapshotFacts { id, parent, created_ms, last, contents_bytes } = facts;
            let info = json!({
                "tag": name, "state": "whole", "id": id, "created": created_ms, "records": last.0,
                "contents-bytes": contents_bytes,
            });
            with(info, "parent", parent.as_deref())
        }
        ListedState::HalfMade { reason } => json!({"tag": name, "state": "half-made", "reason": reason}),
        ListedState::Damaged { reason } => json!({"tag": name, "state": "damaged", "reason": reason}),
    }
}

fn with(mut info: Value, name: &str, value: Option<&str>) -> Value {
    if let Some(value) = value {
        info[name] = value.into();
    }
    info
}

impl From<SnapshotError> for QmpError {
    fn from(error: SnapshotError) -> Self {
        Self::generic(error.to_string())
    }
}

impl From<SnapshotError> for JobError {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Unwanted => Self::Cancelled,
            error => Self::Failed(error.to_string()),
        }
    }
}
