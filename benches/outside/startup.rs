//! From exec to the greeting, and what memory the program has then.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::asked::scratch;
use crate::floors::Floors;
use crate::program::Program;
use crate::report::{Row, median};

const STARTS: usize = 20;
/// Between two looks whether somebody listens.
const LOOK: Duration = Duration::from_micros(100);

pub(crate) fn measure(floors: &Floors) -> Vec<Row> {
    let journals = [
        ("a new journal, disk", "journal", "disk"),
        ("a new journal, process", "journal", "process"),
        ("no journal", "none", "disk"),
    ];
    let mut rows = Vec::new();
    for (what, journal, durability) in journals {
        let (greeting_ms, rss, anonymous) = starts(journal, durability);
        let exec_ms = floors.exec / 1_000.0;
        rows.push(
            Row::new(format!("5 start to greeting, {what}"), greeting_ms, "ms")
                .target(8.0)
                .floor(exec_ms, "exec to exit of --version"),
        );
        rows.push(Row { qemu: Some(49.1), ..Row::new(format!("5 RSS idle, {what}"), rss, "MB").target(15.0) });
        rows.push(Row::new(format!("5 of it anonymous, {what}"), anonymous, "MB"));
    }
    rows[0].qemu = Some(20.9);
    rows
}

fn starts(journal: &str, durability: &str) -> (f64, f64, f64) {
    let (mut greetings, mut rss, mut anonymous) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let dir = scratch();
        let place = if journal == "none" { journal.into() } else { dir.path().join(journal).display().to_string() };
        let start = Instant::now();
        let program = Program::spawn(dir.path(), &["--journal", &place, "--durability", durability], Stdio::null());
        let greeted = greeting(&dir.path().join("qmp.sock"));
        greetings.push((greeted - start).as_secs_f64() * 1e3);
        // What a start leaves to its threads is over then.
        thread::sleep(Duration::from_millis(20));
        rss.push(program.memory_kib("VmRSS") as f64 * 1024.0 / 1e6);
        anonymous.push(program.memory_kib("RssAnon") as f64 * 1024.0 / 1e6);
    }
    (median(greetings), median(rss), median(anonymous))
}

/// When the greeting is there.
fn greeting(socket: &Path) -> Instant {
    let patience = Instant::now() + Duration::from_secs(20);
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) => assert!(Instant::now() < patience, "nobody listens: {error}"),
        }
        thread::sleep(LOOK);
    };
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("a greeting");
    assert!(line.starts_with("{\"QMP\""), "{line}");
    Instant::now()
}
