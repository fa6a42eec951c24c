//! One client, from its greeting to its end.
//!
//! ```text
//!            ┌────────────────────── one task ──────────────────────┐
//!  socket ──▶│ Reader ─▶ Request ─▶ check ─▶ Service::call ─┐       │
//!            │                                              ▼       │
//!  socket ◀──│ writing ◀───────────── take ──────────── Outgoing ◀──┼── events, from any thread
//!            └──────────────────────────────────────────────────────┘
//! ```
//!
//! Requests are answered in order, the next is begun when the answer of the one before is queued. Meanwhile reading goes on, up
//! to [`BACKLOG_LIMIT_BYTES`]. All that is ready is written at once. While [`HELD_OUTPUT_BYTES`] of output wait, no request is
//! begun: who asks without reading waits for itself. Deliberately absent: time limits. A client may be silent for ever.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use serde_json::{Map, Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::check::check;
use crate::error::{ErrorClass, QmpError};
use crate::events::{EventSender, Subscription};
use crate::json::Reader;
use crate::outgoing::{OUTPUT_LIMIT_BYTES, Outgoing, Phase};
use crate::print;
use crate::request::{Refused, Request};
use crate::schema::{CommandSchema, QMP_CAPABILITIES};
use crate::service::Service;

/// How many bytes of requests are read ahead while one is being answered.
pub const BACKLOG_LIMIT_BYTES: usize = 64 << 10;

/// How many bytes of output may wait before no further request is begun.
pub const HELD_OUTPUT_BYTES: usize = 64 << 10;

/// How much is read from a socket at once.
const CHUNK_BYTES: usize = 16 << 10;

/// How many chunks that a client still sends are taken off its socket when the connection ends.
const LAST_CHUNKS: usize = 64;

/// Memory for answers above this is given back after each.
const KEPT_ANSWER_BYTES: usize = 64 << 10;

/// What all connections of a server share.
pub(crate) struct Shared<S> {
    pub(crate) service: Arc<S>,
    pub(crate) events: EventSender,
    /// The commands of the service by their names.
    pub(crate) commands: HashMap<&'static str, &'static CommandSchema>,
}

/// Serves one client until it leaves, is given up, or the server shuts down.
pub(crate) async fn serve<S: Service, Socket>(shared: Arc<Shared<S>>, mut socket: Socket, outgoing: Arc<Outgoing>)
where
    Socket: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = Connection::new(&shared, &mut socket, outgoing);
    connection.greet(&shared.service.greeting());
    let mut begin = |command, arguments| shared.service.call(command, arguments, &shared.events);
    let mut call = pin!(None);
    let end = poll_fn(|context| connection.poll(context, call.as_mut(), &mut begin)).await;
    drop(connection);
    match end {
        End::Complete => finish(&mut socket).await,
        End::Broken(error) => tracing::debug!(%error, "a QMP client is gone"),
        End::Overrun => {
            tracing::warn!(limit_bytes = OUTPUT_LIMIT_BYTES, "a QMP client that does not read its events is dropped");
        }
    }
    drop(socket);
    // What was begun has its effects whether or not somebody waits for the answer.
    if let Some(call) = call.as_mut().as_pin_mut() {
        let _unheard = call.await;
    }
}

/// Ends the stream so that what was written arrives: closing a TCP socket with unread input would discard it.
async fn finish<Socket: AsyncRead + AsyncWrite + Unpin>(socket: &mut Socket) {
    if socket.shutdown().await.is_err() {
        return;
    }
    let mut chunk = vec![0; CHUNK_BYTES];
    poll_fn(|context| {
        for _ in 0..LAST_CHUNKS {
            let mut buffer = ReadBuf::new(&mut chunk);
            match Pin::new(&mut *socket).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(())
    })
    .await;
}

/// How a connection ended.
enum End {
    /// Everything was answered and sent.
    Complete,
    /// The socket failed.
    Broken(io::Error),
    /// The client did not read.
    Overrun,
}

/// What the client may execute.
enum Negotiation {
    /// `qmp_capabilities` only.
    Pending,
    /// Everything else, and it hears events.
    Complete { _subscription: Subscription },
}

/// Whether the client may still send requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

/// Why answering requests came to a stop.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answering {
    /// No complete request is there.
    Idle,
    /// A request is being answered.
    Busy,
    /// Too much output waits.
    Held,
}

/// How far writing came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sending {
    /// Nothing waits.
    Done,
    /// The socket takes no more at the moment.
    Blocked,
}

/// A request ready to be executed.
type Ready = (&'static CommandSchema, Map<String, Value>);

struct Connection<'a, S, Socket> {
    shared: &'a Shared<S>,
    socket: &'a mut Socket,
    reader: Reader,
    outgoing: Arc<Outgoing>,
    negotiation: Negotiation,
    input: Input,
    phase: Phase,
    /// The id of the request that is being answered.
    id: Option<Value>,
    /// How many bytes of answers were queued since the queue was last taken.
    queued_bytes: usize,
    /// What is being written, and how much of it is.
    writing: Vec<u8>,
    written_bytes: usize,
    /// Where an answer is printed before it is queued, so that the queue is not locked meanwhile.
    answer: Vec<u8>,
    chunk: Box<[u8]>,
}

impl<'a, S: Service, Socket: AsyncRead + AsyncWrite + Unpin> Connection<'a, S, Socket> {
    fn new(shared: &'a Shared<S>, socket: &'a mut Socket, outgoing: Arc<Outgoing>) -> Self {
        Self {
            shared,
            socket,
            reader: Reader::new(),
            outgoing,
            negotiation: Negotiation::Pending,
            input: Input::Open,
            phase: Phase::Open,
            id: None,
            queued_bytes: 0,
            writing: Vec::new(),
            written_bytes: 0,
            answer: Vec::new(),
            chunk: vec![0; CHUNK_BYTES].into_boxed_slice(),
        }
    }

    fn greet(&mut self, version: &Value) {
        print::greeting(version, &mut self.answer);
        self.queue_answer();
    }

    /// Does all that can be done at the moment.
    fn poll<Call, Begin>(
        &mut self,
        context: &mut Context<'_>,
        mut call: Pin<&mut Option<Call>>,
        begin: &mut Begin,
    ) -> Poll<End>
    where
        Call: Future<Output = Result<Value, QmpError>>,
        Begin: FnMut(&'static CommandSchema, Map<String, Value>) -> Call,
    {
        loop {
            let phase = self.phase;
            let answering = self.answer_requests(context, call.as_mut(), begin);
            let sending = match self.send(context) {
                Ok(sending) => sending,
                Err(error) => return Poll::Ready(End::Broken(error)),
            };
            if self.phase == Phase::Overrun {
                return Poll::Ready(End::Overrun);
            }
            let more = answering == Answering::Held && sending == Sending::Done;
            if more || self.phase != phase {
                continue;
            }
            let last = self.input == Input::Ended || self.phase == Phase::Closing;
            if last && answering == Answering::Idle && sending == Sending::Done {
                return Poll::Ready(End::Complete);
            }
            if last || !self.may_read(answering) {
                return Poll::Pending;
            }
            match self.read(context) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(End::Broken(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn may_read(&self, answering: Answering) -> bool {
        match answering {
            Answering::Idle => true,
            Answering::Busy | Answering::Held => self.reader.backlog_bytes() < BACKLOG_LIMIT_BYTES,
        }
    }

    /// Answers requests one after the other until one has to be waited for.
    fn answer_requests<Call, Begin>(
        &mut self,
        context: &mut Context<'_>,
        mut call: Pin<&mut Option<Call>>,
        begin: &mut Begin,
    ) -> Answering
    where
        Call: Future<Output = Result<Value, QmpError>>,
        Begin: FnMut(&'static CommandSchema, Map<String, Value>) -> Call,
    {
        loop {
            if let Some(begun) = call.as_mut().as_pin_mut() {
                let Poll::Ready(result) = begun.poll(context) else { return Answering::Busy };
                call.set(None);
                let id = self.id.take();
                self.answer(&result, id.as_ref());
            }
            if self.phase == Phase::Closing {
                return Answering::Idle;
            }
            if self.queued_bytes >= HELD_OUTPUT_BYTES {
                return Answering::Held;
            }
            match self.reader.next_value() {
                None => return Answering::Idle,
                Some(Err(error)) => self.answer(&Err(QmpError::generic(error.to_string())), None),
                Some(Ok(value)) => {
                    if let Some((command, arguments)) = self.admit(value) {
                        call.set(Some(begin(command, arguments)));
                    }
                }
            }
        }
    }

    /// Makes a request of a value; answers at once what needs no service.
    fn admit(&mut self, value: Value) -> Option<Ready> {
        let request = match Request::read(value) {
            Ok(request) => request,
            Err(Refused { error, id }) => {
                self.answer(&Err(error), id.as_ref());
                return None;
            }
        };
        let Request { execute, arguments, id } = request;
        let resolved = match (&self.negotiation, execute.as_str() == QMP_CAPABILITIES.name) {
            (Negotiation::Pending, true) => {
                self.negotiate(&arguments, id.as_ref());
                return None;
            }
            (Negotiation::Pending, false) => Err(not_now("Expecting capabilities negotiation with 'qmp_capabilities'")),
            (Negotiation::Complete { .. }, true) => {
                Err(not_now("Capabilities negotiation is already complete, command ignored"))
            }
            (Negotiation::Complete { .. }, false) => self.resolve(&execute, &arguments),
        };
        match resolved {
            Ok(command) => {
                self.id = id;
                Some((command, arguments))
            }
            Err(error) => {
                self.answer(&Err(error), id.as_ref());
                None
            }
        }
    }

    fn resolve(&self, execute: &str, arguments: &Map<String, Value>) -> Result<&'static CommandSchema, QmpError> {
        let command = *self.shared.commands.get(execute).ok_or_else(|| QmpError::command_not_found(execute))?;
        check(command, arguments)?;
        Ok(command)
    }

    fn negotiate(&mut self, arguments: &Map<String, Value>, id: Option<&Value>) {
        let accepted = check(&QMP_CAPABILITIES, arguments).and_then(|checked| {
            let wanted = checked.list("enable").unwrap_or_default();
            let names: Vec<&str> = wanted.iter().filter_map(Value::as_str).collect();
            if names.is_empty() {
                return Ok(json!({}));
            }
            Err(QmpError::generic(format!("Capability {} not available", names.join(", "))))
        });
        self.answer(&accepted, id);
        if accepted.is_ok() {
            // After the answer: a client does not expect events before it.
            let subscription = self.shared.events.subscribe(Arc::clone(&self.outgoing));
            self.negotiation = Negotiation::Complete { _subscription: subscription };
        }
    }

    fn answer(&mut self, result: &Result<Value, QmpError>, id: Option<&Value>) {
        print::answer(result, id, &mut self.answer);
        self.queue_answer();
    }

    fn queue_answer(&mut self) {
        self.outgoing.answer(&self.answer);
        self.queued_bytes += self.answer.len();
        self.answer.clear();
        self.answer.shrink_to(KEPT_ANSWER_BYTES);
    }

    /// Writes what waits. In either outcome the task is woken when there is more to do.
    fn send(&mut self, context: &mut Context<'_>) -> io::Result<Sending> {
        loop {
            if self.written_bytes == self.writing.len() {
                self.writing.clear();
                self.written_bytes = 0;
                self.phase = self.outgoing.take(&mut self.writing, context);
                self.queued_bytes = 0;
                if self.writing.is_empty() {
                    return Ok(Sending::Done);
                }
            }
            let rest = &self.writing[self.written_bytes..];
            match Pin::new(&mut *self.socket).poll_write(context, rest)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(count_bytes) => self.written_bytes += count_bytes,
                Poll::Pending => {
                    self.phase = self.outgoing.sleep_through_output(context);
                    return Ok(Sending::Blocked);
                }
            }
        }
    }

    fn read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = ReadBuf::new(&mut self.chunk);
        let outcome = Pin::new(&mut *self.socket).poll_read(context, &mut buffer);
        if let Poll::Ready(Ok(())) = outcome {
            match buffer.filled() {
                [] => self.input = Input::Ended,
                bytes => self.reader.feed(bytes),
            }
        }
        outcome
    }
}

fn not_now(sentence: &str) -> QmpError {
    QmpError::new(ErrorClass::CommandNotFound, sentence)
}
