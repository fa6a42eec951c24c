//! Who has a journal open: a note in its directory, so that a question to an open journal finds who can answer it.
//!
//! ```text
//! DIR/owner   {"pid": 4711, "qmp": ["unix:/run/user/1000/dcd/qmp.sock"]}
//! ```
//!
//! Deliberately absent: a lock. Whether the journal is held is the store's lock to say; a note that a killed process left
//! behind is looked at by nobody, and the next run writes its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::Client;

/// A note that is there as long as this is.
pub(crate) struct Note {
    path: PathBuf,
}

impl Note {
    /// Notes that this process has the journal in a directory open, and where it answers.
    pub(crate) fn new(dir: &Path, addresses: &[String]) -> anyhow::Result<Self> {
        let addresses: Vec<_> = addresses.iter().map(|address| absolute(address)).collect();
        let path = dir.join("owner");
        let note = json!({"pid": std::process::id(), "qmp": addresses});
        std::fs::write(&path, format!("{note}\n")).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        // It is looked at only while the journal is held.
        std::fs::remove_file(&self.path).ok();
    }
}

/// The path of a socket as another process can use it.
fn absolute(address: &str) -> String {
    let path = address.strip_prefix("unix:").and_then(|path| std::path::absolute(path).ok());
    path.map_or_else(|| address.to_owned(), |path| format!("unix:{}", path.display()))
}

/// The newest records of an open journal, in a file that is there as long as this is.
pub(crate) struct Tail {
    dir: TempDir,
}

impl Tail {
    /// Has the owner of the journal in a directory write what is in no sealed file.
    pub(crate) fn of(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("owner");
        let note = std::fs::read_to_string(&path).ok().and_then(|text| serde_json::from_str::<Value>(&text).ok());
        let held = || format!("{} is held by another process", dir.display());
        let Some(note) = note else { bail!("{}, which does not say where it answers: stop it first", held()) };
        let Some(address) = note["qmp"][0].as_str() else {
            bail!("{} ({}), which has no control socket: stop it first, or start it with --qmp", held(), note["pid"]);
        };
        let tail = Self { dir: tempfile::tempdir()? };
        let mut owner = Client::connect_to(Some(address)).map_err(|error| {
            // What helps who looks for a program does not help here: it is there.
            let (held, pid, cause) = (held(), &note["pid"], error.root_cause());
            anyhow!("{held} ({pid}), which cannot be asked at {address}: {cause}; ask as the user that runs it, or stop it first")
        })?;
        let asked = owner.execute("x-journal-tail", json!({"filename": tail.path()}));
        asked.with_context(|| format!("{} ({})", held(), note["pid"]))?;
        Ok(tail)
    }

    /// The file.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("tail.dcd")
    }
}
