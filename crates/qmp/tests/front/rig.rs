//! A server with a few trivial commands, and a client that reads lines.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use qmp::schema::{Argument, CommandSchema, EMPTY, Kind, Presence, QMP_CAPABILITIES, UNSTABLE};
use qmp::{ErrorClass, EventSender, ListenSpec, QmpError, Server, Service};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;

/// No test waits longer for one line.
const PATIENCE: Duration = Duration::from_secs(20);

static COMMANDS: [CommandSchema; 7] = [
    QMP_CAPABILITIES,
    CommandSchema {
        name: "echo",
        doc: "Returns what it is told.",
        arguments: &[Argument { name: "value", kind: Kind::Any, presence: Presence::Optional, doc: "Anything." }],
        returns: Kind::Any,
        features: &[],
    },
    CommandSchema {
        name: "typed",
        doc: "Takes a small number.",
        arguments: &[Argument { name: "host-id", kind: Kind::U16, presence: Presence::Required, doc: "A number." }],
        returns: Kind::Object(&EMPTY),
        features: &[UNSTABLE],
    },
    CommandSchema { name: "refuse", doc: "Always fails.", arguments: &[], returns: Kind::Any, features: &[] },
    CommandSchema {
        name: "announce",
        doc: "An event, then an answer.",
        arguments: &[],
        returns: Kind::Any,
        features: &[],
    },
    CommandSchema { name: "wait", doc: "Until it is let go.", arguments: &[], returns: Kind::Any, features: &[] },
    CommandSchema { name: "quit", doc: "Ends the server.", arguments: &[], returns: Kind::Any, features: &[] },
];

/// The service behind the server.
#[derive(Default)]
pub(crate) struct Trivial {
    pub(crate) let_go: Notify,
    pub(crate) waiting: Notify,
    pub(crate) quit: Notify,
    pub(crate) waits_ended: AtomicU64,
    announced: AtomicU64,
}

impl Service for Trivial {
    fn greeting(&self) -> Value {
        json!({"package": "test", "qemu": {"major": 1, "minor": 2, "micro": 3}})
    }

    fn commands(&self) -> &'static [CommandSchema] {
        &COMMANDS
    }

    async fn call(
        &self,
        command: &'static CommandSchema,
        mut arguments: Map<String, Value>,
        events: &EventSender,
    ) -> Result<Value, QmpError> {
        match command.name {
            "echo" => Ok(arguments.remove("value").unwrap_or_else(|| json!({}))),
            "refuse" => Err(QmpError::new(ErrorClass::DeviceNotFound, "Device 'x' not found")),
            "announce" => {
                let number = self.announced.fetch_add(1, Ordering::Relaxed);
                events.send("ANNOUNCED", json!({ "number": number }));
                tokio::task::yield_now().await;
                Ok(json!(number))
            }
            "wait" => {
                self.waiting.notify_one();
                self.let_go.notified().await;
                self.waits_ended.fetch_add(1, Ordering::Relaxed);
                Ok(json!({}))
            }
            "quit" => {
                self.quit.notify_one();
                Ok(json!({}))
            }
            _ => Ok(json!({})),
        }
    }
}

/// A running server on a socket of its own.
pub(crate) struct Rig {
    pub(crate) service: Arc<Trivial>,
    pub(crate) events: EventSender,
    pub(crate) server: Server,
    pub(crate) socket: PathBuf,
}

/// A name for a socket that no other test uses.
pub(crate) fn socket_path() -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("qmp-front-{}-{number}.sock", std::process::id()))
}

impl Rig {
    pub(crate) async fn start() -> Self {
        let socket = socket_path();
        let (service, events) = (Arc::new(Trivial::default()), EventSender::new());
        let listens = vec![ListenSpec::Unix { path: socket.clone() }];
        let server = Server::start(listens, Arc::clone(&service), events.clone()).await.expect("a socket");
        Self { service, events, server, socket }
    }

    /// A client that has read nothing yet.
    pub(crate) async fn stranger(&self) -> Client {
        Client::new(UnixStream::connect(&self.socket).await.expect("a connection"))
    }

    /// A client past its negotiation.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.stranger().await;
        client.line().await;
        assert_eq!(client.ask("{\"execute\": \"qmp_capabilities\"}").await, "{\"return\": {}}\r\n");
        client
    }
}

/// One end of a connection.
pub(crate) struct Client {
    pub(crate) stream: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the server reads");
    }

    /// The next line with its end; empty at the end of the stream.
    pub(crate) async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("an answer in time").expect("a stream");
        line
    }

    pub(crate) async fn value(&mut self) -> Value {
        serde_json::from_str(&self.line().await).expect("JSON")
    }

    pub(crate) async fn ask(&mut self, request: &str) -> String {
        self.send(request).await;
        self.line().await
    }

    /// All lines up to the end of the stream.
    pub(crate) async fn rest(&mut self) -> String {
        let mut rest = String::new();
        timeout(PATIENCE, self.stream.read_to_string(&mut rest)).await.expect("an end in time").expect("a stream");
        rest
    }
}
