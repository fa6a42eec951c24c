//! `info mtree`: the guest-physical address map, as a tree and flat.
//!
//! ```text
//! system ─┬─ ram                                   flat: who comes first in the tree's depth-first order
//!         ├─ pci-bars ── BARs                            answers, a child before its parent
//!         ├─ cxl-host-registers
//!         └─ cxl-fixed-window ── decoders ── backends of accepted extents
//! ```
//!
//! Deliberately absent: priorities. Where two devices decode one address, the first answers.

use std::collections::BTreeMap;

use actors::Vm;
use device::config::DeviceIndex;
use device::windows::{Decoder, Mapping, State as Windows};
use platform::{AddressMap, BarIndex, CXL_HOST_REGISTERS_LEN_BYTES, MMIO_BASE, MMIO_LEN_BYTES};

use crate::error::QmpError;

/// A stretch of addresses.
struct Region {
    first: u64,
    last: u64,
    what: What,
    name: String,
    below: Vec<Region>,
}

/// What a stretch is.
enum What {
    /// Addresses for what is below, nothing else.
    Container,
    /// Something that answers by itself where nothing below does.
    Io,
    /// Memory, from an offset in bytes on.
    Ram { offset_bytes: u64 },
}

impl What {
    fn word(&self) -> &'static str {
        match self {
            Self::Container | Self::Io => "i/o",
            Self::Ram { .. } => "ram",
        }
    }
}

impl Region {
    /// `None` where there is not one address.
    fn new(first: u64, len_bytes: u64, what: What, name: impl Into<String>) -> Option<Self> {
        let last = first.saturating_add(len_bytes.checked_sub(1)?);
        Some(Self { first, last, what, name: name.into(), below: Vec::new() })
    }

    fn with(mut self, below: impl IntoIterator<Item = Self>) -> Self {
        self.below.extend(below);
        self
    }
}

pub(super) async fn text(vm: &Vm) -> Result<String, QmpError> {
    let mut text = "address-space: memory\n".to_owned();
    print_tree(&system(vm).await?, 1, &mut text);
    Ok(text + "\n")
}

pub(super) async fn flat_text(vm: &Vm) -> Result<String, QmpError> {
    let head = "FlatView #0\n AS \"memory\", root: system\n Root memory region: system\n";
    Ok(head.to_owned() + &flat(&system(vm).await?) + "\n")
}

async fn system(vm: &Vm) -> Result<Region, QmpError> {
    let map = vm.platform().address_map();
    let window = fixed_window(vm).await?;
    let registers = map
        .cxl_host_registers()
        .and_then(|base| Region::new(base.0, CXL_HOST_REGISTERS_LEN_BYTES, What::Io, "cxl-host-registers"));
    let whole = Region { first: 0, last: u64::MAX, what: What::Container, name: "system".into(), below: Vec::new() };
    let [low, high] = ram(map);
    Ok(whole.with([low, Some(bars(vm)), high, registers, window].into_iter().flatten()))
}

/// Guest memory below and above the addresses of BARs.
fn ram(map: AddressMap) -> [Option<Region>; 2] {
    let low_bytes = map.low_ram_len_bytes();
    [
        Region::new(0, low_bytes, What::Ram { offset_bytes: 0 }, "ram"),
        Region::new(4 << 30, map.high_ram_len_bytes(), What::Ram { offset_bytes: low_bytes }, "ram"),
    ]
}

/// The BARs that the guest has placed and enabled.
fn bars(vm: &Vm) -> Region {
    let mut below = Vec::new();
    for (port, face) in vm.platform().faces() {
        let Some(config) = vm.device_config(DeviceIndex(port)) else { continue };
        for bar in BarIndex::ALL {
            let Some((base, len_bytes)) = face.bar(bar) else { continue };
            below.extend(Region::new(base.0, len_bytes, What::Io, format!("{} bar{}", config.id, bar.number())));
        }
    }
    below.sort_by_key(|bar| bar.first);
    let last = MMIO_BASE.0 + MMIO_LEN_BYTES - 1;
    Region { first: MMIO_BASE.0, last, what: What::Container, name: "pci-bars".into(), below }
}

async fn fixed_window(vm: &Vm) -> Result<Option<Region>, QmpError> {
    let (base, len_bytes) = (vm.window().base().0, vm.window().size_bytes());
    let mut below = Vec::new();
    for (index, config) in vm.devices() {
        below.extend(vm.windows(index, move |windows| decoders(&config.id, windows)).await?);
    }
    Ok(Region::new(base, len_bytes, What::Io, "cxl-fixed-window").map(|window| window.with(below)))
}

/// What each committed decoder of a device shows.
fn decoders(id: &str, windows: &Windows) -> Vec<Region> {
    let mappings = windows.mappings();
    let committed = windows.decoders().iter().enumerate().filter_map(|(index, decoder)| match decoder {
        Decoder::Committed { range: Some(range), .. } => Some((index, range)),
        _ => None,
    });
    let region = |(index, range): (usize, &device::decode::DecodedRange)| {
        let interleave = match range.ways.count() {
            1 => String::new(),
            ways => format!(", {ways} ways: no stretch of it is one memory"),
        };
        let name = format!("{id} decoder {index}{interleave}");
        let decoder = Region::new(range.hpa.0, range.size_bytes, What::Io, name)?;
        let last = decoder.last;
        let shown = mappings.iter().filter(|mapping| (range.hpa.0..=last).contains(&mapping.hpa.0));
        Some(decoder.with(shown.filter_map(backend)))
    };
    committed.filter_map(region).collect()
}

fn backend(mapping: &Mapping) -> Option<Region> {
    let Mapping { hpa, range, backend, offset_bytes } = mapping;
    Region::new(hpa.0, range.len_bytes, What::Ram { offset_bytes: *offset_bytes }, backend.as_str())
}

fn print_tree(region: &Region, depth: usize, text: &mut String) {
    *text += &"  ".repeat(depth);
    *text += &line(region.first, region.last, region, 0);
    region.below.iter().for_each(|below| print_tree(below, depth + 1, text));
}

/// One line, of a region or of a part of it that begins `into_bytes` into it.
fn line(first: u64, last: u64, region: &Region, into_bytes: u64) -> String {
    let from = match region.what {
        What::Ram { offset_bytes } => format!(" @{:016x}", offset_bytes.saturating_add(into_bytes)),
        What::Container | What::Io => String::new(),
    };
    format!("{first:016x}-{last:016x} (prio 0, {}): {}{from}\n", region.what.word(), region.name)
}

fn flat(root: &Region) -> String {
    let mut answering = Answering::new();
    claim(root, &mut answering);
    let lines = answering.iter().map(|(first, (last, region))| {
        let into_bytes = first - region.first;
        format!("  {}", line(*first, *last, region, into_bytes))
    });
    lines.collect()
}

/// Who answers: by first address, the last address and the region.
type Answering<'a> = BTreeMap<u64, (u64, &'a Region)>;

/// Gives each region the addresses that nobody before it has, its children before itself.
fn claim<'a>(region: &'a Region, answering: &mut Answering<'a>) {
    region.below.iter().for_each(|below| claim(below, answering));
    if matches!(region.what, What::Container) {
        return;
    }
    for (first, last) in unclaimed(region, answering) {
        answering.insert(first, (last, region));
    }
}

/// The addresses of a region that nobody answers at, as first and last ones. What answers already does not overlap.
fn unclaimed(region: &Region, answering: &Answering<'_>) -> Vec<(u64, u64)> {
    let mut free = Vec::new();
    let mut next = Some(region.first);
    if let Some((_, (last, _))) = answering.range(..region.first).next_back() {
        next = last.checked_add(1).map(|behind| behind.max(region.first));
    }
    for (first, (last, _)) in answering.range(region.first..=region.last) {
        if let Some(from) = next.filter(|from| from < first) {
            free.push((from, first - 1));
        }
        next = last.checked_add(1);
    }
    free.extend(next.filter(|from| *from <= region.last).map(|from| (from, region.last)));
    free
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn region(first: u64, last: u64, what: What, name: &str, below: Vec<Region>) -> Region {
        Region { first, last, what, name: name.into(), below }
    }

    fn sample() -> Region {
        let memory = |first, last, name, offset_bytes| region(first, last, What::Ram { offset_bytes }, name, vec![]);
        let first = region(0x1000, 0x2fff, What::Io, "d0 decoder 0", vec![memory(0x1800, 0x1fff, "tm0", 0)]);
        let second = region(
            0x1000,
            0x4fff,
            What::Io,
            "d1 decoder 0",
            vec![memory(0x1000, 0x1fff, "tm1", 0x8000), memory(0x2800, 0x37ff, "tm2", 0)],
        );
        let window = region(0x1000, 0x5fff, What::Io, "window", vec![first, second]);
        region(0, u64::MAX, What::Container, "system", vec![memory(0, 0xfff, "ram", 0), window])
    }

    #[test]
    fn the_tree_shows_what_is_below_what() {
        let mut text = String::new();
        print_tree(&sample(), 0, &mut text);
        expect![[r#"
            0000000000000000-ffffffffffffffff (prio 0, i/o): system
              0000000000000000-0000000000000fff (prio 0, ram): ram @0000000000000000
              0000000000001000-0000000000005fff (prio 0, i/o): window
                0000000000001000-0000000000002fff (prio 0, i/o): d0 decoder 0
                  0000000000001800-0000000000001fff (prio 0, ram): tm0 @0000000000000000
                0000000000001000-0000000000004fff (prio 0, i/o): d1 decoder 0
                  0000000000001000-0000000000001fff (prio 0, ram): tm1 @0000000000008000
                  0000000000002800-00000000000037ff (prio 0, ram): tm2 @0000000000000000
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn flat_is_who_answers_and_where_two_overlap_the_first() {
        expect![[r#"
            flat:
              0000000000000000-0000000000000fff (prio 0, ram): ram @0000000000000000
              0000000000001000-00000000000017ff (prio 0, i/o): d0 decoder 0
              0000000000001800-0000000000001fff (prio 0, ram): tm0 @0000000000000000
              0000000000002000-0000000000002fff (prio 0, i/o): d0 decoder 0
              0000000000003000-00000000000037ff (prio 0, ram): tm2 @0000000000000800
              0000000000003800-0000000000004fff (prio 0, i/o): d1 decoder 0
              0000000000005000-0000000000005fff (prio 0, i/o): window
        "#]]
        .assert_eq(&format!("flat:\n{}", flat(&sample())));
    }
}
