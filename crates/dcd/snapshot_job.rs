//! A job of a running program, from here: begun, waited for, dismissed.
//!
//! ```text
//!  command {job-id} ──▶ query-jobs … query-jobs: concluded ──▶ job-dismiss ──▶ what it said at the end
//! ```
//!
//! Who interrupts this does not end the job. Deliberately absent: waiting for JOB_STATUS_CHANGE, which says nothing of progress.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde_json::{Value, json};

use crate::client::Client;
use crate::progress::Progress;
use crate::snapshot_place::plain;

/// Between two questions at first, and never longer than the second.
const PACE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// Executes a command that is done by a job; `what` stands before the bar. Returns what `query-jobs` said of it at its end.
///
/// # Errors
/// If the command is refused, or with the job's own error.
pub(crate) fn finish(
    client: &mut Client,
    what: &'static str,
    command: &str,
    mut arguments: Value,
) -> anyhow::Result<Value> {
    let id = job_id();
    arguments["job-id"] = id.as_str().into();
    client.execute(command, arguments)?;
    let job = wait(client, what, &id)?;
    client.execute("job-dismiss", json!({"id": id}))?;
    match job["error"].as_str() {
        Some(error) => bail!(plain(error)),
        None => Ok(job),
    }
}

fn wait(client: &mut Client, what: &'static str, id: &str) -> anyhow::Result<Value> {
    let mut progress = Progress::new(what);
    let (mut pause, longest) = PACE;
    loop {
        let jobs = client.execute("query-jobs", json!({}))?;
        let job = jobs.as_array().and_then(|jobs| jobs.iter().find(|job| job["id"] == id));
        let job = job.with_context(|| format!("somebody else dismissed the job {id}: how it ended is not known"))?;
        if job["status"] == "concluded" {
            return Ok(job.clone());
        }
        let number = |name: &str| job[name].as_u64().unwrap_or_default();
        // Of what is not counted in bytes the whole is 1.
        match (number("current-progress"), number("total-progress")) {
            (_, 0 | 1) => progress.tell(job["status"].as_str().unwrap_or_default()),
            (done_bytes, total_bytes) => progress.bytes(done_bytes, total_bytes),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(longest);
    }
}

/// An id that no other client takes at the same time.
fn job_id() -> String {
    // A host clock before 1970 is not worth a panic.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("dcd-{}-{}", std::process::id(), since_1970.as_nanos())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use qmp::schema::{Argument, CommandSchema, Kind, QMP_CAPABILITIES, required};
    use qmp::{EventSender, JobError, JobType, Jobs, ListenSpec, QmpError, Server, Service};
    use serde_json::Map;

    use super::*;

    const TEXT: Kind = Kind::Str;

    const fn command(name: &'static str, arguments: &'static [Argument]) -> CommandSchema {
        CommandSchema { name, doc: "A step of a test.", arguments, returns: Kind::Any, features: &[] }
    }

    static COMMANDS: [CommandSchema; 4] = [
        QMP_CAPABILITIES,
        command("snapshot-save", &[required("job-id", TEXT, "A job."), required("tag", TEXT, "How it ends.")]),
        command("query-jobs", &[]),
        command("job-dismiss", &[required("id", TEXT, "A job.")]),
    ];

    /// A program whose saves take a while and end as their names say.
    #[derive(Default)]
    struct Saving(Jobs);

    impl Service for Saving {
        fn greeting(&self) -> Value {
            json!({})
        }

        fn commands(&self) -> &'static [CommandSchema] {
            &COMMANDS
        }

        async fn call(
            &self,
            command: &'static CommandSchema,
            given: Map<String, Value>,
            events: &EventSender,
        ) -> Result<Value, QmpError> {
            let text = |name: &str| given[name].as_str().expect("checked").to_owned();
            match command.name {
                "query-jobs" => return Ok(self.0.query()),
                "job-dismiss" => self.0.dismiss(&text("id"), events)?,
                _ => {
                    let tag = text("tag");
                    self.0.begin(&text("job-id"), JobType::SnapshotSave, events, move |job| async move {
                        for done in 0..20 {
                            job.progress(done, 20);
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        if tag == "well" {
                            Ok(Map::from_iter([("x".into(), 7.into())]))
                        } else {
                            Err(JobError::Failed(tag))
                        }
                    })?;
                }
            }
            Ok(json!({}))
        }
    }

    #[test]
    fn a_job_is_waited_for_and_dismissed_however_it_ends() {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("tokio");
        let dir = tempfile::tempdir().expect("a directory");
        let (path, service) = (dir.path().join("qmp.sock"), Arc::new(Saving::default()));
        let listens = vec![ListenSpec::Unix { path: path.clone() }];
        let server = runtime.block_on(Server::start(listens, Arc::clone(&service), EventSender::new()));
        let _server = server.expect("a socket");
        let mut client = Client::connect_to(Some(&format!("unix:{}", path.display()))).expect("a connection");
        let job = finish(&mut client, "save", "snapshot-save", json!({"tag": "well"})).expect("saved");
        assert_eq!((&job["status"], &job["x"]), (&json!("concluded"), &json!(7)));
        let error =
            finish(&mut client, "save", "snapshot-save", json!({"tag": "the disk is full"})).expect_err("failed");
        assert_eq!(error.to_string(), "the disk is full");
        assert_eq!(service.0.query(), json!([]));
    }
}
