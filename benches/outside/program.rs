//! A running `dcd run`, and an operator that parses nothing: it must not be what is measured.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a line may take. A list of 100,000 extents is recorded in that time many times over.
const PATIENCE: Duration = Duration::from_secs(60);

/// The program; dropping it kills it.
pub(crate) struct Program {
    child: Child,
    dir: PathBuf,
}

impl Program {
    /// Starts it with its sockets in `dir`, and waits until it is ready.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut program = Self::spawn(dir, arguments, Stdio::piped());
        let lines = BufReader::new(program.child.stdout.take().expect("stdout")).lines();
        let is_ready = lines.map_while(Result::ok).any(|line| line == "ready");
        assert!(is_ready, "dcd run is not ready");
        program
    }

    /// Starts it and waits for nothing.
    pub(crate) fn spawn(dir: &Path, arguments: &[&str], stdout: Stdio) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_dcd"))
            .arg("run")
            .args(["--qmp", &format!("unix:{}", dir.join("qmp.sock").display())])
            .args(["--qtest", &format!("unix:{}", dir.join("qtest.sock").display())])
            .args(arguments)
            .stdout(stdout)
            .spawn()
            .expect("dcd starts");
        Self { child, dir: dir.to_owned() }
    }

    pub(crate) fn operator(&self) -> Operator {
        Operator::over(self.connect("qmp.sock"))
    }

    pub(crate) fn connect(&self, socket: &str) -> UnixStream {
        let stream = UnixStream::connect(self.dir.join(socket)).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// A line of `/proc/PID/status` in KiB.
    pub(crate) fn memory_kib(&self, line: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a status");
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let value = found.and_then(|value| value.trim().strip_suffix(" kB"));
        value.and_then(|kib| kib.parse().ok()).expect("a number")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A QMP client.
pub(crate) struct Operator {
    stream: UnixStream,
    input: BufReader<UnixStream>,
    line: Vec<u8>,
}

impl Operator {
    /// Reads the greeting and negotiates.
    pub(crate) fn over(stream: UnixStream) -> Self {
        let input = BufReader::with_capacity(1 << 16, stream.try_clone().expect("a clone"));
        let mut operator = Self { stream, input, line: Vec::new() };
        operator.until(b"{\"QMP\"");
        operator.request("{\"execute\": \"qmp_capabilities\"}");
        operator
    }

    /// Sends a request and waits until it has succeeded.
    pub(crate) fn request(&mut self, request: &str) {
        self.stream.write_all(request.as_bytes()).expect("written");
        self.until(b"{\"return\"");
    }

    fn until(&mut self, beginning: &[u8]) {
        while !self.line.starts_with(beginning) {
            self.next_line();
        }
        self.line.clear();
    }

    fn next_line(&mut self) {
        self.line.clear();
        let len = self.input.read_until(b'\n', &mut self.line).expect("a line");
        assert!(len > 0, "the program is gone");
        assert!(!self.line.starts_with(b"{\"error\""), "{}", String::from_utf8_lossy(&self.line));
    }
}

/// `cxl-add-dynamic-capacity` of blocks of `len_bytes`, one behind the other from `offset` on.
pub(crate) fn add_request(tag: &str, offset: u64, len_bytes: u64, count: u64) -> String {
    request("add", "\"selection-policy\": \"prescriptive\"", tag, offset, len_bytes, count)
}

/// `cxl-release-dynamic-capacity` of the same.
pub(crate) fn release_request(tag: &str, offset: u64, len_bytes: u64, count: u64) -> String {
    request("release", "\"removal-policy\": \"prescriptive\"", tag, offset, len_bytes, count)
}

fn request(verb: &str, policy: &str, tag: &str, offset: u64, len_bytes: u64, count: u64) -> String {
    let extent = |index| format!("{{\"offset\": {}, \"len\": {len_bytes}}}", offset + index * len_bytes);
    let extents: Vec<_> = (0..count).map(extent).collect();
    format!(
        "{{\"execute\": \"cxl-{verb}-dynamic-capacity\", \"arguments\": {{\"path\": \"cxl-vmem0\", \"host-id\": 0, \
         {policy}, \"region\": 0, \"tag\": \"{tag}\", \"extents\": [{}]}}}}",
        extents.join(", ")
    )
}
