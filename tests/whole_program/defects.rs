//! The 36 defects of QEMU's tagged series, each absent here: one test a defect, named after it.
//!
//! | defects | about | tests |
//! |---|---|---|
//! | D1 - D5 | tags: missing, malformed, in another case, twice, changed | `d01_` to `d05_` |
//! | D6 - D13 | what the window shows, and where | `d06_` to `d13_` |
//! | D14 - D17 | answers, reservations and failed adds | `d14_` to `d17_` |
//! | D18 | FM-API 5604h: it is not offered, and changes nothing | `d18_` |
//! | D19 - D25 | adds of several extents; releases by tag and by range | `d19_` to `d25_` |
//! | D26 | tags on plain devices | `d26_` |
//! | D27, D28 | what an operator can ask, and is told | `d27_`, `d28_` |
//! | D29 - D32 | what is left after a release, a reset, an unplug and a thousand cycles | `d29_` to `d32_` |
//! | D33 - D36 | give-backs of plain devices and of parts, counters, sizes | `d33_` to `d36_` |

use device::config::DeviceIndex;
use driver::{Bus, Host};
use journal::record::{Origin, Record};
use serde_json::{Value, json};
use wire::{Dpa, Hpa, Opcode};

use crate::program::{GIB, MIB, Program, TAG0, TAG1, add_arguments, release_arguments};
use crate::vm::{DeviceMemory, InProcess, Wanted, command, update};

fn add(vm: &InProcess, tag: &str, extents: &[(u64, u64)]) -> Result<Value, String> {
    vm.qmp("cxl-add-dynamic-capacity", add_arguments(tag, extents))
}

fn release(vm: &InProcess, edit: impl FnOnce(&mut Value)) -> Result<Value, String> {
    let mut arguments = release_arguments(TAG0);
    edit(&mut arguments);
    vm.qmp("cxl-release-dynamic-capacity", arguments)
}

/// A backend of `size` with [`TAG0`], accepted as these extents.
fn accepted(extents: &[(u64, u64)]) -> (InProcess, Host) {
    let mut vm = InProcess::start(Wanted::default());
    let mut host = vm.host();
    vm.object_add("tm0", TAG0, extents.iter().map(|extent| extent.1).sum());
    add(&vm, TAG0, extents).expect("an offer");
    host.on_interrupt(&mut vm.bus).expect("an answer");
    assert_eq!(vm.state(TAG0), "accepted");
    (vm, host)
}

fn write_at(vm: &mut InProcess, host: &Host, dpa: u64, bytes: &[u8]) {
    let hpa = host.hpa_of(Dpa(dpa)).expect("shown");
    vm.bus.write(hpa, bytes);
}

fn read_at(vm: &mut InProcess, host: &Host, dpa: u64) -> u64 {
    let hpa = host.hpa_of(Dpa(dpa)).expect("shown");
    read64(vm, hpa)
}

pub(crate) fn read64(vm: &mut InProcess, hpa: Hpa) -> u64 {
    let mut bytes = [0; 8];
    vm.bus.read(hpa, &mut bytes);
    u64::from_le_bytes(bytes)
}

/// Kind, More and tag of the records in the DC event log, as the host reads them.
fn events(vm: &mut InProcess, host: &Host) -> Vec<(u8, u8, Vec<u8>)> {
    let answer = command(&mut vm.bus, host.mailbox(), Opcode::GET_EVENT_RECORDS, &[4]).expect("an answer");
    let count = usize::from(u16::from_le_bytes([answer[0x14], answer[0x15]]));
    let record = |n: usize| &answer[32 + n * 128..][..128];
    (0..count).map(|n| (record(n)[0x30], record(n)[0x35], record(n)[0x48..0x58].to_vec())).collect()
}

pub(crate) fn tag_bytes(tag: &str) -> Vec<u8> {
    wire::Tag::parse(tag).expect("a tag").bytes().to_vec()
}

#[test]
fn d01_a_missing_tag_is_an_error_and_not_a_crash() {
    let vm = InProcess::start(Wanted::default());
    let mut without = add_arguments(TAG0, &[(0, GIB)]);
    without.as_object_mut().expect("an object").remove("tag");
    assert!(vm.qmp("cxl-add-dynamic-capacity", without).expect_err("no tag").starts_with("a tag is needed"));
    for policy in ["tag-based", "prescriptive"] {
        let refused = release(&vm, |arguments| {
            arguments["removal-policy"] = policy.into();
            arguments["extents"] = json!([{"offset": 0, "len": GIB}]);
            arguments.as_object_mut().expect("an object").remove("tag");
        });
        assert!(refused.is_err(), "{policy}");
    }
    vm.end();
}

#[test]
fn d02_a_malformed_tag_is_refused_everywhere() {
    let vm = InProcess::start(Wanted::default());
    let bad = "5be13bce-ae34-4a77-b6c3-16df975fcf1";
    let backend = json!({"qom-type": "memory-backend-ram", "id": "tm0", "size": GIB, "tag": bad});
    let status = json!({"path": "cxl-vmem0", "host-id": 0, "region": 0, "tag": bad});
    for refused in [
        vm.qmp("object-add", backend),
        add(&vm, bad, &[(0, GIB)]),
        release(&vm, |arguments| arguments["tag"] = bad.into()),
        vm.qmp("cxl-release-dynamic-capacity-status", status),
    ] {
        assert!(refused.expect_err("malformed").contains("hyphenated UUID"));
    }
    let records = vm.end();
    let of_start = |record: &&Record| matches!(record.origin, Origin::Supervisor | Origin::CommandLine);
    assert_eq!(records.iter().filter(of_start).count(), records.len(), "a text that is no tag reaches no actor");
}

#[test]
fn d03_tags_are_compared_as_uuids_and_shown_as_given() {
    let vm = InProcess::start(Wanted::default());
    vm.object_add("tm0", &TAG0.to_uppercase(), GIB);
    add(&vm, TAG0, &[(0, GIB)]).expect("the same tag in another case");
    let shown = vm.qmp("qom-get", json!({"path": "/objects/tm0", "property": "tag"})).expect("a tag");
    assert_eq!(shown, TAG0.to_uppercase());
    vm.end();
}

#[test]
fn d04_a_second_backend_with_a_tag_is_refused() {
    let vm = InProcess::start(Wanted::default());
    vm.object_add("tm0", TAG0, GIB);
    let second = json!({"qom-type": "memory-backend-ram", "id": "tm1", "size": GIB, "tag": TAG0.to_uppercase()});
    let refused = vm.qmp("object-add", second).expect_err("a duplicate");
    assert_eq!(refused, format!("tag {TAG0} names backend tm0 already, #3: a tag names one backend of the VM"));
    vm.end();
}

#[test]
fn d05_a_tag_cannot_change_while_its_backend_is_in_use() {
    let mut vm = InProcess::start(Wanted::default());
    let mut host = vm.host();
    vm.object_add("tm0", TAG0, 256 * MIB);
    let set =
        |vm: &InProcess, tag: &str| vm.qmp("qom-set", json!({"path": "/objects/tm0", "property": "tag", "value": tag}));
    set(&vm, TAG1).expect("nobody holds it");
    add(&vm, TAG0, &[(0, 256 * MIB)]).expect_err("that is no tag any more");
    set(&vm, TAG0).expect("back");
    add(&vm, TAG0, &[(0, 256 * MIB)]).expect("an offer");
    let reserved = set(&vm, TAG1).expect_err("offered");
    assert!(reserved.contains("is in use: cxl-vmem0 holds the backend (reserved), #"), "{reserved}");
    host.on_interrupt(&mut vm.bus).expect("an answer");
    let attached = set(&vm, TAG1).expect_err("accepted");
    assert!(attached.contains("is in use: cxl-vmem0 holds the backend (attached), #"), "{attached}");
    assert_eq!(vm.state(TAG0), "accepted");
    release(&vm, |_| ()).expect("asked");
    host.on_interrupt(&mut vm.bus).expect("an answer");
    set(&vm, TAG1).expect("free again");
    vm.end();
}

#[test]
fn d06_second_extent_shows_its_own_bytes() {
    let (mut vm, host) = accepted(&[(512 * MIB, 256 * MIB), (GIB, 256 * MIB), (0, 256 * MIB)]);
    for (piece, dpa) in (0u64..).zip([512 * MIB, GIB, 0]) {
        write_at(&mut vm, &host, dpa, &(0xa0 + piece).to_le_bytes());
        let seen = vm.backend_bytes("tm0", piece * 256 * MIB, 8);
        assert_eq!(u64::from_le_bytes(seen.try_into().expect("8 bytes")), 0xa0 + piece, "extent {piece}");
    }
    vm.end();
}

#[test]
fn d07_a_mapping_is_as_long_as_its_extent() {
    let (mut vm, host) = accepted(&[(GIB, 256 * MIB)]);
    write_at(&mut vm, &host, GIB + 256 * MIB - 8, &[1; 16]);
    assert_eq!(read_at(&mut vm, &host, GIB + 256 * MIB - 8), 0x0101_0101_0101_0101);
    assert_eq!(read_at(&mut vm, &host, GIB + 256 * MIB), u64::MAX, "behind the extent there is nothing");
    assert_eq!(read_at(&mut vm, &host, GIB - 8), u64::MAX, "before it neither");
    let mappings = vm.runtime.block_on(vm.vm.windows(DeviceIndex(0), |state| state.mappings())).expect("a VM");
    assert_eq!(mappings.iter().map(|mapping| mapping.range.len_bytes).collect::<Vec<_>>(), [256 * MIB]);
    vm.end();
}

#[test]
fn d08_the_place_in_the_window_comes_from_region_and_decoder() {
    let mut vm = InProcess::start(Wanted { regions: 2, ..Wanted::default() });
    let mut host = vm.host();
    vm.object_add("tm0", TAG0, 256 * MIB);
    let mut arguments = add_arguments(TAG0, &[(0, 256 * MIB)]);
    arguments["region"] = 1.into();
    vm.qmp("cxl-add-dynamic-capacity", arguments).expect("an offer");
    host.on_interrupt(&mut vm.bus).expect("an answer");
    // Region 1 begins at DPA 2 GiB, which decoder 0 shows 2 GiB into the window.
    let base = vm.vm.window().base();
    vm.bus.write(Hpa(base.0 + 2 * GIB), &[7; 8]);
    assert_eq!(vm.backend_bytes("tm0", 0, 8), [7; 8]);
    assert_eq!(read64(&mut vm, base), u64::MAX, "not where region 0 is");

    // With a skip of 1 GiB the same DPA is 1 GiB into the window.
    commit(&mut vm, 0, base, 2 * GIB, GIB, 0);
    assert_eq!(read64(&mut vm, Hpa(base.0 + GIB)), 0x0707_0707_0707_0707);
    assert_eq!(read64(&mut vm, Hpa(base.0 + 2 * GIB)), u64::MAX);
    vm.end();
}

/// Where the device's component registers are: BAR0, which the driver has programmed.
fn decoder_register(vm: &InProcess, decoder: u64, register: u64) -> Hpa {
    let (_, face) = &vm.vm.platform().faces()[0];
    let (bar, _) = face.bar(platform::BarIndex::Component).expect("programmed");
    let capability = (0..64u64)
        .map(|index| bar.0 + 0x1000 + index * 4)
        .find_map(|at| {
            let mut bytes = [0; 4];
            vm.vm.platform().read(Hpa(at), &mut bytes);
            let entry = u32::from_le_bytes(bytes);
            (entry & 0xffff == 5).then(|| bar.0 + 0x1000 + u64::from(entry >> 20))
        })
        .expect("HDM decoders");
    Hpa(capability + 0x10 + decoder * 0x20 + register)
}

/// Uncommits a decoder, programs it and commits it; whether it committed.
pub(crate) fn commit(vm: &mut InProcess, decoder: u64, base: Hpa, len: u64, skip: u64, interleave: u32) -> bool {
    uncommit(vm, decoder);
    let halves = |value: u64| [(value as u32).to_le_bytes(), ((value >> 32) as u32).to_le_bytes()];
    for (register, value) in [(0, base.0), (8, len), (0x14, skip)] {
        for (half, bytes) in (0u64..).zip(halves(value)) {
            let at = decoder_register(vm, decoder, register + half * 4);
            vm.bus.write(at, &bytes);
        }
    }
    let control = decoder_register(vm, decoder, 0x10);
    vm.bus.write(control, &(1 << 12 | 1 << 9 | interleave).to_le_bytes());
    settled(vm, control, |control| control & (1 << 10 | 1 << 11) != 0) & 1 << 10 != 0
}

pub(crate) fn uncommit(vm: &mut InProcess, decoder: u64) {
    let control = decoder_register(vm, decoder, 0x10);
    vm.bus.write(control, &0u32.to_le_bytes());
    settled(vm, control, |control| control & 1 << 10 == 0);
}

fn settled(vm: &mut InProcess, at: Hpa, is_settled: impl Fn(u32) -> bool) -> u32 {
    for _ in 0..1_000 {
        let mut bytes = [0; 4];
        vm.bus.read(at, &mut bytes);
        let value = u32::from_le_bytes(bytes);
        if is_settled(value) {
            return value;
        }
        vm.bus.relax();
    }
    panic!("the decoder does not settle");
}

#[test]
fn d09_several_decoders_each_show_their_part() {
    let (mut vm, _) = accepted(&[(0, 512 * MIB)]);
    let base = vm.vm.window().base();
    assert!(commit(&mut vm, 0, base, 256 * MIB, 0, 0));
    assert!(commit(&mut vm, 1, Hpa(base.0 + 4 * GIB), 256 * MIB, 0, 0));
    vm.bus.write(Hpa(base.0 + 256 * MIB - 8), &[1; 8]);
    vm.bus.write(Hpa(base.0 + 4 * GIB), &[2; 8]);
    assert_eq!(vm.backend_bytes("tm0", 256 * MIB - 8, 16), [[1; 8], [2; 8]].concat());
    assert_eq!(read64(&mut vm, Hpa(base.0 + 256 * MIB)), u64::MAX);
    vm.end();
}

#[test]
fn d10_accepting_before_a_decoder_is_committed_maps_on_commit() {
    let (mut vm, host) = accepted(&[(0, 256 * MIB)]);
    let base = vm.vm.window().base();
    uncommit(&mut vm, 0);
    vm.object_add("tm1", TAG1, 256 * MIB);
    add(&vm, TAG1, &[(256 * MIB, 256 * MIB)]).expect("an offer");
    let answer = update(&[(256 * MIB, 256 * MIB)], 0);
    command(&mut vm.bus, host.mailbox(), Opcode::ADD_DC_RESPONSE, &answer).expect("accepted");
    assert_eq!(read64(&mut vm, Hpa(base.0 + 256 * MIB)), u64::MAX, "no decoder shows it");
    assert!(commit(&mut vm, 0, base, GIB, 0, 0));
    vm.bus.write(Hpa(base.0 + 256 * MIB), &[3; 8]);
    assert_eq!(vm.backend_bytes("tm1", 0, 8), [3; 8]);
    vm.end();
}

#[test]
fn d11_an_uncommitted_or_moved_decoder_takes_its_mappings_along() {
    let (mut vm, host) = accepted(&[(0, 256 * MIB)]);
    let base = vm.vm.window().base();
    write_at(&mut vm, &host, 0, &[5; 8]);
    uncommit(&mut vm, 0);
    assert_eq!(read64(&mut vm, base), u64::MAX, "nothing is left at the old place");
    assert!(commit(&mut vm, 0, Hpa(base.0 + GIB), 4 * GIB, 0, 0));
    assert_eq!(read64(&mut vm, base), u64::MAX);
    assert_eq!(read64(&mut vm, Hpa(base.0 + GIB)), 0x0505_0505_0505_0505);
    vm.end();
}

#[test]
fn d12_an_interleaved_decoder_reaches_the_extent() {
    let (mut vm, _) = accepted(&[(0, 256 * MIB)]);
    let base = vm.vm.window().base();
    // Two ways of 256 bytes: the device gets every other 256 bytes of the window, and they lie together in it.
    assert!(commit(&mut vm, 0, base, 512 * MIB, 0, 1 << 4));
    vm.bus.write(Hpa(base.0 + 512), &[9; 8]);
    assert_eq!(vm.backend_bytes("tm0", 256, 8), [9; 8]);
    vm.end();
}

#[test]
fn d13_there_is_no_limit_of_four() {
    let extents: Vec<_> = (0..64).map(|n| (n * 4 * MIB, 2 * MIB)).collect();
    let (mut vm, host) = accepted(&extents);
    for (n, (dpa, _)) in (0u64..).zip(&extents) {
        write_at(&mut vm, &host, *dpa, &n.to_le_bytes());
    }
    for n in 0..64u64 {
        assert_eq!(vm.backend_bytes("tm0", n * 2 * MIB, 8), n.to_le_bytes());
    }
    vm.end();
}

#[test]
fn d14_an_answer_that_fails_in_its_middle_changes_nothing() {
    let mut vm = InProcess::start(Wanted::default());
    let host = vm.host();
    vm.object_add("tm0", TAG0, 4 * MIB);
    add(&vm, TAG0, &[(0, 2 * MIB), (2 * MIB, 2 * MIB)]).expect("an offer");
    let bad = update(&[(0, 2 * MIB), (GIB, 2 * MIB)], 0);
    command(&mut vm.bus, host.mailbox(), Opcode::ADD_DC_RESPONSE, &bad).expect_err("outside the offer");
    assert_eq!(vm.state(TAG0), "offered");
    assert_eq!(read_at(&mut vm, &host, 0), u64::MAX);
    let good = update(&[(0, 2 * MIB), (2 * MIB, 2 * MIB)], 0);
    command(&mut vm.bus, host.mailbox(), Opcode::ADD_DC_RESPONSE, &good).expect("the offer is whole");
    vm.end();
}

#[test]
fn d15_a_tag_is_reserved_when_it_is_offered() {
    let mut vm = InProcess::start(Wanted { devices: 2, ..Wanted::default() });
    let host = vm.host();
    vm.object_add("tm0", TAG0, 256 * MIB);
    add(&vm, TAG0, &[(0, 256 * MIB)]).expect("an offer");
    let twice = add(&vm, TAG0, &[(GIB, 256 * MIB)]).expect_err("reserved");
    assert!(twice.starts_with(&format!("tag {TAG0} is held by cxl-vmem0, #")), "{twice}");
    let mut elsewhere = add_arguments(TAG0, &[(0, 256 * MIB)]);
    elsewhere["path"] = "cxl-vmem1".into();
    assert!(vm.qmp("cxl-add-dynamic-capacity", elsewhere).expect_err("reserved").contains("is held by cxl-vmem0"));
    let answer = update(&[(0, 256 * MIB)], 0);
    command(&mut vm.bus, host.mailbox(), Opcode::ADD_DC_RESPONSE, &answer).expect("nothing blocks the queue");
    vm.end();
}

#[test]
fn d16_a_backend_that_is_offered_cannot_be_deleted() {
    let vm = InProcess::start(Wanted::default());
    vm.object_add("tm0", TAG0, 256 * MIB);
    add(&vm, TAG0, &[(0, 256 * MIB)]).expect("an offer");
    let refused = vm.qmp("object-del", json!({"id": "tm0"})).expect_err("in use");
    assert_eq!(refused, "object 'tm0' is in use, can not be deleted: cxl-vmem0 holds it (reserved), #4");
    vm.end();
}

#[test]
fn d17_a_failed_add_leaves_no_trace_on_later_ones() {
    let (mut vm, host) = accepted(&[(0, 256 * MIB)]);
    vm.object_add("tm1", TAG1, 512 * MIB);
    add(&vm, TAG1, &[(GIB, 256 * MIB)]).expect_err("another size");
    add(&vm, "7be13bce-ae34-4a77-b6c3-16df975fcf1a", &[(GIB, 256 * MIB)]).expect_err("no such tag");
    vm.qmp("object-del", json!({"id": "tm1"})).expect("nobody holds it");
    write_at(&mut vm, &host, 0, &[1; 8]);
    assert_eq!(vm.backend_bytes("tm0", 0, 8), [1; 8]);
    vm.end();
}

/// There is no fabric manager's interface: its Initiate DC Add is a command that this device does not have.
#[test]
fn d18_the_fabric_managers_add_is_unsupported_and_changes_nothing() {
    let mut vm = InProcess::start(Wanted::default());
    let host = vm.host();
    vm.object_add("tm0", TAG0, 256 * MIB);
    let before = vm.runtime.block_on(vm.vm.state()).expect("a state");
    let mut payload = vec![0; 48];
    payload[2] = 3;
    payload[16..32].copy_from_slice(&tag_bytes(TAG0));
    let refused = command(&mut vm.bus, host.mailbox(), Opcode(0x5604), &payload).expect_err("not offered");
    assert!(refused.contains("Unsupported") || refused.contains("unsupported"), "{refused}");
    assert!(host.device().effects(Opcode(0x5604)).is_none(), "and it does not say that it has it");
    assert_eq!(vm.runtime.block_on(vm.vm.state()).expect("a state"), before);
    assert!(vm.end().last().expect("a record").facts.is_empty());
}

#[test]
fn d19_an_add_may_have_many_extents() {
    let extents: Vec<_> = (0..100).map(|n| ((99 - n) * 2 * MIB, 2 * MIB)).collect();
    let (vm, host) = accepted(&extents);
    assert_eq!(host.extents().len(), 100);
    let query = vm.qmp("query-cxl-dynamic-capacity", json!({})).expect("a query");
    let offsets: Vec<_> = query["extents"].as_array().expect("extents").iter().map(|e| e["offset"].as_u64()).collect();
    assert_eq!(offsets, extents.iter().map(|extent| Some(extent.0)).collect::<Vec<_>>(), "in the add's order");
    vm.end();
}

#[test]
fn d20_an_empty_extent_list_is_named_as_such() {
    let vm = InProcess::start(Wanted::default());
    vm.object_add("tm0", TAG0, 256 * MIB);
    assert!(add(&vm, TAG0, &[]).expect_err("empty").starts_with("empty extent list"));
    vm.end();
}

#[test]
fn d21_a_release_by_tag_matches_host_and_region_and_needs_no_extents() {
    let mut vm = InProcess::start(Wanted { regions: 2, ..Wanted::default() });
    let mut host = vm.host();
    vm.object_add("tm0", TAG0, 256 * MIB);
    add(&vm, TAG0, &[(0, 256 * MIB)]).expect("an offer");
    host.on_interrupt(&mut vm.bus).expect("an answer");
    let region = release(&vm, |arguments| arguments["region"] = 1.into()).expect_err("region 1");
    assert!(region.contains("is in region 0, not in region 1"), "{region}");
    assert!(release(&vm, |arguments| arguments["host-id"] = 99.into()).expect_err("host 99").contains("host-id 99"));
    release(&vm, |arguments| arguments["extents"] = json!([{"offset": GIB, "len": 1}])).expect("extents are ignored");
    assert_eq!(vm.state(TAG0), "release-requested");
    vm.end();
}

#[test]
fn d22_a_release_record_carries_the_tag() {
    let (mut vm, host) = accepted(&[(0, 256 * MIB)]);
    release(&vm, |_| ()).expect("asked");
    assert_eq!(events(&mut vm, &host), [(1, 0, tag_bytes(TAG0))]);
    vm.end();
}

#[test]
fn d23_an_unknown_or_offered_tag_is_an_error() {
    let vm = InProcess::start(Wanted::default());
    assert!(release(&vm, |_| ()).expect_err("unknown").contains("is not known"));
    vm.object_add("tm0", TAG0, 256 * MIB);
    add(&vm, TAG0, &[(0, 256 * MIB)]).expect("an offer");
    assert!(release(&vm, |_| ()).expect_err("offered").contains("use forced-removal"));
    assert!(release(&vm, |arguments| arguments["tag"] = "".into()).expect_err("nil").contains("needs a tag"));
    vm.end();
}

#[test]
fn d24_a_repeated_release_logs_again_only_what_was_cleared() {
    let (mut vm, host) = accepted(&[(0, 256 * MIB)]);
    for _ in 0..3 {
        release(&vm, |_| ()).expect("asked");
    }
    assert_eq!(events(&mut vm, &host).len(), 1);
    let answer = command(&mut vm.bus, host.mailbox(), Opcode::GET_EVENT_RECORDS, &[4]).expect("an answer");
    let clear = [4, 0, 1, 0, 0, 0, answer[32 + 0x14], answer[32 + 0x15]];
    command(&mut vm.bus, host.mailbox(), Opcode::CLEAR_EVENT_RECORDS, &clear).expect("cleared");
    release(&vm, |_| ()).expect("asked again");
    assert_eq!(events(&mut vm, &host).len(), 1, "a host that was busy looks again");
    assert_eq!(vm.state(TAG0), "release-requested");
    vm.end();
}

#[test]
fn d25_a_prescriptive_release_checks_the_tag() {
    let (mut vm, host) = accepted(&[(0, 256 * MIB)]);
    let prescriptive = |vm: &InProcess, tag: &str| {
        release(vm, |arguments| {
            arguments["removal-policy"] = "prescriptive".into();
            arguments["extents"] = json!([{"offset": 0, "len": 256 * MIB}]);
            arguments["tag"] = tag.into();
        })
    };
    assert!(prescriptive(&vm, TAG1).expect_err("another tag").contains(&format!("has the tag {TAG0}, not {TAG1}")));
    prescriptive(&vm, "").expect("without a tag it takes the extent's");
    assert_eq!(events(&mut vm, &host), [(1, 0, tag_bytes(TAG0))]);
    vm.end();
}

#[test]
fn d26_a_plain_device_keeps_the_tag_on_the_extent_and_in_every_event() {
    let mut vm = InProcess::start(Wanted { memory: DeviceMemory::Plain, ..Wanted::default() });
    let host = vm.host();
    add(&vm, TAG0, &[(0, 2 * MIB)]).expect("an offer");
    add(&vm, "", &[(4 * MIB, 2 * MIB)]).expect("an offer without a tag");
    let nil = vec![0; 16];
    assert_eq!(events(&mut vm, &host), [(0, 0, tag_bytes(TAG0)), (0, 0, nil.clone())]);
    for dpa in [0, 4 * MIB] {
        let answer = update(&[(dpa, 2 * MIB)], 0);
        command(&mut vm.bus, host.mailbox(), Opcode::ADD_DC_RESPONSE, &answer).expect("accepted");
    }
    let status = json!({"path": "cxl-vmem0", "host-id": 0, "region": 0, "tag": TAG0});
    let status = vm.qmp("cxl-release-dynamic-capacity-status", status).expect("a status");
    assert_eq!((&status["status"], &status["state"]), (&json!("Committed"), &json!("accepted")));
    let query = vm.qmp("query-cxl-dynamic-capacity", json!({})).expect("a query");
    assert_eq!((&query["extents"][0]["tag"], &query["extents"][1]["tag"]), (&json!(TAG0), &Value::Null));
    let refused = release(&vm, |arguments| arguments["tag"] = "".into()).expect_err("nil releases nothing");
    assert!(refused.contains("needs a tag"), "{refused}");
    release(&vm, |_| ()).expect("asked");
    release(&vm, |arguments| arguments["forced-removal"] = true.into()).expect("taken");
    let all = events(&mut vm, &host);
    assert_eq!(all[2..], [(1, 0, tag_bytes(TAG0)), (2, 0, tag_bytes(TAG0))]);
    let left = vm.qmp("query-cxl-dynamic-capacity", json!({})).expect("a query");
    assert_eq!(left["extents"].as_array().map(Vec::len), Some(1), "what has no tag is still there");
    vm.end();
}

#[test]
fn d27_the_status_tells_every_state_apart() {
    let (mut vm, mut host) = accepted(&[(0, 256 * MIB)]);
    let status = |vm: &InProcess, tag: &str, region: u8| {
        let arguments = json!({"path": "cxl-vmem0", "host-id": 0, "region": region, "tag": tag});
        vm.qmp("cxl-release-dynamic-capacity-status", arguments)
    };
    let word = |vm: &InProcess, tag: &str| {
        let status = status(vm, tag, 0).expect("a status");
        (status["status"].as_str().expect("a word").to_owned(), status["state"].as_str().expect("a word").to_owned())
    };
    assert_eq!(word(&vm, TAG1), ("NotFound".into(), "unknown".into()));
    assert_eq!(word(&vm, TAG0), ("Committed".into(), "accepted".into()));
    assert!(status(&vm, TAG0, 1).expect_err("there is one region").contains("region id is too large"));
    release(&vm, |_| ()).expect("asked");
    assert_eq!(word(&vm, TAG0), ("Committed".into(), "release-requested".into()));
    host.on_interrupt(&mut vm.bus).expect("an answer");
    assert_eq!(word(&vm, TAG0), ("Released".into(), "released".into()));
    vm.object_add("tm1", TAG1, 256 * MIB);
    add(&vm, TAG1, &[(0, 256 * MIB)]).expect("an offer");
    assert_eq!(word(&vm, TAG1), ("Pending".into(), "offered".into()));
    release(&vm, |arguments| {
        arguments["tag"] = TAG1.into();
        arguments["forced-removal"] = true.into();
    })
    .expect("withdrawn");
    assert_eq!(word(&vm, TAG1), ("Pending".into(), "dead".into()));
    vm.end();
}

#[test]
fn d28_an_operator_is_told_and_need_not_poll() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &[]);
    let mut client = program.client();
    client.object_add("tm0", TAG0, 2 * MIB).expect("a backend");
    client.add(TAG0, &[(0, 2 * MIB)]).expect("an offer");
    for told in ["OFFERED", "ACCEPTED"] {
        assert_eq!(client.wait_for(told, TAG0)["extents"], json!([{"offset": 0, "len": 2 * MIB}]), "{told}");
    }
    client.release(TAG0).expect("asked");
    client.wait_for("RELEASE_REQUESTED", TAG0);
    assert_eq!(client.wait_for("RELEASED", TAG0)["reason"], "host");
}

#[test]
fn d29_a_release_keeps_the_bytes_and_sanitize_is_refused_until_it_clears() {
    let (mut vm, mut host) = accepted(&[(0, 256 * MIB)]);
    write_at(&mut vm, &host, 0, &[6; 8]);
    let refused = release(&vm, |arguments| arguments["sanitize-on-release"] = true.into()).expect_err("no sanitize");
    assert!(refused.contains("does not clear memory yet"), "{refused}");
    release(&vm, |_| ()).expect("asked");
    host.on_interrupt(&mut vm.bus).expect("an answer");
    add(&vm, TAG0, &[(GIB, 256 * MIB)]).expect("an offer elsewhere");
    host.on_interrupt(&mut vm.bus).expect("an answer");
    assert_eq!(read_at(&mut vm, &host, GIB), 0x0606_0606_0606_0606);
    vm.end();
}

#[test]
fn d30_a_reset_keeps_accepted_extents_and_unmaps_them_until_a_decoder_is_committed() {
    let (mut vm, host) = accepted(&[(0, 256 * MIB)]);
    let base = vm.vm.window().base();
    write_at(&mut vm, &host, 0, &[4; 8]);
    vm.object_add("tm1", TAG1, 256 * MIB);
    add(&vm, TAG1, &[(GIB, 256 * MIB)]).expect("an offer");
    vm.qmp("system_reset", json!({})).expect("a reset");
    vm.bus = vm.vm.bus();
    assert_eq!(read64(&mut vm, base), u64::MAX, "no decoder is committed");
    assert_eq!(vm.state(TAG1), "rejected");
    let host = vm.host();
    assert_eq!(host.extents().len(), 1, "found again with 4801h");
    assert_eq!(read64(&mut vm, base), 0x0404_0404_0404_0404);
    assert_eq!(events(&mut vm, &host), []);
    vm.end();
}

#[test]
fn d31_an_unplug_tears_everything_down() {
    let (mut vm, host) = accepted(&[(0, 256 * MIB), (GIB, 256 * MIB)]);
    let base = vm.vm.window().base();
    write_at(&mut vm, &host, 0, &[8; 8]);
    vm.object_add("tm1", TAG1, 256 * MIB);
    add(&vm, TAG1, &[(2 * GIB, 256 * MIB)]).expect("an offer");
    let refused = vm.qmp("device_del", json!({"id": "cxl-vmem0"})).expect_err("in use");
    let numbers = "2 accepted extents, 1 offers without an answer, 1 committed decoders";
    assert!(refused.contains(numbers), "{refused}");
    assert_eq!(read64(&mut vm, base), 0x0808_0808_0808_0808, "a refused unplug changes nothing");
    vm.qmp("device_del", json!({"id": "cxl-vmem0", "force": true})).expect("forced");
    assert_eq!((read64(&mut vm, base), read64(&mut vm, Hpa(base.0 + GIB))), (u64::MAX, u64::MAX));
    for id in ["tm0", "tm1"] {
        vm.qmp("object-del", json!({"id": id})).expect("nobody holds it");
    }
    let device = json!({"driver": "cxl-type3", "id": "cxl-vmem0", "dc-regions-total-size": 4 * GIB});
    vm.qmp("device_add", device).expect("the port is free");
    let mut host = vm.host();
    assert!(host.extents().is_empty());
    vm.object_add("tm0", TAG0, 256 * MIB);
    add(&vm, TAG0, &[(0, 256 * MIB)]).expect("an offer");
    host.on_interrupt(&mut vm.bus).expect("an answer");
    assert_eq!(read64(&mut vm, base), 0, "new memory, and its own");
    vm.end();
}

#[test]
fn d32_a_thousand_cycles_leave_nothing_behind() {
    let mut vm = InProcess::start(Wanted::default());
    let mut host = vm.host();
    vm.object_add("tm0", TAG0, 2 * MIB);
    let mut cycle = |vm: &mut InProcess| {
        add(vm, TAG0, &[(0, 2 * MIB)]).expect("an offer");
        host.on_interrupt(&mut vm.bus).expect("an answer");
        release(vm, |_| ()).expect("asked");
        host.on_interrupt(&mut vm.bus).expect("an answer");
    };
    let size = |vm: &InProcess| format!("{:?}", vm.runtime.block_on(vm.vm.state()).expect("a state")).len();
    cycle(&mut vm);
    let before = size(&vm);
    for _ in 0..1000 {
        cycle(&mut vm);
    }
    let after = size(&vm);
    // Sequence numbers grow by a few digits; nothing else does.
    assert!(after < before + 200, "the state grew from {before} to {after} characters");
    vm.end();
}

#[test]
fn d33_a_part_given_back_by_a_plain_device_leaves_the_rest_right() {
    let mut vm = InProcess::start(Wanted { memory: DeviceMemory::Plain, ..Wanted::default() });
    let mut host = vm.host();
    add(&vm, TAG0, &[(256 * MIB, 64 * MIB)]).expect("an offer");
    host.on_interrupt(&mut vm.bus).expect("an answer");
    write_at(&mut vm, &host, 256 * MIB, &[1; 8]);
    write_at(&mut vm, &host, (256 + 48) * MIB, &[2; 8]);
    let part = update(&[((256 + 16) * MIB, 32 * MIB)], 0);
    command(&mut vm.bus, host.mailbox(), Opcode::RELEASE_DC, &part).expect("a part");
    assert_eq!(read_at(&mut vm, &host, 256 * MIB), 0x0101_0101_0101_0101);
    assert_eq!(read_at(&mut vm, &host, (256 + 16) * MIB), u64::MAX);
    assert_eq!(read_at(&mut vm, &host, (256 + 48) * MIB), 0x0202_0202_0202_0202);
    assert_eq!(vm.backend_bytes("dc", (256 + 48) * MIB, 8), [2; 8], "at its own place in the backend");
    let query = vm.qmp("query-cxl-dynamic-capacity", json!({})).expect("a query");
    let places: Vec<_> = query["extents"].as_array().expect("extents").iter().map(|e| &e["backend-offset"]).collect();
    assert_eq!(places, [&json!(256 * MIB), &json!((256 + 48) * MIB)]);
    let rest = update(&[(256 * MIB, 16 * MIB), ((256 + 48) * MIB, 16 * MIB)], 0);
    command(&mut vm.bus, host.mailbox(), Opcode::RELEASE_DC, &rest).expect("the rest");
    assert_eq!(vm.state(TAG0), "released");
    vm.end();
}

#[test]
fn d34_what_is_left_of_a_split_extent_keeps_tag_and_place() {
    let (mut vm, host) = accepted(&[(GIB, 256 * MIB), (0, 256 * MIB)]);
    let part = update(&[(GIB + 64 * MIB, 64 * MIB)], 0);
    command(&mut vm.bus, host.mailbox(), Opcode::RELEASE_DC, &part).expect("a part");
    let query = vm.qmp("query-cxl-dynamic-capacity", json!({})).expect("a query");
    let extents = query["extents"].as_array().expect("extents");
    let shown: Vec<_> =
        extents.iter().map(|e| (e["offset"].as_u64(), e["backend-offset"].as_u64(), &e["tag"])).collect();
    assert_eq!(
        shown,
        [
            (Some(GIB), Some(0), &json!(TAG0)),
            (Some(GIB + 128 * MIB), Some(128 * MIB), &json!(TAG0)),
            (Some(0), Some(256 * MIB), &json!(TAG0)),
        ]
    );
    vm.end();
}

#[test]
fn d35_the_counters_are_real() {
    let (mut vm, host) = accepted(&[(0, 2 * MIB), (4 * MIB, 2 * MIB)]);
    let answer = command(&mut vm.bus, host.mailbox(), Opcode::GET_DC_CONFIGURATION, &[8, 0]).expect("an answer");
    let tail: Vec<_> = answer[48..].chunks(4).map(|word| u32::from_le_bytes(word.try_into().expect("4"))).collect();
    assert_eq!(tail, [131_072, 131_070, 131_072, 131_071]);
    vm.end();
}

#[test]
fn d36_an_add_is_as_long_as_its_backend() {
    let vm = InProcess::start(Wanted::default());
    vm.object_add("tm0", TAG0, 256 * MIB);
    let refused = add(&vm, TAG0, &[(0, 128 * MIB)]).expect_err("half of it");
    assert!(refused.starts_with("Host memory backend size 0x10000000 does not match extent length 0x8000000"));
    vm.end();
}
