//! What 4802h and 4803h have in common: a list of ranges, perhaps in several messages chained with More
//! (CXL r4.0 8.2.10.9.9.3, 8.2.10.9.9.4).
//!
//! ```text
//! 0        4      5         8                    8+18h*n
//! │ count  │flags │ reserved│ {DPA, length, rsvd} ×n │
//! ```
//!
//! A chain is checked message by message and takes effect with its last one, as a whole. An error ends it, and so does
//! the other opcode: nothing of it has happened then.

use serde::Serialize;
use wire::extent::UPDATE_FLAG_MORE;
use wire::{Dpa, Opcode, ReturnCode, UpdateHeader, UpdatedExtent};
use zerocopy::FromBytes;

use crate::config::DeviceConfig;
use crate::limits::EXTENTS_MAX;
use crate::range::{DpaRange, first_overlap};

use super::event_log::ChainPlace;
use super::{Fact, Plan, State};

/// The messages of an unfinished chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Whose chain.
    pub opcode: Opcode,
    /// The ranges so far.
    pub ranges: Vec<DpaRange>,
}

/// A list that is refused: the code, and what is remembered all the same.
pub(super) struct Failed {
    pub(super) facts: Vec<Fact>,
    pub(super) return_code: ReturnCode,
}

impl From<ReturnCode> for Failed {
    fn from(return_code: ReturnCode) -> Self {
        Self { facts: Vec::new(), return_code }
    }
}

/// One message.
struct Message {
    place: ChainPlace,
    ranges: Vec<(Dpa, u64)>,
}

fn parse(payload: &[u8]) -> Result<Message, ReturnCode> {
    let (header, rest) = UpdateHeader::read_from_prefix(payload).map_err(|_| ReturnCode::InvalidPayloadLength)?;
    let entries = <[UpdatedExtent]>::ref_from_bytes(rest).map_err(|_| ReturnCode::InvalidPayloadLength)?;
    if entries.len() != header.count.get() as usize {
        return Err(ReturnCode::InvalidPayloadLength);
    }
    let place = if header.flags & UPDATE_FLAG_MORE != 0 { ChainPlace::More } else { ChainPlace::Last };
    let ranges = entries.iter().map(|entry| (Dpa(entry.start_dpa.get()), entry.len_bytes.get())).collect();
    Ok(Message { place, ranges })
}

/// A range as the standard wants it: inside one region, not empty, made of whole blocks.
fn well_formed(config: &DeviceConfig, start: Dpa, len_bytes: u64) -> Result<DpaRange, ReturnCode> {
    if len_bytes == 0 {
        return Err(ReturnCode::InvalidExtentList);
    }
    let range = DpaRange::new(start, len_bytes).ok_or(ReturnCode::InvalidPhysicalAddress)?;
    let (_, region) = config.region_of(range).ok_or(ReturnCode::InvalidPhysicalAddress)?;
    if !region.block.divides(start.0) || !region.block.divides(len_bytes) {
        return Err(ReturnCode::InvalidExtentList);
    }
    Ok(range)
}

impl State {
    /// Plans a message of 4802h or 4803h: `whole` plans the complete list, and is asked for the list so far too, so
    /// that a chain fails at the message that makes it fail.
    pub(super) fn plan_update(
        &self,
        config: &DeviceConfig,
        opcode: Opcode,
        payload: &[u8],
        whole: impl Fn(&[DpaRange], ChainPlace) -> Result<Plan, Failed>,
    ) -> Plan {
        let open = self.chain.as_ref().filter(|chain| chain.opcode == opcode);
        let end_chain = self.chain.is_some().then_some(Fact::ChainEnded);
        let list = match self.list_with(config, open, payload) {
            Ok(list) => list,
            Err(code) => return Plan::command(Vec::from_iter(end_chain), code, Vec::new()),
        };
        match (list.place, whole(&list.ranges, list.place)) {
            (ChainPlace::More, Ok(_)) => {
                let interrupted = if open.is_none() { end_chain } else { None };
                let chained = Fact::ResponseChained { opcode, ranges: list.added };
                let facts = interrupted.into_iter().chain([chained]).collect();
                Plan::command(facts, ReturnCode::Success, Vec::new())
            }
            (ChainPlace::Last, Ok(plan)) => plan.preceded_by(end_chain),
            (_, Err(Failed { facts, return_code })) => {
                Plan::command(facts, return_code, Vec::new()).preceded_by(end_chain)
            }
        }
    }

    fn list_with(&self, config: &DeviceConfig, open: Option<&Chain>, payload: &[u8]) -> Result<List, ReturnCode> {
        let Message { place, ranges } = parse(payload)?;
        let added = ranges
            .into_iter()
            .map(|(start, len_bytes)| well_formed(config, start, len_bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let mut ranges = open.map_or_else(Vec::new, |chain| chain.ranges.clone());
        ranges.extend_from_slice(&added);
        if ranges.len() > EXTENTS_MAX {
            return Err(ReturnCode::ResourcesExhausted);
        }
        if first_overlap(&ranges).is_some() {
            return Err(ReturnCode::InvalidExtentList);
        }
        Ok(List { place, ranges, added })
    }
}

/// The list as it stands with a message.
struct List {
    place: ChainPlace,
    ranges: Vec<DpaRange>,
    added: Vec<DpaRange>,
}
