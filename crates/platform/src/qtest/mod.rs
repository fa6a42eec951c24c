//! The qtest protocol of QEMU: a driver that is another program reaches the platform through a socket.
//!
//! ```text
//!  > writel 0xfe000fe4 0x1      one line, one access; answered when what it started is over
//!  < OK
//!  > read 0x110000000 0x2
//!  < OK 0x00ff
//! ```
//!
//! Port I/O: outb, outw, outl, inb, inw, inl. Memory: writeb to writeq and readb to readq (one access of that width),
//! read, write, b64read, b64write, memset (bytes in a row). Clock: clock_step, clock_set. Numbers are those of C: 0x10,
//! 020, 16. In QEMU a device is done before the write that started it is answered, and drivers rely on that; here a
//! write is answered when no device has a command or a decoder's commit under way ([`Platform::settle`]), or after
//! [`SETTLE_LIMIT`]. Accesses also work while the machine is paused.
//!
//! Where QEMU aborts (a missing word, a number that is none), the answer is a line that begins with `ERR` and nothing
//! has happened. Deliberately absent: asynchronous `IRQ` lines (devices signal by messages, which no line carries), and
//! loading modules.

use std::io::{self, Read, Write};
use std::ops::Deref;
use std::time::Duration;

use crate::bus::Platform;

mod command;
mod encoding;
mod number;

use command::Session;

/// Bytes that one command reads or writes at most.
pub const BULK_LEN_BYTES_MAX: u64 = 64 << 20;

/// The longest line in bytes: a `write` of [`BULK_LEN_BYTES_MAX`], two digits a byte.
pub const LINE_LEN_BYTES_MAX: usize = 2 * BULK_LEN_BYTES_MAX as usize + 256;

/// How long an answer waits for devices. A device that takes longer has lost its actors.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(10);

/// The input buffer's length when no long line is under way.
const INPUT_LEN_BYTES: usize = 64 << 10;

/// The machine as a driver reaches it.
pub trait Machine: Send + Sync {
    /// Its platform, for one access, over which nobody puts another in its place. It may wait until an access is possible.
    fn platform(&self) -> Box<dyn Deref<Target = Platform> + '_>;

    /// Moves the clock forward by so many nanoseconds, and returns what it shows. It runs by itself until the first call of this
    /// or of [`Machine::advance_clock`]; from then on it stands still but for these calls.
    fn step_clock(&self, by_ns: u64) -> u64;

    /// Moves the clock forward to `to_ns`, and returns what it shows: more, if it was past that already.
    fn advance_clock(&self, to_ns: u64) -> u64;
}

/// Serves one client until it leaves.
pub fn serve<S: Read + Write>(machine: &dyn Machine, stream: S) -> io::Result<()> {
    let mut session = Session::new(machine, stream);
    let mut input = Input::default();
    while input.fill(session.stream())? != 0 {
        while let Some(line) = input.next_line() {
            match line {
                Line::Whole(line) => session.execute(line)?,
                Line::TooLong => session.refuse_line()?,
            }
        }
        session.flush()?;
        input.compact();
    }
    Ok(())
}

/// What a client has sent and what of it is a line.
struct Input {
    buffer: Vec<u8>,
    /// Behind what was given out.
    start: usize,
    /// Behind what was received.
    filled: usize,
    /// Up to where there is no end of a line, from `start` on.
    searched: usize,
    /// The line under way is longer than a line may be: what comes is dropped, up to its end.
    skipping: bool,
}

impl Default for Input {
    fn default() -> Self {
        Self { buffer: vec![0; INPUT_LEN_BYTES], start: 0, filled: 0, searched: 0, skipping: false }
    }
}

/// A line without its end.
enum Line<'a> {
    Whole(&'a [u8]),
    TooLong,
}

impl Input {
    /// Receives more; 0 when the client has left.
    fn fill(&mut self, stream: &mut impl Read) -> io::Result<usize> {
        if self.filled == self.buffer.len() {
            let longer = (2 * self.buffer.len()).min(LINE_LEN_BYTES_MAX + 1);
            self.buffer.resize(longer, 0);
        }
        loop {
            match stream.read(&mut self.buffer[self.filled..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(received) => {
                    self.filled += received;
                    return Ok(received);
                }
            }
        }
    }

    fn next_line(&mut self) -> Option<Line<'_>> {
        let unsearched = &self.buffer[self.searched..self.filled];
        let Some(end) = unsearched.iter().position(|byte| *byte == b'\n').map(|at| self.searched + at) else {
            self.searched = self.filled;
            return None;
        };
        let line = self.start..end;
        self.start = end + 1;
        self.searched = self.start;
        if std::mem::take(&mut self.skipping) { Some(Line::TooLong) } else { Some(Line::Whole(&self.buffer[line])) }
    }

    /// Makes room, and gives back what a long line took.
    fn compact(&mut self) {
        let unfinished = self.filled - self.start;
        if self.skipping || unfinished > LINE_LEN_BYTES_MAX {
            self.skipping = true;
            (self.start, self.filled, self.searched) = (0, 0, 0);
        } else {
            self.buffer.copy_within(self.start..self.filled, 0);
            (self.start, self.filled, self.searched) = (0, unfinished, unfinished);
        }
        if self.filled <= INPUT_LEN_BYTES && self.buffer.len() > INPUT_LEN_BYTES {
            self.buffer.truncate(INPUT_LEN_BYTES);
            self.buffer.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives out its bytes in pieces.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let len = self.1.min(to.len()).min(self.0.len());
            to[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    fn lines(sent: &[u8], piece: usize) -> Vec<Option<Vec<u8>>> {
        let (mut input, mut stream, mut lines) = (Input::default(), Pieces(sent, piece), Vec::new());
        while input.fill(&mut stream).unwrap() != 0 {
            while let Some(line) = input.next_line() {
                lines.push(match line {
                    Line::Whole(line) => Some(line.to_vec()),
                    Line::TooLong => None,
                });
            }
            input.compact();
        }
        lines
    }

    #[test]
    fn lines_are_whole_however_they_come() {
        let expected: Vec<_> = [&b"one"[..], b"", b"two three"].iter().map(|line| Some(line.to_vec())).collect();
        for piece in [1, 2, 3, 5, 100] {
            assert_eq!(lines(b"one\n\ntwo three\nnot ended", piece), expected);
        }
        let long = [&[b'x'; 3 * INPUT_LEN_BYTES][..], b"\nshort\n"].concat();
        let lens: Vec<_> = lines(&long, 1000).into_iter().flatten().map(|line| line.len()).collect();
        assert_eq!(lens, [3 * INPUT_LEN_BYTES, 5]);
    }

    #[test]
    fn a_line_that_is_too_long_is_dropped_up_to_its_end() {
        let long = [&vec![b'x'; 2 * LINE_LEN_BYTES_MAX][..], b"\nshort\n"].concat();
        assert_eq!(lines(&long, 1 << 20), [None, Some(b"short".to_vec())]);
        let longest = [&vec![b'x'; LINE_LEN_BYTES_MAX][..], b"\n"].concat();
        assert_eq!(lines(&longest, 1 << 20)[0].as_ref().map(Vec::len), Some(LINE_LEN_BYTES_MAX));
    }
}
