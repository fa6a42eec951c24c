//! Greeting, negotiation, requests and answers.

use expect_test::expect;
use qmp::json::{NESTING_LIMIT, VALUE_LIMIT_BYTES};
use qmp::{BACKLOG_LIMIT_BYTES, HELD_OUTPUT_BYTES};
use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::rig::Rig;

#[tokio::test]
async fn greeting_and_negotiation() {
    let rig = Rig::start().await;
    let mut client = rig.stranger().await;
    let mut talk = client.line().await;
    for request in [
        r#"{"execute": "echo", "id": 1}"#,
        r#"{"execute": "no-such"}"#,
        r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}"#,
        r#"{"execute": "qmp_capabilities", "arguments": {"enable": ["foo"]}}"#,
        r#"{"execute": "qmp_capabilities", "arguments": {"enable": []}, "id": "go"}"#,
        r#"{"execute": "qmp_capabilities"}"#,
        r#"{"execute": "echo", "id": 2}"#,
    ] {
        talk += &client.ask(request).await;
    }
    expect![[r#"
        {"QMP": {"version": {"package": "test", "qemu": {"major": 1, "micro": 3, "minor": 2}}, "capabilities": []}}
        {"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}, "id": 1}
        {"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"}}
        {"error": {"class": "GenericError", "desc": "Capability oob not available"}}
        {"error": {"class": "GenericError", "desc": "Parameter 'enable[0]' does not accept value 'foo'"}}
        {"return": {}, "id": "go"}
        {"error": {"class": "CommandNotFound", "desc": "Capabilities negotiation is already complete, command ignored"}}
        {"return": {}, "id": 2}
    "#]]
    .assert_eq(&talk.replace("\r\n", "\n"));
}

#[tokio::test]
async fn refusals() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let mut talk = String::new();
    for request in [
        r#"{"execute": "foo", "id": {"any": [1.5, null]}}"#,
        r#"{"execute": "typed"}"#,
        r#"{"execute": "typed", "arguments": {"host-id": 65536}}"#,
        r#"{"execute": "typed", "arguments": {"host-id": 0, "x": 1}}"#,
        r#"{"execute": "refuse", "id": 18446744073709551615}"#,
        r#"{"exec-oob": "echo", "id": null}"#,
        r#"{"execute": "echo", "arguments": 5}"#,
        r#"{"execute": "echo", "execute": "quit"}"#,
        r#"[1]"#,
        r#"{"execute" "echo"}"#,
        "}\n",
    ] {
        talk += &client.ask(request).await;
    }
    expect![[r#"
        {"error": {"class": "CommandNotFound", "desc": "The command foo has not been found"}, "id": {"any": [1.5, null]}}
        {"error": {"class": "GenericError", "desc": "Parameter 'host-id' is missing"}}
        {"error": {"class": "GenericError", "desc": "Parameter 'host-id' expects uint16_t"}}
        {"error": {"class": "GenericError", "desc": "Parameter 'x' is unexpected"}}
        {"error": {"class": "DeviceNotFound", "desc": "Device 'x' not found"}, "id": 18446744073709551615}
        {"error": {"class": "GenericError", "desc": "QMP input member 'exec-oob' is unexpected: capability 'oob' is not offered, use 'execute'"}, "id": null}
        {"error": {"class": "GenericError", "desc": "QMP input member 'arguments' must be an object"}}
        {"error": {"class": "GenericError", "desc": "JSON parse error, duplicate key 'execute' at line 1 column 29"}}
        {"error": {"class": "GenericError", "desc": "QMP input must be a JSON object"}}
        {"error": {"class": "GenericError", "desc": "JSON parse error, expected `:` at line 1 column 12"}}
        {"error": {"class": "GenericError", "desc": "JSON parse error, stray '}'"}}
    "#]]
    .assert_eq(&talk.replace("\r\n", "\n"));
}

#[tokio::test]
async fn any_chunking_and_quoting() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    for byte in br#"{ 'execute':"echo" , 'arguments' : {'value':'it\'s "x"'}}{"execute":"echo","id":2}{"execute":"echo","id":3}"# {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.line().await, "{\"return\": \"it's \\\"x\\\"\"}\r\n");
    assert_eq!(client.line().await, "{\"return\": {}, \"id\": 2}\r\n");
    assert_eq!(client.line().await, "{\"return\": {}, \"id\": 3}\r\n");
}

#[tokio::test]
async fn many_requests_in_one_write_are_answered_in_order() {
    let rig = Rig::start().await;
    let client = rig.client().await;
    let requests: String = (0..5_000).map(|id| format!("{{\"execute\":\"announce\",\"id\":{id}}}")).collect();
    assert!(requests.len() > 2 * BACKLOG_LIMIT_BYTES);
    let (mut reading, mut writing) = client.stream.into_inner().into_split();
    let writer = tokio::spawn(async move { writing.write_all(requests.as_bytes()).await.map(|()| writing) });
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(&mut reading));
    for id in 0..5_000 {
        // Each request sends an event before it is answered.
        let event = lines.next_line().await.expect("a stream").expect("an event");
        assert!(event.contains("ANNOUNCED"), "{event}");
        assert_eq!(lines.next_line().await.expect("a stream"), Some(format!("{{\"return\": {id}, \"id\": {id}}}")));
    }
    writer.await.expect("no panic").expect("all was taken");
}

#[tokio::test]
async fn who_asks_without_reading_waits_for_itself() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let value = "x".repeat(HELD_OUTPUT_BYTES);
    let request = format!("{{\"execute\": \"echo\", \"arguments\": {{\"value\": \"{value}\"}}}}");
    let (mut reading, mut writing) = client.stream.get_mut().split();
    let flood = async {
        loop {
            writing.write_all(request.as_bytes()).await.expect("a stream");
        }
    };
    // The socket's buffers fill, then nothing moves, and nobody is dropped.
    let stuck = tokio::time::timeout(std::time::Duration::from_millis(300), flood).await;
    assert!(stuck.is_err());
    let answer = format!("{{\"return\": \"{value}\"}}\r\n");
    let mut read = vec![0; answer.len()];
    tokio::io::AsyncReadExt::read_exact(&mut reading, &mut read).await.expect("the answer");
    assert!(read == answer.as_bytes());
}

#[tokio::test]
async fn depth_and_length_have_limits() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    let deep = format!("{{\"execute\": \"echo\", \"arguments\": {}{}}}", "[".repeat(5_000), "]".repeat(5_000));
    let long = format!("{{\"execute\": \"echo\", \"id\": \"{}\"}}", "x".repeat(2 * VALUE_LIMIT_BYTES));
    let refused = |text: String| json!({"error": {"class": "GenericError", "desc": text}});
    client.send(deep).await;
    let too_deep = format!("JSON value is nested deeper than the limit of {NESTING_LIMIT} levels");
    assert_eq!(client.value().await, refused(too_deep));
    client.send(long).await;
    let too_long = format!("JSON value is longer than the limit of {VALUE_LIMIT_BYTES} bytes");
    assert_eq!(client.value().await, refused(too_long));
    assert_eq!(client.ask("{\"execute\": \"echo\"}").await, "{\"return\": {}}\r\n");
}

#[tokio::test]
async fn a_client_that_stops_sending_is_answered_still() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    client.send("{\"execute\": \"announce\"}{\"execute\": \"echo\", \"id\": 1}{\"unfinished").await;
    client.stream.shutdown().await.expect("a stream");
    let rest = client.rest().await;
    assert!(rest.ends_with("{\"return\": 0}\r\n{\"return\": {}, \"id\": 1}\r\n"), "{rest}");
}

#[tokio::test]
async fn a_request_begun_is_finished_without_its_client() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    client.send("{\"execute\": \"wait\"}{\"execute\": \"echo\"}").await;
    rig.service.waiting.notified().await;
    drop(client);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    rig.service.let_go.notify_one();
    rig.server.shutdown().await;
    assert_eq!(rig.service.waits_ended.load(std::sync::atomic::Ordering::Relaxed), 1);
}
