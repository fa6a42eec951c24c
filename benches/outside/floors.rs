//! What this machine takes, in the same run, for what no program can do without.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread;

use crate::asked::scratch;
use crate::guest::Guest;
use crate::program::Program;
use crate::report::median_us;

/// Medians in microseconds.
pub(crate) struct Floors {
    /// One fdatasync of an appended record.
    pub(crate) fdatasync: f64,
    /// One byte there and back over a Unix socket between two threads.
    pub(crate) echo: f64,
    /// One `readl` over qtest.
    pub(crate) readl: f64,
    /// From exec to exit of the program, which prints its version.
    pub(crate) exec: f64,
}

impl Floors {
    pub(crate) fn measure() -> Self {
        Self { fdatasync: fdatasync(), echo: echo(), readl: readl(), exec: exec() }
    }
}

fn fdatasync() -> f64 {
    let dir = scratch();
    let mut file = File::create(dir.path().join("floor")).expect("a file");
    median_us(500, || {
        file.write_all(&[7; 200]).expect("written");
        file.sync_data().expect("synced");
    })
}

fn echo() -> f64 {
    let (mut near, mut far) = UnixStream::pair().expect("a pair");
    let echo = thread::spawn(move || {
        let mut byte = [0];
        while far.read_exact(&mut byte).is_ok() {
            far.write_all(&byte).expect("echoed");
        }
    });
    let median = median_us(5_000, || {
        near.write_all(&[1]).expect("written");
        near.read_exact(&mut [0]).expect("read");
    });
    drop(near);
    echo.join().expect("an end");
    median
}

fn readl() -> f64 {
    let dir = scratch();
    let program = Program::start(dir.path(), &["--journal", "none"]);
    let mut guest = Guest::over(program.connect("qtest.sock"));
    median_us(5_000, || {
        guest.read(0x10_0000, 'l');
    })
}

fn exec() -> f64 {
    median_us(30, || {
        let status = Command::new(env!("CARGO_BIN_EXE_dcd")).arg("--version").stdout(Stdio::null()).status();
        assert!(status.expect("dcd runs").success());
    })
}
