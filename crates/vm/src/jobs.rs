//! What the host can ask of a vCPU while it has nothing else to do: loads, stores, copies, patterns, loops.
//!
//! ```text
//!  start_job: words into the job page, kick ─▶ RunningJob ─ stop ─▶ wait: PORT_DONE, results out of the job page
//! ```
//!
//! One job at a time for each vCPU. Deliberately absent: what the answers mean.

use std::mem::offset_of;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use driver::HpaRange;
use guest::place::{self, JOB_DATA_LEN_BYTES, vcpu_block};
use guest::{JobKind, JobPage, NO_ANSWER, NONE_WRONG, WATCHED_VALUES_MAX};
use wire::{Hpa, Opcode};

use crate::guest_memory::SharedPages;

/// A width of a load, a store, or a port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessWidth {
    /// 1 byte.
    Byte,
    /// 2 bytes.
    Word,
    /// 4 bytes.
    Dword,
    /// 8 bytes; a port access has 4 at most.
    Qword,
}

impl AccessWidth {
    fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }
}

/// What a sweep does at each step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SweepAccess {
    /// Loads 8 bytes.
    Read,
    /// Stores 8 bytes.
    Write,
}

/// What a vCPU is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// One load.
    Read {
        /// Where.
        hpa: Hpa,
        /// How wide.
        width: AccessWidth,
    },
    /// One store.
    Write {
        /// Where.
        hpa: Hpa,
        /// How wide.
        width: AccessWidth,
        /// What; its lowest bytes.
        value: u64,
    },
    /// Loads that are natural, of at most 8 bytes, one after the other.
    CopyOut {
        /// From where.
        hpa: Hpa,
        /// How many bytes, at most [`COPY_LEN_BYTES_MAX`].
        len_bytes: u64,
    },
    /// Stores that are natural, of at most 8 bytes, one after the other.
    CopyIn {
        /// To where.
        hpa: Hpa,
        /// What, at most [`COPY_LEN_BYTES_MAX`] bytes.
        bytes: Vec<u8>,
    },
    /// One `in`.
    PortRead {
        /// The port.
        port: u16,
        /// How wide.
        width: AccessWidth,
    },
    /// One `out`.
    PortWrite {
        /// The port.
        port: u16,
        /// How wide.
        width: AccessWidth,
        /// What; its lowest bytes.
        value: u64,
    },
    /// Stores a pattern ([`guest::pattern_byte`]).
    Fill {
        /// Where.
        hpa: Hpa,
        /// How many bytes.
        len_bytes: u64,
        /// What the pattern follows from.
        seed: u64,
    },
    /// Compares with a pattern.
    Check {
        /// Where.
        hpa: Hpa,
        /// How many bytes.
        len_bytes: u64,
        /// What the pattern follows from.
        seed: u64,
    },
    /// Goes over memory, and says how long it took.
    Sweep {
        /// Where.
        hpa: Hpa,
        /// How many bytes.
        len_bytes: u64,
        /// From one access to the next; not 0.
        stride_bytes: u64,
        /// How often it goes over all of it.
        rounds: u64,
        /// What it does.
        access: SweepAccess,
    },
    /// Loads 8 bytes in a tight loop until they are `until`, or it is stopped, after which it loads once more.
    Watch {
        /// Where.
        hpa: Hpa,
        /// What ends it.
        until: u64,
        /// Values that are right, counted one by one, at most 4.
        allowed: Vec<u64>,
    },
    /// Sends a mailbox command, as the driver does: for vCPU 0, which has the heap.
    Command {
        /// The registers of the mailbox, payload and all.
        mailbox: HpaRange,
        /// Which command.
        opcode: Opcode,
        /// Where its payload is in the guest's RAM, and how long it is.
        payload: HpaRange,
    },
    /// Stores 8 bytes in a tight loop, each time one more, and loads them again, until it is stopped.
    Count {
        /// Where.
        hpa: Hpa,
        /// The first number.
        first: u64,
    },
}

/// Bytes of a job that copies, at most.
pub const COPY_LEN_BYTES_MAX: u64 = JOB_DATA_LEN_BYTES;

/// What a device answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commanded {
    /// Its return code; `None`: there was no answer.
    pub code: Option<u16>,
    /// Length of the answer's payload in bytes.
    pub len_bytes: u64,
    /// Ticks of the time stamp counter from the first store to the last load.
    pub ticks: u64,
}

/// What a watch has seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// Loads in all.
    pub loads: u64,
    /// Loads of neither `until` nor an allowed value.
    pub others: u64,
    /// The first of these, if there was one.
    pub first_other: Option<u64>,
    /// The last load.
    pub last: u64,
    /// Loads of each allowed value, in their order.
    pub of_each: Vec<u64>,
}

/// What a count has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The last number stored.
    pub last: u64,
    /// Loads that differ from what was just stored.
    pub differ: u64,
    /// The first of these, if there was one.
    pub first_different: Option<u64>,
}

/// What came of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobAnswer {
    /// Of a store.
    Done,
    /// Of a load.
    Value(u64),
    /// Of [`Job::CopyOut`].
    Bytes(Vec<u8>),
    /// Of [`Job::Check`]: the offset of the first byte that is wrong.
    FirstWrong(Option<u64>),
    /// Of [`Job::Sweep`]: ticks of the time stamp counter.
    Ticks(u64),
    /// Of [`Job::Command`].
    Commanded(Commanded),
    /// Of [`Job::Watch`].
    Watched(Watched),
    /// Of [`Job::Count`].
    Counted(Counted),
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// There is no such vCPU.
    #[error("there is no vCPU {vcpu}: the machine has {vcpus}, counted from 0")]
    NoVcpu {
        /// Which.
        vcpu: u32,
        /// How many there are.
        vcpus: u32,
    },
    /// It has a job already.
    #[error("vCPU {vcpu} has a job already: stop it, or wait for it")]
    Busy {
        /// Which.
        vcpu: u32,
    },
    /// The job says what no vCPU can do.
    #[error("no vCPU does this: {0}")]
    Malformed(&'static str),
    /// It is not done in time.
    #[error("vCPU {vcpu} has not done its job in {waited_ms} ms")]
    TimedOut {
        /// Which.
        vcpu: u32,
        /// How long was waited.
        waited_ms: u64,
    },
    /// The vCPU has ended.
    #[error("vCPU {vcpu} has ended")]
    Ended {
        /// Which.
        vcpu: u32,
    },
    /// Its kick could not be sent.
    #[error("vCPU {vcpu} cannot be told of its job: error {code}")]
    Kick {
        /// Which.
        vcpu: u32,
        /// The host's error number.
        code: i32,
    },
}

/// What a job is made of.
struct Words {
    kind: JobKind,
    arguments: [u64; 8],
}

impl Job {
    fn words(&self) -> Result<Words, JobError> {
        let words = |kind, arguments: &[u64]| {
            let mut all = [0; 8];
            all.iter_mut().zip(arguments).for_each(|(to, from)| *to = *from);
            Ok(Words { kind, arguments: all })
        };
        match self {
            Self::Read { hpa, width } => words(JobKind::Read, &[hpa.0, width.bytes()]),
            Self::Write { hpa, width, value } => words(JobKind::Write, &[hpa.0, width.bytes(), *value]),
            Self::CopyOut { hpa, len_bytes } => words(JobKind::CopyOut, &[hpa.0, copy_len(*len_bytes)?]),
            Self::CopyIn { hpa, bytes } => words(JobKind::CopyIn, &[hpa.0, copy_len(bytes.len() as u64)?]),
            Self::PortRead { port, width } => words(JobKind::PortRead, &[(*port).into(), port_width(*width)?]),
            Self::PortWrite { port, width, value } => {
                words(JobKind::PortWrite, &[(*port).into(), port_width(*width)?, *value])
            }
            Self::Fill { hpa, len_bytes, seed } => words(JobKind::Fill, &[hpa.0, *len_bytes, *seed]),
            Self::Check { hpa, len_bytes, seed } => words(JobKind::Check, &[hpa.0, *len_bytes, *seed]),
            Self::Sweep { hpa, len_bytes, stride_bytes, rounds, access } => {
                let kind = match access {
                    SweepAccess::Read => JobKind::SweepRead,
                    SweepAccess::Write => JobKind::SweepWrite,
                };
                words(kind, &[hpa.0, *len_bytes, *stride_bytes, *rounds])
            }
            Self::Watch { hpa, until, allowed } => {
                if allowed.len() > WATCHED_VALUES_MAX {
                    return Err(JobError::Malformed("a watch of more than 4 values"));
                }
                let mut arguments = vec![hpa.0, *until, allowed.len() as u64];
                arguments.extend(allowed);
                words(JobKind::Watch, &arguments)
            }
            Self::Command { mailbox, opcode, payload } => words(
                JobKind::Command,
                &[mailbox.base.0, mailbox.size_bytes, opcode.0.into(), payload.base.0, payload.size_bytes],
            ),
            Self::Count { hpa, first } => words(JobKind::Count, &[hpa.0, *first]),
        }
    }
}

fn copy_len(len_bytes: u64) -> Result<u64, JobError> {
    let is_short = len_bytes <= COPY_LEN_BYTES_MAX;
    is_short.then_some(len_bytes).ok_or(JobError::Malformed("a copy of more than 16 KiB"))
}

fn port_width(width: AccessWidth) -> Result<u64, JobError> {
    let is_narrow = width != AccessWidth::Qword;
    is_narrow.then_some(width.bytes()).ok_or(JobError::Malformed("a port access of 8 bytes"))
}

/// Where jobs of one vCPU are handed over.
#[derive(Debug)]
pub(crate) struct JobDesk {
    vcpu: u32,
    pages: SharedPages,
    state: Mutex<DeskState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct DeskState {
    has_ended: bool,
}

impl JobDesk {
    pub(crate) fn new(vcpu: u32, pages: SharedPages) -> Self {
        Self { vcpu, pages, state: Mutex::default(), changed: Condvar::new() }
    }

    /// The guest says that a job is done, or that it is over with it.
    pub(crate) fn ring(&self, has_ended: bool) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).has_ended |= has_ended;
        self.changed.notify_all();
    }

    /// Puts a job on the desk; its number.
    fn put(&self, job: &Job) -> Result<u64, JobError> {
        let Words { kind, arguments } = job.words()?;
        if kind == JobKind::Command && self.vcpu != 0 {
            return Err(JobError::Malformed("a command of another vCPU than 0"));
        }
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.has_ended {
            return Err(JobError::Ended { vcpu: self.vcpu });
        }
        let asked = self.word(offset_of!(JobPage, asked));
        if asked != self.word(offset_of!(JobPage, done)) {
            return Err(JobError::Busy { vcpu: self.vcpu });
        }
        if let Job::CopyIn { bytes, .. } = job {
            // The length was checked, and the desk is inside RAM.
            let _ = self.pages.ram().write(self.data_at(), bytes);
        }
        self.set_word(offset_of!(JobPage, kind), kind as u64);
        for (index, argument) in arguments.into_iter().enumerate() {
            self.set_word(offset_of!(JobPage, arguments) + 8 * index, argument);
        }
        // The guest takes the number as the sign that all the rest is there.
        fence(Ordering::Release);
        self.set_word(offset_of!(JobPage, asked), asked.wrapping_add(1));
        Ok(asked.wrapping_add(1))
    }

    fn is_done(&self, number: u64) -> bool {
        self.word(offset_of!(JobPage, done)) == number
    }

    fn results(&self) -> [u64; 8] {
        fence(Ordering::Acquire);
        std::array::from_fn(|index| self.word(offset_of!(JobPage, results) + 8 * index))
    }

    fn data(&self, len_bytes: u64) -> Vec<u8> {
        let mut bytes = vec![0; len_bytes.min(COPY_LEN_BYTES_MAX) as usize];
        let _ = self.pages.ram().read(self.data_at(), &mut bytes);
        bytes
    }

    fn data_at(&self) -> u64 {
        vcpu_block(self.vcpu) + place::JOB_DATA
    }

    fn at(&self, offset: usize) -> u64 {
        vcpu_block(self.vcpu) + place::JOB_PAGE + offset as u64
    }

    fn word(&self, offset: usize) -> u64 {
        self.pages.word(self.at(offset))
    }

    fn set_word(&self, offset: usize, value: u64) {
        self.pages.set_word(self.at(offset), value);
    }
}

/// A job that was asked for.
#[derive(Debug)]
pub struct RunningJob {
    desk: Arc<JobDesk>,
    number: u64,
    job: Job,
}

impl RunningJob {
    /// Asks for a job; the caller sees to it that the guest looks.
    pub(crate) fn ask(desk: &Arc<JobDesk>, job: Job) -> Result<Self, JobError> {
        let number = desk.put(&job)?;
        Ok(Self { desk: Arc::clone(desk), number, job })
    }

    /// The job that a vCPU was loaded with, which `job` describes.
    pub(crate) fn adopt(desk: &Arc<JobDesk>, job: Job) -> Option<Self> {
        let number = desk.word(offset_of!(JobPage, asked));
        let is_it = job.words().is_ok_and(|words| desk.word(offset_of!(JobPage, kind)) == words.kind as u64);
        let is_under_way = is_it && !desk.is_done(number);
        is_under_way.then(|| Self { desk: Arc::clone(desk), number, job })
    }

    /// Tells a watch or a count to stop. The guest sees it at its next turn.
    pub fn stop(&self) {
        self.desk.set_word(offset_of!(JobPage, stop), self.number);
    }

    /// Waits until it is done.
    ///
    /// # Errors
    ///
    /// It is not done in time, or never will be. It can be waited for again.
    pub fn wait(&self, timeout: Duration) -> Result<JobAnswer, JobError> {
        let begun = Instant::now();
        let mut state = self.desk.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !self.desk.is_done(self.number) {
            if state.has_ended {
                return Err(JobError::Ended { vcpu: self.desk.vcpu });
            }
            let Some(left) = timeout.checked_sub(begun.elapsed()).filter(|left| !left.is_zero()) else {
                return Err(JobError::TimedOut { vcpu: self.desk.vcpu, waited_ms: timeout.as_millis() as u64 });
            };
            state = self.desk.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(self.answer())
    }

    fn answer(&self) -> JobAnswer {
        let results = self.desk.results();
        let [a, b, c, d, of_each @ ..] = results;
        match &self.job {
            Job::Read { .. } | Job::PortRead { .. } => JobAnswer::Value(a),
            Job::Write { .. } | Job::PortWrite { .. } | Job::CopyIn { .. } | Job::Fill { .. } => JobAnswer::Done,
            Job::CopyOut { len_bytes, .. } => JobAnswer::Bytes(self.desk.data(*len_bytes)),
            Job::Check { .. } => JobAnswer::FirstWrong((a != NONE_WRONG).then_some(a)),
            Job::Sweep { .. } => JobAnswer::Ticks(a),
            Job::Command { .. } => {
                JobAnswer::Commanded(Commanded { code: (a != NO_ANSWER).then_some(a as u16), len_bytes: b, ticks: c })
            }
            Job::Watch { allowed, .. } => JobAnswer::Watched(Watched {
                loads: a,
                others: b,
                first_other: (b != 0).then_some(c),
                last: d,
                of_each: of_each.into_iter().take(allowed.len()).collect(),
            }),
            Job::Count { .. } => {
                JobAnswer::Counted(Counted { last: a, differ: b, first_different: (b != 0).then_some(c) })
            }
        }
    }
}
