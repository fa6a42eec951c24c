//! `dcd run --qtest`: a driver outside this process, over a socket.
//!
//! ```text
//!  server=on    listen            server=off   connect
//!  neither      connect where somebody listens already, else listen: test harnesses differ in who comes first
//! ```
//!
//! One client at a time; when it leaves, the next may come. A Unix socket is open to its owner only. Deliberately absent:
//! waiting for the first client (`wait=on`).

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use actors::Vm;
use anyhow::{Context, bail};
use qmp::{ListenSpec, SocketFile};
use rustix::io::Errno;
use rustix::net::RecvFlags;

/// How many clients may wait for the one that is served.
const BACKLOG: i32 = 8;
/// How long nothing is accepted after the host refused to.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a reader looks before it sleeps.
const EAGER: Duration = Duration::from_micros(50);

/// Who connects to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Listen,
    Connect,
    /// Connect where somebody listens, else listen.
    Either,
}

/// Where a driver is met. Dropping it removes the socket file that was made for it.
pub(crate) struct Qtest {
    /// As it is announced.
    pub(crate) address: String,
    meeting: Meeting,
    file: Option<SocketFile>,
}

enum Meeting {
    Client(Box<dyn Stream>),
    Unix(UnixListener),
    Tcp(TcpListener),
}

trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// A socket whose reader looks for a while before it sleeps. A driver sends its next line some microseconds after the
/// last reply; waking a thread on another core costs several times that.
struct Eager<S>(S);

impl<S: Read + AsFd> Read for Eager<S> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let begun = Instant::now();
        while begun.elapsed() < EAGER {
            match rustix::net::recv(&self.0, &mut *to, RecvFlags::DONTWAIT) {
                Ok((received, _)) => return Ok(received),
                // Where there is one core, the driver needs it.
                Err(Errno::AGAIN) => thread::yield_now(),
                Err(error) => return Err(error.into()),
            }
        }
        self.0.read(to)
    }
}

impl<S: Write> Write for Eager<S> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// The address and the role, from `unix:PATH` or `tcp:HOST:PORT` with options.
fn parse(text: &str) -> anyhow::Result<(ListenSpec, Role)> {
    let mut role = Role::Either;
    let mut kept = Vec::new();
    for part in text.split(',') {
        match part {
            "server" | "server=on" => role = Role::Listen,
            "server=off" => role = Role::Connect,
            part => kept.push(part),
        }
    }
    let spec = ListenSpec::parse(&kept.join(",")).with_context(|| format!("--qtest {text}"))?;
    Ok((spec, role))
}

impl Qtest {
    /// Listens or connects, as the text of the option says.
    pub(crate) fn open(text: &str) -> anyhow::Result<Self> {
        let (spec, role) = parse(text)?;
        match &spec {
            ListenSpec::Unix { path } => Self::open_unix(&spec, path, role),
            ListenSpec::Tcp { host, port } => Self::open_tcp(&spec, host, *port, role),
        }
        .with_context(|| format!("--qtest {text}"))
    }

    fn open_unix(spec: &ListenSpec, path: &Path, role: Role) -> anyhow::Result<Self> {
        let address = spec.to_string();
        match UnixStream::connect(path) {
            Ok(_) if role == Role::Listen => bail!("another process listens at {}", path.display()),
            Ok(stream) => return Ok(Self { address, meeting: Meeting::Client(Box::new(Eager(stream))), file: None }),
            Err(error) if role == Role::Connect => bail!("nobody answers at {}: {error}", path.display()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if !fs::symlink_metadata(path)?.file_type().is_socket() {
                    bail!("there is a file {}, and it is no socket", path.display());
                }
                fs::remove_file(path)?;
            }
            Err(error) => return Err(error.into()),
        }
        let (listener, file) = SocketFile::listen(path, BACKLOG)?;
        Ok(Self { address, meeting: Meeting::Unix(listener), file: Some(file) })
    }

    fn open_tcp(spec: &ListenSpec, host: &str, port: u16, role: Role) -> anyhow::Result<Self> {
        if role != Role::Listen {
            match TcpStream::connect((host, port)) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let meeting = Meeting::Client(Box::new(Eager(stream)));
                    return Ok(Self { address: spec.to_string(), meeting, file: None });
                }
                Err(error) if role == Role::Connect => bail!("nobody answers at {host}:{port}: {error}"),
                Err(_) => {}
            }
        }
        let listener = TcpListener::bind((host, port))?;
        let bound = listener.local_addr()?;
        let address = ListenSpec::Tcp { host: bound.ip().to_string(), port: bound.port() }.to_string();
        Ok(Self { address, meeting: Meeting::Tcp(listener), file: None })
    }

    /// Serves clients of the VM on a thread of its own, which ends with the process. The socket file is there as long
    /// as what this returns.
    pub(crate) fn serve(self, vm: &Vm) -> anyhow::Result<Option<SocketFile>> {
        let machine = vm.qtest_machine();
        // A client that breaks off is one that has left.
        let serve = move |stream: Box<dyn Stream>| drop(platform::qtest::serve(&machine, stream));
        let meeting = self.meeting;
        thread::Builder::new().name("qtest".into()).spawn(move || match meeting {
            Meeting::Client(stream) => serve(stream),
            Meeting::Unix(listener) => loop {
                accepted(listener.accept().map(|(stream, _)| stream), &serve);
            },
            Meeting::Tcp(listener) => loop {
                let stream = listener.accept().and_then(|(stream, _)| stream.set_nodelay(true).map(|()| stream));
                accepted(stream, &serve);
            },
        })?;
        Ok(self.file)
    }
}

fn accepted(stream: io::Result<impl Read + Write + AsFd + Send + 'static>, serve: &impl Fn(Box<dyn Stream>)) {
    match stream {
        Ok(stream) => serve(Box::new(Eager(stream))),
        // The host is out of something; it may have it again later.
        Err(_) => thread::sleep(ACCEPT_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_role_is_taken_from_the_options() {
        for (text, address, role) in [
            ("unix:/x", "unix:/x", Role::Either),
            ("unix:/x,server=on,wait=off", "unix:/x", Role::Listen),
            ("unix:/x,server,nowait", "unix:/x", Role::Listen),
            ("tcp:localhost:7,server=off", "tcp:localhost:7", Role::Connect),
        ] {
            let (spec, taken) = parse(text).expect("an address");
            assert_eq!((spec.to_string().as_str(), taken), (address, role));
        }
        assert!(format!("{:#}", parse("unix:/x,wait=on").expect_err("refused")).contains("write 'wait=off'"));
        assert!(format!("{:#}", parse("/x").expect_err("refused")).contains("--qtest /x: '/x' is no address"));
    }

    #[test]
    fn it_connects_where_somebody_listens_and_listens_elsewhere() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("qtest.sock");
        let (plain, on, off) = (
            format!("unix:{}", path.display()),
            format!("unix:{},server=on", path.display()),
            format!("unix:{},server=off", path.display()),
        );
        assert!(Qtest::open(&off).is_err());
        // What a dead process left behind is replaced.
        drop(UnixListener::bind(&path).expect("a socket"));
        let listening = Qtest::open(&plain).expect("a listener");
        assert!(matches!(listening.meeting, Meeting::Unix(_)));
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert!(matches!(Qtest::open(&plain).expect("a client").meeting, Meeting::Client(_)));
        assert!(matches!(Qtest::open(&off).expect("a client").meeting, Meeting::Client(_)));
        assert!(Qtest::open(&on).is_err());
        drop(listening);
        assert!(!path.exists());
        fs::write(&path, "mine").expect("a file");
        assert!(Qtest::open(&plain).is_err());
        assert!(path.exists());
        let tcp = Qtest::open("tcp:127.0.0.1:0,server=on").expect("a port");
        assert!(matches!(Qtest::open(&tcp.address).expect("a client").meeting, Meeting::Client(_)));
    }
}
