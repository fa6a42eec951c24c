//! Operators, a guest with its driver, and a guest without manners, all at once; then the journal is held against what
//! happened.

use std::sync::Arc;
use std::thread;

use actors::{Accel, GuestProgram};
use driver::{Bus, Policy};
use journal::Durability;
use qmp::{EventSender, Service};
use serde_json::{Value, json};
use wire::Hpa;

use crate::program::MIB;
use crate::vm::{InProcess, Wanted};

const OPERATORS: u64 = 4;
const ROUNDS: u64 = 150;

/// xorshift64*: the same seed, the same traffic of one thread.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

#[test]
fn the_journal_of_any_traffic_folds_to_the_live_state_and_decides_again() {
    for (seed, policy) in (1..).zip(Policy::ALL) {
        run(seed, GuestProgram::from(policy), Accel::Soft);
    }
}

/// All of them at once, and what the journal says of it.
pub(crate) fn run(seed: u64, guest: GuestProgram, accel: Accel) {
    let durability = Durability::Process;
    let vm = InProcess::start(Wanted { regions: 2, guest, accel, durability, ..Wanted::default() });
    thread::scope(|scope| {
        for operator in 0..OPERATORS {
            let (vm, seed) = (&vm, seed * 1000 + operator);
            scope.spawn(move || operate(vm, seed));
        }
        let vm = &vm;
        scope.spawn(move || disturb(vm, seed));
    });
    let records = vm.end();
    assert!(records.len() > 300, "only {} records", records.len());
}

/// One operator: makes, offers, asks back, forces, deletes; whatever is refused is refused.
fn operate(vm: &InProcess, seed: u64) {
    let mut dice = Dice(seed | 1 << 40);
    let call = |command: &str, arguments: Value| {
        let schema = vm.service.commands().iter().find(|schema| schema.name == command).expect("a command");
        let Value::Object(arguments) = arguments else { panic!("an object") };
        let (service, handle) = (Arc::clone(&vm.service), vm.runtime.handle());
        handle.block_on(async move { service.call(schema, arguments, &EventSender::new()).await }).is_ok()
    };
    for _ in 0..ROUNDS {
        let n = dice.roll(8);
        let tag = format!("00000000-0000-4000-8000-{n:012x}");
        let region = dice.roll(2);
        let offset = dice.roll(24) * 2 * MIB;
        let forced = dice.roll(4) == 0;
        match dice.roll(10) {
            0 | 1 => call(
                "object-add",
                json!({"qom-type": "memory-backend-ram", "id": format!("tm{n}"), "size": 4 * MIB, "tag": tag}),
            ),
            2 => call("object-del", json!({"id": format!("tm{n}")})),
            3..=6 => call(
                "cxl-add-dynamic-capacity",
                json!({"path": "cxl-vmem0", "host-id": 0, "selection-policy": "prescriptive", "region": region,
                       "tag": tag, "extents": [{"offset": offset, "len": 2 * MIB},
                                               {"offset": offset + 64 * MIB, "len": 2 * MIB}]}),
            ),
            7 | 8 => call(
                "cxl-release-dynamic-capacity",
                json!({"path": "cxl-vmem0", "host-id": 0, "removal-policy": "tag-based", "region": region,
                       "tag": tag, "forced-removal": forced}),
            ),
            _ if dice.roll(12) == 0 => call("system_reset", json!({})),
            _ => call(
                "cxl-release-dynamic-capacity",
                json!({"path": "cxl-vmem0", "host-id": 0, "removal-policy": "prescriptive", "region": region,
                       "forced-removal": forced, "extents": [{"offset": offset, "len": 2 * MIB}]}),
            ),
        };
    }
}

/// A second user of the same bus, who writes anywhere in the device's registers and in the window.
pub(crate) fn disturb(vm: &InProcess, seed: u64) {
    let mut dice = Dice(seed | 1 << 50);
    for _ in 0..ROUNDS * 4 {
        let mut bus = vm.vm.bus();
        let mut bytes = [0; 8];
        let width = [1, 2, 4, 8][dice.roll(4) as usize];
        let hpa = match dice.roll(3) {
            // The window and a little before and behind it.
            0 => Hpa(vm.vm.window().base().0 - 16 + dice.roll(96 * MIB)),
            // Wherever BARs may be.
            _ => Hpa(platform::MMIO_BASE.0 + dice.roll(0x3_0000)),
        };
        if dice.roll(3) == 0 && hpa.0 > vm.vm.window().base().0 {
            bytes[..width].copy_from_slice(&dice.roll(u64::MAX).to_le_bytes()[..width]);
            bus.write(hpa, &bytes[..width]);
        } else {
            bus.read(hpa, &mut bytes[..width]);
        }
    }
}
