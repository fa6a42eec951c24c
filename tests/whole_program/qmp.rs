//! QMP over a real socket: the protocol as QEMU's clients speak it, and the flow of the series' cover letter.

use expect_test::expect;
use serde_json::{Value, json};

use crate::program::{Client, GIB, MIB, Program, TAG0, TAG1};

fn started() -> (tempfile::TempDir, Program, Client) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &[]);
    let client = program.client();
    (dir, program, client)
}

#[test]
fn the_greeting_and_the_commands_are_these() {
    let (_dir, _program, mut client) = started();
    expect![[
        r#"{"QMP":{"capabilities":[],"version":{"package":"dcd 0.1.0","qemu":{"major":11,"micro":0,"minor":1}}}}"#
    ]]
    .assert_eq(&client.greeting.to_string());
    let commands = client.execute("query-commands", json!({})).expect("a list");
    let names: Vec<_> =
        commands.as_array().expect("a list").iter().filter_map(|command| command["name"].as_str()).collect();
    expect![[r#"
        qmp_capabilities query-version query-commands query-qmp-schema query-status query-name query-uuid query-target query-kvm query-cpus-fast stop cont system_reset quit human-monitor-command object-add object-del qom-list qom-get qom-list-get qom-set query-memdev device_add device_del cxl-add-dynamic-capacity cxl-release-dynamic-capacity cxl-release-dynamic-capacity-status query-cxl-dynamic-capacity x-inspect x-journal-tail x-hand-over snapshot-save snapshot-load snapshot-delete query-snapshots x-pulse query-jobs job-cancel job-dismiss
    "#]]
    .assert_eq(&format!("{}\n", names.join(" ")));
}

/// The flow of the cover letter, with its own JSON.
#[test]
fn the_flow_of_the_cover_letter() {
    let (_dir, _program, mut client) = started();
    for (id, tag) in [("tm0", TAG0), ("tm1", TAG1)] {
        client.object_add(id, tag, GIB).expect("a backend");
    }
    client.send(
        br#"{
        "execute": "cxl-add-dynamic-capacity",
        "arguments": {
        "path": "/machine/peripheral/cxl-vmem0",
        "host-id": 0,
        "selection-policy": "prescriptive",
        "region": 0,
        "tag": "5be13bce-ae34-4a77-b6c3-16df975fcf1a",
        "extents": [ { "offset": 0, "len": 1073741824 } ]
        }
        }"#,
    );
    assert_eq!(client.answer().expect("an answer"), json!({"return": {}}));
    let accepted = client.wait_for("ACCEPTED", TAG0);
    assert_eq!(accepted["extents"], json!([{"offset": 0, "len": GIB}]));
    assert_eq!(accepted["path"], "/machine/peripheral/cxl-vmem0");
    assert_eq!(accepted["path"], accepted["qom-path"]);
    assert_eq!((&accepted["host-id"], &accepted["region"]), (&json!(0), &json!(0)));
    assert!(accepted["record"].as_u64() > Some(0));

    let status = json!({"path": "/machine/peripheral/cxl-vmem0", "host-id": 0, "tag": TAG0, "region": 0});
    let committed = client.execute("cxl-release-dynamic-capacity-status", status.clone()).expect("a status");
    assert_eq!(committed["status"], "Committed");
    let mut release = crate::program::release_arguments(TAG0);
    release["extents"] = json!([{"offset": 0, "len": GIB}]);
    assert_eq!(client.execute("cxl-release-dynamic-capacity", release).expect("asked"), json!({}));
    let released = client.wait_for("RELEASED", TAG0);
    assert_eq!(released["reason"], "host");
    let gone = client.execute("cxl-release-dynamic-capacity-status", status).expect("a status");
    assert_eq!((&gone["status"], &gone["state"]), (&json!("Released"), &json!("released")));
}

#[test]
fn d28_the_operator_is_told_and_nobody_polls() {
    let (_dir, program, mut client) = started();
    let mut other = program.client();
    client.object_add("tm0", TAG0, 4 * MIB).expect("a backend");
    client.add(TAG0, &[(4 * MIB, 2 * MIB), (0, 2 * MIB)]).expect("an offer");
    client.wait_for("ACCEPTED", TAG0);
    client.release(TAG0).expect("asked");
    client.wait_for("RELEASED", TAG0);
    // The other client hears the same, in the same order.
    let mut heard: Vec<(String, Value)> = Vec::new();
    while heard.len() < 4 {
        let event = other.message().expect("an event");
        heard.push((event["event"].as_str().expect("a name").to_owned(), event["data"]["extents"].clone()));
    }
    let extents = json!([{"offset": 4 * MIB, "len": 2 * MIB}, {"offset": 0, "len": 2 * MIB}]);
    let expected = ["OFFERED", "ACCEPTED", "RELEASE_REQUESTED", "RELEASED"];
    let expected: Vec<_> = expected.map(|name| (format!("CXL_DYNAMIC_CAPACITY_{name}"), extents.clone())).into();
    assert_eq!(heard, expected);
}

#[test]
fn requests_come_in_any_shape_and_errors_have_class_and_sentence() {
    let (_dir, _program, mut client) = started();
    client.send(b"{'execute':'query-status','id':{'a':[1,'x']}}{\"execute\":\"query-version\"}\r\n\r\n{\"execute\":");
    client.send(b"\"nothing\",\"id\":7}");
    let answer = client.answer().expect("an answer");
    assert_eq!(answer, json!({"return": {"running": true, "status": "running"}, "id": {"a": [1, "x"]}}));
    assert_eq!(client.answer().expect("an answer")["return"]["package"], "dcd 0.1.0");
    let unknown = client.answer().expect("an answer");
    let error = json!({"class": "CommandNotFound", "desc": "The command nothing has not been found"});
    assert_eq!(unknown, json!({"error": error, "id": 7}));

    let refused =
        |client: &mut Client, command: &str, arguments: Value| client.execute(command, arguments).expect_err("refused");
    let add = |edit: &dyn Fn(&mut Value)| {
        let mut arguments = crate::program::add_arguments(TAG0, &[(0, GIB)]);
        edit(&mut arguments);
        arguments
    };
    let sentences = [
        refused(&mut client, "cxl-add-dynamic-capacity", add(&|a| a["path"] = "cxl-vmem9".into())),
        refused(&mut client, "cxl-add-dynamic-capacity", add(&|a| a["qom-path"] = "cxl-vmem0".into())),
        refused(&mut client, "cxl-add-dynamic-capacity", add(&|a| drop(a.as_object_mut().expect("it").remove("path")))),
        refused(
            &mut client,
            "cxl-add-dynamic-capacity",
            add(&|a| drop(a.as_object_mut().expect("it").remove("host-id"))),
        ),
        refused(&mut client, "cxl-add-dynamic-capacity", add(&|a| a["selection-policy"] = "any".into())),
        refused(&mut client, "cxl-add-dynamic-capacity", add(&|a| a["selection-policy"] = "free".into())),
        refused(&mut client, "cxl-add-dynamic-capacity", add(&|a| a["region"] = 256.into())),
        refused(&mut client, "cxl-add-dynamic-capacity", add(&|a| a["region"] = 1.into())),
        refused(
            &mut client,
            "cxl-add-dynamic-capacity",
            add(&|a| a["extents"] = json!([{"offset": u64::MAX - GIB + 1, "len": GIB}])),
        ),
        refused(&mut client, "cxl-add-dynamic-capacity", add(&|_| ())),
        refused(&mut client, "object-add", json!({"qom-type": "memory-backend-file", "id": "f", "size": 1})),
        refused(
            &mut client,
            "object-add",
            json!({"qom-type": "memory-backend-ram", "id": "f", "size": 4096, "policy": "bind"}),
        ),
        refused(&mut client, "object-del", json!({"id": "tm0"})),
    ];
    expect![[r#"
        Unable to resolve CXL type 3 device: 'cxl-vmem9' names none (there is cxl-vmem0)
        Parameters 'path' and 'qom-path' are the same thing: give exactly one
        Parameter 'path' is missing (or its alias 'qom-path')
        Parameter 'host-id' is missing
        Parameter 'selection-policy' does not accept value 'any'
        Selection policy not supported: only 'prescriptive' is
        Parameter 'region' expects uint8_t
        region id is too large: 1, the device has 1 (0 to 0)
        extent range is beyond the region end: extent 0 has offset 0xffffffffc0000000 and len 0x40000000, region 0 has 0x100000000 bytes
        no backend has the tag 5be13bce-ae34-4a77-b6c3-16df975fcf1a: create one with object-add (tag=5be13bce-ae34-4a77-b6c3-16df975fcf1a) first
        Parameter 'mem-path' is missing
        Parameter 'policy' is unexpected
        object 'tm0' not found
    "#]]
    .assert_eq(&format!("{}\n", sentences.join("\n")));
}

#[test]
fn the_qom_tree_shows_devices_and_backends() {
    let (_dir, _program, mut client) = started();
    client.object_add("tm0", &TAG0.to_uppercase(), GIB).expect("a backend");
    let get = |client: &mut Client, path: &str, property: &str| {
        client.execute("qom-get", json!({"path": path, "property": property}))
    };
    assert_eq!(get(&mut client, "/objects/tm0", "tag"), Ok(json!(TAG0.to_uppercase())), "as it was given");
    assert_eq!(get(&mut client, "tm0", "size"), Ok(json!(GIB)));
    assert_eq!(get(&mut client, "cxl-vmem0", "volatile-dc-memdev"), Ok(json!("")), "an unset link");
    assert_eq!(get(&mut client, "cxl-vmem0", "nothing"), Err("Property 'cxl-vmem0.nothing' not found".into()));
    let objects = client.execute("qom-list", json!({"path": "/objects"})).expect("a list");
    assert!(objects.as_array().expect("a list").contains(&json!({"name": "tm0", "type": "child<memory-backend-ram>"})));
    let both = client.execute("qom-list-get", json!({"paths": ["/objects/tm0", "cxl-vmem0"]})).expect("lists");
    assert!(both[0]["properties"].as_array().expect("it").iter().any(|p| p["name"] == "share" && p["value"] == true));
    let memdev = client.execute("query-memdev", json!({})).expect("a list");
    expect![[r#"[{"dump":true,"host-nodes":[],"id":"tm0","merge":false,"policy":"default","prealloc":false,"reserve":true,"share":true,"size":1073741824}]"#]]
        .assert_eq(&memdev.to_string());
}

#[test]
fn stop_cont_reset_and_quit() {
    let (_dir, mut program, mut client) = started();
    client.execute("stop", json!({})).expect("stopped");
    assert_eq!(client.execute("query-status", json!({})), Ok(json!({"running": false, "status": "paused"})));
    client.object_add("tm0", TAG0, GIB).expect("requests are served while the VM stands");
    client.add(TAG0, &[(0, GIB)]).expect("an offer");
    assert_eq!(client.state(TAG0), "offered", "the guest stands still");
    client.execute("cont", json!({})).expect("running");
    client.wait_for("ACCEPTED", TAG0);
    client.execute("system_reset", json!({})).expect("reset");
    assert_eq!(client.state(TAG0), "accepted");
    client.release(TAG0).expect("asked");
    client.wait_for("RELEASED", TAG0);
    assert_eq!(client.execute("quit", json!({})), Ok(json!({})), "the answer still comes");
    program.expect_clean_end();
    let names: Vec<_> = client.events.iter().filter_map(|event| event["event"].as_str()).collect();
    for name in ["STOP", "RESUME", "RESET", "SHUTDOWN"] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

#[test]
fn a_host_that_rejects_or_holds() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--guest", "driver,policy=reject"]);
    let mut client = program.client();
    client.object_add("tm0", TAG0, GIB).expect("a backend");
    client.add(TAG0, &[(0, GIB)]).expect("an offer");
    assert_eq!(client.wait_for("REJECTED", TAG0)["reason"], "host");
    assert_eq!(client.state(TAG0), "rejected");
    program.terminate();

    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--guest", "driver,policy=hold"]);
    let mut client = program.client();
    client.object_add("tm0", TAG0, GIB).expect("a backend");
    client.add(TAG0, &[(0, GIB)]).expect("an offer");
    assert_eq!(client.state(TAG0), "offered");
    let mut force = crate::program::release_arguments(TAG0);
    force["forced-removal"] = true.into();
    client.execute("cxl-release-dynamic-capacity", force).expect("withdrawn");
    assert_eq!(client.wait_for("REJECTED", TAG0)["reason"], "forced");
    assert_eq!(client.state(TAG0), "dead");
}

#[test]
fn two_devices_are_both_driven() {
    let dir = tempfile::tempdir().expect("a directory");
    let device = |n: u8| format!("cxl-type3,id=cxl-vmem{n},dc-regions-total-size=1G,num-dc-regions=2,bus=root_port{n}");
    let program = Program::start(dir.path(), &["--device", &device(0), "--device", &device(1)]);
    let mut client = program.client();
    for (n, tag) in [(0, TAG0), (1, TAG1)] {
        client.object_add(&format!("tm{n}"), tag, 64 * MIB).expect("a backend");
        let mut add = crate::program::add_arguments(tag, &[(0, 64 * MIB)]);
        add["path"] = format!("/machine/peripheral/cxl-vmem{n}").into();
        add["region"] = 1.into();
        client.execute("cxl-add-dynamic-capacity", add).expect("an offer");
        let accepted = client.wait_for("ACCEPTED", tag);
        assert_eq!(accepted["path"], format!("/machine/peripheral/cxl-vmem{n}"));
        assert_eq!(accepted["region"], 1);
    }
    // Each device's capacity has a place of its own in the one window.
    let mut seen_at = |n: u8| {
        let info =
            client.execute("query-cxl-dynamic-capacity", json!({"path": format!("cxl-vmem{n}")})).expect("a query");
        info["extents"][0]["hpa"][0].as_u64().expect("an address")
    };
    assert_eq!(seen_at(1) - seen_at(0), GIB);
}
