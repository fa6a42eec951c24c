//! How the two processes find each other: the taker listens where only its user can come, and the giver connects.
//!
//! ```text
//!  taker: Meeting::new ── path, by QMP ──▶ giver: connect(path)
//!         accept ◀──────────────────────────┘
//! ```
//!
//! Deliberately absent: QMP.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tempfile::TempDir;

use crate::channel::{Deadline, friend_at, poll};
use crate::error::HandoverError;

/// A socket in a directory of its own that only this user may enter. Both go with this value.
#[derive(Debug)]
pub struct Meeting {
    listener: UnixListener,
    path: PathBuf,
    /// Held for its end.
    _dir: TempDir,
}

impl Meeting {
    /// Listens.
    ///
    /// # Errors
    ///
    /// What the host said.
    pub fn new() -> Result<Self, HandoverError> {
        let failed = |source| HandoverError::Host { doing: "a private socket cannot be made", source };
        let only_owner = std::fs::Permissions::from_mode(0o700);
        let dir =
            tempfile::Builder::new().prefix("dcd-hand-over-").permissions(only_owner).tempdir().map_err(failed)?;
        let path = dir.path().join("socket");
        let listener = UnixListener::bind(&path).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, path, _dir: dir })
    }

    /// Where to connect.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for the giver. Who is of another user is turned away.
    ///
    /// # Errors
    ///
    /// [`HandoverError::NobodyCame`], or what the host said.
    pub fn accept(&self, timeout: Duration) -> Result<UnixStream, HandoverError> {
        let deadline = Deadline::after(timeout);
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => match friend_at(&stream) {
                    Ok(_) => return Ok(stream),
                    Err(HandoverError::Stranger { .. }) => {}
                    Err(error) => return Err(error),
                },
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.wait(deadline)?,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => return Err(HandoverError::Host { doing: "the giver cannot be accepted", source }),
            }
        }
    }

    fn wait(&self, deadline: Deadline) -> Result<(), HandoverError> {
        if poll(&self.listener, PollFlags::IN, deadline.left())? {
            return Ok(());
        }
        Err(HandoverError::NobodyCame { path: self.path.display().to_string(), timeout_ms: deadline.timeout_ms() })
    }
}

/// Connects to a taker that listens at `path`. Does not wait: it listens already, and nobody else is to come.
///
/// # Errors
///
/// [`HandoverError::Stranger`] where another user listens, or what the host said.
pub fn connect(path: &Path) -> Result<UnixStream, HandoverError> {
    let failed = HandoverError::host("no taker listens at the socket that was named");
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(&failed)?;
    let address = SocketAddrUnix::new(path).map_err(&failed)?;
    rustix::net::connect(&socket, &address).map_err(&failed)?;
    let stream = UnixStream::from(socket);
    friend_at(&stream).map(|_| stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_meet_where_nobody_else_can_come() {
        let meeting = Meeting::new().unwrap();
        let dir = meeting.path().parent().unwrap().to_owned();
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        let giver = connect(meeting.path()).unwrap();
        let taker = meeting.accept(Duration::from_secs(10)).unwrap();
        for stream in [&giver, &taker] {
            assert_eq!(friend_at(stream).unwrap().pid, std::process::id());
        }
        drop(meeting);
        assert!(!dir.exists(), "nothing stays behind");
    }

    #[test]
    fn nobody_is_waited_for_without_end_and_nobody_is_connected_to() {
        let meeting = Meeting::new().unwrap();
        let error = meeting.accept(Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, HandoverError::NobodyCame { timeout_ms: 20, .. }), "{error}");
        let path = meeting.path().to_owned();
        drop(meeting);
        assert!(connect(&path).unwrap_err().to_string().starts_with("no taker listens"));
        let too_long = PathBuf::from("x".repeat(4096));
        assert!(connect(&too_long).is_err());
    }
}
