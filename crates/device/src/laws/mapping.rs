//! Laws of what stands behind device addresses and where the guest sees it.

use wire::Dpa;

use crate::config::DeviceConfig;
use crate::decode::DecodedRange;
use crate::extents::Extent;
use crate::operation::Fact;
use crate::range::DpaRange;
use crate::vm::{Device, Vm};
use crate::windows::{Piece, Shown};
use crate::{backends, windows};

use super::holds;
use super::watch::Near;

pub(super) fn mapped_is_accepted(config: &DeviceConfig, device: &Device) -> Result<(), String> {
    let fixed = fixed(config).into_iter();
    pieces_of_extents(fixed, device.extents.accepted().iter(), device.windows.pieces())
}

pub(super) fn mapped_is_accepted_near(near: &Near<'_>, device: &Device) -> bool {
    let touched = &near.before.touched;
    let is_touched = |(range, ..): &Due<'_>| touched.ranges().iter().any(|other| other.overlaps(*range));
    let fixed = fixed(&device.config).filter(is_touched).into_iter();
    pieces_of_extents(fixed, near.extents().iter().copied(), near.pieces().iter().copied()).is_ok()
}

/// What should stand behind addresses: a backend from an offset on.
type Due<'a> = (DpaRange, &'a str, u64);

fn fixed(config: &DeviceConfig) -> Option<Due<'_>> {
    config.static_memory.as_ref().map(|memory| {
        let range = DpaRange { start: Dpa(0), len_bytes: memory.len_bytes };
        (range, memory.backend.as_str(), 0)
    })
}

fn pieces_of_extents<'a>(
    fixed: impl Iterator<Item = Due<'a>>,
    extents: impl Iterator<Item = &'a Extent>,
    pieces: impl Iterator<Item = &'a Piece>,
) -> Result<(), String> {
    // A partial release may cut a piece and an extent at the same place, so both sides are compared as they stand.
    let accepted = extents.map(|e| (e.range, e.backend.as_str(), e.offset_bytes));
    let mut mapped = pieces.map(|p| (p.range, p.backend.as_str(), p.offset_bytes));
    let mut due = fixed.chain(accepted);
    loop {
        match (due.next(), mapped.next()) {
            (None, None) => return Ok(()),
            (due, mapped) if due == mapped => {}
            (due, mapped) => return Err(format!("{} should be mapped, {} is", told(due), told(mapped))),
        }
    }
}

fn told(piece: Option<Due<'_>>) -> String {
    match piece {
        Some((range, backend, offset_bytes)) => format!("{range} of {backend} at {offset_bytes:#x}"),
        None => "nothing more".to_owned(),
    }
}

pub(super) fn mappings_inside_backends(vm: &Vm) -> Result<(), String> {
    vm.devices.values().flat_map(|device| device.windows.pieces()).try_for_each(|piece| inside(vm, piece))
}

/// The touched pieces, and that no piece stands on a backend that came or went.
pub(super) fn mappings_inside_backends_near(near: &Near<'_>) -> bool {
    let is_moved = near.any(|fact| match fact {
        Fact::Backends(backends::Fact::Added { id, .. } | backends::Fact::Removed { id }) => near.has_pieces(id),
        _ => false,
    });
    !is_moved && near.pieces().iter().all(|piece| inside(near.vm, piece).is_ok())
}

fn inside(vm: &Vm, piece: &Piece) -> Result<(), String> {
    let end = piece.offset_bytes.checked_add(piece.range.len_bytes);
    let is_inside = vm.backends.get(&piece.backend).zip(end).is_some_and(|(b, end)| end <= b.spec.size_bytes);
    holds(is_inside, || format!("{piece:?} reaches out of its backend"))
}

pub(super) fn mappings_of_state(_: &DeviceConfig, device: &Device) -> Result<(), String> {
    shown(device, &device.windows.shown_of(|| device.windows.pieces()), device.windows.pieces())
}

/// The mappings of the touched pieces: those of others are elsewhere as long as the pieces are apart and the decoders too.
pub(super) fn mappings_of_state_near(near: &Near<'_>, device: &Device) -> bool {
    let is_of_pieces = |fact: &Fact| match fact {
        Fact::Windows(fact) => matches!(fact, windows::Fact::Mapped { .. } | windows::Fact::Unmapped { .. }),
        _ => true,
    };
    let pieces = near.pieces();
    let mappings = device.windows.shown_of(|| pieces.iter().copied());
    near.before.facts.iter().all(is_of_pieces)
        && are_apart(plain(device).map(|decoded| (decoded.hpa.0, decoded.size_bytes)).collect())
        && are_apart(pieces.iter().map(|piece| (piece.range.start.0, piece.range.len_bytes)).collect())
        && shown(device, &mappings, pieces.iter().copied()).is_ok()
}

fn are_apart(mut ranges: Vec<(u64, u64)>) -> bool {
    ranges.sort_unstable();
    ranges.windows(2).all(|pair| pair[1].0 - pair[0].0 >= pair[0].1)
}

/// The decoders that show a contiguous stretch.
fn plain(device: &Device) -> impl Iterator<Item = DecodedRange> {
    device.windows.decoded().into_iter().filter(|decoded| decoded.ways.count() == 1)
}

/// Compared with what the decoders resolve, address by address at the borders, and with the sum of what they show.
fn shown<'a>(device: &Device, mappings: &[Shown<'_>], pieces: impl Iterator<Item = &'a Piece>) -> Result<(), String> {
    let plain: Vec<_> = plain(device).collect();
    let shows = |mapping: &Shown<'_>| {
        let last_byte = mapping.range.len_bytes.checked_sub(1)?;
        let (first, last) = (mapping.hpa, mapping.hpa.checked_add(last_byte)?);
        let ends = (mapping.range.start, mapping.range.start.checked_add(last_byte)?);
        plain.iter().find(|decoded| {
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
        let windows = plain.iter().filter_map(|decoded| DpaRange::new(decoded.dpa, decoded.size_bytes));
        windows.filter_map(|window| window.intersection(piece)).map(|part| part.len_bytes).sum::<u64>()
    };
    let due_bytes: u64 = pieces.map(|piece| shown_bytes(piece.range)).sum();
    let mapped_bytes: u64 = mappings.iter().map(|mapping| mapping.range.len_bytes).sum();
    holds(due_bytes == mapped_bytes, || format!("{mapped_bytes} bytes are mapped, the decoders show {due_bytes}"))
}
