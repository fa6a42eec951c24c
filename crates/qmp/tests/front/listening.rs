//! Sockets: where the server listens, who it admits, what it leaves behind.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use qmp::{CLIENT_LIMIT, EventSender, ListenError, ListenSpec, SHUTDOWN_LIMIT_MS, Server};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep};

use crate::rig::{Rig, Trivial, socket_path};

async fn listen(text: &str) -> Result<Server, ListenError> {
    let spec = ListenSpec::parse(text).expect("a spec");
    Server::start(vec![spec], Arc::new(Trivial::default()), EventSender::new()).await
}

#[tokio::test]
async fn the_socket_file_is_private_and_goes_with_the_server() {
    let rig = Rig::start().await;
    assert_eq!(std::fs::metadata(&rig.socket).expect("a file").permissions().mode() & 0o777, 0o600);
    rig.server.shutdown().await;
    assert!(!rig.socket.exists());
    let rig = Rig::start().await;
    drop(rig.server);
    for _ in 0..100 {
        if !rig.socket.exists() {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the socket file stays behind");
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let path = socket_path();
    let text = format!("unix:{},server=on,wait=off", path.display());
    // As a killed process leaves it: a file that nobody listens on.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists());
    let server = listen(&text).await.expect("replaced");
    let error = listen(&text).await.map(drop).expect_err("in use");
    assert_eq!(error.to_string(), format!("cannot listen on unix:{}: another process listens there", path.display()));
    assert!(path.exists());
    server.shutdown().await;
    std::fs::write(&path, "not a socket").expect("a file");
    assert!(matches!(listen(&text).await.map(drop), Err(ListenError::NoSocket { .. })));
    assert_eq!(std::fs::read_to_string(&path).expect("untouched"), "not a socket");
    std::fs::remove_file(&path).expect("a file");
}

#[tokio::test]
async fn any_free_port_is_reported() {
    let server = listen("tcp:127.0.0.1:0,server").await.expect("a port");
    let address = server.addresses()[0].strip_prefix("tcp:").expect("tcp").to_owned();
    assert!(!address.ends_with(":0"));
    let mut stream = tokio::net::TcpStream::connect(&address).await.expect("a connection");
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting).await.expect("a greeting");
    assert_eq!(&greeting, b"{\"QMP\": ");
    let error = listen(&format!("tcp:{address}")).await.map(drop).expect_err("in use").to_string();
    assert!(error.starts_with(&format!("cannot listen on tcp:{address}: ")), "{error}");
    server.shutdown().await;
}

#[tokio::test]
async fn one_client_too_many_is_told_so() {
    let rig = Rig::start().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENT_LIMIT {
        clients.push(rig.client().await);
    }
    let refusal = rig.stranger().await.rest().await;
    assert_eq!(
        refusal,
        format!(
            "{{\"error\": {{\"class\": \"GenericError\", \"desc\": \"{CLIENT_LIMIT} clients are connected, which is the limit; \
             try again when one has left\"}}}}\r\n"
        )
    );
    drop(clients.pop());
    for _ in 0..100 {
        sleep(Duration::from_millis(20)).await;
        if rig.stranger().await.line().await.contains("\"QMP\"") {
            return;
        }
    }
    panic!("the place of the client that left is not given away");
}

#[tokio::test]
async fn quit_is_answered_before_the_end() {
    let rig = Rig::start().await;
    let (mut client, mut idle) = (rig.client().await, rig.client().await);
    client.send("{\"execute\": \"quit\", \"id\": 1}").await;
    rig.service.quit.notified().await;
    rig.server.shutdown().await;
    assert_eq!(client.rest().await, "{\"return\": {}, \"id\": 1}\r\n");
    assert_eq!(idle.rest().await, "");
}

#[tokio::test]
async fn shutdown_lets_a_request_finish_and_begins_no_other() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    client.send("{\"execute\": \"wait\", \"id\": 1}{\"execute\": \"echo\", \"id\": 2}").await;
    rig.service.waiting.notified().await;
    let service = Arc::clone(&rig.service);
    let shutdown = tokio::spawn(rig.server.shutdown());
    sleep(Duration::from_millis(50)).await;
    service.let_go.notify_one();
    shutdown.await.expect("no panic");
    assert_eq!(client.rest().await, "{\"return\": {}, \"id\": 1}\r\n");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    client.send("{\"execute\": \"wait\"}").await;
    rig.service.waiting.notified().await;
    let began = Instant::now();
    rig.server.shutdown().await;
    assert!(began.elapsed() < Duration::from_millis(3 * SHUTDOWN_LIMIT_MS));
    assert_eq!(client.rest().await, "");
}
