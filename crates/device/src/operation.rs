//! Operations: what one outside input causes, from the actor that hears it through those that prepare, to one decision.
//!
//! ```text
//!  extents ──plan──▶ steps ──▶ backends.prepare ──▶ windows.prepare ──▶ answers ──decide──▶ facts of all three, reply
//!  mailbox, backends, windows on their own:                             ──decide──▶ facts, reply
//! ```
//!
//! The actors execute this across their mailboxes; replay and simulation execute [`decide`] in one thread. Deliberately
//! absent: effects. What the outside must do follows from the facts.

use serde::{Deserialize, Serialize};
use wire::ReturnCode;

use crate::config::DeviceIndex;
use crate::refusal::Refusal;
use crate::stamp::Stamp;
use crate::vm::Vm;
use crate::{backends, extents, mailbox, windows};

/// The actors that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Actor {
    /// Configuration space, device registers, command dispatch.
    Mailbox,
    /// Offers, extents, tags, DC event log.
    Extents,
    /// Host memory by id and tag.
    Backends,
    /// Decoders and what is mapped where.
    Windows,
}

/// One thing that reached an actor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Input {
    /// For the mailbox.
    Mailbox(mailbox::Input),
    /// For the extent manager.
    Extents(extents::Input),
    /// For the backend registry.
    Backends(backends::Input),
    /// For the window mapper.
    Windows(windows::Input),
}

impl Input {
    /// The actor that decides it.
    pub fn actor(&self) -> Actor {
        match self {
            Self::Mailbox(_) => Actor::Mailbox,
            Self::Extents(_) => Actor::Extents,
            Self::Backends(_) => Actor::Backends,
            Self::Windows(_) => Actor::Windows,
        }
    }
}

/// One thing that was decided to have happened; the variant names the actor whose state it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// Of the mailbox.
    Mailbox(mailbox::Fact),
    /// Of the extent manager.
    Extents(extents::Fact),
    /// Of the backend registry.
    Backends(backends::Fact),
    /// Of the window mapper.
    Windows(windows::Fact),
}

impl Fact {
    /// The actor whose state it changes.
    pub fn actor(&self) -> Actor {
        match self {
            Self::Mailbox(_) => Actor::Mailbox,
            Self::Extents(_) => Actor::Extents,
            Self::Backends(_) => Actor::Backends,
            Self::Windows(_) => Actor::Windows,
        }
    }
}

/// What came of host work that an input needed; recorded, because it cannot be computed again.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostOutcome {
    /// Done.
    Done,
    /// Not done, and what the host said.
    Failed(String),
}

/// The answers of the actors that prepared, in the order in which they were asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Answers {
    /// Of the backend registry.
    pub backends: Option<backends::Prepared>,
    /// Of the window mapper; it is not asked where the registry refused.
    pub windows: Option<windows::Prepared>,
}

impl Answers {
    /// The first refusal.
    pub fn refusal(&self) -> Option<&Refusal> {
        let backends = self.backends.as_ref().and_then(|answer| answer.as_ref().err());
        backends.or_else(|| self.windows.as_ref().and_then(|answer| answer.as_ref().err()))
    }

    /// The facts that commit makes true.
    pub fn facts(&self) -> impl Iterator<Item = Fact> {
        let backends = self.backends.iter().flatten().flatten().cloned().map(Fact::Backends);
        backends.chain(self.windows.iter().flatten().flatten().cloned().map(Fact::Windows))
    }

    /// The backend that was reserved.
    pub fn reserved_backend(&self) -> Option<&str> {
        self.backends.iter().flatten().flatten().find_map(|fact| match fact {
            backends::Fact::Reserved { id, .. } => Some(id.as_str()),
            _ => None,
        })
    }
}

/// What a host gets back for a command (CXL r4.0 8.2.8.4.5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CommandReply {
    /// The return code.
    pub return_code: ReturnCode,
    /// The output payload.
    #[serde(serialize_with = "crate::hex::serialize")]
    pub payload: Vec<u8>,
}

/// What the asker gets back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// The request is done.
    Done,
    /// The request is refused.
    Refused(Refusal),
    /// The command's answer.
    Command(CommandReply),
}

/// A decision: facts for the actors that they name, and the asker's reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happened.
    pub facts: Vec<Fact>,
    /// What the asker gets back.
    pub reply: Reply,
}

impl Decision {
    /// Nothing happened.
    pub fn refused(refusal: Refusal) -> Self {
        Self { facts: Vec::new(), reply: Reply::Refused(refusal) }
    }
}

/// Decides one input in one thread: the path that the actors take together. `None` where there is no such device.
pub fn decide(
    vm: &Vm,
    device: DeviceIndex,
    stamp: Stamp,
    input: &Input,
    outcomes: &[HostOutcome],
) -> Option<(Answers, Decision)> {
    let of_device = || vm.devices.get(&device);
    let mut answers = Answers::default();
    let decision = match input {
        Input::Backends(input) => backends_decision(vm.backends.decide(&vm.config, device, input, outcomes)),
        Input::Mailbox(input) => {
            let state = of_device()?;
            state.mailbox.decide(&state.config, input)
        }
        Input::Windows(input) => {
            let facts = of_device()?.windows.decide(input).into_iter().map(Fact::Windows).collect();
            Decision { facts, reply: Reply::Done }
        }
        Input::Extents(input) => {
            let state = of_device()?;
            let plan = state.extents.plan(&state.config, input);
            answers = prepare(vm, device, &plan.steps);
            state.extents.decide(stamp, plan, &answers)
        }
    };
    Some((answers, decision))
}

/// The registry's own decision in the form of all decisions.
pub fn backends_decision(decided: Result<Vec<backends::Fact>, Refusal>) -> Decision {
    match decided {
        Ok(facts) => Decision { facts: facts.into_iter().map(Fact::Backends).collect(), reply: Reply::Done },
        Err(refusal) => Decision::refused(refusal),
    }
}

fn prepare(vm: &Vm, device: DeviceIndex, steps: &extents::Steps) -> Answers {
    let mut answers =
        Answers { backends: steps.backends.as_ref().map(|step| vm.backends.prepare(device, step)), windows: None };
    if answers.refusal().is_none()
        && let Some(state) = vm.devices.get(&device)
    {
        answers.windows = steps.windows.as_ref().map(|step| state.windows.prepare(step));
    }
    answers
}
