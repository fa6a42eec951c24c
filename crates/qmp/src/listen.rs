//! Where a server listens: an option of the command line, and the socket made of it.
//!
//! ```text
//! unix:PATH[,server[=on]][,wait=off]       tcp:HOST:PORT[,server[=on]][,wait=off]
//! ```
//!
//! A Unix socket is open to its owner only. A socket file that a dead process left behind is replaced, one that somebody
//! listens on is not. Deliberately absent: connecting out (`server=off`) and waiting for the first client (`wait=on`).

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{TcpListener, UnixListener, UnixStream};

use crate::socket_file::SocketFile;

/// How many clients may wait to be accepted.
const ACCEPT_BACKLOG: i32 = 128;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenSpec {
    /// A socket file.
    Unix {
        /// The file.
        path: PathBuf,
    },
    /// A port.
    Tcp {
        /// Name or address of the interface.
        host: String,
        /// The port; 0 takes any that is free.
        port: u16,
    },
}

/// What is wrong with the text of a [`ListenSpec`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenSpecError {
    /// Neither `unix:` nor `tcp:`.
    #[error("'{text}' is no address to listen on: it must begin with 'unix:' or 'tcp:'")]
    Scheme {
        /// The whole text.
        text: String,
    },
    /// `unix:` without a file.
    #[error("'{text}' names no socket file: write unix:PATH")]
    Path {
        /// The whole text.
        text: String,
    },
    /// `tcp:` without a host.
    #[error("'{text}' names no host: write tcp:127.0.0.1:PORT, or tcp:0.0.0.0:PORT for every interface")]
    Host {
        /// The whole text.
        text: String,
    },
    /// `tcp:` without a port.
    #[error("'{text}' has no port from 0 to 65535 at its end: write tcp:HOST:PORT")]
    Port {
        /// The whole text.
        text: String,
    },
    /// An option that is not known, or not with this value.
    #[error("option '{option}' of '{text}' is not supported: {supported}")]
    Option {
        /// The option as it was written.
        option: String,
        /// The whole text.
        text: String,
        /// What is possible.
        supported: &'static str,
    },
}

impl ListenSpec {
    /// Reads `unix:PATH` or `tcp:HOST:PORT`, each with options.
    ///
    /// # Errors
    ///
    /// Names the part that is missing or not supported.
    pub fn parse(text: &str) -> Result<Self, ListenSpecError> {
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        for option in parts {
            check_option(option, text)?;
        }
        if let Some(path) = address.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(ListenSpecError::Path { text: text.into() });
            }
            return Ok(Self::Unix { path: path.into() });
        }
        let Some(address) = address.strip_prefix("tcp:") else {
            return Err(ListenSpecError::Scheme { text: text.into() });
        };
        let port_error = || ListenSpecError::Port { text: text.into() };
        let (host, port) = address.rsplit_once(':').ok_or_else(port_error)?;
        let port = port.parse().map_err(|_| port_error())?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return Err(ListenSpecError::Host { text: text.into() });
        }
        Ok(Self::Tcp { host: host.into(), port })
    }
}

fn check_option(option: &str, text: &str) -> Result<(), ListenSpecError> {
    let supported = match option {
        "server" | "server=on" | "wait=off" | "nowait" => return Ok(()),
        _ if option.starts_with("server=") => {
            "the server only listens, it does not connect; leave it out or write 'server=on'"
        }
        _ if option == "wait" || option.starts_with("wait=") => {
            "the server does not wait for a client; write 'wait=off'"
        }
        _ => "the options are 'server=on' and 'wait=off'",
    };
    Err(ListenSpecError::Option { option: option.into(), text: text.into(), supported })
}

impl FromStr for ListenSpec {
    type Err = ListenSpecError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl fmt::Display for ListenSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// Why a server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The socket file belongs to a process that lives.
    #[error("cannot listen on {spec}: another process listens there")]
    InUse {
        /// Where.
        spec: ListenSpec,
    },
    /// Something that is not a socket has the name of the socket file.
    #[error("cannot listen on {spec}: there is a file of that name, and it is no socket")]
    NoSocket {
        /// Where.
        spec: ListenSpec,
    },
    /// The host's own words.
    #[error("cannot listen on {spec}: {source}")]
    Host {
        /// Where.
        spec: ListenSpec,
        /// What the host said.
        source: io::Error,
    },
}

/// A socket that listens.
pub(crate) enum Listener {
    Unix(UnixListener, SocketFile),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens on `spec`. Gives the address that was bound too.
    pub(crate) async fn bind(spec: &ListenSpec) -> Result<(Self, ListenSpec), ListenError> {
        let host_error = |source| ListenError::Host { spec: spec.clone(), source };
        match spec {
            ListenSpec::Unix { path } => {
                clear_stale(spec, path).await?;
                let (listener, file) = bind_unix(path).map_err(host_error)?;
                Ok((Self::Unix(listener, file), spec.clone()))
            }
            ListenSpec::Tcp { host, port } => {
                let listener = TcpListener::bind((host.as_str(), *port)).await.map_err(host_error)?;
                let bound = listener.local_addr().map_err(host_error)?;
                Ok((Self::Tcp(listener), ListenSpec::Tcp { host: bound.ip().to_string(), port: bound.port() }))
            }
        }
    }
}

/// Removes a socket file that nobody listens on.
async fn clear_stale(spec: &ListenSpec, path: &Path) -> Result<(), ListenError> {
    let host_error = |source| ListenError::Host { spec: spec.clone(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(host_error(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(ListenError::NoSocket { spec: spec.clone() }),
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(host_error),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(host_error(error)),
        Ok(_) => Err(ListenError::InUse { spec: spec.clone() }),
    }
}

fn bind_unix(path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    let (listener, file) = SocketFile::listen(path, ACCEPT_BACKLOG)?;
    listener.set_nonblocking(true)?;
    Ok((UnixListener::from_std(listener)?, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, written) in [
            ("unix:/x", "unix:/x"),
            ("unix:/x,server=on,wait=off", "unix:/x"),
            ("unix:a b,server,nowait", "unix:a b"),
            ("tcp:localhost:4444,server", "tcp:localhost:4444"),
            ("tcp:[::1]:0,wait=off", "tcp:[::1]:0"),
            ("tcp:::1:7", "tcp:[::1]:7"),
        ] {
            assert_eq!(ListenSpec::parse(text).map(|spec| spec.to_string()), Ok(written.to_owned()));
        }
    }

    #[test]
    fn errors_name_the_part() {
        for (text, sentence) in [
            ("/x", "'/x' is no address to listen on: it must begin with 'unix:' or 'tcp:'"),
            ("unix:,server", "'unix:,server' names no socket file: write unix:PATH"),
            ("tcp::1", "'tcp::1' names no host: write tcp:127.0.0.1:PORT, or tcp:0.0.0.0:PORT for every interface"),
            ("tcp:h", "'tcp:h' has no port from 0 to 65535 at its end: write tcp:HOST:PORT"),
            ("tcp:h:70000", "'tcp:h:70000' has no port from 0 to 65535 at its end: write tcp:HOST:PORT"),
            (
                "unix:/x,server=off",
                "option 'server=off' of 'unix:/x,server=off' is not supported: the server only listens, it does not connect; \
                 leave it out or write 'server=on'",
            ),
            (
                "unix:/x,wait=on",
                "option 'wait=on' of 'unix:/x,wait=on' is not supported: the server does not wait for a client; write 'wait=off'",
            ),
            (
                "unix:/x,telnet",
                "option 'telnet' of 'unix:/x,telnet' is not supported: the options are 'server=on' and 'wait=off'",
            ),
        ] {
            assert_eq!(ListenSpec::parse(text).expect_err("refused").to_string(), sentence);
        }
    }
}
