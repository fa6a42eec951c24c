//! Jobs: work that goes on after its command was answered, and whoever is connected may ask how far it is.
//!
//! ```text
//!  created ──its turn──▶ running ──done──▶ waiting ──▶ pending ──▶ concluded ──job-dismiss──▶ null
//!     │                    └────failed, cancelled───▶ aborting ───────▲
//!     └──cancelled────────────────────────────────────┘
//! ```
//!
//! The states are QEMU's, and so is their order; every change is told by JOB_STATUS_CHANGE before it can be seen by `query-jobs`
//! as another. One job runs at a time, in the order in which they were begun. A job is nobody's: it outlives the client that
//! began it. Deliberately absent: jobs that are paused, made ready or completed by hand, which those of block devices are.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device::config::is_id;
use serde_json::{Map, Value, json};
use tokio::sync::{oneshot, watch};

use crate::error::QmpError;
use crate::events::EventSender;
use crate::turns::{Turn, Turns};

/// How many jobs there may be, those among them that have ended and were not dismissed.
pub const JOB_LIMIT: usize = 64;

/// The event of every change of a job's state.
pub(crate) const STATUS_CHANGE: &str = "JOB_STATUS_CHANGE";

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobType {
    /// Saves a snapshot.
    SnapshotSave,
    /// Loads one.
    SnapshotLoad,
    /// Deletes one.
    SnapshotDelete,
}

impl JobType {
    /// Its name in QMP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SnapshotSave => "snapshot-save",
            Self::SnapshotLoad => "snapshot-load",
            Self::SnapshotDelete => "snapshot-delete",
        }
    }

    /// Whether one that runs can be told to give up. What half of a load or of a deletion leaves is of no use to anybody.
    const fn gives_up(self) -> bool {
        matches!(self, Self::SnapshotSave)
    }
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JobStatus {
    Created,
    Running,
    Waiting,
    Pending,
    Aborting,
    Concluded,
    Null,
}

impl JobStatus {
    const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Aborting => "aborting",
            Self::Concluded => "concluded",
            Self::Null => "null",
        }
    }
}

/// Why nothing came of a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// A client cancelled it, and it left nothing behind.
    #[error("Operation canceled")]
    Cancelled,
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

/// What a job that has ended well has to say: further members of what `query-jobs` returns of it.
pub type JobResult = Result<Map<String, Value>, JobError>;

/// What whoever does a job's work has of it. Clones are handles to the same job.
#[derive(Clone)]
pub struct JobHandle {
    progress: Arc<Progress>,
    wish: watch::Receiver<Wish>,
}

/// What is wanted of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    GoOn,
    Cancel,
}

impl JobHandle {
    /// Says how much is done, and how much there is to do. What was done stays done: a lesser number is not taken.
    pub fn progress(&self, done: u64, total: u64) {
        self.progress.done.fetch_max(done, Ordering::Relaxed);
        self.progress.total.store(total.max(1), Ordering::Relaxed);
    }

    /// Whether a client wants it to give up.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        *self.wish.borrow() == Wish::Cancel
    }

    /// Returns when a client wants it to give up.
    async fn cancelled(mut self) {
        if self.wish.wait_for(|wish| *wish == Wish::Cancel).await.is_err() {
            // The job is gone, and so is everybody who could.
            std::future::pending::<()>().await;
        }
    }
}

/// How far a job is. The unit is its own.
struct Progress {
    done: AtomicU64,
    total: AtomicU64,
}

impl Progress {
    const fn new() -> Self {
        Self { done: AtomicU64::new(0), total: AtomicU64::new(1) }
    }

    fn read(&self) -> (u64, u64) {
        let done = self.done.load(Ordering::Relaxed);
        (done, self.total.load(Ordering::Relaxed).max(done))
    }
}

struct Job {
    id: String,
    kind: JobType,
    status: JobStatus,
    progress: Arc<Progress>,
    wish: watch::Sender<Wish>,
    /// Once it has ended.
    result: Option<JobResult>,
}

impl Job {
    fn info(&self) -> Value {
        let (done, total) = self.progress.read();
        let mut info = json!({
            "id": self.id,
            "type": self.kind.name(),
            "status": self.status.name(),
            "current-progress": done,
            "total-progress": total,
        });
        match &self.result {
            None => {}
            Some(Err(error)) => info["error"] = error.to_string().into(),
            Some(Ok(members)) => members.iter().for_each(|(name, value)| info[name] = value.clone()),
        }
        info
    }

    fn change(&mut self, to: JobStatus, events: &EventSender) {
        self.status = to;
        events.send(STATUS_CHANGE, json!({"id": self.id, "status": to.name()}));
    }

    /// What QEMU says where a verb does not fit the state.
    fn refuse<T>(&self, verb: &str, reason: &str) -> Result<T, QmpError> {
        let (id, status) = (&self.id, self.status.name());
        let sentence = format!("Job '{id}' in state '{status}' cannot accept command verb '{verb}'{reason}");
        Err(QmpError::generic(sentence))
    }
}

/// All jobs. Clones are handles to the same ones.
#[derive(Clone, Default)]
pub struct Jobs {
    listed: Arc<Mutex<Vec<Job>>>,
    turns: Turns,
}

impl Jobs {
    /// Begins a job and returns at once. `work` is called when the jobs before it have ended.
    ///
    /// # Errors
    /// If `id` is no id or that of another job, or if there are [`JOB_LIMIT`] jobs.
    pub fn begin<Work, Ending>(&self, id: &str, kind: JobType, events: &EventSender, work: Work) -> Result<(), QmpError>
    where
        Work: FnOnce(JobHandle) -> Ending + Send + 'static,
        Ending: Future<Output = JobResult> + Send + 'static,
    {
        let mut listed = self.listed();
        check_new(&listed, id)?;
        let (wish, wished) = watch::channel(Wish::GoOn);
        let progress = Arc::new(Progress::new());
        let handle = JobHandle { progress: Arc::clone(&progress), wish: wished };
        let mut job = Job { id: id.to_owned(), kind, status: JobStatus::Created, progress, wish, result: None };
        job.change(JobStatus::Created, events);
        listed.push(job);
        // Under the lock, so that the jobs have their turns in the order of the list.
        let turn = self.turns.ask();
        drop(listed);
        tokio::spawn(self.clone().run(id.to_owned(), turn, events.clone(), handle, work));
        Ok(())
    }

    async fn run<Work, Ending>(
        self,
        id: String,
        turn: oneshot::Receiver<Turn>,
        events: EventSender,
        handle: JobHandle,
        work: Work,
    ) where
        Work: FnOnce(JobHandle) -> Ending + Send + 'static,
        Ending: Future<Output = JobResult> + Send + 'static,
    {
        let turn = tokio::select! {
            biased;
            () = handle.clone().cancelled() => None,
            turn = turn => turn.ok(),
        };
        let result = if turn.is_some() && self.start(&id, &events) {
            // A task of its own, so that a panic ends the job and not only the task.
            let ended = tokio::spawn(async move { work(handle).await }).await;
            ended.unwrap_or_else(|error| Err(JobError::Failed(format!("this is a bug: {error}"))))
        } else {
            Err(JobError::Cancelled)
        };
        self.end(&id, result, &events);
        // Not before: who sees the next one run sees that this one has ended.
        drop(turn);
    }

    /// Whether the job runs now: it does not if it was cancelled before.
    fn start(&self, id: &str, events: &EventSender) -> bool {
        let mut listed = self.listed();
        let Some(job) = find(&mut listed, id) else { return false };
        if *job.wish.borrow() == Wish::Cancel {
            return false;
        }
        job.change(JobStatus::Running, events);
        true
    }

    fn end(&self, id: &str, result: JobResult, events: &EventSender) {
        let mut listed = self.listed();
        // Only a job that has ended can be dismissed.
        let Some(job) = find(&mut listed, id) else { return };
        if result.is_ok() {
            job.progress.done.store(job.progress.read().1, Ordering::Relaxed);
            job.change(JobStatus::Waiting, events);
            job.change(JobStatus::Pending, events);
        } else {
            job.change(JobStatus::Aborting, events);
        }
        job.result = Some(result);
        job.change(JobStatus::Concluded, events);
    }

    /// `query-jobs`: all of them, in the order in which they were begun.
    #[must_use]
    pub fn query(&self) -> Value {
        self.listed().iter().map(Job::info).collect()
    }

    /// `job-dismiss`: forgets a job that has ended.
    ///
    /// # Errors
    /// If there is none of this id, or it has not ended.
    pub fn dismiss(&self, id: &str, events: &EventSender) -> Result<(), QmpError> {
        let mut listed = self.listed();
        let job = find(&mut listed, id).ok_or_else(not_found)?;
        if job.status != JobStatus::Concluded {
            return job.refuse("dismiss", "");
        }
        job.change(JobStatus::Null, events);
        listed.retain(|job| job.id != id);
        Ok(())
    }

    /// `job-cancel`: asks a job to give up. One that waits for its turn does so at once.
    ///
    /// # Errors
    /// If there is none of this id, or it is one that does not give up any more.
    pub fn cancel(&self, id: &str) -> Result<(), QmpError> {
        let mut listed = self.listed();
        let job = find(&mut listed, id).ok_or_else(not_found)?;
        match job.status {
            JobStatus::Created => {}
            JobStatus::Running if job.kind.gives_up() => {}
            JobStatus::Running => {
                return job.refuse("cancel", &format!(": a {} that has begun goes on to its end", job.kind.name()));
            }
            _ => return job.refuse("cancel", ""),
        }
        job.wish.send_replace(Wish::Cancel);
        Ok(())
    }

    /// For what is no job and must not fall into one: returns when its turn has come, which lasts as long as what is returned.
    pub(crate) async fn turn(&self) -> Option<Turn> {
        let turn = self.turns.ask();
        turn.await.ok()
    }

    fn listed(&self) -> MutexGuard<'_, Vec<Job>> {
        // Nothing panics while it is held.
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(listed: &'a mut [Job], id: &str) -> Option<&'a mut Job> {
    listed.iter_mut().find(|job| job.id == id)
}

fn not_found() -> QmpError {
    QmpError::generic("Job not found")
}

fn check_new(listed: &[Job], id: &str) -> Result<(), QmpError> {
    if !is_id(id) {
        return Err(QmpError::generic(format!("Invalid job ID '{id}'")));
    }
    if listed.iter().any(|job| job.id == id) {
        return Err(QmpError::generic(format!("Job ID '{id}' already in use")));
    }
    if listed.len() >= JOB_LIMIT {
        let sentence = format!("There are {JOB_LIMIT} jobs, which is the limit: dismiss those that have concluded");
        return Err(QmpError::generic(sentence));
    }
    Ok(())
}
