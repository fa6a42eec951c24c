//! The commands that read the device's extents, its regions, its clock and the DC event log.

use wire::event::{
    CLEAR_FLAG_ALL, DC_EVENT_FLAG_MORE, DC_EVENT_UUID, DC_EVENT_VALID_COUNTERS, EVENT_FLAG_MORE_RECORDS,
    EVENT_FLAG_OVERFLOW, EVENT_RECORD_LEN_BYTES,
};
use wire::{
    CAPACITY_MULTIPLE_BYTES, ClearEventRecordsIn, DcConfigurationTail, DcEventKind, DcEventRecord, DcRegion,
    EventRecordHeader, GetDcConfigurationIn, GetDcConfigurationOut, GetDcExtentListIn, GetDcExtentListOut,
    GetEventRecordsOut, RawExtent, ReturnCode,
};
use zerocopy::{FromBytes, FromZeros, IntoBytes, little_endian as le};

use crate::config::DeviceConfig;
use crate::limits::{EXTENTS_MAX, TAGS_MAX};

use super::accepted::Extent;
use super::event_log::{ChainPlace, EventKind, LoggedEvent};
use super::{Fact, Plan, State, Verdict};

type Answer = Result<Vec<u8>, ReturnCode>;

impl State {
    /// 4800h: regions, then directly behind them the counters (CXL r4.0 8.2.10.9.9.1).
    pub(super) fn get_configuration(&self, config: &DeviceConfig, payload: &[u8]) -> Answer {
        let asked = GetDcConfigurationIn::read_from_bytes(payload).map_err(|_| ReturnCode::InvalidPayloadLength)?;
        let start = usize::from(asked.start_region);
        if start >= config.regions.len() {
            return Err(ReturnCode::InvalidInput);
        }
        let around = size_of::<GetDcConfigurationOut>() + size_of::<DcConfigurationTail>();
        let fit = config.mailbox_payload_bytes().saturating_sub(around) / size_of::<DcRegion>();
        let count = usize::from(asked.region_count).min(config.regions.len() - start).min(fit);
        let mut head = GetDcConfigurationOut::new_zeroed();
        head.available_regions = config.regions.len() as u8;
        head.returned_regions = count as u8;
        let mut answer = head.as_bytes().to_vec();
        for (index, region) in config.regions.iter().enumerate().skip(start).take(count) {
            let mut entry = DcRegion::new_zeroed();
            entry.base_dpa = le::U64::new(region.base.0);
            entry.decode_len_multiples = le::U64::new(region.len_bytes / CAPACITY_MULTIPLE_BYTES);
            entry.len_bytes = le::U64::new(region.len_bytes);
            entry.block_size_bytes = le::U64::new(region.block.bytes());
            entry.dsmad_handle = le::U32::new(index as u32);
            answer.extend_from_slice(entry.as_bytes());
        }
        let tail = DcConfigurationTail {
            supported_extents: le::U32::new(EXTENTS_MAX as u32),
            available_extents: le::U32::new(self.available_extents()),
            supported_tags: le::U32::new(TAGS_MAX as u32),
            available_tags: le::U32::new(self.available_tags()),
        };
        answer.extend_from_slice(tail.as_bytes());
        Ok(answer)
    }

    /// 4801h: the accepted extents from `start` on, as many as asked for and as fit (CXL r4.0 8.2.10.9.9.2).
    pub(super) fn get_extent_list(&self, config: &DeviceConfig, payload: &[u8]) -> Answer {
        let asked = GetDcExtentListIn::read_from_bytes(payload).map_err(|_| ReturnCode::InvalidPayloadLength)?;
        let (start, total) = (asked.start.get() as usize, self.accepted.len());
        if start > total {
            #[cfg(feature = "planted-bug")]
            panic!("a list of {total} extents was asked for its extent {start}");
            #[cfg(not(feature = "planted-bug"))]
            return Err(ReturnCode::InvalidInput);
        }
        let room = config.mailbox_payload_bytes().saturating_sub(size_of::<GetDcExtentListOut>());
        let count = (asked.count.get() as usize).min(room / size_of::<RawExtent>()).min(total - start);
        let mut head = GetDcExtentListOut::new_zeroed();
        head.returned = le::U32::new(count as u32);
        head.total = le::U32::new(total as u32);
        head.generation = le::U32::new(self.generation);
        let mut answer = head.as_bytes().to_vec();
        for extent in self.accepted.listed_from(start).take(count) {
            answer.extend_from_slice(raw_extent(extent).as_bytes());
        }
        Ok(answer)
    }

    /// 0100h of log 4: the oldest records, as many as fit (CXL r4.0 8.2.10.2.2).
    pub(super) fn get_event_records(&self, config: &DeviceConfig, payload: &[u8]) -> Answer {
        if payload.len() != 1 {
            return Err(ReturnCode::InvalidPayloadLength);
        }
        let room = config.mailbox_payload_bytes().saturating_sub(size_of::<GetEventRecordsOut>());
        let count = (room / EVENT_RECORD_LEN_BYTES).min(self.log.len());
        let mut head = GetEventRecordsOut::new_zeroed();
        if count < self.log.len() {
            head.flags |= EVENT_FLAG_MORE_RECORDS;
        }
        if let Some(overflow) = self.log.overflow() {
            head.flags |= EVENT_FLAG_OVERFLOW;
            head.overflow_count = le::U16::new(overflow.count);
            head.first_overflow_timestamp = le::U64::new(overflow.first_ns);
            head.last_overflow_timestamp = le::U64::new(overflow.last_ns);
        }
        head.record_count = le::U16::new(count as u16);
        let mut answer = head.as_bytes().to_vec();
        for event in self.log.iter().take(count) {
            answer.extend_from_slice(event_record(event).as_bytes());
        }
        Ok(answer)
    }

    /// 0101h of log 4: the oldest records in their order, or all of them after an overflow (CXL r4.0 8.2.10.2.3).
    pub(super) fn plan_clear_events(&self, payload: &[u8]) -> Plan {
        match self.cleared(payload) {
            Ok(fact) => Plan::command(Vec::from_iter(fact), ReturnCode::Success, Vec::new()),
            Err(code) => Plan::command(Vec::new(), code, Vec::new()),
        }
    }

    fn cleared(&self, payload: &[u8]) -> Result<Option<Fact>, ReturnCode> {
        let (head, handles) =
            ClearEventRecordsIn::read_from_prefix(payload).map_err(|_| ReturnCode::InvalidPayloadLength)?;
        let handles = <[le::U16]>::ref_from_bytes(handles).map_err(|_| ReturnCode::InvalidPayloadLength)?;
        if handles.len() != usize::from(head.handle_count) {
            return Err(ReturnCode::InvalidPayloadLength);
        }
        if head.flags & CLEAR_FLAG_ALL != 0 {
            let is_legal = self.log.overflow().is_some() && handles.is_empty();
            return if is_legal { Ok(Some(Fact::AllEventsCleared)) } else { Err(ReturnCode::InvalidInput) };
        }
        let count = self.log.oldest(handles.iter().map(|handle| handle.get())).ok_or(ReturnCode::InvalidHandle)?;
        Ok((count > 0).then_some(Fact::EventsCleared { count }))
    }

    /// 0300h: the host's time, 0 before it was set (CXL r4.0 8.2.10.4.1).
    pub(super) fn plan_get_timestamp(payload: &[u8]) -> Plan {
        if !payload.is_empty() {
            return Plan::command(Vec::new(), ReturnCode::InvalidPayloadLength, Vec::new());
        }
        Plan::without_steps(Verdict::TellTime)
    }

    /// 0301h: the host's time (CXL r4.0 8.2.10.4.2).
    pub(super) fn plan_set_timestamp(payload: &[u8]) -> Plan {
        match <[u8; 8]>::try_from(payload) {
            Ok(bytes) => {
                let fact = Fact::TimestampSet { host_ns: u64::from_le_bytes(bytes) };
                Plan::command(vec![fact], ReturnCode::Success, Vec::new())
            }
            Err(_) => Plan::command(Vec::new(), ReturnCode::InvalidPayloadLength, Vec::new()),
        }
    }
}

fn raw_extent(extent: &Extent) -> RawExtent {
    let mut raw = RawExtent::new_zeroed();
    raw.start_dpa = le::U64::new(extent.range.start.0);
    raw.len_bytes = le::U64::new(extent.range.len_bytes);
    raw.tag = extent.tag.bytes();
    raw.shared_sequence = le::U16::new(extent.shared_sequence);
    raw
}

/// The record on the wire (CXL r4.0 8.2.10.2.1.6). Severity informational: all flags 0.
fn event_record(event: &LoggedEvent) -> DcEventRecord {
    let mut header = EventRecordHeader::new_zeroed();
    header.uuid = DC_EVENT_UUID;
    header.len_bytes = EVENT_RECORD_LEN_BYTES as u8;
    header.handle = le::U16::new(event.handle);
    header.timestamp_ns = le::U64::new(event.timestamp_ns);
    let mut record = DcEventRecord::new_zeroed();
    record.header = header;
    record.kind = match event.kind {
        EventKind::Add => DcEventKind::Add,
        EventKind::Release => DcEventKind::Release,
        EventKind::ForcedRelease => DcEventKind::ForcedRelease,
    } as u8;
    record.validity = DC_EVENT_VALID_COUNTERS;
    if event.place == ChainPlace::More {
        record.flags = DC_EVENT_FLAG_MORE;
    }
    record.extent.start_dpa = le::U64::new(event.range.start.0);
    record.extent.len_bytes = le::U64::new(event.range.len_bytes);
    record.extent.tag = event.tag.bytes();
    record.extent.shared_sequence = le::U16::new(event.shared_sequence);
    record.available_extents = le::U32::new(event.available_extents);
    record.available_tags = le::U32::new(event.available_tags);
    record
}
