//! Simpler inputs: what a person would try next once no input can be left out.

use device::backends::{self, BackendKind};
use device::config::RegionConfig;
use device::extents::{self, RegionRange};
use device::operation::Input;
use device::{VmTime, mailbox};
use journal::record::Origin;
use wire::{Opcode, Tag};

use crate::rerun::Step;

/// Bytes in front of the ranges of 4802h and 4803h, and of each range (CXL r4.0 8.2.10.9.9.3).
const UPDATE_HEADER_BYTES: usize = 8;
const UPDATE_RANGE_BYTES: usize = 24;

/// So many bytes of a payload are made smaller one by one.
const PAYLOAD_BYTES_FEW: usize = 32;

/// Lists of steps, each a little simpler than `steps`: no times but that of the state before them, fewer ranges, shorter
/// ones, smaller numbers, fewer regions, nothing about backends of another run.
pub(crate) fn simpler(steps: &[Step], start: VmTime) -> Vec<Vec<Step>> {
    let mut lists = Vec::new();
    if steps.iter().any(|step| step.time != start) {
        lists.push(steps.iter().map(|step| Step { time: start, ..step.clone() }).collect());
    }
    for (at, step) in steps.iter().enumerate() {
        for input in inputs(&step.input) {
            let mut list = steps.to_vec();
            list[at].input = input;
            resize(&mut list, at);
            lists.push(list);
        }
        lists.extend(shorter(steps, at));
        if matches!(step.origin, Origin::CausedBy(_)) {
            let mut list = steps.to_vec();
            list[at].origin = Origin::Supervisor;
            lists.push(list);
        }
    }
    lists
}

/// With a shorter extent in an add, wherever it is named: a block, or half as long.
fn shorter(steps: &[Step], at: usize) -> Vec<Vec<Step>> {
    let Input::Extents(extents::Input::Add(add)) = &steps[at].input else { return Vec::new() };
    let Some(region) = region_of(&steps[..at], &steps[at], add.region) else { return Vec::new() };
    let block_bytes = region.block.bytes();
    let mut lists = Vec::new();
    for (index, extent) in add.extents.iter().enumerate() {
        let half_bytes = (extent.len_bytes / 2).next_multiple_of(block_bytes);
        for len_bytes in [block_bytes, half_bytes].into_iter().filter(|len_bytes| *len_bytes < extent.len_bytes) {
            let mut list = steps.to_vec();
            if let Input::Extents(extents::Input::Add(add)) = &mut list[at].input {
                add.extents[index].len_bytes = len_bytes;
            }
            let start = region.base.0.saturating_add(extent.offset);
            let (device, later) = (steps[at].device, &mut list[at + 1..]);
            for step in later.iter_mut().filter(|step| step.device == device) {
                rename(&mut step.input, *extent, start, len_bytes);
            }
            resize(&mut list, at);
            lists.push(list);
        }
    }
    lists
}

/// The region of a step's device as the last of the steps before it plugged it.
fn region_of(before: &[Step], step: &Step, region: u8) -> Option<RegionConfig> {
    let plug = before.iter().rev().filter(|other| other.device == step.device).find_map(|other| match &other.input {
        Input::Backends(backends::Input::DeviceAdd { config, .. }) => Some(config),
        _ => None,
    });
    plug?.regions.get(usize::from(region)).copied()
}

/// Gives a range that an input names its new length: in a request by its offset, in a payload by its address.
fn rename(input: &mut Input, was: RegionRange, start: u64, len_bytes: u64) {
    match input {
        Input::Extents(extents::Input::Release(release)) => {
            let named = release.extents.iter_mut().filter(|extent| **extent == was);
            named.for_each(|extent| extent.len_bytes = len_bytes);
        }
        Input::Extents(extents::Input::Command { opcode: Opcode::ADD_DC_RESPONSE | Opcode::RELEASE_DC, payload }) => {
            let was = [start.to_le_bytes(), was.len_bytes.to_le_bytes()].concat();
            let ranges = payload.get_mut(UPDATE_HEADER_BYTES..).unwrap_or_default();
            for range in ranges.chunks_exact_mut(UPDATE_RANGE_BYTES).filter(|range| range.starts_with(&was)) {
                range[8..16].copy_from_slice(&len_bytes.to_le_bytes());
            }
        }
        _ => {}
    }
}

/// A backend is as long as the extents of its tag together: a shorter add wants a shorter backend.
fn resize(steps: &mut [Step], changed: usize) {
    let Input::Extents(extents::Input::Add(add)) = &steps[changed].input else { return };
    let (tag, len_bytes) = (add.tag, add.extents.iter().map(|extent| extent.len_bytes).sum());
    let backend = steps[..changed].iter_mut().rev().find_map(|step| backend_of(&mut step.input, tag));
    if let Some(size_bytes) = backend {
        *size_bytes = len_bytes;
    }
}

fn backend_of(input: &mut Input, tag: Tag) -> Option<&mut u64> {
    match input {
        Input::Backends(backends::Input::ObjectAdd { spec, .. })
            if spec.tag == tag && spec.kind == BackendKind::Ram =>
        {
            Some(&mut spec.size_bytes)
        }
        _ => None,
    }
}

fn inputs(input: &Input) -> Vec<Input> {
    match input {
        Input::Extents(extents::Input::Add(add)) if add.extents.len() > 1 => without_each(&add.extents)
            .map(|extents| Input::Extents(extents::Input::Add(extents::AddRequest { extents, ..add.clone() })))
            .collect(),
        Input::Extents(extents::Input::Release(release)) if !release.extents.is_empty() => {
            without_each(&release.extents)
                .map(|extents| {
                    Input::Extents(extents::Input::Release(extents::ReleaseRequest { extents, ..release.clone() }))
                })
                .collect()
        }
        Input::Extents(extents::Input::Command {
            opcode: opcode @ (Opcode::ADD_DC_RESPONSE | Opcode::RELEASE_DC),
            payload,
        }) => {
            let fewer = payloads(payload).into_iter();
            fewer.map(|payload| Input::Extents(extents::Input::Command { opcode: *opcode, payload })).collect()
        }
        Input::Extents(extents::Input::Command { opcode, payload }) => {
            let fewer = smaller(payload).into_iter();
            fewer.map(|payload| Input::Extents(extents::Input::Command { opcode: *opcode, payload })).collect()
        }
        Input::Mailbox(mailbox::Input::Doorbell { opcode, declared_len_bytes: declared @ 1.., payload }) => {
            let none = std::iter::once((0, Vec::new()));
            let fewer = none.chain(smaller(payload).into_iter().map(|payload| (*declared, payload)));
            fewer
                .map(|(declared_len_bytes, payload)| {
                    Input::Mailbox(mailbox::Input::Doorbell { opcode: *opcode, declared_len_bytes, payload })
                })
                .collect()
        }
        Input::Backends(backends::Input::DeviceAdd { config, source }) if config.regions.len() > 1 => {
            let mut config = config.clone();
            config.regions.pop();
            vec![Input::Backends(backends::Input::DeviceAdd { config, source: *source })]
        }
        Input::Backends(backends::Input::RunStart { build, survivals }) if !survivals.is_empty() => {
            vec![Input::Backends(backends::Input::RunStart { build: build.clone(), survivals: Vec::new() })]
        }
        _ => Vec::new(),
    }
}

/// Payloads with one smaller byte.
fn smaller(payload: &[u8]) -> Vec<Vec<u8>> {
    let set = |at: usize, byte: u8| {
        let mut payload = payload.to_vec();
        payload[at] = byte;
        payload
    };
    let bytes = payload.iter().copied().enumerate().take(PAYLOAD_BYTES_FEW).filter(|(_, byte)| *byte > 0);
    // Half of 1 is 0 once more.
    bytes.flat_map(|(at, byte)| [set(at, 0), set(at, byte / 2)].into_iter().take(usize::from(byte.min(2)))).collect()
}

/// Payloads of 4802h or 4803h with one range less.
fn payloads(payload: &[u8]) -> Vec<Vec<u8>> {
    let Some((header, ranges)) = payload.split_at_checked(UPDATE_HEADER_BYTES) else { return Vec::new() };
    let ranges: Vec<_> = ranges.chunks(UPDATE_RANGE_BYTES).collect();
    if ranges.len() < 2 {
        return Vec::new();
    }
    let whole = |ranges: Vec<&[u8]>| {
        let count = (ranges.len() as u32).to_le_bytes();
        [&count[..], &header[4..], &ranges.concat()].concat()
    };
    without_each(&ranges).map(whole).collect()
}

fn without_each<T: Clone>(things: &[T]) -> impl Iterator<Item = Vec<T>> {
    (0..things.len()).map(|index| [&things[..index], &things[index + 1..]].concat())
}
