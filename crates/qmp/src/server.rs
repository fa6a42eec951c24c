//! Listens, admits clients, and ends them in an orderly way.
//!
//! ```text
//! Server ─┬─ acceptor of unix:/x ──┐
//!         ├─ acceptor of tcp:… ────┴──▶ Roster: one task and one Outgoing for each client
//!         └─ shutdown: stop accepting, let what was begun be answered and sent, remove socket files
//! ```
//!
//! Deliberately absent: authentication. Who may open the socket may do everything; a Unix socket is open to its owner only.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::connection::{Shared, serve};
use crate::error::QmpError;
use crate::events::EventSender;
use crate::listen::{ListenError, ListenSpec, Listener};
use crate::outgoing::Outgoing;
use crate::print;
use crate::service::Service;

/// How many clients may be connected at a time.
pub const CLIENT_LIMIT: usize = 128;

/// How long a shutdown waits for answers under way and for clients to read.
pub const SHUTDOWN_LIMIT_MS: u64 = 3_000;

/// How long nothing is accepted after the host refused to accept, as it does when it is out of file descriptors.
const ACCEPT_PAUSE_MS: u64 = 50;

/// Sockets that listen and that nobody serves yet: clients that connect wait. Dropping it removes the socket files.
#[derive(Default)]
pub struct Listeners {
    listeners: Vec<Listener>,
    addresses: Vec<String>,
}

impl Listeners {
    /// Listens on one more.
    ///
    /// # Errors
    ///
    /// Names the address, and what stands in the way.
    pub async fn listen(&mut self, spec: &ListenSpec) -> Result<(), ListenError> {
        let (listener, bound) = Listener::bind(spec).await?;
        let address = bound.to_string();
        tracing::info!(%address, "QMP server listens");
        self.listeners.push(listener);
        self.addresses.push(address);
        Ok(())
    }
}

/// A running server. Dropping it ends all connections at once; [`Server::shutdown`] lets them finish.
pub struct Server {
    addresses: Vec<String>,
    acceptors: JoinSet<()>,
    roster: Arc<Roster>,
}

impl Server {
    /// Listens on all of `listens` and serves whoever connects. Events sent through `events` reach all clients.
    ///
    /// # Errors
    ///
    /// Names the first address that cannot be listened on; then it listens on none.
    pub async fn start<S: Service>(
        listens: Vec<ListenSpec>,
        service: Arc<S>,
        events: EventSender,
    ) -> Result<Self, ListenError> {
        let mut listeners = Listeners::default();
        for spec in &listens {
            listeners.listen(spec).await?;
        }
        Ok(Self::serve(listeners, service, events))
    }

    /// Serves whoever connects, or has connected, to sockets that listen already.
    #[must_use]
    pub fn serve<S: Service>(listeners: Listeners, service: Arc<S>, events: EventSender) -> Self {
        let Listeners { listeners, addresses } = listeners;
        let commands = service.commands().iter().map(|command| (command.name, command)).collect();
        let shared = Arc::new(Shared { service, events, commands });
        let roster = Arc::new(Roster::default());
        let mut acceptors = JoinSet::new();
        for listener in listeners {
            acceptors.spawn(accept(listener, Arc::clone(&shared), Arc::clone(&roster)));
        }
        Self { addresses, acceptors, roster }
    }

    /// Where it listens, each as [`ListenSpec::parse`] reads it, in the order asked for; ports are the ones that were bound.
    #[must_use]
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// Accepts no more clients and begins no more requests, lets what was begun be answered and sent, then closes everything and
    /// removes the socket files. What takes longer than [`SHUTDOWN_LIMIT_MS`] is cut off.
    pub async fn shutdown(mut self) {
        self.acceptors.shutdown().await;
        let mut connections = self.roster.close();
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if timeout(Duration::from_millis(SHUTDOWN_LIMIT_MS), all_ended).await.is_err() {
            tracing::warn!(clients = connections.len(), limit_ms = SHUTDOWN_LIMIT_MS, "QMP clients are cut off");
            connections.shutdown().await;
        }
    }
}

/// Accepts clients until the task is ended, and the listener and its socket file with it.
async fn accept<S: Service>(listener: Listener, shared: Arc<Shared<S>>, roster: Arc<Roster>) {
    loop {
        let accepted = match &listener {
            Listener::Unix(listener, _file) => accept_unix(listener).await.map(|socket| roster.admit(&shared, socket)),
            Listener::Tcp(listener) => accept_tcp(listener).await.map(|socket| roster.admit(&shared, socket)),
        };
        if let Err(error) = accepted {
            tracing::warn!(%error, "a QMP client could not be accepted");
            sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
        }
    }
}

async fn accept_unix(listener: &tokio::net::UnixListener) -> io::Result<UnixStream> {
    listener.accept().await.map(|(socket, _)| socket)
}

async fn accept_tcp(listener: &tokio::net::TcpListener) -> io::Result<TcpStream> {
    let (socket, _) = listener.accept().await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// A socket that can be written without waiting.
trait TryWrite {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;
}

impl TryWrite for UnixStream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        UnixStream::try_write(self, bytes)
    }
}

impl TryWrite for TcpStream {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        TcpStream::try_write(self, bytes)
    }
}

/// Who is connected.
#[derive(Default)]
struct Roster {
    inner: Mutex<Connections>,
}

#[derive(Default)]
struct Connections {
    tasks: JoinSet<()>,
    queues: Vec<Weak<Outgoing>>,
}

impl Roster {
    /// Begins to serve a client, or tells it that there are too many.
    fn admit<S, Socket>(&self, shared: &Arc<Shared<S>>, socket: Socket)
    where
        S: Service,
        Socket: AsyncRead + AsyncWrite + TryWrite + Unpin + Send + 'static,
    {
        let mut connections = self.lock();
        while connections.tasks.try_join_next().is_some() {}
        connections.queues.retain(|queue| queue.strong_count() > 0);
        if connections.tasks.len() >= CLIENT_LIMIT {
            drop(connections);
            return refuse(&socket);
        }
        let outgoing = Arc::new(Outgoing::new());
        connections.queues.push(Arc::downgrade(&outgoing));
        connections.tasks.spawn(serve(Arc::clone(shared), socket, outgoing));
    }

    /// Asks all connections to end, and gives their tasks.
    fn close(&self) -> JoinSet<()> {
        let mut connections = self.lock();
        connections.queues.drain(..).filter_map(|queue| queue.upgrade()).for_each(|queue| queue.close());
        std::mem::take(&mut connections.tasks)
    }

    fn lock(&self) -> MutexGuard<'_, Connections> {
        // Nothing panics while it is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refuse(socket: &impl TryWrite) {
    let sentence = format!("{CLIENT_LIMIT} clients are connected, which is the limit; try again when one has left");
    let mut answer = Vec::new();
    print::answer(&Err(QmpError::generic(sentence)), None, &mut answer);
    tracing::warn!(limit = CLIENT_LIMIT, "a QMP client is refused: too many are connected");
    // A socket just accepted has room for a sentence; if the client is gone already, nobody is there to be told.
    let _unheard = socket.try_write(&answer);
}
