//! The schema of the running program: what is listed can be called, and what is sent and printed fits what is described.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::program::{Client, MIB, Program, TAG0, add_arguments, printed, release_arguments, verb};

#[path = "../../crates/qmp/tests/table/validator.rs"]
mod validator;
use validator::validate;

fn started() -> (tempfile::TempDir, Program, Client) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &[]);
    let client = program.client();
    (dir, program, client)
}

fn schema(subject: &str) -> Value {
    serde_json::from_str(&printed(&["schema", subject])).expect("JSON")
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|entry| entry["name"].as_str().expect("a name")).collect()
}

/// The smallest value of a type, by introspection.
fn smallest(infos: &BTreeMap<&str, &Value>, name: &str) -> Value {
    let info = infos[name];
    match info["meta-type"].as_str().expect("a word") {
        "builtin" => match info["json-type"].as_str().expect("a word") {
            "string" => json!(""),
            "boolean" => json!(false),
            "int" | "number" => json!(0),
            _ => json!(null),
        },
        "enum" => info["values"][0].clone(),
        "array" => json!([]),
        "object" => {
            let required = info["members"].as_array().expect("members").iter();
            let required = required.filter(|member| member.get("default").is_none());
            let member = |member: &Value| {
                let kind = member["type"].as_str().expect("a type");
                (member["name"].as_str().expect("a name").to_owned(), smallest(infos, kind))
            };
            required.map(member).collect::<Map<_, _>>().into()
        }
        other => panic!("{other}"),
    }
}

#[test]
fn every_command_that_is_listed_can_be_called() {
    let (_dir, mut program, mut client) = started();
    let schema = client.execute("query-qmp-schema", json!({})).expect("a schema");
    let infos: BTreeMap<&str, &Value> = names(&schema).into_iter().zip(schema.as_array().expect("a list")).collect();
    let commands = client.execute("query-commands", json!({})).expect("a list");
    let mut commands = names(&commands);
    let introspected: Vec<_> = infos.values().filter(|info| info["meta-type"] == "command").collect();
    assert_eq!(commands.len(), introspected.len());
    // Last, since nothing is answered after it.
    commands.retain(|name| *name != "quit");
    for name in commands.into_iter().chain(["quit"]) {
        let arguments = smallest(&infos, infos[name]["arg-type"].as_str().expect("a type"));
        let answer = client.execute(name, arguments.clone());
        let refusal = answer.err().unwrap_or_default();
        let is_called = !["is a bug", "is missing", "is unexpected", "not been found", "parameter type"]
            .iter()
            .any(|words| refusal.contains(words) && !refusal.contains("'path' is missing (or its alias"));
        assert!(is_called, "{name} {arguments}: {refusal}");
    }
    program.expect_clean_end();
}

#[test]
fn what_the_monitor_lists_can_be_shown() {
    let (_dir, _program, mut client) = started();
    let mut line = |line: &str| {
        let text =
            client.execute("human-monitor-command", json!({"command-line": line, "cpu-index": 0})).expect("a text");
        text.as_str().expect("a text").to_owned()
    };
    let topics = line("info");
    assert!(topics.lines().count() > 3 && topics.ends_with("\r\n"), "{topics}");
    for topic in topics.lines() {
        let command = topic.split([' ']).take(2).collect::<Vec<_>>().join(" ");
        let shown = line(&command);
        assert!(!shown.contains("unknown command"), "{command}: {shown}");
    }
}

#[test]
fn requests_and_events_fit_the_printed_schemas() {
    let (_dir, _program, mut client) = started();
    let (requests, events) = (schema("requests"), schema("events"));
    let object = json!({"qom-type": "memory-backend-ram", "id": "tm0", "size": 2 * MIB, "share": true, "tag": TAG0});
    for (command, arguments) in [
        ("query-version", json!({})),
        ("object-add", object.clone()),
        ("cxl-add-dynamic-capacity", add_arguments(TAG0, &[(0, 2 * MIB)])),
        ("cxl-release-dynamic-capacity", release_arguments(TAG0)),
        ("stop", json!({})),
        ("cont", json!({})),
        ("system_reset", json!({})),
        ("snapshot-load", json!({"job-id": "job0", "tag": "never"})),
        ("query-jobs", json!({})),
    ] {
        let request = json!({"execute": command, "arguments": arguments, "id": 1});
        assert_eq!(validate(&requests, &requests, &request), Ok(()), "{request}");
        client.execute(command, arguments).expect("accepted");
        if command == "cxl-add-dynamic-capacity" {
            let accepted = client.wait_for("ACCEPTED", TAG0);
            assert!(accepted["record"].is_u64());
        }
    }
    client.execute("query-status", json!({})).expect("an answer");
    for name in ["CXL_DYNAMIC_CAPACITY_OFFERED", "STOP", "RESUME", "RESET", "JOB_STATUS_CHANGE"] {
        assert!(client.events.iter().any(|event| event["event"] == name), "{name} is not among {:?}", client.events);
    }
    for event in &client.events {
        assert_eq!(validate(&events, &events, event), Ok(()), "{event}");
    }
    // What the program refuses, the schema refuses.
    for (member, value) in
        [("seal", json!(true)), ("size", json!("2M")), ("policy", json!("bind")), ("qom-type", json!("x"))]
    {
        let mut wrong = object.clone();
        wrong[member] = value;
        let request = json!({"execute": "object-add", "arguments": wrong});
        assert!(validate(&requests, &requests, &request).is_err(), "{request}");
        client.execute("object-add", wrong).expect_err("refused");
    }
}

#[test]
fn a_configuration_fits_its_printed_schema() {
    let config = schema("config");
    let good = json!({
        "memory": "1G",
        "qmp": ["unix:/tmp/dcd.sock,server=on,wait=off", "tcp:127.0.0.1:4444"],
        "journal": "none",
        "durability": "process",
        "journal-limit": 1 << 30,
        "accel": "soft",
        "guest": "driver,policy=hold",
        "backend-dir": "/var/lib/dcd",
        "window": [{"size": "8G"}],
        "port": [{"id": "root_port0"}],
        "device": [{
            "driver": "cxl-type3", "id": "cxl-vmem0", "bus": "root_port0", "sn": 1, "num-dc-regions": 2,
            "dc-regions-total-size": "4G", "dc-block-size": "2M", "mailbox-payload": 4096, "unique-tags": true,
        }],
        "object": [
            {"qom-type": "memory-backend-ram", "id": "tm0", "size": "1G", "share": true, "tag": TAG0},
            {"qom-type": "memory-backend-file", "id": "f0", "size": 4096, "mem-path": "f0.img", "align": "2M"},
            {"qom-type": "memory-backend-memfd", "id": "m0", "size": "1g", "hugetlb": true, "hugetlbsize": "2M", "seal": false},
        ],
    });
    assert_eq!(validate(&config, &config, &good), Ok(()));
    assert_eq!(validate(&config, &config, &json!({})), Ok(()));
    let edits: [(&str, Value); 7] = [
        ("/memory", json!("1.5G")),
        ("/durability", json!("ram")),
        ("/qmp", json!("unix:/tmp/dcd.sock")),
        ("/device/0/driver", json!("e1000")),
        ("/object/0/qom-type", json!("memory-backend-file")),
        ("/object/1/size", json!(-1)),
        ("/window/0", json!({})),
    ];
    for (place, value) in edits {
        let mut wrong = good.clone();
        *wrong.pointer_mut(place).expect("a place") = value;
        assert!(validate(&config, &config, &wrong).is_err(), "{place}");
    }
    let mut unknown = good;
    unknown["windows"] = json!([]);
    assert!(validate(&config, &config, &unknown).is_err());
}

#[test]
fn the_manual_is_printed_and_who_misspells_is_helped() {
    let index = printed(&["qmp-doc"]);
    assert!(index.contains("  object-add ") && index.contains("  CXL_DYNAMIC_CAPACITY_RELEASED "), "{index}");
    let page = printed(&["qmp-doc", "cxl-add-dynamic-capacity"]);
    for part in [
        "(CXL r4.0 7.6.7.6.5)",
        "Length in bytes",
        "prescriptive: ",
        "Default: untagged",
        "CXL_DYNAMIC_CAPACITY_ACCEPTED",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let unknown = verb(&["qmp-doc", "cxl-ad"]);
    assert!(!unknown.status.success());
    assert_eq!(
        String::from_utf8_lossy(&unknown.stderr),
        "dcd: there is no command or event 'cxl-ad'; the nearest is 'cxl-add-dynamic-capacity'; `dcd qmp-doc` lists all\n"
    );
}
