//! `dcd run --takeover`: how the new process comes to the running one that it takes the VM from.
//!
//! ```text
//!  private socket ── x-hand-over {"socket": PATH}, by QMP ──▶ the running dcd ── connects ──▶ hand-over
//! ```
//!
//! Deliberately absent: the hand-over itself.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use handover::{HandoverError, Meeting};
use serde_json::json;

use crate::client::{Client, Target};

/// How often it is looked whether the running process has refused.
const PACE: Duration = Duration::from_millis(20);

/// Asks the `dcd` that answers at a QMP address for its VM, and gives the connection that it makes.
pub(crate) fn meet(address: &str, timeout: Duration) -> anyhow::Result<UnixStream> {
    let meeting = Meeting::new()?;
    let answer = ask(address.to_owned(), meeting.path().to_owned());
    let begun = Instant::now();
    loop {
        match meeting.accept(PACE) {
            Err(HandoverError::NobodyCame { .. }) if begun.elapsed() < timeout => {}
            accepted => return accepted.with_context(|| format!("the dcd at {address} does not come")),
        }
        // What it answers where it gives the VM, it may answer at once or when all is over.
        if let Ok(Err(refusal)) = answer.try_recv() {
            return Err(refusal.context(format!("the dcd at {address} does not give its VM")));
        }
    }
}

/// Asks on a thread of its own, because the answer may come long after the connection.
fn ask(address: String, socket: PathBuf) -> Receiver<anyhow::Result<()>> {
    let (answer, answered) = mpsc::channel();
    thread::spawn(move || {
        let target = Target { qmp: Some(address), device: None, json: false };
        let asked =
            Client::connect(&target).and_then(|mut giver| giver.execute("x-hand-over", json!({"socket": socket})));
        // Nobody listens any more where the connection has come first.
        answer.send(asked.map(drop)).ok();
    });
    answered
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// Stands in for a running `dcd`: answers one hand-over, and gives the socket that it names.
    fn running(dir: &Path, answer: &'static str) -> (String, thread::JoinHandle<PathBuf>) {
        let path = dir.join("qmp.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
            stream.write_all(b"{\"QMP\": {}}\n").unwrap();
            assert_eq!(next()["execute"], "qmp_capabilities");
            stream.write_all(b"{\"return\": {}}\n").unwrap();
            let asked = next();
            assert_eq!(asked["execute"], "x-hand-over");
            stream.write_all(answer.as_bytes()).unwrap();
            PathBuf::from(asked["arguments"]["socket"].as_str().unwrap())
        });
        (format!("unix:{}", path.display()), thread)
    }

    #[test]
    fn the_running_process_comes_to_the_socket_that_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        for (name, answer) in [("early", "{\"return\": {}}\n"), ("late", "")] {
            let dir = dir.path().join(name);
            std::fs::create_dir(&dir).unwrap();
            let (address, giver) = running(&dir, answer);
            let coming = thread::spawn(move || handover::connect(&giver.join().unwrap()).unwrap());
            let met = meet(&address, Duration::from_secs(20)).unwrap();
            let came = coming.join().unwrap();
            (&came).write_all(b"here\n").unwrap();
            assert_eq!(BufReader::new(met).lines().next().unwrap().unwrap(), "here");
        }
    }

    #[test]
    fn a_refusal_is_said_at_once_and_nobody_is_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let (address, giver) =
            running(dir.path(), "{\"error\": {\"class\": \"GenericError\", \"desc\": \"it is busy\"}}\n");
        let error = meet(&address, Duration::from_secs(60)).unwrap_err();
        assert_eq!(format!("{error:#}"), format!("the dcd at {address} does not give its VM: it is busy"));
        giver.join().unwrap();
        let other = tempfile::tempdir().unwrap();
        let (address, giver) = running(other.path(), "{\"return\": {}}\n");
        let error = meet(&address, Duration::from_millis(50)).unwrap_err();
        assert!(
            format!("{error:#}").starts_with(&format!("the dcd at {address} does not come: nobody has")),
            "{error:#}"
        );
        giver.join().unwrap();
    }
}
