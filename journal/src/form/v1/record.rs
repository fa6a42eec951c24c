//! Genesis and record, and what stands in them of all actors.

use device::operation;

use crate::codec::CodecError;
use crate::form::frozen::{Bytes, Frozen, frozen};
use crate::record;

use super::config::VmConfig;
use super::refusal::Refusal;
use super::{backends, extents, mailbox, windows};

frozen! {
    struct Genesis of record::Genesis {
        config: VmConfig,
        build: String,
        parent: Option<Parent>,
    }

    struct Parent of record::Parent {
        journal: String,
        shared: u64,
        change: String,
    }

    struct Record of record::Record {
        stamp: Stamp,
        device: u8,
        operation: u64,
        origin: Origin,
        input: Input,
        outcomes: Vec<HostOutcome>,
        answers: Answers,
        facts: Vec<Fact>,
        reply: RecordedReply,
    }

    struct Stamp of device::Stamp {
        seq: u64,
        time: u64,
    }

    enum Origin of record::Origin {
        Guest,
        Operator,
        CommandLine,
        Supervisor,
        CausedBy(seq: u64),
    }

    enum Input of operation::Input {
        Mailbox(input: mailbox::Input),
        Extents(input: extents::Input),
        Backends(input: backends::Input),
        Windows(input: windows::Input),
    }

    enum HostOutcome of operation::HostOutcome {
        Done,
        Failed(said: String),
    }

    struct Answers of operation::Answers {
        backends: Option<Prepared<backends::Fact>>,
        windows: Option<Prepared<windows::Fact>>,
    }

    enum Fact of operation::Fact {
        Mailbox(fact: mailbox::Fact),
        Extents(fact: extents::Fact),
        Backends(fact: backends::Fact),
        Windows(fact: windows::Fact),
    }

    enum RecordedReply of record::RecordedReply {
        Whole(reply: Reply),
        Digest { return_code: u16, len_bytes: u32, digest: [u8; 32], head: Bytes },
        Panicked(message: String),
    }

    enum Reply of operation::Reply {
        Done,
        Refused(refusal: Refusal),
        Command(reply: CommandReply),
    }

    struct CommandReply of operation::CommandReply {
        return_code: u16,
        payload: Bytes,
    }
}

/// The answer of an actor that was asked to prepare.
#[derive(bincode::Encode, bincode::Decode)]
pub(super) enum Prepared<F> {
    /// The facts that commit makes true.
    Facts(Vec<F>),
    /// It cannot.
    Refused(Refusal),
}

impl<T, F: Frozen<T>> Frozen<Result<Vec<T>, device::Refusal>> for Prepared<F> {
    fn of(value: &Result<Vec<T>, device::Refusal>) -> Self {
        match value {
            Ok(facts) => Self::Facts(Frozen::of(facts)),
            Err(refusal) => Self::Refused(Frozen::of(refusal)),
        }
    }

    fn thawed(self) -> Result<Result<Vec<T>, device::Refusal>, CodecError> {
        Ok(match self {
            Self::Facts(facts) => Ok(facts.thawed()?),
            Self::Refused(refusal) => Err(refusal.thawed()?),
        })
    }
}
