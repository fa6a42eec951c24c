//! Slices: the records of a journal that can have to do with one of them.
//!
//! ```text
//!  #at names a tag ──▶ records of that tag name backends and addresses ──▶ records of those … ──▶ plugs and runs
//! ```
//!
//! What a record names is in its input and its facts: tags, backends, offers, addresses of its device. A slice is a guess,
//! to be decided again: what it leaves out may have mattered by its order or its number, which nobody names. A life is
//! what the records of one tag or backend are together. Deliberately absent: how large a slice may be.

use std::collections::{BTreeMap, BTreeSet};

use device::config::DeviceIndex;
use device::operation::{Fact, Input};
use device::{DpaRange, Seq, backends, extents, windows};
use journal::record::Record;
use wire::{Dpa, Tag};

/// What records have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Tag(Tag),
    Backend(String),
    Offer(Seq),
    /// A stretch of a device's addresses that holds a range which is named.
    Place(DeviceIndex, u64),
}

/// Addresses are compared in stretches of so many bytes.
const STRETCH_BYTES: u64 = 2 << 20;

/// A long range is compared by its first stretches alone.
const STRETCHES_MAX: u64 = 64;

/// How far a slice goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Records of the same tags, backends and offers.
    Same,
    /// And those that touch the same addresses.
    Places,
    /// And those of whatever these name.
    Further,
}

/// The reaches, the shortest first.
pub(crate) const REACHES: [Reach; 3] = [Reach::Same, Reach::Places, Reach::Further];

/// The operations of the records that have a name in common with the last of them, and those that every other one stands on:
/// runs, plugs, decoders.
pub(crate) fn slice(records: &[Record], reach: Reach) -> BTreeSet<Seq> {
    let at = records.last().map(|record| record.stamp.seq);
    let seen = |record: &Record| {
        let mut names = names(record);
        names.retain(|name| reach != Reach::Same || !matches!(name, Name::Place(..)));
        names
    };
    let mut known: BTreeSet<Name> = records.last().map(seen).into_iter().flatten().collect();
    if reach == Reach::Further {
        let next: BTreeSet<Name> = records.iter().map(seen).filter(|names| shares(names, &known)).flatten().collect();
        known.extend(next);
    }
    let is_in = |record: &&Record| is_ground(record) || Some(record.stamp.seq) == at || shares(&seen(record), &known);
    records.iter().filter(is_in).map(|record| record.operation).collect()
}

/// Of each operation the first one of its life: of those that name the same tag or backend.
pub(crate) fn lives(records: &[Record]) -> BTreeMap<Seq, Seq> {
    let mut first = BTreeMap::new();
    let life = |record: &Record| {
        let names = names(record).into_iter().filter(|name| matches!(name, Name::Tag(_) | Name::Backend(_)));
        let own = names.map(|name| *first.entry(name).or_insert(record.operation)).min();
        (record.operation, own.unwrap_or(record.operation))
    };
    records.iter().map(life).collect()
}

fn shares(names: &[Name], known: &BTreeSet<Name>) -> bool {
    names.iter().any(|name| known.contains(name))
}

/// Whether a record is what all others of its VM or device stand on.
fn is_ground(record: &Record) -> bool {
    let is_ground = |fact: &Fact| match fact {
        Fact::Backends(fact) => matches!(
            fact,
            backends::Fact::RunStarted { .. } | backends::Fact::DeviceAdded { .. } | backends::Fact::DeviceRemoved
        ),
        Fact::Windows(fact) => matches!(fact, windows::Fact::DecoderCommitted { .. }),
        _ => false,
    };
    record.facts.iter().any(is_ground)
}

fn names(record: &Record) -> Vec<Name> {
    let mut names = Vec::new();
    let device = record.device;
    match &record.input {
        Input::Extents(extents::Input::Add(add)) => names.push(Name::Tag(add.tag)),
        Input::Extents(extents::Input::Release(release)) => names.push(Name::Tag(release.tag)),
        Input::Backends(backends::Input::ObjectAdd { id, spec, .. }) => {
            names.extend([Name::Backend(id.clone()), Name::Tag(spec.tag)]);
        }
        Input::Backends(backends::Input::Retag { id, .. } | backends::Input::ObjectDel { id }) => {
            names.push(Name::Backend(id.clone()));
        }
        _ => {}
    }
    for fact in &record.facts {
        match fact {
            Fact::Extents(fact) => of_extents(device, record.stamp.seq, fact, &mut names),
            Fact::Backends(fact) => of_backends(fact, &mut names),
            Fact::Windows(windows::Fact::Mapped { pieces }) => {
                names.extend(pieces.iter().flat_map(|piece| places(device, piece.range)));
            }
            Fact::Windows(windows::Fact::Unmapped { ranges }) => {
                names.extend(ranges.iter().flat_map(|range| places(device, *range)));
            }
            Fact::Windows(_) | Fact::Mailbox(_) => {}
        }
    }
    names.retain(|name| *name != Name::Tag(Tag::NONE));
    names
}

fn of_extents(device: DeviceIndex, seq: Seq, fact: &extents::Fact, names: &mut Vec<Name>) {
    use extents::Fact;
    match fact {
        Fact::Offered { tag, ranges, .. } => {
            names.extend([Name::Tag(*tag), Name::Offer(seq)]);
            names.extend(ranges.iter().flat_map(|range| places(device, *range)));
        }
        Fact::Accepted { offer, tag, .. } | Fact::Rejected { offer, tag, .. } | Fact::Died { offer, tag, .. } => {
            names.extend([Name::Tag(*tag), Name::Offer(*offer)]);
        }
        Fact::DeadAnswered { offer } | Fact::Retired { offer } => names.push(Name::Offer(*offer)),
        Fact::ReleaseRequested { ranges } | Fact::Released { ranges, .. } => {
            names.extend(ranges.iter().map(|range| Name::Tag(range.tag)));
            names.extend(ranges.iter().flat_map(|range| places(device, range.range)));
        }
        _ => {}
    }
}

fn of_backends(fact: &backends::Fact, names: &mut Vec<Name>) {
    use backends::Fact;
    match fact {
        Fact::Added { id, .. }
        | Fact::Retagged { id, .. }
        | Fact::Removed { id }
        | Fact::Reserved { id, .. }
        | Fact::Attached { id, .. }
        | Fact::Freed { id }
        | Fact::Dedicated { id, .. }
        | Fact::ContentsLost { id } => names.push(Name::Backend(id.clone())),
        Fact::DeviceAdded { .. } | Fact::DeviceRemoved | Fact::RunStarted { .. } => {}
    }
}

fn places(device: DeviceIndex, range: DpaRange) -> impl Iterator<Item = Name> {
    let (first, Dpa(start)) = (range.start.0 / STRETCH_BYTES, range.start);
    let last = start.saturating_add(range.len_bytes.saturating_sub(1)) / STRETCH_BYTES;
    (first..=last.min(first + STRETCHES_MAX)).map(move |stretch| Name::Place(device, stretch))
}
