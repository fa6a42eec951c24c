//! The deed: the one token of a hand-over, which either process can draw and only one does.
//!
//! ```text
//!          eventfd, counts 1, semaphore
//!  giver ──── read ──▶ 1 (Won)            the kernel takes the one away under the eventfd's lock
//!  taker ──── read ──▶ EAGAIN (Gone)
//! ```
//!
//! Deliberately absent: putting it back. A deed that was drawn stays drawn.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::EventfdFlags;
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::error::HandoverError;
use crate::frame::Kind;

/// The token. Both processes hold the same one.
#[derive(Debug)]
pub(crate) struct Deed(OwnedFd);

/// What drawing a deed gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Draw {
    /// It was there: who drew it owns the VM.
    Won,
    /// The other has drawn it.
    Gone,
}

impl Deed {
    /// A deed that nobody has drawn. Fails where the host is out of file descriptors.
    pub(crate) fn new() -> Result<Self, HandoverError> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE;
        rustix::event::eventfd(1, flags).map(Self).map_err(HandoverError::host("the deed cannot be made"))
    }

    /// The deed that came from the other process.
    pub(crate) fn from_fd(fd: OwnedFd) -> Result<Self, HandoverError> {
        let flags = rustix::fs::fcntl_getfl(&fd).map_err(HandoverError::host("the deed cannot be read"))?;
        if flags.contains(OFlags::NONBLOCK) {
            return Ok(Self(fd));
        }
        // Drawing must not wait.
        Err(HandoverError::Malformed { of: Kind::End, reason: "what came as the deed is none".into() })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Draws it. A deed that cannot be read counts as gone: who is not sure does not act.
    #[must_use]
    pub(crate) fn draw(&self) -> Draw {
        let mut count = [0; 8];
        loop {
            match rustix::io::read(&self.0, &mut count) {
                Err(Errno::INTR) => {}
                Ok(8) if u64::from_ne_bytes(count) == 1 => return Draw::Won,
                _ => return Draw::Gone,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;

    #[test]
    fn of_many_who_draw_one_wins() {
        for _ in 0..200 {
            let deed = Deed::new().unwrap();
            let theirs = Deed::from_fd(deed.0.try_clone().unwrap()).unwrap();
            let barrier = Barrier::new(4);
            let draw = |deed: &Deed| {
                barrier.wait();
                deed.draw()
            };
            let draws: Vec<_> = thread::scope(|scope| {
                let threads = [&deed, &theirs, &deed, &theirs].map(|deed| scope.spawn(move || draw(deed)));
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(draws.iter().filter(|draw| **draw == Draw::Won).count(), 1);
            assert_eq!(deed.draw(), Draw::Gone, "and it stays drawn");
        }
    }

    #[test]
    fn what_would_wait_or_says_nonsense_is_no_deed() {
        let file = std::fs::File::open("/dev/zero").unwrap();
        assert!(Deed::from_fd(file.into()).is_err(), "it might wait");
        let zero = rustix::fs::open("/dev/zero", OFlags::RDONLY | OFlags::NONBLOCK, rustix::fs::Mode::empty()).unwrap();
        assert_eq!(Deed::from_fd(zero).unwrap().draw(), Draw::Gone, "zero is not one");
    }
}
