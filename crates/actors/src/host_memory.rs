//! Host memory for backends, made away from the actors: a 64 GiB `prealloc` stands before nobody's doorbell.
//!
//! ```text
//!  object-add, start ──▶ Maker ── blocking thread ──▶ HostMemory        object-del ──▶ retire ── blocking thread
//!                          └── once a second ──▶ PreallocListener
//! ```
//!
//! Deliberately absent: what is decided about a backend. The registry decides, with how the making went.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use device::backends::{BackendKind, BackendSpec, Sharing, Survival};
use memory::{BackendDir, FileRun, HostMemory, HostMemoryError, HostMemorySpec, MissingFile, Surroundings};

/// Who hears how far a preallocation is that lasts: the backend's id, bytes done, bytes in all. Called at most once a
/// second, and once more at its end if it was called before.
pub type PreallocListener = Arc<dyn Fn(&str, u64, u64) + Send + Sync>;

/// Who keeps the memory of memfd backends while no process has it: the service manager.
pub trait MemoryKeeper: Send + Sync {
    /// What was kept of a backend; once.
    fn take(&self, backend: &str) -> Option<OwnedFd>;

    /// Keeps the memory of a backend, in the place of what was kept of it.
    fn keep(&self, backend: &str, memory: BorrowedFd<'_>);

    /// Keeps it no longer.
    fn forget(&self, backend: &str);

    /// Nothing more of what was kept will be asked for: the rest is of backends that are not there any more.
    fn forget_rest(&self);
}

/// How long nothing is said, and how often something after that.
const PACE: Duration = Duration::from_secs(1);

/// What the memory of every backend of a VM is made with.
#[derive(Clone)]
pub(crate) struct Maker {
    pub(crate) backend_dir: Option<BackendDir>,
    pub(crate) listener: PreallocListener,
    pub(crate) keeper: Option<Arc<dyn MemoryKeeper>>,
}

impl Maker {
    /// The memory of a memfd backend that was kept since the last process, if it was.
    ///
    /// # Errors
    ///
    /// It is not what the backend is.
    pub(crate) fn kept(&self, id: &str, spec: &BackendSpec) -> Result<Option<Arc<HostMemory>>, String> {
        let keeper = self.keeper.as_ref().filter(|_| matches!(spec.kind, BackendKind::Memfd { .. }));
        let Some(fd) = keeper.and_then(|keeper| keeper.take(id)) else { return Ok(None) };
        let memory = HostMemory::from_fd(fd, &host_spec(spec));
        memory.map(|memory| Some(Arc::new(memory))).map_err(|error| format!("what was kept of it: {error}"))
    }

    /// Has the memory of a memfd backend kept.
    pub(crate) fn keep(&self, id: &str, spec: &BackendSpec, memory: &HostMemory) {
        let keeper = self.keeper.as_ref().filter(|_| matches!(spec.kind, BackendKind::Memfd { .. }));
        if let (Some(keeper), Ok(Some(fd))) = (keeper, memory.share()) {
            keeper.keep(id, fd.as_fd());
        }
    }

    /// What was kept of backends that are not there is not wanted any more.
    pub(crate) fn forget_rest(&self) {
        self.keeper.iter().for_each(|keeper| keeper.forget_rest());
    }

    /// What is kept of a backend that was deleted is not wanted any more.
    pub(crate) fn forget(&self, id: &str) {
        self.keeper.iter().for_each(|keeper| keeper.forget(id));
    }

    /// Makes a backend's memory on a blocking thread.
    pub(crate) async fn make(
        &self,
        id: &str,
        spec: &BackendSpec,
        missing: MissingFile,
    ) -> Result<Arc<HostMemory>, String> {
        self.make_with(id, spec, missing, HostMemory::create).await
    }

    /// Makes a backend's memory with the bytes of files in it, which are read when they are touched.
    pub(crate) async fn make_over(
        &self,
        id: &str,
        spec: &BackendSpec,
        runs: Vec<FileRun>,
    ) -> Result<Arc<HostMemory>, String> {
        let over =
            move |spec: &HostMemorySpec, surroundings: Surroundings<'_>| HostMemory::over(spec, surroundings, &runs);
        self.make_with(id, spec, MissingFile::Refuse, over).await
    }

    async fn make_with(
        &self,
        id: &str,
        spec: &BackendSpec,
        missing: MissingFile,
        make: impl FnOnce(&HostMemorySpec, Surroundings<'_>) -> Result<HostMemory, HostMemoryError> + Send + 'static,
    ) -> Result<Arc<HostMemory>, String> {
        let (maker, id, spec) = (self.clone(), id.to_owned(), host_spec(spec));
        let made = tokio::task::spawn_blocking(move || {
            let pace = Pace::new();
            let progress = |done_bytes, total_bytes| {
                if pace.is_due(Instant::now(), done_bytes == total_bytes) {
                    (maker.listener)(&id, done_bytes, total_bytes);
                }
            };
            let surroundings = Surroundings { backend_dir: maker.backend_dir.as_ref(), missing, progress: &progress };
            make(&spec, surroundings)
        });
        match made.await {
            Ok(Ok(memory)) => Ok(Arc::new(memory)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(format!("the thread that made it ended: {error}")),
        }
    }
}

/// When the next word about a preallocation is due.
struct Pace(Mutex<Spoken>);

struct Spoken {
    /// The last time, or the beginning.
    last: Instant,
    has_spoken: bool,
}

impl Pace {
    fn new() -> Self {
        Self(Mutex::new(Spoken { last: Instant::now(), has_spoken: false }))
    }

    fn is_due(&self, now: Instant, is_end: bool) -> bool {
        let mut spoken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_waited = now.saturating_duration_since(spoken.last) >= PACE;
        let is_due = if is_end { spoken.has_spoken } else { has_waited };
        if is_due {
            *spoken = Spoken { last: now, has_spoken: true };
        }
        is_due
    }
}

/// Whether the bytes of a backend of the past are in the memory that was made for it again. A file that is gone or too
/// short has refused to be that memory; what was private to the process ended with it, whatever file was under it.
pub(crate) fn survival(spec: &BackendSpec) -> Survival {
    match (&spec.kind, spec.sharing) {
        (BackendKind::File { .. }, Sharing::Shared) => Survival::Kept,
        _ => Survival::Lost,
    }
}

/// The end of a deleted backend's memory. Giving many pages back takes long: not for an actor's thread.
pub(crate) fn retire(id: &str, memory: Arc<HostMemory>) {
    if let Err(error) = memory.discard() {
        tracing::warn!("backend {id}: discard-data: its bytes are still in its file: {error}");
    }
}

/// A backend without its names.
pub(crate) fn host_spec(spec: &BackendSpec) -> HostMemorySpec {
    HostMemorySpec {
        kind: spec.kind.clone(),
        size_bytes: spec.size_bytes,
        sharing: spec.sharing,
        population: spec.population,
        reservation: spec.reservation,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preallocation_is_heard_of_once_a_second_and_at_its_end() {
        let pace = Pace::new();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let due: Vec<_> = [500, 900, 1100, 1500, 2000, 2200].map(|ms| pace.is_due(at(ms), false)).into();
        assert_eq!(due, [false, false, true, false, false, true]);
        assert!(pace.is_due(at(2201), true), "who heard of it hears of its end");
        assert!(!Pace::new().is_due(at(500), true), "a short one is not spoken of");
        assert!(!Pace::new().is_due(at(5000), true), "nor one of which nothing was said");
    }
}
