//! One QMP client against 64, each adding and releasing its own tag on a running `dcd`, every answer durable.
//!
//! Two cycles. *Operators*: add, answer, release by force, answer; the host reads its log and answers nothing, so that
//! operators are all there is. *With the host*: add, answer, ACCEPTED event, release, answer, RELEASED event; the host
//! has one mailbox and must answer offers one by one, each answer durable before the next, so that this crowd cannot be
//! faster than the host. The figure is requests answered in a second, and the ratio between the two crowds; beside it
//! the floor of the same run, one fdatasync.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const CLIENTS: usize = 64;
const MEASURED: Duration = Duration::from_secs(4);
const SIZE: u64 = 2 << 20;

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[derive(Clone, Copy)]
enum Cycle {
    Operators,
    WithHost,
}

fn start(dir: &Path, cycle: Cycle) -> Program {
    let policy = match cycle {
        Cycle::Operators => "driver,policy=hold",
        Cycle::WithHost => "driver,policy=accept",
    };
    let mut child = Command::new(env!("CARGO_BIN_EXE_dcd"))
        .arg("run")
        .args(["--journal".as_ref(), dir.join("journal").as_os_str()])
        .arg("--qmp")
        .arg(format!("unix:{}", dir.join("qmp.sock").display()))
        .args(["--guest", policy, "--device", "cxl-type3,id=cxl-vmem0,dc-regions-total-size=1T"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("dcd starts");
    let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
    let ready = lines.map_while(Result::ok).any(|line| line == "ready");
    assert!(ready, "dcd run is not ready");
    Program(child)
}

/// A client that looks for its own tag in what it hears, and parses nothing else: it must not be what is measured.
struct Client {
    stream: UnixStream,
    heard: Vec<u8>,
    tag: String,
    offset: u64,
}

impl Client {
    async fn connect(dir: &Path, n: usize) -> Self {
        let stream = UnixStream::connect(dir.join("qmp.sock")).await.expect("a connection");
        let tag = format!("00000000-0000-4000-8000-{n:012x}");
        let mut client = Self { stream, heard: Vec::with_capacity(1 << 20), tag, offset: n as u64 * SIZE };
        client.line(|line| line.starts_with("{\"QMP\"")).await;
        client.request("{\"execute\": \"qmp_capabilities\"}").await;
        let tag = &client.tag;
        let make = format!(
            "{{\"execute\": \"object-add\", \"arguments\": {{\"qom-type\": \"memory-backend-ram\", \"id\": \"tm{n}\", \
             \"size\": {SIZE}, \"tag\": \"{tag}\"}}}}"
        );
        client.request(&make).await;
        client
    }

    async fn line(&mut self, fits: impl Fn(&str) -> bool) {
        let mut seen = 0;
        loop {
            while let Some(end) = self.heard[seen..].iter().position(|byte| *byte == b'\n') {
                let found = std::str::from_utf8(&self.heard[seen..seen + end]).is_ok_and(&fits);
                seen += end + 1;
                if found {
                    self.heard.drain(..seen);
                    return;
                }
            }
            self.heard.drain(..seen);
            seen = 0;
            let read = self.stream.read_buf(&mut self.heard).await.expect("bytes");
            assert!(read > 0, "the program is gone");
        }
    }

    async fn request(&mut self, request: &str) {
        self.stream.write_all(request.as_bytes()).await.expect("written");
        self.line(|line| {
            assert!(!line.starts_with("{\"error\""), "{line}");
            line.starts_with("{\"return\"")
        })
        .await;
    }

    async fn event(&mut self, name: &str) {
        let tag = self.tag.clone();
        self.line(|line| line.contains(name) && line.contains(&tag)).await;
    }

    async fn cycle(&mut self, cycle: Cycle) {
        let (tag, offset) = (&self.tag, self.offset);
        let add = format!(
            "{{\"execute\": \"cxl-add-dynamic-capacity\", \"arguments\": {{\"path\": \"cxl-vmem0\", \"host-id\": 0, \
             \"selection-policy\": \"prescriptive\", \"region\": 0, \"tag\": \"{tag}\", \
             \"extents\": [{{\"offset\": {offset}, \"len\": {SIZE}}}]}}}}"
        );
        let forced = matches!(cycle, Cycle::Operators);
        let release = format!(
            "{{\"execute\": \"cxl-release-dynamic-capacity\", \"arguments\": {{\"path\": \"cxl-vmem0\", \"host-id\": 0, \
             \"removal-policy\": \"tag-based\", \"region\": 0, \"tag\": \"{tag}\", \"forced-removal\": {forced}}}}}"
        );
        self.request(&add).await;
        match cycle {
            Cycle::Operators => {
                self.request(&release).await;
                // A withdrawn offer keeps its place until the host has answered it, which this one does not.
                self.offset += CLIENTS as u64 * SIZE;
            }
            Cycle::WithHost => {
                self.event("CXL_DYNAMIC_CAPACITY_ACCEPTED").await;
                self.request(&release).await;
                self.event("CXL_DYNAMIC_CAPACITY_RELEASED").await;
            }
        }
    }
}

/// Requests answered in a second by a crowd of clients.
async fn rate(clients: usize, cycle: Cycle) -> f64 {
    // Beside the target directory, so that it is the disk that is measured and not memory.
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
    let _program = start(dir.path(), cycle);
    let mut crowd = Vec::new();
    for n in 0..clients {
        crowd.push(Client::connect(dir.path(), n).await);
    }
    let start = Instant::now();
    let tasks: Vec<_> = crowd
        .into_iter()
        .map(|mut client| {
            tokio::task::spawn_local(async move {
                let mut requests = 0u64;
                while start.elapsed() < MEASURED {
                    client.cycle(cycle).await;
                    requests += 2;
                }
                requests
            })
        })
        .collect();
    let mut requests = 0;
    for task in tasks {
        requests += task.await.expect("a client");
    }
    requests as f64 / start.elapsed().as_secs_f64()
}

fn fdatasync_us() -> f64 {
    let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
    let mut file = File::create(dir.path().join("floor")).expect("a file");
    let (start, count) = (Instant::now(), 500);
    for _ in 0..count {
        file.write_all(&[7; 200]).expect("written");
        file.sync_data().expect("synced");
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    let local = tokio::task::LocalSet::new();
    println!("floor: one fdatasync {:.1} us", fdatasync_us());
    for (name, cycle) in [("operators", Cycle::Operators), ("with the host", Cycle::WithHost)] {
        let (one, many) = local.block_on(&runtime, async { (rate(1, cycle).await, rate(CLIENTS, cycle).await) });
        let ratio = many / one;
        println!(
            "{name:<14} one client {one:>7.0} requests/s, {CLIENTS} clients {many:>7.0} requests/s, ratio {ratio:.1}"
        );
    }
}
