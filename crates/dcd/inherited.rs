//! Control sockets of a process that takes a VM over.
//!
//! ```text
//!  before it asks for the VM   every address that is free is listened on
//!  before it takes the VM      every other must be one of the process that gives it: that ends, and leaves it
//!  when it has the VM          those are listened on, and tried again for as long as somebody is in the way
//! ```
//!
//! So an address that cannot be had is said while the VM can stay where it is; a process that could not listen once ended with the
//! VM in it. Deliberately absent: what is served.

use std::fs;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use qmp::{EventSender, ListenError, ListenSpec, Listeners, Server, VmService};
use rustix::net::sockopt::socket_peercred;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// How often, and how often in a second, an address is tried before the rest goes on without it.
const TRIES: u32 = 10;
const TRY_PAUSE: Duration = Duration::from_millis(100);
/// How often it is tried after that.
const LATE_PAUSE: Duration = Duration::from_secs(1);
/// The state of a socket that listens, in `/proc/net/tcp`.
const TCP_LISTEN: &str = "0A";

/// What is listened on, and what another process listens on as yet.
pub(crate) struct Inherited {
    free: Listeners,
    in_use: Vec<(ListenSpec, ListenError)>,
}

impl Inherited {
    /// Listens on what is free.
    pub(crate) async fn listen(specs: Vec<ListenSpec>) -> anyhow::Result<Self> {
        let (mut free, mut in_use) = (Listeners::default(), Vec::new());
        for spec in specs {
            match free.listen(&spec).await {
                Ok(()) => {}
                Err(error) if is_in_use(&error) => in_use.push((spec, error)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { free, in_use })
    }

    /// Whether all that is in use is in use by the process at the other end of a connection.
    pub(crate) fn check(&self, giver: &UnixStream) -> anyhow::Result<()> {
        let pid = socket_peercred(giver)?.pid.as_raw_nonzero().get();
        for (spec, error) in &self.in_use {
            if !is_of(spec, pid)? {
                bail!("{error}, and not the one that has the VM (process {pid})");
            }
        }
        Ok(())
    }

    /// Serves all of it, now that the process that had it lets go of it.
    pub(crate) async fn serve(self, service: &Arc<VmService>, events: &EventSender) -> Servers {
        let Self { mut free, in_use } = self;
        let (mut late, mut late_addresses) = (Vec::new(), Vec::new());
        for (spec, _) in in_use {
            if let Err(error) = listen_soon(&mut free, &spec).await {
                tracing::warn!("{error}: the VM runs, and it is tried again every second");
                late_addresses.push(spec.to_string());
                late.push(tokio::spawn(listen_late(spec, Arc::clone(service), events.clone())));
            }
        }
        let first = Server::serve(free, Arc::clone(service), events.clone());
        Servers { late, addresses: first.addresses().iter().cloned().chain(late_addresses).collect(), first }
    }
}

async fn listen_soon(listeners: &mut Listeners, spec: &ListenSpec) -> Result<(), ListenError> {
    for _ in 1..TRIES {
        if listeners.listen(spec).await.is_ok() {
            return Ok(());
        }
        sleep(TRY_PAUSE).await;
    }
    listeners.listen(spec).await
}

async fn listen_late(spec: ListenSpec, service: Arc<VmService>, events: EventSender) -> Server {
    loop {
        sleep(LATE_PAUSE).await;
        if let Ok(server) = Server::start(vec![spec.clone()], Arc::clone(&service), events.clone()).await {
            tracing::warn!("{spec} is listened on now");
            return server;
        }
    }
}

/// The servers of a VM: one, and one for each address that came late.
pub(crate) struct Servers {
    first: Server,
    late: Vec<JoinHandle<Server>>,
    /// All addresses, those too that are still tried.
    pub(crate) addresses: Vec<String>,
}

impl From<Server> for Servers {
    fn from(first: Server) -> Self {
        Self { late: Vec::new(), addresses: first.addresses().to_vec(), first }
    }
}

impl Servers {
    /// Ends them, as [`Server::shutdown`] says.
    pub(crate) async fn shutdown(self) {
        self.first.shutdown().await;
        for late in self.late {
            late.abort();
            if let Ok(server) = late.await {
                server.shutdown().await;
            }
        }
    }
}

fn is_in_use(error: &ListenError) -> bool {
    match error {
        ListenError::InUse { .. } => true,
        ListenError::Host { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
        ListenError::NoSocket { .. } => false,
    }
}

/// Whether a process listens there.
fn is_of(spec: &ListenSpec, pid: i32) -> anyhow::Result<bool> {
    match spec {
        ListenSpec::Unix { path } => match UnixStream::connect(path) {
            Ok(stream) => Ok(socket_peercred(&stream)?.pid.as_raw_nonzero().get() == pid),
            // It is free by now.
            Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind()) => {
                Ok(true)
            }
            Err(error) => Err(error.into()),
        },
        ListenSpec::Tcp { port, .. } => Ok(listens_at(pid, *port)?),
    }
}

/// Whether a process has a socket that listens at a port.
fn listens_at(pid: i32, port: u16) -> io::Result<bool> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        // A host may have no IPv6.
        let table = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(table.lines().filter_map(|line| listening_inode(line, port)));
    }
    let is_one = |fd: fs::DirEntry| {
        fs::read_link(fd.path()).is_ok_and(|to| inodes.iter().any(|inode| to.as_os_str() == inode.as_str()))
    };
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().any(is_one))
}

/// `  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 26334 …`: the socket, as descriptors name it.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let mut words = line.split_whitespace().skip(1);
    let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
    let (_, at) = local.rsplit_once(':')?;
    let inode = words.nth(5)?;
    (state == TCP_LISTEN && u16::from_str_radix(at, 16) == Ok(port)).then(|| format!("socket:[{inode}]"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_what_it_listens_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("socket");
        let _unix = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = tcp.local_addr().expect("an address").port();
        let here = rustix::process::getpid().as_raw_nonzero().get();
        let parent = rustix::process::getppid().expect("a parent").as_raw_nonzero().get();
        for spec in [ListenSpec::Unix { path }, ListenSpec::Tcp { host: "127.0.0.1".into(), port }] {
            assert!(is_of(&spec, here).expect("a look"), "{spec}");
            assert!(!is_of(&spec, parent).expect("a look"), "{spec}");
        }
        drop(tcp);
        assert!(!listens_at(here, port).expect("a look"));
    }
}
