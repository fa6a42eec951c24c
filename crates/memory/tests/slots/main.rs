//! Slots: the table, and the window that keeps its own in line with its lookup.

mod cpu;
mod dirty;
mod properties;
mod races;
mod table;
mod window;

use std::sync::Arc;

use device::DpaRange;
use device::config::DeviceIndex;
use device::decode::{DecodedRange, Granularity, Ways};
use memory::{HostMemory, Piece};
use wire::{Dpa, Hpa};

const PAGE: u64 = 4096;
const MIB: u64 = 1 << 20;
const BASE: Hpa = Hpa(0x1_1000_0000);
const D0: DeviceIndex = DeviceIndex(0);
const D1: DeviceIndex = DeviceIndex(1);

fn memory(size_bytes: u64) -> Arc<HostMemory> {
    Arc::new(HostMemory::anonymous(size_bytes).unwrap())
}

fn piece(dpa: u64, len_bytes: u64, memory: &Arc<HostMemory>, offset_bytes: u64) -> Piece {
    Piece { dpa: Dpa(dpa), len_bytes, memory: Arc::clone(memory), offset_bytes }
}

fn range(start: u64, len_bytes: u64) -> DpaRange {
    DpaRange { start: Dpa(start), len_bytes }
}

fn decoder(offset: u64, size_bytes: u64, dpa: u64) -> DecodedRange {
    let hpa = Hpa(BASE.0 + offset);
    DecodedRange { hpa, size_bytes, dpa: Dpa(dpa), ways: Ways::ONE, granularity: Granularity::MIN }
}
