//! A simulated host: what the driver of one device sends and makes of the answers.
//!
//! ```text
//!  poll ─▶ Get Event Records ─▶ an offer's group is whole ─▶ Add Response ─┐
//!   ▲                       └─▶ asked to give back ────────▶ Release ──────┼─▶ Clear Event Records ─┐
//!   └──────────────────────────────────────────────────────────────────────┴────────────────────────┘
//! ```
//!
//! It knows only what it was told, and may be told nothing: an answer that is lost leaves it where it was. Deliberately
//! absent: registers. How a driver comes to send a command is crates/driver's matter.

use std::collections::VecDeque;

use device::operation::{CommandReply, Input};
use device::vm::Device;
use device::{DpaRange, Seq, extents, mailbox, windows};
use wire::{
    CEL_UUID, ClearEventRecordsIn, DC_EVENT_FLAG_MORE, DcEventKind, DcEventRecord, Dpa, EVENT_FLAG_OVERFLOW, EventLog,
    GetDcExtentListIn, GetDcExtentListOut, GetEventRecordsOut, GetLogIn, Opcode, RawExtent, ReturnCode,
    UPDATE_FLAG_MORE, UpdateHeader, UpdatedExtent,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::dice::Dice;
use crate::mix::WINDOW_BASE;

/// Between two looks of a host that does nothing.
const ABSENT_NS: u64 = 1_000_000_000;

/// How a host behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Temper {
    /// It answers every offer and gives back what it is asked for.
    Polite,
    /// It does so, seconds later, in parts and in halves.
    Slow,
    /// It sends anything.
    Hostile,
    /// It loses every third answer and starts over.
    Forgetful,
    /// No driver is there.
    Absent,
}

impl Temper {
    /// Each as often as it stands here.
    pub(crate) const ALL: [Self; 8] = [
        Self::Polite,
        Self::Polite,
        Self::Slow,
        Self::Slow,
        Self::Hostile,
        Self::Hostile,
        Self::Forgetful,
        Self::Absent,
    ];
}

/// A command.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) opcode: Opcode,
    pub(crate) payload: Vec<u8>,
}

/// The driver of one device.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    temper: Temper,
    /// Whether it has set its registers up.
    is_booted: bool,
    /// What it sends next.
    todo: VecDeque<Command>,
    /// Its command that is not answered.
    sent: Option<(Seq, Opcode)>,
    /// The offer whose group is not whole yet.
    group: Vec<DpaRange>,
}

impl Host {
    pub(crate) fn new(temper: Temper) -> Self {
        Self { temper, is_booted: false, todo: VecDeque::new(), sent: None, group: Vec::new() }
    }

    /// How long it waits before it does the next thing, in nanoseconds.
    pub(crate) fn pause_ns(&self, dice: &mut Dice) -> u64 {
        match (self.temper, !self.todo.is_empty()) {
            (Temper::Absent, _) => ABSENT_NS,
            (Temper::Slow, _) => dice.scale(1_000_000, 500_000_000),
            (Temper::Hostile, _) => dice.scale(20_000, 20_000_000),
            (Temper::Polite | Temper::Forgetful, true) => dice.scale(5_000, 500_000),
            (Temper::Polite | Temper::Forgetful, false) => dice.scale(500_000, 50_000_000),
        }
    }

    /// Whether it waits for an answer.
    pub(crate) fn is_waiting(&self) -> bool {
        self.sent.is_some()
    }

    /// What it does now; nothing while it waits for an answer.
    pub(crate) fn next(&mut self, dice: &mut Dice, device: &Device) -> Option<Input> {
        if self.is_waiting() || self.temper == Temper::Absent {
            return None;
        }
        if !std::mem::replace(&mut self.is_booted, true) && !dice.one_in(4) {
            return Some(window(device));
        }
        if self.temper == Temper::Hostile && dice.one_in(2) {
            return Some(hostile(dice, device));
        }
        if dice.one_in(40) {
            return Some(register(dice, device));
        }
        if self.todo.is_empty() {
            self.todo.push_back(poll(dice));
        }
        let Command { opcode, payload } = self.todo.pop_front()?;
        Some(routed(device, opcode, payload))
    }

    /// It has sent this, and waits.
    pub(crate) fn sent(&mut self, seq: Seq, input: &Input) {
        self.sent = match input {
            Input::Extents(extents::Input::Command { opcode, .. })
            | Input::Mailbox(mailbox::Input::Doorbell { opcode, .. }) => Some((seq, *opcode)),
            // A register write is not answered.
            _ => None,
        };
    }

    /// The answer to a record's command, now that the record is durable.
    pub(crate) fn hear(&mut self, dice: &mut Dice, device: &Device, seq: Seq, reply: Option<&CommandReply>) {
        let Some((_, opcode)) = self.sent.take_if(|(sent, _)| *sent == seq) else { return };
        let is_lost = self.temper == Temper::Forgetful && dice.one_in(3);
        match reply {
            Some(reply) if !is_lost => self.learn(dice, device, opcode, reply),
            _ => *self = Self { is_booted: true, ..Self::new(self.temper) },
        }
    }

    fn learn(&mut self, dice: &mut Dice, device: &Device, opcode: Opcode, reply: &CommandReply) {
        match (opcode, reply.return_code) {
            (Opcode::GET_EVENT_RECORDS, ReturnCode::Success) => self.learn_events(dice, device, &reply.payload),
            (Opcode::GET_DC_EXTENT_LIST, ReturnCode::Success) if dice.one_in(4) => self.give_all_back(&reply.payload),
            (Opcode::RELEASE_DC, code) if code != ReturnCode::Success => self.todo.push_front(list()),
            // An offer that is gone: a driver's way out is to reject.
            (Opcode::ADD_DC_RESPONSE, code) if code != ReturnCode::Success && dice.one_in(2) => {
                self.todo.push_front(Command { opcode, payload: update(&[], 0) });
            }
            _ => {}
        }
    }

    fn learn_events(&mut self, dice: &mut Dice, device: &Device, payload: &[u8]) {
        let Ok((head, records)) = GetEventRecordsOut::read_from_prefix(payload) else { return };
        let count = usize::from(head.record_count.get());
        let events = records.chunks(size_of::<DcEventRecord>()).take(count);
        let mut handles = Vec::new();
        for event in events.filter_map(|record| DcEventRecord::read_from_bytes(record).ok()) {
            handles.push(event.header.handle.get());
            self.learn_event(dice, device, &event);
        }
        if head.flags & EVENT_FLAG_OVERFLOW != 0 {
            self.todo.extend([clear(&[], true), list()]);
        } else if !handles.is_empty() {
            self.todo.push_back(clear(&handles, false));
        }
    }

    fn learn_event(&mut self, dice: &mut Dice, device: &Device, event: &DcEventRecord) {
        let Some(range) = DpaRange::new(Dpa(event.extent.start_dpa.get()), event.extent.len_bytes.get()) else {
            return;
        };
        match DcEventKind::from_u8(event.kind) {
            Some(DcEventKind::Add) => {
                self.group.push(range);
                if event.flags & DC_EVENT_FLAG_MORE == 0 {
                    let offered = std::mem::take(&mut self.group);
                    let taken = self.taken(dice, device, &offered);
                    self.todo.extend(updates(device, Opcode::ADD_DC_RESPONSE, &taken));
                }
            }
            // What is in use stays: only the polite give back at once and all.
            Some(DcEventKind::Release) if self.temper == Temper::Polite || dice.one_in(2) => {
                self.todo.extend(updates(device, Opcode::RELEASE_DC, &[range]));
            }
            _ => {}
        }
    }

    /// What it takes of an offer.
    fn taken(&self, dice: &mut Dice, device: &Device, offered: &[DpaRange]) -> Vec<DpaRange> {
        match (self.temper, dice.below(8)) {
            (_, 0) => Vec::new(),
            (Temper::Slow, 1..=3) => offered.iter().flat_map(|range| halves(device, *range)).collect(),
            (Temper::Slow | Temper::Hostile, 4..=5) => offered[..offered.len() / 2].to_vec(),
            _ => offered.to_vec(),
        }
    }

    fn give_all_back(&mut self, payload: &[u8]) {
        let Ok((head, extents)) = GetDcExtentListOut::read_from_prefix(payload) else { return };
        let listed = extents.chunks(size_of::<RawExtent>()).take(head.returned.get() as usize);
        let held: Vec<_> = listed
            .filter_map(|extent| RawExtent::read_from_bytes(extent).ok())
            .filter_map(|extent| DpaRange::new(Dpa(extent.start_dpa.get()), extent.len_bytes.get()))
            .collect();
        if !held.is_empty() {
            self.todo.push_back(Command { opcode: Opcode::RELEASE_DC, payload: update(&held, 0) });
        }
    }
}

/// The half that begins a range, and the other; the range itself where it is one block.
fn halves(device: &Device, range: DpaRange) -> Vec<DpaRange> {
    let block_bytes = device.config.regions.first().map_or(1, |region| region.block.bytes());
    let middle = range.start.0 + (range.len_bytes / 2).next_multiple_of(block_bytes);
    let both = [DpaRange::between(range.start.0, middle), DpaRange::between(middle, range.end())];
    both.into_iter().flatten().collect()
}

fn poll(dice: &mut Dice) -> Command {
    match dice.below(32) {
        0 => list(),
        5 => Command { opcode: Opcode::IDENTIFY_MEMORY_DEVICE, payload: Vec::new() },
        6 => Command { opcode: Opcode::GET_SUPPORTED_LOGS, payload: Vec::new() },
        7 => Command { opcode: Opcode::GET_LOG, payload: get_log() },
        8 => Command { opcode: Opcode::GET_EVENT_INTERRUPT_POLICY, payload: Vec::new() },
        9 => Command { opcode: Opcode::GET_EVENT_RECORDS, payload: vec![EventLog::Informational as u8] },
        10 => Command { opcode: Opcode::CLEAR_EVENT_RECORDS, payload: vec![EventLog::Warning as u8, 0, 0, 0, 0, 0] },
        1 => Command { opcode: Opcode::GET_TIMESTAMP, payload: Vec::new() },
        2 => Command { opcode: Opcode::SET_TIMESTAMP, payload: dice.scale(1, 1 << 60).to_le_bytes().to_vec() },
        3 => Command { opcode: Opcode::GET_DC_CONFIGURATION, payload: vec![8, 0] },
        4 => Command { opcode: Opcode::SET_EVENT_INTERRUPT_POLICY, payload: vec![1, 1, 1, 1, 1] },
        _ => Command { opcode: Opcode::GET_EVENT_RECORDS, payload: vec![EventLog::DynamicCapacity as u8] },
    }
}

fn get_log() -> Vec<u8> {
    let ask = GetLogIn { uuid: CEL_UUID, offset_bytes: 0.into(), len_bytes: 48.into() };
    ask.as_bytes().to_vec()
}

fn list() -> Command {
    let ask = GetDcExtentListIn { count: 64.into(), start: 0.into() };
    Command { opcode: Opcode::GET_DC_EXTENT_LIST, payload: ask.as_bytes().to_vec() }
}

fn clear(handles: &[u16], all: bool) -> Command {
    let head = ClearEventRecordsIn {
        log: EventLog::DynamicCapacity as u8,
        flags: u8::from(all),
        handle_count: handles.len() as u8,
        ..ClearEventRecordsIn::default()
    };
    let mut payload = head.as_bytes().to_vec();
    handles.iter().for_each(|handle| payload.extend(handle.to_le_bytes()));
    Command { opcode: Opcode::CLEAR_EVENT_RECORDS, payload }
}

/// One payload of 4802h or 4803h.
fn update(ranges: &[DpaRange], flags: u8) -> Vec<u8> {
    let head = UpdateHeader { count: (ranges.len() as u32).into(), flags, reserved: [0; 3] };
    let mut payload = head.as_bytes().to_vec();
    for range in ranges {
        let extent =
            UpdatedExtent { start_dpa: range.start.0.into(), len_bytes: range.len_bytes.into(), reserved: [0; 8] };
        payload.extend(extent.as_bytes());
    }
    payload
}

/// As many messages as the ranges need, chained with More; one where there is none.
fn updates(device: &Device, opcode: Opcode, ranges: &[DpaRange]) -> Vec<Command> {
    let room = device.config.mailbox_payload_bytes() - size_of::<UpdateHeader>();
    let messages: Vec<_> = ranges.chunks(room / size_of::<UpdatedExtent>()).collect();
    let Some((last, before)) = messages.split_last() else { return vec![Command { opcode, payload: update(&[], 0) }] };
    let before = before.iter().map(|ranges| update(ranges, UPDATE_FLAG_MORE));
    before.chain([update(last, 0)]).map(|payload| Command { opcode, payload }).collect()
}

/// A command as the mailbox routes it.
fn routed(device: &Device, opcode: Opcode, payload: Vec<u8>) -> Input {
    let declared_len_bytes = payload.len() as u32;
    match mailbox::route(&device.config, opcode, declared_len_bytes, &payload) {
        mailbox::Route::Extents => Input::Extents(extents::Input::Command { opcode, payload }),
        mailbox::Route::Mailbox => Input::Mailbox(mailbox::Input::Doorbell { opcode, declared_len_bytes, payload }),
    }
}

/// A decoder over all dynamic capacity, as a driver commits one when it begins.
fn window(device: &Device) -> Input {
    let (base, size_bytes) = (wire::Hpa(WINDOW_BASE), device.config.dynamic_len_bytes());
    let skip_bytes = device.config.static_len_bytes();
    let fields = windows::DecoderFields { base, size_bytes, skip_bytes, control: 0 };
    Input::Windows(windows::Input::DecoderCommit { decoder: 0, fields })
}

/// A register that has an effect.
fn register(dice: &mut Dice, device: &Device) -> Input {
    match dice.below(8) {
        0 => Input::Mailbox(mailbox::Input::ConfigWrite {
            offset: dice.below(0x400) as u16 * 4,
            width: dice.pick(&[1, 2, 4]),
            value: dice.next() as u32,
        }),
        1 => Input::Mailbox(mailbox::Input::MsixWrite {
            offset: dice.below(mailbox::MSIX_TABLE_BYTES as u64 + 16) as u32,
            width: dice.pick(&[1, 2, 4, 8]),
            value: dice.next(),
        }),
        2 => Input::Mailbox(mailbox::Input::MailboxControl { value: dice.next() as u32 }),
        _ => decoder(dice, device),
    }
}

/// Decoders come and go.
fn decoder(dice: &mut Dice, device: &Device) -> Input {
    let decoder = dice.below(3) as u8;
    Input::Windows(match dice.below(4) {
        0 => windows::Input::DecoderUncommit { decoder },
        1 => windows::Input::HdmGlobalControl { value: dice.below(4) as u32 },
        _ => {
            let base = wire::Hpa(WINDOW_BASE + (dice.below(64) << 28));
            let size_bytes = if dice.one_in(3) { device.config.dynamic_len_bytes() } else { dice.below(65) << 28 };
            let (skip_bytes, control) = (0, dice.pick(&[0, 0, 0, 0x100, 0x10, 0x21]));
            windows::Input::DecoderCommit {
                decoder,
                fields: windows::DecoderFields { base, size_bytes, skip_bytes, control },
            }
        }
    })
}

/// What no driver sends.
fn hostile(dice: &mut Dice, device: &Device) -> Input {
    match dice.below(8) {
        0 => register(dice, device),
        4 => {
            let Command { opcode, payload } = clear(&[], true);
            routed(device, opcode, payload)
        }
        1 => {
            let opcode = Opcode(dice.pick(&[0x0100, 0x0101, 0x0103, 0x0300, 0x0400, 0x0401, 0x4000, 0x5600, 0xffff]));
            let len = dice.below(64) as usize;
            routed(device, opcode, dice.bytes(len))
        }
        2 => {
            let ask = GetDcExtentListIn { count: (dice.next() as u32).into(), start: (dice.below(64) as u32).into() };
            routed(device, Opcode::GET_DC_EXTENT_LIST, ask.as_bytes().to_vec())
        }
        3 => {
            let len = dice.below(2300) as usize;
            let opcode = Opcode(dice.pick(&[0x4800, 0x4801, 0x4802, 0x4803]));
            routed(device, opcode, dice.bytes(len))
        }
        _ => {
            let opcode = dice.pick(&[Opcode::ADD_DC_RESPONSE, Opcode::RELEASE_DC]);
            let (ranges, flags) = (near_misses(dice, device), u8::from(dice.one_in(3)));
            routed(device, opcode, update(&ranges, flags))
        }
    }
}

/// Ranges that are nearly those that are offered or held.
fn near_misses(dice: &mut Dice, device: &Device) -> Vec<DpaRange> {
    let offered = device.extents.offers().head().into_iter().flat_map(|offer| offer.extents.iter().copied());
    let held = device.extents.accepted().iter().map(|extent| extent.range).take(4);
    let mut ranges: Vec<_> = offered.chain(held).filter(|_| !dice.one_in(3)).collect();
    ranges.truncate(dice.between(0, 80) as usize);
    for range in &mut ranges {
        match dice.below(8) {
            0 => range.start.0 = range.start.0.wrapping_add(dice.pick(&[1, 4096, 2 << 20, u64::MAX])),
            1 => range.len_bytes = dice.pick(&[0, 1, 2 << 20, u64::MAX, 1 << 40]),
            2 => *range = halves(device, *range).first().copied().unwrap_or(*range),
            _ => {}
        }
    }
    if let Some(first) = ranges.first().copied().filter(|_| dice.one_in(6)) {
        ranges.push(first);
    }
    ranges
}
