//! Genesis and record, and what stands in them of all actors.

use device::operation;

use crate::codec::Reader;
use crate::form::frozen::{Bytes, Code, Frozen, Passed, frozen};
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
        Digest { return_code: Code, len_bytes: u32, digest: [u8; 32], head: Bytes },
        Panicked(message: String),
    }

    enum Reply of operation::Reply {
        Done,
        Refused(refusal: Refusal),
        Command(reply: CommandReply),
    }

    struct CommandReply of operation::CommandReply {
        return_code: Code,
        payload: Bytes,
    }
}

/// The answer of an actor that was asked to prepare.
#[derive(bincode::Encode)]
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

    fn read(reader: &mut Reader<'_>) -> Option<Result<Vec<T>, device::Refusal>> {
        match reader.u32()? {
            0 => <Vec<F> as Frozen<_>>::read(reader).map(Ok),
            1 => Refusal::read(reader).map(Err),
            other => reader.no_variant("Prepared", other),
        }
    }
}

impl<F: Passed> Passed for Prepared<F> {
    fn pass(reader: &mut Reader<'_>) -> Option<()> {
        match reader.u32()? {
            0 => Vec::<F>::pass(reader),
            1 => Refusal::pass(reader),
            other => reader.no_variant("Prepared", other),
        }
    }
}

/// What of the record that stands next the state is made of; the rest of it is passed over. `None` where there is no record, or
/// where only reading all of it tells.
pub(super) fn facts(reader: &mut Reader<'_>) -> Option<record::Facts> {
    let stamp = Stamp::read(reader)?;
    let device = <u8 as Frozen<_>>::read(reader)?;
    <u64 as Passed>::pass(reader)?;
    Origin::pass(reader)?;
    Input::pass(reader)?;
    Vec::<HostOutcome>::pass(reader)?;
    Answers::pass(reader)?;
    let facts = <Vec<Fact> as Frozen<_>>::read(reader)?;
    RecordedReply::pass(reader)?;
    Some(record::Facts { stamp, device, facts })
}
