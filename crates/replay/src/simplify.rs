//! Simpler inputs: what a person would try next once no input can be left out.

use device::backends::{self, BackendKind};
use device::extents;
use device::operation::Input;
use device::{VmTime, mailbox};
use journal::record::Origin;
use wire::{Opcode, Tag};

use crate::rerun::Step;

/// Bytes in front of the ranges of 4802h and 4803h, and of each range (CXL r4.0 8.2.10.9.9.3).
const UPDATE_HEADER_BYTES: usize = 8;
const UPDATE_RANGE_BYTES: usize = 24;

/// Lists of steps, each a little simpler than `steps`: no times, fewer ranges, fewer regions, nothing about backends of
/// another run.
pub(crate) fn simpler(steps: &[Step]) -> Vec<Vec<Step>> {
    let mut lists = Vec::new();
    if steps.iter().any(|step| step.time != VmTime(0)) {
        lists.push(steps.iter().map(|step| Step { time: VmTime(0), ..step.clone() }).collect());
    }
    for (at, step) in steps.iter().enumerate() {
        for input in inputs(&step.input) {
            let mut list = steps.to_vec();
            list[at].input = input;
            resize(&mut list, at);
            lists.push(list);
        }
        if matches!(step.origin, Origin::CausedBy(_)) {
            let mut list = steps.to_vec();
            list[at].origin = Origin::Supervisor;
            lists.push(list);
        }
    }
    lists
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
        Input::Mailbox(mailbox::Input::Doorbell { opcode, declared_len_bytes: 1.., .. }) => {
            let (declared_len_bytes, payload) = (0, Vec::new());
            vec![Input::Mailbox(mailbox::Input::Doorbell { opcode: *opcode, declared_len_bytes, payload })]
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
