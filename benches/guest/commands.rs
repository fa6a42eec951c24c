//! Mailbox commands as the guest's driver sends them, by the length of their answers, and the whole extent list.

use actors::GuestProgram;
use device::extents::RegionRange;
use driver::{Bus, Host, HpaRange, Policy};
use vm::{Commanded, Job, JobAnswer};
use wire::{Opcode, Tag};

use crate::bare::{Bare, us};
use crate::machine::{Bench, MIB, Wanted};
use crate::report::{Row, median};

const EXTENTS: u64 = 100_000;
const BLOCK_BYTES: u64 = 2 * MIB;
/// Extents of one add.
const ADD_MAX: u64 = 4_000;
const EXTENT_LIST: Opcode = Opcode(0x4801);
const RUNS: usize = 50;
/// How many extents an answer lists, and how the answer is called.
const ANSWERS: [(u32, &str); 4] = [(0, "16 bytes"), (51, "2 KiB"), (512, "20 KiB"), (26_000, "1 MiB")];
/// Of a command of 20 KiB.
const EXITS_MAX: f64 = 3.0;

pub(crate) fn measure(bare: &Bare) -> Vec<Row> {
    let plain_bytes = Some(256 << 30);
    let bench = Bench::start(Wanted { vcpus: 1, guest: GuestProgram::None, plain_bytes });
    // The driver of this process fills the list; whoever reads it is the guest.
    let mut bus = bench.vm.bus();
    let host = Host::probe(&mut bus, &bench.vm.bus().platform_map(), Policy::Accept).expect("a device");
    for first in (0..EXTENTS).step_by(ADD_MAX as usize) {
        accept(&bench, &mut bus, host.mailbox(), first);
    }
    let mailbox = host.mailbox().registers();
    let mut rows = Vec::new();
    for (count, name) in ANSWERS {
        let (commanded, exits, took) = command(&bench, mailbox, 0, count);
        assert_eq!(commanded.len_bytes, 16 + 40 * u64::from(count));
        let what = format!("2 command with an answer of {name}");
        rows.push(Row::new(&what, took, "us").floor(exits * bare.exit, format!("{exits} exits")));
        let row = Row::new(format!("{what}: exits"), exits, "");
        rows.push(if count == 512 { row.target(EXITS_MAX) } else { row });
    }
    rows.push(list(&bench, mailbox, 512, bare));
    rows.push(list(&bench, mailbox, EXTENTS as u32, bare));
    rows
}

fn accept(bench: &Bench, bus: &mut dyn Bus, mailbox: &driver::Mailbox, first: u64) {
    let range = |n| RegionRange { offset: n * BLOCK_BYTES, len_bytes: BLOCK_BYTES };
    bench.add(Tag::NONE, (first..first + ADD_MAX).map(range).collect());
    let mut payload = (ADD_MAX as u32).to_le_bytes().to_vec();
    payload.extend([0; 4]);
    for n in first..first + ADD_MAX {
        payload.extend((n * BLOCK_BYTES).to_le_bytes());
        payload.extend(BLOCK_BYTES.to_le_bytes());
        payload.extend([0; 8]);
    }
    mailbox.execute(bus, Opcode::ADD_DC_RESPONSE, &payload).expect("accepted");
    loop {
        let answer = mailbox.execute(bus, Opcode::GET_EVENT_RECORDS, &[4]).expect("records");
        let handles: Vec<_> = answer[32..].chunks(128).map(|record| [record[0x14], record[0x15]]).collect();
        if handles.is_empty() {
            return;
        }
        for some in handles.chunks(255) {
            let payload = [&[4, 0, some.len() as u8, 0, 0, 0], some.as_flattened()].concat();
            mailbox.execute(bus, Opcode::CLEAR_EVENT_RECORDS, &payload).expect("cleared");
        }
    }
}

/// The answer, exits of one command, and microseconds by the guest's clock; medians.
fn command(bench: &Bench, mailbox: HpaRange, start: u32, count: u32) -> (Commanded, f64, f64) {
    let machine = bench.machine();
    let payload = HpaRange { base: machine.free_ram().base, size_bytes: 8 };
    let platform = bench.vm.platform();
    let ram = platform.ram();
    ram.write(payload.base.0, &[count.to_le_bytes(), start.to_le_bytes()].concat()).expect("RAM");
    let job = Job::Command { mailbox, opcode: EXTENT_LIST, payload };
    let (mut exits, mut took) = (Vec::new(), Vec::new());
    let mut last = None;
    for _ in 0..RUNS {
        let before = machine.exit_counts()[0].accesses();
        let JobAnswer::Commanded(commanded) = bench.done(0, job.clone()) else { panic!("of a command") };
        assert_eq!(commanded.code, Some(0));
        // One of them says that the job is done.
        exits.push((machine.exit_counts()[0].accesses() - before) as f64 - 1.0);
        took.push(us(&machine, commanded.ticks));
        last = Some(commanded);
    }
    (last.expect("an answer"), median(exits), median(took))
}

fn list(bench: &Bench, mailbox: HpaRange, extents: u32, bare: &Bare) -> Row {
    let (mut all_exits, mut all, mut start) = (0.0, 0.0, 0);
    while start < extents {
        let count = (extents - start).min(26_000);
        let (commanded, exits, took) = command(bench, mailbox, start, count);
        all_exits += exits;
        all += took;
        start += ((commanded.len_bytes - 16) / 40) as u32;
    }
    Row::new(format!("3 extent list of {extents}"), all, "us")
        .floor(all_exits * bare.exit, format!("{all_exits} exits"))
}
