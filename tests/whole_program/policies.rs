//! What the guest does by itself, as an operator sees it.

use serde_json::{Value, json};

use crate::program::{Client, MIB, Program, TAG0, TAG1};

fn started(guest: &str) -> (tempfile::TempDir, Program, Client) {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Program::start(dir.path(), &["--guest", guest]);
    let client = program.client();
    (dir, program, client)
}

/// When something happened, in microseconds.
fn time_us(event: &Value) -> u64 {
    let part = |name: &str| event["timestamp"][name].as_u64().expect("a number");
    part("seconds") * 1_000_000 + part("microseconds")
}

#[test]
fn a_host_that_takes_a_part() {
    let (_dir, _program, mut client) = started("driver,policy=subset");
    client.object_add("tm0", TAG0, 8 * MIB).expect("a backend");
    client.add(TAG0, &[(0, 8 * MIB)]).expect("an offer");
    assert_eq!(client.wait_for("ACCEPTED", TAG0)["extents"], json!([{"offset": 0, "len": 4 * MIB}]));
    client.object_add("tm1", TAG1, 6 * MIB).expect("a backend");
    client.add(TAG1, &[(16 * MIB, 2 * MIB), (20 * MIB, 2 * MIB), (24 * MIB, 2 * MIB)]).expect("an offer");
    let first_and_third = json!([{"offset": 16 * MIB, "len": 2 * MIB}, {"offset": 24 * MIB, "len": 2 * MIB}]);
    assert_eq!(client.wait_for("ACCEPTED", TAG1)["extents"], first_and_third);
    client.release(TAG1).expect("asked");
    assert_eq!(client.wait_for("RELEASED", TAG1)["extents"], first_and_third);
}

#[test]
fn a_host_that_is_late() {
    let (_dir, _program, mut client) = started("driver,policy=late");
    client.object_add("tm0", TAG0, 2 * MIB).expect("a backend");
    client.add(TAG0, &[(0, 2 * MIB)]).expect("an offer");
    let mut times = Vec::new();
    for name in ["OFFERED", "ACCEPTED", "RELEASE_REQUESTED", "RELEASED"] {
        let name = format!("CXL_DYNAMIC_CAPACITY_{name}");
        while client.events.iter().all(|event| event["event"] != name.as_str()) {
            let message = client.message().expect("an event");
            client.events.push(message);
        }
        let event = client.events.iter().find(|event| event["event"] == name.as_str()).expect("it");
        times.push(time_us(event));
        if times.len() == 2 {
            client.release(TAG0).expect("asked");
        }
    }
    // A little less than 100 ms: a host counts from when it has read the record, in whole milliseconds.
    assert!(times[1] - times[0] > 95_000 && times[3] - times[2] > 95_000, "{times:?}");
}

#[test]
fn a_host_that_does_as_linux_keeps_what_is_busy() {
    let (_dir, _program, mut client) = started(&format!("driver,policy=linux,busy={TAG0}"));
    for (n, tag) in [(0, TAG0), (1, TAG1)] {
        client.object_add(&format!("tm{n}"), tag, 4 * MIB).expect("a backend");
        client.add(tag, &[(n * 8 * MIB, 2 * MIB), (n * 8 * MIB + 4 * MIB, 2 * MIB)]).expect("an offer");
        client.wait_for("ACCEPTED", tag);
    }
    client.release(TAG0).expect("asked");
    client.release(TAG1).expect("asked");
    // One command for each extent; the host reads the two requests in their order.
    for n in [2, 3] {
        assert_eq!(client.wait_for("RELEASED", TAG1)["extents"], json!([{"offset": n * 4 * MIB, "len": 2 * MIB}]));
    }
    assert_eq!(client.state(TAG0), "release-requested");
}
