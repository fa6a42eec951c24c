//! Capacity comes, is used for the first time, and goes: each part, by durability.

use crate::asked::scratch;
use crate::floors::Floors;
use crate::guest::{Guest, WINDOW};
use crate::program::{Operator, Program, add_request, release_request};
use crate::qemu::AgainstQemu;
use crate::report::{Row, median, median_us, timed_us};

const CYCLES: usize = 300;
const MIB: u64 = 1 << 20;
const EXTENT_BYTES: u64 = 256 * MIB;
const TAG: &str = "5be13bce-ae34-4a77-b6c3-16df975fcf1a";

/// The parts of a cycle, in their order, each with its sample in microseconds.
const PARTS: [&str; 6] = [
    "QMP add",
    "read + clear event, 4802h",
    "first write + read",
    "QMP release",
    "read + clear event, 4803h",
    "to access",
];
const TO_ACCESS: usize = 5;

/// Measures all durabilities.
pub(crate) fn measure(floors: &Floors) -> Vec<Row> {
    let by_durability = ["disk", "process", "none"].map(|durability| of_durability(durability, floors));
    by_durability.into_iter().flatten().chain(by_length()).collect()
}

fn of_durability(durability: &str, floors: &Floors) -> Vec<Row> {
    let dir = scratch();
    let journal = dir.path().join("journal").display().to_string();
    let program = Program::start(dir.path(), &["--journal", &journal, "--durability", durability]);
    let (mut operator, mut guest) = (program.operator(), Guest::over(program.connect("qtest.sock")));
    guest.open_window(4096 * MIB);
    operator.request(&format!(
        "{{\"execute\": \"object-add\", \"arguments\": {{\"qom-type\": \"memory-backend-ram\", \"id\": \"tm0\", \
         \"size\": {EXTENT_BYTES}, \"tag\": \"{TAG}\"}}}}"
    ));
    let mut samples = PARTS.map(|_| Vec::with_capacity(CYCLES));
    let mut lines = 0;
    for n in 0..CYCLES as u64 {
        let (took, sent) = cycle(&mut operator, &mut guest, n);
        samples.iter_mut().zip(took).for_each(|(sample, took)| sample.push(took));
        lines = sent;
    }
    let medians = samples.map(median);
    // Events are cleared and extents accepted by a record each; to read is none.
    let syncs = if durability == "disk" { floors.fdatasync } else { 0.0 };
    let named = |part: &str| format!("{part}, {durability}");
    let synced = |count: u32| if syncs > 0.0 { format!("{count} fdatasync + ") } else { String::new() };
    let mut rows =
        vec![Row::new(named("1 add -> accept -> first access"), medians[TO_ACCESS], "us").qemu(865.0).floor(
            3.0 * syncs + floors.echo + lines as f64 * floors.readl,
            format!("{}1 echo + {lines} readl", synced(3)),
        )];
    let qemu = [Some(450.0), Some(393.0), Some(20.5), Some(448.0), Some(362.0)];
    for ((part, took), qemu) in PARTS.iter().zip(medians).zip(qemu) {
        let is_qmp = part.starts_with("QMP");
        let row = Row::new(named(&format!("{} {part}", if is_qmp { 2 } else { 1 })), took, "us");
        rows.push(match qemu {
            // The response to a request is a fifth of what QEMU takes without a backend of its own to plug.
            Some(_) if is_qmp => row.qemu(440.0).floor(syncs + floors.echo, format!("{}1 echo", synced(1))),
            Some(qemu) => Row { qemu: Some(qemu), ..row },
            None => row,
        });
    }
    rows
}

/// Durations of the parts, and qtest lines up to the first access.
fn cycle(operator: &mut Operator, guest: &mut Guest, n: u64) -> ([f64; 6], u64) {
    let (offset, value) = (n % 16 * EXTENT_BYTES, n + 1);
    let (add, release) = (add_request(TAG, offset, EXTENT_BYTES, 1), release_request(TAG, offset, EXTENT_BYTES, 1));
    let before = guest.lines;
    let mut lines = 0;
    let (mut offered, mut accepted, mut accessed) = (0.0, 0.0, 0.0);
    let to_access = timed_us(|| {
        offered = timed_us(|| operator.request(&add));
        accepted = timed_us(|| answer(guest, 0x4802, offset));
        accessed = timed_us(|| {
            guest.write(WINDOW + offset, 'q', value);
            assert_eq!(guest.read(WINDOW + offset, 'q'), value);
        });
        lines = guest.lines - before;
    });
    let asked = timed_us(|| operator.request(&release));
    let released = timed_us(|| answer(guest, 0x4803, offset));
    ([offered, accepted, accessed, asked, released, to_access], lines)
}

/// Reads the event, clears it, and answers.
fn answer(guest: &mut Guest, opcode: u64, offset: u64) {
    assert_eq!(guest.drain_events(), 1);
    guest.update(opcode, offset, EXTENT_BYTES, 1);
}

/// A request that is nearly all blanks, which QEMU reads byte by byte.
fn by_length() -> Vec<Row> {
    let dir = scratch();
    let program = Program::start(dir.path(), &["--journal", "none"]);
    let mut operator = program.operator();
    let mut of_len = |len: usize| {
        let request = format!("{{\"execute\": \"query-status\"{}}}", " ".repeat(len - 26));
        median_us(500, || operator.request(&request))
    };
    let (short, long) = (of_len(250), of_len(16_250));
    vec![
        Row::new("2 QMP request of 250 bytes that records nothing", short, "us").qemu(456.0),
        Row::new("2 QMP request of 16,250 bytes that records nothing", long, "us"),
        Row::new("2 each 1,000 bytes more of a request", (long - short) / 16.0, "us").qemu(1_600.0),
    ]
}
