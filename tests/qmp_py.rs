//! `qemu.qmp`, the Python package of QEMU's own tools, unmodified, against `--qmp`: its client, its legacy client and
//! `qmp-shell`.
//!
//! It needs python3 with venv, and pip with a network (once: the package stays in the target directory). Where they are missing
//! the test says so and passes, except in CI or with `DCD_REQUIRE_PYTHON=1`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The current release.
const PACKAGE: &str = "qemu.qmp==0.0.6";

/// Runs a command to its end; what it said where it fails.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    if output.status.success() { Ok(said) } else { Err(format!("{command:?}: {}\n{said}", output.status)) }
}

/// A Python that has the package.
fn python() -> Result<PathBuf, String> {
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGE.replace("==", "-"));
    let python = venv.join("bin/python");
    if python.exists() && run(Command::new(&python).args(["-c", "import qemu.qmp"])).is_ok() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]))?;
    Ok(python)
}

fn is_required() -> bool {
    std::env::var_os("CI").is_some() || std::env::var_os("DCD_REQUIRE_PYTHON").is_some_and(|value| value == "1")
}

/// A `dcd run` on a Unix socket and a TCP port, without a journal.
struct Program {
    child: Child,
    /// What it printed before it was ready.
    announced: String,
}

impl Program {
    fn start(socket: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dcd"))
            .args(["run", "--journal", "none", "--qmp", "tcp:127.0.0.1:0", "--qmp"])
            .arg(format!("unix:{}", socket.display()))
            .stdout(Stdio::piped())
            .spawn()
            .expect("dcd starts");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout"));
        let mut announced = String::new();
        while !announced.ends_with("ready\n") {
            assert_ne!(
                lines.read_line(&mut announced).expect("a line"),
                0,
                "it ended without being ready: {announced}"
            );
        }
        Self { child, announced }
    }

    /// Host and port of the TCP socket.
    fn tcp(&self) -> &str {
        let address = self.announced.lines().find_map(|line| line.strip_prefix("qmp: tcp:"));
        address.expect("the address is announced")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // A test that fails leaves no program behind; one that ended it has nothing left to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_tools_of_qemu_speak_to_dcd() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) if is_required() => panic!("{PACKAGE} cannot be had: {reason}"),
        Err(reason) => {
            // Not by a macro: the harness would keep it to itself.
            writeln!(std::io::stderr(), "skipped: {PACKAGE} cannot be had: {reason}").expect("stderr");
            return;
        }
    };
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("qmp.sock");
    let mut program = Program::start(&socket);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qmp_py/client.py");
    // The shell keeps a history in the home directory.
    let done = run(Command::new(python).arg(script).arg(&socket).arg(program.tcp()).env("HOME", dir.path()));
    print!("{}", done.unwrap_or_else(|said| panic!("{said}")));
    assert!(program.child.wait().expect("an end").success(), "the script's last request is `quit`");
}
