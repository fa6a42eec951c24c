//! Every opcode over every payload length, through the mailbox registers of a VM.

use driver::{Host, Policy};

use crate::table::{hex, rows};
use crate::vm::{Answer, Machine, PAYLOAD_BYTES, RawMailbox};

const OPCODES: &str = include_str!("opcodes.txt");
const CASES: &str = include_str!("cases.txt");
const INVALID_PAYLOAD_LENGTH: u16 = 0x0016;
/// Every length up to here; behind it, those around multiples of 4 KiB.
const ALL_LENGTHS_TO: usize = 600;
/// What the length field holds at most.
const DECLARED_MAX: usize = 0x1f_ffff;
const CEL_UUID: &str = "0da9c0b5bf414b788f7996b1623b3f17";

/// The lengths that a command has.
#[derive(Clone, Debug)]
enum Lengths {
    /// The command is none.
    Any,
    /// These.
    Fixed(Vec<usize>),
    /// A head and as many units as a little-endian count in it says.
    Counted { head: usize, unit: usize, at: usize, bytes: usize },
}

/// One row.
struct Row {
    opcode: u16,
    effects: Option<u16>,
    lengths: Lengths,
    zeros: Option<Answer>,
    others: Vec<u16>,
}

/// The state in which a device is swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fresh,
    Held,
}

fn answer(text: &str) -> Answer {
    let (code, len_bytes) = text.split_once(':').expect("code:bytes");
    Answer { code: hex(code) as u16, len_bytes: len_bytes.parse().expect("bytes") }
}

fn lengths(text: &str) -> Lengths {
    let number = |text: &str| text.parse().expect("a length");
    if text.is_empty() {
        return Lengths::Any;
    }
    let Some((head, rest)) = text.split_once('+') else {
        return Lengths::Fixed(text.split(',').map(number).collect());
    };
    let (unit, count) = rest.split_once('@').expect("unit@count");
    let (at, bytes) = count.split_once(':').expect("offset:bytes");
    Lengths::Counted { head: number(head), unit: number(unit), at: number(at), bytes: number(bytes) }
}

fn table() -> Vec<Row> {
    let row = |row: Vec<&str>| {
        let [opcode, effects, length, zeros, others, _] = row[..] else { panic!("{row:?}") };
        Row {
            opcode: hex(opcode) as u16,
            effects: (effects != "none").then(|| hex(effects) as u16),
            lengths: lengths(length),
            zeros: (!zeros.is_empty()).then(|| answer(zeros)),
            others: others.split_whitespace().map(|code| hex(code) as u16).collect(),
        }
    };
    rows(OPCODES).map(row).collect()
}

fn swept_lengths() -> impl Iterator<Item = usize> {
    let around = (1..=PAYLOAD_BYTES / 4096).flat_map(|page| [page * 4096 - 1, page * 4096, page * 4096 + 1]);
    let beyond = [PAYLOAD_BYTES + 24, 2 * PAYLOAD_BYTES, 1 << 20, DECLARED_MAX];
    (0..=ALL_LENGTHS_TO).chain(around).chain(beyond)
}

impl Lengths {
    /// Whether a payload has a length that the command has.
    fn fit(&self, payload: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Fixed(lengths) => lengths.contains(&payload.len()),
            Self::Counted { head, unit, at, bytes } => {
                let Some(count) = payload.get(*at..at + bytes).filter(|_| payload.len() >= *head) else { return false };
                let count = count.iter().rev().fold(0_usize, |count, byte| count << 8 | usize::from(*byte));
                count.checked_mul(*unit).and_then(|units| units.checked_add(*head)) == Some(payload.len())
            }
        }
    }

    /// The payload with a count that agrees with its length, where there is one and the length has one.
    fn counted(&self, mut payload: Vec<u8>) -> Option<Vec<u8>> {
        let Self::Counted { head, unit, at, bytes } = self else { return None };
        let units = payload.len().checked_sub(*head).filter(|units| units.is_multiple_of(*unit))?;
        payload[*at..at + bytes].copy_from_slice(&(units / unit).to_le_bytes()[..*bytes]);
        Some(payload)
    }
}

/// Zeros, ones, a pattern, and each of them with a count that fits.
fn payloads(lengths: &Lengths, len: usize) -> Vec<Vec<u8>> {
    let pattern = (0..len).map(|at| (at as u8).wrapping_mul(37).wrapping_add(7)).collect();
    let plain = [vec![0; len], vec![0xff; len], pattern];
    let counted = plain.clone().into_iter().filter_map(|payload| lengths.counted(payload));
    let mut all: Vec<_> = plain.iter().cloned().chain(counted).collect();
    all.dedup();
    all
}

/// A device in a state, and its mailbox.
fn machine(state: State) -> (Machine, RawMailbox) {
    let mut machine = Machine::start();
    if state == State::Held {
        let map = machine.bus.platform_map();
        let host = Host::probe(&mut machine.bus, &map, Policy::Accept).expect("a device");
        machine.accept_and_offer(host);
    }
    let mailbox = machine.mailbox();
    (machine, mailbox)
}

/// One opcode over every length.
fn sweep(row: &Row, mailbox: &mut RawMailbox, state: State) {
    for declared in swept_lengths() {
        let fits_area = declared <= PAYLOAD_BYTES;
        for payload in payloads(&row.lengths, declared.min(PAYLOAD_BYTES)) {
            let answered = mailbox.ring(row.opcode, declared, &payload);
            let is_zeros = payload.iter().all(|byte| *byte == 0);
            let head = &payload[..payload.len().min(16)];
            let what = || format!("{:04x}, {state:?}, {declared} bytes {head:02x?}...: {answered:x?}", row.opcode);
            if !fits_area || !row.lengths.fit(&payload) {
                assert_eq!(answered, Answer { code: INVALID_PAYLOAD_LENGTH, len_bytes: 0 }, "{}", what());
            } else if let Some(expected) = row.zeros.filter(|_| is_zeros) {
                assert_eq!(answered, expected, "{}", what());
            } else {
                assert!(row.others.contains(&answered.code), "{}", what());
                assert!(answered.code == 0 || answered.len_bytes == 0, "an error has no payload: {}", what());
            }
        }
    }
}

fn sweep_all(state: State, rows: impl Iterator<Item = Row>) {
    for row in rows {
        let (machine, mut mailbox) = machine(state);
        sweep(&row, &mut mailbox, state);
        machine.end();
    }
}

#[test]
fn a_fresh_device_answers_every_length_as_the_table_says() {
    sweep_all(State::Fresh, table().into_iter());
}

#[test]
fn a_device_that_holds_capacity_answers_every_length_as_the_table_says() {
    // What is no command is none in any state.
    sweep_all(State::Held, table().into_iter().filter(|row| row.effects.is_some()));
}

/// The Command Effects Log names the commands of the table with their effects, and no other: a command without a row is
/// not swept.
#[test]
fn the_table_has_every_command() {
    let (machine, mut mailbox) = machine(State::Fresh);
    let expected: Vec<(u16, u16)> = table().iter().filter_map(|row| Some((row.opcode, row.effects?))).collect();
    let asked = [bytes("cel"), bytes("u32:0"), ((4 * expected.len()) as u32).to_le_bytes().to_vec()].concat();
    assert_eq!(mailbox.ring(0x0401, asked.len(), &asked), Answer { code: 0, len_bytes: 4 * expected.len() });
    let log = mailbox.payload(4 * expected.len());
    let entry = |entry: &[u8]| (u16::from_le_bytes([entry[0], entry[1]]), u16::from_le_bytes([entry[2], entry[3]]));
    assert_eq!(log.chunks(4).map(entry).collect::<Vec<_>>(), expected);
    mailbox.ring(0x0400, 0, &[]);
    assert_eq!(
        mailbox.payload(28)[24..],
        ((4 * expected.len()) as u32).to_le_bytes(),
        "as long as Supported Logs says"
    );
    machine.end();
}

/// Bytes of a case's payload.
fn bytes(word: &str) -> Vec<u8> {
    let pairs = |text: &str| (0..text.len()).step_by(2).map(|at| hex(&text[at..at + 2]) as u8).collect();
    match word.split_once(':') {
        Some(("u32", number)) => number.parse::<u32>().expect("a number").to_le_bytes().to_vec(),
        Some(("u64", number)) => number.parse::<u64>().expect("a number").to_le_bytes().to_vec(),
        _ if word == "cel" => pairs(CEL_UUID),
        _ => pairs(word),
    }
}

#[test]
fn answers_that_depend_on_more_than_the_length() {
    for (name, state) in [("fresh", State::Fresh), ("held", State::Held)] {
        let (machine, mut mailbox) = machine(state);
        let mut cases = 0;
        for case in rows(CASES).filter(|case| case[0] == name) {
            let [_, opcode, payload, expected, why] = case[..] else { panic!("{case:?}") };
            let payload: Vec<u8> = payload.split_whitespace().flat_map(bytes).collect();
            let answered = mailbox.ring(hex(opcode) as u16, payload.len(), &payload);
            assert_eq!(answered, answer(expected), "{case:?}: {why}");
            cases += 1;
        }
        assert!(cases > 20, "{cases} cases of {name}");
        machine.end();
    }
}

/// Records are cleared from the oldest on: the second alone is refused and stays, both in order go.
#[test]
fn records_are_cleared_in_their_order_only() {
    let (machine, mut mailbox) = machine(State::Held);
    assert_eq!(mailbox.ring(0x0100, 1, &[4]), Answer { code: 0, len_bytes: 32 + 2 * 128 });
    let records = mailbox.payload(32 + 2 * 128);
    let handle = |n: usize| [records[32 + 128 * n + 0x14], records[32 + 128 * n + 0x15]];
    let clear = |handles: &[[u8; 2]]| [&[4, 0, handles.len() as u8, 0, 0, 0], handles.concat().as_slice()].concat();
    let invalid_handle = Answer { code: 0x000e, len_bytes: 0 };
    for handles in [&[handle(1)][..], &[handle(1), handle(0)], &[handle(0), handle(0)], &[handle(0), handle(1), [9, 9]]]
    {
        assert_eq!(mailbox.ring(0x0101, 6 + 2 * handles.len(), &clear(handles)), invalid_handle, "{handles:x?}");
        assert_eq!(mailbox.ring(0x0100, 1, &[4]).len_bytes, 32 + 2 * 128, "nothing is cleared");
    }
    assert_eq!(mailbox.ring(0x0101, 10, &clear(&[handle(0), handle(1)])).code, 0);
    assert_eq!(mailbox.ring(0x0100, 1, &[4]).len_bytes, 32);
    machine.end();
}
