//! A record in one row, for people.

use std::collections::BTreeMap;

use device::config::DeviceIndex;
use device::extents::{self, ReleaseCause, Removal};
use device::operation::{Actor, Fact, Input, Reply};
use device::vm::Vm;
use device::{DpaRange, backends, mailbox, windows};
use journal::record::{Origin, Record, RecordedReply};
use serde::Serialize;

/// How the devices of a journal are called, record by record: they come and go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceNames(BTreeMap<DeviceIndex, String>);

impl DeviceNames {
    /// As a state has them.
    pub fn of(vm: &Vm) -> Self {
        Self(vm.devices.iter().map(|(index, device)| (*index, device.config.id.clone())).collect())
    }

    /// Goes on behind a record.
    pub fn follow(&mut self, record: &Record) {
        for fact in &record.facts {
            match fact {
                Fact::Backends(backends::Fact::DeviceAdded { config, .. }) => {
                    self.0.insert(record.device, config.id.clone());
                }
                Fact::Backends(backends::Fact::DeviceRemoved) => drop(self.0.remove(&record.device)),
                _ => {}
            }
        }
    }
}

/// The columns of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `#N`
    pub record: String,
    /// VM clock in milliseconds.
    pub time_ms: String,
    /// The device's id; empty where the record is the VM's.
    pub device: String,
    /// The actor that decided.
    pub actor: &'static str,
    /// Who asked.
    pub from: String,
    /// What was asked.
    pub input: String,
    /// What happened.
    pub outcome: String,
}

impl Row {
    /// The row of a record that comes after those that `names` has followed.
    pub fn of(names: &DeviceNames, record: &Record) -> Self {
        let id = names.0.get(&record.device).map_or("?", String::as_str);
        let is_vms = record.actor() == Actor::Backends;
        Self {
            record: record.stamp.seq.to_string(),
            time_ms: format!("{:.3}", record.stamp.time.0 as f64 / 1e6),
            device: if is_vms { String::new() } else { id.to_owned() },
            actor: actor_name(record.actor()),
            from: origin(record.origin),
            input: input(&record.input),
            outcome: outcome(record),
        }
    }
}

/// An actor in one word.
pub fn actor_name(actor: Actor) -> &'static str {
    match actor {
        Actor::Mailbox => "mailbox",
        Actor::Extents => "extents",
        Actor::Backends => "backends",
        Actor::Windows => "windows",
    }
}

fn origin(origin: Origin) -> String {
    match origin {
        Origin::Guest => "guest".into(),
        Origin::Operator => "operator".into(),
        Origin::CommandLine => "command line".into(),
        Origin::Supervisor => "supervisor".into(),
        Origin::CausedBy(seq) => seq.to_string(),
    }
}

fn input(input: &Input) -> String {
    match input {
        Input::Backends(backends::Input::ObjectAdd { id, spec, .. }) => {
            format!("object-add {id} size {} tag {}", size(spec.size_bytes), spec.tag)
        }
        Input::Backends(backends::Input::Retag { id, tag, .. }) => format!("retag {id} {tag}"),
        Input::Backends(backends::Input::ObjectDel { id }) => format!("object-del {id}"),
        Input::Backends(backends::Input::DeviceAdd { config, .. }) => {
            format!("plug {}, {} of dynamic capacity", config.id, size(config.dynamic_len_bytes()))
        }
        Input::Backends(backends::Input::RunStart { build, .. }) => format!("run of {build}"),
        Input::Extents(extents::Input::Add(add)) => {
            format!("add tag {} region {}, {} extents", add.tag, add.region, add.extents.len())
        }
        Input::Extents(extents::Input::Release(release)) => {
            let force = if release.removal == Removal::Forced { "forced " } else { "" };
            format!("{force}release tag {} region {}", release.tag, release.region)
        }
        Input::Extents(extents::Input::Command { opcode, .. }) => opcode.to_string(),
        Input::Extents(extents::Input::Reset) => "reset".into(),
        Input::Extents(extents::Input::Unplug { removal: Removal::Forced, .. }) => "forced unplug".into(),
        Input::Extents(extents::Input::Unplug { .. }) => "unplug".into(),
        Input::Mailbox(mailbox::Input::Doorbell { opcode, .. }) => opcode.to_string(),
        Input::Mailbox(mailbox::Input::ConfigWrite { offset, width, value }) => {
            format!("config {offset:#05x} = {value:#0digits$x}", digits = usize::from(*width) * 2 + 2)
        }
        Input::Mailbox(mailbox::Input::MailboxControl { value }) => format!("mailbox control = {value:#x}"),
        Input::Mailbox(mailbox::Input::MsixWrite { offset, value, .. }) => format!("MSI-X {offset:#x} = {value:#x}"),
        Input::Windows(windows::Input::HdmGlobalControl { value }) => format!("HDM control = {value:#x}"),
        Input::Windows(windows::Input::DecoderCommit { decoder, fields }) => {
            format!("commit decoder {decoder}: {} at {}", size(fields.size_bytes), fields.base)
        }
        Input::Windows(windows::Input::DecoderUncommit { decoder }) => format!("uncommit decoder {decoder}"),
    }
}

fn outcome(record: &Record) -> String {
    let reply = match &record.reply {
        RecordedReply::Panicked(message) => return format!("PANIC: {message}"),
        RecordedReply::Whole(Reply::Refused(refusal)) => return format!("refused: {refusal}"),
        RecordedReply::Whole(Reply::Done) => None,
        RecordedReply::Whole(Reply::Command(reply)) => Some((reply.return_code, reply.payload.len())),
        RecordedReply::Digest { return_code, len_bytes, .. } => Some((*return_code, *len_bytes as usize)),
    };
    let facts: Vec<_> = record.facts.iter().filter_map(fact).collect();
    let reply = reply.map(|(code, len)| if len == 0 { code.to_string() } else { format!("{code}, {len} bytes") });
    facts.into_iter().chain(reply).collect::<Vec<_>>().join("; ")
}

/// A fact in words: what happened, and to what.
pub(crate) fn fact_told(told: &Fact) -> String {
    let (actor, name) = match told {
        Fact::Mailbox(fact) => ("mailbox", format!("{fact:?}")),
        Fact::Extents(fact) => ("extents", format!("{fact:?}")),
        Fact::Backends(fact) => ("backends", format!("{fact:?}")),
        Fact::Windows(fact) => ("windows", format!("{fact:?}")),
    };
    let of = match told {
        Fact::Backends(
            backends::Fact::Added { id, .. } | backends::Fact::Retagged { id, .. } | backends::Fact::Removed { id },
        ) => format!(" of {id}"),
        Fact::Backends(backends::Fact::DeviceAdded { config, .. }) => format!(" of {}", config.id),
        Fact::Windows(windows::Fact::DecoderCommitted { decoder, .. }) => format!(" of decoder {decoder}"),
        _ => String::new(),
    };
    // The name of the fact alone, where there are no words for it.
    let name = || name.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default().to_owned();
    fact(told).unwrap_or_else(|| format!("{actor}: {}{of}", name()))
}

/// What a fact says, where the input has not said it already.
fn fact(fact: &Fact) -> Option<String> {
    Some(match fact {
        Fact::Extents(extents::Fact::Offered { ranges, .. }) => format!("offered {}", list(ranges)),
        Fact::Extents(extents::Fact::Logged { events }) => format!("{} event records", events.len()),
        Fact::Extents(extents::Fact::LogOverflowed { events, .. }) => format!("{events} event records dropped"),
        Fact::Extents(extents::Fact::EventsCleared { count }) => format!("{count} cleared"),
        Fact::Extents(extents::Fact::Accepted { pieces, offer, .. }) => {
            format!("accepted {} of {offer}", list(&pieces.iter().map(|piece| piece.range).collect::<Vec<_>>()))
        }
        Fact::Extents(extents::Fact::Rejected { offer, .. }) => format!("rejected {offer}"),
        Fact::Extents(extents::Fact::Died { offer, .. }) => format!("{offer} is dead"),
        Fact::Extents(extents::Fact::Retired { offer }) => format!("{offer} retired"),
        Fact::Extents(extents::Fact::ReleaseRequested { ranges }) => {
            format!("asked back {}", list(&ranges.iter().map(|range| range.range).collect::<Vec<_>>()))
        }
        Fact::Extents(extents::Fact::Released { ranges, cause }) => {
            let verb = if *cause == ReleaseCause::Host { "released" } else { "taken" };
            format!("{verb} {}", list(&ranges.iter().map(|range| range.range).collect::<Vec<_>>()))
        }
        Fact::Extents(extents::Fact::ResponseChained { ranges, .. }) => format!("chained {}", list(ranges)),
        Fact::Backends(backends::Fact::Reserved { id, .. }) => format!("{id} reserved"),
        Fact::Backends(backends::Fact::Attached { id, .. }) => format!("{id} attached"),
        Fact::Backends(backends::Fact::Freed { id }) => format!("{id} free"),
        Fact::Backends(backends::Fact::Dedicated { id, .. }) => format!("{id} is its memory"),
        Fact::Backends(backends::Fact::ContentsLost { id }) => format!("the bytes of {id} are lost"),
        Fact::Windows(windows::Fact::Mapped { pieces }) => format!("{} mapped", pieces.len()),
        Fact::Windows(windows::Fact::Unmapped { ranges }) => format!("{} unmapped", ranges.len()),
        Fact::Windows(windows::Fact::DecoderFailed { decoder }) => format!("decoder {decoder} failed"),
        _ => return None,
    })
}

fn list(ranges: &[DpaRange]) -> String {
    let shown: Vec<_> = ranges.iter().take(3).map(DpaRange::to_string).collect();
    let more = ranges.len().saturating_sub(shown.len());
    if more > 0 { format!("{} and {more} more", shown.join(" ")) } else { shown.join(" ") }
}

/// A length in the largest unit that divides it, powers of 1024.
fn size(len_bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    let fit = units.into_iter().find(|(_, shift)| len_bytes > 0 && len_bytes.is_multiple_of(1 << shift));
    fit.map_or_else(|| len_bytes.to_string(), |(unit, shift)| format!("{}{unit}", len_bytes >> shift))
}
