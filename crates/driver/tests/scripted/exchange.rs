//! What a scripted device answers to which command.

use driver::DpaRange;
use wire::{
    CEL_UUID, CelEntry, DC_EVENT_UUID, DcConfigurationTail, DcEventKind, DcEventRecord, DcRegion, Dpa,
    EventRecordHeader, GetDcConfigurationOut, GetDcExtentListOut, GetEventRecordsOut, GetSupportedLogsOut,
    IdentifyMemoryDeviceOut, Opcode, RawExtent, ReturnCode, SupportedLog,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

pub(crate) const MIB: u64 = 1 << 20;

/// One command that is expected, and its answer.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) opcode: Opcode,
    pub(crate) code: u16,
    pub(crate) answer: Vec<u8>,
    /// Length that the command register shows; that of the answer unless the device lies.
    pub(crate) len_bytes: u32,
}

pub(crate) fn ok(opcode: Opcode, answer: &[u8]) -> Exchange {
    Exchange { opcode, code: 0, answer: answer.to_vec(), len_bytes: answer.len() as u32 }
}

pub(crate) fn refused(opcode: Opcode, code: ReturnCode) -> Exchange {
    Exchange { code: code as u16, ..ok(opcode, &[]) }
}

pub(crate) fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub(crate) fn cel(opcodes: &[Opcode]) -> Vec<u8> {
    let entry = |opcode: &Opcode| CelEntry { opcode: U16::new(opcode.0), effects: U16::new(2) }.as_bytes().to_vec();
    opcodes.iter().flat_map(entry).collect()
}

pub(crate) fn supported_logs(cel_size_bytes: u32) -> Exchange {
    let head = GetSupportedLogsOut { count: U16::new(2), reserved: [0; 6] };
    let other = SupportedLog { uuid: [7; 16], size_bytes: U32::new(64) };
    let cel = SupportedLog { uuid: CEL_UUID, size_bytes: U32::new(cel_size_bytes) };
    ok(Opcode::GET_SUPPORTED_LOGS, &bytes(&[head.as_bytes(), other.as_bytes(), cel.as_bytes()]))
}

pub(crate) fn identity() -> Exchange {
    let identity = IdentifyMemoryDeviceOut { dc_event_log_size: U16::new(128), ..IdentifyMemoryDeviceOut::default() };
    ok(Opcode::IDENTIFY_MEMORY_DEVICE, identity.as_bytes())
}

/// A region of 2 MiB blocks.
pub(crate) fn region(base_dpa: u64, len_bytes: u64) -> DcRegion {
    DcRegion {
        base_dpa: U64::new(base_dpa),
        decode_len_multiples: U64::new(len_bytes.div_ceil(256 * MIB)),
        len_bytes: U64::new(len_bytes),
        block_size_bytes: U64::new(2 * MIB),
        ..DcRegion::default()
    }
}

pub(crate) fn configuration(available_regions: u8, regions: &[DcRegion]) -> Exchange {
    let head = GetDcConfigurationOut { available_regions, returned_regions: regions.len() as u8, reserved: [0; 6] };
    let tail = DcConfigurationTail {
        supported_extents: U32::new(512),
        available_extents: U32::new(512),
        supported_tags: U32::new(64),
        available_tags: U32::new(64),
    };
    ok(Opcode::GET_DC_CONFIGURATION, &bytes(&[head.as_bytes(), regions.as_bytes(), tail.as_bytes()]))
}

pub(crate) fn extent(start_dpa: u64, len_bytes: u64, tag: u8) -> RawExtent {
    RawExtent { start_dpa: U64::new(start_dpa), len_bytes: U64::new(len_bytes), tag: [tag; 16], ..RawExtent::default() }
}

pub(crate) fn extent_list(total: u32, generation: u32, extents: &[RawExtent]) -> Exchange {
    let head = GetDcExtentListOut {
        returned: U32::new(extents.len() as u32),
        total: U32::new(total),
        generation: U32::new(generation),
        reserved: U32::new(0),
    };
    ok(Opcode::GET_DC_EXTENT_LIST, &bytes(&[head.as_bytes(), extents.as_bytes()]))
}

pub(crate) fn record(handle: u16, kind: DcEventKind, flags: u8, extent: RawExtent) -> DcEventRecord {
    let header = EventRecordHeader {
        uuid: DC_EVENT_UUID,
        len_bytes: 128,
        handle: U16::new(handle),
        ..EventRecordHeader::default()
    };
    DcEventRecord { header, kind: kind as u8, flags, extent, ..DcEventRecord::default() }
}

pub(crate) fn records(records: &[DcEventRecord]) -> Exchange {
    let head = GetEventRecordsOut { record_count: U16::new(records.len() as u16), ..GetEventRecordsOut::default() };
    ok(Opcode::GET_EVENT_RECORDS, &bytes(&[head.as_bytes(), records.as_bytes()]))
}

pub(crate) fn cleared() -> Exchange {
    ok(Opcode::CLEAR_EVENT_RECORDS, &[])
}

/// The payload of 0101h for these handles.
pub(crate) fn clear(handles: &[u16]) -> Vec<u8> {
    let mut payload = vec![4, 0, handles.len() as u8, 0, 0, 0];
    handles.iter().for_each(|handle| payload.extend(handle.to_le_bytes()));
    payload
}

/// The payload of 4802h and 4803h for these ranges.
pub(crate) fn update(ranges: &[(u64, u64)], flags: u8) -> Vec<u8> {
    let mut payload = (ranges.len() as u32).to_le_bytes().to_vec();
    payload.extend([flags, 0, 0, 0]);
    for (start, len_bytes) in ranges {
        payload.extend(start.to_le_bytes());
        payload.extend(len_bytes.to_le_bytes());
        payload.extend([0; 8]);
    }
    payload
}

pub(crate) fn range(start: u64, len_bytes: u64) -> DpaRange {
    DpaRange { start: Dpa(start), len_bytes }
}
