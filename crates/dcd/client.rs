//! A QMP client for the verbs that talk to a running `dcd`.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde_json::{Deserializer, StreamDeserializer, Value, de::IoRead, json};

use crate::place;

/// How long a program may take to greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(10);

/// How the verbs find the running program.
#[derive(Debug, clap::Args)]
pub(crate) struct Target {
    /// The control socket of the running dcd: unix:PATH or tcp:HOST:PORT. Default: that of a bare `dcd run`.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) qmp: Option<String>,
    /// QOM path or id of the device, where there are several.
    #[arg(long)]
    pub(crate) device: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

/// A connection past its negotiation.
pub(crate) struct Client {
    output: Box<dyn Write>,
    input: StreamDeserializer<'static, IoRead<std::io::BufReader<Box<dyn Read>>>, Value>,
    events: VecDeque<Value>,
}

impl Client {
    /// Connects to the running program.
    pub(crate) fn connect(target: &Target) -> anyhow::Result<Self> {
        Self::connect_to(target.qmp.as_deref())
    }

    /// Connects to the program at an address; where there is none, to a bare `dcd run`.
    pub(crate) fn connect_to(address: Option<&str>) -> anyhow::Result<Self> {
        let address = address.map_or_else(|| format!("unix:{}", place::socket().display()), str::to_owned);
        let (input, output, socket): (Box<dyn Read>, Box<dyn Write>, OwnedFd) =
            if let Some(path) = address.strip_prefix("unix:") {
                let path = PathBuf::from(path);
                let stream = UnixStream::connect(&path)
                    .with_context(|| format!("no dcd answers at {}: start one with `dcd run`", path.display()))?;
                (Box::new(stream.try_clone()?), Box::new(stream.try_clone()?), stream.into())
            } else if let Some(host) = address.strip_prefix("tcp:") {
                let stream = TcpStream::connect(host).with_context(|| format!("no dcd answers at {host}"))?;
                (Box::new(stream.try_clone()?), Box::new(stream.try_clone()?), stream.into())
            } else {
                bail!("'{address}' is no address: unix:PATH or tcp:HOST:PORT");
            };
        let input = Deserializer::from_reader(std::io::BufReader::new(input)).into_iter();
        let mut client = Self { output, input, events: VecDeque::new() };
        // A process that is stopped lets its clients in and says nothing.
        set_socket_timeout(&socket, Timeout::Recv, Some(GREETING_TIMEOUT))?;
        let greeting = client.next().map_err(|error| {
            if is_timeout(&error) {
                let seconds = GREETING_TIMEOUT.as_secs();
                return anyhow!("what listens at {address} has not greeted within {seconds} s: is it stopped?");
            }
            error.context(format!("what listens at {address} does not greet"))
        })?;
        if greeting.get("QMP").is_none() {
            bail!("what answers at {address} does not speak QMP");
        }
        client.execute("qmp_capabilities", json!({}))?;
        set_socket_timeout(&socket, Timeout::Recv, None)?;
        Ok(client)
    }

    /// Executes a command and returns what it returns.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> anyhow::Result<Value> {
        let request = json!({"execute": command, "arguments": arguments});
        let sent = self.output.write_all(format!("{request}\n").as_bytes()).and_then(|()| self.output.flush());
        sent.with_context(|| format!("the connection broke before '{command}'"))?;
        loop {
            let mut message = self.next()?;
            if let Some(error) = message.get("error") {
                bail!("{}", error["desc"].as_str().unwrap_or("refused without a reason"));
            }
            match message.get_mut("return") {
                Some(returned) => return Ok(returned.take()),
                None => self.events.push_back(message),
            }
        }
    }

    /// The next event; `None` when the program has ended.
    pub(crate) fn event(&mut self) -> anyhow::Result<Option<Value>> {
        match self.events.pop_front() {
            Some(event) => Ok(Some(event)),
            None => self.input.next().transpose().context("the connection broke"),
        }
    }

    fn next(&mut self) -> anyhow::Result<Value> {
        self.input.next().context("the program ended")?.context("the connection broke")
    }
}

/// Whether nothing came for as long as a socket waits.
fn is_timeout(error: &anyhow::Error) -> bool {
    let json = error.chain().find_map(|cause| cause.downcast_ref::<serde_json::Error>());
    json.and_then(serde_json::Error::io_error_kind) == Some(ErrorKind::WouldBlock)
}

/// Everything about the device that the verb means.
pub(crate) fn query(client: &mut Client, target: &Target) -> anyhow::Result<Value> {
    let arguments = target.device.as_ref().map_or_else(|| json!({}), |device| json!({"path": device}));
    client.execute("query-cxl-dynamic-capacity", arguments)
}
