//! Records: one decision each, with what it was made of.
//!
//! ```text
//!  seq time │ device operation origin │ input outcomes answers │ facts reply
//!  where    │ whose                   │ decided from           │ decided
//! ```
//!
//! Facts rebuild the state for ever; inputs, outcomes and answers let today's build decide again. Refusals are records
//! too. Deliberately absent: reads of registers and read-only requests, which decide nothing.

use device::config::{DeviceIndex, VmConfig};
use device::operation::{Actor, Answers, Fact, HostOutcome, Input, Reply};
use device::{Seq, Stamp};
use serde::{Deserialize, Serialize};
use wire::ReturnCode;

use crate::codec::CodecError;
use crate::form;
use crate::recover::{Recovered, Stored};

/// Version of the form in which this build writes the bodies of genesis and records ([`crate::form`]).
pub const RECORD_VERSION: u16 = 1;

/// A reply's payload is kept whole up to this many bytes.
pub const REPLY_WHOLE_LEN_BYTES_MAX: usize = 4 << 10;

/// Of a longer one, this many bytes are kept beside its digest.
const REPLY_HEAD_LEN_BYTES: usize = 256;

/// What stands before the first record: what the VM was started as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Genesis {
    /// The VM.
    pub config: VmConfig,
    /// The build that made the journal.
    pub build: String,
    /// Where the journal is from, if not from a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
}

/// The journal from which another one was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Parent {
    /// Where it was.
    pub journal: String,
    /// Records up to this one are its own, with its own decisions.
    pub shared: Seq,
    /// What was done to it.
    pub change: String,
}

/// Where an input came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The guest: a doorbell or a commanded register.
    Guest,
    /// A QMP client.
    Operator,
    /// The command line.
    CommandLine,
    /// This program, for instance at a resume.
    Supervisor,
    /// Another record.
    CausedBy(Seq),
}

/// The reply as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordedReply {
    /// All of it.
    Whole(Reply),
    /// A command's answer that is too long to keep.
    Digest {
        /// Its return code.
        return_code: ReturnCode,
        /// Its length in bytes.
        len_bytes: u32,
        /// blake3 of it.
        digest: [u8; 32],
        /// Its beginning.
        head: Vec<u8>,
    },
    /// There is none: deciding panicked, and this is the message. The VM stopped here.
    Panicked(String),
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Where and when.
    pub stamp: Stamp,
    /// Whose.
    pub device: DeviceIndex,
    /// The operation that it belongs to: the sequence of its first record.
    pub operation: Seq,
    /// Where the input came from.
    pub origin: Origin,
    /// What was decided on.
    pub input: Input,
    /// What came of host work.
    pub outcomes: Vec<HostOutcome>,
    /// What the other actors had prepared.
    pub answers: Answers,
    /// What happened.
    pub facts: Vec<Fact>,
    /// What the asker got back.
    pub reply: RecordedReply,
}

/// What of a record the state is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Where and when.
    pub stamp: Stamp,
    /// Whose.
    pub device: DeviceIndex,
    /// What happened.
    pub facts: Vec<Fact>,
}

impl From<Record> for Facts {
    fn from(Record { stamp, device, facts, .. }: Record) -> Self {
        Self { stamp, device, facts }
    }
}

impl Facts {
    /// The facts of the record in a body of a version. The rest is looked at and not made, which takes half the time.
    ///
    /// # Errors
    /// Where there is no record, as [`Record::from_body`] says it.
    pub fn from_body(version: u16, body: &[u8]) -> Result<Self, CodecError> {
        form::decode_facts(version, body)
    }
}

impl RecordedReply {
    /// The form in which a reply is kept.
    pub fn of(reply: &Reply) -> Self {
        match reply {
            Reply::Command(command) if command.payload.len() > REPLY_WHOLE_LEN_BYTES_MAX => Self::Digest {
                return_code: command.return_code,
                len_bytes: command.payload.len() as u32,
                digest: *blake3::hash(&command.payload).as_bytes(),
                head: command.payload[..REPLY_HEAD_LEN_BYTES].to_vec(),
            },
            reply => Self::Whole(reply.clone()),
        }
    }
}

impl Record {
    /// The actor that decided.
    pub fn actor(&self) -> Actor {
        self.input.actor()
    }

    /// The body of the record's frame.
    pub fn to_bytes(&self) -> Vec<u8> {
        form::v1::encode_record(self)
    }

    /// The record of a frame's body in the form of this build.
    pub fn from_bytes(body: &[u8]) -> Result<Self, CodecError> {
        form::v1::decode_record(body)
    }

    /// The record of a stored frame.
    ///
    /// # Errors
    /// If it is of another form, or not what its frame says.
    pub fn from_stored(stored: &Stored) -> Result<Self, CodecError> {
        Self::from_body(stored.version, &stored.body)
    }

    /// The record in a body of a version.
    ///
    /// # Errors
    /// If it is of another form, or not what its frame says.
    pub fn from_body(version: u16, body: &[u8]) -> Result<Self, CodecError> {
        form::decode_record(version, body)
    }
}

impl Genesis {
    /// The genesis of a journal that was read back.
    ///
    /// # Errors
    /// If it is of another form, or not what its frame says.
    pub fn of(recovered: &Recovered) -> Result<Self, CodecError> {
        form::decode_genesis(recovered.genesis_version, &recovered.genesis)
    }

    /// The genesis of a stored frame.
    ///
    /// # Errors
    /// If it is of another form, or not what its frame says.
    pub fn from_stored(stored: &Stored) -> Result<Self, CodecError> {
        form::decode_genesis(stored.version, &stored.body)
    }

    /// The body of the genesis frame.
    pub fn to_bytes(&self) -> Vec<u8> {
        form::v1::encode_genesis(self)
    }
}

#[cfg(test)]
mod tests {
    use device::mailbox;
    use device::operation::CommandReply;
    use wire::Opcode;

    use super::*;

    fn record() -> Record {
        Record {
            stamp: Stamp { seq: Seq(7), time: device::VmTime(9) },
            device: DeviceIndex(0),
            operation: Seq(7),
            origin: Origin::Guest,
            input: Input::Mailbox(mailbox::Input::Doorbell {
                opcode: Opcode::GET_LOG,
                declared_len_bytes: 3,
                payload: vec![1, 2, 3],
            }),
            outcomes: vec![HostOutcome::Failed("no memory".into())],
            answers: Answers::default(),
            facts: vec![Fact::Mailbox(mailbox::Fact::Reset)],
            reply: RecordedReply::Whole(Reply::Done),
        }
    }

    #[test]
    fn a_record_reads_back_and_nothing_may_stand_behind_it() {
        let mut body = record().to_bytes();
        assert_eq!(Record::from_bytes(&body).expect("a record"), record());
        body.push(0);
        assert!(matches!(Record::from_bytes(&body), Err(CodecError::Trailing { .. })));
        body.truncate(body.len() - 2);
        assert!(matches!(Record::from_bytes(&body), Err(CodecError::Undecodable(_))));
    }

    #[test]
    fn a_genesis_reads_back_with_a_parent_and_without() {
        let config = VmConfig {
            memory_bytes: 1 << 30,
            window_base: wire::Hpa(0x1_1000_0000),
            windows_bytes: vec![1 << 32],
            root_ports: vec!["rp0".into()],
        };
        let recovered = |genesis: Vec<u8>| Recovered {
            base: None,
            genesis,
            genesis_version: RECORD_VERSION,
            records: Vec::new(),
            last: Seq(0),
            torn: None,
        };
        let run = Genesis { config, build: "dcd 0.1.0".into(), parent: None };
        assert_eq!(Genesis::of(&recovered(run.to_bytes())).expect("a genesis"), run);
        let parent = Parent { journal: "/tmp/run".into(), shared: Seq(79), change: "drop #80".into() };
        let fork = Genesis { parent: Some(parent), ..run };
        assert_eq!(Genesis::of(&recovered(fork.to_bytes())).expect("a genesis"), fork);
        let cut = fork.to_bytes()[..fork.to_bytes().len() - 1].to_vec();
        assert!(matches!(Genesis::of(&recovered(cut)), Err(CodecError::Undecodable(_))));
    }

    #[test]
    fn another_form_is_refused_before_its_body_is_read() {
        let stored = Stored { seq: Seq(7), version: 0, body: record().to_bytes() };
        let refused = Record::from_stored(&stored).expect_err("another form").to_string();
        assert_eq!(refused, "the body is of form 0 and this build reads form 1: use the build that wrote it");
    }

    #[test]
    fn a_long_answer_is_kept_as_digest_and_head() {
        let answer = |len| CommandReply { return_code: ReturnCode::Success, payload: vec![5; len] };
        let whole = RecordedReply::of(&Reply::Command(answer(REPLY_WHOLE_LEN_BYTES_MAX)));
        assert!(matches!(whole, RecordedReply::Whole(_)));
        let long = RecordedReply::of(&Reply::Command(answer(REPLY_WHOLE_LEN_BYTES_MAX + 1)));
        let RecordedReply::Digest { len_bytes: 4097, head, .. } = long else { panic!("a digest") };
        assert_eq!(head, [5; REPLY_HEAD_LEN_BYTES]);
    }
}
