//! Whole messages over a Unix socket, each before a deadline, with the file descriptors that come with it.
//!
//! ```text
//!  sendmsg(header + body, SCM_RIGHTS) ──▶ recvmsg(header) ──▶ recvmsg(body) ──▶ CRC, count of descriptors ──▶ Frame
//! ```
//!
//! The kernel gives descriptors with the first byte of the sendmsg that carried them, and never those of two at once.
//! Deliberately absent: who says what when.

use std::io::IoSlice;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};

use crate::codec;
use crate::error::{HandoverError, Peer};
use crate::frame::{FDS_MAX, HEADER_LEN_BYTES, Header, Kind};

/// The longest reason that is sent, in bytes.
const REASON_LEN_BYTES_MAX: usize = 8 << 10;

/// When a step must be done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    at: Instant,
    timeout: Duration,
}

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        // Further than the clock reaches is never, for which a day does.
        let at = now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(86_400));
        Self { at, timeout }
    }

    pub(crate) fn left(self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(crate) fn timeout_ms(self) -> u64 {
        u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX)
    }
}

/// One message.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) body: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// A connection to the other process.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: UnixStream,
    peer: Peer,
}

impl Channel {
    /// A connection, if the other end is of this user or of root.
    pub(crate) fn new(socket: UnixStream) -> Result<Self, HandoverError> {
        let peer = friend_at(&socket)?;
        Ok(Self { socket, peer })
    }

    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    /// Sends a message whole. Where that fails because the other end is gone, the error is its last words if there are any.
    pub(crate) fn send(
        &self,
        kind: Kind,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), HandoverError> {
        let header = Header::new(kind, body, fds.len())?.to_bytes();
        self.send_bytes(kind, &[&header, body].concat(), fds, deadline)
    }

    /// Says why this end does not go on, if that can be said at once: nobody waits for it.
    pub(crate) fn say_reason(&self, kind: Kind, reason: &str) {
        let end = (0..=REASON_LEN_BYTES_MAX.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
        let Ok(body) = codec::encode(kind, &&reason[..end.unwrap_or(0)]) else { return };
        self.send(kind, &body, &[], Deadline::after(Duration::ZERO)).ok();
    }

    /// Tells the other end why this one does not go on, unless it was the other end that said so.
    pub(crate) fn refuse(&self, error: HandoverError) -> HandoverError {
        if !matches!(error, HandoverError::Refused { .. } | HandoverError::TakenBack { .. }) {
            self.say_reason(Kind::Refused, &error.to_string());
        }
        error
    }

    /// The next message, which must be of kind `awaited`.
    pub(crate) fn expect(&self, awaited: Kind, deadline: Deadline) -> Result<Frame, HandoverError> {
        let frame = self.receive(awaited, deadline)?;
        match frame.kind {
            kind if kind == awaited => Ok(frame),
            Kind::Refused => Err(HandoverError::Refused { reason: codec::decode(frame.kind, &frame.body)? }),
            Kind::TakenBack => Err(HandoverError::TakenBack { reason: codec::decode(frame.kind, &frame.body)? }),
            got => Err(HandoverError::Unexpected { awaited, got }),
        }
    }

    /// Whether there is something to read: a message or the end.
    pub(crate) fn has_news(&self) -> Result<bool, HandoverError> {
        poll(&self.socket, PollFlags::IN, Duration::ZERO)
    }

    /// The next message, whatever it is. `awaited` is for errors.
    pub(crate) fn receive(&self, awaited: Kind, deadline: Deadline) -> Result<Frame, HandoverError> {
        let (mut header, mut fds) = ([0; HEADER_LEN_BYTES], Vec::new());
        self.fill(&mut header, &mut fds, awaited, deadline)?;
        let header = Header::parse(&header)?;
        let mut body = vec![0; header.body_len];
        self.fill(&mut body, &mut fds, awaited, deadline)?;
        header.check_body(&body)?;
        if fds.len() != header.fds {
            return Err(HandoverError::Descriptors { of: header.kind, announced: header.fds, came: fds.len() });
        }
        Ok(Frame { kind: header.kind, body, fds })
    }

    /// `fds` go with the first byte.
    pub(crate) fn send_bytes(
        &self,
        kind: Kind,
        mut bytes: &[u8],
        mut fds: &[BorrowedFd<'_>],
        deadline: Deadline,
    ) -> Result<(), HandoverError> {
        while !bytes.is_empty() {
            match self.send_some(bytes, fds) {
                Ok(sent) => (bytes, fds) = (bytes.get(sent..).unwrap_or_default(), &[]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if !poll(&self.socket, PollFlags::OUT, deadline.left())? {
                        return Err(HandoverError::Deaf { saying: kind, timeout_ms: deadline.timeout_ms() });
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(self.last_words(kind)),
                Err(errno) => return Err(HandoverError::host("a message cannot be sent")(errno)),
            }
        }
        Ok(())
    }

    fn send_some(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut with = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !with.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOMANYREFS);
        }
        rustix::net::sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut with, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// What the other end said before it went.
    fn last_words(&self, sending: Kind) -> HandoverError {
        match self.expect(sending, Deadline::after(Duration::ZERO)) {
            Err(error @ (HandoverError::Refused { .. } | HandoverError::TakenBack { .. })) => error,
            _ => HandoverError::Closed { awaited: sending },
        }
    }

    fn fill(
        &self,
        mut to: &mut [u8],
        fds: &mut Vec<OwnedFd>,
        awaited: Kind,
        deadline: Deadline,
    ) -> Result<(), HandoverError> {
        while !to.is_empty() {
            match self.receive_some(to, fds, awaited) {
                Ok(0) => return Err(HandoverError::Closed { awaited }),
                Ok(received) => to = to.get_mut(received..).unwrap_or_default(),
                Err(Received::Nothing) => {
                    if !poll(&self.socket, PollFlags::IN, deadline.left())? {
                        return Err(HandoverError::Silent { awaited, timeout_ms: deadline.timeout_ms() });
                    }
                }
                Err(Received::Failed(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive_some(&self, to: &mut [u8], fds: &mut Vec<OwnedFd>, awaited: Kind) -> Result<usize, Received> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut with = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let received = match rustix::net::recvmsg(&self.socket, &mut [IoSliceMut::new(to)], &mut with, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Err(Received::Nothing),
            // It went without reading all that it was sent.
            Err(Errno::CONNRESET) => return Ok(0),
            Err(errno) => return Err(Received::Failed(HandoverError::host("a message cannot be received")(errno))),
        };
        for message in with.drain() {
            if let RecvAncillaryMessage::ScmRights(came) = message {
                fds.extend(came);
            }
        }
        if fds.len() > FDS_MAX || received.flags.contains(ReturnFlags::CTRUNC) {
            let (announced, came) = (FDS_MAX, fds.len());
            return Err(Received::Failed(HandoverError::Descriptors { of: awaited, announced, came }));
        }
        Ok(received.bytes)
    }
}

/// Whether a socket is ready within a time.
pub(crate) fn poll(socket: &impl AsFd, flags: PollFlags, timeout: Duration) -> Result<bool, HandoverError> {
    // Longer than the host counts is never, for which its longest does.
    let tv_sec = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
    let timeout = Timespec { tv_sec, tv_nsec: timeout.subsec_nanos().into() };
    match rustix::event::poll(&mut [PollFd::new(socket, flags)], Some(&timeout)) {
        Ok(ready) => Ok(ready > 0),
        // The caller looks again.
        Err(Errno::INTR) => Ok(true),
        Err(errno) => Err(HandoverError::host("a socket cannot be waited for")(errno)),
    }
}

/// Why nothing was received.
enum Received {
    Nothing,
    Failed(HandoverError),
}

/// Who is at the other end of a socket, if it is this user or root.
pub(crate) fn friend_at(socket: &UnixStream) -> Result<Peer, HandoverError> {
    let theirs = rustix::net::sockopt::socket_peercred(socket)
        .map_err(HandoverError::host("the host does not say who is at the other end"))?;
    let peer = Peer { pid: theirs.pid.as_raw_nonzero().get().unsigned_abs(), uid: theirs.uid.as_raw() };
    let ours = rustix::process::geteuid().as_raw();
    if is_friend(peer.uid, ours) { Ok(peer) } else { Err(HandoverError::Stranger { peer, ours }) }
}

fn is_friend(theirs: u32, ours: u32) -> bool {
    theirs == ours || theirs == 0
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const SOON: Duration = Duration::from_millis(30);

    fn pair() -> (Channel, Channel) {
        let (a, b) = UnixStream::pair().unwrap();
        (Channel::new(a).unwrap(), Channel::new(b).unwrap())
    }

    fn soon() -> Deadline {
        Deadline::after(SOON)
    }

    #[test]
    fn only_this_user_and_root_are_friends() {
        for (theirs, ours, is) in [(7, 7, true), (0, 7, true), (0, 0, true), (7, 0, false), (8, 7, false)] {
            assert_eq!(is_friend(theirs, ours), is, "{theirs} {ours}");
        }
    }

    #[test]
    fn descriptors_come_with_the_message_that_names_them() {
        let (ours, theirs) = pair();
        let files: Vec<_> = (0..FDS_MAX).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        for count in [FDS_MAX, 0, 1] {
            ours.send(Kind::Memories, b"names", &fds[..count], soon()).unwrap();
        }
        for count in [FDS_MAX, 0, 1] {
            let frame = theirs.receive(Kind::Memories, soon()).unwrap();
            assert_eq!(
                (frame.kind, frame.body.as_slice(), frame.fds.len()),
                (Kind::Memories, b"names".as_slice(), count)
            );
            for fd in &frame.fds {
                assert!(rustix::io::fcntl_getfd(fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
            }
        }
    }

    #[test]
    fn descriptors_that_nobody_announced_are_refused_and_closed() {
        let (ours, theirs) = pair();
        let (reader, writer) = std::io::pipe().unwrap();
        let header = Header::new(Kind::Hello, &[], 0).unwrap().to_bytes();
        ours.send_bytes(Kind::Hello, &header, &[writer.as_fd()], soon()).unwrap();
        drop(writer);
        let error = theirs.receive(Kind::Hello, soon()).unwrap_err();
        assert!(matches!(error, HandoverError::Descriptors { announced: 0, came: 1, .. }), "{error}");
        assert!(poll(&reader, PollFlags::IN, SOON).unwrap(), "the writing end is closed with the last that had it");
    }

    #[test]
    fn a_message_that_trickles_is_cut_off_at_the_deadline() {
        let (ours, theirs) = pair();
        let mut raw = ours.socket.try_clone().unwrap();
        raw.write_all(&Header::new(Kind::Offer, &[1; 100], 0).unwrap().to_bytes()).unwrap();
        raw.write_all(&[1; 99]).unwrap();
        let error = theirs.receive(Kind::Offer, soon()).unwrap_err();
        assert!(matches!(error, HandoverError::Silent { awaited: Kind::Offer, .. }), "{error}");
    }

    #[test]
    fn who_does_not_read_is_not_waited_for_without_end() {
        let (ours, _theirs) = pair();
        let body = vec![0; 1 << 20];
        let said = (0..100).try_for_each(|_| ours.send(Kind::Bytes, &body, &[], soon()));
        assert!(matches!(said, Err(HandoverError::Deaf { saying: Kind::Bytes, .. })), "{said:?}");
    }

    #[test]
    fn the_last_words_of_who_is_gone_are_the_error() {
        let (ours, theirs) = pair();
        theirs.say_reason(Kind::Refused, &"ä".repeat(100_000));
        drop(theirs);
        let error = ours.send(Kind::Ready, &[], &[], soon()).unwrap_err();
        assert!(matches!(&error, HandoverError::Refused { reason } if reason.len() == REASON_LEN_BYTES_MAX), "{error}");
        let (ours, theirs) = pair();
        drop(theirs);
        let error = ours.send(Kind::Ready, &[], &[], soon()).unwrap_err();
        assert!(matches!(error, HandoverError::Closed { awaited: Kind::Ready }), "{error}");
    }
}
