//! A Unix socket that only its owner may connect to, and the file that is its name.
//!
//! ```text
//!  bind ──▶ rights of the file ──▶ listen          nobody can connect before the rights are right
//! ```
//!
//! Deliberately absent: what to do about a file that is there already.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// The file of a Unix socket. Removed with this value, unless another has taken its name since.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    /// Listens at `path`, open to the owner of the process only; `backlog` clients may wait to be accepted.
    ///
    /// # Errors
    ///
    /// What the host said: a file of that name is there already, or none can be made.
    pub fn listen(path: &Path, backlog: i32) -> io::Result<(UnixListener, Self)> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
        let made = fs::symlink_metadata(path)?;
        let file = Self { path: path.into(), device: made.dev(), inode: made.ino() };
        // Before it listens: nobody can connect to a socket that is bound only, so nobody slips in under wider rights.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        rustix::net::listen(&socket, backlog)?;
        Ok((socket.into(), file))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| found.dev() == self.device && found.ino() == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "the socket file stays behind");
        }
    }
}
