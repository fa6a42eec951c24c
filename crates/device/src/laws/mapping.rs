//! Laws of what stands behind device addresses and where the guest sees it.

use wire::Dpa;

use crate::config::DeviceConfig;
use crate::range::DpaRange;
use crate::vm::{Device, Vm};
use crate::windows::Mapping;

use super::holds;

pub(super) fn mapped_is_accepted(config: &DeviceConfig, device: &Device) -> Result<(), String> {
    // A partial release may cut a piece and an extent at the same place, so both sides are compared as they stand.
    let fixed = config.static_memory.iter().map(|memory| {
        let range = DpaRange { start: Dpa(0), len_bytes: memory.len_bytes };
        (range, memory.backend.as_str(), 0)
    });
    let accepted = device.extents.accepted().iter().map(|e| (e.range, e.backend.as_str(), e.offset_bytes));
    let mapped = device.windows.pieces().map(|p| (p.range, p.backend.as_str(), p.offset_bytes));
    let (mut due, mut mapped) = (fixed.chain(accepted), mapped);
    loop {
        match (due.next(), mapped.next()) {
            (None, None) => return Ok(()),
            (due, mapped) if due == mapped => {}
            (due, mapped) => return Err(format!("{} should be mapped, {} is", told(due), told(mapped))),
        }
    }
}

fn told(piece: Option<(DpaRange, &str, u64)>) -> String {
    match piece {
        Some((range, backend, offset_bytes)) => format!("{range} of {backend} at {offset_bytes:#x}"),
        None => "nothing more".to_owned(),
    }
}

pub(super) fn mappings_inside_backends(vm: &Vm) -> Result<(), String> {
    for piece in vm.devices.values().flat_map(|device| device.windows.pieces()) {
        let end = piece.offset_bytes.checked_add(piece.range.len_bytes);
        let is_inside = vm.backends.get(&piece.backend).zip(end).is_some_and(|(b, end)| end <= b.spec.size_bytes);
        holds(is_inside, || format!("{piece:?} reaches out of its backend"))?;
    }
    Ok(())
}

/// Compared with what the decoders resolve, address by address at the borders, and with the sum of what they show.
pub(super) fn mappings_of_state(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    let mappings = device.windows.mappings();
    let plain = || device.windows.decoded().into_iter().filter(|decoded| decoded.ways.count() == 1);
    let shows = |mapping: &Mapping| {
        let last_byte = mapping.range.len_bytes.checked_sub(1)?;
        let (first, last) = (mapping.hpa, mapping.hpa.checked_add(last_byte)?);
        let ends = (mapping.range.start, mapping.range.start.checked_add(last_byte)?);
        plain().find(|decoded| {
            let dpa = |hpa| decoded.resolve(hpa).map(|(dpa, _)| dpa);
            dpa(first) == Some(ends.0) && dpa(last) == Some(ends.1)
        })
    };
    mappings.iter().try_for_each(|mapping| {
        holds(shows(mapping).is_some(), || format!("no decoder shows {} at {}", mapping.range, mapping.hpa))
    })?;
    let overlap = mappings.windows(2).find(|pair| pair[1].hpa.0 - pair[0].hpa.0 < pair[0].range.len_bytes);
    holds(overlap.is_none(), || format!("two mappings meet: {overlap:?}"))?;
    let shown_bytes = |piece: DpaRange| {
        let windows = plain().filter_map(|decoded| DpaRange::new(decoded.dpa, decoded.size_bytes));
        windows.filter_map(|window| window.intersection(piece)).map(|part| part.len_bytes).sum::<u64>()
    };
    let due_bytes: u64 = device.windows.pieces().map(|piece| shown_bytes(piece.range)).sum();
    let mapped_bytes: u64 = mappings.iter().map(|mapping| mapping.range.len_bytes).sum();
    holds(due_bytes == mapped_bytes, || format!("{mapped_bytes} bytes are mapped, the decoders show {due_bytes}"))
}
