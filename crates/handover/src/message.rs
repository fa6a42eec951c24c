//! What is said: the messages' contents, and how they come over a channel.
//!
//! ```text
//!  Offer = Offer frame + Memories frames of up to 253 names with their descriptors
//!  State = State frame (names, versions, lengths) + Bytes frames of up to 1 MiB + End frame with the deed
//! ```
//!
//! A part is allocated as its bytes come, never by what is said of its length. Deliberately absent: what memory and parts
//! mean.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};

use bincode::{Decode, Encode};
use device::{Seq, VmTime};
use rustix::fs::FileType;

use crate::channel::{Channel, Deadline, Frame};
use crate::codec;
use crate::deed::Deed;
use crate::error::HandoverError;
use crate::frame::{BODY_LEN_BYTES_MAX, FDS_MAX, Kind};

/// The longest text in bytes.
pub const TEXT_LEN_BYTES_MAX: usize = 4096;
/// The longest name of a memory or of a part, in bytes.
pub const ID_LEN_BYTES_MAX: usize = 255;
/// Most pairs of text about a VM.
pub const ABOUT_LEN_MAX: usize = 200;
/// Most memories of a VM: its backends, its RAM, and its state so far.
pub const MEMORIES_MAX: usize = 65_538;
/// Most parts of a state.
pub const PARTS_MAX: usize = 1024;
/// Most bytes of all parts together. Memory goes by descriptor.
pub const STATE_LEN_BYTES_MAX: u64 = 1 << 30;

/// Who takes.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    /// Name and version of its program.
    pub build: String,
    /// Its process id.
    pub pid: u32,
    /// Where its journal will be: what holds the last state if it dies as the owner.
    pub journal: String,
}

/// How the bytes of a memory get to the taker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Transfer {
    /// The file is the memory itself.
    Shared,
    /// The file was made for the hand-over; the giver has copied all into it before it sends the state.
    Copied,
}

/// A memory of the VM.
#[derive(Debug)]
pub struct Memory {
    /// Its name.
    pub id: String,
    /// Its length in bytes; its file has at least as many.
    pub len_bytes: u64,
    /// Whether its file is the memory itself.
    pub transfer: Transfer,
    /// Its file.
    pub fd: OwnedFd,
}

/// What is given.
#[derive(Debug)]
pub struct Offer {
    /// Name and version of the giver's program.
    pub build: String,
    /// Anything else that the taker needs to know, in order.
    pub about: Vec<(String, String)>,
    /// The directory of the giver's journal; `None` where it keeps none.
    pub journal: Option<String>,
    /// The last record that was durable there. The state may be of a later one.
    pub last: Seq,
    /// The VM's memories.
    pub memories: Vec<Memory>,
}

/// Whether the VM ran when it was paused for the hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum RunState {
    /// It did, and is to.
    Running,
    /// It had been paused before and stays so.
    Paused,
}

/// One part of a VM's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// The version of its form.
    pub version: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All of a VM but its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Its parts, in order.
    pub parts: Vec<Part>,
    /// The record that it is the state after.
    pub last: Seq,
    /// The time of the VM's clock.
    pub clock: VmTime,
    /// Whether it is to run.
    pub run: RunState,
}

#[derive(Encode, Decode)]
struct OfferForm {
    build: String,
    about: Vec<(String, String)>,
    journal: Option<String>,
    last: u64,
    memories: u32,
}

#[derive(Encode, Decode)]
struct MemoryForm {
    id: String,
    len_bytes: u64,
    transfer: Transfer,
}

#[derive(Encode, Decode)]
struct StateForm {
    parts: Vec<PartForm>,
    last: u64,
    clock_ns: u64,
    run: RunState,
}

#[derive(Encode, Decode)]
struct PartForm {
    name: String,
    version: u32,
    len_bytes: u64,
}

fn check_len(of: Kind, what: &'static str, len: u64, max: u64) -> Result<(), HandoverError> {
    if len > max { Err(HandoverError::TooMany { of, what, len, max }) } else { Ok(()) }
}

fn check_texts<'a>(of: Kind, texts: impl IntoIterator<Item = &'a str>) -> Result<(), HandoverError> {
    let max = TEXT_LEN_BYTES_MAX as u64;
    texts.into_iter().try_for_each(|text| check_len(of, "bytes in a text", text.len() as u64, max))
}

/// Names must be short, and each another's than those before.
fn check_names<'a>(of: Kind, names: impl IntoIterator<Item = &'a str>) -> Result<(), HandoverError> {
    let mut seen = BTreeSet::new();
    for name in names {
        check_len(of, "bytes in a name", name.len() as u64, ID_LEN_BYTES_MAX as u64)?;
        if name.is_empty() || !seen.insert(name) {
            return Err(HandoverError::Malformed {
                of,
                reason: format!("the name '{name}' is empty or not the only one"),
            });
        }
    }
    Ok(())
}

impl Hello {
    pub(crate) fn send(&self, to: &Channel, deadline: Deadline) -> Result<(), HandoverError> {
        self.check()?;
        to.send(Kind::Hello, &codec::encode(Kind::Hello, self)?, &[], deadline)
    }

    pub(crate) fn receive(from: &Channel, deadline: Deadline) -> Result<Self, HandoverError> {
        let frame = from.expect(Kind::Hello, deadline)?;
        let hello: Self = codec::decode(Kind::Hello, &frame.body)?;
        hello.check().map(|()| hello)
    }

    fn check(&self) -> Result<(), HandoverError> {
        let Self { build, pid: _, journal } = self;
        check_texts(Kind::Hello, [build.as_str(), journal])
    }
}

impl Offer {
    pub(crate) fn send(&self, to: &Channel, deadline: Deadline) -> Result<(), HandoverError> {
        self.check()?;
        let Self { build, about, journal, last, memories } = self;
        let form = OfferForm {
            build: build.clone(),
            about: about.clone(),
            journal: journal.clone(),
            last: last.0,
            // Not past the limit, as was checked.
            memories: memories.len() as u32,
        };
        to.send(Kind::Offer, &codec::encode(Kind::Offer, &form)?, &[], deadline)?;
        for memories in memories.chunks(FDS_MAX) {
            let form = |memory: &Memory| {
                let Memory { id, len_bytes, transfer, fd: _ } = memory;
                MemoryForm { id: id.clone(), len_bytes: *len_bytes, transfer: *transfer }
            };
            let forms: Vec<_> = memories.iter().map(form).collect();
            let fds: Vec<_> = memories.iter().map(|memory| memory.fd.as_fd()).collect();
            to.send(Kind::Memories, &codec::encode(Kind::Memories, &forms)?, &fds, deadline)?;
        }
        Ok(())
    }

    pub(crate) fn receive(from: &Channel, deadline: Deadline) -> Result<Self, HandoverError> {
        let frame = from.expect(Kind::Offer, deadline)?;
        let OfferForm { build, about, journal, last, memories } = codec::decode(Kind::Offer, &frame.body)?;
        check_len(Kind::Offer, "memories", memories.into(), MEMORIES_MAX as u64)?;
        let mut offer = Self { build, about, journal, last: Seq(last), memories: Vec::new() };
        while offer.memories.len() < memories as usize {
            let more = from.expect(Kind::Memories, deadline)?;
            offer.memories.extend(memories_of(more)?);
        }
        check_len(Kind::Memories, "memories more than were offered", offer.memories.len() as u64, memories.into())?;
        offer.check().map(|()| offer)
    }

    fn check(&self) -> Result<(), HandoverError> {
        let Self { build, about, journal, last: _, memories } = self;
        check_len(Kind::Offer, "pairs of text", about.len() as u64, ABOUT_LEN_MAX as u64)?;
        check_len(Kind::Offer, "memories", memories.len() as u64, MEMORIES_MAX as u64)?;
        let pairs = about.iter().flat_map(|(name, text)| [name.as_str(), text]);
        check_texts(Kind::Offer, pairs.chain([build.as_str()]).chain(journal.as_deref()))?;
        check_names(Kind::Memories, memories.iter().map(|memory| memory.id.as_str()))?;
        memories.iter().try_for_each(Memory::check_file)
    }
}

/// What one Memories frame names; at least one.
fn memories_of(frame: Frame) -> Result<Vec<Memory>, HandoverError> {
    let of = Kind::Memories;
    let forms: Vec<MemoryForm> = codec::decode(of, &frame.body)?;
    if forms.len() != frame.fds.len() {
        return Err(HandoverError::Descriptors { of, announced: forms.len(), came: frame.fds.len() });
    }
    if forms.is_empty() {
        return Err(HandoverError::Malformed { of, reason: "it names none".into() });
    }
    let memory = |(form, fd)| {
        let MemoryForm { id, len_bytes, transfer } = form;
        Memory { id, len_bytes, transfer, fd }
    };
    Ok(forms.into_iter().zip(frame.fds).map(memory).collect())
}

impl Memory {
    /// A page past the end of a file is a signal when it is touched.
    fn check_file(&self) -> Result<(), HandoverError> {
        let malformed = |reason| HandoverError::Malformed { of: Kind::Memories, reason };
        let stat =
            rustix::fs::fstat(&self.fd).map_err(HandoverError::host("the file of a memory cannot be looked at"))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(malformed(format!("what came as memory {} is no file", self.id)));
        }
        let file_bytes = u64::try_from(stat.st_size).unwrap_or_default();
        if file_bytes < self.len_bytes {
            let Self { id, len_bytes, .. } = self;
            return Err(malformed(format!("memory {id} has {len_bytes} bytes and its file only {file_bytes}")));
        }
        Ok(())
    }
}

impl State {
    /// Sends all of it, and with its end the deed.
    pub(crate) fn send(&self, deed: &Deed, to: &Channel, deadline: Deadline) -> Result<(), HandoverError> {
        let Self { parts, last, clock, run } = self;
        let form = |part: &Part| {
            let Part { name, version, bytes } = part;
            PartForm { name: name.clone(), version: *version, len_bytes: bytes.len() as u64 }
        };
        let form = StateForm { parts: parts.iter().map(form).collect(), last: last.0, clock_ns: clock.0, run: *run };
        form.check()?;
        to.send(Kind::State, &codec::encode(Kind::State, &form)?, &[], deadline)?;
        for chunk in parts.iter().flat_map(|part| part.bytes.chunks(BODY_LEN_BYTES_MAX)) {
            to.send(Kind::Bytes, chunk, &[], deadline)?;
        }
        to.send(Kind::End, &[], &[deed.fd()], deadline)
    }

    pub(crate) fn receive(from: &Channel, deadline: Deadline) -> Result<(Self, Deed), HandoverError> {
        let frame = from.expect(Kind::State, deadline)?;
        let form: StateForm = codec::decode(Kind::State, &frame.body)?;
        form.check()?;
        let StateForm { parts: forms, last, clock_ns, run } = form;
        let mut parts = Vec::with_capacity(forms.len());
        for PartForm { name, version, len_bytes } in forms {
            parts.push(Part { name, version, bytes: bytes_of(len_bytes, from, deadline)? });
        }
        let end = from.expect(Kind::End, deadline)?;
        let came = end.fds.len();
        let Some(deed) = end.fds.into_iter().next() else {
            return Err(HandoverError::Descriptors { of: Kind::End, announced: 1, came });
        };
        Ok((Self { parts, last: Seq(last), clock: VmTime(clock_ns), run }, Deed::from_fd(deed)?))
    }
}

impl StateForm {
    fn check(&self) -> Result<(), HandoverError> {
        check_len(Kind::State, "parts", self.parts.len() as u64, PARTS_MAX as u64)?;
        check_names(Kind::State, self.parts.iter().map(|part| part.name.as_str()))?;
        let len_bytes = self.parts.iter().fold(0_u64, |sum, part| sum.saturating_add(part.len_bytes));
        check_len(Kind::State, "bytes in its parts", len_bytes, STATE_LEN_BYTES_MAX)
    }
}

/// The bytes of one part, as they come.
fn bytes_of(len_bytes: u64, from: &Channel, deadline: Deadline) -> Result<Vec<u8>, HandoverError> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < len_bytes {
        let chunk = from.expect(Kind::Bytes, deadline)?.body;
        if chunk.is_empty() {
            return Err(HandoverError::Malformed { of: Kind::Bytes, reason: "it has none".into() });
        }
        bytes.extend(chunk);
        check_len(Kind::Bytes, "bytes with those of its part before it", bytes.len() as u64, len_bytes)?;
    }
    Ok(bytes)
}
