//! Where things are when nobody says where.

use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::Context;

/// The journal of a bare `dcd run`: the XDG state directory.
pub(crate) fn journal() -> anyhow::Result<PathBuf> {
    let state = match absolute("XDG_STATE_HOME") {
        Some(state) => state,
        None => {
            absolute("HOME").context("neither XDG_STATE_HOME nor HOME is set: give --journal DIR")?.join(".local/state")
        }
    };
    Ok(state.join("dcd/journal"))
}

/// The control socket of a bare `dcd run`, and where the other verbs look for it: the XDG runtime directory.
pub(crate) fn socket() -> PathBuf {
    let user = rustix::process::getuid().as_raw();
    let runtime = absolute("XDG_RUNTIME_DIR").map(|dir| dir.join("dcd"));
    runtime.unwrap_or_else(|| std::env::temp_dir().join(format!("dcd-{user}"))).join("qmp.sock")
}

/// Makes a directory that only its owner can enter.
pub(crate) fn make_private_dir(dir: &std::path::Path) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))
}

fn absolute(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}
