//! Events: who hears them, in which order, and who is dropped for not listening.

use std::time::Duration;

use qmp::OUTPUT_LIMIT_BYTES;
use serde_json::{Value, json};

use crate::rig::Rig;

#[tokio::test]
async fn everybody_who_negotiated_hears_every_event_in_order() {
    const EVENTS: u64 = 2_000;
    let rig = Rig::start().await;
    let mut stranger = rig.stranger().await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(rig.client().await);
    }
    let events = rig.events.clone();
    let sender =
        std::thread::spawn(move || (0..EVENTS).for_each(|number| events.send("TOLD", json!({ "number": number }))));
    for client in &mut clients {
        for number in 0..EVENTS {
            let event = client.value().await;
            assert_eq!((&event["event"], &event["data"]), (&json!("TOLD"), &json!({ "number": number })));
            assert!(event["timestamp"]["seconds"].is_u64() && event["timestamp"]["microseconds"].is_u64());
        }
    }
    sender.join().expect("no panic");
    assert!(stranger.line().await.contains("QMP"));
    assert!(stranger.ask("{\"execute\": \"echo\"}").await.contains("Expecting capabilities"), "no event before");
}

#[tokio::test]
async fn events_come_before_the_answer_they_precede() {
    let rig = Rig::start().await;
    let (mut asking, mut other) = (rig.client().await, rig.client().await);
    for number in 0..200 {
        asking.send("{\"execute\": \"announce\", \"id\": 7}").await;
        assert_eq!(asking.value().await["data"]["number"], number);
        assert_eq!(asking.value().await, json!({"return": number, "id": 7}));
        assert_eq!(other.value().await["data"]["number"], number);
    }
}

#[tokio::test]
async fn an_event_without_data_has_no_data() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    rig.events.send("STOP", Value::Null);
    let line = client.line().await;
    assert!(
        line.starts_with("{\"timestamp\": {\"seconds\": ") && line.ends_with("}, \"event\": \"STOP\"}\r\n"),
        "{line}"
    );
}

#[tokio::test]
async fn who_does_not_read_is_dropped_and_the_others_are_not() {
    let rig = Rig::start().await;
    let (mut deaf, mut good) = (rig.client().await, rig.client().await);
    let data = json!({ "filler": "x".repeat(64 << 10) });
    // Both queues and both socket buffers, for the one who does not read.
    for _ in 0..(3 * OUTPUT_LIMIT_BYTES) >> 16 {
        rig.events.send("LONG", data.clone());
        assert_eq!(good.value().await["event"], "LONG");
    }
    let heard = deaf.rest().await;
    assert!(heard.len() < 2 * OUTPUT_LIMIT_BYTES, "{} bytes", heard.len());
    assert_eq!(good.ask("{\"execute\": \"echo\"}").await, "{\"return\": {}}\r\n");
    // Dropped means gone from the events as well, or the handle would collect the dead.
    tokio::time::sleep(Duration::from_millis(10)).await;
    rig.events.send("LAST", Value::Null);
    assert_eq!(good.value().await["event"], "LAST");
}
