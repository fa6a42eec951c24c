//! The service manager's store of file descriptors: memory of backends that outlives this process.
//!
//! ```text
//!  a backend is made     FDSTORE=1 FDNAME=backend-tm0 + its memfd ──▶ systemd ── keeps it while no process does
//!  the next process      LISTEN_PID LISTEN_FDS=1 LISTEN_FDNAMES=backend-tm0, descriptor 3 ──▶ its bytes again
//!  a backend is deleted  FDSTOREREMOVE=1 FDNAME=backend-tm0
//! ```
//!
//! A unit needs `FileDescriptorStoreMax=` for it (sd_pid_notify_with_fds(3), sd_listen_fds(3)). What the environment says
//! is checked, and nonsense ends the start before a byte of memory is given up for lost. Variables stay as they are: they
//! name this process, so that children do not take them for theirs. Deliberately absent: what a backend is, and whether
//! what was kept is still what its journal says; who maps it checks its size.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use anyhow::{Context, bail};
use memory::INHERITED_MAX;

use crate::service_manager::ServiceManager;

/// What stands before a backend's id in a name.
const PREFIX: &str = "backend-";

/// The longest name, in bytes (`FDNAME_MAX` in systemd's sd-daemon).
const NAME_LEN_BYTES_MAX: usize = 255;

/// The store.
#[derive(Debug)]
pub(crate) struct FdStore(ServiceManager);

impl FdStore {
    /// The store of the manager that started this process, and what it kept of backends, by their ids. To be called once,
    /// before anything else is opened.
    pub(crate) fn of_environment() -> anyhow::Result<(Self, BTreeMap<String, OwnedFd>)> {
        let variable = |name: &str| std::env::var_os(name);
        let store = Self(ServiceManager::at(variable("NOTIFY_SOCKET").as_deref())?);
        let names = names(&variable, std::process::id())?;
        let fds = memory::inherited(names.len()).context("LISTEN_FDS")?;
        let kept = store.by_backend(names.into_iter().zip(fds));
        Ok((store, kept))
    }

    /// The manager behind it.
    pub(crate) fn manager(&self) -> &ServiceManager {
        &self.0
    }

    /// Has the memory of a backend kept, in the place of what was kept under its id. Returns when the manager has read it;
    /// whether it has room for it the manager does not say.
    pub(crate) fn keep(&self, backend: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
        if !self.0.is_there() {
            return Ok(());
        }
        let name = name(backend)?;
        self.remove(&name)?;
        self.0.say(&format!("FDSTORE=1\nFDNAME={name}"), &[fd])?;
        self.0.settle()
    }

    /// Has what is kept of a backend let go. Returns when the manager has read it.
    pub(crate) fn forget(&self, backend: &str) -> io::Result<()> {
        if !self.0.is_there() {
            return Ok(());
        }
        self.remove(&name(backend)?)?;
        self.0.settle()
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.say(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), &[])
    }

    /// Descriptors of backends by their ids. Of two under one name neither is known to be the backend's memory.
    fn by_backend(&self, fds: impl Iterator<Item = (String, OwnedFd)>) -> BTreeMap<String, OwnedFd> {
        let (mut kept, mut doubtful) = (BTreeMap::new(), BTreeSet::new());
        for (name, fd) in fds {
            let Some(id) = name.strip_prefix(PREFIX).filter(|id| !id.is_empty()) else {
                tracing::warn!(name, "the service manager gives a file descriptor that is no backend's; it is closed");
                continue;
            };
            if kept.insert(id.to_owned(), fd).is_some() {
                doubtful.insert(id.to_owned());
            }
        }
        for id in doubtful {
            tracing::warn!(backend = id, "the service manager gives two memories of this backend; both are let go");
            kept.remove(&id);
            if let Err(error) = self.forget(&id) {
                tracing::warn!(backend = id, %error, "the service manager keeps them");
            }
        }
        kept
    }
}

/// The name under which a backend's memory is kept.
fn name(backend: &str) -> io::Result<String> {
    let name = format!("{PREFIX}{backend}");
    let is_plain = name.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b':');
    if is_plain && !backend.is_empty() && name.len() <= NAME_LEN_BYTES_MAX {
        return Ok(name);
    }
    let sentence =
        format!("'{backend}' cannot name a kept file descriptor: at most {NAME_LEN_BYTES_MAX} of ASCII, no ':'");
    Err(io::Error::new(io::ErrorKind::InvalidInput, sentence))
}

/// The names of the descriptors that this process was given, in their order.
fn names(variable: &dyn Fn(&str) -> Option<OsString>, pid: u32) -> anyhow::Result<Vec<String>> {
    let text = |name: &str| match variable(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(bytes)) => bail!("{name}={}: it is no text", bytes.display()),
    };
    let number = |name: &str| -> anyhow::Result<Option<u64>> {
        let Some(text) = text(name)? else { return Ok(None) };
        text.parse().map(Some).with_context(|| format!("{name}={text}: it is no number"))
    };
    let (Some(listen_pid), Some(count)) = (number("LISTEN_PID")?, number("LISTEN_FDS")?) else { return Ok(Vec::new()) };
    if listen_pid != u64::from(pid) {
        return Ok(Vec::new());
    }
    if count > INHERITED_MAX as u64 {
        bail!("LISTEN_FDS={count}: at most {INHERITED_MAX} file descriptors are taken from a service manager");
    }
    let names: Vec<_> = match text("LISTEN_FDNAMES")? {
        Some(names) if count > 0 => names.split(':').map(str::to_owned).collect(),
        // Without names none is known to be a backend's.
        _ => (0..count).map(|_| "unknown".to_owned()).collect(),
    };
    if names.len() as u64 != count {
        bail!("LISTEN_FDNAMES has {} names and LISTEN_FDS says that there are {count}", names.len());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{IoSliceMut, Read, Write};
    use std::mem::MaybeUninit;
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::fs::FileExt;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;
    use std::thread::JoinHandle;

    use rustix::fs::MemfdFlags;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

    use super::*;

    /// Stands in for systemd.
    struct Manager {
        address: String,
        thread: JoinHandle<Kept>,
        _dir: tempfile::TempDir,
    }

    /// What it kept and what else it heard.
    #[derive(Default)]
    struct Kept {
        fds: BTreeMap<String, Vec<OwnedFd>>,
        heard: Vec<String>,
    }

    impl Manager {
        fn start() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("notify");
            let socket = UnixDatagram::bind(&path).unwrap();
            let thread = std::thread::spawn(move || serve(&socket));
            Self { address: path.display().to_string(), thread, _dir: dir }
        }

        fn store(&self) -> FdStore {
            FdStore(ServiceManager::at(Some(self.address.as_ref())).unwrap())
        }

        /// Ends it.
        fn end(self) -> Kept {
            self.store().manager().say("END", &[]).unwrap();
            self.thread.join().unwrap()
        }
    }

    fn serve(socket: &UnixDatagram) -> Kept {
        let mut kept = Kept::default();
        loop {
            let (text, fds) = receive(socket);
            match text.as_str() {
                "END" => return kept,
                // Its descriptor closes here.
                "BARRIER=1" => assert_eq!(fds.len(), 1),
                _ => {
                    let store = text.strip_prefix("FDSTORE=1\nFDNAME=").map(str::to_owned);
                    let remove = text.strip_prefix("FDSTOREREMOVE=1\nFDNAME=").map(str::to_owned);
                    match (store, remove) {
                        (Some(name), _) => kept.fds.entry(name).or_default().extend(fds),
                        (_, Some(name)) => drop(kept.fds.remove(&name)),
                        _ => kept.heard.push(text),
                    }
                }
            }
        }
    }

    fn receive(socket: &UnixDatagram) -> (String, Vec<OwnedFd>) {
        let (mut bytes, mut fds) = ([0; 1024], Vec::new());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut with, flags).unwrap();
        for message in with.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                fds.extend(came);
            }
        }
        (String::from_utf8(bytes[..received.bytes].to_vec()).unwrap(), fds)
    }

    fn memfd(text: &[u8]) -> File {
        let mut file = File::from(rustix::fs::memfd_create("backend", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(text).unwrap();
        file
    }

    fn text_of(file: &impl AsFd) -> String {
        let mut bytes = [0; 5];
        File::from(file.as_fd().try_clone_to_owned().unwrap()).read_exact_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[test]
    fn the_newest_memory_of_a_backend_is_kept_until_it_is_deleted() {
        let manager = Manager::start();
        let store = manager.store();
        store.keep("tm0", memfd(b"first").as_fd()).unwrap();
        store.keep("tm0", memfd(b"newer").as_fd()).unwrap();
        store.keep("a.b-c_d", memfd(b"other").as_fd()).unwrap();
        store.keep("gone", memfd(b"gone!").as_fd()).unwrap();
        store.forget("gone").unwrap();
        store.forget("never-there").unwrap();
        store.manager().ready();
        let kept = manager.end();
        let texts: Vec<_> =
            kept.fds.iter().map(|(name, fds)| (name.as_str(), fds.iter().map(text_of).collect::<Vec<_>>())).collect();
        let expected = [("backend-a.b-c_d", vec!["other".to_owned()]), ("backend-tm0", vec!["newer".to_owned()])];
        assert_eq!(texts, expected);
        assert_eq!(kept.heard, ["READY=1"]);
    }

    #[test]
    fn what_cannot_be_a_name_is_refused() {
        let manager = Manager::start();
        for id in ["", "a:b", "a\nFDSTOREREMOVE=1", "\u{e4}", &"x".repeat(NAME_LEN_BYTES_MAX)] {
            assert!(manager.store().keep(id, memfd(b"bytes").as_fd()).is_err(), "{id:?}");
            assert!(manager.store().forget(id).is_err(), "{id:?}");
        }
        assert!(manager.end().fds.is_empty());
        let nobody = FdStore(ServiceManager::default());
        nobody.keep("a:b", memfd(b"bytes").as_fd()).unwrap();
        nobody.forget("a:b").unwrap();
    }

    #[test]
    fn a_manager_that_does_not_read_is_not_waited_for_without_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _socket = UnixDatagram::bind(&path).unwrap();
        let store = FdStore(ServiceManager::at(Some(path.as_os_str())).unwrap());
        let error = store.keep("tm0", memfd(b"bytes").as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    /// What the next process is given: run by a shell, which opens the descriptors where systemd has them, and gives its
    /// process id to the program.
    fn next_process(test: &str, manager: &Manager, fds: &[&File], names: &str) {
        let opened = fds.iter().enumerate();
        let opened: String = opened.map(|(at, fd)| format!(" {}<>/proc/$PPID/fd/{}", at + 3, fd.as_raw_fd())).collect();
        let script = format!("exec{opened} && LISTEN_PID=$$ exec \"$0\" \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &script])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", &format!("fd_store::tests::{test}"), "--ignored", "--nocapture"])
            .envs([("NOTIFY_SOCKET", manager.address.as_str()), ("LISTEN_FDNAMES", names)])
            .env("LISTEN_FDS", fds.len().to_string())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn the_next_process_has_the_bytes_again() {
        let manager = Manager::start();
        let store = manager.store();
        let (first, other) = (memfd(b"bytes"), memfd(b"other"));
        store.keep("tm0", first.as_fd()).unwrap();
        store.keep("ends", other.as_fd()).unwrap();
        let stray = File::open("/dev/zero").unwrap();
        let names = "backend-ends:stray:backend-tm0:backend-twice:backend-twice";
        next_process("is_the_next_process", &manager, &[&other, &stray, &first, &first, &other], names);
        assert_eq!(text_of(&first), "after", "the memory is the same one");
        let kept = manager.end();
        assert_eq!(kept.fds.keys().collect::<Vec<_>>(), ["backend-tm0"]);
        assert_eq!(kept.heard, ["READY=1"]);
    }

    #[test]
    #[ignore = "is run in a process of its own"]
    fn is_the_next_process() {
        let (store, kept) = FdStore::of_environment().unwrap();
        for closed in [4, 6, 7] {
            assert!(!std::path::Path::new(&format!("/proc/self/fd/{closed}")).is_symlink(), "{closed} stays open");
        }
        let ids: Vec<_> = kept.keys().map(String::as_str).collect();
        assert_eq!(ids, ["ends", "tm0"], "and nothing of what is no backend's or doubtful");
        assert_eq!((text_of(&kept["ends"]), text_of(&kept["tm0"])), ("other".into(), "bytes".into()));
        let mut file = File::from(kept["tm0"].try_clone().unwrap());
        file.write_all_at(b"after", 0).unwrap();
        let mut whole = String::new();
        file.read_to_string(&mut whole).unwrap();
        store.forget("ends").unwrap();
        store.manager().ready();
    }

    fn names_of(variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let variable = |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, text)| text.into());
        names(&variable, 7).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn nonsense_in_the_environment_ends_the_start() {
        let pid = ("LISTEN_PID", "7");
        for (variables, expected) in [
            (vec![], Ok(vec![])),
            (vec![("LISTEN_FDS", "2")], Ok(vec![])),
            (vec![("LISTEN_PID", "8"), ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a")], Ok(vec![])),
            (vec![pid, ("LISTEN_FDS", "0"), ("LISTEN_FDNAMES", "")], Ok(vec![])),
            (vec![pid, ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a:b")], Ok(vec!["a", "b"])),
            (vec![pid, ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", ":")], Ok(vec!["", ""])),
            (vec![pid, ("LISTEN_FDS", "2")], Ok(vec!["unknown", "unknown"])),
            (
                vec![pid, ("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "a")],
                Err("LISTEN_FDNAMES has 1 names and LISTEN_FDS says that there are 2"),
            ),
            (
                vec![pid, ("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", "a:b")],
                Err("LISTEN_FDNAMES has 2 names and LISTEN_FDS says that there are 1"),
            ),
            (vec![pid, ("LISTEN_FDS", "-1")], Err("LISTEN_FDS=-1: it is no number: invalid digit found in string")),
            (
                vec![("LISTEN_PID", "me"), ("LISTEN_FDS", "1")],
                Err("LISTEN_PID=me: it is no number: invalid digit found in string"),
            ),
            (
                vec![pid, ("LISTEN_FDS", "18446744073709551615")],
                Err("LISTEN_FDS=18446744073709551615: at most 4096 file descriptors are taken from a service manager"),
            ),
        ] {
            let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect()).map_err(str::to_owned);
            assert_eq!(names_of(&variables), expected, "{variables:?}");
        }
    }
}
