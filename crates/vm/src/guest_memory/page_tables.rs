//! The page tables: every address that the guest may reach is itself, in pages of 2 MiB; ring 3 stacks apart.
//!
//! ```text
//!  root ─┬─ 512 GiB ─┬─ 1 GiB ─▶ 512 pages of 2 MiB: those in reach
//!        └─ stacks ── 1 GiB ─▶ one table of 4 KiB pages for each vCPU, the last of them its stack
//! ```
//!
//! All pages are present, writable and ring 3's: what is behind an address (RAM, a window, registers, nothing) is the
//! business of slots and exits. Deliberately absent: protection between the guest's own parts.

use std::collections::BTreeMap;

use driver::HpaRange;
use guest::place::{self, RING3_STACK_LEN_BYTES, RING3_STACKS_SEEN_AT, vcpu_block};
use memory::{HostMemory, OutOfRange};
use wire::Hpa;
use zerocopy::IntoBytes;

const ENTRIES: usize = 512;
const TABLE_LEN_BYTES: u64 = 4096;
const LARGE_PAGE_LEN_BYTES: u64 = 2 << 20;
const SMALL_PAGE_LEN_BYTES: u64 = 4096;

/// Present, writable, ring 3's, and accessed already: no processor has to write it.
const TABLE: u64 = 0x27;
/// As that, and dirty already.
const PAGE: u64 = 0x67;
/// As that, of a size that stands in the level's place.
const LARGE_PAGE: u64 = PAGE | 0x80;

type Table = [u64; ENTRIES];

/// The tables, ready to be written.
#[derive(Debug)]
pub(super) struct PageTables {
    base: Hpa,
    tables: Vec<Table>,
    /// Table by its parent and the entry in it.
    children: BTreeMap<(usize, usize), usize>,
}

impl PageTables {
    /// Tables at `base` for everything in `reach`.
    pub(super) fn new(base: Hpa, reach: &[HpaRange], vcpus: u32) -> Self {
        let mut tables = Self { base, tables: vec![[0; ENTRIES]], children: BTreeMap::new() };
        reach.iter().for_each(|range| tables.map_range(*range));
        (0..vcpus).for_each(|vcpu| tables.map_stack(vcpu));
        tables
    }

    /// Length in bytes.
    pub(super) fn len_bytes(&self) -> u64 {
        self.tables.len() as u64 * TABLE_LEN_BYTES
    }

    /// The first table.
    pub(super) fn root(&self) -> Hpa {
        self.base
    }

    /// Puts the tables where they belong.
    pub(super) fn write(&self, ram: &HostMemory) -> Result<(), OutOfRange> {
        (0..).zip(&self.tables).try_for_each(|(index, table)| ram.write(self.address(index), table.as_bytes()))
    }

    fn map_range(&mut self, range: HpaRange) {
        let end = range.base.0.saturating_add(range.size_bytes);
        let mut at = range.base.0 / LARGE_PAGE_LEN_BYTES * LARGE_PAGE_LEN_BYTES;
        while at < end {
            let directory = self.directory(at);
            self.tables[directory][entry(at, 1)] = at | LARGE_PAGE;
            at += LARGE_PAGE_LEN_BYTES;
        }
    }

    fn map_stack(&mut self, vcpu: u32) {
        let seen_end = place::ring3_stack_end(vcpu);
        debug_assert!(seen_end - RING3_STACK_LEN_BYTES > RING3_STACKS_SEEN_AT);
        let first = vcpu_block(vcpu) + place::RING3_STACK;
        for offset in (0..RING3_STACK_LEN_BYTES).step_by(SMALL_PAGE_LEN_BYTES as usize) {
            let seen = seen_end - RING3_STACK_LEN_BYTES + offset;
            let directory = self.directory(seen);
            let table = self.child(directory, entry(seen, 1));
            self.tables[table][entry(seen, 0)] = (first + offset) | PAGE;
        }
    }

    /// The table of the GiB that an address is in.
    fn directory(&mut self, at: u64) -> usize {
        let upper = self.child(0, entry(at, 3));
        self.child(upper, entry(at, 2))
    }

    fn child(&mut self, parent: usize, entry: usize) -> usize {
        if let Some(child) = self.children.get(&(parent, entry)) {
            return *child;
        }
        let child = self.tables.len();
        self.tables.push([0; ENTRIES]);
        self.children.insert((parent, entry), child);
        self.tables[parent][entry] = self.address(child as u64) | TABLE;
        child
    }

    fn address(&self, index: u64) -> u64 {
        self.base.0 + index * TABLE_LEN_BYTES
    }
}

/// The entry of an address in a table of a level, counted from the pages up.
fn entry(at: u64, level: u32) -> usize {
    (at >> (12 + 9 * level)) as usize & (ENTRIES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where an address leads, as a processor finds it.
    fn walk(tables: &PageTables, at: u64) -> Option<u64> {
        let mut table = 0;
        for level in (0..4).rev() {
            let found = tables.tables[table][entry(at, level)];
            if found & 1 == 0 {
                return None;
            }
            let target = found & 0x000f_ffff_ffff_f000;
            if level == 0 || (level == 1 && found & 0x80 != 0) {
                let mask = (1 << (12 + 9 * level)) - 1;
                return Some(target & !mask | at & mask);
            }
            table = ((target - tables.base.0) / TABLE_LEN_BYTES) as usize;
        }
        None
    }

    #[test]
    fn what_is_in_reach_is_itself_and_nothing_else_is() {
        let reach = [
            HpaRange { base: Hpa(0), size_bytes: 4 << 30 },
            HpaRange { base: Hpa(0xff_ffe0_0000), size_bytes: 0x20_0000 },
        ];
        let tables = PageTables::new(Hpa(0x50_0000), &reach, 2);
        for at in [0, 0x1234_5678, 0xffff_ffff, 0xff_ffe0_0001, 0xff_ffff_ffff] {
            assert_eq!(walk(&tables, at), Some(at));
        }
        for at in [0x1_0000_0000, 0xff_ffdf_ffff, 0x100_0000_0000] {
            assert_eq!(walk(&tables, at), None, "{at:#x}");
        }
    }

    #[test]
    fn below_a_stack_there_is_nothing() {
        let tables = PageTables::new(Hpa(0x50_0000), &[], 2);
        for vcpu in 0..2 {
            let end = place::ring3_stack_end(vcpu);
            assert_eq!(walk(&tables, end - 1), Some(vcpu_block(vcpu + 1) - 1));
            assert_eq!(walk(&tables, end - RING3_STACK_LEN_BYTES), Some(vcpu_block(vcpu) + place::RING3_STACK));
            assert_eq!(walk(&tables, end - RING3_STACK_LEN_BYTES - 1), None);
        }
    }
}
