//! Devices that come and go while the VM runs: under traffic, over a kill -9, and in races with doorbells and adds.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use actors::GuestProgram;
use device::backends::{Fact as BackendFact, Holder};
use device::config::DeviceIndex;
use device::operation::{Fact, Input};
use driver::Policy;
use journal::Durability;
use journal::record::Record;
use qmp::{EventSender, Service};
use serde_json::{Value, json};

use crate::program::{Client, GIB, MIB, Program, TAG0, TAG1, add_arguments, printed, release_arguments};
use crate::traffic::{Dice, disturb};
use crate::vm::{InProcess, Wanted};

/// One lazy device of the command line, and two ports without one.
const PORTS: [&str; 10] = [
    "--device",
    "cxl-rp,id=rp0",
    "--device",
    "cxl-rp,id=rp1",
    "--device",
    "cxl-rp,id=rp2",
    "--device",
    "cxl-type3,id=cxl-vmem0,bus=rp0,dc-regions-total-size=1G",
    "--window",
    "size=8G",
];

fn on(device: &str, mut arguments: Value) -> Value {
    arguments["path"] = device.into();
    arguments
}

fn wait_deleted(client: &mut Client, id: &str) -> Value {
    let fits = |event: &Value| event["event"] == "DEVICE_DELETED" && event["data"]["device"] == id;
    loop {
        if let Some(at) = client.events.iter().position(fits) {
            return client.events.remove(at)["data"].take();
        }
        let message = client.message().expect("the program is there");
        client.events.push(message);
    }
}

/// Adds and releases on the device of the command line until it is told to end; how often.
fn cycles(mut client: Client, is_over: &AtomicBool) -> u64 {
    let tag = "7be13bce-ae34-4a77-b6c3-16df975fcf1a";
    client.object_add("tm7", tag, 2 * MIB).expect("a backend");
    let mut done = 0;
    while !is_over.load(Ordering::Relaxed) {
        client.add(tag, &[(0, 2 * MIB)]).expect("an offer");
        client.wait_for("ACCEPTED", tag);
        client.release(tag).expect("asked");
        client.wait_for("RELEASED", tag);
        client.events.clear();
        done += 1;
    }
    done
}

#[test]
fn devices_come_and_go_under_traffic() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &[&PORTS[..], &["--durability", "process"]].concat());
    let is_over = AtomicBool::new(false);
    let done = thread::scope(|scope| {
        let traffic = program.client();
        let traffic = scope.spawn(|| cycles(traffic, &is_over));
        let mut client = program.client();
        // Whatever is wrong, the traffic ends, or nobody would hear of it.
        let result = catch_unwind(AssertUnwindSafe(|| (0..3).for_each(|_| come_and_go(&mut client))));
        is_over.store(true, Ordering::Relaxed);
        let done = traffic.join().expect("no panic");
        result.map(|()| done).unwrap_or_else(|panic| resume_unwind(panic))
    });
    assert!(done > 3, "only {done} cycles: the traffic stood still");
    let journal = program.journal();
    program.terminate();
    let replayed = printed(&["replay", journal.to_str().expect("a path")]);
    assert!(replayed.contains("every decision is what this build decides"), "{replayed}");
}

/// A lazy device and a plain one are plugged, used, and unplugged by force.
fn come_and_go(client: &mut Client) {
    let lazy = json!({"driver": "cxl-type3", "id": "lazy", "dc-regions-total-size": GIB});
    client.execute("device_add", lazy.clone()).expect("plugged");
    assert!(client.execute("device_add", lazy).expect_err("twice").contains("Duplicate device ID 'lazy'"));
    client.object_add("tm1", TAG1, 4 * MIB).expect("a backend");
    client.execute("cxl-add-dynamic-capacity", on("lazy", add_arguments(TAG1, &[(0, 4 * MIB)]))).expect("an offer");
    client.wait_for("ACCEPTED", TAG1);

    client.object_add("dc", "", GIB).expect("a backend");
    let plain = json!({"driver": "cxl-type3", "id": "plain", "bus": "rp2", "volatile-dc-memdev": "dc"});
    client.execute("device_add", plain).expect("plugged");
    client
        .execute("cxl-add-dynamic-capacity", on("plain", add_arguments(TAG0, &[(8 * MIB, 2 * MIB)])))
        .expect("an offer");
    client.wait_for("ACCEPTED", TAG0);
    let deleted = client.execute("object-del", json!({"id": "dc"})).expect_err("in use");
    assert!(deleted.contains("plain holds it (its own memory), #"), "{deleted}");

    for (id, tag) in [("lazy", TAG1), ("plain", TAG0)] {
        let refused = client.execute("device_del", json!({"id": id})).expect_err("in use");
        assert!(refused.contains("1 accepted extents, 0 offers without an answer, 1 committed decoders"), "{refused}");
        client.events.clear();
        client.execute("device_del", json!({"id": id, "force": true})).expect("forced");
        assert_eq!(client.wait_for("RELEASED", tag)["reason"], "unplug");
        assert_eq!(wait_deleted(client, id)["path"], format!("/machine/peripheral/{id}"));
        let gone = client.execute("device_del", json!({"id": id})).expect_err("gone");
        assert_eq!(gone, format!("Device '{id}' not found"));
    }
    for id in ["tm1", "dc"] {
        client.execute("object-del", json!({"id": id})).expect("free");
    }
}

/// Id, and whether it is on the list of devices.
fn devices(client: &mut Client) -> Vec<String> {
    let places = client.execute("qom-list", json!({"path": "/machine/peripheral"})).expect("a list");
    let places = places.as_array().expect("a list").iter();
    let devices = places.filter(|place| place["type"].as_str().is_some_and(|kind| kind.starts_with("child<cxl")));
    devices.filter_map(|place| place["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn plugged_and_unplugged_devices_survive_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let second = ["--device", "cxl-type3,id=cxl-vmem1,bus=rp1,dc-regions-total-size=1G"];
    let arguments = [&PORTS[..], &second].concat();
    let program = Program::start(dir.path(), &arguments);
    let mut client = program.client();
    client.object_add("dc", "", GIB).expect("a backend");
    let plain = json!({"driver": "cxl-type3", "id": "plain", "volatile-dc-memdev": "dc", "unique-tags": true});
    client.execute("device_add", plain).expect("plugged");
    client
        .execute("cxl-add-dynamic-capacity", on("plain", add_arguments(TAG0, &[(8 * MIB, 2 * MIB)])))
        .expect("an offer");
    client.wait_for("ACCEPTED", TAG0);
    let full = json!({"driver": "cxl-type3", "id": "more", "dc-regions-total-size": GIB});
    assert!(client.execute("device_add", full).expect_err("full").contains("all 3 root ports have a device"));
    client.execute("device_del", json!({"id": "cxl-vmem1", "force": true})).expect("forced");
    assert_eq!(devices(&mut client), ["cxl-vmem0", "plain"]);
    let query = |client: &mut Client| {
        let mut query = client.execute("query-cxl-dynamic-capacity", json!({"path": "plain"})).expect("a query");
        query["extents"][0]["hpa"] = Value::Null;
        query["extents"].take()
    };
    let before = query(&mut client);
    program.kill();

    // The device of device_add is in the journal; the one of the command line that was unplugged is asked for again.
    let program = Program::start(dir.path(), &arguments);
    let mut client = program.client();
    assert_eq!(devices(&mut client), ["cxl-vmem0", "cxl-vmem1", "plain"]);
    assert_eq!(query(&mut client), before);
    assert!(client.execute("object-del", json!({"id": "dc"})).expect_err("in use").contains("plain holds it"));
    client.execute("cxl-release-dynamic-capacity", on("plain", release_arguments(TAG0))).expect("asked");
    client.wait_for("RELEASED", TAG0);
    client.execute("device_del", json!({"id": "plain", "force": true})).expect("forced");
    program.kill();

    // Without a command line nothing that was unplugged comes back.
    let program = Program::start(dir.path(), &[]);
    let mut client = program.client();
    assert_eq!(devices(&mut client), ["cxl-vmem0", "cxl-vmem1"]);
    client.execute("object-del", json!({"id": "dc"})).expect("free");
    let journal = program.journal();
    program.terminate();
    let replayed = printed(&["replay", journal.to_str().expect("a path")]);
    assert!(replayed.contains("every decision is what this build decides"), "{replayed}");
}

/// Seen as: a device that was plugged into a running VM was found by the in-process guest at the next reset, and one that
/// was unplugged with its doorbell set kept the guest from all others for ever.
#[test]
fn the_guest_finds_a_device_that_comes_to_an_empty_vm_and_goes_on_when_it_leaves() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &PORTS);
    let mut client = program.client();
    client.execute("device_del", json!({"id": "cxl-vmem0", "force": true})).expect("forced");
    assert_eq!(devices(&mut client), Vec::<String>::new());
    client.object_add("tm0", TAG0, 2 * MIB).expect("a backend");
    for _ in 0..3 {
        let device = json!({"driver": "cxl-type3", "id": "cxl-vmem0", "dc-regions-total-size": GIB});
        client.execute("device_add", device).expect("plugged");
        client.add(TAG0, &[(0, 2 * MIB)]).expect("an offer");
        client.wait_for("ACCEPTED", TAG0);
        client.release(TAG0).expect("asked");
        // Whatever the host is doing now.
        client.execute("device_del", json!({"id": "cxl-vmem0", "force": true})).expect("forced");
        client.events.clear();
    }
}

/// Executes a command as a client's would be, from any thread.
pub(crate) fn call(vm: &InProcess, command: &str, arguments: Value) -> Result<Value, String> {
    let schema = vm.service.commands().iter().find(|schema| schema.name == command).expect("a command");
    let Value::Object(arguments) = arguments else { panic!("an object") };
    let (service, handle) = (Arc::clone(&vm.service), vm.runtime.handle());
    let done = handle.block_on(async move { service.call(schema, arguments, &EventSender::new()).await });
    done.map_err(|error| error.description)
}

/// Whatever races, the VM is there: no refusal may say that it stopped.
fn checked(result: Result<Value, String>) -> bool {
    if let Err(refused) = &result {
        assert!(!refused.contains("the VM has stopped"), "{refused}");
    }
    result.is_ok()
}

#[test]
fn doorbells_adds_and_unplugs_race_and_the_journal_agrees() {
    for seed in 1..=3 {
        let vm = InProcess::start(Wanted {
            guest: GuestProgram::from(Policy::Accept),
            durability: Durability::Process,
            free_ports: 2,
            ..Wanted::default()
        });
        thread::scope(|scope| {
            for n in 0..2 {
                let vm = &vm;
                scope.spawn(move || operate(vm, seed * 100 + n));
                scope.spawn(move || plug(vm, seed * 100 + 10 + n));
            }
            let vm = &vm;
            scope.spawn(move || disturb(vm, seed));
        });
        // What is left is forced out; then nobody holds anything.
        for id in ["cxl-vmem0", "d1", "d2"] {
            checked(call(&vm, "device_del", json!({"id": id, "force": true})));
        }
        let held =
            vm.runtime
                .block_on(vm.vm.backends(|backends| {
                    backends.iter().filter(|(_, backend)| backend.holder != Holder::Free).count()
                }));
        assert_eq!(held.expect("a VM"), 0);
        let records = vm.end();
        let unplugs = nothing_after_an_unplug(&records);
        assert!(unplugs > 10, "only {unplugs} unplugs");
    }
}

/// Adds and releases on any of the devices, whether they are there or not.
fn operate(vm: &InProcess, seed: u64) {
    let mut dice = Dice(seed | 1 << 40);
    for _ in 0..120 {
        let n = dice.roll(6);
        let tag = format!("00000000-0000-4000-8000-{n:012x}");
        let device = ["cxl-vmem0", "d1", "d2"][dice.roll(3) as usize];
        let place = [(dice.roll(16) * 4 * MIB, 4 * MIB)];
        let forced = dice.roll(3) == 0;
        match dice.roll(8) {
            0 | 1 => {
                let backend =
                    json!({"qom-type": "memory-backend-ram", "id": format!("tm{n}"), "size": 4 * MIB, "tag": tag});
                checked(call(vm, "object-add", backend))
            }
            2..=4 => checked(call(vm, "cxl-add-dynamic-capacity", on(device, add_arguments(&tag, &place)))),
            5 => {
                let mut release = on(device, release_arguments(&tag));
                release["forced-removal"] = forced.into();
                checked(call(vm, "cxl-release-dynamic-capacity", release))
            }
            6 => checked(call(vm, "query-cxl-dynamic-capacity", json!({"path": device}))),
            _ if dice.roll(12) == 0 => checked(call(vm, "system_reset", json!({}))),
            _ => checked(call(vm, "object-del", json!({"id": format!("tm{n}")}))),
        };
    }
}

/// Plugs and unplugs a lazy and a plain device; two threads do, and are in each other's way.
fn plug(vm: &InProcess, seed: u64) {
    let mut dice = Dice(seed | 1 << 45);
    for _ in 0..90 {
        let id = ["d1", "d2"][dice.roll(2) as usize];
        let forced = dice.roll(4) > 0;
        match dice.roll(3) {
            0 if id == "d1" => checked(call(
                vm,
                "device_add",
                json!({"driver": "cxl-type3", "id": id, "dc-regions-total-size": 256 * MIB}),
            )),
            0 => {
                let backend = json!({"qom-type": "memory-backend-ram", "id": "dc", "size": 256 * MIB});
                checked(call(vm, "object-add", backend));
                checked(call(vm, "device_add", json!({"driver": "cxl-type3", "id": id, "volatile-dc-memdev": "dc"})))
            }
            1 => checked(call(vm, "device_del", json!({"id": id, "force": forced}))),
            _ => checked(call(vm, "qom-list", json!({"path": "/machine/peripheral"}))),
        };
    }
}

/// A port has no record of a device between the one that unplugs it and the one that plugs the next; how many unplugs
/// there are.
fn nothing_after_an_unplug(records: &[Record]) -> usize {
    let (mut there, mut unplugs) = (BTreeSet::<DeviceIndex>::new(), 0);
    for record in records {
        let is_of_device = !matches!(record.input, Input::Backends(_));
        assert!(!is_of_device || there.contains(&record.device), "{} is of a device that left", record.stamp.seq);
        for fact in &record.facts {
            match fact {
                Fact::Backends(BackendFact::DeviceAdded { .. }) => drop(there.insert(record.device)),
                Fact::Backends(BackendFact::DeviceRemoved) => {
                    assert!(there.remove(&record.device), "{}", record.stamp.seq);
                    unplugs += 1;
                }
                _ => {}
            }
        }
    }
    unplugs
}

/// Seen as: of two clients that unplugged one device, the slower one unplugged the device that was in its port by then.
#[test]
fn an_unplug_means_the_device_with_the_id_and_never_the_next_in_its_port() {
    let vm = InProcess::start(Wanted { devices: 0, free_ports: 1, ..Wanted::default() });
    let device = |id: &str| json!({"driver": "cxl-type3", "id": id, "dc-regions-total-size": GIB});
    for _ in 0..50 {
        call(&vm, "device_add", device("first")).expect("plugged");
        thread::scope(|scope| {
            let unplugs: Vec<_> =
                (0..2).map(|_| scope.spawn(|| call(&vm, "device_del", json!({"id": "first"})))).collect();
            let mut plugged = call(&vm, "device_add", device("second"));
            while plugged.is_err() {
                plugged = call(&vm, "device_add", device("second"));
            }
            let ended: Vec<_> = unplugs.into_iter().map(|unplug| unplug.join().expect("no panic")).collect();
            assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 1, "{ended:?}");
        });
        call(&vm, "device_del", json!({"id": "second"})).expect("it was left alone");
    }
    vm.end();
}

/// Seen as: an add that named a device reached the one that was in its port by then.
#[test]
fn a_request_means_the_device_with_the_id_and_never_the_next_in_its_port() {
    let vm = InProcess::start(Wanted { devices: 0, free_ports: 1, ..Wanted::default() });
    let device = |id: &str| json!({"driver": "cxl-type3", "id": id, "dc-regions-total-size": GIB});
    vm.object_add("tm0", TAG0, 2 * MIB);
    for _ in 0..100 {
        call(&vm, "device_add", device("first")).expect("plugged");
        thread::scope(|scope| {
            let adds = scope.spawn(|| {
                (0..4).for_each(|_| {
                    checked(call(&vm, "cxl-add-dynamic-capacity", on("first", add_arguments(TAG0, &[(0, 2 * MIB)]))));
                });
            });
            call(&vm, "device_del", json!({"id": "first", "force": true})).expect("forced");
            call(&vm, "device_add", device("second")).expect("plugged");
            adds.join().expect("no panic");
        });
        call(&vm, "device_del", json!({"id": "second"})).expect("nobody meant it, so it is not in use");
    }
    vm.end();
}
