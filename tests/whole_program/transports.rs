//! One driver over every way to a device: what it reads is the same, and so is what the journal says happened.
//!
//! ```text
//!              ┌─ the bus of this process ─┐
//!  scenario ───┼─ qtest ───────────────────┼──▶ the same actors ──▶ facts, in the same order per actor
//!              └─ instructions of a guest ─┘
//! ```

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::thread;

use actors::Accel;
use device::config::DeviceIndex;
use device::extents::Fact as ExtentsFact;
use device::operation::Fact;
use driver::{Bus, Host, Policy};
use journal::record::Record;
use serde_json::json;
use wire::{Hpa, Opcode};

use crate::kvm;
use crate::program::{GIB, MIB, TAG0, TAG1, add_arguments, release_arguments};
use crate::qtest_client::QtestBus;
use crate::vm::{InProcess, Wanted, update};

/// What a driver does, and what it saw.
type Scenario = fn(&InProcess, &mut dyn Bus) -> Vec<String>;

/// What a run over one way gave.
#[derive(Debug, PartialEq)]
struct Told {
    seen: Vec<String>,
    facts: BTreeMap<(DeviceIndex, &'static str), Vec<String>>,
}

fn wanted() -> Wanted {
    Wanted { mailbox_payload_bytes: Some(4 << 10), ..Wanted::default() }
}

fn in_process(scenario: Scenario) -> Told {
    let vm = InProcess::start(wanted());
    let seen = scenario(&vm, &mut vm.vm.bus());
    Told { seen, facts: facts(&vm.end()) }
}

fn over_qtest(scenario: Scenario) -> Told {
    let vm = InProcess::start(wanted());
    let (driver, server) = UnixStream::pair().expect("a socket");
    let machine = vm.vm.qtest_machine();
    let serving = thread::spawn(move || platform::qtest::serve(&machine, server));
    let seen = scenario(&vm, &mut QtestBus::over(driver));
    serving.join().expect("no panic").expect("served to its end");
    Told { seen, facts: facts(&vm.end()) }
}

fn on_kvm(scenario: Scenario) -> Told {
    let vm = InProcess::start(Wanted { accel: Accel::Kvm { vcpus: 1 }, ..wanted() });
    let seen = scenario(&vm, &mut vm.vm.instruction_bus().expect("a guest on KVM"));
    Told { seen, facts: facts(&vm.end()) }
}

/// The facts for each actor, in their order, without time: a sequence is named by the place where the actor first saw it.
fn facts(records: &[Record]) -> BTreeMap<(DeviceIndex, &'static str), Vec<String>> {
    let mut facts: BTreeMap<_, Vec<String>> = BTreeMap::new();
    let mut names: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for record in records {
        for fact in &record.facts {
            let (actor, text) = match &without_time(fact) {
                Fact::Mailbox(fact) => ("mailbox", format!("{fact:?}")),
                Fact::Extents(fact) => ("extents", format!("{fact:?}")),
                Fact::Backends(fact) => ("backends", format!("{fact:?}")),
                Fact::Windows(fact) => ("windows", format!("{fact:?}")),
            };
            let key = (record.device, actor);
            let text = renamed(&text, names.entry(key).or_default());
            facts.entry(key).or_default().push(text);
        }
    }
    facts
}

fn without_time(fact: &Fact) -> Fact {
    let mut fact = fact.clone();
    match &mut fact {
        Fact::Extents(ExtentsFact::TimestampSet { host_ns }) => *host_ns = 0,
        Fact::Extents(ExtentsFact::Logged { events }) => events.iter_mut().for_each(|event| event.timestamp_ns = 0),
        _ => {}
    }
    fact
}

fn renamed(text: &str, names: &mut Vec<String>) -> String {
    let mut parts = text.split("Seq(");
    let mut renamed = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once(')').expect("Seq(n)");
        let name = names.iter().position(|name| name == number).unwrap_or_else(|| {
            names.push(number.to_owned());
            names.len() - 1
        });
        renamed += &format!("the {name}.{rest}");
    }
    renamed
}

/// Runs a scenario over every way there is here.
fn same_over_all(scenario: Scenario) {
    let here = in_process(scenario);
    assert!(!here.seen.is_empty() && here.facts.values().map(Vec::len).sum::<usize>() > 5, "{here:?}");
    let qtest = over_qtest(scenario);
    same(&here, &qtest, "qtest");
    if kvm::is_there() {
        same(&here, &on_kvm(scenario), "instructions of a guest");
    }
}

/// The first difference, and not all of both sides.
fn same(here: &Told, there: &Told, way: &str) {
    for (here, there) in here.seen.iter().zip(&there.seen) {
        assert_eq!(here, there, "what a driver sees over {way}");
    }
    assert_eq!(here.seen.len(), there.seen.len());
    assert!(here.facts.keys().eq(there.facts.keys()), "{:?}", there.facts.keys());
    for (actor, facts) in &here.facts {
        for (here, there) in facts.iter().zip(&there.facts[actor]) {
            assert_eq!(here, there, "what happened to {actor:?} over {way}");
        }
        assert_eq!(facts.len(), there.facts[actor].len(), "facts of {actor:?} over {way}");
    }
}

fn probed(vm: &InProcess, bus: &mut dyn Bus) -> Host {
    Host::probe(bus, &vm.vm.bus().platform_map(), Policy::Accept).expect("a device")
}

fn add(vm: &InProcess, tag: &str, extents: &[(u64, u64)]) {
    vm.qmp("cxl-add-dynamic-capacity", add_arguments(tag, extents)).expect("an offer");
}

fn held(host: &Host) -> String {
    host.extents().iter().map(|held| format!("{:#x}+{:#x} {}; ", held.dpa.0, held.len_bytes, held.tag)).collect()
}

fn life(vm: &InProcess, bus: &mut dyn Bus) -> Vec<String> {
    let mut seen = Vec::new();
    let mut host = probed(vm, bus);
    seen.push(format!("{:?}", host.configuration()));
    let base = host.region().expect("a region").hpa.base;
    seen.push(format!("{:x}", bus.read64(base)));
    vm.object_add("tm0", TAG0, GIB);
    vm.object_add("tm1", TAG1, 8 * MIB);
    add(vm, TAG0, &[(GIB, GIB)]);
    add(vm, TAG1, &[(8 * MIB, 2 * MIB), (0, 4 * MIB), (4 * MIB, 2 * MIB)]);
    host.on_interrupt(bus).expect("answers");
    seen.push(held(&host));
    let ends = [GIB, 2 * GIB - 8, 0, 4 * MIB + 8, 10 * MIB - 16].map(|offset| Hpa(base.0 + offset));
    for (n, at) in (1u64..).zip(ends) {
        bus.write(at, &(n * 0x0101_0101_0101_0101).to_le_bytes());
    }
    for width in [1, 2, 4, 8, 100] {
        let mut bytes = vec![0; width];
        for at in ends {
            bus.read(at, &mut bytes);
            seen.push(format!("{bytes:x?}"));
        }
    }
    seen.push(format!("{:x?}", vm.backend_bytes("tm1", 2 * MIB, 8)));
    // A part goes, the rest stays.
    let part = update(&[(2 * MIB, 2 * MIB)], 0);
    seen.push(format!("{:?}", host.mailbox().execute(bus, Opcode::RELEASE_DC, &part)));
    seen.push(format!("{:x} {:x}", bus.read64(Hpa(base.0 + 2 * MIB)), bus.read64(base)));
    vm.qmp("cxl-release-dynamic-capacity", release_arguments(TAG0)).expect("asked");
    host.on_interrupt(bus).expect("answers");
    seen.push(held(&host));
    seen.push(format!("{:x} {}", bus.read64(ends[0]), vm.state(TAG0)));
    seen
}

/// Commands that no device takes, and such as it takes only whole.
fn refusals(vm: &InProcess, bus: &mut dyn Bus) -> Vec<String> {
    let mut seen = Vec::new();
    let host = probed(vm, bus);
    let mailbox = host.mailbox();
    vm.object_add("tm0", TAG0, 8 * MIB);
    add(vm, TAG0, &[(0, 4 * MIB), (8 * MIB, 4 * MIB)]);
    let commands = [
        (Opcode(0x0001), vec![]),
        (Opcode(0xffff), vec![0; 4096]),
        (Opcode(0x4000), vec![0]),
        (Opcode::GET_EVENT_RECORDS, vec![9]),
        (Opcode::GET_EVENT_RECORDS, vec![4]),
        (Opcode(0x4800), vec![8, 1]),
        (Opcode(0x4801), vec![0xff; 8]),
        (Opcode::ADD_DC_RESPONSE, update(&[(8 * MIB, 4 * MIB), (8 * MIB, 4 * MIB)], 0)),
        (Opcode::ADD_DC_RESPONSE, update(&[(0, 4 * MIB + 1)], 0)),
        (Opcode::ADD_DC_RESPONSE, update(&[(0, 2 * MIB)], 1)),
        (Opcode::ADD_DC_RESPONSE, update(&[(2 * MIB, 2 * MIB), (8 * MIB, 2 * MIB)], 0)),
        (Opcode::RELEASE_DC, update(&[(10 * MIB, 2 * MIB)], 0)),
        (Opcode::RELEASE_DC, update(&[(0, 4 * MIB), (8 * MIB, 2 * MIB)], 0)),
    ];
    for (opcode, payload) in commands {
        let mut answer = mailbox.execute(bus, opcode, &payload);
        if let (Opcode::GET_EVENT_RECORDS, Ok(records)) = (opcode, &mut answer) {
            // Without their time.
            records[32..].chunks_mut(128).for_each(|record| record[0x18..0x20].fill(0));
        }
        seen.push(format!("{opcode:?} {answer:x?}"));
    }
    seen.push(vm.state(TAG0).to_string());
    seen
}

/// Every register page, by every width that a register takes, and a reset under an offer.
fn registers(vm: &InProcess, bus: &mut dyn Bus) -> Vec<String> {
    let mut seen = Vec::new();
    let host = probed(vm, bus);
    vm.object_add("tm0", TAG0, 4 * MIB);
    add(vm, TAG0, &[(0, 4 * MIB)]);
    for bar in [0u16, 2, 4] {
        let low = bus.config_read(host.bdf(), 0x10 + 4 * bar, driver::Width::Dword);
        let base = u64::from(low & !0xf);
        let pages = if bar == 0 { 0x1000..0x1400 } else { 0..0x1010 };
        for width in [1, 2, 4, 8] {
            let mut all = Vec::new();
            for offset in pages.clone().step_by(width) {
                let mut bytes = vec![0; width];
                bus.read(Hpa(base + offset), &mut bytes);
                all.extend(bytes);
            }
            seen.push(format!("BAR{bar} by {width}: {all:x?}"));
        }
    }
    vm.qmp("system_reset", json!({})).expect("a reset");
    seen.push(vm.state(TAG0).to_string());
    seen
}

#[test]
fn a_whole_life_is_the_same_over_every_way() {
    same_over_all(life);
}

#[test]
fn refusals_are_the_same_over_every_way() {
    same_over_all(refusals);
}

#[test]
fn registers_are_the_same_over_every_way() {
    same_over_all(registers);
}
