//! Figures, not verdicts: `cargo test --release -p qmp -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use qmp::json::Reader;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::rig::Rig;

const REQUEST: &str = "{\"execute\": \"echo\", \"id\": 12345}\r\n";
const RUN: Duration = Duration::from_secs(2);

#[test]
#[ignore = "a measurement"]
fn reading_a_request() {
    let request = concat!(
        r#"{"execute": "cxl-add-dynamic-capacity", "arguments": {"path": "/machine/peripheral/cxl-dcd0", "host-id": 0, "#,
        r#""selection-policy": "prescriptive", "region": 0, "extents": [{"offset": 0, "len": 134217728}]}}"#
    );
    for text in [request.to_owned(), request.replace('"', "'")] {
        let (mut reader, began) = (Reader::new(), Instant::now());
        for _ in 0..1_000_000 {
            reader.feed(text.as_bytes());
            assert!(reader.next_value().is_some_and(|value| value.is_ok()));
        }
        println!("{} bytes: {} ns", text.len(), began.elapsed().as_nanos() / 1_000_000);
    }
}

/// Asks again and again, `at_once` requests in a write, and gives how many answers came.
async fn ask(rig: &Rig, at_once: usize) -> impl Future<Output = u64> + Send + 'static {
    let mut stream = rig.client().await.stream.into_inner();
    async move {
        let (requests, began) = (REQUEST.repeat(at_once), Instant::now());
        let (mut answers, mut chunk) = (0, vec![0; 64 << 10]);
        while began.elapsed() < RUN {
            stream.write_all(requests.as_bytes()).await.expect("a stream");
            let mut missing = at_once;
            while missing > 0 {
                let read = stream.read(&mut chunk).await.expect("a stream");
                // Events have lines too, but only answers end like this.
                missing -= chunk[..read].iter().filter(|byte| **byte == b'\n').count().min(missing);
            }
            answers += at_once as u64;
        }
        answers
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn requests() {
    for (clients, at_once) in [(1, 1), (1, 64), (64, 1), (64, 16)] {
        let rig = Rig::start().await;
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..clients {
            asking.spawn(ask(&rig, at_once).await);
        }
        let answers: u64 = asking.join_all().await.iter().sum();
        println!("{clients} clients, {at_once} at once: {} requests/s", answers / RUN.as_secs());
        rig.server.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn events_to_64_clients() {
    const EVENTS: u64 = 20_000;
    let rig = Rig::start().await;
    let mut hearing = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let mut stream = rig.client().await.stream.into_inner();
        hearing.spawn(async move {
            let (mut heard, mut chunk) = (0, vec![0; 64 << 10]);
            while heard < EVENTS {
                let read = stream.read(&mut chunk).await.expect("a stream");
                assert_ne!(read, 0, "dropped after {heard} events");
                heard += chunk[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
            }
        });
    }
    let (events, began) = (rig.events.clone(), Instant::now());
    let data = json!({"path": "/machine/peripheral/cxl-dcd0", "region": 0, "extents": [{"offset": 0, "len": 134_217_728}], "record": 312});
    let sending = tokio::task::spawn_blocking(move || {
        let mut longest = Duration::ZERO;
        for _ in 0..EVENTS {
            let (data, before): (Value, _) = (data.clone(), Instant::now());
            events.send("CXL_DYNAMIC_CAPACITY_OFFERED", data);
            longest = longest.max(before.elapsed());
            // About the pace of a busy device; a burst of all of them would only measure the limit.
            std::thread::sleep(Duration::from_micros(20));
        }
        (began.elapsed(), longest)
    });
    hearing.join_all().await;
    let heard = began.elapsed();
    let (sent, longest) = sending.await.expect("no panic");
    println!("{EVENTS} events to 64 clients: sent in {sent:?} (longest {longest:?}), heard by all after {heard:?}");
}
