//! What drivers may do: offers of any number of extents, several before one answer, answers in any legal chaining, order
//! and split, and the same over and over without anything that grows.

use std::path::Path;
use std::process::Command;

use device::config::DeviceIndex;
use device::extents::{AddRequest, RegionRange, ReleaseRequest, SelectionPolicy};
use driver::{Host, Mailbox};
use journal::record::Record;
use serde_json::json;
use wire::{Opcode, Tag};

use crate::program::{MIB, add_arguments, release_arguments};
use crate::traffic::Dice;
use crate::vm::{InProcess, Wanted, command, update};

const EXTENT: u64 = 4 * MIB;
const BLOCK: u64 = 2 * MIB;

fn tag_of(n: u64) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

/// Puts a list into another order.
fn shuffle<T>(dice: &mut Dice, list: &mut [T]) {
    for last in (1..list.len()).rev() {
        list.swap(last, dice.roll(last as u64 + 1) as usize);
    }
}

/// Extents of [`EXTENT`] at places of their own in a shuffled order, each at a multiple of twice that.
fn places(dice: &mut Dice, count: u64, first: u64) -> Vec<(u64, u64)> {
    let mut places: Vec<_> = (0..count).map(|n| ((first + n) * 2 * EXTENT, EXTENT)).collect();
    shuffle(dice, &mut places);
    places
}

fn offered(vm: &InProcess, n: u64, extents: &[(u64, u64)]) {
    vm.object_add(&format!("tm{n}"), &tag_of(n), extents.iter().map(|extent| extent.1).sum());
    vm.qmp("cxl-add-dynamic-capacity", add_arguments(&tag_of(n), extents)).expect("an offer");
}

/// What the host holds, in the order of 4801h.
fn listed(vm: &InProcess) -> Vec<(u64, u64)> {
    let list = vm.runtime.block_on(vm.vm.extents(DeviceIndex(0), |extents| {
        extents.accepted().listed().map(|extent| (extent.range.start.0, extent.range.len_bytes)).collect()
    }));
    list.expect("a VM")
}

fn released(vm: &mut InProcess, host: &mut Host, n: u64) {
    vm.qmp("cxl-release-dynamic-capacity", release_arguments(&tag_of(n))).expect("asked");
    host.on_interrupt(&mut vm.bus).expect("answers");
    assert_eq!(vm.state(&tag_of(n)), "released");
    vm.qmp("object-del", json!({"id": format!("tm{n}")})).expect("free");
}

#[test]
fn an_add_has_one_extent_or_a_hundred() {
    let mut vm = InProcess::start(Wanted::default());
    let (mut host, mut dice) = (vm.host(), Dice(7));
    for (n, count) in (0u64..).zip([1, 2, 3, 7, 8, 31, 64, 99, 100]) {
        let extents = places(&mut dice, count, 0);
        offered(&vm, n, &extents);
        host.on_interrupt(&mut vm.bus).expect("an answer");
        assert_eq!(listed(&vm), extents, "in the order of the add");
        assert_eq!(host.extents().len(), extents.len());
        released(&mut vm, &mut host, n);
        assert_eq!(listed(&vm), []);
    }
    vm.end();
}

#[test]
fn several_adds_before_one_answer_are_answered_in_their_order() {
    let mut vm = InProcess::start(Wanted::default());
    let (mut host, mut dice) = (vm.host(), Dice(8));
    let counts = [3, 1, 40, 2, 17];
    let groups = counts.iter().scan(0, |first, count| {
        let group = places(&mut dice, *count, *first);
        *first += count;
        Some(group)
    });
    let groups: Vec<_> = groups.collect();
    for (n, group) in (0u64..).zip(&groups) {
        offered(&vm, n, group);
    }
    let second = update(&groups[1], 0);
    let refused = command(&mut vm.bus, host.mailbox(), Opcode::ADD_DC_RESPONSE, &second);
    assert!(refused.is_err(), "the second group before the first");
    host.on_interrupt(&mut vm.bus).expect("answers");
    assert_eq!(listed(&vm), groups.concat());
    // Asked back the other way round.
    for n in (0..groups.len() as u64).rev() {
        released(&mut vm, &mut host, n);
    }
    assert_eq!(listed(&vm), []);
    vm.end();
}

/// Sends a 4802h or 4803h in as many messages as it takes, of any size that fits, with an empty one here and there.
fn send(vm: &mut InProcess, mailbox: &Mailbox, dice: &mut Dice, opcode: Opcode, ranges: &[(u64, u64)]) -> u64 {
    let fit = (mailbox.payload_len_bytes() - 8) / 24;
    let (mut left, mut messages) = (ranges, 0);
    loop {
        // All that fits, or a random number of them.
        let most = fit.min(left.len());
        let count = if dice.roll(3) == 0 { most } else { 1 + dice.roll(most as u64) as usize };
        let (now, rest) = left.split_at(count);
        let more = u8::from(!rest.is_empty());
        command(&mut vm.bus, mailbox, opcode, &update(now, more)).expect("a message of the chain");
        messages += 1;
        if rest.is_empty() {
            return messages;
        }
        if dice.roll(5) == 0 {
            command(&mut vm.bus, mailbox, opcode, &update(&[], 1)).expect("nothing, and more follows");
        }
        left = rest;
    }
}

/// The extents in any order, some as two halves.
fn entries(dice: &mut Dice, extents: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut entries: Vec<_> = extents
        .iter()
        .flat_map(|(start, len)| match dice.roll(3) {
            0 => vec![(*start, BLOCK), (start + BLOCK, len - BLOCK)],
            _ => vec![(*start, *len)],
        })
        .collect();
    shuffle(dice, &mut entries);
    entries
}

/// The entries as they stand in the list of 4801h: by the place of their extent in the add, then by address.
fn in_order(extents: &[(u64, u64)], entries: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let inside = |extent: &(u64, u64)| {
        let mut parts: Vec<_> =
            entries.iter().filter(|(start, _)| (extent.0..extent.0 + extent.1).contains(start)).copied().collect();
        parts.sort_unstable();
        parts
    };
    extents.iter().flat_map(inside).collect()
}

#[test]
fn answers_come_in_any_chaining_order_and_split() {
    for (seed, payload_bytes) in (1..).zip([256, 512, 4 << 10, 32 << 10, 1 << 20]) {
        let mut vm = InProcess::start(Wanted { mailbox_payload_bytes: Some(payload_bytes), ..Wanted::default() });
        let host = vm.host();
        let (mailbox, mut dice) = (*host.mailbox(), Dice(seed | 1 << 33));
        assert_eq!(mailbox.payload_len_bytes() as u64, payload_bytes);
        let mut chained = 0;
        for n in 0..6 {
            let count = [1, 100, 1 + dice.roll(100)][n as usize % 3];
            let extents = places(&mut dice, count, 0);
            offered(&vm, n, &extents);
            let answer = entries(&mut dice, &extents);
            chained += send(&mut vm, &mailbox, &mut dice, Opcode::ADD_DC_RESPONSE, &answer) - 1;
            assert_eq!(listed(&vm), in_order(&extents, &answer));
            assert_eq!(vm.state(&tag_of(n)), "accepted");
            let back = entries(&mut dice, &extents);
            chained += send(&mut vm, &mailbox, &mut dice, Opcode::RELEASE_DC, &back) - 1;
            assert_eq!(vm.state(&tag_of(n)), "released");
            vm.qmp("object-del", json!({"id": format!("tm{n}")})).expect("free");
        }
        assert!(chained > 0, "nothing was chained with {payload_bytes} bytes");
        vm.end();
    }
}

/// By then the journal has gone over to a new generation of its store a few times, and holds in memory what it ever will.
const WARM: u64 = 10_000;
const WARM_NEXT: u64 = WARM + 1_000;
const LATE: u64 = CYCLES - 1_000;
const CYCLES: u64 = WARM + 10_000;

/// In a process of its own: its resident memory is nobody else's.
#[test]
fn ten_thousand_cycles_grow_nothing() {
    let this = std::env::current_exe().expect("a path");
    let alone = ["--exact", "flows::ten_thousand_cycles_alone", "--ignored", "--nocapture"];
    // An allocator that keeps an arena for each thread, and what was freed, grows by itself: by 14 MB on a busy machine.
    let allocator = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")];
    let output = Command::new(this).args(alone).envs(allocator).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "ten_thousand_cycles_grow_nothing runs it, in a process of its own"]
fn ten_thousand_cycles_alone() {
    let mut vm = InProcess::start(Wanted::default());
    let mailbox = *vm.host().mailbox();
    vm.object_add("tm0", &tag_of(0), 2 * BLOCK);
    let (mut marks, mut warm_peak, mut late_peak) = (Vec::new(), 0, 0);
    for n in 1..=CYCLES {
        cycle(&mut vm, &mailbox);
        // A generation of the store grows and goes: what must not grow is the peak of several.
        let peak = if n <= WARM { &mut warm_peak } else { &mut late_peak };
        if n.is_multiple_of(100) {
            // On a machine with other things to do the follower falls behind, and what it has not folded waits in memory.
            vm.runtime.block_on(vm.vm.look(|_| ())).expect("a state");
            *peak = resident_bytes().max(*peak);
        }
        if matches!(n, WARM | WARM_NEXT | LATE | CYCLES) {
            marks.push(Mark { record: vm.vm.journal_position().0.0, live: live(&vm) });
        }
    }
    let [warm, warm_next, late, last] = &marks[..] else { panic!("four marks") };
    assert_eq!(warm.live, last.live, "offers, extents, ended tags, tags, events, pieces");
    assert_eq!(warm.live, [0, 0, 1, 0, 0, 0]);
    let grown = late_peak.saturating_sub(warm_peak);
    assert!(grown < 8 * MIB, "resident memory grew from {warm_peak} to {late_peak}");
    let records = vm.close();
    let bytes = |from: &Mark, to: &Mark| -> usize {
        let between = |record: &&Record| (from.record + 1..=to.record).contains(&record.stamp.seq.0);
        records.iter().filter(between).map(|record| record.to_bytes().len()).sum()
    };
    assert_eq!(bytes(warm, warm_next), bytes(late, last), "a cycle costs the journal what it always did");
}

struct Mark {
    record: u64,
    live: [usize; 6],
}

/// Offered, announced, accepted, asked back, announced, given back.
fn cycle(vm: &mut InProcess, mailbox: &Mailbox) {
    let extents = [(BLOCK, BLOCK), (0, BLOCK)];
    let tag = Tag::parse(&tag_of(0)).expect("a tag");
    let ranges = extents.iter().map(|&(offset, len_bytes)| RegionRange { offset, len_bytes }).collect();
    let policy = SelectionPolicy::Prescriptive;
    let add = AddRequest { host_id: 0, policy, region: 0, tag, extents: ranges };
    vm.runtime.block_on(vm.vm.add(DeviceIndex(0), add)).expect("an offer");
    clear(vm, mailbox);
    command(&mut vm.bus, mailbox, Opcode::ADD_DC_RESPONSE, &update(&extents, 0)).expect("accepted");
    let release = ReleaseRequest::by_tag(0, tag);
    vm.runtime.block_on(vm.vm.release(DeviceIndex(0), release)).expect("asked");
    clear(vm, mailbox);
    command(&mut vm.bus, mailbox, Opcode::RELEASE_DC, &update(&extents, 0)).expect("given back");
}

/// Reads the two records that there are, and clears them.
fn clear(vm: &mut InProcess, mailbox: &Mailbox) {
    let answer = command(&mut vm.bus, mailbox, Opcode::GET_EVENT_RECORDS, &[4]).expect("records");
    assert_eq!(answer[0x14], 2);
    let handles = [0, 1].map(|n| [answer[32 + n * 128 + 0x14], answer[32 + n * 128 + 0x15]]);
    let payload = [&[4, 0, 2, 0, 0, 0][..], handles.as_flattened()].concat();
    command(&mut vm.bus, mailbox, Opcode::CLEAR_EVENT_RECORDS, &payload).expect("cleared");
}

/// The sizes of everything that a cycle touches.
fn live(vm: &InProcess) -> [usize; 6] {
    let state = vm.runtime.block_on(vm.vm.state()).expect("a state");
    let device = &state.devices[&DeviceIndex(0)];
    let extents = &device.extents;
    let ended =
        serde_json::to_value(extents).expect("a value")["ended"]["by_tag"].as_object().map_or(0, |tags| tags.len());
    [
        extents.offers().len(),
        extents.accepted().len(),
        ended,
        extents.tag_uses().len(),
        extents.log().len(),
        device.windows.pieces().count(),
    ]
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string(Path::new("/proc/self/status")).expect("a status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a size");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}
