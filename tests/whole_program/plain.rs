//! A plain device from its operator's request to its host's loads and stores, and static memory below its regions.

use driver::{Bus, Host};
use serde_json::{Value, json};
use wire::{Dpa, Hpa, Tag};

use crate::defects::{commit, read64};
use crate::program::{GIB, MIB, Program, TAG0, TAG1, add_arguments, printed, release_arguments};
use crate::vm::{DeviceMemory, FIXED_BYTES, InProcess, Wanted};

fn started(memory: DeviceMemory) -> (InProcess, Host) {
    let mut vm = InProcess::start(Wanted { memory, regions: 2, ..Wanted::default() });
    let host = vm.host();
    (vm, host)
}

fn add(vm: &InProcess, region: u8, tag: &str, extents: &[(u64, u64)]) {
    let mut arguments = add_arguments(tag, extents);
    arguments["region"] = region.into();
    vm.qmp("cxl-add-dynamic-capacity", arguments).expect("an offer");
}

fn state(vm: &InProcess, region: u8, tag: &str) -> Value {
    let arguments = json!({"path": "cxl-vmem0", "host-id": 0, "region": region, "tag": tag});
    vm.qmp("cxl-release-dynamic-capacity-status", arguments).expect("a status")
}

#[test]
fn the_bytes_of_an_extent_are_those_of_the_backend_at_its_address() {
    let (mut vm, mut host) = started(DeviceMemory::PlainBehindStatic);
    add(&vm, 1, TAG0, &[(64 * MIB, 2 * MIB), (0, 4 * MIB)]);
    add(&vm, 0, "", &[(32 * MIB, 2 * MIB)]);
    host.on_interrupt(&mut vm.bus).expect("answers");
    let region_1 = FIXED_BYTES + 512 * MIB;
    let tag = Tag::parse(TAG0).expect("a tag");
    let seen: Vec<_> = host.extents_of(tag).iter().map(|held| held.dpa.0 - region_1).collect();
    assert_eq!(seen, [64 * MIB, 0], "in the order of the add");
    let dpas = [region_1 + 64 * MIB, region_1 + 4 * MIB - 8, FIXED_BYTES + 32 * MIB];
    for (n, dpa) in (1u64..).zip(dpas) {
        let hpa = host.hpa_of(Dpa(dpa)).expect("shown");
        vm.bus.write(hpa, &n.to_le_bytes());
        assert_eq!(vm.backend_bytes("dc", dpa - FIXED_BYTES, 8), n.to_le_bytes(), "{dpa:#x}");
    }
    // Given back and added again under another label, the bytes are there: the memory is the device's own.
    let mut release = release_arguments(TAG0);
    release["region"] = 1.into();
    vm.qmp("cxl-release-dynamic-capacity", release).expect("asked");
    host.on_interrupt(&mut vm.bus).expect("answers");
    let hpa = host.hpa_of(Dpa(region_1 + 64 * MIB)).expect("shown");
    assert_eq!(read64(&mut vm, hpa), u64::MAX);
    add(&vm, 1, TAG1, &[(64 * MIB, 2 * MIB)]);
    host.on_interrupt(&mut vm.bus).expect("answers");
    assert_eq!(read64(&mut vm, hpa), 1);
    vm.end();
}

/// Seen as: with one label in two regions, the status of each listed the extents of both, counted from its own base; and
/// of the region that was not the last to be offered it said that the label was elsewhere.
#[test]
fn a_label_in_two_regions_has_a_status_in_each() {
    let (mut vm, mut host) = started(DeviceMemory::Plain);
    add(&vm, 0, TAG0, &[(2 * MIB, 2 * MIB)]);
    add(&vm, 1, TAG0, &[(8 * MIB, 4 * MIB)]);
    host.on_interrupt(&mut vm.bus).expect("answers");
    for (region, extents) in
        [(0, json!([{"offset": 2 * MIB, "len": 2 * MIB}])), (1, json!([{"offset": 8 * MIB, "len": 4 * MIB}]))]
    {
        let status = state(&vm, region, TAG0);
        assert_eq!((&status["state"], &status["extents"]), (&json!("accepted"), &extents), "region {region}");
    }
    vm.qmp("cxl-release-dynamic-capacity", release_arguments(TAG0)).expect("asked in region 0");
    assert_eq!(state(&vm, 0, TAG0)["state"], "release-requested");
    assert_eq!(state(&vm, 1, TAG0)["state"], "accepted");
    host.on_interrupt(&mut vm.bus).expect("answers");
    let elsewhere = state(&vm, 0, TAG0);
    assert!(elsewhere["message"].as_str().expect("words").contains("is in region 1, not in region 0"), "{elsewhere}");
    vm.end();
}

#[test]
fn static_memory_is_read_and_written_through_a_decoder_over_it() {
    let (mut vm, mut host) = started(DeviceMemory::PlainBehindStatic);
    assert_eq!(host.device().identity.volatile_capacity.get(), 1, "x 256 MiB");
    let base = vm.vm.window().base();
    add(&vm, 0, TAG0, &[(0, 2 * MIB)]);
    host.on_interrupt(&mut vm.bus).expect("an answer");
    assert_eq!(read64(&mut vm, base), 0, "the driver's decoder skips what is static");
    vm.bus.write(base, &[5; 8]);
    assert_eq!(vm.backend_bytes("dc", 0, 8), [5; 8]);

    // From DPA 0 on: static memory first, the extent right behind it.
    assert!(commit(&mut vm, 0, base, FIXED_BYTES + GIB, 0, 0));
    assert_eq!(read64(&mut vm, base), 0);
    vm.bus.write(base, &[6; 8]);
    let end = Hpa(base.0 + FIXED_BYTES - 8);
    vm.bus.write(end, &[7; 16]);
    assert_eq!(vm.backend_bytes("fixed", 0, 8), [6; 8]);
    assert_eq!(vm.backend_bytes("fixed", FIXED_BYTES - 8, 8), [7; 8]);
    assert_eq!(vm.backend_bytes("dc", 0, 8), [7; 8], "across the border");

    vm.qmp("system_reset", json!({})).expect("a reset");
    vm.bus = vm.vm.bus();
    assert_eq!(read64(&mut vm, base), u64::MAX, "no decoder");
    vm.host();
    assert!(commit(&mut vm, 0, base, FIXED_BYTES, 0, 0));
    assert_eq!(read64(&mut vm, base), 0x0606_0606_0606_0606, "a reset keeps the bytes");
    vm.end();
}

#[test]
fn a_plain_device_of_the_command_line_survives_kill_9() {
    let dir = tempfile::tempdir().expect("a directory");
    let arguments = [
        "--object",
        "memory-backend-ram,id=dc,size=1G",
        "--object",
        "memory-backend-ram,id=fixed,size=256M",
        "--device",
        "cxl-type3,id=cxl-vmem0,volatile-dc-memdev=dc,volatile-memdev=fixed,num-dc-regions=2,unique-tags=on",
    ];
    let program = Program::start(dir.path(), &arguments);
    let mut client = program.client();
    client.add(TAG0, &[(0, 2 * MIB), (8 * MIB, 2 * MIB)]).expect("an offer");
    client.wait_for("ACCEPTED", TAG0);
    let refused = client.add(TAG0, &[(32 * MIB, 2 * MIB)]).expect_err("unique");
    assert!(refused.contains("unique-tags=on"), "{refused}");
    let deleted = client.execute("object-del", json!({"id": "fixed"})).expect_err("in use");
    assert!(deleted.contains("cxl-vmem0 holds it (its own memory)"), "{deleted}");
    let before = client.query();
    program.kill();

    let program = Program::start(dir.path(), &arguments);
    let mut client = program.client();
    let after = client.query();
    for member in ["extents", "regions"] {
        // The guest boots anew and commits its decoder: where it is shown may not be known yet.
        let without_place = |query: &Value| {
            let mut list = query[member].clone();
            list.as_array_mut().expect("a list").iter_mut().for_each(|entry| entry["hpa"] = Value::Null);
            list
        };
        assert_eq!(without_place(&after), without_place(&before), "{member}");
    }
    client.release(TAG0).expect("asked");
    client.wait_for("RELEASED", TAG0);
    let journal = program.journal();
    program.terminate();
    let other = Program::try_start(dir.path(), &arguments[2..]).err().expect("a memdev is missing");
    assert!(other.contains("dc"), "{other}");
    let replayed = printed(&["replay", journal.to_str().expect("a path")]);
    assert!(replayed.contains("every decision is what this build decides"), "{replayed}");
}
