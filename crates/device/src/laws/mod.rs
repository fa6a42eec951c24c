//! Laws: sentences that are true of every state after every record.
//!
//! ```text
//!  state ──▶ Before ──┐
//!    │ facts          ├─▶ step laws      each law is asked only where the facts name an actor that it reads
//!    ▼                │
//!  state ─────────────┴─▶ state laws     whole: of any state; near: after a change, of what it touched (Watch)
//! ```
//!
//! Tests and simulation check them after every record, replay checks them over a journal. A broken law is a bug of the
//! device, never of a host or an operator. Deliberately absent: whether a command was answered rightly.

mod extents;
mod mapping;
mod owners;
mod step;
mod touched;
mod watch;

use crate::config::DeviceConfig;
use crate::operation::{Actor, Fact};
use crate::vm::{Device, Vm};

use watch::Near;

pub use step::Before;
pub use watch::Watch;

/// One law.
pub struct Law {
    /// Its name, for the command line.
    pub name: &'static str,
    /// What it says.
    pub sentence: &'static str,
    /// The actors whose state it looks at: facts of no other can break it.
    reads: &'static [Actor],
    check: Check,
}

/// What a law looks at. A law of a state has two forms, which agree: the whole one says what is wrong, the near one only
/// whether a change could have made it wrong ([`Watch`]).
enum Check {
    /// The state of one device.
    Device { whole: fn(&DeviceConfig, &Device) -> Result<(), String>, near: fn(&Near<'_>, &Device) -> bool },
    /// The state of the VM.
    Vm { whole: fn(&Vm) -> Result<(), String>, near: fn(&Near<'_>) -> bool },
    /// A change, and the state that it made.
    Step(fn(&Before<'_>, &Vm) -> Result<(), String>),
}

/// A broken law.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("law {name} is broken: {detail}")]
pub struct Broken {
    /// The law.
    pub name: &'static str,
    /// Where.
    pub detail: String,
}

/// A name that no law has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no law '{name}': the laws are {}", LAWS.iter().map(|law| law.name).collect::<Vec<_>>().join(", "))]
pub struct NoSuchLaw {
    /// What was asked.
    pub name: String,
}

const EXTENTS: &[Actor] = &[Actor::Extents];
const OWNERS: &[Actor] = &[Actor::Extents, Actor::Backends];
/// A plug makes pieces, and it is the registry's fact.
const MAPPING: &[Actor] = &[Actor::Extents, Actor::Backends, Actor::Windows];

/// Every law.
pub const LAWS: &[Law] = &[
    Law {
        name: "extents-disjoint",
        sentence: "No two extents, offered or accepted, of one device share an address, and each lies in one region in whole blocks.",
        reads: EXTENTS,
        check: Check::Device { whole: extents::extents_disjoint, near: extents::extents_disjoint_near },
    },
    Law {
        name: "capacity-adds-up",
        sentence: "What is counted as held of an offer is the sum of its extents, and no more than was offered.",
        reads: EXTENTS,
        check: Check::Device { whole: extents::capacity_adds_up, near: extents::capacity_adds_up_near },
    },
    Law {
        name: "counters-match",
        sentence: "The extent and tag counters count the offered and the accepted extents and their tags.",
        reads: EXTENTS,
        check: Check::Device { whole: extents::counters_match, near: extents::counters_match_near },
    },
    Law {
        name: "list-complete",
        sentence: "The list of 4801h names every accepted extent once, by add, place in the add and address.",
        reads: EXTENTS,
        check: Check::Device { whole: extents::list_complete, near: extents::list_complete_near },
    },
    Law {
        name: "generation-moves",
        sentence: "The generation number moves exactly when the list of accepted extents does.",
        reads: EXTENTS,
        check: Check::Step(step::generation_moves),
    },
    Law {
        name: "backend-one-owner",
        sentence: "A backend is reserved by exactly one pending offer or attached to the accepted extents of exactly one device, or a device's own memory, or free.",
        reads: OWNERS,
        check: Check::Vm { whole: owners::backend_one_owner, near: owners::backend_one_owner_near },
    },
    Law {
        name: "tag-one-owner",
        sentence: "Where capacity comes by tag, a tag names one backend, and what is offered or accepted with it stands on that backend.",
        reads: OWNERS,
        check: Check::Vm { whole: owners::tag_one_owner, near: owners::tag_one_owner_near },
    },
    Law {
        name: "mapped-is-accepted",
        sentence: "Behind every accepted extent stands its piece of its backend, behind static memory its backend, and behind nothing else stands anything.",
        reads: MAPPING,
        check: Check::Device { whole: mapping::mapped_is_accepted, near: mapping::mapped_is_accepted_near },
    },
    Law {
        name: "mappings-inside-backends",
        sentence: "Every piece lies inside its backend.",
        reads: MAPPING,
        check: Check::Vm { whole: mapping::mappings_inside_backends, near: mapping::mappings_inside_backends_near },
    },
    Law {
        name: "mappings-of-state",
        sentence: "What is mapped is what the committed decoders show of the pieces: all of it, at its address, once.",
        reads: &[Actor::Windows],
        check: Check::Device { whole: mapping::mappings_of_state, near: mapping::mappings_of_state_near },
    },
    Law {
        name: "offers-in-order",
        sentence: "Offers stand in the order in which they were made.",
        reads: EXTENTS,
        check: Check::Device { whole: extents::offers_in_order, near: extents::offers_in_order_near },
    },
    Law {
        name: "offers-answered-in-order",
        sentence: "The host answers an offer only when it has answered those before it, or they are dead.",
        reads: EXTENTS,
        check: Check::Step(step::offers_answered_in_order),
    },
    Law {
        name: "log-whole-chains",
        sentence: "The DC event log holds at most its size, handles are not 0 and differ, and its last chain is closed.",
        reads: EXTENTS,
        check: Check::Device { whole: extents::log_whole_chains, near: extents::log_whole_chains_near },
    },
    Law {
        name: "requested-is-accepted",
        sentence: "The host was asked to give back only what it holds.",
        reads: EXTENTS,
        check: Check::Device { whole: extents::requested_is_accepted, near: extents::requested_is_accepted_near },
    },
];

impl Law {
    /// The law of a name.
    ///
    /// # Errors
    /// Names all laws where none is called so.
    pub fn named(name: &str) -> Result<&'static Self, NoSuchLaw> {
        LAWS.iter().find(|law| law.name == name).ok_or_else(|| NoSuchLaw { name: name.into() })
    }

    /// Whether facts change the state of an actor that it reads; others cannot break it.
    pub fn concerns(&self, facts: &[Fact]) -> bool {
        facts.iter().any(|fact| self.reads.contains(&fact.actor()))
    }

    /// Whether it holds after a change, whatever was before. Costs nothing where the change concerns no actor that the law
    /// reads, and else a look at the whole state; [`Watch`] looks at less.
    ///
    /// # Errors
    /// Where it is broken.
    pub fn check(&self, before: &Before<'_>, after: &Vm) -> Result<(), Broken> {
        if !self.concerns(before.facts) {
            return Ok(());
        }
        match self.check {
            Check::Step(check) => check(before, after).map_err(|detail| Broken { name: self.name, detail }),
            Check::Device { .. } | Check::Vm { .. } => self.check_state(after),
        }
    }

    /// Whether it holds in a state. A law of a change says nothing of one.
    ///
    /// # Errors
    /// Where it is broken.
    pub fn check_state(&self, vm: &Vm) -> Result<(), Broken> {
        let held = match self.check {
            Check::Device { whole, .. } => every_device(vm, whole),
            Check::Vm { whole, .. } => whole(vm),
            Check::Step(_) => Ok(()),
        };
        held.map_err(|detail| Broken { name: self.name, detail })
    }
}

/// Checks every law that speaks of one state, whatever led to it.
///
/// # Errors
/// The first that is broken.
pub fn check(vm: &Vm) -> Result<(), Broken> {
    LAWS.iter().try_for_each(|law| law.check_state(vm))
}

/// Checks every law after a change, each whole.
///
/// # Errors
/// The first that is broken.
pub fn check_step(before: &Before<'_>, after: &Vm) -> Result<(), Broken> {
    LAWS.iter().try_for_each(|law| law.check(before, after))
}

fn every_device(vm: &Vm, check: fn(&DeviceConfig, &Device) -> Result<(), String>) -> Result<(), String> {
    for device in vm.devices.values() {
        check(&device.config, device).map_err(|detail| format!("{}: {detail}", device.config.id))?;
    }
    Ok(())
}

fn holds(is_true: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_true { Ok(()) } else { Err(otherwise()) }
}
