//! Jobs: their life over a connection, and over the end of one.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use qmp::schema::{Argument, CommandSchema, EMPTY, Kind, QMP_CAPABILITIES, required};
use qmp::{
    EventSender, JOB_LIMIT, JobError, JobHandle, JobResult, JobType, Jobs, ListenSpec, QmpError, Server, Service,
};
use serde_json::{Map, Value, json};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::rig::{Client, socket_path};

const ID: Argument = required("id", Kind::Str, "A job.");

/// A command with these arguments.
const fn command(name: &'static str, arguments: &'static [Argument]) -> CommandSchema {
    CommandSchema { name, doc: "A step of a test.", arguments, returns: Kind::Object(&EMPTY), features: &[] }
}

static COMMANDS: [CommandSchema; 8] = [
    QMP_CAPABILITIES,
    command("save", &[ID]),
    command("load", &[ID]),
    // One step of the job that runs: how it goes on.
    command("advance", &[required("done", Kind::U64, "Done."), required("total", Kind::U64, "In all.")]),
    command("finish", &[required("how", Kind::Str, "How it ends: well, panic, or with this error.")]),
    command("query-jobs", &[]),
    command("job-cancel", &[ID]),
    command("job-dismiss", &[ID]),
];

/// What the job that runs does next.
enum Step {
    Advance(u64, u64),
    Finish(String),
}

/// Jobs that do what requests say, step by step.
struct Stepped {
    jobs: Jobs,
    give: mpsc::UnboundedSender<Step>,
    steps: Arc<tokio::sync::Mutex<mpsc::UnboundedReceiver<Step>>>,
    begun: Arc<Mutex<Vec<String>>>,
}

impl Stepped {
    fn new() -> Self {
        let (give, steps) = mpsc::unbounded_channel();
        let steps = Arc::new(tokio::sync::Mutex::new(steps));
        Self { jobs: Jobs::default(), give, steps, begun: Arc::default() }
    }

    fn begin(&self, id: &str, kind: JobType, events: &EventSender) -> Result<(), QmpError> {
        let (steps, begun, name) = (Arc::clone(&self.steps), Arc::clone(&self.begun), id.to_owned());
        self.jobs.begin(id, kind, events, move |job| async move {
            begun.lock().expect("a list").push(name);
            let mut steps = steps.try_lock().expect("one job runs at a time");
            while let Some(step) = steps.recv().await {
                match step {
                    Step::Advance(done, total) => job.progress(done, total),
                    Step::Finish(how) => return finish(&job, how),
                }
            }
            Err(JobError::Failed("the test is over".into()))
        })
    }
}

fn finish(job: &JobHandle, how: String) -> JobResult {
    match how.as_str() {
        "well" if job.is_cancelled() => Err(JobError::Cancelled),
        "well" => Ok(Map::from_iter([("x-result".to_owned(), json!({"bytes": 7}))])),
        "panic" => panic!("on purpose"),
        _ => Err(JobError::Failed(how)),
    }
}

impl Service for Stepped {
    fn greeting(&self) -> Value {
        json!({"package": "test", "qemu": {"major": 1, "minor": 2, "micro": 3}})
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
        let id = given.get("id").and_then(Value::as_str).unwrap_or_default();
        let number = |name: &str| given[name].as_u64().expect("checked");
        match command.name {
            "save" => self.begin(id, JobType::SnapshotSave, events)?,
            "load" => self.begin(id, JobType::SnapshotLoad, events)?,
            "advance" => self.give.send(Step::Advance(number("done"), number("total"))).expect("a test"),
            "finish" => self.give.send(Step::Finish(given["how"].as_str().expect("text").into())).expect("a test"),
            "query-jobs" => return Ok(self.jobs.query()),
            "job-cancel" => self.jobs.cancel(id)?,
            "job-dismiss" => self.jobs.dismiss(id, events)?,
            other => return Err(QmpError::command_not_found(other)),
        }
        Ok(json!({}))
    }
}

struct JobRig {
    service: Arc<Stepped>,
    socket: PathBuf,
    _server: Server,
}

impl JobRig {
    async fn start() -> Self {
        let (service, socket) = (Arc::new(Stepped::new()), socket_path());
        let listens = vec![ListenSpec::Unix { path: socket.clone() }];
        let server = Server::start(listens, Arc::clone(&service), EventSender::new()).await.expect("a socket");
        Self { service, socket, _server: server }
    }

    async fn client(&self) -> Asking {
        let mut client = Client::new(UnixStream::connect(&self.socket).await.expect("a connection"));
        client.line().await;
        client.ask("{\"execute\": \"qmp_capabilities\"}").await;
        Asking { client, told: Vec::new() }
    }
}

/// A client that keeps what it is told.
struct Asking {
    client: Client,
    told: Vec<String>,
}

impl Asking {
    /// Executes a command: what it returns, or the sentence with which it is refused.
    async fn ask(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        self.client.send(json!({"execute": command, "arguments": arguments}).to_string()).await;
        loop {
            let answer = self.client.value().await;
            if answer.get("event").is_some() {
                self.keep(&answer);
                continue;
            }
            return match answer.get("return") {
                Some(returned) => Ok(returned.clone()),
                None => Err(answer["error"]["desc"].as_str().expect("a sentence").to_owned()),
            };
        }
    }

    async fn done(&mut self, command: &str, arguments: Value) {
        assert_eq!(self.ask(command, arguments).await, Ok(json!({})), "{command}");
    }

    async fn refused(&mut self, command: &str, arguments: Value) -> String {
        self.ask(command, arguments).await.expect_err(command)
    }

    fn keep(&mut self, event: &Value) {
        assert_eq!(event["event"], "JOB_STATUS_CHANGE");
        let text = |name: &str| event["data"][name].as_str().expect("text").to_owned();
        self.told.push(format!("{} {}", text("id"), text("status")));
    }

    /// Hears events until a job stands so.
    async fn wait_for(&mut self, change: &str) {
        while !self.told.iter().any(|told| told == change) {
            let event = self.client.value().await;
            self.keep(&event);
        }
    }

    async fn jobs(&mut self) -> Value {
        self.ask("query-jobs", json!({})).await.expect("a list")
    }
}

#[tokio::test]
async fn a_job_that_ends_well_goes_through_all_its_states() {
    let rig = JobRig::start().await;
    let (mut client, mut other) = (rig.client().await, rig.client().await);
    client.done("save", json!({"id": "job0"})).await;
    client.wait_for("job0 running").await;
    client.done("advance", json!({"done": 30, "total": 100})).await;
    while client.jobs().await[0]["current-progress"] != 30 {}
    let running = json!([{
        "id": "job0", "type": "snapshot-save", "status": "running", "current-progress": 30, "total-progress": 100,
    }]);
    assert_eq!(client.jobs().await, running);
    assert_eq!(other.jobs().await, running, "it is everybody's");
    client.done("finish", json!({"how": "well"})).await;
    client.wait_for("job0 concluded").await;
    let concluded = json!([{
        "id": "job0", "type": "snapshot-save", "status": "concluded", "current-progress": 100, "total-progress": 100,
        "x-result": {"bytes": 7},
    }]);
    assert_eq!(client.jobs().await, concluded);
    other.done("job-dismiss", json!({"id": "job0"})).await;
    client.wait_for("job0 null").await;
    let told = ["created", "running", "waiting", "pending", "concluded", "null"].map(|state| format!("job0 {state}"));
    assert_eq!(client.told, told);
    assert_eq!(other.told, told);
    assert_eq!(client.jobs().await, json!([]));
}

#[tokio::test]
async fn a_job_that_fails_says_why_until_it_is_dismissed() {
    let rig = JobRig::start().await;
    let mut client = rig.client().await;
    for (how, told) in [("the disk is full", "the disk is full"), ("panic", "this is a bug: ")] {
        client.told.clear();
        client.done("load", json!({"id": "job0"})).await;
        client.done("finish", json!({"how": how})).await;
        client.wait_for("job0 concluded").await;
        assert_eq!(client.told, ["created", "running", "aborting", "concluded"].map(|state| format!("job0 {state}")));
        let jobs = client.jobs().await;
        assert_eq!((&jobs[0]["status"], &jobs[0]["current-progress"]), (&json!("concluded"), &json!(0)));
        assert!(jobs[0]["error"].as_str().is_some_and(|error| error.starts_with(told)), "{jobs}");
        client.done("job-dismiss", json!({"id": "job0"})).await;
    }
}

#[tokio::test]
async fn a_job_outlives_its_client_and_the_next_has_its_turn() {
    let rig = JobRig::start().await;
    let mut client = rig.client().await;
    for id in ["first", "second", "third"] {
        client.done("save", json!({"id": id})).await;
    }
    drop(client);
    let mut client = rig.client().await;
    let stand = |jobs: Value| {
        let jobs = jobs.as_array().expect("a list").clone();
        jobs.iter().map(|job| job["status"].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    while stand(client.jobs().await) != ["running", "created", "created"] {}
    client.done("finish", json!({"how": "well"})).await;
    client.wait_for("second running").await;
    assert_eq!(stand(client.jobs().await), ["concluded", "running", "created"]);
    client.done("finish", json!({"how": "well"})).await;
    client.done("finish", json!({"how": "well"})).await;
    client.wait_for("third concluded").await;
    assert_eq!(*rig.service.begun.lock().expect("a list"), ["first", "second", "third"]);
}

#[tokio::test]
async fn who_waits_gives_up_at_once_and_a_save_when_it_can() {
    let rig = JobRig::start().await;
    let mut client = rig.client().await;
    client.done("save", json!({"id": "save"})).await;
    client.done("load", json!({"id": "load"})).await;
    client.wait_for("save running").await;
    client.done("job-cancel", json!({"id": "load"})).await;
    client.wait_for("load concluded").await;
    assert!(client.told.ends_with(&["load aborting".into(), "load concluded".into()]), "{:?}", client.told);
    client.done("job-cancel", json!({"id": "save"})).await;
    client.done("finish", json!({"how": "well"})).await;
    client.wait_for("save concluded").await;
    let jobs = client.jobs().await;
    assert_eq!((&jobs[0]["error"], &jobs[1]["error"]), (&json!("Operation canceled"), &json!("Operation canceled")));
    assert_eq!(*rig.service.begun.lock().expect("a list"), ["save"], "the load never began");
    // The turn that the load did not take is the next one's.
    client.done("load", json!({"id": "again"})).await;
    client.wait_for("again running").await;
}

#[tokio::test]
async fn refusals_have_the_words_of_qemu() {
    let rig = JobRig::start().await;
    let mut client = rig.client().await;
    for id in ["", "0job", "a job", "job/0"] {
        assert_eq!(client.refused("save", json!({"id": id})).await, format!("Invalid job ID '{id}'"));
    }
    for command in ["job-dismiss", "job-cancel"] {
        assert_eq!(client.refused(command, json!({"id": "job0"})).await, "Job not found");
    }
    client.done("load", json!({"id": "job0"})).await;
    client.wait_for("job0 running").await;
    assert_eq!(client.refused("save", json!({"id": "job0"})).await, "Job ID 'job0' already in use");
    assert_eq!(
        client.refused("job-dismiss", json!({"id": "job0"})).await,
        "Job 'job0' in state 'running' cannot accept command verb 'dismiss'"
    );
    assert_eq!(
        client.refused("job-cancel", json!({"id": "job0"})).await,
        "Job 'job0' in state 'running' cannot accept command verb 'cancel': a snapshot-load that has begun goes on to its end"
    );
    client.done("save", json!({"id": "job1"})).await;
    assert_eq!(
        client.refused("job-dismiss", json!({"id": "job1"})).await,
        "Job 'job1' in state 'created' cannot accept command verb 'dismiss'"
    );
    client.done("finish", json!({"how": "well"})).await;
    client.wait_for("job0 concluded").await;
    assert_eq!(
        client.refused("job-cancel", json!({"id": "job0"})).await,
        "Job 'job0' in state 'concluded' cannot accept command verb 'cancel'"
    );
    assert_eq!(client.refused("save", json!({"id": "job0"})).await, "Job ID 'job0' already in use", "until dismissed");
}

#[tokio::test]
async fn the_limit_counts_those_that_nobody_dismissed() {
    let rig = JobRig::start().await;
    let mut client = rig.client().await;
    for number in 0..JOB_LIMIT {
        client.done("save", json!({"id": format!("job{number}")})).await;
    }
    let sentence = "There are 64 jobs, which is the limit: dismiss those that have concluded";
    assert_eq!(client.refused("save", json!({"id": "more"})).await, sentence);
    client.done("finish", json!({"how": "well"})).await;
    client.wait_for("job0 concluded").await;
    assert_eq!(client.refused("save", json!({"id": "more"})).await, sentence);
    client.done("job-dismiss", json!({"id": "job0"})).await;
    client.done("save", json!({"id": "more"})).await;
}

#[tokio::test]
async fn progress_does_not_go_back_and_is_never_more_than_all() {
    let rig = JobRig::start().await;
    let mut client = rig.client().await;
    client.done("save", json!({"id": "job0"})).await;
    let mut seen = Vec::new();
    for (done, total) in [(5, 10), (3, 12), (20, 12), (20, 0)] {
        client.done("advance", json!({"done": done, "total": total})).await;
        loop {
            let jobs = client.jobs().await;
            let read = |name: &str| jobs[0][name].as_u64().expect("a number");
            let now = (read("current-progress"), read("total-progress"));
            assert!(now.0 <= now.1, "{jobs}");
            if seen.last() != Some(&now) {
                seen.push(now);
            }
            if now.0 >= done && now.1 == total.max(now.0).max(1) {
                break;
            }
        }
    }
    assert!(seen.is_sorted_by_key(|(done, _)| *done), "{seen:?}");
    assert_eq!(seen.last(), Some(&(20, 20)));
}
