//! File descriptors that this process was started with.
//!
//! ```text
//!  0, 1, 2   standard streams
//!  3, 4, …   what a service manager kept for the process and gives it (sd_listen_fds(3))
//! ```
//!
//! Deliberately absent: how many there are and what they are called; the environment says so.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::FdFlags;

/// The number of the first one.
const FIRST: RawFd = 3;

/// Most that are taken.
pub const INHERITED_MAX: usize = 4096;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes the first `count` file descriptors after the standard streams, which then close when a program is executed. To be called
/// once, at the start, before anything else is opened.
///
/// # Errors
///
/// One of them is not open or was opened by this process, or they have been taken; then none is.
pub fn inherited(count: usize) -> io::Result<Vec<OwnedFd>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > INHERITED_MAX {
        let sentence = format!("{count} file descriptors are more than the {INHERITED_MAX} that can be inherited");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, sentence));
    }
    // Not past the limit, as was checked.
    let numbers = FIRST..FIRST + count as RawFd;
    numbers.clone().try_for_each(check)?;
    if IS_TAKEN.swap(true, Ordering::SeqCst) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "inherited file descriptors have been taken before"));
    }
    numbers.map(own).collect()
}

/// It must be open since before this program began: what that opens itself closes when a program is executed, and has an
/// owner.
fn check(number: RawFd) -> io::Result<()> {
    let failed = |reason: String| {
        let sentence = format!("file descriptor {number} was not inherited: {reason}");
        io::Error::new(io::ErrorKind::InvalidInput, sentence)
    };
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}"))
        .map_err(|error| failed(format!("it is not open ({error})")))?;
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    match flags.map(OFlags::from_bits_retain) {
        Some(flags) if !flags.contains(OFlags::CLOEXEC) => Ok(()),
        Some(_) => Err(failed("this process has opened it".into())),
        None => Err(failed("the host does not say what it is".into())),
    }
}

fn own(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: it is open, and nobody else owns it: it was open before the program began, because everything that this
    // process opens has the close-on-exec flag and it has not, and it is taken only once.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use super::*;

    /// Runs one of the tests below with `/dev/zero` as 3 and `/dev/null` as 4.
    fn run(test: &str) {
        let script = "exec 3</dev/zero 4</dev/null && exec \"$0\" \"$@\"";
        let program = std::env::current_exe().unwrap();
        let test = format!("inherited::tests::{test}");
        let mut child = Command::new("sh");
        child.args(["-c", script]).arg(program).args(["--exact", &test, "--ignored", "--nocapture"]);
        let output = child.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn what_was_inherited_is_taken_once() {
        run("takes");
    }

    #[test]
    #[ignore = "is run in a process of its own"]
    fn takes() {
        let fds = inherited(2).unwrap();
        let targets = [3, 4].map(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap());
        assert_eq!(targets, ["/dev/zero", "/dev/null"].map(std::path::PathBuf::from));
        for fd in &fds {
            assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(FdFlags::CLOEXEC));
        }
        assert!(inherited(2).unwrap_err().to_string().ends_with("this process has opened it"));
        drop(fds);
        assert!(inherited(2).unwrap_err().to_string().contains("is not open"));
    }

    #[test]
    fn what_this_process_has_opened_stays_its_own() {
        run("leaves_its_own_alone");
    }

    #[test]
    #[ignore = "is run in a process of its own"]
    fn leaves_its_own_alone() {
        let own: Vec<File> = (0..100).map(|_| File::open("/dev/null").unwrap()).collect();
        let said = inherited(20).unwrap_err().to_string();
        assert!(said.ends_with("was not inherited: this process has opened it"), "{said}");
        assert!(own.iter().all(|file| file.metadata().is_ok()), "and none was closed");
        assert_eq!(inherited(2).unwrap().len(), 2, "nothing was taken by the one that failed");
    }

    #[test]
    fn nonsense_counts_are_refused() {
        assert!(inherited(0).unwrap().is_empty());
        assert!(inherited(INHERITED_MAX + 1).is_err());
        assert!(inherited(usize::MAX).is_err());
    }
}
