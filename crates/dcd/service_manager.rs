//! What this process tells the service manager that started it (sd_notify(3)); without one nothing is said.
//!
//! ```text
//!  NOTIFY_SOCKET=/run/… or @abstract        datagrams:  READY=1   STOPPING=1
//!                                           with a descriptor:  FDSTORE=1 FDNAME=…   BARRIER=1
//!                                                               FDSTOREREMOVE=1 FDNAME=…
//! ```
//!
//! Deliberately absent: what the descriptors are, and the watchdog.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt::Timeout;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// How long the manager is waited for to read.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A way to the service manager, where there is one.
#[derive(Debug, Default)]
pub(crate) struct ServiceManager(Option<Way>);

#[derive(Debug)]
struct Way {
    socket: OwnedFd,
    address: SocketAddrUnix,
}

impl ServiceManager {
    /// The manager at an address as `NOTIFY_SOCKET` gives it.
    pub(crate) fn at(address: Option<&OsStr>) -> anyhow::Result<Self> {
        let Some(text) = address.filter(|text| !text.is_empty()) else { return Ok(Self(None)) };
        let bytes = text.as_bytes();
        let address = match bytes {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
            [b'/', ..] => SocketAddrUnix::new(bytes),
            _ => bail!("NOTIFY_SOCKET={}: it is neither a path nor an abstract name", text.display()),
        };
        let address = address.with_context(|| format!("NOTIFY_SOCKET={}", text.display()))?;
        let flags = SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        rustix::net::sockopt::set_socket_timeout(&socket, Timeout::Send, Some(TIMEOUT))?;
        Ok(Self(Some(Way { socket, address })))
    }

    /// Whether there is one.
    pub(crate) fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// Says that this process serves.
    pub(crate) fn ready(&self) {
        self.mention("READY=1");
    }

    /// Says that this process is about to end.
    pub(crate) fn stopping(&self) {
        self.mention("STOPPING=1");
    }

    /// Says something, with descriptors.
    pub(crate) fn say(&self, text: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let Some(Way { socket, address }) = &self.0 else { return Ok(()) };
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !with.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOMANYREFS.into());
        }
        loop {
            let words = [IoSlice::new(text.as_bytes())];
            match rustix::net::sendmsg_addr(socket, address, &words, &mut with, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    /// Waits until everything that was said has been read: a descriptor in a message of a process that has died is lost.
    pub(crate) fn settle(&self) -> io::Result<()> {
        if !self.is_there() {
            return Ok(());
        }
        let (reader, writer) = io::pipe()?;
        self.say("BARRIER=1", &[writer.as_fd()])?;
        drop(writer);
        // The manager closes the other end when it has come to it.
        let timeout = Timespec { tv_sec: TIMEOUT.as_secs() as i64, tv_nsec: 0 };
        loop {
            match rustix::event::poll(&mut [PollFd::new(&reader, PollFlags::empty())], Some(&timeout)) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(io::Error::new(io::ErrorKind::TimedOut, "the service manager does not read")),
                polled => return Ok(polled.map(drop)?),
            }
        }
    }

    /// Says what nothing here depends on.
    fn mention(&self, text: &str) {
        if let Err(error) = self.say(text, &[]) {
            tracing::warn!(%error, text, "the service manager does not hear");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    #[test]
    fn a_manager_hears_at_a_path_and_at_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let at_path = UnixDatagram::bind(&path).unwrap();
        let name = format!("dcd-test-{}", std::process::id());
        let at_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        for (address, socket) in [(path.display().to_string(), at_path), (format!("@{name}"), at_name)] {
            let manager = ServiceManager::at(Some(address.as_ref())).unwrap();
            manager.ready();
            manager.stopping();
            for expected in ["READY=1", "STOPPING=1"] {
                let mut heard = [0; 100];
                let len = socket.recv(&mut heard).unwrap();
                assert_eq!(std::str::from_utf8(&heard[..len]), Ok(expected));
            }
        }
    }

    #[test]
    fn without_a_manager_nothing_is_said() {
        for address in [None, Some("")] {
            let manager = ServiceManager::at(address.map(OsStr::new)).unwrap();
            assert!(!manager.is_there());
            manager.say("READY=1", &[]).unwrap();
            manager.settle().unwrap();
        }
    }

    #[test]
    fn a_manager_that_is_none_stops_nothing() {
        for address in ["vsock:2:1234".to_owned(), "relative".to_owned(), format!("/{}", "x".repeat(200))] {
            let error = format!("{:#}", ServiceManager::at(Some(address.as_ref())).unwrap_err());
            assert!(error.starts_with(&format!("NOTIFY_SOCKET={address}")), "{error}");
        }
        let gone = ServiceManager::at(Some("/nowhere/notify".as_ref())).unwrap();
        gone.ready();
        assert_eq!(gone.say("FDSTORE=1", &[]).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
