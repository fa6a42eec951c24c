//! A running `dcd run` and a QMP client for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Deserializer, StreamDeserializer, Value, de::IoRead, json};

pub(crate) const TAG0: &str = "5be13bce-ae34-4a77-b6c3-16df975fcf1a";
pub(crate) const TAG1: &str = "6be13bce-ae34-4a77-b6c3-16df975fcf1a";
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;

/// The program under test, once for each `cargo test`.
pub(crate) fn dcd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_dcd"))
}

/// Runs a verb to its end.
pub(crate) fn verb(arguments: &[&str]) -> Output {
    dcd().args(arguments).output().expect("dcd runs")
}

/// What a verb printed, and that it succeeded.
pub(crate) fn printed(arguments: &[&str]) -> String {
    let output = verb(arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "dcd {arguments:?}: {out}{err}");
    out.into_owned()
}

/// A `dcd run` with a journal and a socket in one directory.
pub(crate) struct Program {
    child: Child,
    /// Held, so that it can say something at its end.
    out: BufReader<ChildStdout>,
    pub(crate) dir: PathBuf,
    journal: PathBuf,
    /// What it printed before it was ready.
    pub(crate) announced: String,
}

impl Program {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::try_start(dir, arguments).unwrap_or_else(|output| panic!("dcd run did not start: {output}"))
    }

    /// Starts it; what it said where it refuses.
    pub(crate) fn try_start(dir: &Path, arguments: &[&str]) -> Result<Self, String> {
        Self::try_start_on(dir, "journal", arguments)
    }

    /// The same, with a journal of this name.
    pub(crate) fn try_start_on(dir: &Path, journal: &str, arguments: &[&str]) -> Result<Self, String> {
        Self::begin(dir, journal, arguments).ready()
    }

    /// Starts it, and does not wait for anything.
    pub(crate) fn begin(dir: &Path, journal: &str, arguments: &[&str]) -> Self {
        let (socket, journal) = (dir.join("qmp.sock"), dir.join(journal));
        let mut child = dcd()
            .arg("run")
            .args(["--journal".as_ref(), journal.as_os_str()])
            .arg("--qmp")
            .arg(format!("unix:{},server=on,wait=off", socket.display()))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dcd starts");
        let out = BufReader::new(child.stdout.take().expect("stdout"));
        Self { child, out, dir: dir.to_owned(), journal, announced: String::new() }
    }

    /// Waits until it is ready; what it said where it ends instead.
    pub(crate) fn ready(mut self) -> Result<Self, String> {
        while !self.announced.ends_with("ready\n") {
            if self.out.read_line(&mut self.announced).expect("a line") == 0 {
                let mut said = std::mem::take(&mut self.announced);
                self.child.stderr.take().expect("stderr").read_to_string(&mut said).expect("stderr");
                assert!(!self.child.wait().expect("an end").success(), "it ended without being ready: {said}");
                return Err(said);
            }
        }
        Ok(self)
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.dir.join("qmp.sock"))
    }

    /// Waits for an end by itself: whether it was a clean one, and all that it said since it was ready.
    pub(crate) fn end(mut self) -> (bool, String) {
        let mut said = String::new();
        self.out.read_to_string(&mut said).expect("stdout");
        self.child.stderr.take().expect("stderr").read_to_string(&mut said).expect("stderr");
        (self.child.wait().expect("an end").success(), said)
    }

    /// kill -9
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("a kill");
        self.child.wait().expect("an end");
    }

    /// SIGTERM.
    pub(crate) fn signal_to_end(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    }

    /// SIGTERM, and that the end is clean.
    pub(crate) fn terminate(mut self) {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).expect("a signal");
        self.expect_clean_end();
    }

    /// SIGTERM, that the end is clean, and what was said on the way.
    pub(crate) fn terminate_saying(mut self) -> String {
        rustix::process::kill_process(self.pid(), rustix::process::Signal::TERM).expect("a signal");
        let mut said = String::new();
        self.child.stderr.take().expect("stderr").read_to_string(&mut said).expect("stderr");
        self.expect_clean_end();
        said
    }

    /// Waits for the end, which must be clean.
    pub(crate) fn expect_clean_end(&mut self) {
        let status = self.child.wait().expect("an end");
        assert!(status.success(), "dcd run ended with {status}");
    }

    /// Waits for the end, which must be an error, and gives what it said.
    pub(crate) fn expect_failure(mut self) -> String {
        let mut said = String::new();
        self.child.stderr.take().expect("stderr").read_to_string(&mut said).expect("stderr");
        assert!(!self.child.wait().expect("an end").success(), "{said}");
        said
    }

    /// The `--qmp` address for the other verbs.
    pub(crate) fn address(&self) -> String {
        format!("unix:{}", self.dir.join("qmp.sock").display())
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.journal.clone()
    }

    pub(crate) fn pid(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A test that fails leaves no program behind; one that ended it has nothing left to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A QMP client past its negotiation.
pub(crate) struct Client {
    stream: UnixStream,
    input: StreamDeserializer<'static, IoRead<BufReader<UnixStream>>, Value>,
    pub(crate) greeting: Value,
    pub(crate) events: Vec<Value>,
}

impl Client {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let reader = BufReader::new(stream.try_clone().expect("a clone"));
        let mut input = Deserializer::from_reader(reader).into_iter();
        let greeting = input.next().expect("a greeting").expect("JSON");
        let mut client = Self { stream, input, greeting, events: Vec::new() };
        client.execute("qmp_capabilities", json!({})).expect("negotiation");
        client
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("written");
    }

    /// The next message; `None` where the program is gone.
    pub(crate) fn message(&mut self) -> Option<Value> {
        self.input.next()?.ok()
    }

    /// The next answer; events before it are kept.
    pub(crate) fn answer(&mut self) -> Option<Value> {
        loop {
            let message = self.message()?;
            if message.get("event").is_none() {
                return Some(message);
            }
            self.events.push(message);
        }
    }

    /// What a command returns, or the sentence with which it is refused.
    pub(crate) fn execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        self.try_execute(command, arguments).expect("the program is there")
    }

    /// As [`Client::execute`]; `None` where the program is gone.
    pub(crate) fn try_execute(&mut self, command: &str, arguments: Value) -> Option<Result<Value, String>> {
        let request = json!({"execute": command, "arguments": arguments}).to_string();
        self.stream.write_all(request.as_bytes()).ok()?;
        let mut answer = self.answer()?;
        Some(match answer.get("error") {
            Some(error) => Err(error["desc"].as_str().expect("a sentence").to_owned()),
            None => Ok(answer["return"].take()),
        })
    }

    /// The first event of a name for a tag, of those kept or to come.
    pub(crate) fn wait_for(&mut self, name: &str, tag: &str) -> Value {
        let name = format!("CXL_DYNAMIC_CAPACITY_{name}");
        let fits = |event: &Value| event["event"] == name.as_str() && event["data"]["tag"] == tag;
        loop {
            if let Some(at) = self.events.iter().position(fits) {
                return self.events.remove(at)["data"].take();
            }
            let message = self.message().expect("the program is there");
            self.events.push(message);
        }
    }

    pub(crate) fn object_add(&mut self, id: &str, tag: &str, size: u64) -> Result<Value, String> {
        let arguments = json!({"qom-type": "memory-backend-ram", "id": id, "size": size, "share": true, "tag": tag});
        self.execute("object-add", arguments)
    }

    pub(crate) fn add(&mut self, tag: &str, extents: &[(u64, u64)]) -> Result<Value, String> {
        self.execute("cxl-add-dynamic-capacity", add_arguments(tag, extents))
    }

    pub(crate) fn release(&mut self, tag: &str) -> Result<Value, String> {
        self.execute("cxl-release-dynamic-capacity", release_arguments(tag))
    }

    pub(crate) fn state(&mut self, tag: &str) -> String {
        let arguments = json!({"path": "cxl-vmem0", "host-id": 0, "region": 0, "tag": tag});
        let status = self.execute("cxl-release-dynamic-capacity-status", arguments).expect("a status");
        status["state"].as_str().expect("a state").to_owned()
    }

    pub(crate) fn query(&mut self) -> Value {
        self.execute("query-cxl-dynamic-capacity", json!({"path": "cxl-vmem0"})).expect("a query")
    }
}

pub(crate) fn add_arguments(tag: &str, extents: &[(u64, u64)]) -> Value {
    let extents: Value = extents.iter().map(|(offset, len)| json!({"offset": offset, "len": len})).collect();
    json!({
        "path": "/machine/peripheral/cxl-vmem0", "host-id": 0, "selection-policy": "prescriptive", "region": 0,
        "tag": tag, "extents": extents,
    })
}

pub(crate) fn release_arguments(tag: &str) -> Value {
    json!({
        "path": "/machine/peripheral/cxl-vmem0", "host-id": 0, "removal-policy": "tag-based", "region": 0, "tag": tag,
    })
}
